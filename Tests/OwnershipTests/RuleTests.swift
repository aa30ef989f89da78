import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

@Suite("Rules of leases and fencing, and whole commands, with plain calls")
struct RuleTests {
    @Test("R1: a command with an old proof is not executed, and is once the proof is new")
    func oldProof() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        let old = bench.stamp
        bench.advance(4_000 * Bench.millisecond)
        let first = bench.submit(nexus, bench.write(0, 2_048, 1), command: 1, proved: old)
        #expect(bench.refusal(first) == .unproved)
        #expect(bench.writeCommits == 0)
        let second = bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)
        #expect(bench.isDone(second))
    }

    @Test("R1: a write that is slowed down enters the order only if its proof is still new")
    func slowedDown() throws {
        let bench = try Bench {
            $0.unmovedHighWatermarkBytes = 2_048; $0.unmovedHardLimitBytes = 8_192
        }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 6_144, 1))))
        let proof = bench.stamp
        bench.advance(3_990 * Bench.millisecond)
        let late = bench.submit(nexus, bench.write(8_192, 2_048, 2), proved: proof)
        #expect(bench.answers[late] == nil)
        bench.advance(100 * Bench.millisecond)
        #expect(bench.refusal(late) == .unproved)
    }

    @Test("R2: after a takeover a nexus serves only once it was resumed with a new proof")
    func resume() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        let done = bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)
        #expect(bench.isDone(done))
        let old = bench.stamp
        bench.commitFailures = [(.unknownOutcome("planted"), isMade: true)]
        let unknown = bench.submit(nexus, bench.write(2_048, 2_048, 2), command: 2)
        #expect(bench.refusal(unknown) == .notOwner(nil))
        bench.own()
        #expect(bench.epoch > old.epoch)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 3), command: 3)) == .nexusClosed)
        let early = bench.ticket()
        bench.core.resumeNexus(early, volume: Bench.volume, nexus: nexus, proved: old, now: bench.now)
        bench.run()
        #expect(bench.refusal(early) == .wrongEpoch)
        let ticket = bench.ticket()
        bench.core.resumeNexus(ticket, volume: Bench.volume, nexus: nexus, proved: bench.stamp, now: bench.now)
        bench.run()
        guard case .nexusResumed(let marks, _, _)? = bench.answers[ticket] else {
            Issue.record("not resumed")
            return
        }
        // R6: what was committed is known, though its answer was lost.
        #expect(marks == [CommandID(1), CommandID(2)])
        #expect(bench.read(nexus, 2_048, 2_048)?.first == 2)
    }

    @Test("R3: a login closes older nexuses of the same ports, with what they have waiting")
    func newLogin() throws {
        let bench = try Bench()
        let old = try #require(bench.login())
        bench.holdsCommits = true
        let committing = (0..<2).map { bench.submit(old, bench.write($0 * 2_048, 2_048, 1)) }
        let waiting = bench.submit(old, bench.write(0, 2_048, 2))
        let ready = bench.submit(old, bench.write(8_192, 2_048, 2))
        let new = try #require(bench.login())
        #expect(new > old)
        #expect(bench.refusal(waiting) == .nexusClosed)
        #expect(bench.refusal(ready) == .nexusClosed)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(committing.allSatisfy { bench.isDone($0) })
        #expect(bench.refusal(bench.submit(old, bench.write(0, 2_048, 3))) == .nexusClosed)
        #expect(bench.read(new, 0, 2_048)?.first == 1)
        #expect(bench.read(new, 8_192, 2_048)?.first == 0)
    }

    @Test("R4: a command sent again in the same epoch is executed once, and every copy gets the answer")
    func sentAgain() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let copies = (0..<3).map { _ in bench.submit(nexus, bench.write(0, 2_048, 1), command: 1) }
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(copies.allSatisfy { bench.isDone($0) })
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)))
        // Also where its proof is old by now: it does not enter the order again.
        let old = bench.stamp
        bench.advance(5_000 * Bench.millisecond)
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1, proved: old)))
        #expect(bench.writeCommits == 1)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 2), command: 1, lowWater: 2)) == .belowLowWater)
    }

    @Test("R4: what was refused or miscompared stays so when a copy arrives late")
    func lateCopy() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        let compare = bench.compareAndWrite(0, bench.filled(5, 512), bench.filled(6, 512))
        let first = bench.submit(nexus, compare, command: 1)
        guard case .miscompare(_, 0)? = bench.answers[first] else {
            Issue.record("zeros are not fives")
            return
        }
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 5), command: 2)))
        let copy = bench.submit(nexus, compare, command: 1)
        guard case .miscompare(_, 0)? = bench.answers[copy] else {
            Issue.record("a late copy was executed")
            return
        }
        bench.holdsCommits = true
        for index in 0..<2 { bench.submit(nexus, bench.write(2_048 * (4 + index), 2_048, 1)) }
        let late = bench.submit(nexus, bench.write(0, 2_048, 9), command: 10, deadline: 100)
        bench.advance(200 * Bench.millisecond)
        #expect(bench.refusal(late) == .deadline)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 9), command: 10)) == .deadline)
        #expect(bench.read(nexus, 0, 2_048)?.first == 5)
    }

    @Test("R5: a command made for another epoch is refused")
    func otherEpoch() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        for epoch in [UInt64(0), 2] {
            let stamp = Stamp(epoch: Epoch(epoch), time: bench.now)
            #expect(
                bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 1), command: 1, proved: stamp)) == .wrongEpoch
            )
        }
    }

    @Test("R6: task management takes back what waits, waits for what is being committed, refuses what comes later")
    func taskManagement() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let committing = bench.submit(nexus, bench.write(0, 2_048, 1), command: 1)
        let waiting = bench.submit(nexus, bench.write(0, 2_048, 2), command: 2)
        let kept = bench.submit(nexus, bench.write(4_096, 2_048, 4), command: 4)
        let fence = bench.fence(nexus, below: 5, commands: [1, 2, 3])
        #expect(bench.refusal(waiting) == .aborted)
        #expect(bench.answers[fence] == nil)
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 3), command: 3)) == .aborted)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(bench.isDone(committing) && bench.isDone(fence) && bench.isDone(kept))
        let all = bench.fence(nexus, below: 20)
        #expect(bench.isDone(all))
        #expect(bench.refusal(bench.submit(nexus, bench.write(0, 2_048, 5), command: 19)) == .aborted)
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 6), command: 20)))
    }

    @Test("R8: without the lease reads and miscompares wait, and go on when it is renewed")
    func leaseLapse() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        bench.losesRenewals = true
        bench.advance(3_960 * Bench.millisecond)
        let proof = bench.stamp
        bench.advance(60 * Bench.millisecond)
        let read = bench.submit(nexus, bench.readOperation(0, 2_048), proved: proof)
        let compare = bench.submit(
            nexus,
            bench.compareAndWrite(0, bench.filled(7, 512), bench.filled(8, 512)),
            proved: proof
        )
        #expect(bench.answers[read] == nil && bench.answers[compare] == nil)
        // The model's lease is as long as the owner's: it is lengthened behind the owner's back.
        bench.losesRenewals = false
        bench.core.leaseEnd = bench.now.advanced(byNanoseconds: 1)
        let id = bench.core.operation(.renew(asked: bench.now))
        bench.core.leaseRenewed(id, .success(true), now: bench.now)
        bench.run()
        #expect(bench.bytes(read)?.first == 1)
        guard case .miscompare? = bench.answers[compare] else {
            Issue.record("the comparison was not told")
            return
        }
    }

    @Test("R8: a lease that has ended gives up all volumes, and a takeover under an old registration is not used")
    func registrationEnded() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.losesRenewals = true
        bench.advance(5_000 * Bench.millisecond)
        bench.losesRenewals = false
        let read = bench.submit(nexus, bench.readOperation(0, 2_048))
        bench.advance(1_000 * Bench.millisecond)
        #expect(bench.refusal(read) == .notOwner(nil))
        let registered = bench.core.server
        let server = try #require(registered)
        bench.core.volumes[Bench.volume] = .takingOver([])
        let stale = bench.core.operation(.takeOver(Bench.volume, CacheServerID(server.rawValue - 1)))
        let given = bench.store.takeOver(Bench.volume, server: server, now: bench.now)
        bench.core.takeOverCompleted(stale, .success(given), now: bench.now)
        #expect(bench.owner == nil)
        bench.run()
        #expect(bench.owner != nil)
    }

    @Test("I12: a batch never splits a command, and a read waits for the whole of a write")
    func wholeCommands() throws {
        let bench = try Bench(blocks: 16_384)
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        let size = Int(Limits.transferMaximumBytes)
        var tickets: [Ticket] = []
        for index in 0..<2 { tickets.append(bench.submit(nexus, bench.write(index * 2_048, 2_048, 9))) }
        for index in 0..<3 {
            tickets.append(bench.submit(nexus, bench.write(4_096 + index * size, size, UInt8(index + 1))))
        }
        let read = bench.submit(nexus, bench.readOperation(4_096, size))
        #expect(bench.answers[read] == nil)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(tickets.allSatisfy { bench.isDone($0) })
        #expect(bench.bytes(read).map { Set($0) } == [1])
        for commit in bench.commits {
            let bytes = commit.flatMap(\.writes).reduce(0) { $0 + $1.bytes.readableBytes }
            #expect(bytes <= Limits.batchMaximumBytes)
            #expect(bytes < size || bytes % size == 0, "a command of \(size) bytes was split: \(bytes)")
        }
    }

    @Test("a commit goes beside another one once it is as large, or large enough; else when the first is done")
    func batchesOfOneSize() throws {
        let bench = try Bench(blocks: 1_024)
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        var block = 0
        func write(_ count: Int) -> [Ticket] {
            (0..<count).map { _ in
                defer { block += 1 }
                return bench.submit(nexus, bench.write(block * 2_048, 2_048, 1))
            }
        }
        // The first goes at once, by itself, and so does the second, since it is as large.
        var tickets = write(2)
        #expect(bench.held.count == 2)
        tickets += write(4)
        #expect(bench.held.count == 2)
        bench.release(at: 0)
        // Beside one of a single command.
        #expect(bench.held.count == 2)
        tickets += write(3)
        bench.release(at: 0)
        // Four are on their way: three wait.
        #expect(bench.held.count == 1)
        tickets += write(1)
        #expect(bench.held.count == 2)
        tickets += write(OwnerLimits.besideAnotherMinimumCommands * 2)
        bench.release(at: 0)
        #expect(bench.held.count == 2)
        tickets += write(OwnerLimits.besideAnotherMinimumCommands - 1)
        bench.release(at: 0)
        #expect(bench.held.count == 1)
        tickets += write(1)
        #expect(bench.held.count == 2)
        tickets += write(1)
        bench.release(at: 0)
        bench.release(at: 0)
        #expect(bench.held.count == 1)
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(tickets.allSatisfy { bench.isDone($0) })
    }

    @Test("D14: two nexuses write parts of one block and neither is lost")
    func subBlockWrites() throws {
        let bench = try Bench()
        let a = try #require(bench.login("a"))
        let b = try #require(bench.login("b"))
        bench.holdsCommits = true
        let tickets = [
            bench.submit(a, bench.write(0, 512, 1)), bench.submit(b, bench.write(512, 512, 2)),
            bench.submit(a, bench.write(1_024, 512, 3)), bench.submit(b, bench.write(1_536, 512, 4)),
        ]
        bench.holdsCommits = false
        bench.releaseHeld()
        #expect(tickets.allSatisfy { bench.isDone($0) })
        let bytes = try #require(bench.read(a, 0, 2_048))
        #expect([bytes[0], bytes[512], bytes[1_024], bytes[1_536], bytes[2_047]] == [1, 2, 3, 4, 4])
    }

    @Test("a write may end inside of a logical block, whose other bytes stay", arguments: [4_096, 16_384] as [UInt32])
    func partOfALogicalBlock(blockBytes: UInt32) throws {
        let bench = try Bench(blockBytes: blockBytes, logicalBlockBytes: 4_096)
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 16_384, 1))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(4_096, 512, 2))))
        #expect(bench.isDone(bench.submit(nexus, bench.write(8_192, 5_120, 3))))
        let bytes = try #require(bench.read(nexus, 0, 16_384))
        #expect(bytes[..<4_096].allSatisfy { $0 == 1 } && bytes[4_096..<4_608].allSatisfy { $0 == 2 })
        #expect(bytes[4_608..<8_192].allSatisfy { $0 == 1 } && bytes[8_192..<13_312].allSatisfy { $0 == 3 })
        #expect(bytes[13_312...].allSatisfy { $0 == 1 })
        let commits = bench.commits.count
        for operation in [
            bench.write(512, 512, 4), bench.write(0, 500, 4), bench.zero((0, 512)), bench.readOperation(0, 512),
            .orWrite(offset: 0, checksums: [bench.filled(1, 512).testChecksum], bytes: bench.filled(1, 512)),
            bench.compareAndWrite(0, bench.filled(1, 512), bench.filled(2, 512)),
        ] {
            guard case .invalid? = bench.refusal(bench.submit(nexus, operation)) else {
                Issue.record("not refused: \(operation)")
                continue
            }
        }
        #expect(bench.commits.count == commits)
    }

    @Test("COMPARE AND WRITE writes where all agrees, and names the first byte that differs")
    func compareAndWrite() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(1_536, 1_024, 7))))
        #expect(
            bench.isDone(
                bench.submit(nexus, bench.compareAndWrite(1_536, bench.filled(7, 1_024), bench.filled(8, 1_024)))
            )
        )
        var expected = bench.filled(8, 1_024)
        expected.setInteger(UInt8(9), at: 700)
        let ticket = bench.submit(nexus, bench.compareAndWrite(1_536, expected, bench.filled(1, 1_024)))
        guard case .miscompare(_, let offset)? = bench.answers[ticket] else {
            Issue.record("no miscompare")
            return
        }
        #expect(offset == 700)
        let bytes = try #require(bench.read(nexus, 0, 4_096))
        #expect(bytes[1_535] == 0 && bytes[1_536] == 8 && bytes[2_559] == 8 && bytes[2_560] == 0)
    }

    @Test("M5: zeroing with partial edges, also where several ranges meet in one block")
    func zeroEdges() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 10 * 2_048, 5))))
        // The end of one range and the start of another in block 2; block 4 is covered; block 6 is touched at both ends.
        let zero = bench.zero((6 * 2_048, 512), (512, 4_096), (5_120, 5_120), (6 * 2_048 + 1_536, 512))
        #expect(bench.isDone(bench.submit(nexus, zero)))
        let bytes = try #require(bench.read(nexus, 0, 10 * 2_048))
        var expected = [UInt8](repeating: 5, count: 10 * 2_048)
        for range in [512..<4_608, 5_120..<10_240, 12_288..<12_800, 13_824..<14_336] {
            for index in range { expected[index] = 0 }
        }
        #expect(bytes == expected)
    }

    @Test("refused commits are made again, and the owner's own are dropped meanwhile")
    func refusedCommit() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.commitFailures = Array(repeating: (.refused("disk full"), isMade: false), count: 3)
        let write = bench.submit(nexus, bench.write(0, 2_048, 1))
        #expect(bench.answers[write] == nil)
        bench.advance(1_000 * Bench.millisecond)
        #expect(bench.isDone(write))
        #expect(bench.writeCommits == 4)
        bench.commitFailures = Array(repeating: (.refused("disk full"), isMade: false), count: 1_000)
        let failing = bench.submit(nexus, bench.write(0, 2_048, 2), deadline: 2_000)
        bench.advance(2_100 * Bench.millisecond)
        #expect(bench.refusal(failing) == .deadline)
        #expect(bench.read(nexus, 0, 2_048)?.first == 1)
    }

    @Test("a command that cannot be committed at all does not take others with it")
    func brokenCommit() throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        bench.holdsCommits = true
        for index in 0..<2 { bench.submit(nexus, bench.write(index * 2_048, 2_048, 1)) }
        let tickets = (0..<3).map { bench.submit(nexus, bench.write(8_192 + $0 * 2_048, 2_048, 2)) }
        bench.holdsCommits = false
        // The batch of three, then the first of them alone.
        bench.releaseHeld()
        #expect(tickets.allSatisfy { bench.isDone($0) })
        bench.holdsCommits = true
        for index in 0..<2 { bench.submit(nexus, bench.write(index * 2_048, 2_048, 1)) }
        let more = (0..<3).map { bench.submit(nexus, bench.write(8_192 + $0 * 2_048, 2_048, 3)) }
        bench.commitFailures = [
            (.broken("planted"), isMade: false), (.broken("planted"), isMade: false),
            (.broken("planted"), isMade: false),
        ]
        let before = bench.commits.count
        bench.holdsCommits = false
        bench.releaseHeld()
        bench.advance(1_000 * Bench.millisecond)
        #expect(more.allSatisfy { bench.isDone($0) })
        #expect(bench.commits[before...].suffix(3).allSatisfy { $0.flatMap(\.writes).count == 1 })
    }

    @Test(
        "I1 R6: an unknown outcome makes the owner take itself over, whether it was committed or not",
        arguments: [true, false]
    )
    func unknownOutcome(isMade: Bool) throws {
        let bench = try Bench()
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 2_048, 1))))
        let epoch = bench.epoch
        bench.commitFailures = [(.unknownOutcome("planted"), isMade: isMade)]
        let unknown = bench.submit(nexus, bench.write(0, 2_048, 2))
        #expect(bench.refusal(unknown) == .notOwner(nil))
        bench.own()
        #expect(bench.epoch == Epoch(epoch.rawValue + 1))
        let other = try #require(bench.login("other"))
        #expect(bench.read(other, 0, 2_048)?.first == (isMade ? 2 : 1))
    }

    @Test("what is slowed down or waits is answered when the volume is lost")
    func lostVolume() throws {
        let bench = try Bench {
            $0.unmovedHighWatermarkBytes = 2_048; $0.unmovedHardLimitBytes = 1 << 20
        }
        let nexus = try #require(bench.login())
        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 600_000 / 2_048 * 2_048, 1))))
        bench.holdsLoads = true
        let throttled = bench.submit(nexus, bench.write(0, 2_048, 2))
        let loading = bench.submit(nexus, bench.readOperation(1_500 * 2_048, 2_048))
        let zeroing = bench.submit(nexus, bench.zero((1_100 * 2_048, 512)))
        #expect([throttled, loading, zeroing].allSatisfy { bench.answers[$0] == nil })
        bench.core.giveUp(Bench.volume, now: bench.now)
        bench.run()
        #expect([throttled, loading, zeroing].allSatisfy { bench.refusal($0) == .notOwner(nil) })
        #expect(bench.core.imageBytes == 0 && bench.core.unmovedBytes == 0 && bench.core.retries.isEmpty)
        #expect(bench.core.regionQueue.isEmpty && bench.core.dropQueue.isEmpty)
    }
}
