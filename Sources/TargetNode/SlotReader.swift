import AshlarCore
import BlockObjects
import Logging
import NIOCore
import Observability
import Ownership
import RPC

/// What a target keeps of the objects that the sessions of a loop have read, and what it reads ahead: one for all of them.
///
/// Nothing here says what a volume holds: each read asks the owner, and looks here only for the slots that the owner's answer
/// names (I2). Everything that goes in was verified, and is verified again when it is used (I11). Not Sendable: everything
/// happens on that loop.
final class SlotReader {
    /// Slots on their way that nobody had asked for when they were sent for.
    final class Flight {
        let object: ObjectID
        let slots: Range<UInt32>
        /// Reads that have come to want some of them meanwhile; called once, whatever became of it.
        var waiters: [() -> Void] = []

        init(_ object: ObjectID, _ slots: Range<UInt32>) {
            self.object = object
            self.slots = slots
        }
    }

    private var cache: SlotCache
    private let inflater: BlockInflater
    private let logger: Logger
    private let metrics: ReadCacheMetrics
    private var flights: [ObjectID: [Flight]] = [:]
    /// What the gauge was last told.
    private var shownBytes = 0
    /// Bytes that reads have sent for.
    private var fetchedBytes = 0
    /// Bytes that are being read ahead.
    private var aheadBytes = 0
    /// Bytes that may be read ahead at once: what is read ahead must still be there when it is asked for.
    private let aheadMaximumBytes: Int

    init(capacityBytes: Int, inflater: BlockInflater, metrics: ReadCacheMetrics, logger: Logger) {
        cache = SlotCache(capacityBytes: capacityBytes)
        self.inflater = inflater
        self.metrics = metrics
        self.logger = logger
        aheadMaximumBytes = min(TargetLimits.aheadBytesMaximum, capacityBytes / TargetLimits.aheadCacheDivisor)
    }

    // MARK: The cache

    /// The block in a slot, if it is here and what the read expects there. Where it is not, the object server says what is wrong.
    func find(
        _ object: ObjectID,
        _ slot: SlotIndex,
        writtenAs block: BlockID,
        blockBytes: Int
    ) -> ByteBuffer? {
        guard let found = cache.find(object, slot), found.block == block, found.bytes.readableBytes == blockBytes else {
            return nil
        }
        guard found.bytes.withUnsafeReadableBytes({ Checksum(of: $0) }) == found.checksum else {
            logger.error("a block that was read before does not agree with its checksum (I11)")
            cache.remove(object, slot)
            return nil
        }
        return found.bytes
    }

    /// Counts blocks that a read has found here, and that it has not.
    func count(hits: Int, misses: Int) {
        if hits > 0 { metrics.hits.increment(by: UInt64(hits)) }
        if misses > 0 { metrics.misses.increment(by: UInt64(misses)) }
    }

    /// The plain, verified bytes of a slot of an answer.
    ///
    /// - Parameter payload: What is left of the answer's payload; the slot's bytes are taken from it.
    /// - Throws: ``BlockObjectError`` for bytes that are damaged, or too few.
    func plain(
        _ slot: GetSlots.Slot,
        from payload: inout ByteBuffer,
        at number: SlotIndex,
        blockSizeBytes: UInt32
    ) throws(BlockObjectError) -> ByteBuffer {
        guard let encoding = SlotEncoding(rawValue: slot.encoding),
            let bytes = payload.readSlice(length: Int(slot.storedBytes))
        else { throw BlockObjectError(.badSlot, "an answer does not hold the slot", slot: number) }
        let stored = StoredSlot(encoding: encoding, bytes: bytes, checksum: slot.checksum)
        return try stored.decoded(blockSizeBytes: blockSizeBytes, slot: number, using: inflater)
    }

    /// Keeps a verified block.
    func keep(_ slot: GetSlots.Slot, _ plain: ByteBuffer, at object: ObjectID, _ number: SlotIndex, isAhead: Bool) {
        let block = SlotCache.Block(block: slot.block, checksum: slot.checksum, bytes: plain)
        cache.insert(block, at: object, number, isAhead: isAhead)
        // All loops of a target add to one gauge.
        metrics.bytes.add(Int64(cache.bytes - shownBytes))
        shownBytes = cache.bytes
    }

    // MARK: Reading ahead

    /// A read has sent for bytes.
    func fetchBegan(_ bytes: Int) { fetchedBytes += bytes }

    /// They came, or did not.
    func fetchEnded(_ bytes: Int) { fetchedBytes -= bytes }

