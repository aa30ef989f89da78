import AshlarCore
import AshlarTestSupport
import DequeModule
import NIOCore
import Ownership

/// Two cache servers, a store, initiators and an agent in one thread and virtual time: the production cores of both sides,
/// messages that are late, servers that stop, pause and come back, commits whose outcome nobody hears.
final class Cluster {
    typealias Client = NexusClient<Request, Answer>

    struct Request {
        var operation: Int
        var command: CommandOperation
    }

    enum Answer {
        case done
        case read([ReadRun], [ByteBuffer])
        case failed(Refusal)
    }

    /// One attempt of an initiator to do something: what the checker sees.
    struct Operation {
        var isRead: Bool
        var firstSector: Int
        var count: Int
        /// The value written to each sector, or read from it.
        var values: [UInt64]
        var begun: UInt64
        /// Nil: not known whether it happened (writes), or failed (reads).
        var ended: UInt64?
        var hasFailedCleanly = false
    }

    final class Server {
        let endpoint: String
        var core: CacheOwner
        var generation = 0
        var pausedUntil: UInt64 = 0
        var tickets: [Ticket: (OwnerAnswer) -> Void] = [:]
        var nextTicket: UInt64 = 1

        init(endpoint: String) {
            self.endpoint = endpoint
            core = CacheOwner(configuration: OwnerConfiguration(name: endpoint, endpoint: endpoint, memoryBytes: 96 << 10))
        }
    }

    final class Initiator {
        let index: Int
        var client: Client?
        var server: Int?
        var login = 0
        var inFlight = 0
        var isAsleepUntil: UInt64 = 0
        init(index: Int) { self.index = index }
    }

    static let volume = VolumeID(7)
    static let sectorBytes = 512
    let blocks: Int
    let blockBytes: Int
    var generator: SeededGenerator
    var store: ModelStore
    var servers: [Server]
    var initiators: [Initiator]
    var operations: [Operation] = []
    private(set) var now: UInt64 = 1_000_000_000
    private var queue: [(at: UInt64, order: UInt64, run: () -> Void)] = []
    private var order: UInt64 = 0
    private var nextValue: UInt64 = 1
    var counters: [String: Int] = [:]
    var digest: UInt64 = 0xCBF2_9CE4_8422_2325

    init(seed: UInt64, initiators count: Int = 3, blocks: Int = 24, blockBytes: UInt32 = 2_048) throws {
        generator = SeededGenerator(seed: seed)
        self.blocks = blocks
        self.blockBytes = Int(blockBytes)
        let geometry = try Geometry(sizeBytes: UInt64(blocks) * UInt64(blockBytes), blockSizeBytes: blockBytes)
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 4 * UInt64(blockBytes)
        policy.readFill = .second
        let description = VolumeDescription(
            id: Self.volume, name: "v", iqn: "iqn.2026-01.io.ashlar:v", uuid: [UInt8](repeating: 1, count: 16),
            geometry: geometry, policy: policy)
        store = ModelStore(volumes: [description])
        servers = [Server(endpoint: "a:1"), Server(endpoint: "b:1")]
        initiators = (0..<count).map { Initiator(index: $0) }
    }

    // MARK: Time

    private static func precedes(_ a: (at: UInt64, order: UInt64, run: () -> Void), _ b: (at: UInt64, order: UInt64, run: () -> Void)) -> Bool {
        (a.at, a.order) < (b.at, b.order)
    }

    func after(_ nanoseconds: UInt64, _ run: @escaping () -> Void) {
        order += 1
        let entry = (at: now + nanoseconds, order: order, run: run)
        var low = 0
        var high = queue.count
        while low < high {
            let middle = (low + high) / 2
            if Self.precedes(entry, queue[middle]) { low = middle + 1 } else { high = middle }
        }
        queue.insert(entry, at: low)
    }

