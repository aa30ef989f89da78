import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Writes through, with plain calls")
struct WriteThroughTests {
    /// One write through: a run of blocks of one byte value, by one command, in the slots behind those of the part before.
    private struct Part {
        var first: Int
        var count: Int
        var byte: UInt8
        var command: UInt64

        init(_ first: Int, _ count: Int, _ byte: UInt8, command: UInt64) {
            (self.first, self.count, self.byte, self.command) = (first, count, byte, command)
        }
    }

    private struct Rig {
        let bench: Bench
        let nexus: NexusNumber
        let grants: [DirectGrant]

        /// A volume that is used already, with objects handed out.
        init(policy: CachePolicy = .standard, configure: (inout OwnerConfiguration) -> Void = { _ in }) throws {
            bench = try Bench(policy: policy, configure: configure)
            nexus = try #require(bench.login())
            for _ in 0..<2 {
                bench.core.beginDirect(
                    bench.ticket(),
                    volume: Bench.volume,
                    epoch: bench.epoch,
                    count: 1,
                    now: bench.now
                )
                bench.run()
                let write = bench.submit(nexus, bench.write(2_000 * bench.block, 2_048, 9))
                bench.advance(100 * Bench.millisecond)
                #expect(bench.isDone(write))
            }
            let ticket = bench.ticket()
            bench.core.beginDirect(ticket, volume: Bench.volume, epoch: bench.epoch, count: 4, now: bench.now)
            bench.run()
            guard case .grants(_, let grants)? = bench.answers[ticket] else {
                self.grants = []
                return
            }
            self.grants = grants
        }

        /// Sends the writes to the cache.
        func send(_ grant: DirectGrant, _ parts: [Part]) -> [Ticket] {
            var slot: UInt32 = 0
            return parts.map { part in
                defer { slot += UInt32(part.count) }
                return bench.submit(
                    nexus,
                    bench.write(part.first * bench.block, part.count * bench.block, part.byte),
                    through: ThroughPlace(object: grant.object, firstSlot: slot),
                    command: part.command
                )
            }
        }

        /// Puts the object and asks for its map.
        @discardableResult
        func map(_ grant: DirectGrant, _ parts: [Part], isPut: Bool = false) -> [Ticket] {
            if !isPut { put(grant, parts) }
            let writes = parts.map { part in
                DirectWrite(
                    ticket: bench.ticket(),
                    context: bench.context(nexus, bench.takeCommand(nexus, part.command)),
                    blocks: BlockRange(first: BlockID(UInt64(part.first)), count: UInt64(part.count))
                )
            }
            bench.core.mapThrough(
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

        private func put(_ grant: DirectGrant, _ parts: [Part]) {
            bench.store.put(
                grant.object,
                parts.flatMap { part in
                    (0..<part.count).map { (BlockID(UInt64(part.first + $0)), bench.filled(part.byte, bench.block)) }
                }
            )
        }

        var items: [ItemRow] { bench.store.loadRegion(Bench.volume, BlockRange(first: BlockID(0), count: 1_024)).items }

        func extent(_ block: UInt64) -> Extent? { bench.store.extent(Bench.volume, BlockID(block)) }

        func bytes(_ runs: (UInt8, Int)...) -> [UInt8] {
            runs.flatMap { [UInt8](repeating: $0.0, count: $0.1 * bench.block) }
        }

        /// What blocks hold, also where it has to come from objects.
        func expect(_ first: Int, _ bytes: [UInt8], _ comment: Comment? = nil) {
            let count = bytes.count / bench.block
            #expect(bench.read(nexus, first * bench.block, count * bench.block) == bytes, comment)
            #expect(bench.store.violations.isEmpty, comment)
        }
    }

    @Test(
        "I1 M1: items that are durable first acknowledge; the object is then mapped as a move is, and nothing is left to move"
    )
    func itemsFirst() throws {
        let rig = try Rig()
        let parts = [Part(0, 2, 1, command: 50), Part(8, 1, 2, command: 51)]
        let unmoved = try #require(rig.bench.owner?.unmovedItems)
        let handed = try #require(rig.bench.owner?.direct.count)
        let writes = rig.send(rig.grants[0], parts)
        #expect(writes.allSatisfy { rig.bench.isDone($0) })
        #expect(rig.items.map(\.version) == [0, 1, 2].map { rig.grants[0].version(of: $0) })
        #expect(rig.bench.owner?.unmovedItems == unmoved + 3)
        // Agents leave them alone while their object is on its way.
        rig.bench.advance(3_000 * Bench.millisecond)
        #expect(rig.bench.moveWork()?.blocks.allSatisfy { $0.row.block >= BlockID(2_000) } ?? true)
        let maps = rig.map(rig.grants[0], parts)
        #expect(maps.allSatisfy { rig.bench.isDone($0) })
        #expect(rig.items.allSatisfy(\.isMoved) && rig.items.count == 3)
        #expect(rig.bench.owner?.unmovedItems == unmoved)
        #expect(rig.extent(1)?.object == rig.grants[0].object && rig.extent(8)?.object == rig.grants[0].object)
        rig.expect(0, rig.bytes((1, 2), (0, 6), (2, 1)))
        #expect(rig.bench.owner?.direct.count == handed - 1)
        #expect(rig.bench.owner?.moving[BlockID(0)] == nil)
    }

    @Test("I1 M4: an object that comes before the commit has begun acknowledges, and the items are dropped")
    func objectFirst() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        // Both commits are taken.
        let others = [20, 21].map { rig.bench.submit(rig.nexus, rig.bench.write($0 * rig.bench.block, 2_048, 7)) }
        let parts = [Part(0, 2, 1, command: 50), Part(8, 1, 2, command: 51)]
        let writes = rig.send(rig.grants[0], parts)
        let maps = rig.map(rig.grants[0], parts)
        #expect((writes + maps).allSatisfy { rig.bench.answers[$0] == nil })
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect((others + writes + maps).allSatisfy { rig.bench.isDone($0) })
        let commit = try #require(rig.bench.commits.last?.first)
        #expect(commit.writes.isEmpty && commit.maps.count == 1 && commit.maps[0].isRequired)
        #expect(commit.marks.flatMap(\.done) == [CommandID(50), CommandID(51)])
        #expect(rig.items.map(\.block) == [BlockID(20), BlockID(21)])
        rig.expect(0, rig.bytes((1, 2), (0, 6), (2, 1)))
    }

