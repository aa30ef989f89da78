import AshlarCore
import AshlarTestSupport
import NIOCore

@testable import Ownership

/// One owner of one volume with a model store whose answers come at once, or when a test lets them.
final class Bench {
    static let volume = VolumeID(7)
    static let millisecond: UInt64 = 1_000_000
    var store: ModelStore
    var core: CacheOwner
    var now = MonotonicTime(1_000_000_000)
    private(set) var epoch = Epoch(0)
    private(set) var answers: [Ticket: OwnerAnswer] = [:]
    private(set) var notes: [String] = []
    private(set) var alarms: [String] = []
    /// Offsets of reads.
    private var reads: [Ticket: Int] = [:]
    /// Actions for the store that are held back.
    private(set) var held: [OwnerAction] = []
    private var nextTicket: UInt64 = 1
    private var nextCommand: [NexusNumber: UInt64] = [:]
    let block: Int

    // What a test may set.
    /// Commits wait in `held`.
    var holdsCommits = false
    /// Loads of regions and bytes, and fetches of slots, wait in `held`.
    var holdsLoads = false
    /// How often counting a volume is still to fail.
    var countFailures = 0
    /// Look-ups of what is to be moved, and reservations of objects, that were made.
    private(set) var moveQueries = 0
    private(set) var reservations = 0
    /// Volumes that were looked at for something to compact.
    private(set) var compactionQueries: [VolumeID] = []
    /// Rows that the store looks at for one GET LBA STATUS.
    var surveyedRowsMaximum = OwnerLimits.mapStatusRowsMaximum
    /// Renewals of the lease fail.
    var losesRenewals = false
    /// What the next commits return instead of being made; `true`: they are made all the same.
    var commitFailures: [(StoreFailure, isMade: Bool)] = []
    private(set) var commits: [[VolumeCommit]] = []
    /// Commits that wrote something.
    var writeCommits: Int { commits.count { !$0.allSatisfy(\.writes.isEmpty) } }
    /// What becomes of the next attempts to record that.
    var handOverFailures: [StoreFailure] = []
    /// Logouts that the store refuses to record.
    var closeFailures = 0

    init(
        blocks: UInt64 = 2_048,
        blockBytes: UInt32 = 2_048,
        logicalBlockBytes: UInt32 = 512,
        policy: CachePolicy = .standard,
        others: [VolumeID] = [],
        configure: (inout OwnerConfiguration) -> Void = { _ in }
    ) throws {
        block = Int(blockBytes)
        let geometry = try Geometry(
            sizeBytes: blocks * UInt64(blockBytes),
            blockSizeBytes: blockBytes,
            logicalBlockSizeBytes: logicalBlockBytes
        )
        store = ModelStore(
            volumes: ([Self.volume] + others).map { id in
                let name = id == Self.volume ? "v" : "v\(id)"
                return VolumeDescription(
                    id: id,
                    name: name,
                    iqn: "iqn.2026-01.io.ashlar:\(name)",
                    uuid: [UInt8](repeating: 1, count: 16),
                    geometry: geometry,
                    policy: policy
                )
            }
        )
        var configuration = OwnerConfiguration(name: "a", endpoint: "a:1")
        configure(&configuration)
        core = CacheOwner(configuration: configuration)
        advance(0)
        own()
        for other in others {
            core.lookUp(ticket(), volume: other, now: now)
            run()
        }
    }

    // MARK: Running

    /// Lets time pass in steps of a tick.
    func advance(_ nanoseconds: UInt64) {
        let end = now.advanced(byNanoseconds: nanoseconds)
        repeat {
            let step = min(20 * Self.millisecond, end.nanoseconds(since: now))
            now = now.advanced(byNanoseconds: step)
            core.tick(now: now)
            run()
        } while now < end
    }

    func own() {
        let ticket = self.ticket()
        core.lookUp(ticket, volume: Self.volume, now: now)
        run()
        if case .volume(_, let stamp)? = answers[ticket] { epoch = stamp.epoch }
    }

