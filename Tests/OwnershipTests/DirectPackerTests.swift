import AshlarCore
import Testing

@testable import Ownership

@Suite("The packer of direct writes")
struct DirectPackerTests {
    private static let millisecond: UInt64 = 1_000_000
    private static let epoch = Epoch(2)

    /// A packer with what it has asked for.
    private final class Rig {
        var packer = DirectPacker<Int>(blockSizeBytes: 4_096)
        var now = MonotonicTime(1_000_000_000)
        var puts: [DirectPacker<Int>.Pack] = []
        var begins: [(number: UInt64, count: Int)] = []
        var back: [Int] = []
        var nextObject: UInt64 = 1

        func add(_ item: Int, _ first: UInt64, _ count: UInt64, epoch: Epoch = DirectPackerTests.epoch) -> Bool {
            let blocks = BlockRange(first: BlockID(first), count: count)
            return packer.add(item, blocks: blocks, epoch: epoch, now: now)
        }

        func pack() {
            packer.pack(now: now)
            run()
        }

        func run() {
            while let action = packer.nextAction() {
                switch action {
                case .begin(let number, _, let count): begins.append((number, count))
                case .put(let pack): puts.append(pack)
                case .giveBack(let items): back += items
                }
            }
        }

        func grant(_ count: Int) {
            let grants = (0..<count).map { _ -> DirectGrant in
                defer { nextObject += 1 }
                return DirectGrant(
                    object: ObjectID(nextObject),
                    firstVersion: Version(nextObject * 10_000),
                    slots: 1_024
                )
            }
            packer.granted(begins.removeFirst().number, grants, now: now)
            run()
        }

        func end(isDone: Bool) -> DirectPacker<Int>.Pack? {
            let number = puts.removeFirst().number
            defer { run() }
            if isDone { return packer.putSucceeded(number, now: now) }
            packer.putFailed(number, now: now)
            return nil
        }
    }

    private static func items(_ pack: DirectPacker<Int>.Pack?) -> [Int] { pack?.writes.map(\.item) ?? [] }

    @Test("What comes together goes together; what comes while puts are under way goes into the next one")
    func groups() {
        let rig = Rig()
        #expect(rig.add(1, 0, 16) && rig.add(2, 100, 16))
        rig.pack()
        #expect(rig.puts.isEmpty && rig.begins.map(\.count) == [1])
        rig.grant(1)
        #expect(rig.puts.map { Self.items($0) } == [[1, 2]])
        // The next object is asked for in time.
        #expect(rig.begins.map(\.count) == [DirectPackerLimits.grantsAtOnce])
        rig.grant(2)
        for item in 3...9 {
            #expect(rig.add(item, UInt64(item) * 100, 16))
            rig.pack()
        }
        #expect(rig.puts.count == 1)
        #expect(Self.items(rig.end(isDone: true)) == [1, 2])
        #expect(rig.puts.map { Self.items($0) } == [[3, 4, 5, 6, 7, 8, 9]])
        #expect(rig.begins.isEmpty && rig.back.isEmpty)
    }

    @Test("Where half an object waits, it is put beside another one, a few at once")
    func beside() {
        let rig = Rig()
        let half = DirectPackerLimits.besideAnotherMinimumBytes / 4_096
        #expect(rig.add(0, 0, 16))
        rig.pack()
        rig.grant(2)
        #expect(rig.add(1, 1_000, half - 1))
        rig.pack()
        #expect(rig.puts.count == 1)
        #expect(rig.add(2, 2_000, 1))
        rig.pack()
        #expect(rig.puts.map { Self.items($0) } == [[0], [1, 2]])
        rig.grant(2)
        for item in 3...8 {
            #expect(rig.add(item, UInt64(item) * 1_000, half))
            rig.pack()
        }
        #expect(rig.puts.map { Self.items($0) } == [[0], [1, 2], [3]])
        #expect(rig.puts.count == DirectPackerLimits.putsMaximum)
        #expect(rig.puts[1].grant.object < rig.puts[2].grant.object)
        _ = rig.end(isDone: true)
        #expect(rig.puts.map { Self.items($0) } == [[1, 2], [3], [4, 5]])
        #expect(rig.back.isEmpty)
    }

