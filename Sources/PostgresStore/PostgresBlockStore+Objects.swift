public import AshlarCore
import Failpoints
public import Ownership

extension PostgresBlockStore {
    /// See ``BlockStore/reserveObjects(volume:count:completion:)``.
    public func reserveObjects(
        volume: VolumeID,
        count: Int,
        completion: @escaping @Sendable (Result<[ObjectID], StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheObjectsReserved,
                { Call(Statements.reserveObjects, Int64(volume), Int64(count)) },
                completion: completion
            ) { (result) throws(StoreFailure) in try result.objectIDs() }
        )
    }

    /// See ``BlockStore/fetchMoveCandidates(volume:from:limit:completion:)``.
    public func fetchMoveCandidates(
        volume: VolumeID,
        from: BlockID?,
        limit: Int,
        completion: @escaping @Sendable (Result<MoveCandidates, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: false,
                {
                    guard let from else { return Call(Statements.moveCandidates, Int64(volume), Int64(limit)) }
                    return Call(Statements.moveNeighbours, Int64(volume), Int64(limit), Int64(from))
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var ages: [UInt64] = []
                for row in 0..<result.count { ages.append(try result.unsigned(row, 4)) }
                return MoveCandidates(items: try result.items(), agesMilliseconds: ages)
            }
        )
    }

    /// See ``BlockStore/fetchEvictionCandidates(volume:limit:completion:)``.
    public func fetchEvictionCandidates(
        volume: VolumeID,
        limit: Int,
        completion: @escaping @Sendable (Result<[ItemRow], StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: false,
                { Call(Statements.evictionCandidates, Int64(volume), Int64(limit)) },
                completion: completion
            ) { (result) throws(StoreFailure) in try result.items() }
        )
    }

    /// See ``BlockStore/fetchCompactionCandidates(volume:belowPercent:limit:completion:)``.
    public func fetchCompactionCandidates(
        volume: VolumeID,
        belowPercent: UInt8,
        limit: Int,
        completion: @escaping @Sendable (Result<[(ObjectRow, [Extent])], StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: false,
                { Call(Statements.compactionCandidates, Int64(volume), Int64(belowPercent), Int64(limit)) },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var found: [(ObjectRow, [Extent])] = []
                for row in 0..<result.count {
                    let object = try result.object(row)
                    if found.last?.0 != object { found.append((object, [])) }
                    found[found.count - 1].1.append(
                        Extent(
                            blocks: BlockRange(
                                first: BlockID(try result.unsigned(row, 6)),
                                count: try result.unsigned(row, 7)
                            ),
                            object: object.object,
                            server: object.server,
                            firstSlot: SlotIndex(try result.exactly(row, 8, as: UInt32.self)),
                            copy: try result.copy(row, 9)
                        )
                    )
                }
                return found
            }
        )
    }

    /// See ``BlockStore/collectObjects(intentAgeMilliseconds:graceMilliseconds:limit:completion:)``.
    ///
    /// Dead intents are forgotten here after their grace period, because no server is known for them: what was put under
    /// their ids is found by the scans of the object servers (M8).
    public func collectObjects(
        intentAgeMilliseconds: UInt64,
        graceMilliseconds: UInt64,
        limit: Int,
        completion: @escaping @Sendable (Result<[ObjectRow], StoreFailure>) -> Void
    ) {
        let grace = Int64(clamping: graceMilliseconds)
        let bound = Int64(limit)
        backgroundLane.submit(
            .transaction(
                failpoints: JobFailpoints(done: .cacheObjectsSwept),
                { _ in
                    [
                        Call(Statements.forgetIntents, grace, bound),
                        Call(Statements.sweepIntents, Int64(clamping: intentAgeMilliseconds), bound),
                        Call(Statements.sweepEmpty, bound), Call(Statements.deadObjects, grace, bound),
                    ]
                },
                completion: completion
            ) { (results) throws(StoreFailure) in
                guard let dead = results.last else { throw StoreFailure.broken("no result") }
                var rows: [ObjectRow] = []
                for row in 0..<dead.count { rows.append(try dead.object(row)) }
                return rows
            }
        )
    }

    /// See ``BlockStore/forgetObjects(_:completion:)``.
    public func forgetObjects(
        _ objects: [ObjectID],
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheObjectsForgotten,
                { Call(Statements.forgetObjects, arrays: objects.map { Int64($0) }) },
                completion: completion
            ) { _ in }
        )
    }

    /// See ``BlockStore/knownObjects(_:completion:)``.
    public func knownObjects(
        _ objects: [ObjectID],
        completion: @escaping @Sendable (Result<Set<ObjectID>, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: false,
                { Call(Statements.knownObjects, arrays: objects.map { Int64($0) }) },
                completion: completion
            ) { (result) throws(StoreFailure) in Set(try result.objectIDs()) }
        )
    }

    /// Removes at most `rowsMaximum` rows of a volume whose state is `deleting`; `true` once the volume is gone.
    ///
    /// The first step fences its owner. Its objects stay behind, dead, for ``collectObjects``.
    public func deleteVolumeStep(
        volume: VolumeID,
        rowsMaximum: Int,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheVolumeDeletionStepped,
                { Call(Statements.deleteVolume, Int64(volume), Int64(rowsMaximum)) },
                completion: completion
            ) { (result) throws(StoreFailure) in try result.bool(0, 0) }
        )
    }
}

extension QueryResult {
    fileprivate func objectIDs() throws(StoreFailure) -> [ObjectID] {
        var ids: [ObjectID] = []
        ids.reserveCapacity(count)
        for row in 0..<count { ids.append(ObjectID(try unsigned(row, 0))) }
        return ids
    }
}
