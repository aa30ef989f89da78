public import AshlarCore

/// Finds out which reads of a volume go on where others ended, and what is worth being read before it is asked for.
///
/// A value without I/O: `read` is told of each read whose blocks lie in objects and says what to read ahead, `looked` and `failed` of
/// what the owner's map had there. What is said is a hint: nothing depends on it.
///
/// A stream is *proved* by ``ReadAheadLimits/readsToProve`` reads in order. Its window doubles each time that something is read
/// ahead, and half of it has to be used before there is more. Where less than half of what lies ahead is in objects, the stream
/// rests for a while, each time twice as long. Streams that were not proved give way before others do: reads at random places
/// do not drive streams out.
public struct ReadAhead: Sendable {
    struct Stream: Sendable {
        /// Behind the last block that was read.
        var next: BlockID
        var readsInOrder = 1
        /// Behind the last block that was read ahead; never before `next`.
        var aheadEnd: BlockID
        /// Blocks to be ahead.
        var window: UInt64
        /// Nothing is read ahead before the stream has come so far.
        var restEnd = BlockID(0)
        /// How many blocks it rested the last time.
        var rest: UInt64 = 0
        var lastUse: UInt64

        var isProved: Bool { readsInOrder >= ReadAheadLimits.readsToProve }
    }

    private let windowMinimum: UInt64
    private let windowMaximum: UInt64
    private let restMinimum: UInt64
    private let restMaximum: UInt64
    private(set) var streams: [Stream] = []
    private var clock: UInt64 = 0

    /// - Parameters:
    ///   - blockSizeBytes: Bytes of the volume's data block.
    ///   - windowBytes: How far to be ahead at most, besides ``ReadAheadLimits/windowMaximumBytes``.
    public init(blockSizeBytes: UInt32, windowBytes: Int = ReadAheadLimits.windowMaximumBytes) {
        func blocks(_ bytes: Int) -> UInt64 { max(1, UInt64(max(0, bytes)) / UInt64(blockSizeBytes)) }
        windowMaximum = blocks(min(windowBytes, ReadAheadLimits.windowMaximumBytes))
        windowMinimum = min(blocks(ReadAheadLimits.windowMinimumBytes), windowMaximum)
        restMinimum = blocks(ReadAheadLimits.restMinimumBytes)
        restMaximum = blocks(ReadAheadLimits.restMaximumBytes)
    }

    /// A read whose blocks lie in objects, at least some of them.
    ///
    /// - Parameters:
    ///   - end: The end of the volume.
    ///   - room: Blocks that may be read ahead now.
    /// - Returns: What to read ahead; nil for nothing.
    public mutating func read(_ blocks: BlockRange, end: BlockID, room: UInt64) -> BlockRange? {
        clock += 1
        guard let place = streams.firstIndex(where: { Self.goesOn(blocks, $0) }) else {
            begin(blocks)
            return nil
        }
        streams[place].lastUse = clock
        // The same block again, a part of it at a time, is no step.
        guard blocks.end > streams[place].next else { return nil }
        streams[place].next = blocks.end
        streams[place].aheadEnd = max(streams[place].aheadEnd, blocks.end)
        if !streams[place].isProved { streams[place].readsInOrder += 1 }
        return ask(place, blocks.count, end, room)
    }

    /// The owner's map of what was said to be read ahead.
    ///
    /// - Parameters:
    ///   - known: Blocks from the beginning of `range` on of which the owner could say something.
    ///   - inObjects: Those of them that lie in objects.
    public mutating func looked(at range: BlockRange, known: UInt64, inObjects: UInt64) {
        guard let place = place(of: range) else { return }
        if known < range.count {
            // The owner knows more once the stream itself has come there.
            streams[place].aheadEnd = max(streams[place].next, range.first + known)
            streams[place].restEnd = range.first + (known + 1)
        }
        guard known > 0 else { return }
        if inObjects * 2 < known { rest(place, behind: range) } else { streams[place].rest = 0 }
    }

    /// Nothing could be learned of what was said to be read ahead.
    public mutating func failed(at range: BlockRange) {
        if let place = place(of: range) { rest(place, behind: range) }
    }

    /// The stream that something is read ahead for.
    private func place(of range: BlockRange) -> Int? { streams.firstIndex { $0.aheadEnd == range.end } }

    private mutating func rest(_ place: Int, behind range: BlockRange) {
        let rest = min(max(streams[place].rest * 2, restMinimum), restMaximum)
        streams[place].rest = rest
        streams[place].restEnd = range.end + rest
        streams[place].window = windowMinimum
    }

    /// Whether a read begins where a stream has ended, or with the stream's last block, of which it may be another part.
    private static func goesOn(_ blocks: BlockRange, _ stream: Stream) -> Bool {
        blocks.first == stream.next || (blocks.first + 1 == stream.next && blocks.end >= stream.next)
    }

    private mutating func begin(_ blocks: BlockRange) {
        let stream = Stream(next: blocks.end, aheadEnd: blocks.end, window: windowMinimum, lastUse: clock)
        guard streams.count >= ReadAheadLimits.streamsMaximum else { return streams.append(stream) }
        // Those that are proved keep up to half of the places.
        let sparesProved = streams.count { !$0.isProved } * 2 >= streams.count
        var oldest: Int?
        for place in streams.indices where !(sparesProved && streams[place].isProved) {
            if let known = oldest, streams[known].lastUse <= streams[place].lastUse { continue }
            oldest = place
        }
        if let oldest { streams[oldest] = stream }
    }

    private mutating func ask(_ place: Int, _ count: UInt64, _ end: BlockID, _ room: UInt64) -> BlockRange? {
        guard streams[place].isProved, streams[place].next >= streams[place].restEnd else { return nil }
        let first = streams[place].aheadEnd
        guard first < end else { return nil }
        // At least two reads ahead, however large they are.
        let window = min(max(streams[place].window, count * 2), windowMaximum)
        let ahead = first - streams[place].next
        guard ahead * 2 <= window else { return nil }
        let wanted = min(window - ahead, end - first)
        guard room >= wanted else { return nil }
        streams[place].aheadEnd = first + wanted
        streams[place].window = min(window * 2, windowMaximum)
        return BlockRange(first: first, count: wanted)
    }
}

/// Bounds of reading ahead.
public enum ReadAheadLimits {
    /// Streams of a volume that are told apart.
    public static let streamsMaximum = 16
    /// Reads in order that make a stream.
    public static let readsToProve = 3
    /// How far ahead of a stream is read at first.
    public static let windowMinimumBytes = 128 << 10
    /// How far ahead of a stream is read at most.
    public static let windowMaximumBytes = 4 << 20
    /// How far a stream goes before there is another try, where it does not lie in objects.
    public static let restMinimumBytes = 1 << 20
    /// How far it goes at most.
    public static let restMaximumBytes = 64 << 20
}