    @Test("M1: an object that comes while the items are in a commit waits for that, and is mapped as a move")
    func commitInFlight() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        let parts = [Part(0, 2, 1, command: 50)]
        let writes = rig.send(rig.grants[0], parts)
        #expect(rig.bench.held.count == 1)
        let maps = rig.map(rig.grants[0], parts)
        #expect(rig.bench.held.count == 1 && rig.bench.answers[maps[0]] == nil)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect((writes + maps).allSatisfy { rig.bench.isDone($0) })
        #expect(rig.items.map(\.isMoved) == [true, true])
        #expect(rig.extent(0)?.object == rig.grants[0].object)
        rig.expect(0, rig.bytes((1, 2)))
        // I10: with the last object that is handed out nothing is remembered for this one either.
        let owner = try #require(rig.bench.owner)
        owner.direct.expire(now: rig.bench.now.advanced(byNanoseconds: OwnerLimits.directGrantLife))
        #expect(!owner.direct.isWatching && owner.direct.changesKnown == 0)
    }

    @Test("I5: some in a commit and some not: the object is mapped as a move behind all of them")
    func mixed() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        let parts = [Part(0, 1, 1, command: 50), Part(1, 1, 2, command: 51), Part(2, 1, 3, command: 52)]
        // The first two take both commits, the third is ready.
        let writes = rig.send(rig.grants[0], parts)
        let maps = rig.map(rig.grants[0], parts)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect((writes + maps).allSatisfy { rig.bench.isDone($0) })
        #expect(rig.items.map(\.isMoved) == [true, true, true])
        rig.expect(0, rig.bytes((1, 1), (2, 1), (3, 1)))
    }

    @Test("R4 M4: an object whose writes the owner has not heard of does them; a write that comes later is known")
    func objectAlone() throws {
        let rig = try Rig()
        let parts = [Part(0, 2, 1, command: 50)]
        #expect(rig.bench.isDone(rig.map(rig.grants[0], parts)[0]))
        #expect(rig.items.isEmpty && rig.extent(1)?.object == rig.grants[0].object)
        let commits = rig.bench.commits.count
        #expect(rig.bench.isDone(rig.send(rig.grants[0], parts)[0]))
        #expect(rig.bench.commits.count == commits && rig.items.isEmpty)
        rig.expect(0, rig.bytes((1, 2)))
    }

    @Test("I12: a write of several blocks of which one was written since is moved as far as it still is")
    func overwrittenBeforeTheMap() throws {
        let rig = try Rig()
        let parts = [Part(0, 4, 1, command: 50)]
        #expect(rig.bench.isDone(rig.send(rig.grants[0], parts)[0]))
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(2 * rig.bench.block, 2_048, 5))))
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.zero((3 * rig.bench.block, 2_048)))))
        rig.map(rig.grants[0], parts)
        #expect(rig.items.map(\.isMoved) == [true, true, false])
        #expect(rig.extent(2) == nil && rig.extent(3) == nil)
        rig.expect(0, rig.bytes((1, 2), (5, 1), (0, 1)), "M1: a stale object never wins")
    }

    @Test(
        "M4: what was overtaken since the object was handed out has a version of its own, and its slots are not mapped"
    )
    func overtaken() throws {
        let rig = try Rig()
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(0, 2_048, 5))))
        let before = try #require(rig.items.first).version
        let parts = [Part(0, 1, 1, command: 50), Part(4, 1, 2, command: 51)]
        #expect(rig.send(rig.grants[0], parts).allSatisfy { rig.bench.isDone($0) })
        #expect(try #require(rig.items.first).version > before)
        #expect(rig.items.last?.version == rig.grants[0].version(of: 1))
        rig.map(rig.grants[0], parts)
        #expect(rig.items.map(\.isMoved) == [false, true])
        rig.expect(0, rig.bytes((1, 1), (0, 3), (2, 1)))
        // Nor is it mapped in place of the items while these wait.
        rig.bench.holdsCommits = true
        _ = [20, 21].map { rig.bench.submit(rig.nexus, rig.bench.write($0 * rig.bench.block, 2_048, 7)) }
        let late = [Part(0, 1, 3, command: 60)]
        let write = rig.send(rig.grants[1], late)
        #expect(rig.bench.isDone(rig.map(rig.grants[1], late)[0]) == false)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect(rig.bench.isDone(write[0]))
        rig.expect(0, rig.bytes((3, 1)))
    }

    @Test(
        "M4: behind a write that waits, versions are still judged by what came between, also when the object was mapped meanwhile"
    )
    func waitsBehindAnother() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        let first = rig.bench.submit(rig.nexus, rig.bench.write(0, 2_048, 5))
        let parts = [Part(0, 1, 1, command: 50), Part(1, 1, 2, command: 51)]
        let writes = rig.send(rig.grants[0], parts)
        let maps = rig.map(rig.grants[0], parts)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect(([first] + writes + maps).allSatisfy { rig.bench.isDone($0) })
        let items = rig.items
        #expect(items[0].version > rig.grants[0].version(of: 1_000) && !items[0].isMoved)
        #expect(items[1].version == rig.grants[0].version(of: 1) && items[1].isMoved)
        rig.expect(0, rig.bytes((1, 1), (2, 1)))
    }

    @Test(
        "I10: a map behind writes that are done is given up where the log has no room: reads do not wait for it for long"
    )
    func logIsFull() throws {
        let rig = try Rig {
            $0.logSlowBelowBytes = 1_000
            $0.logWaitBelowBytes = 200
        }
        let bench = rig.bench
        let parts = [Part(0, 2, 1, command: 50)]
        #expect(rig.send(rig.grants[0], parts).allSatisfy { bench.isDone($0) })
        bench.core.logRoomMeasured(freeBytes: 199, now: bench.now)
        rig.map(rig.grants[0], parts)
        let read = bench.submit(rig.nexus, bench.readOperation(0, 2 * bench.block))
        #expect(bench.answers[read] == nil)
        bench.advance(OwnerLimits.throughMapWait + Bench.millisecond)
        #expect(bench.bytes(read) == rig.bytes((1, 2)))
        #expect(rig.items.map(\.isMoved) == [false, false])
        #expect(try !#require(bench.owner).direct.remembers(rig.grants[0]), "nothing is remembered for its object")
    }

    @Test(
        "R9: a write that was refused as unproved, and is left to the cache, is still known when another nexus aborts it"
    )
    func unprovedStaysKnown() throws {
        let rig = try Rig()
        let bench = rig.bench
        let old = bench.stamp
        bench.advance(4_000 * Bench.millisecond)
        let parts = [Part(0, 1, 1, command: 50), Part(1, 1, 2, command: 51)]
        let late = bench.submit(rig.nexus, bench.write(0, bench.block, 1), command: 50, proved: old)
        #expect(bench.refusal(late) == .unproved)
        _ = bench.submit(rig.nexus, bench.write(bench.block, bench.block, 2), command: 51)
        let ticket = bench.ticket()
        bench.core.beginDirect(ticket, volume: Bench.volume, epoch: bench.epoch, count: 1, now: bench.now)
        bench.run()
        guard case .grants(_, let grants)? = bench.answers[ticket] else { throw Missing() }
        let maps = rig.map(try #require(grants.first), parts)
        #expect(bench.refusal(maps[0]) == .stale)
        let nexus = try #require(bench.owner?.nexuses[rig.nexus])
        #expect(nexus.isUnproved(CommandID(50)) && !nexus.isUnproved(CommandID(51)))
    }

    private struct Missing: Error {}

    @Test("I6: an object that was given up, or is not known, changes nothing; agents move the items")
    func objectFails() throws {
        let rig = try Rig()
        let parts = [Part(0, 2, 1, command: 50)]
        #expect(rig.bench.isDone(rig.send(rig.grants[0], parts)[0]))
        rig.bench.store.sweep(rig.grants[0].object)
        #expect(rig.bench.isDone(rig.map(rig.grants[0], parts)[0]))
        #expect(rig.items.map(\.isMoved) == [false, false])
        // Once it is mapped, or its time is over, it is not known any more.
        #expect(rig.bench.refusal(rig.map(rig.grants[0], parts, isPut: true)[0]) == .stale)
        rig.bench.advance(OwnerLimits.throughMapWait + 2_000 * Bench.millisecond)
        rig.bench.map(rig.bench.put(try #require(rig.bench.moveWork())))
        #expect(rig.items.map(\.isMoved) == [true, true])
        rig.expect(0, rig.bytes((1, 2)))
    }

    @Test("I1: items that the store refuses are done by their object, which comes meanwhile")
    func commitFails() throws {
        let rig = try Rig()
        rig.bench.commitFailures = [(.refused("planted"), isMade: false)]
        let parts = [Part(0, 2, 1, command: 50)]
        let write = rig.send(rig.grants[0], parts)[0]
        #expect(rig.bench.answers[write] == nil)
        rig.map(rig.grants[0], parts)
        rig.bench.advance(200 * Bench.millisecond)
        #expect(rig.bench.isDone(write) && rig.items.isEmpty)
        rig.expect(0, rig.bytes((1, 2)))
    }

    @Test("I1: a map that fails in place of the items leaves a write that is sent again, and done once")
    func mapFails() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        _ = [20, 21].map { rig.bench.submit(rig.nexus, rig.bench.write($0 * rig.bench.block, 2_048, 7)) }
        let parts = [Part(0, 2, 1, command: 50)]
        let write = rig.send(rig.grants[0], parts)[0]
        rig.map(rig.grants[0], parts)
        rig.bench.store.sweep(rig.grants[0].object)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        rig.bench.advance(200 * Bench.millisecond)
        #expect(rig.bench.refusal(write) == .stale)
        let again = rig.bench.submit(rig.nexus, rig.bench.write(0, 2 * rig.bench.block, 1), command: 50)
        #expect(rig.bench.isDone(again))
        #expect(rig.bench.commits.flatMap { $0 }.flatMap(\.marks).flatMap(\.done).count { $0 == CommandID(50) } >= 1)
        rig.expect(0, rig.bytes((1, 2)))
    }

    @Test(
        "R4: a write through that is sent again under its number, with or without its place, is done once",
        arguments: [true, false]
    )
    func sentAgain(isInFlight: Bool) throws {
        let rig = try Rig()
        let parts = [Part(0, 2, 1, command: 50)]
        rig.bench.holdsCommits = isInFlight
        let first = rig.send(rig.grants[0], parts)
        let plain = rig.bench.submit(rig.nexus, rig.bench.write(0, 2 * rig.bench.block, 1), command: 50)
        let second = rig.send(rig.grants[0], parts)
        let maps = rig.map(rig.grants[0], parts)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        #expect((first + [plain] + second + maps).allSatisfy { rig.bench.isDone($0) })
        #expect(rig.bench.commits.flatMap { $0 }.flatMap(\.writes).count { $0.block == BlockID(0) } == 1)
        #expect(rig.items.map(\.isMoved) == [true, true])
        rig.expect(0, rig.bytes((1, 2)))
    }

    @Test("M2: a slot goes to one write; a second one that names it has a version of its own")
    func slotsAreUsedOnce() throws {
        let rig = try Rig()
        let place = ThroughPlace(object: rig.grants[0].object, firstSlot: 0)
        let beyond = ThroughPlace(object: rig.grants[0].object, firstSlot: rig.grants[0].slots - 1)
        let unknown = ThroughPlace(object: ObjectID(9_999), firstSlot: 0)
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(0, 2_048, 1), through: place)))
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(2_048, 2_048, 2), through: place)))
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(4_096, 4_096, 3), through: beyond)))
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(8_192, 2_048, 4), through: unknown)))
        // Part of a block is never in an object.
        #expect(rig.bench.isDone(rig.bench.submit(rig.nexus, rig.bench.write(10_240, 512, 5), through: place)))
        let versions = rig.items.map(\.version)
        #expect(versions[0] == rig.grants[0].firstVersion && Set(versions).count == 6)
        let own = rig.grants.flatMap { grant in (0..<grant.slots).map { grant.version(of: $0) } }
        #expect(Set(own).isDisjoint(with: versions.dropFirst()))
        #expect(rig.bench.store.violations.isEmpty)
    }

    @Test(
        "R5: a new epoch knows nothing of an object; a write of the one before that was not committed is sent again, and done"
    )
    func takeover() throws {
        let rig = try Rig()
        let parts = [Part(0, 2, 1, command: 50), Part(4, 1, 2, command: 51)]
        rig.bench.commitFailures = [(.unknownOutcome("planted"), isMade: true)]
        _ = rig.send(rig.grants[0], parts)
        rig.bench.own()
        #expect(rig.bench.refusal(rig.map(rig.grants[0], parts)[0]) == .stale)
        let nexus = try #require(rig.bench.login("other"))
        #expect(rig.bench.read(nexus, 0, 2 * rig.bench.block) == rig.bytes((1, 2)))
        #expect(rig.items.allSatisfy { !$0.isMoved })
        #expect(rig.bench.store.violations.isEmpty)
    }

    @Test(
        "I10: at the high watermark an object does what is slowed down, and at the hard limit it makes room for its own writes"
    )
    func limits() throws {
        for isHard in [false, true] {
            let block: UInt64 = 2_048
            let rig = try Rig {
                $0.unmovedHighWatermarkBytes = isHard ? 1 << 30 : 0
                $0.unmovedHardLimitBytes = isHard ? block : block + 1
            }
            #expect((rig.bench.owner?.unmovedItems ?? 0) > 0)
            let parts = [Part(0, 1, 1, command: 50), Part(1, 1, 2, command: 51)]
            let writes = rig.send(rig.grants[0], parts)
            #expect(writes.allSatisfy { rig.bench.answers[$0] == nil }, "\(isHard)")
            rig.map(rig.grants[0], parts)
            #expect(writes.allSatisfy { rig.bench.isDone($0) }, "\(isHard)")
            #expect(rig.extent(0)?.object == rig.grants[0].object && rig.items.isEmpty, "\(isHard)")
            rig.expect(0, rig.bytes((1, 1), (2, 1)))
        }
    }

    @Test("R6: a write through that task management took back is not done by its object either")
    func takenBack() throws {
        let rig = try Rig()
        rig.bench.holdsCommits = true
        _ = [20, 21].map { rig.bench.submit(rig.nexus, rig.bench.write($0 * rig.bench.block, 2_048, 7)) }
        let parts = [Part(0, 2, 1, command: 50)]
        let write = rig.send(rig.grants[0], parts)[0]
        #expect(rig.bench.isDone(rig.bench.fence(rig.nexus, below: 60, commands: [50])))
        #expect(rig.bench.refusal(write) == .aborted)
        rig.map(rig.grants[0], parts)
        rig.bench.holdsCommits = false
        rig.bench.releaseHeld()
        rig.expect(0, rig.bytes((0, 2)))
        #expect(rig.extent(0) == nil)
    }

    @Test("Malformed maps are refused as a whole, and their objects are used up")
    func malformed() throws {
        let rig = try Rig()
        let handed = try #require(rig.bench.owner?.direct.count)
        let overlapping = [Part(0, 2, 1, command: 50), Part(1, 2, 2, command: 51)]
        #expect(rig.map(rig.grants[0], overlapping).allSatisfy { rig.bench.refusal($0) == .stale })
        let beyond = [Part(2_047, 2, 1, command: 52)]
        #expect(rig.map(rig.grants[1], beyond).allSatisfy { rig.bench.refusal($0) == .stale })
        #expect(rig.bench.owner?.direct.count == handed - 2)
        rig.expect(0, rig.bytes((0, 4)))
    }
}
