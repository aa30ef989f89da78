import Failpoints
import Logging

/// Rebuilds the map of volumes from the headers of objects: looks, plans, and carries the plan out where it is told to.
///
/// Whoever carries it out takes each volume from its owner first, and plans again from what he sees then: nobody changes the map
/// in between.
struct RecoverRunner: Sendable {
    let store: any RecoverStore
    let peers: any ControlPeers
    let logger: Logger
    /// How long leases are waited for; a test does not wait.
    var sleep: @Sendable (UInt64) async throws -> Void = { try await Task.sleep(for: .milliseconds($0)) }

    /// What lies on the object servers.
    private struct Inventory {
        var headers: [RecoverPlanner.Header] = []
        var unreadable: Set<Int64> = []
        var servers: Set<Int32> = []
        var highestObject: UInt64 = 0
        var clock: UInt64 = 0
    }

    private struct Planned {
        var knowledge: RecoverPlanner.Knowledge
        var plan: RecoverPlanner.Plan
        var row: RecoverVolumeRow?

        var isNeeded: Bool { !plan.isEmpty || row == nil || row?.state == "recovering" }
    }

    func run(_ request: RecoverRequest, progress: Jobs.Progress?) async throws -> RecoverReport {
        var (report, planned, inventory) = try await look(isBehind: false, held: [], progress)
        guard request.repair ?? false, report.isNeeded else { return report }
        guard report.incomplete.isEmpty else {
            throw ControlError(
                .objectsUnavailable,
                "Not everything could be looked at, and what is newest is not known: \(report.incomplete[0])",
                remedy: "Nothing was changed. See that all object servers run and are named in objects.endpoints."
            )
        }
        let isBehind = report.isBehind
        // Kept before the first change, as every change makes the database look younger.
        if isBehind { try await store.noteBehind() }
        var volumes: Set<Int64> = []
        for volume in planned where volume.isNeeded {
            try await take(volume, progress)
            volumes.insert(volume.knowledge.volume.id)
        }
        if !volumes.isEmpty {
            // Now that nobody changes these maps any more.
            (report, planned, inventory) = try await look(isBehind: isBehind, held: volumes, progress)
            guard report.incomplete.isEmpty else {
                throw ControlError(
                    .objectsUnavailable,
                    "Volumes are held for recovery, but: \(report.incomplete[0])",
                    remedy: "See that all object servers run, and run this again."
                )
            }
        }
        for volume in planned where volumes.contains(volume.knowledge.volume.id) {
            try await carryOut(volume, progress)
        }
        try await store.raiseObjects(above: inventory.highestObject)
        Failpoint.controlRecoveryObjectsRaised.reach()
        for volume in planned where volumes.contains(volume.knowledge.volume.id) {
            try await store.finish(
                volume: volume.knowledge.volume.id,
                nextVersion: volume.plan.nextVersion,
                isRidOfRemains: volume.plan.isRidOfRemains
            )
            Failpoint.controlRecoveryFinished.reach()
        }
        // What could not be put in its place must not be taken for garbage: deletion stays refused.
        let displaced: [RecoverReport.Kind] = [.otherVolume, .twice, .beyondEnd]
        if displaced.allSatisfy({ report.counts[$0.rawValue] == nil }) {
            try await store.raiseClock(above: inventory.clock)
            Failpoint.controlRecoveryClockRaised.reach()
        }
        report.isRepaired = true
        logger.notice(
            "map rebuilt",
            metadata: [
                "volumes": "\(volumes.count)", "blocks": "\(report.blocksTaken)", "objects": "\(report.objects)",
            ]
        )
        return report
    }

    // MARK: Looking

    /// - Parameters:
    ///   - isBehind: Whether that is known already.
    ///   - held: Volumes that were taken for this recovery; others that are being recovered are left from one that was interrupted.
    private func look(
        isBehind: Bool,
        held: Set<Int64>,
        _ progress: Jobs.Progress?
    ) async throws -> (RecoverReport, [Planned], Inventory) {
        var report = RecoverReport()
        let inventory = try await inventory(&report, progress)
        let age = try await store.age()
        let planned = try await store.inSnapshot {
            try await plan(inventory, age: age, isBehind: isBehind, held: held, &report, progress)
        }
        return (report, planned, inventory)
    }

