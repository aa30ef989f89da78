import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

/// The policy of ``SlotCache`` with nothing clever: arrays, searched from the front.
private struct NaiveSlotCache {
    struct Key: Hashable {
        var object: UInt64
        var slot: UInt32
    }

    struct Entry {
        var key: Key
        var cost: Int
        var value: UInt64
        var uses = 0
        var isAhead: Bool
    }

    let capacity: Int
    /// Oldest first.
    var small: [Entry] = []
    var main: [Entry] = []
    var ghosts: [Key] = []
    var bytes: Int { (small + main).reduce(0) { $0 + $1.cost } }

    private static func use(_ entries: inout [Entry], _ key: Key) -> UInt64? {
        guard let place = entries.firstIndex(where: { $0.key == key }) else { return nil }
        if entries[place].isAhead {
            entries[place].isAhead = false
        } else {
            entries[place].uses = min(entries[place].uses + 1, Int(SlotCacheLimits.usesMaximum))
        }
        return entries[place].value
    }

    mutating func find(_ key: Key) -> UInt64? { Self.use(&small, key) ?? Self.use(&main, key) }

    mutating func remove(_ key: Key) {
        small.removeAll { $0.key == key }
        main.removeAll { $0.key == key }
        ghosts.removeAll { $0 == key }
    }

    mutating func insert(_ key: Key, _ cost: Int, _ value: UInt64, isAhead: Bool) {
        guard cost <= capacity, !(small + main).contains(where: { $0.key == key }) else { return }
        let wasGhost = ghosts.contains(key)
        ghosts.removeAll { $0 == key }
        while bytes + cost > capacity {
            let smallBytes = small.reduce(0) { $0 + $1.cost }
            if main.isEmpty || smallBytes > capacity / SlotCacheLimits.smallDivisor {
                evictSmall()
            } else {
                evictMain()
            }
        }
        let entry = Entry(key: key, cost: cost, value: value, isAhead: isAhead)
        if wasGhost, !isAhead { main.append(entry) } else { small.append(entry) }
    }

    private mutating func evictSmall() {
        while !small.isEmpty {
            var entry = small.removeFirst()
            if entry.uses >= Int(SlotCacheLimits.usesToStay) {
                entry.uses = 0
                main.append(entry)
            } else {
                ghosts.append(entry.key)
                while ghosts.count > max(small.count + main.count, 1) { ghosts.removeFirst() }
                return
            }
        }
    }

    private mutating func evictMain() {
        while !main.isEmpty {
            var entry = main.removeFirst()
            guard entry.uses > 0 else { return }
            entry.uses -= 1
            main.append(entry)
        }
    }
}

struct SlotCacheTests {
    private static let size = 512

    private static func block(_ value: UInt64, bytes: Int = size) -> SlotCache.Block {
        SlotCache.Block(
            block: BlockID(value),
            checksum: Checksum(UInt32(truncatingIfNeeded: value)),
            bytes: ByteBuffer(repeating: UInt8(truncatingIfNeeded: value), count: bytes)
        )
    }

    /// A cache with room for so many blocks of the same size.
    private static func cache(blocks: Int) -> SlotCache {
        SlotCache(capacityBytes: blocks * (size + SlotCacheLimits.overheadBytes))
    }

    private static func insert(_ value: UInt64, into cache: inout SlotCache, isAhead: Bool = false) {
        cache.insert(block(value), at: ObjectID(value / 16), SlotIndex(UInt32(value % 16)), isAhead: isAhead)
    }

