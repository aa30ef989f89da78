import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

struct ItemTableTests {
    private static let range = BlockRange(first: BlockID(3 * Limits.regionBlocks), count: Limits.regionBlocks)

    private static func item(_ version: UInt64, place: BlockSlab.Place = BlockSlab.nowhere) -> CachedItem {
        CachedItem(
            version: Version(version),
            checksum: Checksum(UInt32(truncatingIfNeeded: version)),
            isMoved: version % 2 == 0,
            isVisited: false,
            place: place
        )
    }

    /// Few items, some, and all: where an item is looked for depends on how many there are.
    @Test(arguments: [1, 8, 200, 1_000] as [UInt64]) func itHoldsWhatADictionaryWould(density: UInt64) {
        var generator = SeededGenerator(seed: density)
        var table = ItemTable(of: Self.range)
        var model: [BlockID: CachedItem] = [:]
        for step in 1...20_000 as ClosedRange<UInt64> {
            let block = Self.range.first + UInt64.random(in: 0..<Self.range.count, using: &generator)
            switch UInt64.random(in: 0..<1_000, using: &generator) {
            case 0:
                let run = BlockRange(
                    first: BlockID(block.rawValue - 100),
                    count: UInt64.random(in: 0..<300, using: &generator)
                )
                let inside = model.filter { run.contains($0.key) }
                #expect(table.count(in: run) { $0.rawValue % 2 == 0 } == inside.count { $0.key.rawValue % 2 == 0 })
                var removed: [CachedItem] = []
                table.removeAll(in: run) { removed.append($0) }
                #expect(removed == inside.sorted { $0.key < $1.key }.map(\.value))
                model = model.filter { !run.contains($0.key) }
            case 1..<200:
                table[block]?.version = Version(step)
                model[block]?.version = Version(step)
            case 200..<200 + density * 800 / 1_000 where UInt64(model.count) < density:
                table[block] = Self.item(step)
                model[block] = Self.item(step)
            default:
                #expect(table.removeValue(forKey: block) == model.removeValue(forKey: block))
                if UInt64(model.count) < density {
                    table[block] = Self.item(step)
                    model[block] = Self.item(step)
                }
            }
            #expect(table[block] == model[block] && table.count == model.count)
        }
        #expect(table.map { $0.key } == model.keys.sorted())
        #expect(Dictionary(uniqueKeysWithValues: table.map { ($0.key, $0.value) }) == model)
        for offset in 0..<Self.range.count {
            #expect(table[Self.range.first + offset] == model[Self.range.first + offset])
        }
    }

    @Test func itHasEachBlockOfItsRegionAndNoOther() {
        var table = ItemTable(of: Self.range)
        for offset in (0..<Self.range.count).reversed() { table[Self.range.first + offset] = Self.item(offset) }
        #expect(table.count == Int(Limits.regionBlocks))
        #expect(table[BlockID(Self.range.first.rawValue - 1)] == nil)
        #expect(table[Self.range.end] == nil)
        for offset in 0..<Self.range.count { table[Self.range.first + offset] = nil }
        #expect(table.isEmpty && table.allocatedBytes == 0)
    }

    @Test func onlyBytesInMemoryAreMarkedAsUsed() {
        var table = ItemTable(of: Self.range)
        let (first, second) = (Self.range.first, Self.range.first + 1)
        table[first] = Self.item(1)
        table[second] = Self.item(2, place: 7)
        #expect(table.use(first)?.place == BlockSlab.nowhere && table.use(second)?.place == 7)
        #expect(table[first]?.isVisited == false)
        #expect(table[second]?.isVisited == true)
        #expect(table.use(second + 1) == nil)
    }

    @Test func bytesThatWereUsedGetASecondChance() {
        var table = ItemTable(of: Self.range)
        for offset in 0..<10 as Range<UInt64> {
            table[Self.range.first + offset] = Self.item(offset, place: UInt32(offset))
        }
        _ = table.use(Self.range.first + 4)
        var taken: [BlockSlab.Place] = []
        let hand = table.takeBytes(from: 3, atMost: 2) { taken.append($0) }
        #expect(taken == [3, 5] && hand == 6)
        #expect(table.takeBytes(from: 6, atMost: 100) { taken.append($0) } == nil)
        #expect(table.takeBytes(from: 0, atMost: 100) { taken.append($0) } == nil)
        #expect(taken == [3, 5, 6, 7, 8, 9, 0, 1, 2, 4])
        #expect(table.values.allSatisfy { !$0.isInMemory } && table.count == 10)
    }
}

struct BlockSlabTests {
    private static func block(_ number: UInt64, bytes: Int) -> ByteBuffer {
        var buffer = ByteBuffer()
        while buffer.readableBytes < bytes {
            buffer.writeInteger(number &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(buffer.readableBytes))
        }
        return buffer
    }