    @Test("I10: an object has its bounds, in blocks and in writes")
    func bounds() {
        let rig = Rig()
        #expect(!rig.add(0, 0, 1_025) && !rig.add(0, 0, 0))
        #expect(rig.add(1, 0, 1_000) && rig.add(2, 1_000, 24) && rig.add(3, 2_000, 1))
        rig.pack()
        rig.grant(1)
        #expect(rig.puts.map { Self.items($0) } == [[1, 2]])
        rig.grant(2)
        _ = rig.end(isDone: true)
        #expect(rig.puts.map { Self.items($0) } == [[3]])
        for item in 0..<300 { #expect(rig.add(item, UInt64(item) * 2, 1)) }
        _ = rig.end(isDone: true)
        #expect(rig.puts[0].writes.count == Limits.directWritesPerObjectMaximum)
        // No more waits than is allowed.
        var taken = 0
        while rig.add(1_000, 0, 1_024) {
            taken += 1
            if taken > 100 { break }
        }
        #expect(taken == Int(DirectPackerLimits.waitingBytesMaximum) / (4 << 20) - 1)
    }

    @Test("Writes that share a block do not share an object, and keep their order")
    func overlapping() {
        let rig = Rig()
        #expect(rig.add(1, 0, 16) && rig.add(2, 15, 2) && rig.add(3, 50, 1))
        rig.pack()
        rig.grant(2)
        #expect(rig.puts.map { Self.items($0) } == [[1]])
        _ = rig.end(isDone: true)
        #expect(rig.puts.map { Self.items($0) } == [[2, 3]])
    }

    @Test("What cannot be put goes back; after some failures everything does, for a while")
    func failures() {
        let rig = Rig()
        for round in 1...DirectPackerLimits.failuresMaximum {
            #expect(rig.add(round, 0, 16))
            rig.pack()
            if !rig.begins.isEmpty { rig.grant(2) }
            #expect(rig.end(isDone: false) == nil)
            #expect(rig.back.last == round)
        }
        #expect(!rig.add(9, 0, 16))
        rig.now = rig.now.advanced(byNanoseconds: DirectPackerLimits.failurePause)
        #expect(rig.add(9, 0, 16))
    }

    @Test("A put that succeeds ends a row of failures")
    func success() {
        let rig = Rig()
        for round in 0..<3 * DirectPackerLimits.failuresMaximum {
            #expect(rig.add(round, 0, 16))
            rig.pack()
            if rig.puts.isEmpty { rig.grant(2) }
            _ = rig.end(isDone: round % 2 == 0)
        }
        #expect(rig.add(99, 0, 16))
    }

    @Test("Without objects to hand out, writes go back at once and soon try again")
    func nothingGranted() {
        let rig = Rig()
        #expect(rig.add(1, 0, 16))
        rig.pack()
        rig.grant(0)
        #expect(rig.back == [1] && !rig.add(2, 0, 16))
        rig.now = rig.now.advanced(byNanoseconds: DirectPackerLimits.emptyPause)
        #expect(rig.add(2, 0, 16))
        rig.pack()
        rig.packer.beginFailed(rig.begins.removeFirst().number, now: rig.now)
        rig.run()
        #expect(rig.back == [1, 2] && !rig.add(3, 0, 16))
    }

    @Test("Objects of another epoch, and those that have grown old, are not used")
    func staleGrants() {
        let rig = Rig()
        #expect(rig.add(1, 0, 16))
        rig.pack()
        rig.grant(2)
        #expect(rig.end(isDone: true) != nil)
        rig.now = rig.now.advanced(byNanoseconds: DirectPackerLimits.grantLife)
        #expect(rig.add(2, 0, 16))
        rig.pack()
        #expect(rig.puts.isEmpty && rig.begins.count == 1)
        rig.grant(2)
        #expect(rig.end(isDone: true) != nil)
        #expect(rig.add(3, 0, 16, epoch: Epoch(3)))
        rig.pack()
        #expect(rig.puts.isEmpty && rig.begins.count == 1)
        // The owner is lost: a late answer counts for nothing, and what waits goes back.
        rig.packer.ownerLost()
        rig.grant(2)
        #expect(rig.back == [3] && rig.puts.isEmpty)
    }

    @Test("What waits for long behind slow puts goes back")
    func slow() {
        let rig = Rig()
        for item in 1...2 {
            #expect(rig.add(item, UInt64(item) * 100, 16))
            rig.pack()
            if item == 1 { rig.grant(2) }
        }
        #expect(rig.puts.count == 1 && rig.packer.waitingCount == 1)
        rig.now = rig.now.advanced(byNanoseconds: DirectPackerLimits.waitingMaximum - 1)
        #expect(rig.add(4, 500, 16))
        rig.packer.tick(now: rig.now)
        rig.run()
        #expect(rig.back.isEmpty)
        rig.now = rig.now.advanced(byNanoseconds: 1)
        rig.packer.tick(now: rig.now)
        rig.run()
        #expect(rig.back == [2] && rig.packer.waitingCount == 1)
        // A put that ends twice ends once.
        let number = rig.puts[0].number
        #expect(Self.items(rig.end(isDone: true)) == [1])
        #expect(rig.packer.putSucceeded(number, now: rig.now) == nil)
    }

    @Test("The bounds agree with one another")
    func limits() {
        #expect(DirectPackerLimits.grantLife < OwnerLimits.directGrantLife)
        #expect(DirectPackerLimits.waitingBytesMaximum >= UInt64(Limits.objectTargetBytes))
        #expect(DirectPackerLimits.grantsAtOnce <= OwnerLimits.directGrantsAtOnce)
        #expect(OwnerLimits.directGrantsAtOnce <= OwnerLimits.directGrantsMaximum)
        #expect(OwnerLimits.objectReservation + OwnerLimits.directGrantLife <= 300_000_000_000)
        let waiting = DirectPackerLimits.waitingMaximum + 3_000 * Self.millisecond
        #expect(waiting < UInt64(Limits.nexusTimeToLiveMilliseconds) * Self.millisecond)
    }
}
