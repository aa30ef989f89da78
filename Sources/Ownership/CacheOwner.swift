public import AshlarCore
import DequeModule

/// The pure core of a cache server: owner of volumes, in the order of whose commands all initiators agree (I2).
///
/// Events are methods that take the time; actions are drained with ``nextAction()`` after each event. Nothing in here knows a
/// socket, a clock or a database, so that the same code runs in production and in simulation.
///
/// Invariants that it keeps, beside those of ``RangeOrder`` and ``Region``:
/// - an answer `done` goes out only after the commit that holds the command's effects is durable (I1);
/// - an answer to a read is made from the image while the lease holds (R8);
/// - a batch goes to the store whole, a command is never split over two (I12).
///
/// Not Sendable: one thread owns it.
public struct CacheOwner: ~Copyable {
    enum Slot {
        case takingOver([Ticket])
        case owned(VolumeOwner)
    }

    /// Commands of one commit, by volume, in the order of the commit's elements.
    final class Flight {
        var parts: [(volume: VolumeOwner, commands: [Command])] = []
        var ceilings: [Version?] = []
    }

    enum Operation {
        case commit(Flight)
        case region(VolumeOwner, Region)
        case bytes(VolumeOwner, Command, [BlockID])
        case slot(VolumeOwner, Command, Extent)
        case fillSlot(VolumeOwner, Extent)
        case takeOver(VolumeID)
        case openNexus(VolumeOwner, Nexus, Ticket)
        case closeNexus(VolumeOwner, Ticket?)
        case objects(VolumeOwner)
        case moveCandidates(MoveSearch)
        case moveBytes(MoveSearch)
        case evictions(VolumeOwner)
        case compactions(VolumeOwner, Ticket)
        case register(asked: MonotonicTime)
        case renew(asked: MonotonicTime)
    }

    enum Retry {
        case region(VolumeOwner, Region)
        case bytes(VolumeOwner, Command, [BlockID])
        case slot(VolumeOwner, Command, Extent)
        case takeOver(VolumeID)
        case release(VolumeOwner, Command)
    }

    let configuration: OwnerConfiguration
    var actions: Deque<OwnerAction> = []
    var operations: [OperationID: Operation] = [:]
    var nextOperation: UInt64 = 1
    var volumes: [VolumeID: Slot] = [:]
    var retries: [(at: MonotonicTime, what: Retry)] = []

    // The lease (section 6): `leaseEnd` is on our clock, counted from before it was asked for.
    var server: CacheServerID?
    var leaseEnd = MonotonicTime(0)
    var isLeaseAsked = false
    var nextLeaseRequest = MonotonicTime(0)
    /// Reads whose answer waits for the lease to be renewed.
    var parkedReads: [(VolumeOwner, Command)] = []
    /// Look-ups that wait for a registration.
    var parkedLookUps: [(Ticket, VolumeID)] = []

    // Commits.
    var ready: Deque<(volume: VolumeOwner, command: Command)> = []
    var commitsInFlight = 0
    var noCommitBefore = MonotonicTime(0)
    /// Commits made since the start.
    public internal(set) var commits: UInt64 = 0
    /// Blocks committed since the start.
    public internal(set) var committedBlocks: UInt64 = 0

    // The memory image of all volumes together.
    var dropQueue: Deque<DropEntry> = []
    var regionQueue: Deque<(volume: VolumeOwner, index: UInt64, lastUse: UInt64)> = []
    var useCounter: UInt64 = 0
    /// Bytes of the memory image.
    public internal(set) var imageBytes = 0

    // Moves.
    var moveRound: [VolumeID] = []

    /// An owner of nothing, which first has to register.
    public init(configuration: OwnerConfiguration) {
        self.configuration = configuration
    }

    /// The next thing to do for the shell; nil when there is nothing until the next event.
    public mutating func nextAction() -> OwnerAction? { actions.popFirst() }

    // MARK: Time and lease

    /// Lets time pass: lease, retries, deadlines. Called every 20 ms or so.
    public mutating func tick(now: MonotonicTime) {
        renewLeaseIfDue(now: now)
        runRetries(now: now)
        expireWaiting(now: now)
        flush(now: now)
    }

    /// Ends a turn of events: commits what is ready if a commit slot is free (group commit).
    public mutating func endTurn(now: MonotonicTime) {
        flush(now: now)
        shrinkImage()
    }

    /// Whether the lease holds at `now`.
    public func holdsLease(now: MonotonicTime) -> Bool { server != nil && now < leaseEnd }

    mutating func renewLeaseIfDue(now: MonotonicTime) {
        guard !isLeaseAsked, now >= nextLeaseRequest else { return }
        isLeaseAsked = true
        if let server {
            actions.append(.renewLease(operation(.renew(asked: now)), server))
        } else {
            actions.append(.registerServer(operation(.register(asked: now))))
        }
    }

