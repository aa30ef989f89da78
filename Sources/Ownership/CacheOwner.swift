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
        /// The database knows less of the volume than was acknowledged here.
        case refused(String)
    }

    /// Commands of one commit, by volume, in the order of the commit's elements.
    final class Flight {
        var parts: [(volume: VolumeOwner, commands: [Command])] = []
        var ceilings: [Version?] = []
        /// The unit attention conditions that each part makes durable.
        var attentions: [[NexusAttentions]] = []
        /// What nexuses know of the description with each part.
        var told: [ToldDescription?] = []
        /// Commands of initiators in it.
        var clientCommands = 0
    }

    /// What was known of a volume when it began to be counted.
    struct KnownCounts {
        var unmovedItems: UInt64
        var items: UInt64
        var mappedBlocks: UInt64
    }

    enum Operation {
        case commit(Flight)
        case region(VolumeOwner, Region)
        case count(VolumeOwner, before: KnownCounts)
        case survey(VolumeOwner, Command)
        case remains(VolumeOwner, BlockRange)
        case bytes(VolumeOwner, Command, [BlockID])
        case slot(VolumeOwner, Command, Extent)
        case fillSlot(VolumeOwner, Extent)
        case takeOver(VolumeID, CacheServerID)
        case openNexus(VolumeOwner, Nexus, Ticket)
        case closeNexus(VolumeOwner, NexusNumber, Ticket?)
        case objects(VolumeOwner)
        case moveCandidates(MoveSearch)
        case moveBytes(MoveSearch)
        case evictions(VolumeOwner, Ticket?)
        case compactions(VolumeOwner, Ticket, looksLeft: Int)
        case relinquish(VolumeOwner)
        case register(asked: MonotonicTime)
        case renew(asked: MonotonicTime)
    }

    enum Retry {
        case region(VolumeOwner, Region)
        case count(VolumeOwner)
        case survey(VolumeOwner, Command)
        case bytes(VolumeOwner, Command, [BlockID])
        case slot(VolumeOwner, Command, Extent)
        case takeOver(VolumeID)
        case release(VolumeOwner, Command)
        case closeNexus(VolumeOwner, NexusNumber)
        case relinquish(VolumeOwner)
    }

    let configuration: OwnerConfiguration
    var actions: Deque<OwnerAction> = []
    var operations: [OperationID: Operation] = [:]
    var nextOperation: UInt64 = 1
    var volumes: [VolumeID: Slot] = [:]
    var retries: [(at: MonotonicTime, what: Retry)] = []
    /// No retry is due before this time.
    var nextRetry = MonotonicTime(.max)

    // The lease (section 6): `leaseEnd` is on our clock, counted from before it was asked for.
    var server: CacheServerID?
    var leaseEnd = MonotonicTime(0)
    var isLeaseAsked = false
    var nextLeaseRequest = MonotonicTime(0)
    /// Commands whose answer tells what the image holds or how the unit is, and waits for the lease to be renewed (R8).
    var parkedReads: [(VolumeOwner, Command)] = []
    /// Look-ups that wait for a registration.
    var parkedLookUps: [(Ticket, VolumeID)] = []

    // Commits.
    var ready: Deque<(volume: VolumeOwner, command: Command)> = []
    var commitsInFlight = 0
    /// Commands of initiators in these.
    var commandsInFlight = 0
    var noCommitBefore = MonotonicTime(0)
    /// Commits made since the start.
    public internal(set) var commits: UInt64 = 0
    /// Blocks committed since the start.
    public internal(set) var committedBlocks: UInt64 = 0

    // The memory image of all volumes together.
    /// Regions with bytes in memory.
    var dropQueue: Deque<(volume: VolumeOwner, region: Region)> = []
    var regionQueue: Deque<(volume: VolumeOwner, index: UInt64, lastUse: UInt64)> = []
    var useCounter: UInt64 = 0
    /// Bytes of the memory image.
    public internal(set) var imageBytes = 0
    /// The bytes of cached blocks, by the size of a block.
    private var slabs: [Int: BlockSlab] = [:]

    /// Unmoved bytes of all owned volumes.
    var unmovedBytes: UInt64 = 0
    /// Room that PostgreSQL has left for its log, where it is known.
    var logFreeBytes: UInt64?
    /// Commands whose turn has come while another was being finished.
    var toBegin: Deque<(volume: VolumeOwner, command: Command)> = []
    var isBeginning = false

    // Moves.
    var moveRound: Deque<VolumeID> = []
    /// The volume that was last looked at for sparse objects.
    var lastCompactionLook = VolumeID(0)
    /// Initiators have lately used a volume: until then what is not urgent is moved at a measured pace.
    var busyUntil = MonotonicTime(0)
    /// While initiators use volumes, nothing that is not urgent is moved before this time.
    var nextBackgroundMove = MonotonicTime(0)
    /// Likewise for compaction, unless much is dead.
    var nextBackgroundCompaction = MonotonicTime(0)

    /// Owned volumes with unit attention conditions that are not durable as they are.
    var untold: Set<VolumeID> = []

    /// Owned volumes that are being erased.
    var erasing: Set<VolumeID> = []

    /// Owned volumes that are being handed over, and epochs that were given up.
    var handingOver: Set<VolumeID> = []

    /// Owned volumes behind whose end something may lie.
    var shrinking: Set<VolumeID> = []

    /// What was acknowledged of volumes that are owned no more.
    var recollections: [VolumeID: Recollection] = [:]

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
        continueErasures(now: now)
        continueHandOvers(now: now)
        continueShrinking(now: now)
        flush(now: now)
    }

    /// Ends a turn of events: commits what is ready if a commit slot is free (group commit).
    public mutating func endTurn(now: MonotonicTime) {
        runRetries(now: now)
        continueErasures(now: now)
        continueHandOvers(now: now)
        continueShrinking(now: now)
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
        _ id: OperationID,
        _ result: Result<CacheServerID, StoreFailure>,
        now: MonotonicTime
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
        case .failure:
            nextLeaseRequest = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
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
            let parked = parkedReads
            parkedReads = []
            for (_, command) in parked { command.isParked = false }
            for (volume, command) in parked where !volume.isLost {
                if command.phase == .waiting {
                    admit(command, of: volume, now: now)
                } else {
                    proceed(command, of: volume, now: now)
                }
            }
        case .success(false):
            actions.append(.note("the lease has ended in PostgreSQL: registering anew, all volumes given up"))
            loseServer(now: now)
        case .failure:
            nextLeaseRequest = now.advanced(byNanoseconds: OwnerLimits.storeRetry)
        }
    }

    // MARK: Volumes

    /// Finds a volume here, taking it over if nobody else holds it; answered with `volume` or `refused`.
    public mutating func lookUp(_ ticket: Ticket, volume id: VolumeID, now: MonotonicTime) {
        guard let server else {
            guard parkedLookUps.count < OwnerLimits.lookUpsWaitingMaximum else {
                return refuse(ticket, .busy("this server is not registered yet"))
            }
            parkedLookUps.append((ticket, id))
            return
        }
        switch volumes[id] {
        case .owned(let volume) where volume.isRefusing:
            refuse(ticket, .notOwner(volume.handOver?.endpoint))
        case .owned(let volume):
            actions.append(.answer(ticket, .volume(volume.description, stamp(volume, now))))
        case .takingOver(var tickets):
            guard tickets.count < OwnerLimits.lookUpsWaitingMaximum else {
                return refuse(ticket, .busy("the volume is being taken over"))
            }
            tickets.append(ticket)
            volumes[id] = .takingOver(tickets)
        case .refused: refuse(ticket, .busy("the database has lost acknowledged writes"))
        case nil:
            volumes[id] = .takingOver([ticket])
            actions.append(.takeOver(operation(.takeOver(id, server)), id, server))
        }
    }

    /// The store took a volume over, or not.
    public mutating func takeOverCompleted(
        _ id: OperationID,
        _ result: Result<TakeoverResult, StoreFailure>,
        now: MonotonicTime
    ) {
        guard case .takeOver(let volumeID, let asked)? = operations.removeValue(forKey: id) else { return }
        guard case .takingOver(let tickets)? = volumes[volumeID] else { return }
        guard asked == server else {
            // It was asked for under a registration that has ended since: what it gave is not protected by our lease.
            return schedule(.takeOver(volumeID), at: now)
        }
        switch result {
        case .success(.owned(let ownership)):
            if let why = recollections.removeValue(forKey: volumeID)?.contradiction(to: ownership) {
                return refuseVolume(volumeID, why: why, tickets: tickets)
            }
            let volume = VolumeOwner(ownership, slab: slab(for: ownership.description.geometry), now: now)
            volumes[volumeID] = .owned(volume)
            count(volume)
            moveRound.append(volumeID)
            if volume.unit.erasure != nil { erasing.insert(volumeID) }
            if volume.remains != nil { shrinking.insert(volumeID) }
            tellDescription(of: volume)
            for ticket in tickets {
                actions.append(.answer(ticket, .volume(volume.description, stamp(volume, now))))
            }
        case .success(.heldBy(_, let endpoint, let left)):
            if endpoint == configuration.endpoint {
                // An earlier process of this very server: its lease has to end first.
                let wait = max(UInt64(left) * 1_000_000, OwnerLimits.storeRetry)
                schedule(.takeOver(volumeID), at: now.advanced(byNanoseconds: wait))
            } else {
                volumes[volumeID] = nil
                for ticket in tickets { refuse(ticket, .notOwner(endpoint)) }
            }
        case .success(.noSuchVolume):
            volumes[volumeID] = nil
            recollections[volumeID] = nil
            for ticket in tickets { refuse(ticket, .noSuchVolume) }
        case .success(.leaseEnded):
            volumes[volumeID] = nil
            loseServer(now: now)
            for ticket in tickets { lookUp(ticket, volume: volumeID, now: now) }
        case .failure:
            schedule(.takeOver(volumeID), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
        }
    }

    /// Where the bytes of blocks of a volume lie.
    private mutating func slab(for geometry: Geometry) -> BlockSlab {
        let bytes = Int(geometry.blockSizeBytes)
        if let known = slabs[bytes] { return known }
        let slab = BlockSlab(blockBytes: bytes)
        slabs[bytes] = slab
        return slab
    }

    /// This server's registration has ended: nothing that was owned under it is served any more.
    private mutating func loseServer(now: MonotonicTime) {
        server = nil
        nextLeaseRequest = now
        for volume in ownedVolumes { lose(volume, retake: false, now: now) }
    }

    /// Takes in a changed description of an owned volume, if it is newer than the one known. Sizes only grow here; a shrink
    /// ends the epoch.
    public mutating func describe(_ description: VolumeDescription, now: MonotonicTime) {
        guard
            case .owned(let volume)? = volumes[description.id], description != volume.description,
            description.revision >= volume.description.revision
        else { return }
        guard let description = admissible(description, for: volume) else {
            lose(volume, retake: true, now: now)
            return
        }
        let old = volume.description
        volume.description = description
        tellDescription(of: volume)
        if old.iqn != description.iqn { tellAll(.inquiryDataChanged, of: volume) }
        volume.nextMoveLook = now
        volume.nextEvictionLook = now
        volume.nextCompactionLook = now
    }

    /// Gives a volume up: everything that waits for it is refused, and its epoch serves no more.
    mutating func lose(_ volume: VolumeOwner, retake: Bool, now: MonotonicTime) {
        guard !volume.isLost else { return }
        recollections[volume.id] = Recollection(of: volume)
        setUnmoved(0, of: volume)
        volume.isLost = true
        // Those that are slowed down are in no order yet.
        let throttled = retries.compactMap { retry -> Command? in
            if case .release(let owner, let command) = retry.what, owner === volume { command } else { nil }
        }
        let parked = parkedReads.filter { $0.0 === volume }.map(\.1)
        let waiting =
            throttled + parked + volume.heldByChange + volume.lingering + [volume.unitChange].compactMap { $0 }
        for command in volume.order.active + volume.order.waiting + waiting where command.phase != .finished {
            command.phase = .finished
            answer(command, .refused(.notOwner(nil), nil))
            for fence in command.fences { refuse(fence, .notOwner(nil)) }
            command.fences = []
            command.fetched = [:]
        }
        volume.heldByChange = []
        volume.lingering = []
        volume.unitChange = nil
        erasing.remove(volume.id)
        handingOver.remove(volume.id)
        shrinking.remove(volume.id)
        untold.remove(volume.id)
        for nexus in volume.nexuses.values { nexus.inFlight = [:] }
        volume.order = RangeOrder()
        volume.bulk = []
        volume.blockedByBulk = []
        volume.surveysWaiting = []
        ready.removeAll { $0.volume === volume }
        toBegin.removeAll { $0.volume === volume }
        parkedReads.removeAll { $0.0 === volume }
        retries.removeAll { $0.what.belongs(to: volume) }
        // The queues would keep the whole image alive.
        dropQueue.removeAll { $0.volume === volume }
        regionQueue.removeAll { $0.volume === volume }
        imageBytes -= volume.imageBytes
        volume.imageBytes = 0
        volume.image = MemoryImage(slab: volume.image.slab)
        moveRound.removeAll { $0 == volume.id }
        volumes[volume.id] = nil
        if retake, let server {
            volumes[volume.id] = .takingOver([])
            actions.append(.takeOver(operation(.takeOver(volume.id, server)), volume.id, server))
        }
    }

    /// The endpoint at which this server is registered.
    public var endpoint: String { configuration.endpoint }

    /// The iSCSI name of a volume that is owned here.
    public func iqn(of id: VolumeID) -> String? { owned(id)?.description.iqn }

    /// The owner's time for a volume, and the revision of its description, if it is owned and the lease holds.
    public func currentStamp(of id: VolumeID, now: MonotonicTime) -> (Stamp, revision: UInt64)? {
        guard holdsLease(now: now), let volume = owned(id), !volume.isRefusing else { return nil }
        return (stamp(volume, now), volume.description.revision)
    }

    // MARK: Helpers

    func stamp(_ volume: VolumeOwner, _ now: MonotonicTime) -> Stamp { Stamp(epoch: volume.epoch, time: now) }

    package func owned(_ id: VolumeID) -> VolumeOwner? {
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

    /// Answers whoever waits for a command.
    mutating func answer(_ command: Command, _ answer: OwnerAnswer) {
        for ticket in command.earlierTickets { actions.append(.answer(ticket, answer)) }
        if let ticket = command.ticket { actions.append(.answer(ticket, answer)) }
        command.earlierTickets = []
        command.ticket = nil
    }

    mutating func schedule(_ what: Retry, at time: MonotonicTime) {
        retries.append((time, what))
        nextRetry = min(nextRetry, time)
    }

    /// A command that a fence waits for has finished.
    mutating func settle(_ fence: Fence, of volume: VolumeOwner, now: MonotonicTime) {
        guard fence.remaining > 0 else { return }
        fence.remaining -= 1
        guard fence.remaining == 0 else { return }
        switch fence.waiter {
        case .request(let ticket): actions.append(.answer(ticket, .done(stamp(volume, now))))
        case .command(let command): endLingering(command, of: volume, now: now)
        }
    }

    /// The epoch of what a fence waits for is over. A command that waits is refused like all others.
    private mutating func refuse(_ fence: Fence, _ refusal: Refusal) {
        guard fence.remaining > 0 else { return }
        fence.remaining = 0
        if case .request(let ticket) = fence.waiter { refuse(ticket, refusal) }
    }

    private mutating func runRetries(now: MonotonicTime) {
        guard now >= nextRetry else { return }
        let due = retries.filter { $0.at <= now }
        retries.removeAll { $0.at <= now }
        nextRetry = retries.reduce(MonotonicTime(.max)) { min($0, $1.at) }
        for retry in due {
            switch retry.what {
            case .region(let volume, let region):
                actions.append(.loadRegion(operation(.region(volume, region)), volume.id, region.range))
            case .count(let volume): count(volume)
            case .survey(let volume, let command): surveyMap(for: command, of: volume)
            case .bytes(let volume, let command, let blocks):
                actions.append(.loadBytes(operation(.bytes(volume, command, blocks)), volume.id, blocks))
            case .slot(let volume, let command, let extent):
                let id = operation(.slot(volume, command, extent))
                actions.append(.fetchSlot(id, extent, blockSizeBytes: volume.geometry.blockSizeBytes))
            case .takeOver(let id):
                guard case .takingOver? = volumes[id] else { continue }
                if let server {
                    actions.append(.takeOver(operation(.takeOver(id, server)), id, server))
                } else {
                    schedule(.takeOver(id), at: now.advanced(byNanoseconds: OwnerLimits.storeRetry))
                }
            case .release(let volume, let command): release(command, of: volume, now: now)
            case .closeNexus(let volume, let number): recordClose(number, of: volume, for: nil)
            case .relinquish(let volume):
                volume.handOver?.isRecording = false
                continueHandOvers(now: now)
            }
        }
    }
}

extension CacheOwner.Retry {
    func belongs(to owner: VolumeOwner) -> Bool {
        switch self {
        case .region(let volume, _), .survey(let volume, _), .bytes(let volume, _, _), .slot(let volume, _, _),
            .release(let volume, _), .closeNexus(let volume, _), .relinquish(let volume), .count(let volume):
            volume === owner
        case .takeOver: false
        }
    }
}
