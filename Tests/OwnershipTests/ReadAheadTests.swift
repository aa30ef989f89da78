import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import Ownership

struct ReadAheadTests {
    private static let size: UInt32 = 4_096
    private static let end = BlockID(1 << 20)
    private static let room: UInt64 = 1 << 20

    private static func read(
        _ streams: inout ReadAhead,
        _ first: UInt64,
        _ count: UInt64,
        end: BlockID = end,
        room: UInt64 = room
    ) -> BlockRange? {
        streams.read(BlockRange(first: BlockID(first), count: count), end: end, room: room)
    }

    @Test func aStreamIsReadAheadFartherAndFarther() {
        var streams = ReadAhead(blockSizeBytes: Self.size)
        var asked: [BlockRange] = []
        for step in 0..<400 as Range<UInt64> {
            guard let range = Self.read(&streams, 1_000 + step * 4, 4) else { continue }
            if asked.isEmpty { #expect(step + 1 == UInt64(ReadAheadLimits.readsToProve)) }
            // Each goes on where the one before ended, and lies ahead of the stream.
            if let last = asked.last { #expect(range.first == last.end) }
            #expect(range.first.rawValue >= 1_000 + (step + 1) * 4)
            #expect(range.end.rawValue <= 1_000 + (step + 1) * 4 + UInt64(ReadAheadLimits.windowMaximumBytes) / 4_096)
            streams.looked(at: range, known: range.count, inObjects: range.count)
            asked.append(range)
        }
        #expect(asked.first?.count == UInt64(ReadAheadLimits.windowMinimumBytes) / 4_096)
        #expect(zip(asked, asked.dropFirst()).prefix(4).allSatisfy { $0.count < $1.count })
        #expect(asked.count < 12, "half of the window is used before there is more: \(asked)")
    }

    @Test func readsAtRandomPlacesAskForNothing() {
        var generator = SeededGenerator(seed: 5)
        var streams = ReadAhead(blockSizeBytes: Self.size)
        for _ in 0..<10_000 {
            let first = UInt64.random(in: 0..<(1 << 18), using: &generator) * 4
            #expect(Self.read(&streams, first, 1) == nil)
            #expect(streams.streams.count <= ReadAheadLimits.streamsMaximum)
        }
        // Nor does the same block again and again, nor one backwards.
        for _ in 0..<100 { #expect(Self.read(&streams, 77, 1) == nil) }
        for step in 0..<100 as Range<UInt64> { #expect(Self.read(&streams, 9_000 - step, 1) == nil) }
    }

    @Test func severalStreamsAreToldApartAndRandomReadsDoNotDriveThemOut() {
        var generator = SeededGenerator(seed: 6)
        var streams = ReadAhead(blockSizeBytes: Self.size)
        var asked: [UInt64: UInt64] = [:]
        for step in 0..<256 as Range<UInt64> {
            for stream in 0..<6 as Range<UInt64> {
                let base = stream * 100_000
                if let range = Self.read(&streams, base + step * 2, 2) {
                    #expect(range.first.rawValue >= base + step * 2 && range.end.rawValue < base + 100_000)
                    asked[stream, default: 0] += range.count
                }
            }
            // What is proved stays, however much else is read between its reads.
            for _ in 0..<(step < 3 ? 0 : 20) {
                _ = Self.read(&streams, 700_001 + UInt64.random(in: 0..<100_000, using: &generator) * 3, 1)
            }
        }
        #expect(asked.count == 6 && asked.values.allSatisfy { $0 >= 512 }, "\(asked)")
    }

    @Test func nothingIsAskedForBeyondTheEndOrWithoutRoom() {
        var streams = ReadAhead(blockSizeBytes: Self.size)
        for step in 0..<4 as Range<UInt64> { #expect(Self.read(&streams, step, 1, room: 8) == nil) }
        #expect(Self.read(&streams, 4, 1, end: BlockID(10)) == BlockRange(first: BlockID(5), count: 5))
        for step in 5..<10 as Range<UInt64> { #expect(Self.read(&streams, step, 1, end: BlockID(10)) == nil) }
        // The window is bounded by what the cache can hold, too.
        var narrow = ReadAhead(blockSizeBytes: Self.size, windowBytes: 16 << 10)
        for step in 0..<100 as Range<UInt64> {
            if let range = Self.read(&narrow, step, 1) { #expect(range.count <= 4) }
        }
    }

    @Test func aStreamThatDoesNotLieInObjectsRests() {
        var streams = ReadAhead(blockSizeBytes: Self.size)
        var asked: [UInt64] = []
        for step in 0..<40_000 as Range<UInt64> {
            guard let range = Self.read(&streams, step, 1) else { continue }
            asked.append(step)
            if asked.count % 2 == 0 {
                streams.failed(at: range)
            } else {
                streams.looked(at: range, known: range.count, inObjects: range.count / 2 - 1)
            }
        }
        let rest = UInt64(ReadAheadLimits.restMaximumBytes) / 4_096
        #expect(asked.count >= 6 && asked.count < 12, "\(asked)")
        #expect(zip(asked, asked.dropFirst()).allSatisfy { $1 - $0 > 256 && $1 - $0 < rest * 2 })
    }

    @Test func whatTheOwnerDoesNotKnowIsAskedForLater() {
        var streams = ReadAhead(blockSizeBytes: Self.size)
        for step in 0..<2 as Range<UInt64> { #expect(Self.read(&streams, step, 1) == nil) }
        let first = Self.read(&streams, 2, 1)
        #expect(first == BlockRange(first: BlockID(3), count: 32))
        streams.looked(at: BlockRange(first: BlockID(3), count: 32), known: 10, inObjects: 10)
        for step in 3..<13 as Range<UInt64> { #expect(Self.read(&streams, step, 1) == nil) }
        // The stream has come there: now the owner has looked.
        #expect(Self.read(&streams, 13, 1)?.first == BlockID(14))
    }
}

/// What the owner says of where blocks lie.
struct OwnerSlotsTests {
    private static func slots(
        _ bench: Bench,
        _ first: UInt64,
        _ count: UInt64
    ) throws -> (known: UInt64, extents: [Extent]) {
        let found = bench.core.slots(of: BlockRange(first: BlockID(first), count: count), in: Bench.volume)
        return try #require(found)
    }

    @Test func itTellsWhatLiesInObjectsAloneAndChangesNothing_I2() throws {
        var policy = CachePolicy.standard
        policy.cachedBytesMaximum = 0
        let bench = try Bench(policy: policy)
        let nexus = try #require(bench.login())
        let nothing = bench.core.slots(of: BlockRange(first: BlockID(0), count: 8), in: VolumeID(99)) == nil
        #expect(nothing)
        // Nothing is in memory, and nothing is brought there.
        var found = try Self.slots(bench, 0, 8)
        #expect(found.known == 0 && found.extents.isEmpty && bench.held.isEmpty)

        #expect(bench.isDone(bench.submit(nexus, bench.write(0, 8 * bench.block, 1))))
        found = try Self.slots(bench, 0, 16)
        #expect(found.known == 16 && found.extents.isEmpty, "unmoved blocks are no matter of objects")
        let work = try #require(bench.moveWork())
        bench.map(bench.put(work))
        bench.evict()
        found = try Self.slots(bench, 2, 16)
        #expect(found.known == 16 && found.extents.map(\.blocks) == [BlockRange(first: BlockID(2), count: 6)])
        #expect(found.extents.first?.firstSlot == SlotIndex(2))

        // A block that is written anew is none of theirs: the read asks the owner, and has its bytes.
        #expect(bench.isDone(bench.submit(nexus, bench.write(4 * bench.block, bench.block, 9))))
        found = try Self.slots(bench, 0, 8)
        #expect(
            found.extents.map(\.blocks) == [
                BlockRange(first: BlockID(0), count: 4), BlockRange(first: BlockID(5), count: 3),
            ]
        )
        #expect(bench.read(nexus, 4 * bench.block, bench.block) == [UInt8](repeating: 9, count: bench.block))

        // Beyond the volume nothing is known, and a region that is not in memory ends what is.
        let region = Limits.regionBlocks
        found = try Self.slots(bench, 0, region + 8)
        #expect(found.known == region)
        found = try Self.slots(bench, 1 << 40, 8)
        #expect(found.extents.isEmpty)
    }
}