    /// The store registered this server, or not.
    public mutating func serverRegistered(
        _ id: OperationID, _ result: Result<CacheServerID, StoreFailure>, now: MonotonicTime
    ) {
        guard case .register(let asked)? = operations.removeValue(forKey: id) else { return }
        isLeaseAsked = false
        switch result {
        case .success(let server):
            self.server = server
            leaseEnd = asked.advanced(byNanoseconds: configuration.lease)
            nextLeaseRequest = now.advanced(byNanoseconds: configuration.lease / 4)
            let lookUps = parkedLookUps
            parkedLookUps = []
            for (ticket, volume) in lookUps { lookUp(ticket, volume: volume, now: now) }
        case .failure(let failure):
            nextLeaseRequest = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
            actions.append(.note("registration failed: \(failure)"))
        }
    }

    /// The store extended the lease, or found it ended.
    public mutating func leaseRenewed(_ id: OperationID, _ result: Result<Bool, StoreFailure>, now: MonotonicTime) {
        guard case .renew(let asked)? = operations.removeValue(forKey: id) else { return }
        isLeaseAsked = false
        switch result {
        case .success(true):
            leaseEnd = asked.advanced(byNanoseconds: configuration.lease)
            nextLeaseRequest = now.advanced(byNanoseconds: configuration.lease / 4)
            let reads = parkedReads
            parkedReads = []
            for (volume, command) in reads where !volume.isLost { finishRead(command, of: volume, now: now) }
        case .success(false):
            actions.append(.note("the lease has ended in PostgreSQL: registering anew, all volumes given up"))
            server = nil
            nextLeaseRequest = now
            for slot in Array(volumes.values) {
                if case .owned(let volume) = slot { lose(volume, retake: false, now: now) }
            }
        case .failure(let failure):
            nextLeaseRequest = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
            actions.append(.note("renewal of the lease failed: \(failure)"))
        }
    }

    // MARK: Volumes

    /// Finds a volume here, taking it over if nobody else holds it; answered with `volume` or `refused`.
    public mutating func lookUp(_ ticket: Ticket, volume id: VolumeID, now: MonotonicTime) {
        guard let server else {
            parkedLookUps.append((ticket, id))
            return
        }
        switch volumes[id] {
        case .owned(let volume):
            actions.append(.answer(ticket, .volume(volume.description, stamp(volume, now))))
        case .takingOver(var tickets):
            tickets.append(ticket)
            volumes[id] = .takingOver(tickets)
        case nil:
            volumes[id] = .takingOver([ticket])
            actions.append(.takeOver(operation(.takeOver(id)), id, server))
        }
    }

    /// The store took a volume over, or not.
    public mutating func takeOverCompleted(
        _ id: OperationID, _ result: Result<TakeoverResult, StoreFailure>, now: MonotonicTime
    ) {
        guard case .takeOver(let volumeID)? = operations.removeValue(forKey: id) else { return }
        guard case .takingOver(let tickets)? = volumes[volumeID] else { return }
        switch result {
        case .success(.owned(let ownership)):
            let volume = VolumeOwner(ownership)
            volumes[volumeID] = .owned(volume)
            moveRound.append(volumeID)
            for ticket in tickets {
                actions.append(.answer(ticket, .volume(volume.description, stamp(volume, now))))
            }
        case .success(.heldBy(_, let endpoint, let left)):
            if endpoint == configuration.endpoint {
                // An earlier process of this very server: its lease has to end first.
                let wait = max(UInt64(left) * 1_000_000, OwnerLimits.storeRetry)
                retries.append((now.advanced(byNanoseconds: wait), .takeOver(volumeID)))
            } else {
                volumes[volumeID] = nil
                for ticket in tickets { refuse(ticket, .notOwner(endpoint)) }
            }
        case .success(.noSuchVolume):
            volumes[volumeID] = nil
            for ticket in tickets { refuse(ticket, .noSuchVolume) }
        case .success(.leaseEnded):
            volumes[volumeID] = nil
            server = nil
            nextLeaseRequest = now
            parkedLookUps.append(contentsOf: tickets.map { ($0, volumeID) })
            for slot in Array(volumes.values) {
                if case .owned(let volume) = slot { lose(volume, retake: false, now: now) }
            }
        case .failure(let failure):
            actions.append(.note("takeover of volume \(volumeID) failed: \(failure)"))
            retries.append((now.advanced(byNanoseconds: OwnerLimits.storeRetry), .takeOver(volumeID)))
        }
    }

