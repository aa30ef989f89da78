import NIOConcurrencyHelpers

@testable import ControlPlane

/// A target that has just reported.
func target(_ node: String, sessions: Int64 = 0, alive: Bool = true, draining: Bool = false) -> TargetDocument {
    TargetDocument(
        node: node,
        portal: "10.0.0.1:3260",
        portalGroupTag: 1,
        release: "0.3.0",
        sessions: sessions,
        heartbeatAgeSeconds: alive ? 1 : 90,
        alive: alive,
        draining: draining
    )
}

/// The rows of the control role in memory.
final class ModelControlStore: ControlStore {
    struct State: Sendable {
        var volumes: [String: VolumeDocument] = [:]
        var sessions: [String: Int] = [:]
        var rows: [Int64: Int] = [:]
        var targets: [String: TargetDocument] = [:]
        var caches: [String: CacheNodeDocument] = [:]
        var nextID: Int64 = 1
        var failure: ControlError?
        var objectServers: [Int32: ObjectServerRecord] = [:]
        var cluster = ClusterDocument(
            uuid: "u",
            backupWindowSeconds: 0,
            scrubBytesPerSecond: 1,
            scrubIntervalSeconds: 2,
            deletionAllowed: nil,
            damagedBlocks: 0
        )
    }

    let state = NIOLockedValueBox(State())

    private func access<Value>(_ body: (inout State) throws -> Value) throws -> Value {
        try state.withLockedValue { state in
            if let failure = state.failure { throw failure }
            return try body(&state)
        }
    }

    func createVolume(_ draft: VolumeDraft) async throws -> VolumeDocument {
        try access { state in
            guard state.volumes[draft.name] == nil else { throw ControlError(.volumeExists, "exists") }
            let volume = VolumeDocument(
                id: state.nextID,
                name: draft.name,
                iqn: draft.iqn,
                uuid: "u",
                sizeBytes: draft.sizeBytes,
                blockSizeBytes: draft.blockSizeBytes,
                logicalBlockSizeBytes: draft.logicalBlockSizeBytes,
                readOnly: draft.readOnly,
                state: "active",
                policy: draft.policy,
                initiators: draft.initiators,
                credentials: draft.credentials.map(\.name),
                mutual: draft.mutual?.name,
                revision: 1,
                createdAt: "t"
            )
            state.nextID += 1
            state.volumes[draft.name] = volume
            return volume
        }
    }

    func volume(named name: String) async throws -> VolumeDocument? { try access { $0.volumes[name] } }

    func volumes(after: String?, limit: Int) async throws -> [VolumeDocument] {
        try access { state in
            Array(state.volumes.values.sorted { $0.name < $1.name }.filter { $0.name > after ?? "" }.prefix(limit))
        }
    }

    func changeVolume(named name: String, _ change: ChangeVolumeRequest) async throws -> VolumeDocument {
        try access { state in
            guard var volume = state.volumes[name] else { throw ControlError(.noSuchVolume, name) }
            volume.readOnly = change.readOnly ?? volume.readOnly
            volume.initiators = change.initiators ?? volume.initiators
            volume.revision += 1
            state.volumes[name] = volume
            return volume
        }
    }

    func resizeVolume(named name: String, sizeBytes: UInt64, force: Bool) async throws -> VolumeDocument {
        try access { state in
            guard var volume = state.volumes[name] else { throw ControlError(.noSuchVolume, name) }
            guard sizeBytes >= volume.sizeBytes || force else { throw ControlError(.wouldShrink, "smaller") }
            volume.sizeBytes = sizeBytes
            state.volumes[name] = volume
            return volume
        }
    }

    func markDeleting(named name: String, force: Bool) async throws -> VolumeOwnerRecord {
        guard let record = try await owner(volume: name) else { throw ControlError(.noSuchVolume, name) }
        return try access { state in
            guard force || state.sessions[name, default: 0] == 0 else { throw ControlError(.sessionsOpen, "open") }
            state.volumes[name]?.state = "deleting"
            return record
        }
    }

    func deletionStep(volume: Int64) async throws -> Bool {
        try access { state in
            let left = max(0, state.rows[volume, default: 0] - 10)
            state.rows[volume] = left
            if left == 0 { state.volumes = state.volumes.filter { $0.value.id != volume } }
            return left == 0
        }
    }

    func rowCount(volume: Int64) async throws -> UInt64 { try access { UInt64($0.rows[volume, default: 0]) } }

    func owner(volume name: String) async throws -> VolumeOwnerRecord? {
        try access { state in
            state.volumes[name].map {
                VolumeOwnerRecord(
                    volume: $0.id,
                    sizeBytes: $0.sizeBytes,
                    blockSizeBytes: $0.blockSizeBytes,
                    state: $0.state,
                    ownerEndpoint: nil
                )
            }
        }
    }

    func deletingVolumes(limit: Int) async throws -> [String] {
        try access { $0.volumes.values.filter { $0.state == "deleting" }.map(\.name) }
    }

    func space(after: String?, limit: Int) async throws -> [SpaceDocument] { [] }
    func space(volume name: String) async throws -> SpaceDocument? { nil }

    func targets() async throws -> [TargetDocument] {
        try access { $0.targets.values.sorted { $0.node < $1.node } }
    }

