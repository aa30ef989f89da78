import AshlarCore
import NIOCore
import Ownership

let nexusBenchmarks = [
    // A command comes, is sent, answered and completed, while 32 are under way.
    Benchmark("nexus/command", counted: 4_096) {
        let stamp = Stamp(epoch: Epoch(1), time: MonotonicTime(1_000_000_000))
        let deadline = MonotonicTime(20_000_000_000)
        var client = NexusClient<Int, Int>(volume: VolumeID(1), nexus: NexusNumber(1), opened: stamp)
        for number in 0..<32 { _ = client.submit(number, isChange: true, deadline: deadline) }
        while client.nextAction() != nil {}
        var oldest: UInt64 = 1
        return { operations in
            var sum: UInt64 = 0
            for number in 0..<operations {
                client.answered(CommandID(oldest), attempt: 1, .final(number, stamp))
                oldest += 1
                _ = client.submit(number, isChange: true, deadline: deadline)
                while let action = client.nextAction() {
                    switch action {
                    case .send(let id, _, _, _): sum &+= id.rawValue
                    case .complete(let request, _): sum &+= UInt64(request)
                    default: throw BenchmarkFailure("a nexus without trouble does something else")
                    }
                }
            }
            try require(client.outstandingCount == 32, "commands are lost")
            return sum
        }
    }
]

let ownerBenchmarks = [
    Benchmark("owner/read", counted: 4_096) {
        let owner = try DrivenOwner()
        try owner.fill()
        return { try owner.read($0) }
    },
    Benchmark("owner/read-object", counted: 4_096) {
        let owner = try DrivenOwner(hasExtents: true)
        return { try owner.read($0) }
    },
    Benchmark("owner/write", counted: 4_096) {
        let owner = try DrivenOwner()
        try owner.fill()
        return { try owner.write($0, batch: 1) }
    },
    // One operation is one write of those that are committed together.
    Benchmark("owner/write-batch-16", step: 16, counted: 4_096) {
        let owner = try DrivenOwner()
        try owner.fill()
        return { try owner.write($0, batch: 16) }
    },
    Benchmark("owner/write-batch-64", step: 64, counted: 4_096) {
        let owner = try DrivenOwner()
        try owner.fill()
        return { try owner.write($0, batch: 64) }
    },
]

/// An owner of one volume, driven without a network, and a store that has done at once whatever it is asked.
private final class DrivenOwner {
    /// Blocks that are read and written.
    private static let blocks = 10_240
    private static let volume = VolumeID(1)

    private var core = CacheOwner(configuration: OwnerConfiguration(name: "cache-1", endpoint: "127.0.0.1:1"))
    private let now = MonotonicTime(1_000_000_000)
    private let deadline = MonotonicTime(21_000_000_000)
    private let stamp = Stamp(epoch: Epoch(1), time: MonotonicTime(1_000_000_000))
    private let description: VolumeDescription
    /// Whether each block lies in an object, as an extent of its own.
    private let hasExtents: Bool
    private var nexus = NexusNumber(0)
    private var nextCommand: UInt64 = 1
    private var nextTicket: UInt64 = 1
    private var numbers = RepeatableNumbers()
    private var position = 0
    private var answers: UInt64 = 0
    private var refusal: String?

    init(hasExtents: Bool = false) throws {
        self.hasExtents = hasExtents
        description = try benchVolume()
        core.tick(now: now)
        run()
        core.lookUp(ticket(), volume: Self.volume, now: now)
        run()
        let ports = InitiatorTargetNexus(initiatorName: "iqn.2026-01.test:initiator", isid: 1, portalGroupTag: 1)
        core.openNexus(ticket(), volume: Self.volume, ports: ports, node: "target-1", now: now)
        run()
        try require(nexus.rawValue > 0, "the nexus is not opened: \(refusal ?? "without an answer")")
    }

    private func ticket() -> Ticket {
        nextTicket += 1
        return Ticket(nextTicket)
    }

