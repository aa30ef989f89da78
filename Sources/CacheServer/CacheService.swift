import AshlarCore
import BlockObjects
import DequeModule
import Logging
import NIOCore
import Ownership
import PostgresStore
import RPC
import Transport

/// Runs the actions of ``CacheOwner`` on one event loop: the only place that answers, asks the store, or reads objects.
///
/// Not Sendable: everything happens on `loop`; what comes back from the store's threads hops onto it.
final class CacheService {
    /// Who waits for a ticket's answer.
    enum Waiter {
        case request(RPCServerConnection, RPCRequestHandle, isLookUp: Bool)
        /// A step of the service's own, for example after a takeover.
        case then((OwnerAnswer) -> Void)
    }

    let loop: any EventLoop
    let configuration: CacheConfiguration
    let store: PostgresBlockStore
    let logger: Logger
    var core: CacheOwner
    var waiters = TicketTable<Waiter>()
    private var objectClients: [ObjectServerID: RPCClient] = [:]
    private let inflater: BlockInflater
    private var timer: RepeatedTask?
    private var isEndOfTurnScheduled = false
    private var outages: [StoreRequestKind: OutageLog] = [:]
    private(set) var isReady = false
    var balance = CacheBalance()
    private var look: RepeatedTask?

    init(
        loop: any EventLoop,
        configuration: CacheConfiguration,
        endpoint: String,
        store: PostgresBlockStore,
        identity: TLSIdentity,
        logger: Logger
    ) throws {
        self.loop = loop
        self.configuration = configuration
        self.store = store
        self.logger = logger
        inflater = try BlockInflater()
        core = CacheOwner(
            configuration: OwnerConfiguration(
                name: configuration.node.name,
                endpoint: endpoint,
                memoryBytes: configuration.memoryBytes,
                unmovedHighWatermarkBytes: configuration.unmovedHighWatermarkBytes,
                unmovedHardLimitBytes: configuration.unmovedHardLimitBytes,
                logSlowBelowBytes: configuration.log.slowBelowBytes,
                logWaitBelowBytes: configuration.log.waitBelowBytes
            )
        )
        for (id, text) in configuration.objectServers {
            guard let endpoint = RPCEndpoint(text, defaultPort: 7501) else {
                throw CacheServerError.invalidEndpoint(key: "objects.endpoints", value: text)
            }
            objectClients[ObjectServerID(id)] = RPCClient(
                eventLoop: loop,
                configuration: RPCClient.Configuration(
                    endpoint: endpoint,
                    identity: identity,
                    expectedRole: .objects,
                    seed: UInt64(bitPattern: Int64(id))
                ),
                logger: logger
            )
        }
    }

    var now: MonotonicTime { RPCClock.now }

    /// Whether it has been started and not stopped.
    var isRunning: Bool { timer != nil }

    // MARK: Life

    /// Begins to register, to renew the lease and to take volumes over. On the loop.
    func start() {
        for client in objectClients.values { client.start() }
        let bound = NIOLoopBound(self, eventLoop: loop)
        timer = loop.scheduleRepeatedTask(initialDelay: .zero, delay: CacheServerLimits.tick) { _ in
            let service = bound.value
            service.core.tick(now: service.now)
            service.runActions()
            service.endLeaving()
        }
        look = loop.scheduleRepeatedTask(initialDelay: CacheServerLimits.look, delay: CacheServerLimits.look) { _ in
            bound.value.lookAtServers()
        }
        acquireVolumes(after: nil)
        measureLogRoom()
        cleanJournal()
    }

    /// Stops answering. On the loop; the store is shut down by who made it.
    func stop() {
        timer?.cancel()
        timer = nil
        look?.cancel()
        look = nil
        for client in objectClients.values { client.close() }
    }

