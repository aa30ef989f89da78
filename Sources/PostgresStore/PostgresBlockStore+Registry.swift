public import AshlarCore
import Failpoints
public import Ownership

extension PostgresBlockStore {
    /// See ``BlockStore/volumes(after:limit:completion:)``.
    public func volumes(
        after: String?,
        limit: Int,
        completion: @escaping @Sendable (Result<[VolumeDescription], StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .single(
                isChange: false,
                {
                    var call = Call(Statements.volumesAfter)
                    call.add(after ?? "")
                    call.add(Int64(limit))
                    return call
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var volumes: [VolumeDescription] = []
                for row in 0..<result.count { volumes.append(try result.volume(row)) }
                return volumes
            }
        )
    }

    /// See ``BlockStore/volume(iqn:completion:)``.
    public func volume(
        iqn: String,
        completion: @escaping @Sendable (Result<VolumeDescription?, StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .single(
                isChange: false,
                {
                    var call = Call(Statements.volumeByIQN)
                    call.add(iqn)
                    return call
                },
                completion: completion
            ) { (result) throws(StoreFailure) in result.count == 0 ? nil : try result.volume(0) }
        )
    }

    /// Reads how many bytes the write-ahead log takes. Needs the rights of `pg_monitor`.
    public func logBytes(completion: @escaping @Sendable (Result<UInt64, StoreFailure>) -> Void) {
        sessionLane.submit(
            .single(isChange: false, { Call(Statements.logBytes) }, completion: completion) {
                (result) throws(StoreFailure) in try result.unsigned(0, 0)
            }
        )
    }

    /// See ``BlockStore/heartbeat(_:completion:)``.
    public func heartbeat(
        _ heartbeat: TargetHeartbeat,
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheTargetReported,
                {
                    var call = Call(Statements.heartbeat)
                    call.add(heartbeat.node)
                    call.add(heartbeat.portal)
                    call.add(Int64(heartbeat.portalGroupTag))
                    call.add(heartbeat.release)
                    call.add(Int64(heartbeat.sessions))
                    return call
                },
                completion: completion
            ) { _ in }
        )
    }

    /// See ``BlockStore/report(_:completion:)``.
    public func report(
        _ node: TargetNodeState,
        completion: @escaping @Sendable (Result<[TargetNodeState], StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheTargetReported,
                {
                    var call = Call(Statements.reportTarget)
                    call.add(node.name)
                    call.add(node.portal)
                    call.add(Int64(node.port.portalGroupTag))
                    call.add(Int64(node.port.relativePortIdentifier))
                    call.add(node.release)
                    call.add(Int64(node.sessions))
                    call.add(Int64(node.receivesLogins ? 1 : 0))
                    return call
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var nodes: [TargetNodeState] = []
                for row in 0..<result.count { nodes.append(try result.targetNode(row)) }
                return nodes
            }
        )
    }
}

extension QueryResult {
    fileprivate func targetNode(_ row: Int) throws(StoreFailure) -> TargetNodeState {
        TargetNodeState(
            name: string(row, 0),
            portal: string(row, 1),
            port: TargetPort(
                portalGroupTag: try exactly(row, 2, as: UInt16.self),
                relativePortIdentifier: try exactly(row, 3, as: UInt16.self)
            ),
            release: string(row, 4),
            sessions: UInt32(clamping: try int(row, 5)),
            receivesLogins: try bool(row, 6),
            isDraining: try bool(row, 7)
        )
    }

    /// A volume from the columns that all statements about volumes select.
    func volume(_ row: Int) throws(StoreFailure) -> VolumeDescription {
        let sizeBytes = try unsigned(row, 4)
        let blockSizeBytes = try exactly(row, 5, as: UInt32.self)
        let logicalBlockSizeBytes = try exactly(row, 6, as: UInt32.self)
        let geometry: Geometry
        do {
            geometry = try Geometry(
                sizeBytes: sizeBytes,
                blockSizeBytes: blockSizeBytes,
                logicalBlockSizeBytes: logicalBlockSizeBytes
            )
        } catch {
            throw StoreFailure.broken("volume \(try int(row, 0)) has an impossible geometry")
        }
        var description = VolumeDescription(
            id: VolumeID(try int(row, 0)),
            name: string(row, 1),
            iqn: string(row, 2),
            uuid: [UInt8](bytes(row, 3)),
            geometry: geometry,
            isReadOnly: try bool(row, 7),
            policy: try policy(row),
            access: try access(row),
            revision: try unsigned(row, 8)
        )
        if !isNull(row, 22) { description.zeroFromBytes = try unsigned(row, 22) }
        return description
    }

    private func policy(_ row: Int) throws(StoreFailure) -> CachePolicy {
        func number<T: FixedWidthInteger>(_ column: Int, _ standard: T) throws(StoreFailure) -> T {
            isNull(row, column) ? standard : try exactly(row, column, as: T.self)
        }
        let standard = CachePolicy.standard
        return CachePolicy(
            move: MovePolicy(rawValue: string(row, 9)) ?? standard.move,
            unmovedItemsMaximum: try number(11, standard.unmovedItemsMaximum),
            unmovedBytesMaximum: try number(12, standard.unmovedBytesMaximum),
            unmovedAgeMaximumSeconds: try number(13, standard.unmovedAgeMaximumSeconds),
            cachedBytesMaximum: try number(14, standard.cachedBytesMaximum),
            readFill: ReadFillPolicy(rawValue: string(row, 10)) ?? standard.readFill,
            compactBelowPercent: try number(15, standard.compactBelowPercent),
            directWriteMinimumBytes: try number(16, standard.directWriteMinimumBytes),
            writeThroughMinimumBytes: try number(23, standard.writeThroughMinimumBytes),
            readsBothAtOnce: isNull(row, 24) ? standard.readsBothAtOnce : try bool(row, 24)
        )
    }

    private func access(_ row: Int) throws(StoreFailure) -> AccessRules {
        func credentials(_ names: Int, _ secrets: Int) throws(StoreFailure) -> [CHAPCredential] {
            zip(try strings(row, names), try strings(row, secrets)).map { CHAPCredential(name: $0, secret: $1) }
        }
        return AccessRules(
            initiators: try strings(row, 17),
            credentials: try credentials(18, 19),
            mutual: try credentials(20, 21).first
        )
    }
}
