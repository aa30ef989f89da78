import AshlarCore
import AshlarTestSupport
import NIOCore

@testable import Ownership

/// Two cache servers, a store, initiators and an agent in one thread and virtual time: the production cores of both sides,
/// messages that are late, servers that stop, pause and come back, connections that break, initiators that sleep or go to
/// another port, commits whose outcome nobody hears.
///
/// Everything that happens follows from the seed.
final class Cluster {
    /// Defects in what joins the cores to one another and to the store, planted to see that the checker finds them.
    enum Defect: String, CaseIterable {
        /// A server takes its lease for far longer than it is (R8).
        case leaseOverrated
        /// Old proofs are taken for fresh ones (R1).
        case proofsNeverAge
        /// A target takes an initiator for alive without having heard of it (R1).
        case proofsWithoutInitiator
        /// Commands of an earlier epoch are passed off as the current one's (R5).
        case epochsRewritten
        /// Of a commit whose outcome is not heard only a part is made (I12).
        case halfCommitted
        /// A commit is now and then acknowledged without being made (I1).
        case commitForgotten
        /// A new owner starts without registrations and reservation.
        case registrationsForgotten
        /// A reset aborts only what has come to the owner (R6).
        case transitForgotten
        /// A server that gave the volume up does not remember what was aborted on its way (R9).
        case abortsForgottenWithHandOver
        /// Who takes a nexus up again does not remember that it was aborted meanwhile (R9).
        case abortsForgottenWithResume
    }

    final class Server {
        let endpoint: String
        var core: CacheOwner
        var generation = 0
        var pausedUntil: UInt64 = 0
        var tickets: [Ticket: (OwnerAnswer) -> Void] = [:]
        var nextTicket: UInt64 = 1

        init(configuration: OwnerConfiguration) {
            endpoint = configuration.endpoint
            core = CacheOwner(configuration: configuration)
        }
    }

    static let volume = VolumeID(7)
    static let sectorBytes = 512
    /// Data blocks that are used, in windows across the borders of regions.
    static let windows = 4
    static let blocksInWindow = 6
    static let timeToLive = UInt64(Limits.nexusTimeToLiveMilliseconds) * 1_000_000
    let seed: UInt64
    let blockBytes: Int
    let defect: Defect?
    /// Whether initiators register, reserve and preempt one another.
    let hasReservations: Bool
    /// The keys with which ports are registered, as far as their initiators know.
    var keys: [Int: ReservationKey] = [:]
    /// How many times as often as usual something happens that may do harm.
    let trouble: Int
    var generator: SeededGenerator
    var store: ModelStore
    var servers: [Server] = []
    var initiators: [Initiator] = []
    var operations: [ClusterOperation] = []
    /// Which initiator waits for an operation.
    var owners: [Int: Int] = [:]
    enum Mood {
        /// Everything goes wrong now and then.
        case rough
        /// Nothing goes wrong any more.
        case healthy
        /// Nor do initiators begin anything.
        case still
    }

    var mood = Mood.rough {
        didSet { if mood == .still { isolated = nil } }
    }
    var isQuiet: Bool { mood != .rough }
    private(set) var now: UInt64 = 1_000_000_000
    private var queue: [(at: UInt64, order: UInt64, run: () -> Void)] = []
    private var order: UInt64 = 0
    var nextValue: UInt64 = 1
    var counters: [String: Int] = [:]
    var digest: UInt64 = 0xCBF2_9CE4_8422_2325
    /// A server that is cut off from the store and from all but one initiator.
    private(set) var isolated: (server: Int, until: UInt64)?
    private let memoryBytes: Int
    private let watermarks: (high: UInt64, hard: UInt64)
    /// One message in so many takes very long.
    private let slowOneIn: Int