    /// A message's delay: mostly short, now and then longer than any lease.
    private func delay() -> UInt64 {
        if generator.below(400) == 0 { return UInt64(generator.below(9_000)) * 1_000_000 }
        return UInt64(50 + generator.below(2_000)) * 1_000
    }

    func run(until end: UInt64) {
        while let next = queue.last, next.at <= end {
            queue.removeLast()
            now = next.at
            next.run()
        }
        now = max(now, end)
    }

    func count(_ name: String) { counters[name, default: 0] += 1 }

    private func fold(_ value: UInt64) { digest = (digest ^ value) &* 0x100_0000_01B3 }

    // MARK: Servers

    func start() {
        for index in servers.indices { tick(index) }
        for initiator in initiators { login(initiator) }
        agent()
    }

    private func tick(_ index: Int) {
        after(20_000_000) { [self] in
            onServer(index) { $0.core.tick(now: MonotonicTime(self.now)) }
            tick(index)
        }
    }

    /// Runs an event at a server, or later if it is paused; then runs what it asks for.
    private func onServer(_ index: Int, _ event: @escaping (Server) -> Void) {
        let server = servers[index]
        let generation = server.generation
        if server.pausedUntil > now {
            after(server.pausedUntil - now + 1) { [self] in
                guard servers[index].generation == generation else { return }
                onServer(index, event)
            }
            return
        }
        event(server)
        server.core.endTurn(now: MonotonicTime(now))
        while let action = server.core.nextAction() { run(action, at: index, generation) }
    }

