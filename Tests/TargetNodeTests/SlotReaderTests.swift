import AshlarCore
import BlockObjects
import Logging
import NIOCore
import Observability
import RPC
import Testing

@testable import TargetNode

@Suite("What a target keeps of objects, and reads ahead")
struct SlotReaderTests {
    private static let size: UInt32 = 4_096
    private static let object = ObjectID(9)

    /// Requests that a reader has sent, to be answered by the test.
    private final class Requests {
        var open: [(message: GetSlots, arrived: ((slots: GetSlots.Answer, payload: ByteBuffer)?) -> Void)] = []

        /// Answers the oldest one: each slot holds its own number, but those that are `damaged`.
        func answer(damaged: Set<UInt32> = []) {
            let (message, arrived) = open.removeFirst()
            var slots: [GetSlots.Slot] = []
            var payload = ByteBuffer()
            for number in message.firstSlot.rawValue..<message.firstSlot.rawValue + message.count {
                let bytes = SlotReaderTests.block(number)
                let checksum = bytes.withUnsafeReadableBytes { Checksum(of: $0) }
                slots.append(
                    GetSlots.Slot(
                        block: BlockID(UInt64(number) + 100),
                        version: Version(1),
                        checksum: damaged.contains(number) ? Checksum(1) : checksum,
                        encoding: SlotEncoding.plain.rawValue,
                        storedBytes: SlotReaderTests.size
                    )
                )
                payload.writeImmutableBuffer(bytes)
            }
            arrived((GetSlots.Answer(blockSizeBytes: SlotReaderTests.size, slots: slots), payload))
        }
    }

    private static func block(_ number: UInt32) -> ByteBuffer {
        ByteBuffer(repeating: UInt8(truncatingIfNeeded: number), count: Int(size))
    }

    private static func reader(capacityBytes: Int = 64 << 20) throws -> SlotReader {
        SlotReader(
            capacityBytes: capacityBytes,
            inflater: try BlockInflater(),
            metrics: ReadCacheMetrics(MetricsRegistry()),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
    }

    private static func readAhead(_ first: UInt32, _ count: UInt32, _ reader: SlotReader, _ requests: Requests) {
        let run = FindSlots.Run(
            object: object,
            server: ObjectServerID(1),
            firstSlot: SlotIndex(first),
            origin: BlockID(UInt64(first) + 100),
            count: count
        )
        reader.readAhead(run, blockSizeBytes: size) { requests.open.append(($0, $1)) }
    }

    private static func find(_ slot: UInt32, _ reader: SlotReader, as block: UInt64? = nil) -> ByteBuffer? {
        let block = BlockID(block ?? UInt64(slot) + 100)
        return reader.find(object, SlotIndex(slot), writtenAs: block, blockBytes: Int(size))
    }

    @Test func whatIsHereOrOnItsWayIsNotSentForAgain() throws {
        let (reader, requests) = (try Self.reader(), Requests())
        Self.readAhead(10, 100, reader, requests)
        #expect(requests.open.map(\.message.firstSlot.rawValue) == [10, 74])
        #expect(requests.open.map(\.message.count) == [64, 36], "in pieces of \(TargetLimits.aheadRequestBytes) bytes")
        #expect(reader.isReadingAhead && reader.flight(Self.object, SlotIndex(73)) != nil)
        #expect(reader.flight(Self.object, SlotIndex(110)) == nil && Self.find(10, reader) == nil)
        requests.answer()
        Self.readAhead(0, 120, reader, requests)
        #expect(requests.open.map(\.message.firstSlot.rawValue) == [74, 0, 110])
        for _ in 0..<3 { requests.answer() }
        #expect(!reader.isReadingAhead && (0..<120).allSatisfy { Self.find($0, reader) == Self.block($0) })
    }

    @Test func whoeverWaitsIsToldWhateverBecomesOfIt_I7() throws {
        let (reader, requests) = (try Self.reader(), Requests())
        Self.readAhead(0, 8, reader, requests)
        var told = 0
        reader.flight(Self.object, SlotIndex(3))?.waiters.append { told += 1 }
        requests.open.removeFirst().arrived(nil)
        #expect(told == 1 && !reader.isReadingAhead && Self.find(3, reader) == nil)
        // Nothing keeps it from being read ahead again.
        Self.readAhead(0, 8, reader, requests)
        reader.flight(Self.object, SlotIndex(3))?.waiters.append { told += 1 }
        requests.answer()
        #expect(told == 2 && Self.find(3, reader) == Self.block(3))
    }

    @Test func aDamagedBlockIsNotKept_I11() throws {
        let (reader, requests) = (try Self.reader(), Requests())
        Self.readAhead(0, 8, reader, requests)
        requests.answer(damaged: [5])
        #expect(Self.find(4, reader) != nil && Self.find(5, reader) == nil)
        // Nor is a slot used for another block than it was written as, or of another size.
        #expect(Self.find(4, reader, as: 77) == nil)
        #expect(reader.find(Self.object, SlotIndex(4), writtenAs: BlockID(104), blockBytes: 512) == nil)
    }

    @Test func itIsBoundedAndGivesWayToReads_I10() throws {
        let (reader, requests) = (try Self.reader(), Requests())
        let most = (64 << 20) / TargetLimits.aheadCacheDivisor
        for first in stride(from: 0 as UInt32, to: 4_096, by: 1_024) { Self.readAhead(first, 1_024, reader, requests) }
        let sent = requests.open.reduce(0) { $0 + Int($1.message.count) } * Int(Self.size)
        #expect(sent <= most && sent > most - TargetLimits.aheadRequestBytes && reader.roomAhead == most - sent)
        while !requests.open.isEmpty { requests.answer() }
        #expect(reader.roomAhead == most)
        reader.fetchBegan(TargetLimits.aheadBelowFetchedBytes + 1)
        #expect(reader.roomAhead == 0)
        reader.fetchEnded(TargetLimits.aheadBelowFetchedBytes + 1)
        #expect(reader.roomAhead == most)
        // What no object can have is not sent for, and without a cache nothing is.
        Self.readAhead(4_000, 97, reader, requests)
        let none = try Self.reader(capacityBytes: 0)
        #expect(none.windowBytes == 0 && none.roomAhead == 0)
        Self.readAhead(0, 8, none, requests)
        #expect(requests.open.isEmpty)
    }
}