    func ticket() -> Ticket {
        nextTicket += 1
        return Ticket(nextTicket)
    }

    func run() {
        var isBusy = true
        while isBusy {
            isBusy = false
            core.endTurn(now: now)
            while let action = core.nextAction() {
                isBusy = true
                run(action)
            }
        }
    }

    /// Lets what was held back happen, in order.
    func releaseHeld() {
        let actions = held
        held = []
        let holds = (holdsCommits, holdsLoads)
        (holdsCommits, holdsLoads) = (false, false)
        for action in actions { run(action) }
        (holdsCommits, holdsLoads) = holds
        run()
    }

    /// Lets one of the actions that were held back happen.
    func release(at index: Int) {
        let action = held.remove(at: index)
        let holds = (holdsCommits, holdsLoads)
        (holdsCommits, holdsLoads) = (false, false)
        run(action)
        (holdsCommits, holdsLoads) = holds
        run()
    }

    /// Requests without an answer.
    var unanswered: [Ticket] { (2...max(nextTicket, 2)).map { Ticket($0) }.filter { answers[$0] == nil } }

    private func run(_ action: OwnerAction) {
        switch action {
        case .answer(let ticket, let answer):
            precondition(answers[ticket] == nil, "a request is answered once")
            answers[ticket] = answer
        case .note(let text): notes.append(text)
        case .alarm(let text): alarms.append(text)
        case .commit where holdsCommits: held.append(action)
        case .loadRegion where holdsLoads, .loadBytes where holdsLoads, .fetchSlot where holdsLoads,
            .surveyMap where holdsLoads:
            held.append(action)
        case .commit(let id, let list): core.commitCompleted(id, commit(list), now: now)
        case .loadRegion(let id, let volume, let range):
            core.regionLoaded(id, .success(store.loadRegion(volume, range)), now: now)
        case .countVolume(let id, _) where countFailures > 0:
            countFailures -= 1
            core.volumeCounted(id, .failure(.refused("planted")), now: now)
        case .countVolume(let id, let volume): core.volumeCounted(id, .success(store.countVolume(volume)), now: now)
        case .surveyMap(let id, let volume, let range, let runs):
            let survey = store.surveyMap(volume, range, rowsMaximum: surveyedRowsMaximum, runsMaximum: runs)
            core.mapSurveyed(id, .success(survey), now: now)
        case .loadBytes(let id, let volume, let blocks):
            core.bytesLoaded(id, .success(store.loadBytes(volume, blocks)), now: now)
        case .fetchSlot(let id, let extent, _):
            let found = store.slot(extent.object, extent.firstSlot)
            core.slotFetched(id, found.map { .success($0.bytes) } ?? .failure(.damaged("gone")), now: now)
        default: runOther(action)
        }
    }

    private func commit(_ list: [VolumeCommit]) -> Result<[VolumeCommitResult], StoreFailure> {
        commits.append(list)
        guard !commitFailures.isEmpty else {
            return store.failure(of: list).map { .failure($0) } ?? .success(store.commit(list))
        }
        let (failure, isMade) = commitFailures.removeFirst()
        if isMade { _ = store.commit(list) }
        return .failure(failure)
    }

