import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import Ownership

/// Two cache servers, a store, initiators, two object servers and two agents in one thread and virtual time: the production
/// cores of all, messages that are late, servers that stop, pause and come back, connections that break, initiators that sleep
/// or go to another port, commits whose outcome nobody hears, disks that lose what was not synced.
///
/// Everything that happens follows from the seed.
final class Cluster {
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
    static let windows = 5
    /// The last of them lies across the end of the volume while that is smallest.
    static let tail = windows - 1
    static let blocksInWindow = 6
    static let timeToLive = UInt64(Limits.nexusTimeToLiveMilliseconds) * 1_000_000
    let seed: UInt64
    let blockBytes: Int
    let defect: Defect?
    /// Whether initiators register, reserve and preempt one another.
    let hasReservations: Bool
    /// How long an initiator thinks at most before its next command.
    let thinkMicroseconds: Int
    /// The keys with which ports are registered, as far as their initiators know.
    var keys: [Int: ReservationKey] = [:]
    var generator: SeededGenerator
    var store: ModelStore
    var servers: [Server] = []
    var initiators: [Initiator] = []
    var nodes: [ObjectNode] = []
    var agents: [ClusterAgent] = []
    /// Targets that write directly; none in some clusters.
    var directTargets: [ClusterDirectTarget] = []
    /// Where blocks last lay, in clusters whose targets ask both at once.
    var places: KnownPlaces?
    /// Targets that write through; none in some clusters.
    var throughTargets: [ClusterThroughTarget] = []
    var map: MapChecker
    /// What was seen to be wrong while it ran.
    var problems: [String] = []
    /// Milliseconds after which intents are given up, and dead objects deleted.
    let ages: (intent: UInt64, grace: UInt64)
    let inflater: BlockInflater
    /// Some clusters compress, some do not.
    let compressor: BlockCompressor?
    var operations: [ClusterOperation] = []
    /// When the tail was cut off, and nobody has taken the volume over since.
    var cuts: [Int] = []
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
    /// The time, in nanoseconds.
    private(set) var time: UInt64 = 1_000_000_000
    /// What a server takes for the time where it does not look at its clock again.
    private var heldTime: UInt64?
    var now: UInt64 { heldTime ?? time }
    private var queue: [(at: UInt64, order: UInt64, run: () -> Void)] = []
    private var order: UInt64 = 0
    var nextValue: UInt64 = 1
    var counters: [String: Int] = [:]
    var alarms: [String] = []
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
        blockBytes wanted: UInt32? = nil,
        defect: Defect? = nil,
        storeDefect: ModelStore.Defect? = nil
    ) throws {
        self.seed = seed
        self.defect = defect
        hasReservations = seed.isMultiple(of: 2)
        generator = SeededGenerator(seed: seed)
        let drawn: UInt32 = [512, 2_048, 2_048, 4_096][generator.below(4)]
        let blockBytes = wanted ?? drawn
        self.blockBytes = Int(blockBytes)
        let regions = UInt64(Self.tail + generator.below(3))
        let size = regions * Limits.regionBlocks * UInt64(blockBytes)
        let geometry = try Geometry(sizeBytes: size, blockSizeBytes: blockBytes)
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 4 * UInt64(blockBytes)
        policy.readFill = [.never, .always, .second][generator.below(3)]
        policy.compactBelowPercent = 80
        inflater = try BlockInflater()
        compressor = generator.chance(30) ? try BlockCompressor() : nil
        thinkMicroseconds = [24_000, 60_000][generator.below(2)]
        memoryBytes = [10 << 10, 24 << 10, 128 << 10][generator.below(3)] * Int(blockBytes) / 2_048
        let block = UInt64(blockBytes)
        let isTight = generator.chance(40)
        watermarks = isTight ? (8 * block, 20 * block) : (1 << 30, 2 << 30)
        // Intents that are given up sooner than owners use them cost moves, for which nothing may wait then.
        let intentAge: UInt64 = [4_000, 15_000, 600_000][isTight ? 2 : generator.below(3)]
        ages = (intent: intentAge, grace: [0, 300, 2_000][generator.below(3)])
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
        map = MapChecker(blocks: Self.blocks(initiators: count))
        servers = ["a:1", "b:1"].map { Server(configuration: configuration($0)) }
        initiators = (0..<count).map { Initiator(index: $0) }
        nodes = [1, 2].map { ObjectNode(number: ObjectServerID($0)) }
        for node in nodes {
            open(node)
            guard defect == .putsUnsynced else { continue }
            node.disk.restartProcess()
            open(node)
        }
        // Drawn from the seed alone, so that other draws stay as they are.
        if seed % 3 != 0 { directTargets = [ClusterDirectTarget(blockSizeBytes: blockBytes)] }
        if seed % 5 < 3 { places = KnownPlaces() }
        if seed % 3 == 0 || seed % 4 == 1 { throughTargets = [ClusterThroughTarget(blockSizeBytes: blockBytes)] }
        agents = (0..<2).map {
            ClusterAgent(number: $0, planner: planner(seed: generator.next()), servers: nodes.map(\.number))
        }
    }

    /// All blocks that somebody may write.
    private static func blocks(initiators: Int) -> [BlockID] {
        let starts = (0..<windows).map { windowStart($0) } + (0..<initiators).map { placeOfCopies($0) }
        return starts.flatMap { start in (0..<UInt64(blocksInWindow)).map { BlockID(start + $0) } }
    }

    private func configuration(_ endpoint: String) -> OwnerConfiguration {
        var configuration = OwnerConfiguration(
            name: endpoint,
            endpoint: endpoint,
            memoryBytes: memoryBytes,
            unmovedHighWatermarkBytes: watermarks.high,
            unmovedHardLimitBytes: watermarks.hard,
            // Moves are to meet as much as they can.
            busyPause: 0
        )
        if defect == .leaseOverrated { configuration.lease *= 3 }
        if defect == .proofsNeverAge { configuration.nexusTimeToLive *= 100 }
        return configuration
    }

    // MARK: Geometry

    var sectorsInBlock: Int { blockBytes / Self.sectorBytes }
    var sectorsInWindow: Int { Self.blocksInWindow * sectorsInBlock }
    var sectors: Int { Self.windows * sectorsInWindow }

    /// The block at which a window begins: half of it lies before the border of a region.
    static func windowStart(_ window: Int) -> UInt64 {
        window == 0 ? 0 : UInt64(window) * Limits.regionBlocks - UInt64(blocksInWindow / 2)
    }

    /// The first block of an initiator's own place for copies, which is as large as a window and lies before the tail: what goes
    /// across windows does not reach it.
    static func placeOfCopies(_ initiator: Int) -> UInt64 {
        windowStart(tail - 1) + UInt64((initiator + 1) * 2 * blocksInWindow)
    }

    func offset(ofSector sector: Int) -> UInt64 {
        let window = sector / sectorsInWindow
        return Self.windowStart(window) * UInt64(blockBytes)
            + UInt64(sector % sectorsInWindow * Self.sectorBytes)
    }

    // MARK: Time

    func after(_ nanoseconds: UInt64, _ run: @escaping () -> Void) {
        order += 1
        let at = time + nanoseconds
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
            time = next.at
            next.run()
        }
        time = max(time, end)
    }

    /// Drops all that is still to happen, and who takes part: they hold the cluster, and one another.
    func end() {
        queue = []
        for server in servers { server.tickets = [:] }
        for initiator in initiators { initiator.session?.reads = [:] }
        (servers, initiators, nodes, agents, operations) = ([], [], [], [], [])
        directTargets = []
        throughTargets = []
        store = ModelStore(volumes: [])
    }

    func count(_ name: String) {
        counters[name, default: 0] += 1
    }

    func fold(_ value: UInt64) { digest = (digest ^ value) &* 0x100_0000_01B3 }

    // MARK: Servers

    func start() {
        for index in servers.indices { tick(index) }
        for initiator in initiators {
            login(initiator)
            work(initiator)
        }
        for agent in agents { pump(agent) }
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
            let arrived = now
            after(server.pausedUntil - now + 1) { [self] in
                guard servers[index].generation == generation else { return }
                // R8: a lease is tested with the time at which something is done, not at which it was asked for.
                if defect == .clockReadEarly { heldTime = arrived }
                defer { heldTime = nil }
                onServer(index, event)
            }
            return
        }
        event(server)
        server.core.endTurn(now: MonotonicTime(now))
        while let action = server.core.nextAction() { run(action, at: index, generation) }
    }

    /// Brings an answer of the store to the process that asked, if that still runs.
    func toServer(_ index: Int, _ generation: Int, _ event: @escaping (Server) -> Void) {
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index, event)
        }
    }

    /// Brings something to a process at once, if that still runs.
    func toServerNow(_ index: Int, _ generation: Int, _ event: @escaping (Server) -> Void) {
        guard servers[index].generation == generation else { return }
        onServer(index, event)
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
        case .alarm(let text): alarms.append(text)
        case .commit(let id, let commits): commit(id, commits, at: index, generation)
        case .fetchSlot(let id, let extent, _): fetch(id, extent, at: index, generation)
        case .loadRegion(let id, _, let range):
            ask(index, generation, { $0.loadRegion(volume, range) }) { $0.regionLoaded(id, $1, now: $2) }
        case .countVolume(let id, _):
            ask(index, generation, { $0.countVolume(volume) }) { $0.volumeCounted(id, $1, now: $2) }
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
            let takeOver = { [self] (store: inout ModelStore) in
                let result = store.takeOver(volume, server: server, now: clock())
                if case .owned = result { endCuts() }
                return result
            }
            ask(index, generation, takeOver) {
                var result = $1
                if case .success(.owned) = result { self.count("takeover") }
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

    /// Asks the store: a transaction takes effect when it arrives, its answer comes later.
    func ask<Value>(
        _ index: Int,
        _ generation: Int,
        _ request: @escaping (inout ModelStore) -> Value,
        _ event: @escaping (inout CacheOwner, Result<Value, StoreFailure>, MonotonicTime) -> Void
    ) {
        let isRefused = !isQuiet && generator.below(400) == 0
        after(delayToStore(index)) { [self] in
            store.clock = MonotonicTime(now)
            let result: Result<Value, StoreFailure> =
                isRefused ? .failure(.refused("planted")) : .success(request(&store))
            toServer(index, generation) { event(&$0.core, result, MonotonicTime(self.now)) }
        }
    }

    private func commit(_ id: OperationID, _ commits: [VolumeCommit], at index: Int, _ generation: Int) {
        let dice = isQuiet ? 1_000 : generator.below(300)
        after(delayToStore(index)) { [self] in
            store.clock = MonotonicTime(now)
            let result: Result<[VolumeCommitResult], StoreFailure>
            switch dice {
            case 0:
                count("unknown, committed")
                _ = applied(defect == .halfCommitted ? commits.map(half) : commits)
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
            case 10..<40 where defect == .lockLeftOut && commits.allSatisfy(isCurrent):
                // I3: the epoch is tested by a plain join; the transaction takes effect later.
                return after(UInt64(generator.below(6_000)) * 1_000_000) { [self] in
                    let list = apply(commits, isUnguarded: true)
                    toServer(index, generation) {
                        $0.core.commitCompleted(id, .success(list), now: MonotonicTime(self.now))
                    }
                }
            default: result = applied(commits)
            }
            toServer(index, generation) { $0.core.commitCompleted(id, result, now: MonotonicTime(self.now)) }
        }
    }

    private func isCurrent(_ commit: VolumeCommit) -> Bool { store.state(of: commit.volume)?.epoch == commit.epoch }

    private func half(_ commit: VolumeCommit) -> VolumeCommit {
        var commit = commit
        commit.writes = Array(commit.writes.prefix(commit.writes.count / 2))
        return commit
    }
}