    private static func find(_ value: UInt64, in cache: inout SlotCache) -> SlotCache.Block? {
        cache.find(ObjectID(value / 16), SlotIndex(UInt32(value % 16)))
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func itDoesWhatANaiveOneDoes(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var cache = SlotCache(capacityBytes: 60 * 1_024)
        var model = NaiveSlotCache(capacity: 60 * 1_024)
        for step in 0..<20_000 as Range<UInt64> {
            // Some keys are asked for far more often than others.
            let spread = Bool.random(using: &generator) ? 24 : 300
            let key = NaiveSlotCache.Key(
                object: UInt64.random(in: 0..<UInt64(spread), using: &generator),
                slot: UInt32.random(in: 0..<2, using: &generator)
            )
            let (object, slot) = (ObjectID(key.object), SlotIndex(key.slot))
            switch UInt64.random(in: 0..<16, using: &generator) {
            case 0:
                cache.remove(object, slot)
                model.remove(key)
            case 1..<9:
                let found = cache.find(object, slot)
                #expect(found?.block.rawValue == model.find(key), "step \(step)")
                if let found {
                    #expect(found.bytes.readableBytesView.allSatisfy { $0 == UInt8(found.block.rawValue % 256) })
                }
            default:
                let bytes = 512 << Int.random(in: 0..<4, using: &generator)
                let isAhead = Int.random(in: 0..<4, using: &generator) == 0
                let block = Self.block(step, bytes: bytes)
                cache.insert(block, at: object, slot, isAhead: isAhead)
                model.insert(key, SlotCache.cost(block.bytes), step, isAhead: isAhead)
            }
            #expect(cache.bytes == model.bytes && cache.bytes <= cache.capacityBytes, "step \(step)")
            #expect(cache.count == model.small.count + model.main.count, "step \(step)")
            #expect(cache.ghostCount == model.ghosts.count, "step \(step)")
        }
        for entry in model.small + model.main {
            #expect(cache.contains(ObjectID(entry.key.object), SlotIndex(entry.key.slot)))
        }
    }

    @Test func aPassOverMuchMoreThanFitsLeavesWhatIsInUse() {
        var cache = Self.cache(blocks: 200)
        let hot = 0..<100 as Range<UInt64>
        for value in hot { Self.insert(value, into: &cache) }
        for _ in 0..<2 { for value in hot { #expect(Self.find(value, in: &cache) != nil) } }
        for value in 1_000..<21_000 as Range<UInt64> { Self.insert(value, into: &cache) }
        for value in hot { #expect(Self.find(value, in: &cache)?.block == BlockID(value)) }
    }

    @Test func whatIsReadAheadAndThenReadOnceIsNotInUse() {
        var cache = Self.cache(blocks: 200)
        let hot = 0..<100 as Range<UInt64>
        for value in hot { Self.insert(value, into: &cache) }
        for _ in 0..<2 { for value in hot { #expect(Self.find(value, in: &cache) != nil) } }
        for value in 1_000..<21_000 as Range<UInt64> {
            Self.insert(value, into: &cache, isAhead: true)
            // Twice, as where a stream reads half blocks.
            for _ in 0..<2 { #expect(Self.find(value, in: &cache) != nil) }
        }
        for value in hot { #expect(Self.find(value, in: &cache) != nil) }
    }

    @Test func whatComesBackSoonAfterItHasLeftStays() {
        var cache = Self.cache(blocks: 100)
        for value in 0..<150 as Range<UInt64> { Self.insert(value, into: &cache) }
        #expect(Self.find(49, in: &cache) == nil)
        Self.insert(49, into: &cache)
        for value in 1_000..<1_500 as Range<UInt64> { Self.insert(value, into: &cache) }
        #expect(Self.find(49, in: &cache) != nil)
    }

    @Test func itsBoundHoldsWhatKeepingBlocksTakes_I10() {
        var cache = Self.cache(blocks: 50)
        for value in 0..<5_000 as Range<UInt64> {
            Self.insert(value, into: &cache)
            #expect(cache.bytes <= cache.capacityBytes && cache.ghostCount <= max(1, cache.count))
        }
        #expect(cache.count == 50)
        // What is larger than all of it is not taken in, and drives nothing out.
        cache.insert(Self.block(9, bytes: 1 << 16), at: ObjectID(9_999), SlotIndex(0))
        #expect(cache.count == 50 && !cache.contains(ObjectID(9_999), SlotIndex(0)))
        var none = SlotCache(capacityBytes: 0)
        Self.insert(1, into: &none)
        #expect(none.count == 0 && none.bytes == 0 && Self.find(1, in: &none) == nil)
    }

    @Test func aSliceDoesNotKeepItsBufferAlive_I10() throws {
        var answer = ByteBuffer(repeating: 7, count: 1 << 20)
        let piece = answer.readSlice(length: Self.size)
        let slice = try #require(piece)
        var cache = Self.cache(blocks: 4)
        let block = SlotCache.Block(block: BlockID(1), checksum: Checksum(1), bytes: slice)
        cache.insert(block, at: ObjectID(1), SlotIndex(1))
        let kept = cache.find(ObjectID(1), SlotIndex(1))
        let found = try #require(kept)
        #expect(found.bytes == slice && found.bytes.storageCapacity == Self.size)
        #expect(cache.bytes == Self.size + SlotCacheLimits.overheadBytes)
    }

    @Test func whatIsThereStaysAsItIs() {
        var cache = Self.cache(blocks: 4)
        Self.insert(1, into: &cache)
        cache.insert(Self.block(2), at: ObjectID(0), SlotIndex(1))
        #expect(Self.find(1, in: &cache)?.block == BlockID(1))
        cache.remove(ObjectID(0), SlotIndex(1))
        #expect(Self.find(1, in: &cache) == nil && cache.count == 0 && cache.bytes == 0)
    }
}

struct SlotRequestTests {
    private static func piece(_ object: UInt64, _ slot: UInt32, _ run: Int = 0, _ place: Int = 0) -> SlotPiece {
        SlotPiece(object: ObjectID(object), server: ObjectServerID(1), slot: SlotIndex(slot), run: run, place: place)
    }

    private static func spans(_ pieces: [SlotPiece]) -> [[UInt64]] {
        SlotRequest.joined(pieces).map { [$0.object.rawValue, UInt64($0.firstSlot.rawValue), UInt64($0.count)] }
    }

    @Test func neighboursAreAskedForAtOnceAndNothingThatNobodyWants() {
        #expect(Self.spans([]) == [])
        #expect(Self.spans((4..<9).map { Self.piece(1, $0) }) == [[1, 4, 5]])
        // A slot between them that is not wanted may be damaged.
        #expect(Self.spans([Self.piece(1, 4), Self.piece(1, 6)]) == [[1, 4, 1], [1, 6, 1]])
        // Runs of several objects that take turns, as where blocks between them were overwritten.
        let turns = [(1, 4), (2, 0), (1, 5), (2, 1), (1, 6)].map { Self.piece(UInt64($0.0), UInt32($0.1)) }
        #expect(Self.spans(turns) == [[1, 4, 3], [2, 0, 2]])
    }

    @Test func aSlotThatIsWantedTwiceIsFetchedOnce_M11() {
        let requests = SlotRequest.joined([
            Self.piece(1, 4, 0, 0), Self.piece(1, 5, 0, 1), Self.piece(1, 5, 1, 0), Self.piece(1, 4, 1, 1),
        ])
        #expect(requests.count == 1 && requests[0].count == 2)
        #expect(requests[0].pieces.map(\.slot.rawValue) == [4, 4, 5, 5])
        #expect(Set(requests[0].pieces.map { [$0.run, $0.place] }) == [[0, 0], [1, 1], [0, 1], [1, 0]])
    }

    @Test func whateverIsWantedIsAskedForOnce() {
        var generator = SeededGenerator(seed: 11)
        for _ in 0..<500 {
            let pieces = (0..<Int.random(in: 0..<40, using: &generator)).map { place in
                Self.piece(
                    UInt64.random(in: 0..<3, using: &generator),
                    UInt32.random(in: 0..<12, using: &generator),
                    0,
                    place
                )
            }
            let requests = SlotRequest.joined(pieces)
            let asked = requests.flatMap { request in
                (0..<request.count).map { [request.object.rawValue, UInt64(request.firstSlot.rawValue + $0)] }
            }
            #expect(asked.count == Set(asked).count)
            #expect(Set(asked) == Set(pieces.map { [$0.object.rawValue, UInt64($0.slot.rawValue)] }))
            #expect(requests.reduce(0) { $0 + $1.pieces.count } == pieces.count)
            for request in requests {
                #expect(request.pieces.map(\.slot) == request.pieces.map(\.slot).sorted())
                #expect(Set(request.pieces.map(\.slot)).count == Int(request.count))
            }
        }
    }
}
