import AshlarCore
import Testing

@testable import Ownership

@Suite("Where blocks last lay")
struct KnownPlacesTests {
    private static func run(_ block: UInt64, _ object: UInt64, _ slot: UInt32, _ count: UInt32) -> KnownPlaces.Run {
        KnownPlaces.Run(
            block: BlockID(block),
            object: ObjectID(object),
            server: ObjectServerID(1),
            firstSlot: SlotIndex(slot),
            origin: BlockID(block),
            count: count
        )
    }

    private static func blocks(_ first: UInt64, _ count: UInt64) -> BlockRange {
        BlockRange(first: BlockID(first), count: count)
    }

    @Test("What was remembered is found in runs as long as they come, and no more of it than was asked for")
    func runs() {
        var places = KnownPlaces()
        #expect(places.find(Self.blocks(0, 8)).isEmpty)
        places.remember(Self.run(0, 7, 16, 4))
        places.remember(Self.run(4, 7, 20, 2))
        places.remember(Self.run(8, 9, 0, 2))
        #expect(places.find(Self.blocks(0, 16)) == [Self.run(0, 7, 16, 6), Self.run(8, 9, 0, 2)])
        #expect(places.find(Self.blocks(2, 3)) == [Self.run(2, 7, 18, 3)])
        // A slot that was written as another block is another run.
        var copy = Self.run(10, 9, 2, 1)
        copy.origin = BlockID(100)
        places.remember(copy)
        #expect(places.find(Self.blocks(8, 4)) == [Self.run(8, 9, 0, 2), copy])
    }

    @Test("The newest place counts; what lies in the cache, or is zeros, is forgotten")
    func changes() {
        var places = KnownPlaces()
        places.forget(Self.blocks(0, 4))
        places.remember(Self.run(0, 7, 0, 4))
        places.remember(Self.run(1, 8, 5, 1))
        places.forget(Self.blocks(2, 1))
        #expect(places.find(Self.blocks(0, 4)) == [Self.run(0, 7, 0, 1), Self.run(1, 8, 5, 1), Self.run(3, 7, 3, 1)])
    }

    @Test("I10: what is remembered is bounded; a block far away takes the place of another, and is not taken for it")
    func bounds() {
        var places = KnownPlaces()
        let far = UInt64(KnownPlacesLimits.blocksMaximum)
        places.remember(Self.run(1, 7, 0, 2))
        places.remember(Self.run(far + 1, 8, 0, 1))
        #expect(places.find(Self.blocks(1, 2)) == [Self.run(2, 7, 1, 1)])
        #expect(places.find(Self.blocks(far + 1, 1)) == [Self.run(far + 1, 8, 0, 1)])
        places.forget(Self.blocks(1, 1))
        #expect(places.find(Self.blocks(far + 1, 1)).count == 1)
        places.forget(Self.blocks(0, .max))
        #expect(places.find(Self.blocks(2, 1)).isEmpty)
    }
}
