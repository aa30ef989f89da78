import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Direct writes, with plain calls")
struct DirectWriteTests {
    /// What a test puts into an object: a run of blocks of one byte value, by one command.
    private struct Part {
        var nexus: NexusNumber
        var first: Int
        var count: Int
        var byte: UInt8
        var command: UInt64?
        var proved: Stamp?

        init(
            _ nexus: NexusNumber,
            _ first: Int,
            _ count: Int,
            _ byte: UInt8,
            command: UInt64? = nil,
            proved: Stamp? = nil
        ) {
            (self.nexus, self.first, self.count, self.byte) = (nexus, first, count, byte)
            (self.command, self.proved) = (command, proved)
        }
    }

    private static func grants(_ bench: Bench, _ count: Int = 1) -> [DirectGrant] {
        let ticket = bench.ticket()
        bench.core.beginDirect(ticket, volume: Bench.volume, epoch: bench.epoch, count: count, now: bench.now)
        bench.run()
        guard case .grants(_, let grants)? = bench.answers[ticket] else { return [] }
        return grants
    }

    /// A volume that is used already, so that versions and objects are there to be handed out.
    private static func ready() throws -> (Bench, NexusNumber) {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(grants(bench).isEmpty)
        #expect(bench.isDone(bench.submit(nexus, bench.write(2_000 * bench.block, 2_048, 9))))
        return (bench, nexus)
    }

    /// Puts an object and asks for its map; the tickets of its commands.
    @discardableResult
    private static func map(_ bench: Bench, _ grant: DirectGrant, _ parts: [Part]) -> [Ticket] {
        let blocks = parts.flatMap { part in
            (0..<part.count).map { (BlockID(UInt64(part.first + $0)), bench.filled(part.byte, bench.block)) }
        }
        bench.store.put(grant.object, blocks)
        return ask(bench, grant, parts)
    }

    private static func ask(_ bench: Bench, _ grant: DirectGrant, _ parts: [Part]) -> [Ticket] {
        let writes = parts.map { part in
            DirectWrite(
                ticket: bench.ticket(),
                context: bench.context(
                    part.nexus,
                    bench.takeCommand(part.nexus, part.command),
                    proved: part.proved
                ),
                blocks: BlockRange(first: BlockID(UInt64(part.first)), count: UInt64(part.count))
            )
        }
        bench.core.mapDirect(
            volume: Bench.volume,
            object: grant.object,
            server: ObjectServerID(1),
            sizeBytes: 1,
            writes: writes,
            deadline: bench.now.advanced(byNanoseconds: 20_000 * Bench.millisecond),
            now: bench.now
        )
        bench.run()
        return writes.map(\.ticket)
    }