    private func inventory(_ report: inout RecoverReport, _ progress: Jobs.Progress?) async throws -> Inventory {
        var inventory = Inventory()
        var seen: [Int64: RecoverPlanner.Header] = [:]
        for server in peers.objectServers {
            do {
                let known = try await peers.databaseKnowledge(server: server)
                inventory.clock = max(inventory.clock, known.clock)
                inventory.highestObject = max(inventory.highestObject, known.highestObject)
                var after: UInt64?
                repeat {
                    try Task.checkCancellation()
                    let page = try await peers.listObjects(server: server, after: after)
                    for object in page.objects { inventory.highestObject = max(inventory.highestObject, object) }
                    for (object, answer) in try await headers(page.objects, server) {
                        switch answer {
                        case .header(let header):
                            if let other = seen[object], other != header, other.server != server {
                                report.add(
                                    .twice,
                                    object: object,
                                    "object servers \(other.server) and \(server) hold different objects"
                                )
                                continue
                            }
                            guard seen.updateValue(header, forKey: object) == nil else { continue }
                            inventory.headers.append(header)
                        case .damaged(let reason):
                            inventory.unreadable.insert(object)
                            report.add(.unreadable, object: object, "on object server \(server): \(reason)")
                        case .missing: break
                        }
                    }
                    report.objects = UInt64(inventory.headers.count)
                    await progress?.report(done: report.objects, total: 0, "reading headers on object server \(server)")
                    after = page.objects.isEmpty ? nil : page.next
                } while after != nil
                inventory.servers.insert(server)
            } catch let error as ControlError {
                report.incomplete.append(error.message)
            }
        }
        if peers.objectServers.isEmpty { report.incomplete.append("No object server is configured.") }
        // A copy on another server is as good.
        inventory.unreadable.subtract(seen.keys)
        return inventory
    }

    private func headers(_ objects: [UInt64], _ server: Int32) async throws -> [(Int64, HeaderAnswer)] {
        try await withThrowingTaskGroup(of: (Int64, HeaderAnswer).self) { group in
            var rest = objects.makeIterator()
            func next() {
                guard let object = rest.next() else { return }
                group.addTask {
                    (Int64(clamping: object), try await peers.objectHeader(server: server, object: object))
                }
            }
            for _ in 0..<ControlLimits.headersInFlightMaximum { next() }
            var answers: [(Int64, HeaderAnswer)] = []
            for try await answer in group {
                answers.append(answer)
                next()
            }
            return answers
        }
    }

    // MARK: Planning

    private func plan(
        _ inventory: Inventory,
        age: RecoverAge,
        isBehind: Bool,
        held: Set<Int64>,
        _ report: inout RecoverReport,
        _ progress: Jobs.Progress?
    ) async throws -> [Planned] {
        var rows: [Int64: RecoverVolumeRow] = [:]
        var key = Int64.min
        while let last = try await store.volumes(after: key, into: &rows) { key = last }
        var known: [Int64: RecoverPlanner.Row] = [:]
        var servers: [Int64: Int32?] = [:]
        key = .min
        while true {
            let page = try await store.objects(after: key)
            guard let last = page.last else { break }
            for object in page {
                let isMapped = object.state == "live" || (object.state == "dead" && object.server != nil)
                known[object.id] = isMapped ? .mapped : .unmapped
                servers[object.id] = .some(object.server)
            }
            key = last.id
        }
        let byVolume = Dictionary(grouping: inventory.headers, by: \.volume)
        report.isBehind =
            isBehind || age.isBehind || inventory.clock > age.clock || inventory.highestObject > age.highestObject
            || rows.values.contains { $0.state == "recovering" && !held.contains($0.id) }
        var planned: [Planned] = []
        for id in Set(rows.keys).union(byVolume.keys).sorted() {
            try Task.checkCancellation()
            await progress?.report(done: 0, total: 0, "planning volume \(id)")
            let headers = byVolume[id] ?? []
            guard let volume = self.volume(id, rows[id], headers, known, &report) else { continue }
            var knowledge = RecoverPlanner.Knowledge(volume: volume, headers: headers)
            for header in headers { knowledge.rows[header.object] = known[header.object] }
            if rows[id] != nil {
                try await readMap(of: id, &knowledge)
                try await findLost(&knowledge, inventory, servers, &report)
            }
            let plan = RecoverPlanner.plan(knowledge)
            let result = Planned(knowledge: knowledge, plan: plan, row: rows[id])
            tell(result, isHeld: held.contains(id), &report)
            planned.append(result)
        }
        return planned
    }

