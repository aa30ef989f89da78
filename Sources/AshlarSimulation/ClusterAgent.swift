import AgentPlanning
import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import ObjectStore
import Ownership
import RPC

/// An agent: production's planner and choice of servers, and what goes on with the answers.
final class ClusterAgent {
    let number: Int
    var planner: AgentPlanner
    var placement: ObjectPlacement
    /// Grows when the process is started anew.
    var generation = 0
    var pausedUntil: UInt64 = 0
    /// Which wake-up counts: the last one that was asked for.
    var wake = 0

    init(number: Int, planner: AgentPlanner, servers: [ObjectServerID]) {
        self.number = number
        self.planner = planner
        placement = ObjectPlacement(servers: servers)
    }
}

/// A job of an agent's process.
struct ClusterJob {
    let agent: ClusterAgent
    let generation: Int
    let job: AgentPlanner.Job
}

// Agents: move, evict, compact, collect, scan. Some die with what they hold, some pause for longer than any grace period.
extension Cluster {
    func planner(seed: UInt64) -> AgentPlanner {
        var configuration = AgentPlanner.Configuration(
            caches: servers.count,
            objectsInMemory: 2,
            idleNanoseconds: 200_000_000,
            scanNanoseconds: 2_500_000_000,
            seed: seed
        )
        configuration.evictNanoseconds = 300_000_000
        configuration.compactNanoseconds = 400_000_000
        configuration.collectNanoseconds = 500_000_000
        // Its disks do not change bytes; there would be nothing to find.
        configuration.scrubNanoseconds = 0
        return AgentPlanner(configuration, now: MonotonicTime(now))
    }

    /// Starts what is due, and comes back when something may be.
    func pump(_ agent: ClusterAgent) {
        let generation = agent.generation
        for job in agent.planner.due(now: MonotonicTime(now)) {
            start(ClusterJob(agent: agent, generation: generation, job: job))
        }
        agent.wake += 1
        let wake = agent.wake
        guard let time = agent.planner.nextWake(now: MonotonicTime(now)) else { return }
        after(max(1, time.nanoseconds(since: MonotonicTime(now)))) { [self] in
            guard agent.generation == generation, agent.wake == wake else { return }
            atAgent(agent, generation) { self.pump(agent) }
        }
    }

    /// The process ends with what it holds; another one begins.
    func kill(_ agent: ClusterAgent) {
        count("agent: kill")
        agent.generation += 1
        agent.pausedUntil = 0
        agent.planner = planner(seed: generator.next())
        agent.placement = ObjectPlacement(servers: nodes.map(\.number))
        pump(agent)
    }

    private func atAgent(_ agent: ClusterAgent, _ generation: Int, _ run: @escaping () -> Void) {
        guard agent.generation == generation else { return }
        guard agent.pausedUntil <= now else {
            return after(agent.pausedUntil - now + 1) { [self] in atAgent(agent, generation, run) }
        }
        run()
    }

    private func end(_ job: ClusterJob, _ outcome: AgentPlanner.Outcome) {
        guard job.agent.generation == job.generation else { return }
        job.agent.planner.finished(job.job, outcome, now: MonotonicTime(now))
        pump(job.agent)
    }

    private func start(_ job: ClusterJob) {
        switch job.job.kind {
        case .move: move(job)
        case .evict:
            ask(job) {
                $0.requestEviction($1, now: $2)
            } answer: { [self] answer in
                if case .count(let count, let left) = answer, count > 0, left > 0 {
                    end(job, .worked)
                } else {
                    end(job, .nothing)
                }
            }
        case .compact: compact(job)
        case .collect: collect(job)
        case .scan: scan(job, servers: nodes.map(\.number))
        case .scrub: end(job, .nothing)
        }
    }