    /// Brings an answer of the store to the process that asked, if that still runs.
    private func toServer(_ index: Int, _ generation: Int, _ event: @escaping (Server) -> Void) {
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index, event)
        }
    }

    func kill(_ index: Int) {
        let old = servers[index]
        let fresh = Server(endpoint: old.endpoint)
        fresh.generation = old.generation + 1
        servers[index] = fresh
        count("kill")
        for initiator in initiators where initiator.server == index { connectionLost(initiator) }
    }

    func pause(_ index: Int, for nanoseconds: UInt64) {
        servers[index].pausedUntil = now + nanoseconds
        count("pause")
    }

    private func run(_ action: OwnerAction, at index: Int, _ generation: Int) {
        let lease = UInt64(Limits.leaseMilliseconds) * 1_000_000
        let volume = Self.volume
        switch action {
        case .answer(let ticket, let answer):
            guard let completion = servers[index].tickets.removeValue(forKey: ticket) else { return }
            after(delay()) { completion(answer) }
        case .note: break
        case .commit(let id, let commits): commit(id, commits, at: index, generation)
        case .fetchSlot(let id, let extent, _):
            after(delay()) { [self] in
                let found = store.slot(extent.object, extent.firstSlot)
                toServer(index, generation) { server in
                    let result: Result<ByteBuffer, SlotFailure> =
                        if let found, found.block == extent.blocks.first { .success(found.bytes) } else {
                            .failure(.damaged("gone"))
                        }
                    server.core.slotFetched(id, result, now: MonotonicTime(self.now))
                }
            }
        case .loadRegion(let id, _, let range):
            ask(index, generation, { $0.loadRegion(volume, range) }) { $0.regionLoaded(id, $1, now: $2) }
        case .loadBytes(let id, _, let blocks):
            ask(index, generation, { $0.loadBytes(volume, blocks) }) { $0.bytesLoaded(id, $1, now: $2) }
        case .takeOver(let id, _, let server):
            let now = { MonotonicTime(self.now) }
            ask(index, generation, { $0.takeOver(volume, server: server, now: now()) }) {
                $0.takeOverCompleted(id, $1, now: $2)
            }
        case .openNexus(let id, _, let epoch, let row):
            ask(index, generation, { $0.openNexus(volume, epoch, row) }) { $0.nexusStored(id, $1, now: $2) }
        case .closeNexus(let id, _, let epoch, let nexus):
            ask(index, generation, { $0.closeNexus(volume, epoch, nexus) }) { $0.nexusStored(id, $1, now: $2) }
        case .reserveObjects(let id, _, let count):
            ask(index, generation, { $0.reserve(count: count) }) { $0.objectsReserved(id, $1, now: $2) }
        case .fetchMoveCandidates(let id, _, let from, let limit):
            ask(index, generation, { $0.moveCandidates(volume, from: from, limit: limit) }) {
                $0.moveCandidatesFetched(id, $1, now: $2)
            }
        case .fetchEvictionCandidates(let id, _, let limit):
            ask(index, generation, { $0.evictionCandidates(volume, limit: limit) }) {
                $0.evictionCandidatesFetched(id, $1, now: $2)
            }
        case .fetchCompactionCandidates(let id, _, let percent, let limit):
            ask(index, generation, { $0.compactionCandidates(volume, belowPercent: percent, limit: limit) }) {
                $0.compactionCandidatesFetched(id, $1, now: $2)
            }
        case .registerServer(let id):
            let endpoint = servers[index].endpoint
            let now = { MonotonicTime(self.now) }
            ask(index, generation, { $0.register(endpoint: endpoint, lease: lease, now: now()) }) {
                $0.serverRegistered(id, $1, now: $2)
            }
        case .renewLease(let id, let server):
            let now = { MonotonicTime(self.now) }
            ask(index, generation, { $0.renew(server, lease: lease, now: now()) }) {
                $0.leaseRenewed(id, $1, now: $2)
            }
        }
    }

    /// Asks the store: a transaction takes effect when it arrives, its answer comes later.
    private func ask<Value>(
        _ index: Int, _ generation: Int, _ request: @escaping (inout ModelStore) -> Value,
        _ event: @escaping (inout CacheOwner, Result<Value, StoreFailure>, MonotonicTime) -> Void
    ) {
        let isRefused = generator.below(500) == 0
        after(delay()) { [self] in
            let result: Result<Value, StoreFailure> =
                isRefused ? .failure(.refused("planted")) : .success(request(&store))
            toServer(index, generation) { event(&$0.core, result, MonotonicTime(self.now)) }
        }
    }

    private func commit(_ id: OperationID, _ commits: [VolumeCommit], at index: Int, _ generation: Int) {
        let dice = generator.below(400)
        after(delay()) { [self] in
            let result: Result<[VolumeCommitResult], StoreFailure>
            switch dice {
            case 0:
                count("unknown, committed")
                _ = store.commit(commits)
                result = .failure(.unknownOutcome("planted"))
            case 1:
                count("unknown, not committed")
                result = .failure(.unknownOutcome("planted"))
            case 2:
                count("refused")
                result = .failure(.refused("planted"))
            default:
                result = .success(store.commit(commits))
                if case .success(let list) = result, case .fenced? = list.first { count("fenced") }
            }
            toServer(index, generation) { $0.core.commitCompleted(id, result, now: MonotonicTime(self.now)) }
        }
    }

    /// Sends a request to a server; its answer comes back unless the process has gone.
    func request(
        _ index: Int, _ event: @escaping (inout CacheOwner, Ticket, MonotonicTime) -> Void,
        answer: @escaping (OwnerAnswer) -> Void
    ) {
        let generation = servers[index].generation
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index) { server in
                let ticket = Ticket(server.nextTicket)
                server.nextTicket += 1
                server.tickets[ticket] = answer
                event(&server.core, ticket, MonotonicTime(self.now))
            }
        }
    }

    // MARK: Initiators

    func login(_ initiator: Initiator) {
        initiator.client = nil
        initiator.server = nil
        initiator.inFlight = 0
        initiator.login += 1
        locate(initiator, login: initiator.login)
    }

    private func connectionLost(_ initiator: Initiator) {
        initiator.server = nil
        initiator.client?.ownerLost()
        drain(initiator)
    }

    private func locate(_ initiator: Initiator, login: Int) {
        let index = generator.below(servers.count)
        var isAnswered = false
        let volume = Self.volume
        request(index) { $0.lookUp($1, volume: volume, now: $2) } answer: { [self] answer in
            isAnswered = true
            guard initiator.login == login else { return }
            guard case .volume(_, let stamp) = answer else {
                return after(50_000_000) { if initiator.login == login { self.locate(initiator, login: login) } }
            }
            initiator.server = index
            if initiator.client == nil {
                open(initiator, login: login)
            } else {
                initiator.client?.ownerFound(stamp)
                drain(initiator)
            }
        }
        after(1_000_000_000) { [self] in
            if !isAnswered, initiator.login == login { isAnswered = true; locate(initiator, login: login) }
        }
    }

    private func open(_ initiator: Initiator, login: Int) {
        guard let index = initiator.server else { return }
        let ports = InitiatorTargetNexus(initiatorName: "i\(initiator.index)", isid: 1, portalGroupTag: 1)
        var isAnswered = false
        request(index) {
            $0.openNexus($1, volume: Self.volume, ports: ports, node: "t", now: $2)
        } answer: { [self] answer in
            guard initiator.login == login, !isAnswered else { return }
            isAnswered = true
            guard case .nexusOpened(let number, let stamp) = answer else {
                return after(20_000_000) { if initiator.login == login { self.login(initiator) } }
            }
            initiator.client = Client(volume: Self.volume, nexus: number, opened: stamp)
            work(initiator, login: login)
            idle(initiator, login: login)
        }
        after(5_000_000_000) { [self] in
            if !isAnswered, initiator.login == login { isAnswered = true; self.login(initiator) }
        }
    }

    private func idle(_ initiator: Initiator, login: Int) {
        after(250_000_000) { [self] in
            guard initiator.login == login, initiator.client != nil else { return }
            initiator.client?.tick(now: MonotonicTime(now), giveUp: .failed(.deadline))
            drain(initiator)
            idle(initiator, login: login)
        }
    }

    func drain(_ initiator: Initiator) {
        let login = initiator.login
        while initiator.login == login, let action = initiator.client?.nextAction() { run(action, initiator, login) }
    }

    private func run(_ action: NexusAction<Request, Answer>, _ initiator: Initiator, _ login: Int) {
        switch action {
        case .send(let id, let attempt, let request, let context):
            guard let index = initiator.server else {
                initiator.client?.ownerLost()
                return
            }
            self.request(index) {
                let deadline = $2.advanced(byNanoseconds: 20_000_000_000)
                $0.submit($1, context: context, operation: request.command, deadline: deadline, now: $2)
            } answer: { [self] answer in
                guard initiator.login == login else { return }
                initiator.client?.answered(id, attempt: attempt, disposition(answer))
                drain(initiator)
            }
        case .complete(let request, let outcome): complete(request, outcome, initiator)
        case .stampArrived(let token): prove(token, initiator, login)
        case .ping: break
        case .resume(let number, let stamp): resume(number, stamp, initiator, login)
        case .locate: locate(initiator, login: login)
        case .drop:
            count("drop")
            self.login(initiator)
        }
    }

    /// The initiator answers something that was sent after the evidence arrived, unless it sleeps.
    private func prove(_ token: UInt64, _ initiator: Initiator, _ login: Int) {
        let wake = max(initiator.isAsleepUntil, now) - now
        after(wake + delay()) { [self] in
            guard initiator.login == login else { return }
            initiator.client?.proved(token: token)
            drain(initiator)
        }
    }

    private func resume(_ number: NexusNumber, _ stamp: Stamp, _ initiator: Initiator, _ login: Int) {
        guard let index = initiator.server else {
            initiator.client?.ownerLost()
            return
        }
        count("resume")
        var isAnswered = false
        request(index) {
            $0.resumeNexus($1, volume: Self.volume, nexus: number, proved: stamp, now: $2)
        } answer: { [self] answer in
            guard initiator.login == login, !isAnswered else { return }
            isAnswered = true
            switch answer {
            case .nexusResumed(let done, let stamp): initiator.client?.resumed(done: done, stamp)
            case .refused(.unproved, let stamp): initiator.client?.resumeRefused(unproved: stamp)
            case .refused(.nexusClosed, _): initiator.client?.resumeRefused(unproved: nil)
            default: initiator.client?.ownerLost()
            }
            drain(initiator)
        }
        after(2_000_000_000) { [self] in
            guard initiator.login == login, !isAnswered else { return }
            isAnswered = true
            initiator.client?.ownerLost()
            drain(initiator)
        }
    }

    private func disposition(_ answer: OwnerAnswer) -> NexusDisposition<Answer> {
        switch answer {
        case .done(let stamp): .final(.done, stamp)
        case .read(let stamp, let runs, let payload): .final(.read(runs, payload), stamp)
        case .refused(.unproved, let stamp): .unproved(stamp)
        case .refused(.wrongEpoch, _), .refused(.notOwner, _): .ownerLost
        case .refused(.nexusClosed, _): .nexusClosed
        case .refused(let refusal, _): .final(.failed(refusal), nil)
        default: .final(.failed(.invalid("unexpected answer")), nil)
        }
    }

    // MARK: Workload

    private func work(_ initiator: Initiator, login: Int) {
        after(UInt64(generator.below(12_000)) * 1_000) { [self] in
            guard initiator.login == login, initiator.client != nil else { return }
            if initiator.inFlight < 4 { issue(initiator) }
            if generator.below(600) == 0 {
                initiator.isAsleepUntil = now + UInt64(generator.below(7_000)) * 1_000_000
                count("sleep")
            }
            if generator.below(900) == 0 {
                // The path breaks and the initiator comes back, with what was in flight unanswered.
                count("relogin")
                self.login(initiator)
                return
            }
            work(initiator, login: login)
        }
    }

    private func issue(_ initiator: Initiator) {
        let sectors = blocks * blockBytes / Self.sectorBytes
        let count = 1 + generator.below(generator.chance(70) ? 6 : 40)
        let first = generator.below(sectors - count)
        let isRead = generator.chance(45)
        let range = ByteRange(offset: UInt64(first * Self.sectorBytes), count: UInt64(count * Self.sectorBytes))
        var operation = Operation(isRead: isRead, firstSector: first, count: count, values: [], begun: now)
        let command: CommandOperation
        if isRead {
            command = .read(range)
        } else if generator.chance(12) {
            command = .zero([range])
            operation.values = Array(repeating: 0, count: count)
        } else {
            let value = nextValue
            nextValue += 1
            operation.values = Array(repeating: value, count: count)
            command = write(range, value: value)
        }
        operations.append(operation)
        initiator.inFlight += 1
        let deadline = MonotonicTime(now + 20_000_000_000)
        _ = initiator.client?.submit(
            Request(operation: operations.count - 1, command: command), isChange: !isRead, deadline: deadline)
        drain(initiator)
    }

    private func write(_ range: ByteRange, value: UInt64) -> CommandOperation {
        var bytes = ByteBuffer()
        while bytes.readableBytes < Int(range.count) { bytes.writeInteger(value) }
        var checksums: [Checksum] = []
        var position = 0
        while position < Int(range.count) {
            let offset = Int(range.offset) + position
            let count = min(blockBytes - offset % blockBytes, Int(range.count) - position)
            let piece = bytes.getSlice(at: position, length: count) ?? ByteBuffer()
            checksums.append(piece.withUnsafeReadableBytes { Checksum(of: $0) })
            position += count
        }
        return .write(offset: range.offset, checksums: checksums, bytes: bytes)
    }

    private func complete(_ request: Request, _ outcome: NexusOutcome<Answer>, _ initiator: Initiator) {
        initiator.inFlight -= 1
        let index = request.operation
        switch outcome {
        case .answered(.done): operations[index].ended = now
        case .committedEarlier:
            count("committed earlier")
            operations[index].ended = now
        case .aborted: count("aborted")
        case .answered(.read(let runs, let payload)): finishRead(index, runs, payload, initiator)
        case .answered(.failed(let refusal)): count("failed \(refusal)")
        }
        fold(UInt64(index))
        fold(now)
    }

    /// Puts a read's blocks together; an object that has gone makes it fail, as a repeat would (I7).
    private func finishRead(_ index: Int, _ runs: [ReadRun], _ payload: [ByteBuffer], _ initiator: Initiator) {
        var bytes = ByteBuffer()
        var rest = payload[...]
        for run in runs {
            switch run {
            case .bytes(let checksums):
                for checksum in checksums {
                    guard let block = rest.popFirst() else { return count("short read") }
                    precondition(block.withUnsafeReadableBytes { Checksum(of: $0) } == checksum, "I11")
                    bytes.writeImmutableBuffer(block)
                }
            case .zeros(let blocks): bytes.writeRepeatingByte(0, count: Int(blocks) * blockBytes)
            case .object(let object, _, let first, let slots):
                for slot in 0..<slots {
                    guard let found = store.slot(object, SlotIndex(first.rawValue + slot)) else {
                        return count("object gone")
                    }
                    bytes.writeImmutableBuffer(found.bytes)
                    count("read from object")
                }
            }
        }
        let skip = operations[index].firstSector * Self.sectorBytes % blockBytes
        operations[index].values = (0..<operations[index].count).map { sector in
            bytes.getInteger(at: skip + sector * Self.sectorBytes) ?? .max
        }
        operations[index].ended = now
    }

    // MARK: Agent

    private func agent() {
        after(UInt64(30 + generator.below(200)) * 1_000_000) { [self] in
            let index = generator.below(servers.count)
            switch generator.below(10) {
            case 0..<5: move(index)
            case 5, 6: request(index) { $0.requestEviction($1, now: $2) } answer: { _ in self.count("evict") }
            case 7, 8: compact(index)
            default:
                store.collect()
                count("collect")
            }
            agent()
        }
    }

    private func move(_ index: Int) {
        request(index) { $0.requestMoveWork($1, now: $2) } answer: { [self] answer in
            guard case .moveWork(let work?) = answer else { return }
            count("move")
            after(delay()) { [self] in
                if generator.below(20) == 0 { return store.sweep(work.object) }
                store.put(work.object, work.blocks.map { ($0.row.block, $0.bytes) })
                let slots = work.blocks.map {
                    ObjectMap.Slot(block: $0.row.block, version: $0.row.version, condition: .itemHasVersion)
                }
                map(index, work.object, slots)
            }
        }
    }

    private func map(_ index: Int, _ object: ObjectID, _ slots: [ObjectMap.Slot]) {
        let map = ObjectMap(object: object, server: ObjectServerID(1), sizeBytes: 1, slots: slots)
        request(index) {
            let deadline = $2.advanced(byNanoseconds: 20_000_000_000)
            $0.map($1, volume: Self.volume, map: map, deadline: deadline, now: $2)
        } answer: { [self] answer in
            if case .count(let count, _) = answer, count > 0 { self.count("mapped") }
        }
    }

    private func compact(_ index: Int) {
        request(index) { $0.requestCompactionWork($1, now: $2) } answer: { [self] answer in
            guard case .compactionWork(let work?) = answer else { return }
            var contents: [(block: BlockID, bytes: ByteBuffer)] = []
            var slots: [ObjectMap.Slot] = []
            for extent in work.extents {
                for offset in 0..<extent.blocks.count {
                    let slot = SlotIndex(extent.firstSlot.rawValue + UInt32(offset))
                    guard let found = store.slot(extent.object, slot) else { return count("compaction source gone") }
                    contents.append(found)
                    slots.append(
                        ObjectMap.Slot(
                            block: found.block, version: Version(1), condition: .extentNames(extent.object, slot)))
                }
            }
            count("compaction")
            after(delay()) { [self] in
                store.put(work.object, contents)
                map(index, work.object, slots)
            }
        }
    }
}