    /// Takes every volume over that nobody owns, page by page, so that their items are moved though no initiator asks.
    private func acquireVolumes(after name: String?) {
        let bound = NIOLoopBound(self, eventLoop: loop)
        guard timer != nil else { return }
        store.volumes(after: name, limit: CacheServerLimits.acquisitionPage) { [loop] result in
            loop.execute {
                let service = bound.value
                guard service.timer != nil else { return }
                var next: String?
                if case .success(let page) = result {
                    for volume in page { service.acquire(volume) }
                    service.runActions()
                    if page.count == CacheServerLimits.acquisitionPage { next = page.last?.name }
                }
                service.note(result.failure, of: .registry)
                let following = next
                let pause = next == nil ? CacheServerLimits.acquisitionRound : CacheServerLimits.acquisitionPause
                service.loop.scheduleTask(in: pause) { bound.value.acquireVolumes(after: following) }
            }
        }
    }

    private func acquire(_ volume: VolumeDescription) {
        if core.currentStamp(of: volume.id, now: now) != nil {
            core.describe(volume, now: now)
        } else if substitute(for: volume.id) == nil {
            core.lookUp(ticket(.then { _ in }), volume: volume.id, now: now)
        }
    }

    // MARK: Requests

    func ticket(_ waiter: Waiter) -> Ticket { waiters.add(waiter) }

    /// Runs what the last events asked for, and commits what has become ready: at the end of each read, and after answers of
    /// the store.
    func endTurn() {
        core.endTurn(now: now)
        runActions()
    }

    func runActions() {
        while let action = core.nextAction() { run(action) }
    }

    private func run(_ action: OwnerAction) {
        switch action {
        case .answer(let ticket, let answer):
            switch waiters.take(ticket) {
            case .request(let connection, let handle, let isLookUp):
                respond(answer, to: handle, on: connection, isLookUp: isLookUp)
            case .then(let step): step(answer)
            case nil: break
            }
        case .note(let text): logger.notice("\(text)")
        case .alarm(let text): logger.critical("\(text)")
        case .fetchSlot(let id, let extent, let blockSize): fetch(id, extent, blockSizeBytes: blockSize)
        default: runStore(action)
        }
    }

    /// A completion for the store, that brings its result to the loop as an event of the core.
    private func event<Value: Sendable>(
        _ kind: StoreRequestKind,
        _ body: @escaping @Sendable (CacheService, Result<Value, StoreFailure>, MonotonicTime) -> Void
    ) -> @Sendable (Result<Value, StoreFailure>) -> Void {
        let bound = NIOLoopBound(self, eventLoop: loop)
        return { [loop] result in
            loop.execute {
                let service = bound.value
                service.note(result.failure, of: kind)
                body(service, result, service.now)
                service.endTurn()
            }
        }
    }

    /// Logs what PostgreSQL refuses, by what it is about: once, then now and then, and when it is over.
    func note(_ failure: StoreFailure?, of kind: StoreRequestKind) {
        guard let failure else {
            guard outages[kind]?.isFailing == true else { return }
            if case .ended(let failures, let milliseconds)? = outages[kind]?.succeeded(now: now) {
                logger.notice(
                    "PostgreSQL serves again",
                    metadata: ["what": "\(kind.rawValue)", "failures": "\(failures)", "after": "\(milliseconds) ms"]
                )
            }
            return
        }
        switch outages[kind, default: OutageLog()].failed("\(failure)", now: now) {
        case .began(let reason):
            logger.warning("PostgreSQL does not serve", metadata: ["what": "\(kind.rawValue)", "reason": "\(reason)"])
        case .lasts(let reason, let failures, let milliseconds):
            logger.warning(
                "PostgreSQL still does not serve",
                metadata: [
                    "what": "\(kind.rawValue)", "reason": "\(reason)", "failures": "\(failures)",
                    "for": "\(milliseconds / 1_000) s",
                ]
            )
        case .ended, nil: break
        }
    }

    /// Why this server is not ready; nil: it is.
    var healthProblem: String? {
        if !isReady { return "not registered in PostgreSQL yet" }
        if let refusal = store.refusal { return "PostgreSQL is refused: \(refusal)" }
        if let (volume, why) = core.refusedVolumes.min(by: { $0.key < $1.key }) {
            return "volume \(volume) is not served, since PostgreSQL has lost acknowledged writes: \(why)"
        }
        return nil
    }