    /// The volume that headers speak of; nil where nothing can be done for it.
    private func volume(
        _ id: Int64,
        _ row: RecoverVolumeRow?,
        _ headers: [RecoverPlanner.Header],
        _ known: [Int64: RecoverPlanner.Row],
        _ report: inout RecoverReport
    ) -> RecoverPlanner.Volume? {
        if let row {
            guard row.state != "deleting" else { return nil }
            let strangers = headers.filter { $0.uuid != row.uuid || $0.blockSizeBytes != row.blockSizeBytes }
            guard strangers.isEmpty else {
                report.add(
                    .otherVolume,
                    volume: id,
                    object: strangers[0].object,
                    "\(strangers.count) objects are of another volume than \"\(row.name)\", which has its number"
                )
                return nil
            }
            return RecoverPlanner.Volume(
                id: id,
                uuid: row.uuid,
                blockSizeBytes: row.blockSizeBytes,
                blockCount: row.sizeBytes / UInt64(row.blockSizeBytes),
                isBehind: report.isBehind,
                shrink: row.shrink
            )
        }
        // Objects that the database knows as dead are what is left of a volume that was deleted.
        guard let first = headers.first(where: { known[$0.object, default: .unmapped] == .unmapped }), report.isBehind
        else { return nil }
        guard headers.allSatisfy({ $0.uuid == first.uuid && $0.blockSizeBytes == first.blockSizeBytes }) else {
            report.add(
                .otherVolume,
                volume: id,
                object: first.object,
                "its objects name several volumes under one number"
            )
            return nil
        }
        let blocks = 1 + (headers.lazy.flatMap(\.slots).map(\.block).max() ?? 0)
        return RecoverPlanner.Volume(
            id: id,
            uuid: first.uuid,
            blockSizeBytes: first.blockSizeBytes,
            // Whole logical blocks of either size.
            blockCount: (blocks + 7) / 8 * 8,
            isBehind: true
        )
    }

    private func readMap(of id: Int64, _ knowledge: inout RecoverPlanner.Knowledge) async throws {
        var after: Int64 = -1
        while true {
            let page = try await store.extents(volume: id, after: after)
            guard let last = page.last else { break }
            knowledge.extents += page
            after = Int64(clamping: last.firstBlock)
        }
        after = -1
        while true {
            let page = try await store.items(volume: id, after: after)
            guard let last = page.last else { break }
            knowledge.items += page
            after = Int64(clamping: last.block)
        }
    }

    /// Finds the objects that extents name and that lie nowhere, or cannot be read.
    private func findLost(
        _ knowledge: inout RecoverPlanner.Knowledge,
        _ inventory: Inventory,
        _ servers: [Int64: Int32?],
        _ report: inout RecoverReport
    ) async throws {
        let present = Set(knowledge.headers.map(\.object))
        for object in Set(knowledge.extents.map(\.object)).subtracting(present).sorted() {
            if inventory.unreadable.contains(object) {
                knowledge.lostObjects.insert(object)
                continue
            }
            guard case let server?? = servers[object], inventory.servers.contains(server) else {
                report.incomplete.append("Object \(object) lies on an object server that was not asked.")
                continue
            }
            // It may have been put after the list was made.
            switch try await peers.objectHeader(server: server, object: UInt64(clamping: object)) {
            case .header(let header): knowledge.headers.append(header)
            case .damaged, .missing: knowledge.lostObjects.insert(object)
            }
            knowledge.rows[object] = .mapped
        }
    }

