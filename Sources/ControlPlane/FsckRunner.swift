import Failpoints
import Logging

/// Runs a check: reads the rows, asks the object servers, repairs what is safe.
struct FsckRunner: Sendable {
    let store: any FsckStore
    let peers: any ControlPeers
    let logger: Logger

    func run(_ request: FsckRequest, progress: Jobs.Progress?) async throws -> FsckReport {
        var planner = FsckPlanner()
        // What lies on the servers is listed before the rows are read: an object whose row appears later is not missed (M8).
        var listed: [Int32: [UInt64]] = [:]
        if request.volume == nil {
            for server in peers.objectServers {
                await progress?.report(done: 0, total: 0, "listing object server \(server)")
                do {
                    listed[server] = try await list(server)
                } catch let error as ControlError {
                    planner.skipped(error.message)
                }
            }
        }
        try await store.inSnapshot { try await readRows(request, &planner, progress) }
        try await compare(listed, &planner, progress)
        if request.verify ?? false { try await verify(&planner, listed: listed, progress) }
        if request.repair ?? true {
            for repair in planner.repairs {
                try Task.checkCancellation()
                guard let done = try await store.repair(repair) else { continue }
                Failpoint.controlRepairMade.reach()
                planner.repaired(done)
            }
        }
        let report = planner.report
        logger.info(
            "check ended",
            metadata: [
                "findings": "\(report.counts.values.reduce(0, +))", "repairs": "\(report.repairs.count)",
                "damage": "\(report.hasDamage)",
            ]
        )
        return report
    }

    private func list(_ server: Int32) async throws -> [UInt64] {
        var objects: [UInt64] = []
        var after: UInt64?
        repeat {
            try Task.checkCancellation()
            let page = try await peers.listObjects(server: server, after: after)
            objects += page.objects
            after = page.objects.isEmpty ? nil : page.next
        } while after != nil
        return objects
    }

    private func readRows(
        _ request: FsckRequest,
        _ planner: inout FsckPlanner,
        _ progress: Jobs.Progress?
    ) async throws {
        var only: Int64?
        if let name = request.volume {
            only = try await store.volumeKey(named: name)
            guard only != nil else { throw ControlError.noSuchVolume(name) }
        }
        let total = try await store.estimate()
        func report(_ planner: FsckPlanner, _ message: String) async throws {
            try Task.checkCancellation()
            let done = planner.report.items + planner.report.extents + planner.report.objects
            await progress?.report(done: done, total: max(total, done), message)
        }
        var key = Int64.min
        while true {
            let page = try await store.volumes(after: key, only: only)
            guard let last = page.last else { break }
            for volume in page { planner.add(volume) }
            key = last.id
        }
        key = .min
        while true {
            let page = try await store.objects(after: key, only: only)
            guard let last = page.last else { break }
            for object in page { planner.add(object) }
            key = last.id
            try await report(planner, "objects")
        }
        var place: (volume: Int64, block: Int64) = (.min, .min)
        while true {
            let page = try await store.extents(after: place, only: only)
            guard let last = page.last else { break }
            for extent in page { planner.add(extent) }
            place = (last.volume, last.firstBlock)
            try await report(planner, "extents")
        }
        planner.extentsEnded()
        place = (.min, .min)
        while true {
            let page = try await store.items(after: place, only: only)
            guard let last = page.last else { break }
            for item in page { planner.add(item) }
            place = (last.volume, last.block)
            try await report(planner, "items")
        }
    }

    /// Live rows against what lies on the servers, in both directions.
    private func compare(
        _ listed: [Int32: [UInt64]],
        _ planner: inout FsckPlanner,
        _ progress: Jobs.Progress?
    ) async throws {
        let pageRows = Int(ControlLimits.fsckPageRows)
        for (server, objects) in listed.sorted(by: { $0.key < $1.key }) {
            await progress?.report(done: 0, total: 0, "comparing object server \(server)")
            for start in stride(from: 0, to: objects.count, by: pageRows) {
                let page = objects[start..<min(start + pageRows, objects.count)]
                let states = try await store.states(of: page.compactMap { Int64(exactly: $0) })
                for object in page where Int64(exactly: object).flatMap({ states[$0] }) == nil {
                    planner.addUnknown(object: object, server: server)
                }
            }
            // An object may have been put after the list was made, or have died since: ask the server itself, then the row.
            let present = Set(objects)
            for object in planner.liveByServer[server] ?? [] where !present.contains(UInt64(bitPattern: object)) {
                try await verifyOne(object, server, &planner)
            }
        }
        for server in planner.liveByServer.keys.sorted() where !peers.objectServers.contains(server) {
            planner.skipped("Object server \(server) is not configured, but objects lie there.")
        }
    }

    private func verify(
        _ planner: inout FsckPlanner,
        listed: [Int32: [UInt64]],
        _ progress: Jobs.Progress?
    ) async throws {
        let total = planner.liveByServer.values.reduce(0) { $0 + $1.count }
        var done: UInt64 = 0
        for (server, objects) in planner.liveByServer.sorted(by: { $0.key < $1.key })
        where peers.objectServers.contains(server) {
            // What was not listed has been asked for already.
            let present = listed[server].map { Set($0) }
            for object in objects where present?.contains(UInt64(bitPattern: object)) ?? true {
                try await verifyOne(object, server, &planner)
                done += 1
                if done % 64 == 0 { await progress?.report(done: done, total: UInt64(total), "verifying objects") }
            }
        }
    }

    private func verifyOne(_ object: Int64, _ server: Int32, _ planner: inout FsckPlanner) async throws {
        try Task.checkCancellation()
        do {
            let damage = try await peers.verifyObject(server: server, object: UInt64(bitPattern: object))
            if damage == .missing {
                // Gone because it was collected in the meantime: nothing is wrong.
                guard try await store.states(of: [object])[object] == "live" else { return }
            }
            planner.add(damage, object: object, server: server)
        } catch let error as ControlError where error.code == .objectsUnavailable {
            planner.skipped("object \(object): \(error.message)")
        }
    }
}