    /// Whether anything is being read ahead.
    var isReadingAhead: Bool { !flights.isEmpty }

    /// How far ahead of a stream may be read, in bytes; 0: nothing is.
    var windowBytes: Int { min(ReadAheadLimits.windowMaximumBytes, aheadMaximumBytes / 2) }

    /// Bytes that may be read ahead now. None where initiators have much on its way themselves: they need no help, and it would be
    /// in their way.
    var roomAhead: Int {
        fetchedBytes > TargetLimits.aheadBelowFetchedBytes ? 0 : max(0, aheadMaximumBytes - aheadBytes)
    }

    /// The flight that brings a slot.
    func flight(_ object: ObjectID, _ slot: SlotIndex) -> Flight? {
        flights[object]?.first { $0.slots.contains(slot.rawValue) }
    }

    /// Asks an object server for slots, and calls back once: with the answer and its payload, or nil for none.
    typealias Send = (GetSlots, @escaping ((slots: GetSlots.Answer, payload: ByteBuffer)?) -> Void) -> Void

    /// Reads slots ahead that are not here, nor on their way.
    func readAhead(_ run: FindSlots.Run, blockSizeBytes: UInt32, send: Send) {
        guard UInt64(run.firstSlot.rawValue) + UInt64(run.count) <= UInt64(Limits.objectSlotsMaximum) else { return }
        func isKnown(_ slot: UInt32) -> Bool {
            cache.contains(run.object, SlotIndex(slot)) || flight(run.object, SlotIndex(slot)) != nil
        }
        // In pieces, so that a read that wants the first of it does not wait for all.
        let most = max(1, UInt32(TargetLimits.aheadRequestBytes) / blockSizeBytes)
        let end = run.firstSlot.rawValue + run.count
        var slot = run.firstSlot.rawValue
        while slot < end {
            guard !isKnown(slot) else {
                slot += 1
                continue
            }
            let first = slot
            repeat { slot += 1 } while slot < end && slot - first < most && !isKnown(slot)
            let bytes = Int(slot - first) * Int(blockSizeBytes)
            guard aheadBytes + bytes <= aheadMaximumBytes else { return }
            begin(Flight(run.object, first..<slot), bytes, blockSizeBytes, send)
        }
    }

    private func begin(_ flight: Flight, _ bytes: Int, _ blockSizeBytes: UInt32, _ send: Send) {
        flights[flight.object, default: []].append(flight)
        aheadBytes += bytes
        metrics.aheadBlocks.increment(by: UInt64(flight.slots.count))
        let message = GetSlots(
            object: flight.object,
            firstSlot: SlotIndex(flight.slots.lowerBound),
            count: UInt32(flight.slots.count)
        )
        send(message) { [self] answer in
            aheadBytes -= bytes
            flights[flight.object]?.removeAll { $0 === flight }
            if flights[flight.object]?.isEmpty == true { flights[flight.object] = nil }
            // What fails here is left to the read that wants it: that tells what is wrong.
            if let answer { take(answer.slots, answer.payload, flight, blockSizeBytes) }
            let waiters = flight.waiters
            flight.waiters = []
            for waiter in waiters { waiter() }
        }
    }

    private func take(_ slots: GetSlots.Answer, _ payload: ByteBuffer, _ flight: Flight, _ blockSizeBytes: UInt32) {
        guard slots.slots.count == flight.slots.count, slots.blockSizeBytes == blockSizeBytes else { return }
        var rest = payload
        for (number, slot) in zip(flight.slots, slots.slots) {
            let number = SlotIndex(number)
            guard let plain = try? self.plain(slot, from: &rest, at: number, blockSizeBytes: blockSizeBytes) else {
                return
            }
            keep(slot, plain, at: flight.object, number, isAhead: true)
        }
    }
}

/// What a target counts of its reads from objects.
struct ReadCacheMetrics: Sendable {
    let hits: MetricCounter
    let misses: MetricCounter
    let bytes: MetricGauge
    let aheadBlocks: MetricCounter

    init(_ registry: MetricsRegistry) {
        hits = registry.counter(
            "ashlar_target_read_cache_hits_total",
            help: "Blocks in objects that were read from the target's memory."
        )
        misses = registry.counter(
            "ashlar_target_read_cache_misses_total",
            help: "Blocks in objects that were not in the target's memory."
        )
        bytes = registry.gauge("ashlar_target_read_cache_bytes", help: "Bytes of the target's read cache.")
        aheadBlocks = registry.counter(
            "ashlar_target_read_ahead_blocks_total",
            help: "Blocks in objects that were sent for before they were read."
        )
    }
}