    private func tell(_ planned: Planned, isHeld: Bool, _ report: inout RecoverReport) {
        let id = planned.knowledge.volume.id
        let plan = planned.plan
        if planned.row == nil {
            report.add(
                .unknownVolume,
                volume: id,
                "it becomes \"\(Self.name(id))\", read-only; set name, iqn, size, logical block size and access"
            )
        }
        if planned.row?.state == "recovering", !isHeld {
            report.add(.interrupted, volume: id, "run this with --repair")
        }
        for run in plan.runs where run.object > 0 {
            report.add(
                .newer,
                volume: id,
                blocks: (run.firstBlock, run.blockCount),
                object: run.object,
                "slots from \(run.firstSlot) on"
            )
        }
        for loss in plan.losses {
            report.add(
                .lost,
                volume: id,
                blocks: (loss.firstBlock, loss.blockCount),
                object: loss.object,
                "the object is gone or damaged; reading them fails"
            )
        }
        for item in plan.keptItems {
            report.add(.kept, volume: id, blocks: (item.block, 1), "moved again from its item")
        }
        if plan.beyondEnd > 0 {
            report.add(
                .beyondEnd,
                volume: id,
                "\(plan.beyondEnd) blocks; resize the volume to what it was, and run this again"
            )
        }
        report.blocksTaken += plan.blocksTaken
        report.itemsReplaced += UInt64(plan.staleItems.count)
        if planned.isNeeded { report.volumes.append(planned.row?.name ?? Self.name(id)) }
    }

    private static func name(_ id: Int64) -> String { "recovered-\(id)" }

    // MARK: Carrying out

    private func take(_ planned: Planned, _ progress: Jobs.Progress?) async throws {
        let volume = planned.knowledge.volume
        guard let row = planned.row else {
            let name = Self.name(volume.id)
            try await store.create(volume, name: name, iqn: VolumeRules.iqnPrefix + name)
            return Failpoint.controlRecoveryCreated.reach()
        }
        await progress?.report(done: 0, total: 0, "taking volume \(row.name) from its owner")
        try await store.fence(volume: volume.id)
        Failpoint.controlRecoveryFenced.reach()
        // The owner lets go when it is told; one that cannot be told serves reads until its lease ends.
        guard await !peers.reload(volume: volume.id).isEmpty else { return }
        let left = try await store.leaseLeftMilliseconds(server: row.owner)
        if left > 0 { try await sleep(min(left, ControlLimits.recoverLeaseWaitMilliseconds)) }
    }

    private func carryOut(_ planned: Planned, _ progress: Jobs.Progress?) async throws {
        let byObject = Dictionary(planned.knowledge.headers.map { ($0.object, $0) }) { first, _ in first }
        let plan = planned.plan
        let id = planned.knowledge.volume.id
        let step = ControlLimits.recoverRunsInTransaction
        var live: Set<Int64> = []
        var done = 0
        // Items go in the transaction that maps their blocks; those that are kept, likewise.
        var stale = plan.staleItems.makeIterator()
        var nextStale = stale.next()
        var kept = plan.keptItems.makeIterator()
        var nextKept = kept.next()
        guard !plan.isEmpty else { return }
        repeat {
            try Task.checkCancellation()
            let runs = Array(plan.runs[done..<min(done + step, plan.runs.count)])
            let isLast = done + runs.count == plan.runs.count
            // What a shrink has left of items has no run, and goes with what lies before the next one.
            let end = runs.last.flatMap { isLast ? nil : $0.firstBlock + $0.blockCount } ?? .max
            var part = RecoverPart(runs: runs)
            for run in runs where run.object > 0 && live.insert(run.object).inserted {
                guard planned.knowledge.rows[run.object, default: .unmapped] == .unmapped,
                    let header = byObject[run.object]
                else { continue }
                part.objects.append(header)
            }
            while let item = nextStale, item.block < end {
                part.staleItems.append(item)
                nextStale = stale.next()
            }
            while let item = nextKept, item.block < end {
                part.keptItems.append(item)
                nextKept = kept.next()
            }
            try await store.apply(volume: id, part)
            Failpoint.controlRecoveryApplied.reach()
            done += runs.count
            await progress?.report(done: UInt64(done), total: UInt64(plan.runs.count), "mapping blocks of volume \(id)")
        } while done < plan.runs.count
    }
}

extension RecoverStore {
    /// Reads a page of volumes into `rows`; the key of the last one, nil at the end.
    fileprivate func volumes(after key: Int64, into rows: inout [Int64: RecoverVolumeRow]) async throws -> Int64? {
        let page = try await volumes(after: key)
        for row in page { rows[row.id] = row }
        return page.last?.id
    }
}