    /// Takes in a changed description of an owned volume. Sizes only grow here; a shrink ends the epoch.
    public mutating func describe(_ description: VolumeDescription, now: MonotonicTime) {
        guard case .owned(let volume)? = volumes[description.id] else { return }
        guard description.geometry.sizeBytes >= volume.geometry.sizeBytes else {
            lose(volume, retake: true, now: now)
            return
        }
        volume.description = description
        volume.nextMoveLook = now
        volume.nextEvictionLook = now
        volume.nextCompactionLook = now
    }

    /// Gives a volume up: everything that waits for it is refused, and its epoch serves no more.
    mutating func lose(_ volume: VolumeOwner, retake: Bool, now: MonotonicTime) {
        guard !volume.isLost else { return }
        volume.isLost = true
        let commands = volume.order.active + volume.order.waiting
        for command in commands {
            command.phase = .finished
            if let ticket = command.ticket { refuse(ticket, .notOwner(nil)) }
            for fence in command.fences { settle(fence, refusal: .notOwner(nil)) }
        }
        for nexus in volume.nexuses.values { nexus.inFlight = [:] }
        ready.removeAll { $0.volume === volume }
        parkedReads.removeAll { $0.0 === volume }
        retries.removeAll { $0.what.belongs(to: volume) }
        imageBytes -= volume.imageBytes
        volume.imageBytes = 0
        moveRound.removeAll { $0 == volume.id }
        volumes[volume.id] = nil
        if retake, let server {
            volumes[volume.id] = .takingOver([])
            actions.append(.takeOver(operation(.takeOver(volume.id)), volume.id, server))
        }
    }

    /// The endpoint at which this server is registered.
    public var endpoint: String { configuration.endpoint }

    /// The iSCSI name of a volume that is owned here.
    public func iqn(of id: VolumeID) -> String? { owned(id)?.description.iqn }

    /// The owner's time for a volume, and the revision of its description, if it is owned and the lease holds.
    public func currentStamp(of id: VolumeID, now: MonotonicTime) -> (Stamp, revision: UInt64)? {
        guard holdsLease(now: now), case .owned(let volume)? = volumes[id] else { return nil }
        return (stamp(volume, now), volume.description.revision)
    }

    // MARK: Helpers

    func stamp(_ volume: VolumeOwner, _ now: MonotonicTime) -> Stamp { Stamp(epoch: volume.epoch, time: now) }

    func owned(_ id: VolumeID) -> VolumeOwner? {
        if case .owned(let volume)? = volumes[id] { volume } else { nil }
    }

    mutating func operation(_ what: Operation) -> OperationID {
        let id = OperationID(nextOperation)
        nextOperation += 1
        operations[id] = what
        return id
    }

    mutating func refuse(_ ticket: Ticket, _ refusal: Refusal, _ stamp: Stamp? = nil) {
        actions.append(.answer(ticket, .refused(refusal, stamp)))
    }

    mutating func settle(_ fence: Fence, refusal: Refusal? = nil, stamp: Stamp? = nil) {
        guard fence.remaining > 0 else { return }
        if let refusal {
            fence.remaining = 0
            refuse(fence.ticket, refusal, stamp)
            return
        }
        fence.remaining -= 1
        if fence.remaining == 0, let stamp { actions.append(.answer(fence.ticket, .done(stamp))) }
    }

    private mutating func runRetries(now: MonotonicTime) {
        guard retries.contains(where: { $0.at <= now }) else { return }
        let due = retries.filter { $0.at <= now }
        retries.removeAll { $0.at <= now }
        for retry in due {
            switch retry.what {
            case .region(let volume, let region):
                actions.append(.loadRegion(operation(.region(volume, region)), volume.id, region.range))
            case .bytes(let volume, let command, let blocks):
                actions.append(.loadBytes(operation(.bytes(volume, command, blocks)), volume.id, blocks))
            case .slot(let volume, let command, let extent):
                let id = operation(.slot(volume, command, extent))
                actions.append(.fetchSlot(id, extent, blockSizeBytes: volume.geometry.blockSizeBytes))
            case .takeOver(let id):
                guard case .takingOver? = volumes[id] else { continue }
                if let server {
                    actions.append(.takeOver(operation(.takeOver(id)), id, server))
                } else {
                    retries.append((now.advanced(byNanoseconds: OwnerLimits.storeRetry), .takeOver(id)))
                }
            case .release(let volume, let command):
                guard command.phase == .waiting else { continue }
                enter(command, of: volume, now: now)
            }
        }
    }
}

extension CacheOwner.Retry {
    func belongs(to owner: VolumeOwner) -> Bool {
        switch self {
        case .region(let volume, _), .bytes(let volume, _, _), .slot(let volume, _, _), .release(let volume, _):
            volume === owner
        case .takeOver: false
        }
    }
}
