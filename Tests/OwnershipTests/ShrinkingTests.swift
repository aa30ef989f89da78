import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("What a volume that shrank has left behind its end")
struct ShrinkingTests {
    private static let size = 2_048

    private static func geometry(_ blocks: Int) throws -> Geometry {
        try Geometry(sizeBytes: UInt64(blocks * size), blockSizeBytes: UInt32(size))
    }

    /// Changes the size in the database; the owner is told, or not.
    private static func resize(_ bench: Bench, _ blocks: Int, isTold: Bool = true) throws {
        var description = try #require(bench.store.description(of: Bench.volume))
        description.geometry = try geometry(blocks)
        description.revision += 1
        bench.store.describe(description)
        guard isTold, let current = bench.store.description(of: Bench.volume) else { return }
        bench.core.describe(current, now: bench.now)
        bench.run()
    }

    /// Blocks with an item or an extent from a block on.
    private static func mapped(_ bench: Bench, from first: UInt64) -> Int {
        let rows = bench.store.loadRegion(Bench.volume, BlockRange(from: BlockID(first), to: BlockID(1 << 40)))
        return rows.items.count + rows.extents.reduce(0) { $0 + Int($1.blocks.count) }
    }

    /// Items in blocks 0 to 9, of which 0 to 7 lie in an object, too, behind which there is an item far away.
    private static func fill(_ bench: Bench, _ nexus: NexusNumber) throws {
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 8 * size, 1))))
        _ = bench.map(bench.put(try #require(bench.moveWork())))
        #expect(bench.isDone(bench.submit(nexus, bench.write(6 * size, 4 * size, 2))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(1_500 * size, size, 3))))
    }

    private static func zeros(_ blocks: Int) -> [UInt8] { [UInt8](repeating: 0, count: blocks * size) }

    @Test(
        "I2: after a shrink and a growth every block behind the old end reads zeros",
        arguments: [true, false],
        [4, 7]
    )
    func regrown(isTold: Bool, blocks: Int) throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            try Self.fill(bench, nexus)
            try Self.resize(bench, blocks, isTold: isTold)
            try Self.resize(bench, 2_048, isTold: true)
            bench.advance(Bench.millisecond)
            bench.own()
            #expect(bench.owner?.geometry.blockCount == 2_048)
            #expect(Self.mapped(bench, from: UInt64(blocks)) == 0)
            #expect(bench.store.description(of: Bench.volume)?.zeroFromBytes == nil)
            bench.resume(nexus)
            bench.attentions(nexus)
            #expect(bench.read(nexus, blocks * Self.size, 8 * Self.size) == Self.zeros(8))
            #expect(bench.read(nexus, 1_500 * Self.size, Self.size) == Self.zeros(1))
            #expect(bench.read(nexus, 0, 4 * Self.size)?.allSatisfy { $0 == 1 } == true)
            #expect(bench.owner?.unmovedItems == UInt64(max(0, blocks - 6)))
        }
    }

    @Test("a volume is served at its smallest size until what lies behind that is gone, and never zeroed beyond")
    func served() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            try Self.fill(bench, nexus)
            bench.holdsCommits = true
            try Self.resize(bench, 4)
            try Self.resize(bench, 2_048)
            bench.own()
            #expect(bench.owner?.geometry.blockCount == 4)
            // The commit of the first step is held; another shrink ends the epoch under it.
            try Self.resize(bench, 2)
            bench.releaseHeld()
            bench.holdsCommits = false
            bench.releaseHeld()
            bench.advance(Bench.millisecond)
            bench.own()
            #expect(bench.owner?.geometry.blockCount == 2)
            #expect(Self.mapped(bench, from: 2) == 0 && Self.mapped(bench, from: 0) == 4)
            bench.resume(nexus)
            bench.attentions(nexus)
            #expect(bench.refusal(bench.submit(nexus, bench.write(2 * Self.size, Self.size, 1))) == .outOfRange)
        }
    }

    @Test("unmoved items behind the end are not handed out: maps of what is left go on (M1)")
    func moves() throws {
        try Bench.checked { bench in
            let nexus = try #require(bench.login())
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 8 * Self.size, 1))))
            bench.holdsCommits = true
            try Self.resize(bench, 5)
            bench.own()
            let work = try #require(bench.moveWork())
            #expect(work.blocks.map(\.row.block.rawValue) == [0, 1, 2, 3, 4])
            bench.holdsCommits = false
            bench.releaseHeld()
            let map = bench.map(bench.put(work))
            guard case .count(5, left: 0)? = bench.answers[map] else {
                Issue.record("unexpected \(String(describing: bench.answers[map]))")
                return
            }
        }
    }

    @Test("what is left goes in bounded steps, each made again where the store refuses it")
    func steps() throws {
        let blocks = 2 * Int(OwnerLimits.remainsStepBlocksMaximum) + 100
        try Bench.checked(blocks: UInt64(blocks)) { bench in
            let nexus = try #require(bench.login())
            for first in stride(from: 0, to: blocks, by: 1_024) {
                let count = min(1_024, blocks - first)
                #expect(bench.isDone(bench.submit(nexus, bench.write(first * Self.size, count * Self.size, 1))))
            }
            let before = bench.commits.count
            bench.holdsCommits = true
            try Self.resize(bench, 50)
            bench.holdsCommits = false
            // Both that are held: what is told of the size, and the first step.
            bench.commitFailures = bench.held.map { _ in (.refused("planted"), isMade: false) }
            bench.releaseHeld()
            for _ in 0..<20 { bench.advance(50 * Bench.millisecond) }
            let steps = bench.commits[before...].flatMap { $0 }.filter { !$0.zeros.isEmpty }
            #expect(steps.count == 4, "two whole steps, the rest, and the one that was refused")
            #expect(Self.mapped(bench, from: 50) == 0 && Self.mapped(bench, from: 0) == 50)
            #expect(bench.owner?.remains == nil && bench.core.shrinking.isEmpty)
        }
    }
}

