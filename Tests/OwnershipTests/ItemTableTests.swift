import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

struct ItemTableTests {
    private static let range = BlockRange(first: BlockID(3 * Limits.regionBlocks), count: Limits.regionBlocks)

    private static func item(_ version: UInt64, bytes: ByteBuffer? = nil) -> CachedItem {
        CachedItem(version: Version(version), checksum: Checksum(0), isMoved: false, isVisited: false, bytes: bytes)
    }

    @Test func itHoldsWhatADictionaryWould() {
        var generator = SeededGenerator(seed: 7)
        var table = ItemTable(of: Self.range)
        var model: [BlockID: Version] = [:]
        for step in 1...20_000 as ClosedRange<UInt64> {
            let block = Self.range.first + UInt64.random(in: 0..<Self.range.count, using: &generator)
            switch UInt64.random(in: 0..<3, using: &generator) {
            case 0:
                #expect(table.removeValue(forKey: block)?.version == model.removeValue(forKey: block))
            case 1:
                table[block]?.version = Version(step)
                if model[block] != nil { model[block] = Version(step) }
            default:
                table[block] = Self.item(step)
                model[block] = Version(step)
            }
            #expect(table[block]?.version == model[block])
            #expect(table.count == model.count)
        }
        #expect(Dictionary(uniqueKeysWithValues: table.map { ($0.key, $0.value.version) }) == model)
        #expect(Set(table.keys) == Set(model.keys))
    }

    @Test func itHasEachBlockOfItsRegionAndNoOther() {
        var table = ItemTable(of: Self.range)
        for offset in 0..<Self.range.count { table[Self.range.first + offset] = Self.item(offset) }
        #expect(table.count == Int(Limits.regionBlocks))
        #expect(table[BlockID(Self.range.first.rawValue - 1)] == nil)
        #expect(table[Self.range.end] == nil)
        for offset in 0..<Self.range.count { table[Self.range.first + offset] = nil }
        #expect(table.isEmpty)
    }

    @Test func onlyBytesInMemoryAreMarkedAsUsed() {
        var table = ItemTable(of: Self.range)
        let (first, second) = (Self.range.first, Self.range.first + 1)
        table[first] = Self.item(1)
        table[second] = Self.item(2, bytes: ByteBuffer(string: "x"))
        guard case .notInMemory? = table.use(first), case .bytes? = table.use(second) else {
            Issue.record("an item without bytes is there, but not in memory")
            return
        }
        #expect(table[first]?.isVisited == false)
        #expect(table[second]?.isVisited == true)
        if table.use(second + 1) != nil { Issue.record("there is no third item") }
    }
}