    private static func items(_ bench: Bench) -> [ItemRow] {
        bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 1_024)).items
    }

    private static func bytes(_ bench: Bench, _ runs: (UInt8, Int)...) -> [UInt8] {
        runs.flatMap { [UInt8](repeating: $0.0, count: $0.1 * bench.block) }
    }

    @Test("M4: several commands of an object are one commit, without items; counted and marked like any write")
    func mapped() throws {
        let (bench, nexus) = try Self.ready()
        let other = try #require(bench.login("other"))
        // Below lies an item, which goes.
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        let unmoved = try #require(bench.owner?.unmovedItems)
        let grant = try #require(Self.grants(bench).first)
        #expect(grant.slots == 2_048)
        let commits = bench.commits.count
        let tickets = Self.map(bench, grant, [Part(nexus, 0, 4, 2), Part(other, 8, 2, 3)])
        #expect(tickets.allSatisfy { bench.isDone($0) })
        #expect(bench.commits.count == commits + 1)
        let marks = bench.commits.last?.first?.marks ?? []
        #expect(marks.map(\.nexus) == [nexus, other])
        #expect(Self.items(bench).isEmpty)
        #expect(bench.owner?.unmovedItems == unmoved - 1)
        #expect(bench.read(other, 0, 10 * bench.block) == Self.bytes(bench, (2, 4), (0, 4), (3, 2)))
        #expect(bench.store.violations.isEmpty)
        // R4: a copy of the same request is answered, and done no second time.
        let again = Self.ask(bench, grant, [Part(nexus, 0, 4, 2, command: 3)])
        #expect(bench.isDone(again[0]))
        #expect(bench.commits.count == commits + 1)
    }

    @Test("M2: there are no versions to hand out before they are durable, and a new owner hands out higher ones")
    func versions() throws {
        let (bench, _) = try Self.ready()
        let first = Self.grants(bench, 3)
        #expect(first.count == 3)
        for (earlier, later) in zip(first, first.dropFirst()) {
            #expect(earlier.version(of: earlier.slots) <= later.firstVersion)
        }
        let last = try #require(first.last)
        #expect(last.version(of: last.slots - 1) < (try #require(bench.store.firstVersion(of: Bench.volume))))
        bench.commitFailures = [(.unknownOutcome("planted"), isMade: false)]
        let nexus = try #require(bench.login("other"))
        bench.submit(nexus, bench.write(0, 2_048, 1))
        bench.own()
        #expect(try #require(bench.owner?.nextVersion) > last.version(of: last.slots - 1))
    }

    @Test("I10: objects that are handed out and do not come back are bounded, and forgotten in time")
    func grantsAreBounded() throws {
        let (bench, nexus) = try Self.ready()
        var all: [DirectGrant] = []
        for _ in 0..<40 { all += Self.grants(bench, 100) }
        #expect(all.count == OwnerLimits.directGrantsMaximum)
        #expect(Set(all.map(\.object)).count == all.count)
        let old = try #require(all.first)
        bench.advance(OwnerLimits.directGrantLife)
        #expect(bench.refusal(Self.map(bench, old, [Part(nexus, 0, 4, 2)])[0]) == .stale)
        #expect(Self.grants(bench, 1).count == 1)
        #expect(bench.owner?.direct.count == 1)
    }

    enum Overtaking: CaseIterable { case write, unmap, fill, copy, direct }

    @Test(
        "M4: what was overtaken since its object was handed out is refused, alone, and done as a write",
        arguments: Overtaking.allCases
    )
    func overtaken(by other: Overtaking) throws {
        let (bench, nexus) = try Self.ready()
        if other == .fill || other == .copy {
            // The blocks lie in an object.
            let grant = try #require(Self.grants(bench).first)
            #expect(bench.isDone(Self.map(bench, grant, [Part(nexus, 0, 64, 7)])[0]))
        }
        let grants = Self.grants(bench, 2)
        switch other {
        case .write: #expect(bench.isDone(bench.submit(nexus, bench.write(2 * bench.block, 512, 5))))
        case .unmap: #expect(bench.isDone(bench.submit(nexus, bench.zero((2 * bench.block, bench.block)))))
        case .fill:
            let volume = try #require(bench.owner)
            let extent = try #require(volume.image.extent(BlockID(2)))
            bench.core.fill(extent, bytes: bench.filled(7, bench.block), of: volume, now: bench.now)
            bench.run()
            #expect(volume.image.item(BlockID(2)) != nil)
        case .copy:
            let size = UInt64(bench.block)
            let copy = CommandOperation.copy(source: 32 * size, destination: 2 * size, count: size)
            #expect(bench.isDone(bench.submit(nexus, copy)))
        case .direct: #expect(bench.isDone(Self.map(bench, grants[1], [Part(nexus, 2, 1, 6)])[0]))
        }
        let before = bench.read(nexus, 0, 4 * bench.block)
        let tickets = Self.map(bench, grants[0], [Part(nexus, 0, 4, 2, command: 50), Part(nexus, 8, 4, 3)])
        #expect(bench.refusal(tickets[0]) == .stale)
        #expect(bench.isDone(tickets[1]))
        #expect(bench.read(nexus, 0, 4 * bench.block) == before)
        #expect(bench.read(nexus, 8 * bench.block, 4 * bench.block) == Self.bytes(bench, (3, 4)))
        // Not kept: under the same id it is done as a write (R4).
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * bench.block, 2), command: 50)))
        #expect(bench.read(nexus, 0, 4 * bench.block) == Self.bytes(bench, (2, 4)))
        #expect(bench.store.violations.isEmpty)
    }

    @Test("M4: what was committed before with lower versions is no obstacle, whatever order the maps come in")
    func inOrder() throws {
        let (bench, nexus) = try Self.ready()
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * bench.block, 1))))
        let grants = Self.grants(bench, 2)
        #expect(bench.isDone(Self.map(bench, grants[0], [Part(nexus, 0, 4, 2)])[0]))
        #expect(bench.isDone(Self.map(bench, grants[1], [Part(nexus, 2, 4, 3)])[0]))
        #expect(bench.read(nexus, 0, 6 * bench.block) == Self.bytes(bench, (2, 2), (3, 4)))
    }

    @Test("I2 M4: a map waits for what is before it in the order, and is judged then")
    func waitsItsTurn() throws {
        let (bench, nexus) = try Self.ready()
        let grants = Self.grants(bench, 1)
        bench.holdsCommits = true
        let write = bench.submit(nexus, bench.write(0, 2_048, 1))
        let tickets = Self.map(bench, grants[0], [Part(nexus, 0, 4, 2), Part(nexus, 8, 1, 3)])
        let read = bench.submit(nexus, bench.readOperation(8 * bench.block, bench.block))
        #expect(bench.answers[tickets[1]] == nil && bench.answers[read] == nil)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(write))
        #expect(bench.refusal(tickets[0]) == .stale)
        #expect(bench.isDone(tickets[1]))
        #expect(bench.bytes(read) == Self.bytes(bench, (3, 1)))
    }

    @Test("M1 M4: a move of what a direct write replaces maps nothing, in both orders")
    func moves() throws {
        for isMoveFirst in [true, false] {
            let (bench, nexus) = try Self.ready()
            #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * bench.block, 1))))
            let move = bench.put(try #require(bench.moveWork()))
            let grant = try #require(Self.grants(bench).first)
            if isMoveFirst { bench.map(move) }
            #expect(bench.isDone(Self.map(bench, grant, [Part(nexus, 1, 2, 2)])[0]))
            if !isMoveFirst { bench.map(move) }
            #expect(bench.read(nexus, 0, 4 * bench.block) == Self.bytes(bench, (1, 1), (2, 2), (1, 1)))
            #expect(bench.owner?.unmovedItems == 0)
        }
    }

    @Test("R5 M4: a new epoch does not know the objects of the one before")
    func takeover() throws {
        let (bench, nexus) = try Self.ready()
        let grant = try #require(Self.grants(bench).first)
        bench.commitFailures = [(.unknownOutcome("planted"), isMade: false)]
        let old = bench.stamp
        bench.submit(nexus, bench.write(0, 2_048, 1))
        bench.own()
        #expect(bench.refusal(Self.map(bench, grant, [Part(nexus, 0, 4, 2, proved: old)])[0]) == .wrongEpoch)
        let other = try #require(bench.login("other"))
        #expect(bench.refusal(Self.map(bench, grant, [Part(other, 0, 4, 2)])[0]) == .stale)
        #expect(bench.read(other, 0, 4 * bench.block) == Self.bytes(bench, (0, 4)))
    }

    @Test("R1 R6: proof, reservations and task management keep a direct write out like any other")
    func keptOut() throws {
        let (bench, nexus) = try Self.ready()
        let other = try #require(bench.login("other"))
        let grants = Self.grants(bench, 4)
        let old = bench.stamp
        bench.advance(5_000 * Bench.millisecond)
        #expect(bench.refusal(Self.map(bench, grants[0], [Part(nexus, 0, 1, 2, proved: old)])[0]) == .unproved)
        // Taken back while it waits for its turn, or for the commit.
        bench.holdsCommits = true
        bench.submit(nexus, bench.write(0, 2_048, 1))
        bench.submit(other, bench.write(4 * 2_048, 2_048, 1))
        bench.submit(other, bench.write(5 * 2_048, 2_048, 1))
        let tickets = Self.map(
            bench,
            grants[1],
            [Part(nexus, 0, 1, 2, command: 60), Part(nexus, 16, 1, 3, command: 61)]
        )
        let fence = bench.fence(nexus, below: 62, commands: [60])
        #expect(bench.refusal(tickets[0]) == .aborted)
        #expect(bench.isDone(fence))
        bench.core.closeNexus(bench.ticket(), volume: Bench.volume, nexus: nexus, now: bench.now)
        bench.run()
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.refusal(tickets[1]) == .nexusClosed)
        #expect(bench.read(other, 16 * bench.block, bench.block) == Self.bytes(bench, (0, 1)))
        #expect(bench.submit(other, .unit(.reserve)) != Ticket(0))
        let third = try #require(bench.login("third"))
        #expect(bench.refusal(Self.map(bench, grants[2], [Part(third, 20, 1, 2)])[0]) == .reservationConflict)
        #expect(bench.isDone(Self.map(bench, grants[3], [Part(other, 20, 1, 2)])[0]))
    }

    @Test("M9: malformed maps change nothing: too many slots, blocks twice, beyond the end, an unknown object")
    func malformed() throws {
        let (bench, nexus) = try Self.ready()
        var grants = Self.grants(bench, 4)
        grants[0].slots = 1
        #expect(bench.refusal(Self.map(bench, grants[1], [Part(nexus, 2_047, 2, 1)])[0]) == .outOfRange)
        let twice = Self.map(bench, grants[2], [Part(nexus, 0, 4, 1), Part(nexus, 3, 2, 2)])
        #expect(bench.isDone(twice[0]))
        #expect(bench.refusal(twice[1]) == .stale)
        let unknown = DirectGrant(object: ObjectID(99_999), firstVersion: Version(1), slots: 8)
        #expect(bench.refusal(Self.ask(bench, unknown, [Part(nexus, 0, 1, 1)])[0]) == .stale)
        let long = (0..<2).map { Part(nexus, $0 * 1_024, 1_024 + $0, 3) }
        #expect(Self.ask(bench, grants[3], long).allSatisfy { bench.refusal($0) == .stale })
        #expect(bench.read(nexus, 0, 5 * bench.block) == Self.bytes(bench, (1, 4), (0, 1)))
    }

    @Test("I6 R4: where the object was given up, the commit fails as a whole, and nothing is marked as done")
    func givenUp() throws {
        let (bench, nexus) = try Self.ready()
        let grant = try #require(Self.grants(bench).first)
        bench.store.sweep(grant.object)
        let tickets = Self.map(bench, grant, [Part(nexus, 0, 4, 2, command: 70)])
        bench.advance(1_000 * Bench.millisecond)
        #expect(bench.refusal(tickets[0]) == .stale)
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 4 * bench.block, 2), command: 70)))
        #expect(bench.read(nexus, 0, 4 * bench.block) == Self.bytes(bench, (2, 4)))
    }

    @Test("A commit that the store refuses is made again")
    func storeRefuses() throws {
        let (bench, nexus) = try Self.ready()
        let grant = try #require(Self.grants(bench).first)
        bench.commitFailures = [(.refused("planted"), isMade: false)]
        let tickets = Self.map(bench, grant, [Part(nexus, 0, 4, 2), Part(nexus, 9, 1, 3)])
        bench.advance(1_000 * Bench.millisecond)
        #expect(tickets.allSatisfy { bench.isDone($0) })
        #expect(bench.read(nexus, 0, 4 * bench.block) == Self.bytes(bench, (2, 4)))
    }

    @Test("I10: at the hard limit direct writes go on")
    func hardLimit() throws {
        let bench = try Bench {
            $0.unmovedHardLimitBytes = 4 * 2_048; $0.unmovedHighWatermarkBytes = 2 * 2_048
        }
        let nexus = try #require(bench.login())
        _ = Self.grants(bench)
        bench.submit(nexus, bench.write(64 * 2_048, 4 * 2_048, 1))
        bench.advance(200 * Bench.millisecond)
        let grant = try #require(Self.grants(bench).first)
        let waiting = bench.submit(nexus, bench.write(0, 2_048, 1))
        bench.advance(200 * Bench.millisecond)
        #expect(bench.answers[waiting] == nil)
        #expect(bench.isDone(Self.map(bench, grant, [Part(nexus, 8, 4, 2)])[0]))
    }

    @Test("I10: where more was changed than is remembered, older objects are refused")
    func changesAreBounded() throws {
        var direct = DirectWrites()
        let grant = DirectGrant(object: ObjectID(1), firstVersion: Version(10), slots: 4)
        direct.hand(grant, until: MonotonicTime(100))
        let taken = [0, 1].map { _ in direct.take(ObjectID(1), now: MonotonicTime(1)) }
        #expect(taken == [grant, nil])
        let far = BlockRange(first: BlockID(1_000), count: 1)
        for _ in 0..<OwnerLimits.directChangesMaximum { direct.note(far, Version(20)) }
        let blocks = BlockRange(first: BlockID(0), count: 4)
        #expect(!direct.isOvertaken(grant, blocks))
        direct.note(far, Version(21))
        #expect(direct.isOvertaken(grant, blocks))
        direct.decided(grant)
        #expect(!direct.isWatching)
    }

    @Test("What was changed before every object that is still handed out is forgotten")
    func changesAreForgotten() throws {
        var direct = DirectWrites()
        let grants = [10, 20, 30].map { DirectGrant(object: ObjectID($0), firstVersion: Version($0), slots: 4) }
        for grant in grants { direct.hand(grant, until: MonotonicTime(100)) }
        let blocks = BlockRange(first: BlockID(0), count: 4)
        for version: UInt64 in [15, 25, 35] { direct.note(blocks, Version(version)) }
        #expect(direct.take(ObjectID(10), now: MonotonicTime(1)) != nil)
        #expect(direct.changesKnown == 3 && direct.isOvertaken(grants[0], blocks))
        direct.decided(grants[0])
        #expect(direct.changesKnown == 2 && direct.isOvertaken(grants[1], blocks))
        // One that is being judged counts as one that is handed out.
        #expect(direct.take(ObjectID(20), now: MonotonicTime(1)) != nil)
        #expect(direct.take(ObjectID(30), now: MonotonicTime(1)) != nil)
        direct.decided(grants[2])
        #expect(direct.changesKnown == 2 && direct.isOvertaken(grants[1], blocks))
        direct.decided(grants[1])
        #expect(direct.changesKnown == 0 && !direct.isWatching)
    }
}