@Suite("A database that has lost what was acknowledged is not served")
struct RecollectionTests {
    /// A bench whose next takeover finds the database as it was after `before`.
    private func goBack(_ before: (Bench, NexusNumber) throws -> Void, _ after: (Bench, NexusNumber) throws -> Void)
        throws -> Bench
    {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        try before(bench, nexus)
        let old = bench.store
        try after(bench, nexus)
        bench.store = old
        bench.commitFailures = [(.unknownOutcome("planted"), isMade: false)]
        bench.submit(nexus, bench.write(0, 2_048, 9))
        bench.advance(Bench.millisecond)
        return bench
    }

    private func write(_ bench: Bench, _ nexus: NexusNumber, _ byte: UInt8) {
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, byte))))
    }

    @Test("I1: an acknowledged write that is gone keeps the volume from being served")
    func lostWrite() throws {
        let bench = try goBack({ write($0, $1, 1) }, { write($0, $1, 2) })
        #expect(bench.owner == nil && bench.alarms.count == 1)
        #expect(bench.alarms.first?.contains("acknowledged") == true)
        #expect(bench.core.refusedVolumes.keys.contains(Bench.volume))
        let ticket = bench.ticket()
        bench.core.lookUp(ticket, volume: Bench.volume, now: bench.now)
        bench.run()
        guard case .busy? = bench.refusal(ticket) else {
            Issue.record("unexpected \(String(describing: bench.answers[ticket]))")
            return
        }
    }

    @Test("R3: a login that is gone keeps the volume from being served")
    func lostLogin() throws {
        let bench = try goBack({ write($0, $1, 1) }, { bench, _ in #expect(bench.login("second") != nil) })
        #expect(bench.owner == nil && bench.alarms.count == 1)
    }

    @Test("an epoch that is served for the second time is refused")
    func lostEpoch() throws {
        let bench = try goBack({ _, _ in }, { bench, nexus in bench.takeOver(nexus) })
        #expect(bench.owner == nil && bench.alarms.count == 1)
    }

    @Test("R6: what was never acknowledged may be there or not")
    func unknown() throws {
        for isMade in [true, false] {
            let bench = try Bench()
            let nexus = try #require(bench.login())
            write(bench, nexus, 1)
            bench.commitFailures = [(.unknownOutcome("planted"), isMade: isMade)]
            bench.submit(nexus, bench.write(0, 2_048, 2))
            bench.own()
            #expect(bench.owner != nil && bench.alarms.isEmpty)
        }
    }
}