    @Test func itKeepsWhatADictionaryWould() {
        var generator = SeededGenerator(seed: 3)
        let slab = BlockSlab(blockBytes: 65_536)
        var model: [BlockSlab.Place: UInt64] = [:]
        for step in 1...2_000 as ClosedRange<UInt64> {
            // Waves, so that pieces come and go.
            let isFilling = step / 250 % 2 == 0
            if UInt64.random(in: 0..<10, using: &generator) < (isFilling ? 8 : 2) {
                let place = slab.store(Self.block(step, bytes: 65_536))
                #expect(model.updateValue(step, forKey: place) == nil)
            } else if let place = model.keys.min() {
                if step % 3 == 0 {
                    slab.replace(place, Self.block(step, bytes: 65_536))
                    model[place] = step
                } else {
                    slab.free(place)
                    model[place] = nil
                }
            }
            #expect(slab.count == model.count)
        }
        for (place, number) in model { #expect(slab.bytes(at: place) == Self.block(number, bytes: 65_536)) }
        for place in model.keys { slab.free(place) }
        #expect(slab.count == 0 && slab.allocatedBytes <= OwnerLimits.slabPieceBytes)
    }

    @Test(arguments: [512, 4_096, 65_536]) func memoryIsGivenBack(blockBytes: Int) {
        let slab = BlockSlab(blockBytes: blockBytes)
        let places = (0..<4 * OwnerLimits.slabPieceBytes / blockBytes).map {
            slab.store(Self.block(UInt64($0), bytes: blockBytes))
        }
        #expect(slab.allocatedBytes == 4 * OwnerLimits.slabPieceBytes)
        for place in places { slab.free(place) }
        #expect(slab.allocatedBytes == OwnerLimits.slabPieceBytes)
        #expect(slab.bytes(at: slab.store(Self.block(1, bytes: blockBytes))) == Self.block(1, bytes: blockBytes))
    }
}

/// What the index takes, so that its growth is noticed: less than 64 bytes for an item, and for an extent.
struct IndexMemoryTests {
    private static let regions = 64
    /// What an allocation costs the allocator at most, and the regions' places in tables and queues.
    private static let allocationBytes = 32

    private static func entered(_ perRegion: Int, _ enter: (BlockRange, UInt64) -> Int) -> Double {
        var generator = SeededGenerator(seed: UInt64(perRegion))
        var bytes = 0
        for index in 0..<UInt64(regions) {
            let range = MemoryImage.regionRange(index)
            bytes += enter(range, UInt64.random(in: 0...UInt64.max, using: &generator)) + allocationBytes
        }
        return Double(bytes) / Double(regions * perRegion)
    }

    @Test(arguments: [16, 100, 512, 1_024]) func anItemTakesLessThan64Bytes(perRegion: Int) {
        #expect(MemoryLayout<ItemTable.Entry>.stride == 24)
        let bytes = Self.entered(perRegion) { range, seed in
            var generator = SeededGenerator(seed: seed)
            var table = ItemTable(of: range)
            for offset in (0..<range.count).shuffled(using: &generator).prefix(perRegion) {
                table[range.first + offset] = CachedItem(
                    version: Version(offset),
                    checksum: Checksum(0),
                    isMoved: false,
                    isVisited: false
                )
            }
            return table.allocatedBytes
        }
        #expect(bytes < 64)
        if perRegion >= 100 { #expect(bytes <= Double(OwnerLimits.imageItemBytes)) }
    }

    @Test(arguments: [16, 100, 512]) func anExtentTakesLessThan64Bytes(perRegion: Int) {
        #expect(MemoryLayout<ExtentList.Entry>.stride == 32)
        let bytes = Self.entered(perRegion) { range, seed in
            var generator = SeededGenerator(seed: seed)
            var list = ExtentList()
            for offset in (0..<range.count / 2).shuffled(using: &generator).prefix(perRegion) {
                list.insert(
                    Extent(
                        blocks: BlockRange(first: range.first + 2 * offset, count: 1),
                        object: ObjectID(1),
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(0)
                    )
                )
            }
            return list.allocatedBytes
        }
        #expect(bytes < 64)
        if perRegion >= 100 { #expect(bytes <= Double(OwnerLimits.imageExtentBytes)) }
    }

    @Test func aBlockInMemoryTakesNothingBesideItsBytes() {
        let slab = BlockSlab(blockBytes: 4_096)
        var generator = SeededGenerator(seed: 1)
        var places = (0..<10_000).map { _ in slab.store(ByteBuffer(repeating: 1, count: 4_096)) }
        places.shuffle(using: &generator)
        for place in places.prefix(3_000) { slab.free(place) }
        for _ in 0..<3_000 { _ = slab.store(ByteBuffer(repeating: 2, count: 4_096)) }
        #expect(slab.allocatedBytes - 10_000 * 4_096 <= OwnerLimits.slabPieceBytes)
    }
}