    private func runStore(_ action: OwnerAction) {
        let lease = Limits.leaseMilliseconds
        switch action {
        case .answer, .note, .alarm, .fetchSlot: preconditionFailure("not for the store")
        case .commit(let id, let commits):
            store.commit(commits, completion: event(.commits) { $0.core.commitCompleted(id, $1, now: $2) })
        case .loadRegion(let id, let volume, let range):
            store.loadRegion(
                volume: volume,
                range: range,
                completion: event(.reads) { $0.core.regionLoaded(id, $1, now: $2) }
            )
        case .countVolume(let id, let volume):
            store.countVolume(volume: volume, completion: event(.takeovers) { $0.core.volumeCounted(id, $1, now: $2) })
        case .surveyMap(let id, let volume, let range, let runs):
            store.surveyMap(
                volume: volume,
                range: range,
                rowsMaximum: OwnerLimits.mapStatusRowsMaximum,
                runsMaximum: runs,
                completion: event(.reads) { $0.core.mapSurveyed(id, $1, now: $2) }
            )
        case .loadBytes(let id, let volume, let blocks):
            store.loadBytes(
                volume: volume,
                blocks: blocks,
                completion: event(.reads) { $0.core.bytesLoaded(id, $1, now: $2) }
            )
        case .takeOver(let id, let volume, let server):
            store.takeOver(
                volume: volume,
                server: server,
                completion: event(.takeovers) { $0.core.takeOverCompleted(id, $1, now: $2) }
            )
        case .relinquish(let id, let volume, let epoch, let server, let successor):
            store.relinquish(
                volume: volume,
                epoch: epoch,
                server: server,
                successor: successor,
                completion: event(.takeovers) {
                    $0.core.volumeRelinquished(id, $1, now: $2)
                    $0.giveAway()
                }
            )
        case .openNexus(let id, let volume, let epoch, let row):
            store.openNexus(
                volume: volume,
                epoch: epoch,
                nexus: row,
                completion: event(.sessions) { $0.core.nexusStored(id, $1, now: $2) }
            )
        case .closeNexus(let id, let volume, let epoch, let nexus):
            store.closeNexus(
                volume: volume,
                epoch: epoch,
                nexus: nexus,
                completion: event(.sessions) { $0.core.nexusStored(id, $1, now: $2) }
            )
        case .reserveObjects(let id, let volume, let count):
            store.reserveObjects(
                volume: volume,
                count: count,
                completion: event(.objects) { $0.core.objectsReserved(id, $1, now: $2) }
            )
        case .fetchMoveCandidates(let id, let volume, let from, let limit):
            store.fetchMoveCandidates(
                volume: volume,
                from: from,
                limit: limit,
                completion: event(.moves) { $0.core.moveCandidatesFetched(id, $1, now: $2) }
            )
        case .fetchEvictionCandidates(let id, let volume, let limit):
            store.fetchEvictionCandidates(
                volume: volume,
                limit: limit,
                completion: event(.moves) { $0.core.evictionCandidatesFetched(id, $1, now: $2) }
            )
        case .fetchCompactionCandidates(let id, let volume, let percent, let limit):
            store.fetchCompactionCandidates(
                volume: volume,
                belowPercent: percent,
                limit: limit,
                completion: event(.moves) { $0.core.compactionCandidatesFetched(id, $1, now: $2) }
            )
        case .registerServer(let id):
            store.registerServer(
                name: configuration.node.name,
                endpoint: core.endpoint,
                leaseMilliseconds: lease,
                completion: event(.leases) {
                    $0.core.serverRegistered(id, $1, now: $2)
                    if case .success = $1 { $0.isReady = true }
                }
            )
        case .renewLease(let id, let server):
            store.renewLease(
                server: server,
                leaseMilliseconds: lease,
                completion: event(.leases) { $0.core.leaseRenewed(id, $1, now: $2) }
            )
        }
    }

    // MARK: Objects

