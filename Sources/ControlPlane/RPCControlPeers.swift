import AshlarCore
import Logging
import NIOCore
import RPC
import Transport

/// The cache servers and object servers, over RPC.
struct RPCControlPeers: ControlPeers {
    private struct Peer: Sendable {
        let endpoint: String
        let handle: RPCClientHandle
    }

    private let caches: [Peer]
    private let objects: [Int32: Peer]
    private let logger: Logger

    /// Connects to all of them, and again whenever a connection ends, until ``close()``.
    ///
    /// - Parameter seed: spreads reconnections of several nodes.
    /// - Throws: ``ControlError`` where an endpoint is none.
    init(
        cacheEndpoints: [String],
        objectEndpoints: [Int32: String],
        identity: TLSIdentity,
        on eventLoop: any EventLoop,
        seed: UInt64,
        logger: Logger
    ) throws(ControlError) {
        func peer(_ text: String, role: Role, number: UInt64) throws(ControlError) -> Peer {
            guard let endpoint = RPCEndpoint(text) else {
                throw ControlError(.invalid, "\"\(text)\" is not HOST:PORT.", remedy: "Correct the configuration.")
            }
            let configuration = RPCClient.Configuration(
                endpoint: endpoint,
                identity: identity,
                expectedRole: role,
                seed: seed &+ number
            )
            let handle = RPCClientHandle.connect(on: eventLoop, configuration: configuration, logger: logger)
            return Peer(endpoint: text, handle: handle)
        }
        var caches: [Peer] = []
        for (index, endpoint) in cacheEndpoints.enumerated() {
            caches.append(try peer(endpoint, role: .cache, number: UInt64(index)))
        }
        var objects: [Int32: Peer] = [:]
        for (id, endpoint) in objectEndpoints {
            objects[id] = try peer(endpoint, role: .objects, number: 1 << 32 &+ UInt64(UInt32(bitPattern: id)))
        }
        self.caches = caches
        self.objects = objects
        self.logger = logger
    }

    /// Ends all connections.
    func close() async {
        for peer in caches { await peer.handle.close() }
        for peer in objects.values { await peer.handle.close() }
    }

    // MARK: Cache servers

    func reload(volume: Int64) async -> [String] {
        await withTaskGroup(of: String?.self) { group in
            for peer in caches {
                group.addTask {
                    do {
                        let answer = try await peer.handle.call(
                            ReloadVolume(volume: VolumeID(volume)),
                            deadlineMilliseconds: ControlLimits.reloadDeadlineMilliseconds
                        )
                        // A server that does not own the volume has nothing to reload.
                        let harmless: [RPCStatus] = [.ok, .notOwner, .noSuchVolume]
                        return harmless.contains(answer.status) ? nil : "\(peer.endpoint): \(answer.status)"
                    } catch {
                        return "\(peer.endpoint): \(error)"
                    }
                }
            }
            var untold: [String] = []
            for await reason in group { if let reason { untold.append(reason) } }
            return untold.sorted()
        }
    }

    func moveNow(volume: Int64, owner: String?) async throws -> UInt64 {
        try await askOwner(MoveNow(volume: VolumeID(volume)), owner: owner).left
    }

    func deleteStep(volume: Int64, owner: String?) async throws -> UInt64 {
        try await askOwner(DeleteVolumeStep(volume: VolumeID(volume)), owner: owner).left
    }

    /// Asks the owner first, then the other servers in turn until one says that the volume is its own.
    private func askOwner(_ message: some RPCMessage, owner: String?) async throws -> CountAnswer {
        var reasons: [String] = []
        var order = caches.filter { $0.endpoint == owner } + caches.filter { $0.endpoint != owner }
        var hinted = false
        while !order.isEmpty {
            let peer = order.removeFirst()
            do {
                let (answer, _) = try await peer.handle.call(
                    message,
                    answer: CountAnswer.self,
                    deadlineMilliseconds: ControlLimits.cacheDeadlineMilliseconds
                )
                return answer
            } catch let error as RPCError {
                if let hint = error.ownerHint?.endpoint, !hinted,
                    let index = order.firstIndex(where: { $0.endpoint == hint })
                {
                    hinted = true
                    order.insert(order.remove(at: index), at: 0)
                }
                reasons.append("\(peer.endpoint): \(error.message)")
            } catch {
                reasons.append("\(peer.endpoint): \(error)")
            }
        }
        throw ControlError(
            .cacheUnavailable,
            "No cache server did it (\(reasons.isEmpty ? "none is configured" : reasons.joined(separator: "; "))).",
            remedy: "See that one runs and that cache.endpoints names it."
        )
    }

    func cacheStatistics() async -> [CacheDocument] {
        await withTaskGroup(of: CacheDocument.self) { group in
            for peer in caches { group.addTask { await Self.statistics(ofCache: peer) } }
            var documents: [CacheDocument] = []
            for await document in group { documents.append(document) }
            return documents.sorted { $0.endpoint < $1.endpoint }
        }
    }

    private static func statistics(ofCache peer: Peer) async -> CacheDocument {
        var document = CacheDocument(
            endpoint: peer.endpoint,
            reachable: false,
            reason: nil,
            imageBytes: 0,
            commits: 0,
            committedBlocks: 0,
            volumes: [],
            node: nil
        )
        do {
            let (answer, _) = try await peer.handle.call(
                CacheStatistics(),
                answer: CacheStatistics.Answer.self,
                deadlineMilliseconds: ControlLimits.reloadDeadlineMilliseconds
            )
            document.reachable = true
            document.imageBytes = answer.imageBytes
            document.commits = answer.commits
            document.committedBlocks = answer.committedBlocks
            document.volumes = answer.volumes.map {
                CacheDocument.Volume(
                    id: $0.volume.rawValue,
                    name: nil,
                    epoch: $0.epoch.rawValue,
                    sessions: $0.nexuses,
                    unmovedItems: $0.unmovedItems,
                    cachedBytes: $0.cachedBytes,
                    reads: $0.reads,
                    writes: $0.writes
                )
            }
        } catch {
            document.reason = "\(error)"
        }
        return document
    }