    private func runOther(_ action: OwnerAction) {
        let lease = UInt64(Limits.leaseMilliseconds) * Self.millisecond
        switch action {
        case .takeOver(let id, let volume, let server):
            core.takeOverCompleted(id, .success(store.takeOver(volume, server: server, now: now)), now: now)
        case .relinquish(let id, let volume, let epoch, let server, let successor):
            let result: Result<Bool, StoreFailure> =
                handOverFailures.popLast().map { .failure($0) }
                ?? .success(store.relinquish(volume, epoch, from: server, to: successor, now: now))
            core.volumeRelinquished(id, result, now: now)
        case .openNexus(let id, let volume, let epoch, let row):
            core.nexusStored(id, .success(store.openNexus(volume, epoch, row)), now: now)
        case .closeNexus(let id, _, _, _) where closeFailures > 0:
            closeFailures -= 1
            core.nexusStored(id, .failure(.refused("planted")), now: now)
        case .closeNexus(let id, let volume, let epoch, let nexus):
            core.nexusStored(id, .success(store.closeNexus(volume, epoch, nexus)), now: now)
        case .reserveObjects(let id, _, let count):
            reservations += 1
            core.objectsReserved(id, .success(store.reserve(count: count)), now: now)
        case .fetchMoveCandidates(let id, let volume, let from, let limit):
            moveQueries += 1
            core.moveCandidatesFetched(id, .success(store.moveCandidates(volume, from: from, limit: limit)), now: now)
        case .fetchEvictionCandidates(let id, let volume, let limit):
            core.evictionCandidatesFetched(id, .success(store.evictionCandidates(volume, limit: limit)), now: now)
        case .fetchCompactionCandidates(let id, let volume, let percent, let limit):
            compactionQueries.append(volume)
            let rows = store.compactionCandidates(volume, belowPercent: percent, limit: limit)
            core.compactionCandidatesFetched(id, .success(rows), now: now)
        case .registerServer(let id):
            core.serverRegistered(id, .success(store.register(endpoint: "a:1", lease: lease, now: now)), now: now)
        case .renewLease(let id, let server):
            if losesRenewals {
                core.leaseRenewed(id, .failure(.refused("planted")), now: now)
            } else {
                core.leaseRenewed(id, .success(store.renew(server, lease: lease, now: now)), now: now)
            }
        default: break
        }
    }

    // MARK: Requests

    var stamp: Stamp { Stamp(epoch: epoch, time: now) }

    func login(_ name: String = "i", tag: UInt16 = 1) -> NexusNumber? {
        let ticket = self.ticket()
        let ports = InitiatorTargetNexus(initiatorName: name, isid: 1, portalGroupTag: tag)
        core.openNexus(ticket, volume: Self.volume, ports: ports, node: "t", now: now)
        run()
        guard case .nexusOpened(let number, _)? = answers[ticket] else { return nil }
        return number
    }

    func context(
        _ nexus: NexusNumber,
        _ command: UInt64,
        lowWater: UInt64 = 0,
        proved: Stamp? = nil
    ) -> CommandContext {
        CommandContext(
            volume: Self.volume,
            nexus: nexus,
            command: CommandID(command),
            lowWater: CommandID(lowWater),
            proved: proved ?? stamp
        )
    }

    /// Submits a command; its answer is looked up by the ticket.
    @discardableResult
    func submit(
        _ nexus: NexusNumber,
        _ operation: CommandOperation,
        through place: ThroughPlace? = nil,
        command: UInt64? = nil,
        lowWater: UInt64 = 0,
        proved: Stamp? = nil,
        deadline: UInt64 = 20_000
    ) -> Ticket {
        let number = takeCommand(nexus, command)
        let ticket = self.ticket()
        if case .read(let range) = operation { reads[ticket] = Int(range.offset) }
        core.submit(
            ticket,
            context: context(nexus, number, lowWater: lowWater, proved: proved),
            operation: operation,
            through: place,
            deadline: now.advanced(byNanoseconds: deadline * Self.millisecond),
            now: now
        )
        run()
        return ticket
    }

    /// The number of the next command of a nexus, or of one that is given it.
    func takeCommand(_ nexus: NexusNumber, _ command: UInt64?) -> UInt64 {
        let number = command ?? nextCommand[nexus, default: 1]
        nextCommand[nexus] = max(number + 1, nextCommand[nexus, default: 1])
        return number
    }

    func fence(_ nexus: NexusNumber, below command: UInt64, commands: [UInt64] = []) -> Ticket {
        let ticket = self.ticket()
        core.fence(ticket, context: context(nexus, command), commands: commands.map { CommandID($0) }, now: now)
        run()
        return ticket
    }

