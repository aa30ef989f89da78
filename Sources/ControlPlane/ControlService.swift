import Failpoints
import Logging

/// What the API does, without HTTP: checks, rows, and the word to the cache servers.
///
/// Every call throws ``ControlError``.
struct ControlService: Sendable {
    let store: any ControlStore
    let peers: any ControlPeers
    let jobs: Jobs
    let logger: Logger
    /// Runs a check.
    let check: @Sendable (FsckRequest, Jobs.Progress) async throws -> FsckReport
    /// Rebuilds the map from objects.
    let recovery: @Sendable (RecoverRequest, Jobs.Progress) async throws -> RecoverReport

    init(
        store: any ControlStore,
        peers: any ControlPeers,
        jobs: Jobs,
        logger: Logger,
        check: @escaping @Sendable (FsckRequest, Jobs.Progress) async throws -> FsckReport,
        recovery: @escaping @Sendable (RecoverRequest, Jobs.Progress) async throws -> RecoverReport
    ) {
        self.store = store
        self.peers = peers
        self.jobs = jobs
        self.logger = logger
        self.check = check
        self.recovery = recovery
    }

    // MARK: Volumes

    func createVolume(_ request: CreateVolumeRequest) async throws -> VolumeDocument {
        let draft = try VolumeRules.draft(request)
        let volume: VolumeDocument
        do {
            volume = try await store.createVolume(draft)
        } catch var error as ControlError where error.code == .volumeExists {
            error.message = "Volume \"\(draft.name)\" exists."
            throw error
        } catch var error as ControlError where error.code == .iqnExists {
            error.message = "Another volume has the iqn \(draft.iqn)."
            throw error
        }
        Failpoint.controlVolumeCreated.reach()
        logger.info("volume created", metadata: ["volume": "\(volume.name)", "bytes": "\(volume.sizeBytes)"])
        return volume
    }

    func volume(_ name: String) async throws -> VolumeDocument {
        guard let volume = try await store.volume(named: name) else { throw ControlError.noSuchVolume(name) }
        return volume
    }

    func volumes(after: String?, limit: Int?) async throws -> VolumePage {
        let limit = try Self.pageLimit(limit)
        // One more than asked for tells whether there is another page.
        let found = try await store.volumes(after: after, limit: limit + 1)
        let page = Array(found.prefix(limit))
        return VolumePage(volumes: page, next: found.count > limit ? page.last?.name : nil)
    }

    func changeVolume(_ name: String, _ request: ChangeVolumeRequest) async throws -> VolumeDocument {
        let volume = try await store.changeVolume(named: name, try VolumeRules.checked(request))
        Failpoint.controlVolumeChanged.reach()
        logger.info("volume changed", metadata: ["volume": "\(name)", "revision": "\(volume.revision)"])
        return await announced(volume)
    }

    func resizeVolume(_ name: String, _ request: ResizeVolumeRequest) async throws -> VolumeDocument {
        let volume = try await store.resizeVolume(
            named: name,
            sizeBytes: request.sizeBytes,
            force: request.force ?? false
        )
        Failpoint.controlVolumeResized.reach()
        logger.info("volume resized", metadata: ["volume": "\(name)", "bytes": "\(volume.sizeBytes)"])
        return await announced(volume)
    }

    /// Tells the cache servers; a server that could not be told is named in the answer.
    private func announced(_ volume: VolumeDocument) async -> VolumeDocument {
        let untold = await peers.reload(volume: volume.id)
        guard !untold.isEmpty else { return volume }
        let reasons = untold.joined(separator: "; ")
        logger.warning("cache servers not told", metadata: ["volume": "\(volume.name)", "reason": "\(reasons)"])
        var volume = volume
        volume.warning = "Saved, but these cache servers have not taken it over yet: \(reasons)."
        return volume
    }

    func moveNow(_ name: String) async throws -> MoveDocument {
        guard let record = try await store.owner(volume: name) else { throw ControlError.noSuchVolume(name) }
        let left = try await peers.moveNow(volume: record.volume, owner: record.ownerEndpoint)
        return MoveDocument(unmovedItems: left)
    }

    // MARK: Deletion

    func deleteVolume(_ name: String, force: Bool) async throws -> JobReference {
        let record = try await store.markDeleting(named: name, force: force)
        Failpoint.controlDeletionMarked.reach()
        logger.info("volume being deleted", metadata: ["volume": "\(name)", "force": "\(force)"])
        return JobReference(job: try await startDeletion(name, record))
    }