    /// Asks the job's cache server; without an answer in time the job is given up.
    private func ask(
        _ job: ClusterJob,
        _ event: @escaping (inout CacheOwner, Ticket, MonotonicTime) -> Void,
        answer: @escaping (OwnerAnswer) -> Void
    ) {
        let isOpen = until(job, UInt64(AgentLimits.askDeadlineMilliseconds) * 1_000_000)
        guard reaches(nil, job.job.cache) else { return }
        request(job.job.cache, event) { [self] value in
            atAgent(job.agent, job.generation) { if isOpen() { answer(value) } }
        }
    }

    /// Asks the store through the job's cache server.
    private func askStore<Value>(
        _ job: ClusterJob,
        _ body: @escaping (inout ModelStore) -> Value,
        answer: @escaping (Value) -> Void
    ) {
        let isOpen = until(job, UInt64(AgentLimits.mapDeadlineMilliseconds) * 1_000_000)
        let index = job.job.cache
        guard reaches(nil, index) else { return }
        let generation = servers[index].generation
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index) { [self] _ in
                after(delay()) { [self] in
                    store.clock = MonotonicTime(now)
                    let value = body(&store)
                    after(delay()) { [self] in atAgent(job.agent, job.generation) { if isOpen() { answer(value) } } }
                }
            }
        }
    }

    /// Gives a job up after a time; returns what says, once, whether the answer still counts.
    private func until(_ job: ClusterJob, _ nanoseconds: UInt64) -> () -> Bool {
        var isOpen = true
        let take = {
            defer { isOpen = false }
            return isOpen
        }
        after(nanoseconds) { [self] in
            atAgent(job.agent, job.generation) { if take() { self.end(job, .failed) } }
        }
        return take
    }

    // MARK: Move

    private func move(_ job: ClusterJob) {
        ask(job) {
            $0.requestMoveWork($1, now: $2)
        } answer: { [self] answer in
            guard case .moveWork(let work?) = answer else { return end(job, .nothing) }
            job.agent.planner.foundWork(job.job, now: MonotonicTime(now))
            pump(job.agent)
            guard let bytes = pack(work) else {
                problems.append("I11: blocks of object \(work.object) cannot be packed")
                return end(job, .failed)
            }
            let slots = work.blocks.map {
                ObjectMap.Slot(block: $0.row.block, version: $0.row.version, condition: .itemHasVersion)
            }
            store(job, work.object, bytes, slots)
        }
    }

    private func pack(_ work: MoveAssignment) -> ByteBuffer? {
        do {
            var builder = try BlockObjectBuilder(
                objectID: work.object,
                volumeID: work.volume.id,
                volumeUUID: work.volume.uuid,
                blockSizeBytes: work.volume.geometry.blockSizeBytes,
                compressor: compressor
            )
            for block in work.blocks {
                try builder.add(
                    block: block.row.block,
                    version: block.row.version,
                    checksum: block.row.checksum,
                    bytes: block.bytes
                )
            }
            return try builder.finish()
        } catch {
            return nil
        }
    }

    /// Puts an object and asks for its map (M9): both may be late.
    private func store(_ job: ClusterJob, _ object: ObjectID, _ bytes: ByteBuffer, _ slots: [ObjectMap.Slot]) {
        let fate = isQuiet ? .max : generator.below(60)
        if fate == 0 {
            // It was given up before it was put.
            count("intent given up")
            store.sweep(object)
        }
        let connected = Set(nodes.filter { $0.files != nil }.map(\.number))
        let order = job.agent.placement.order(of: object, connected: connected, now: MonotonicTime(now))
        offer(job, object, bytes, order[...]) { [self] server in
            if fate == 1 {
                // It was given up, and collected, before its map was asked for.
                count("intent given up")
                store.sweep(object)
            }
            let pause = fate < 6 ? UInt64(generator.below(9_000)) * 1_000_000 : 0
            after(pause) { [self] in
                atAgent(job.agent, job.generation) { self.map(job, object, server, bytes.readableBytes, slots) }
            }
        }
    }

    private func offer(
        _ job: ClusterJob,
        _ object: ObjectID,
        _ bytes: ByteBuffer,
        _ order: ArraySlice<ObjectServerID>,
        _ then: @escaping (ObjectServerID) -> Void
    ) {
        guard let server = order.first else { return end(job, .failed) }
        put(object, bytes, on: server) { [self] result in
            atAgent(job.agent, job.generation) { [self] in
                switch result {
                case .success:
                    job.agent.placement.putSucceeded(on: server)
                    then(server)
                case .failure(.refused(let error)) where error.code != .exists && error.code != .invalid:
                    job.agent.placement.putFailed(on: server, now: MonotonicTime(now))
                    count("put on another server")
                    offer(job, object, bytes, order.dropFirst(), then)
                case .failure:
                    job.agent.placement.putFailed(on: server, now: MonotonicTime(now))
                    end(job, .failed)
                }
            }
        }
    }

    private func map(
        _ job: ClusterJob,
        _ object: ObjectID,
        _ server: ObjectServerID,
        _ sizeBytes: Int,
        _ slots: [ObjectMap.Slot]
    ) {
        let map = ObjectMap(object: object, server: server, sizeBytes: UInt64(sizeBytes), slots: slots)
        ask(job) {
            let deadline = $2.advanced(byNanoseconds: UInt64(AgentLimits.mapDeadlineMilliseconds) * 1_000_000)
            $0.map($1, volume: Self.volume, map: map, deadline: deadline, now: $2)
        } answer: { [self] answer in
            if case .count = answer { end(job, .worked) } else { end(job, .failed) }
        }
    }

    // MARK: Compact

    private func compact(_ job: ClusterJob) {
        ask(job) {
            $0.requestCompactionWork($1, now: $2)
        } answer: { [self] answer in
            guard case .compactionWork(let work?) = answer else { return end(job, .nothing) }
            let runs = work.extents.map {
                CompactionWork.LiveRun(
                    blocks: $0.blocks,
                    source: $0.object,
                    server: $0.server,
                    firstSlot: $0.firstSlot,
                    copy: $0.copy
                )
            }
            let message = CompactionWork.Answer(
                volume: work.volume.id,
                uuid: work.volume.uuid,
                blockSizeBytes: work.volume.geometry.blockSizeBytes,
                object: work.object,
                runs: runs
            )
            guard let plan = try? CompactionPlan(message) else {
                problems.append("M6: the work of compaction into object \(work.object) contradicts itself")
                return end(job, .failed)
            }
            gather(job, work, plan, plan.windows[...], [:])
        }
    }

    private typealias Fetched = [ObjectID: [SlotIndex: (entry: BlockObjectHeader.Slot, stored: StoredSlot)]]

    private func gather(
        _ job: ClusterJob,
        _ work: CompactionAssignment,
        _ plan: CompactionPlan,
        _ windows: ArraySlice<CompactionPlan.Window>,
        _ fetched: Fetched
    ) {
        guard let window = windows.first else { return rewrite(job, work, plan, fetched) }
        read(window.source, window.firstSlot, window.count, on: window.server) { [self] result in
            atAgent(job.agent, job.generation) { [self] in
                guard case .success(let slots) = result else {
                    count("compaction source gone")
                    return end(job, .failed)
                }
                var fetched = fetched
                for (offset, slot) in slots.enumerated() {
                    let index = SlotIndex(window.firstSlot.rawValue + UInt32(offset))
                    fetched[window.source, default: [:]][index] = slot
                }
                gather(job, work, plan, windows.dropFirst(), fetched)
            }
        }
    }

    private func rewrite(
        _ job: ClusterJob,
        _ work: CompactionAssignment,
        _ plan: CompactionPlan,
        _ fetched: Fetched
    ) {
        do {
            var builder = try BlockObjectBuilder(
                objectID: work.object,
                volumeID: work.volume.id,
                volumeUUID: work.volume.uuid,
                blockSizeBytes: work.volume.geometry.blockSizeBytes,
                compressor: nil
            )
            var slots: [ObjectMap.Slot] = []
            for item in plan.items {
                guard let slot = fetched[item.source]?[item.sourceSlot], slot.entry.block == item.origin else {
                    problems.append("M11: slot \(item.sourceSlot) of object \(item.source) holds another block")
                    return end(job, .failed)
                }
                if item.copyVersion != nil { count("compaction of a copy") }
                let version = item.copyVersion ?? slot.entry.version
                _ = try builder.add(block: item.block, version: version, stored: slot.stored, using: inflater)
                let condition = ObjectMap.Condition.extentNames(item.source, item.sourceSlot)
                slots.append(ObjectMap.Slot(block: item.block, version: version, condition: condition))
            }
            store(job, work.object, try builder.finish(), slots)
        } catch {
            problems.append("I11: object \(work.object) cannot be packed: \(error)")
            end(job, .failed)
        }
    }

    // MARK: Collect and scan

    private func collect(_ job: ClusterJob) {
        let (intentAge, grace) = ages
        askStore(job) {
            $0.collectObjects(intentAge: intentAge, grace: grace, limit: 64)
        } answer: { [self] rows in
            guard !rows.isEmpty else { return end(job, .nothing) }
            delete(job, rows.map { (object: $0.object, server: $0.server) }[...], gone: [])
        }
    }

    private func delete(
        _ job: ClusterJob,
        _ objects: ArraySlice<(object: ObjectID, server: ObjectServerID)>,
        gone: [ObjectID]
    ) {
        guard let next = objects.first else {
            return askStore(job) {
                $0.forgetObjects(gone)
            } answer: { [self] in
                count("collected")
                end(job, .worked)
            }
        }
        delete(next.object, on: next.server) { [self] isGone in
            atAgent(job.agent, job.generation) {
                self.delete(job, objects.dropFirst(), gone: isGone ? gone + [next.object] : gone)
            }
        }
    }

    /// Lists first and asks then (M8).
    private func scan(_ job: ClusterJob, servers: [ObjectServerID]) {
        guard let server = servers.first else { return end(job, .nothing) }
        let others = Array(servers.dropFirst())
        if defect == .scanAsksFirst {
            let all = (0..<UInt64(20_000)).map { ObjectID($0) }
            return askStore(job) {
                $0.knownObjects(all)
            } answer: { [self] known in
                list(job, server, others) { [self] listed in
                    deleteUnknown(job, server, listed.filter { !known.contains($0) }[...], others)
                }
            }
        }
        list(job, server, others) { [self] listed in
            askStore(job) {
                $0.knownObjects(listed)
            } answer: { [self] known in
                deleteUnknown(job, server, listed.filter { !known.contains($0) }[...], others)
            }
        }
    }

    private func list(
        _ job: ClusterJob,
        _ server: ObjectServerID,
        _ others: [ObjectServerID],
        _ then: @escaping ([ObjectID]) -> Void
    ) {
        ask(server) { (_, files) throws(ObjectStoreError) -> ObjectPage in
            try files.list(after: nil, limit: Int(AgentLimits.scanPageObjects))
        } answer: { [self] result in
            atAgent(job.agent, job.generation) { [self] in
                guard case .success(let page) = result else { return scan(job, servers: others) }
                guard !page.ids.isEmpty else { return scan(job, servers: others) }
                then(page.ids)
            }
        }
    }

    private func deleteUnknown(
        _ job: ClusterJob,
        _ server: ObjectServerID,
        _ objects: ArraySlice<ObjectID>,
        _ others: [ObjectServerID]
    ) {
        guard let object = objects.first else { return scan(job, servers: others) }
        count("orphan deleted")
        delete(object, on: server) { [self] _ in
            atAgent(job.agent, job.generation) { self.deleteUnknown(job, server, objects.dropFirst(), others) }
        }
    }
}