    func filled(_ byte: UInt8, _ count: Int) -> ByteBuffer { ByteBuffer(repeating: byte, count: count) }

    /// A write of one byte value over a run of bytes.
    func write(_ offset: Int, _ count: Int, _ byte: UInt8) -> CommandOperation {
        var checksums: [Checksum] = []
        var position = offset
        while position < offset + count {
            let end = min(offset + count, (position / block + 1) * block)
            checksums.append(filled(byte, end - position).testChecksum)
            position = end
        }
        return .write(offset: UInt64(offset), checksums: checksums, bytes: filled(byte, count))
    }

    func zero(_ ranges: (Int, Int)...) -> CommandOperation {
        .zero(ranges.map { ByteRange(offset: UInt64($0.0), count: UInt64($0.1)) })
    }

    func compareAndWrite(_ offset: Int, _ expected: ByteBuffer, _ new: ByteBuffer) -> CommandOperation {
        var bytes = expected
        var second = new
        bytes.writeBuffer(&second)
        return .compareAndWrite(offset: UInt64(offset), checksum: bytes.testChecksum, bytes: bytes)
    }

    func readOperation(_ offset: Int, _ count: Int) -> CommandOperation {
        .read(ByteRange(offset: UInt64(offset), count: UInt64(count)))
    }

    private func offset(of read: Ticket) -> Int { reads[read] ?? 0 }

    /// What a read of whole blocks returned; nil where a slot is not the one that the map names.
    func bytes(_ ticket: Ticket) -> [UInt8]? {
        guard case .read(_, let runs, let payload)? = answers[ticket] else { return nil }
        var result: [UInt8] = []
        var rest = payload.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) }
        for run in runs {
            switch run {
            case .bytes(let checksums):
                result += rest.readBytes(length: checksums.count * block) ?? []
            case .zeros(let count): result += [UInt8](repeating: 0, count: Int(count) * block)
            case .object(let object, _, let first, let origin, let count):
                let block = origin ?? BlockID(UInt64(offset(of: ticket) + result.count) / UInt64(block))
                for slot in 0..<count {
                    guard let found = store.slot(object, SlotIndex(first.rawValue + slot)),
                        found.block == block + UInt64(slot)
                    else { return nil }
                    result += Array(found.bytes.readableBytesView)
                }
            }
        }
        return result
    }

    /// Reads blocks at once.
    func read(_ nexus: NexusNumber, _ offset: Int, _ count: Int) -> [UInt8]? {
        bytes(submit(nexus, readOperation(offset, count)))
    }

    func isDone(_ ticket: Ticket) -> Bool {
        if case .done? = answers[ticket] { true } else { false }
    }

    func refusal(_ ticket: Ticket) -> Refusal? {
        if case .refused(let refusal, _)? = answers[ticket] { refusal } else { nil }
    }

    var owner: VolumeOwner? { core.owned(Self.volume) }

    // MARK: Agents

    func moveWork() -> MoveAssignment? {
        for _ in 0..<2 {
            let ticket = self.ticket()
            core.requestMoveWork(ticket, now: now)
            run()
            if case .moveWork(let work?)? = answers[ticket] { return work }
        }
        return nil
    }

    func put(_ work: MoveAssignment) -> ObjectMap {
        store.put(work.object, work.blocks.map { ($0.row.block, $0.bytes) })
        return ObjectMap(
            object: work.object,
            server: ObjectServerID(1),
            sizeBytes: 1,
            slots: work.blocks.map {
                ObjectMap.Slot(block: $0.row.block, version: $0.row.version, condition: .itemHasVersion)
            }
        )
    }

    @discardableResult
    func map(_ map: ObjectMap) -> Ticket {
        let ticket = self.ticket()
        core.map(
            ticket,
            volume: Self.volume,
            map: map,
            deadline: now.advanced(byNanoseconds: 20_000 * Self.millisecond),
            now: now
        )
        run()
        return ticket
    }

    func evict() {
        core.requestEviction(ticket(), now: now)
        run()
    }
}