    func setDraining(target name: String, _ isDraining: Bool) async throws -> TargetDocument? {
        try access { state in
            state.targets[name]?.draining = isDraining
            return state.targets[name]
        }
    }

    func cacheServers() async throws -> [CacheNodeDocument] {
        try access { $0.caches.values.sorted { $0.name < $1.name } }
    }

    func setDraining(cache name: String, _ isDraining: Bool) async throws -> CacheNodeDocument? {
        try access { state in
            state.caches[name]?.draining = isDraining
            return state.caches[name]
        }
    }

    func sessions(volume: String?, limit: Int) async throws -> [SessionDocument] { [] }
    func volumeNames(_ keys: [Int64]) async throws -> [Int64: String] { [:] }

    func cluster() async throws -> ClusterDocument { try access { $0.cluster } }

    func changeCluster(_ change: ChangeClusterRequest) async throws -> ClusterDocument {
        try access { state in
            state.cluster.backupWindowSeconds = change.backupWindowSeconds ?? state.cluster.backupWindowSeconds
            state.cluster.scrubBytesPerSecond = change.scrubBytesPerSecond ?? state.cluster.scrubBytesPerSecond
            state.cluster.scrubIntervalSeconds = change.scrubIntervalSeconds ?? state.cluster.scrubIntervalSeconds
            return state.cluster
        }
    }

    func objectServers() async throws -> [ObjectServerRecord] {
        try access { $0.objectServers.values.sorted { $0.id < $1.id } }
    }

    func setDraining(objectServer id: Int32, _ isDraining: Bool) async throws -> ObjectServerRecord? {
        try access { state in
            state.objectServers[id]?.isDraining = isDraining
            return state.objectServers[id]
        }
    }

    func recordObjectServer(id: Int32, name: String, endpoint: String, cluster: String) async throws {}
}

/// Cache servers and object servers that answer what a test says.
final class ModelPeers: ControlPeers {
    struct State: Sendable {
        var reloaded: [Int64] = []
        var untold: [String] = []
        var unmoved: UInt64 = 0
        var deleteStepsLeft: UInt64 = 0
        var isReachable = true
        var objects: [Int32: [UInt64]] = [:]
        var damaged: Set<UInt64> = []
        var headers: [UInt64: RecoverPlanner.Header] = [:]
        var clock: UInt64 = 0
    }

    let state = NIOLockedValueBox(State())

    private func reach() throws {
        guard state.withLockedValue({ $0.isReachable }) else { throw ControlError(.cacheUnavailable, "none") }
    }

    func reload(volume: Int64) async -> [String] {
        state.withLockedValue {
            $0.reloaded.append(volume)
            return $0.untold
        }
    }

    func moveNow(volume: Int64, owner: String?) async throws -> UInt64 {
        try reach()
        return state.withLockedValue { state in
            defer { state.unmoved = state.unmoved > 10 ? state.unmoved - 10 : 0 }
            return state.unmoved
        }
    }

    func deleteStep(volume: Int64, owner: String?) async throws -> UInt64 {
        try reach()
        return state.withLockedValue { state in
            state.deleteStepsLeft = state.deleteStepsLeft > 0 ? state.deleteStepsLeft - 1 : 0
            return state.deleteStepsLeft
        }
    }

    func cacheStatistics() async -> [CacheDocument] { [] }

    func objectStatistics() async -> [ObjectServerDocument] {
        objectServers.map {
            ObjectServerDocument(
                id: $0,
                endpoint: "10.0.0.\($0):7501",
                reachable: true,
                reason: nil,
                objects: 0,
                bytes: 0,
                freeBytes: 0,
                rootsOutOfService: 0,
                draining: false
            )
        }
    }

    var objectServers: [Int32] { state.withLockedValue { $0.objects.keys.sorted() } }
    func objectServerName(_ server: Int32) async -> String? { "objects-\(server)" }

    func listObjects(server: Int32, after: UInt64?) async throws -> (objects: [UInt64], next: UInt64?) {
        let all = state.withLockedValue { $0.objects[server] ?? [] }
        // Pages of one, to walk through them.
        let start = after.flatMap { all.firstIndex(of: $0) }.map { $0 + 1 } ?? 0
        guard start < all.count else { return ([], nil) }
        return ([all[start]], start + 1 < all.count ? all[start] : nil)
    }

    func verifyObject(server: Int32, object: UInt64) async throws -> ObjectDamage? {
        state.withLockedValue { state in
            if !(state.objects[server] ?? []).contains(object) { return .missing }
            return state.damaged.contains(object) ? .damaged("checksum") : nil
        }
    }

    func objectHeader(server: Int32, object: UInt64) async throws -> HeaderAnswer {
        state.withLockedValue { state in
            if !(state.objects[server] ?? []).contains(object) { return .missing }
            if state.damaged.contains(object) { return .damaged("checksum") }
            return state.headers[object].map { .header($0) } ?? .missing
        }
    }

    func databaseKnowledge(server: Int32) async throws -> (clock: UInt64, highestObject: UInt64) {
        state.withLockedValue { ($0.clock, $0.objects[server]?.max() ?? 0) }
    }
}