    /// Takes deletions up again that a stop of the control role interrupted.
    func resumeDeletions() async throws {
        for name in try await store.deletingVolumes(limit: ControlLimits.jobsRunningMaximum / 2) {
            guard let record = try await store.owner(volume: name) else { continue }
            _ = try await startDeletion(name, record)
        }
    }

    private func startDeletion(_ name: String, _ record: VolumeOwnerRecord) async throws -> String {
        try await jobs.start(kind: "delete", subject: name) { progress in
            try await delete(name, record, progress)
            Failpoint.controlVolumeDeleted.reach()
            logger.info("volume deleted", metadata: ["volume": "\(name)"])
            return Jobs.Outcome("deleted")
        }
    }

    /// Bounded steps, through the owner as long as a cache server answers, so that it lets go of the volume; the function in
    /// the database fences it in any case, and is used where no cache server answers.
    private func delete(_ name: String, _ record: VolumeOwnerRecord, _ progress: Jobs.Progress) async throws {
        let total = try await store.rowCount(volume: record.volume)
        var done: UInt64 = 0
        var isThroughOwner = true
        while true {
            try Task.checkCancellation()
            if isThroughOwner {
                do {
                    // Once the owner says that nothing is left, the database is asked whether that is so.
                    isThroughOwner = try await peers.deleteStep(volume: record.volume, owner: record.ownerEndpoint) > 0
                } catch let error as ControlError where error.code == .cacheUnavailable {
                    logger.warning("deleting without the owner", metadata: ["volume": "\(name)", "reason": "\(error)"])
                    isThroughOwner = false
                }
            } else if try await store.deletionStep(volume: record.volume) {
                break
            }
            Failpoint.controlDeletionStepped.reach()
            done += UInt64(ControlLimits.deletionStepRows)
            await progress.report(done: min(done, total), total: total, "removing rows")
        }
        await progress.report(done: total, total: total, "deleted")
    }

    // MARK: Looking

    func space(after: String?, limit: Int?) async throws -> SpacePage {
        let limit = try Self.pageLimit(limit)
        let found = try await store.space(after: after, limit: limit + 1)
        let page = Array(found.prefix(limit))
        return SpacePage(volumes: page, next: found.count > limit ? page.last?.volume : nil)
    }

    func space(_ name: String) async throws -> SpaceDocument {
        guard let space = try await store.space(volume: name) else { throw ControlError.noSuchVolume(name) }
        return space
    }

    func targets() async throws -> TargetList { TargetList(targets: try await store.targets()) }

    /// The target learns it with its next report.
    func changeTarget(_ name: String, _ change: ChangeTargetRequest) async throws -> TargetDocument {
        guard let target = try await store.setDraining(target: name, change.draining) else {
            throw ControlError.noSuchTarget(name)
        }
        Failpoint.controlDrainingSet.reach()
        let what = change.draining ? "target is to be drained" : "target takes sessions again"
        logger.notice("\(what)", metadata: ["target": "\(name)"])
        return target
    }

    func sessions(volume: String?, limit: Int?) async throws -> SessionList {
        let limit = try Self.pageLimit(limit ?? ControlLimits.pageMaximum)
        let found = try await store.sessions(volume: volume, limit: limit + 1)
        return SessionList(sessions: Array(found.prefix(limit)), truncated: found.count > limit)
    }

    func caches() async throws -> CacheList {
        var caches = await peers.cacheStatistics()
        let nodes = try await store.cacheServers()
        let names = try await store.volumeNames(caches.flatMap { $0.volumes.map(\.id) })
        for cache in caches.indices {
            for volume in caches[cache].volumes.indices {
                caches[cache].volumes[volume].name = names[caches[cache].volumes[volume].id]
            }
        }
        for cache in caches.indices {
            let known = nodes.filter { $0.endpoint == caches[cache].endpoint }
            caches[cache].node = known.first(where: \.alive) ?? known.first
        }
        return CacheList(caches: caches, nodes: nodes)
    }

    /// The cache server learns it within two seconds.
    func changeCache(_ name: String, _ change: ChangeCacheRequest) async throws -> CacheNodeDocument {
        guard let node = try await store.setDraining(cache: name, change.draining) else {
            throw ControlError.noSuchCache(name)
        }
        Failpoint.controlDrainingSet.reach()
        let what = change.draining ? "cache server is to be drained" : "cache server takes volumes again"
        logger.notice("\(what)", metadata: ["cache": "\(name)"])
        return node
    }