    init(
        seed: UInt64,
        initiators count: Int = 3,
        blockBytes: UInt32 = 2_048,
        defect: Defect? = nil,
        storeDefect: ModelStore.Defect? = nil
    ) throws {
        self.seed = seed
        self.defect = defect
        hasReservations =
            defect == .registrationsForgotten || storeDefect == .reservationsIgnored
            || (defect == nil && storeDefect == nil && seed.isMultiple(of: 2))
        trouble = storeDefect == nil ? 1 : 4
        generator = SeededGenerator(seed: seed)
        self.blockBytes = Int(blockBytes)
        let size = UInt64(Self.windows) * Limits.regionBlocks * UInt64(blockBytes)
        let geometry = try Geometry(sizeBytes: size, blockSizeBytes: blockBytes)
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 4 * UInt64(blockBytes)
        policy.readFill = [.never, .always, .second][generator.below(3)]
        policy.compactBelowPercent = 80
        memoryBytes = [10 << 10, 24 << 10, 128 << 10][generator.below(3)]
        let block = UInt64(blockBytes)
        watermarks = generator.chance(40) ? (8 * block, 20 * block) : (1 << 30, 2 << 30)
        slowOneIn = [300, 50][generator.below(2)]
        let description = VolumeDescription(
            id: Self.volume,
            name: "v",
            iqn: "iqn.2026-01.io.ashlar:v",
            uuid: [UInt8](repeating: 1, count: 16),
            geometry: geometry,
            policy: policy
        )
        store = ModelStore(volumes: [description])
        store.defect = storeDefect
        servers = ["a:1", "b:1"].map { Server(configuration: configuration($0)) }
        initiators = (0..<count).map { Initiator(index: $0) }
    }

    private func configuration(_ endpoint: String) -> OwnerConfiguration {
        var configuration = OwnerConfiguration(
            name: endpoint,
            endpoint: endpoint,
            memoryBytes: memoryBytes,
            unmovedHighWatermarkBytes: watermarks.high,
            unmovedHardLimitBytes: watermarks.hard
        )
        if defect == .leaseOverrated { configuration.lease *= 3 }
        if defect == .proofsNeverAge { configuration.nexusTimeToLive *= 100 }
        return configuration
    }

    // MARK: Geometry

    static var sectorsInBlock: Int { 4 }
    static var sectorsInWindow: Int { blocksInWindow * sectorsInBlock }
    static var sectors: Int { windows * sectorsInWindow }

    /// The block at which a window begins: half of it lies before the border of a region.
    static func windowStart(_ window: Int) -> UInt64 {
        window == 0 ? 0 : UInt64(window) * Limits.regionBlocks - UInt64(blocksInWindow / 2)
    }

    /// The first block of an initiator's own place for copies, which is as large as a window and lies behind the last of them:
    /// what goes across windows does not reach it.
    static func placeOfCopies(_ initiator: Int) -> UInt64 {
        windowStart(windows - 1) + UInt64((initiator + 1) * 2 * blocksInWindow)
    }

    func offset(ofSector sector: Int) -> UInt64 {
        let window = sector / Self.sectorsInWindow
        return Self.windowStart(window) * UInt64(blockBytes)
            + UInt64(sector % Self.sectorsInWindow * Self.sectorBytes)
    }

    // MARK: Time

    func after(_ nanoseconds: UInt64, _ run: @escaping () -> Void) {
        order += 1
        let at = now + nanoseconds
        var low = 0
        var high = queue.count
        while low < high {
            let middle = (low + high) / 2
            if at <= queue[middle].at { low = middle + 1 } else { high = middle }
        }
        // What comes first stands last; of what comes at the same time, what was asked for first.
        while low > 0, queue[low - 1].at == at { low -= 1 }
        queue.insert((at, order, run), at: low)
    }