    /// Reads one slot, for a write that replaces part of a block or for read-fill.
    private func fetch(_ id: OperationID, _ extent: Extent, blockSizeBytes: UInt32) {
        guard let client = objectClients[extent.server] else {
            let why = "object server \(extent.server) is not configured"
            core.slotFetched(id, .failure(.unavailable(why)), now: now)
            return
        }
        let message = GetSlots(object: extent.object, firstSlot: extent.firstSlot, count: 1)
        client.send(
            message,
            deadlineMilliseconds: CacheServerLimits.fetchDeadlineMilliseconds,
            waitsForConnection: true
        ) { result in
            self.core.slotFetched(
                id,
                self.block(from: result, extent: extent, blockSizeBytes: blockSizeBytes),
                now: self.now
            )
            self.endTurn()
        }
    }

    private func block(
        from result: Result<RPCAnswer, RPCFailure>,
        extent: Extent,
        blockSizeBytes: UInt32
    ) -> Result<ByteBuffer, SlotFailure> {
        switch result {
        case .failure(let failure): return .failure(.unavailable(failure.reason))
        case .success(var answer):
            do {
                let slots = try answer.decode(GetSlots.Answer.self)
                guard
                    let slot = slots.slots.first, slots.slots.count == 1, slot.block == extent.origin,
                    slots.blockSizeBytes == blockSizeBytes, let encoding = SlotEncoding(rawValue: slot.encoding),
                    let bytes = answer.body.readSlice(length: Int(slot.storedBytes))
                else { return .failure(.damaged("the slot is not the one that the map names")) }
                let stored = StoredSlot(encoding: encoding, bytes: bytes, checksum: slot.checksum)
                return .success(
                    try stored.decoded(
                        blockSizeBytes: blockSizeBytes,
                        slot: extent.firstSlot,
                        expected: nil,
                        using: inflater
                    )
                )
            } catch let error as RPCError {
                switch error.status {
                case .noSuchObject, .mediumError, .invalidMessage: return .failure(.damaged(error.message))
                default: return .failure(.unavailable(error.message))
                }
            } catch {
                return .failure(.damaged("\(error)"))
            }
        }
    }
}

/// What requests to PostgreSQL are about, for the log.
enum StoreRequestKind: String {
    case commits, reads, takeovers, sessions, objects, moves, leases, registry, room, servers, journal
}

extension Result {
    fileprivate var failure: Failure? {
        if case .failure(let failure) = self { failure } else { nil }
    }
}

/// Bounds of the cache server's shell.
enum CacheServerLimits {
    /// How often PostgreSQL is tried at start.
    static let databaseAttempts = 20
    /// Pause between these.
    static let databaseRetry = Duration.milliseconds(500)
    /// How often the core is told that time has passed.
    static let tick = TimeAmount.milliseconds(20)
    /// How often the other cache servers are looked at.
    static let look = TimeAmount.seconds(1)
    /// How long a server that is to end may take to give its volumes away, in nanoseconds: less than whoever stops it waits.
    static let leaveNanoseconds: UInt64 = 8_000_000_000
    /// How long it goes on to answer after that.
    static let linger = TimeAmount.milliseconds(500)
    /// Volumes taken over in one go.
    static let acquisitionPage = 100
    /// Pause between pages.
    static let acquisitionPause = TimeAmount.milliseconds(250)
    /// Pause between rounds over all volumes.
    static let acquisitionRound = TimeAmount.seconds(15)
    /// How often the room for PostgreSQL's log is measured.
    static let logRoomRound = TimeAmount.seconds(1)
    /// How often it is looked whether the journal has to be cleaned.
    static let journalRound = TimeAmount.seconds(1)
    /// Pause between two steps of cleaning it.
    static let journalPause = TimeAmount.milliseconds(20)
    /// How long to wait for a slot of an object.
    static let fetchDeadlineMilliseconds: UInt32 = 5_000
    /// Payloads of writes up to this size are copied out of what the connection has read.
    static let copiedPayloadMaximumBytes = 8 << 10
    /// Rows removed by one step of deleting a volume.
    static let deleteRowsMaximum = 20_000
}

/// Why a cache server could not start.
public enum CacheServerError: Error, Sendable, CustomStringConvertible {
    /// A configured endpoint is not `host:port`.
    case invalidEndpoint(key: String, value: String)

    /// Names the key and the remedy.
    public var description: String {
        switch self {
        case .invalidEndpoint(let key, let value): "\(key): '\(value)' is not host:port"
        }
    }
}