    func objectServers() async throws -> ObjectServerList {
        let records = Dictionary(try await store.objectServers().map { ($0.id, $0) }) { first, _ in first }
        var servers = await peers.objectStatistics()
        for index in servers.indices {
            guard let record = records[servers[index].id] else { continue }
            servers[index].draining = record.isDraining
            servers[index].liveObjects = record.objects
        }
        return ObjectServerList(objects: servers)
    }

    /// Agents learn it within seconds; the objects of a server that is drained are rewritten elsewhere.
    func changeObjectServer(_ id: Int32, _ change: ChangeObjectServerRequest) async throws -> ObjectServerDocument {
        let records = try await store.objectServers()
        guard records.contains(where: { $0.id == id }) else { throw ControlError.noSuchObjectServer("\(id)") }
        if change.draining {
            let others = Set(records.filter { !$0.isDraining && $0.id != id }.map(\.id))
            guard !others.intersection(peers.objectServers).isEmpty else {
                throw ControlError(
                    .lastObjectServer,
                    "No object server would be left to take new objects.",
                    remedy: "Add another one first, and name it in objects.endpoints of all roles."
                )
            }
        }
        guard try await store.setDraining(objectServer: id, change.draining) != nil else {
            throw ControlError.noSuchObjectServer("\(id)")
        }
        Failpoint.controlDrainingSet.reach()
        let what = change.draining ? "object server is to be drained" : "object server takes objects again"
        logger.notice("\(what)", metadata: ["server": "\(id)"])
        guard let server = try await objectServers().objects.first(where: { $0.id == id }) else {
            throw ControlError.noSuchObjectServer("\(id)")
        }
        return server
    }

    // MARK: The cluster

    func cluster() async throws -> ClusterDocument { try await store.cluster() }

    func changeCluster(_ change: ChangeClusterRequest) async throws -> ClusterDocument {
        let year: Int64 = 31_536_000
        let bounds: [(String, Int64?, ClosedRange<Int64>)] = [
            ("backupWindowSeconds", change.backupWindowSeconds, 0...year),
            ("scrubBytesPerSecond", change.scrubBytesPerSecond, 0...1 << 40),
            ("scrubIntervalSeconds", change.scrubIntervalSeconds, 1...year),
        ]
        for case (let name, let value?, let range) in bounds where !range.contains(value) {
            throw ControlError(
                .invalid,
                "\(name) is \(value).",
                remedy: "Set it from \(range.lowerBound) to \(range.upperBound)."
            )
        }
        let cluster = try await store.changeCluster(change)
        Failpoint.controlClusterChanged.reach()
        logger.notice(
            "cluster changed",
            metadata: [
                "backup-window": "\(cluster.backupWindowSeconds)", "scrub-rate": "\(cluster.scrubBytesPerSecond)",
                "scrub-interval": "\(cluster.scrubIntervalSeconds)",
            ]
        )
        return cluster
    }

    // MARK: Jobs

    func fsck(_ request: FsckRequest) async throws -> JobReference {
        let id = try await jobs.start(kind: "fsck", subject: request.volume ?? "all volumes") { progress in
            let report = try await check(request, progress)
            let found = report.counts.values.reduce(0, +)
            return Jobs.Outcome(report.isClean ? "clean" : "\(found) findings", report: report)
        }
        return JobReference(job: id)
    }

    func recover(_ request: RecoverRequest) async throws -> JobReference {
        let subject = request.repair ?? false ? "all volumes" : "plan"
        let id = try await jobs.start(kind: "recover", subject: subject) { progress in
            let report = try await recovery(request, progress)
            let message = report.isRepaired ? "repaired" : report.isNeeded ? "a repair is needed" : "nothing to do"
            return Jobs.Outcome(message, recovery: report)
        }
        return JobReference(job: id)
    }

    func job(_ id: String) async throws -> JobDocument {
        guard let job = await jobs.job(id) else {
            throw ControlError(
                .noSuchJob,
                "There is no job \"\(id.prefix(64))\".",
                remedy: "Jobs are forgotten when the control role stops."
            )
        }
        return job
    }

    private static func pageLimit(_ limit: Int?) throws(ControlError) -> Int {
        let limit = limit ?? ControlLimits.pageDefault
        guard (1...ControlLimits.pageMaximum).contains(limit) else {
            throw ControlError(
                .invalid,
                "limit is \(limit).",
                remedy: "Set it from 1 to \(ControlLimits.pageMaximum)."
            )
        }
        return limit
    }
}