    /// A message's delay: mostly short, now and then longer than any lease.
    func delay() -> UInt64 {
        if !isQuiet, generator.below(slowOneIn) == 0 { return UInt64(generator.below(9_000)) * 1_000_000 }
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

    func fold(_ value: UInt64) { digest = (digest ^ value) &* 0x100_0000_01B3 }

    // MARK: Servers

    func start() {
        for index in servers.indices { tick(index) }
        for initiator in initiators {
            login(initiator)
            work(initiator)
        }
        agent()
    }

    private func tick(_ index: Int) {
        after(20_000_000) { [self] in
            onServer(index) { $0.core.tick(now: MonotonicTime(self.now)) }
            // As servers do, so that every volume has an owner though no initiator asks.
            if mood != .still, generator.below(40) == 0 {
                request(index) {
                    $0.lookUp($1, volume: Self.volume, now: $2)
                } answer: { _ in
                }
            }
            tick(index)
        }
    }

    /// Runs an event at a server, or later if it is paused; then runs what it asks for.
    func onServer(_ index: Int, _ event: @escaping (Server) -> Void) {
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
        let fresh = Server(configuration: configuration(old.endpoint))
        fresh.generation = old.generation + 1
        servers[index] = fresh
        count("kill")
        for session in sessions where session.server == index { breakConnection(session) }
    }

    func pause(_ index: Int, for nanoseconds: UInt64) {
        servers[index].pausedUntil = now + nanoseconds
        count("pause")
    }

    /// Cuts a server off from the store and from all but the first initiator, which in turn reaches no other.
    func isolate(_ index: Int, for nanoseconds: UInt64) {
        isolated = (index, now + nanoseconds)
        count("isolation")
        for session in sessions where session.server.map({ !reaches(session.initiator, $0) }) == true {
            breakConnection(session)
        }
    }

    /// Whether an initiator's target (nil: the agent) reaches a server now.
    func reaches(_ initiator: Initiator?, _ index: Int) -> Bool {
        guard let isolated, isolated.until > now else { return true }
        return (isolated.server == index) == (initiator?.index == 0)
    }

    /// A server that can be reached.
    func anyServer(for initiator: Initiator?) -> Int {
        let index = generator.below(servers.count)
        return reaches(initiator, index) ? index : servers.count - 1 - index
    }

    /// How long a request takes to the store.
    private func delayToStore(_ index: Int) -> UInt64 {
        guard let isolated, isolated.until > now, isolated.server == index else { return delay() }
        return isolated.until - now + delay()
    }

    /// Sends a request to a server; its answer comes back unless the process has gone.
    func request(
        _ index: Int,
        _ event: @escaping (inout CacheOwner, Ticket, MonotonicTime) -> Void,
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

    // MARK: Actions of a server

    private func run(_ action: OwnerAction, at index: Int, _ generation: Int) {
        let volume = Self.volume
        switch action {
        case .answer(let ticket, let answer):
            guard let completion = servers[index].tickets.removeValue(forKey: ticket) else {
                return count("answered twice")
            }
            after(delay()) { completion(answer) }
        case .note: break
        case .commit(let id, let commits): commit(id, commits, at: index, generation)
        case .fetchSlot(let id, let extent, _): fetch(id, extent, at: index, generation)
        case .loadRegion(let id, _, let range):
            ask(index, generation, { $0.loadRegion(volume, range) }) { $0.regionLoaded(id, $1, now: $2) }
        case .surveyMap(let id, _, let range, let runs):
            let rows = OwnerLimits.mapStatusRowsMaximum
            ask(index, generation, { $0.surveyMap(volume, range, rowsMaximum: rows, runsMaximum: runs) }) {
                $0.mapSurveyed(id, $1, now: $2)
            }
        case .loadBytes(let id, _, let blocks):
            ask(index, generation, { $0.loadBytes(volume, blocks) }) { $0.bytesLoaded(id, $1, now: $2) }
        case .openNexus(let id, _, let epoch, let row):
            ask(index, generation, { $0.openNexus(volume, epoch, row) }) { $0.nexusStored(id, $1, now: $2) }
        case .closeNexus(let id, _, let epoch, let nexus):
            ask(index, generation, { $0.closeNexus(volume, epoch, nexus) }) { $0.nexusStored(id, $1, now: $2) }
        case .relinquish: relinquish(action, at: index, generation)
        case .takeOver, .registerServer, .renewLease: lease(action, at: index, generation)
        case .reserveObjects, .fetchMoveCandidates, .fetchEvictionCandidates, .fetchCompactionCandidates:
            move(action, at: index, generation)
        }
    }

    private func lease(_ action: OwnerAction, at index: Int, _ generation: Int) {
        let lease = UInt64(Limits.leaseMilliseconds) * 1_000_000
        let clock = { MonotonicTime(self.now) }
        switch action {
        case .takeOver(let id, let volume, let server):
            let forgets = defect == .registrationsForgotten
            ask(index, generation, { $0.takeOver(volume, server: server, now: clock()) }) {
                var result = $1
                if forgets, case .success(.owned(var ownership)) = result {
                    ownership.unit.reservations = PersistentReservations()
                    result = .success(.owned(ownership))
                }
                $0.takeOverCompleted(id, result, now: $2)
            }
        case .registerServer(let id):
            let endpoint = servers[index].endpoint
            ask(index, generation, { $0.register(endpoint: endpoint, lease: lease, now: clock()) }) {
                $0.serverRegistered(id, $1, now: $2)
            }
        case .renewLease(let id, let server):
            if !isQuiet, generator.below(12) == 0 {
                count("slow renewal")
                return after(UInt64(generator.below(8_000)) * 1_000_000) { [self] in
                    let result = store.renew(server, lease: lease, now: clock())
                    toServer(index, generation) { $0.core.leaseRenewed(id, .success(result), now: clock()) }
                }
            }
            ask(index, generation, { $0.renew(server, lease: lease, now: clock()) }) {
                $0.leaseRenewed(id, $1, now: $2)
            }
        default: break
        }
    }

    private func move(_ action: OwnerAction, at index: Int, _ generation: Int) {
        switch action {
        case .reserveObjects(let id, _, let count):
            ask(index, generation, { $0.reserve(count: count) }) { $0.objectsReserved(id, $1, now: $2) }
        case .fetchMoveCandidates(let id, let volume, let from, let limit):
            ask(index, generation, { $0.moveCandidates(volume, from: from, limit: limit) }) {
                $0.moveCandidatesFetched(id, $1, now: $2)
            }
        case .fetchEvictionCandidates(let id, let volume, let limit):
            ask(index, generation, { $0.evictionCandidates(volume, limit: limit) }) {
                $0.evictionCandidatesFetched(id, $1, now: $2)
            }
        case .fetchCompactionCandidates(let id, let volume, let percent, let limit):
            ask(index, generation, { $0.compactionCandidates(volume, belowPercent: percent, limit: limit) }) {
                $0.compactionCandidatesFetched(id, $1, now: $2)
            }
        default: break
        }
    }

    private func fetch(_ id: OperationID, _ extent: Extent, at index: Int, _ generation: Int) {
        let isUnavailable = !isQuiet && generator.below(50) == 0
        after(delay()) { [self] in
            let found = store.slot(extent.object, extent.firstSlot)
            toServer(index, generation) { server in
                let result: Result<ByteBuffer, SlotFailure>
                if isUnavailable {
                    result = .failure(.unavailable("planted"))
                } else if let found, found.block == extent.blocks.first {
                    result = .success(found.bytes)
                } else {
                    result = .failure(.damaged("gone"))
                }
                server.core.slotFetched(id, result, now: MonotonicTime(self.now))
            }
        }
    }

    /// Asks the store: a transaction takes effect when it arrives, its answer comes later.
    func ask<Value>(
        _ index: Int,
        _ generation: Int,
        _ request: @escaping (inout ModelStore) -> Value,
        _ event: @escaping (inout CacheOwner, Result<Value, StoreFailure>, MonotonicTime) -> Void
    ) {
        let isRefused = !isQuiet && generator.below(400) == 0
        after(delayToStore(index)) { [self] in
            let result: Result<Value, StoreFailure> =
                isRefused ? .failure(.refused("planted")) : .success(request(&store))
            toServer(index, generation) { event(&$0.core, result, MonotonicTime(self.now)) }
        }
    }

    private func commit(_ id: OperationID, _ commits: [VolumeCommit], at index: Int, _ generation: Int) {
        let dice = isQuiet ? 1_000 : generator.below(300)
        after(delayToStore(index)) { [self] in
            let result: Result<[VolumeCommitResult], StoreFailure>
            switch dice {
            case 0:
                count("unknown, committed")
                _ = store.commit(defect == .halfCommitted ? commits.map(half) : commits)
                result = .failure(.unknownOutcome("planted"))
            case 1:
                count("unknown, not committed")
                result = .failure(.unknownOutcome("planted"))
            case 2:
                count("refused")
                result = .failure(.refused("planted"))
            case 3:
                count("broken")
                result = .failure(.broken("planted"))
            case 4..<10 where defect == .commitForgotten:
                result = .success(commits.map { _ in .committed(.init()) })
            default:
                result = .success(store.commit(commits))
                if case .success(let list) = result, case .fenced? = list.first { count("fenced") }
            }
            toServer(index, generation) { $0.core.commitCompleted(id, result, now: MonotonicTime(self.now)) }
        }
    }

    private func half(_ commit: VolumeCommit) -> VolumeCommit {
        var commit = commit
        commit.writes = Array(commit.writes.prefix(commit.writes.count / 2))
        return commit
    }
}