    // MARK: Object servers

    var objectServers: [Int32] { objects.keys.sorted() }

    func objectServerName(_ server: Int32) async -> String? {
        guard case .connected(let peer) = await objects[server]?.handle.state() else { return nil }
        return peer.node.name
    }

    func objectStatistics() async -> [ObjectServerDocument] {
        await withTaskGroup(of: ObjectServerDocument.self) { group in
            for (id, peer) in objects { group.addTask { await Self.statistics(ofObjects: id, peer) } }
            var documents: [ObjectServerDocument] = []
            for await document in group { documents.append(document) }
            return documents.sorted { $0.id < $1.id }
        }
    }

    private static func statistics(ofObjects id: Int32, _ peer: Peer) async -> ObjectServerDocument {
        var document = ObjectServerDocument(
            id: id,
            endpoint: peer.endpoint,
            reachable: false,
            reason: nil,
            objects: 0,
            bytes: 0,
            freeBytes: 0,
            rootsOutOfService: 0,
            draining: false
        )
        do {
            let (answer, _) = try await peer.handle.call(
                ObjectStatistics(),
                answer: ObjectStatistics.Answer.self,
                deadlineMilliseconds: ControlLimits.reloadDeadlineMilliseconds
            )
            document.reachable = true
            document.objects = answer.objects
            document.bytes = answer.bytes
            document.freeBytes = answer.freeBytes
            document.rootsOutOfService = answer.rootsOutOfService
            if answer.server.rawValue != id { document.reason = "it says that its number is \(answer.server)" }
        } catch {
            document.reason = "\(error)"
        }
        return document
    }

    func listObjects(server: Int32, after: UInt64?) async throws -> (objects: [UInt64], next: UInt64?) {
        let peer = try objectPeer(server)
        do {
            let (answer, _) = try await peer.handle.call(
                ListObjects(after: after.map { ObjectID($0) }, limit: ControlLimits.fsckListPage),
                answer: ListObjects.Answer.self,
                deadlineMilliseconds: ControlLimits.objectsDeadlineMilliseconds
            )
            return (answer.objects.map(\.rawValue), answer.next?.rawValue)
        } catch {
            throw Self.unavailable(server, error)
        }
    }

    func verifyObject(server: Int32, object: UInt64) async throws -> ObjectDamage? {
        let peer = try objectPeer(server)
        let answer: RPCAnswer
        do {
            answer = try await peer.handle.call(
                VerifyObject(object: ObjectID(object)),
                deadlineMilliseconds: ControlLimits.objectsDeadlineMilliseconds
            )
        } catch {
            throw Self.unavailable(server, error)
        }
        switch answer.status {
        case .ok: return nil
        case .noSuchObject: return .missing
        case .mediumError: return .damaged(answer.error?.message ?? "medium error")
        default: throw Self.unavailable(server, answer.status)
        }
    }

    func objectHeader(server: Int32, object: UInt64) async throws -> HeaderAnswer {
        let peer = try objectPeer(server)
        do {
            let (answer, _) = try await peer.handle.call(
                ObjectHeader(object: ObjectID(object)),
                answer: ObjectHeader.Answer.self,
                deadlineMilliseconds: ControlLimits.objectsDeadlineMilliseconds
            )
            return .header(
                RecoverPlanner.Header(
                    object: Int64(clamping: object),
                    server: server,
                    volume: answer.volume.rawValue,
                    uuid: answer.uuid,
                    blockSizeBytes: answer.blockSizeBytes,
                    sizeBytes: Int64(clamping: answer.sizeBytes),
                    slots: answer.slots.map {
                        RecoverPlanner.Slot(block: $0.block.rawValue, version: $0.version.rawValue)
                    }
                )
            )
        } catch let error as RPCError where error.status == .noSuchObject {
            return .missing
        } catch let error as RPCError where error.status == .mediumError {
            return .damaged(error.message)
        } catch {
            throw Self.unavailable(server, error)
        }
    }

    func databaseKnowledge(server: Int32) async throws -> (clock: UInt64, highestObject: UInt64) {
        let peer = try objectPeer(server)
        do {
            let (answer, _) = try await peer.handle.call(
                RaiseClock(clock: 0),
                answer: RaiseClock.Answer.self,
                deadlineMilliseconds: ControlLimits.objectsDeadlineMilliseconds
            )
            return (answer.clock, answer.highestObject.rawValue)
        } catch {
            throw Self.unavailable(server, error)
        }
    }

    private func objectPeer(_ server: Int32) throws(ControlError) -> Peer {
        guard let peer = objects[server] else {
            throw ControlError(
                .objectsUnavailable,
                "Object server \(server) is not configured.",
                remedy: "Name it in objects.endpoints of the control role."
            )
        }
        return peer
    }

    private static func unavailable(_ server: Int32, _ reason: Any) -> ControlError {
        ControlError(
            .objectsUnavailable,
            "Object server \(server) does not answer (\(reason)).",
            remedy: "See that it runs and that objects.endpoints names it."
        )
    }
}