    /// Writes each block once.
    func fill() throws {
        for first in stride(from: 0, to: Self.blocks, by: 64) {
            let answered = answers
            let lowWater = nextCommand
            for index in first..<first + 64 { submitWrite(of: index, lowWater: lowWater) }
            run()
            try require(answers == answered + 64, "a write is not done: \(refusal ?? "without an answer")")
        }
    }

    func read(_ operations: Int) throws -> UInt64 {
        let answered = answers
        for _ in 0..<operations {
            let offset = UInt64(numbers.next(below: Self.blocks) * blockBytes)
            submit(.read(ByteRange(offset: offset, count: UInt64(blockBytes))), lowWater: nextCommand)
            run()
        }
        try require(answers == answered + UInt64(operations), "a read is not done: \(refusal ?? "without an answer")")
        return answers
    }

    func write(_ operations: Int, batch: Int) throws -> UInt64 {
        let answered = answers
        let commits = core.commits
        for _ in 0..<operations / batch {
            let lowWater = nextCommand
            for _ in 0..<batch {
                // Prime to the number of blocks: none comes twice in a commit.
                position = (position + 4_099) % Self.blocks
                submitWrite(of: position, lowWater: lowWater)
            }
            run()
        }
        try require(answers == answered + UInt64(operations), "a write is not done: \(refusal ?? "without an answer")")
        return core.commits - commits
    }

    private func submitWrite(of index: Int, lowWater: UInt64) {
        submit(
            .write(offset: UInt64(index * blockBytes), checksums: [blockChecksum], bytes: block),
            lowWater: lowWater
        )
    }

    private func submit(_ operation: CommandOperation, lowWater: UInt64) {
        let context = CommandContext(
            volume: Self.volume,
            nexus: nexus,
            command: CommandID(nextCommand),
            lowWater: CommandID(lowWater),
            proved: stamp
        )
        nextCommand += 1
        core.submit(ticket(), context: context, operation: operation, deadline: deadline, now: now)
    }

    // MARK: The shell

    private func run() {
        var isBusy = true
        while isBusy {
            isBusy = false
            core.endTurn(now: now)
            while let action = core.nextAction() {
                isBusy = true
                perform(action)
            }
        }
    }

    private func perform(_ action: OwnerAction) {
        switch action {
        case .answer(_, .done), .answer(_, .read), .answer(_, .volume): answers += 1
        case .answer(_, .nexusOpened(let number, _)): nexus = number
        case .answer(_, .refused(let reason, _)): refusal = "\(reason)"
        case .commit(let id, let parts):
            let results = parts.map { _ in VolumeCommitResult.committed(VolumeCommitResult.CommitDetail()) }
            core.commitCompleted(id, .success(results), now: now)
        case .loadRegion(let id, _, let range):
            core.regionLoaded(
                id,
                .success(RegionRows(items: [], extents: hasExtents ? extents(of: range) : [])),
                now: now
            )
        case .takeOver(let id, _, _): core.takeOverCompleted(id, .success(.owned(ownership)), now: now)
        case .openNexus(let id, _, _, _): core.nexusStored(id, .success(true), now: now)
        case .registerServer(let id): core.serverRegistered(id, .success(CacheServerID(1)), now: now)
        case .renewLease(let id, _): core.leaseRenewed(id, .success(true), now: now)
        default: break
        }
    }

    /// Two neighbours lie in two objects, so that each is an extent.
    private func extents(of range: BlockRange) -> [Extent] {
        (0..<range.count).map { index in
            Extent(
                blocks: BlockRange(first: range.first + index, count: 1),
                object: ObjectID(1 + index % 2),
                server: ObjectServerID(1),
                firstSlot: SlotIndex(UInt32(index))
            )
        }
    }

    private var ownership: Ownership {
        Ownership(
            description: description,
            epoch: stamp.epoch,
            firstVersion: Version(1),
            firstNexus: NexusNumber(1),
            nexuses: []
        )
    }
}
