import Failpoints
import Ownership

/// Where the bytes of a batch lie in the journal: in frames that follow one another.
struct JournalPlace: Sendable, Hashable {
    /// The segment.
    var segment: Int64
    /// The frame with the first byte.
    var firstFrame: Int64

    /// For what has no bytes.
    static let none = JournalPlace(segment: -1, firstFrame: 0)
}

/// How the journal is laid out; migration 0011 says the same.
package enum JournalLayout {
    /// Bytes of a frame, so that a row of it fills a page.
    static let frameBytes = 8_000
    /// Frames that may be put into a segment.
    package static let segmentFrames: Int64 = 32_768
    /// A segment is emptied when fewer than this many percent of its blocks are in use.
    static let emptyBelowPercent: Int64 = 25
    /// Blocks that a step of emptying a segment looks at.
    static let relocatedBlocksMaximum: Int64 = 4_096

    /// Frames that so many bytes take.
    static func frames(bytes: Int) -> Int64 { Int64((bytes + frameBytes - 1) / frameBytes) }
}

/// Hands out places in the segment of the journal that one lane fills.
///
/// The segment belongs to the session that a connection has in PostgreSQL: a later connection of the lane has to claim another. Used on
/// the lane's thread alone; the lane has one job in flight, so that a place which is handed out lies behind all that are.
final class JournalWriter: @unchecked Sendable {
    private struct Segment {
        var number: Int64
        var nextFrame: Int64
        var endFrame: Int64
        var connection: UInt64
    }

    private let segmentFrames: Int64
    private var segment: Segment?
    /// Whether the last attempt to claim a segment failed, and whoever wanted it has not been told.
    private var hasFailed = false

    /// A writer without a segment; each that it claims is to take so many frames.
    init(segmentFrames: Int64) { self.segmentFrames = segmentFrames }

    private func segment(with frames: Int64, on lane: LaneConnection) -> Segment? {
        segment.flatMap { $0.connection == lane.connection && $0.endFrame - $0.nextFrame >= frames ? $0 : nil }
    }

    /// What has to be done before so many frames can be taken: a segment is claimed, in place of the one that is full.
    func preparation(frames: Int64, _ lane: LaneConnection) -> Job? {
        guard segment(with: frames, on: lane) == nil, !hasFailed else { return nil }
        let old = segment.flatMap { $0.connection == lane.connection ? $0.number : nil } ?? -1
        let room = max(frames, segmentFrames)
        return Job(
            isChange: true,
            isCounted: false,
            calls: { _ in [Call(Statements.claimSegment, old, room)] },
            failpoints: JobFailpoints(done: .cacheSegmentClaimed),
            finish: { self.claimed($0, room, lane) }
        )
    }

    private func claimed(_ outcome: Result<[QueryResult], LaneFailure>, _ frames: Int64, _ lane: LaneConnection) {
        let claimed = Job.answer(outcome) { (results) throws(StoreFailure) -> Segment in
            guard let result = results.first, result.count == 1 else {
                throw StoreFailure.broken("no segment of the journal was claimed")
            }
            let first = try result.int(0, 1)
            return Segment(
                number: try result.int(0, 0),
                nextFrame: first,
                endFrame: first + frames,
                connection: lane.connection
            )
        }
        switch claimed {
        case .success(let claimed): segment = claimed
        case .failure:
            segment = nil
            hasFailed = true
        }
    }

    /// Takes frames, right before what fills them is sent.
    ///
    /// - Throws: ``StoreFailure/refused(_:)`` where the connection could not be given a segment.
    func take(frames: Int64, _ lane: LaneConnection) throws(StoreFailure) -> JournalPlace {
        guard let found = segment(with: frames, on: lane) else {
            hasFailed = false
            throw StoreFailure.refused("the connection was given no segment of the journal to fill")
        }
        segment?.nextFrame += frames
        return JournalPlace(segment: found.number, firstFrame: found.nextFrame)
    }
}
