import Failpoints
public import Ownership

/// What a step of cleaning the journal has done.
public struct JournalCleaning: Sendable, Hashable {
    /// Whether nothing is left to do until another segment is full; or another server cleans.
    public var isDone: Bool
    /// Blocks whose bytes were put elsewhere.
    public var relocatedBlocks: UInt64
    /// Segments that became free.
    public var emptiedSegments: UInt64
}

// The journal of cached bytes: each commit lane fills a segment of its own, and segments of which little is in use are emptied.
extension PostgresBlockStore {
    /// Makes a bounded step of cleaning the journal. Any number of servers may ask; one cleans at a time, whoever owns the blocks:
    /// where their bytes lie is no matter of epochs.
    public func cleanJournal(completion: @escaping @Sendable (Result<JournalCleaning, StoreFailure>) -> Void) {
        backgroundLane.submit(
            .single(
                isChange: true,
                {
                    Call(
                        Statements.cleanJournal,
                        JournalLayout.relocatedBlocksMaximum,
                        JournalLayout.emptyBelowPercent,
                        JournalLayout.segmentFrames,
                        Int64(JournalLayout.frameBytes)
                    )
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                guard result.count == 1 else {
                    throw StoreFailure.broken("the journal's cleaning does not say what it did")
                }
                let step = JournalCleaning(
                    isDone: try result.bool(0, 0),
                    relocatedBlocks: try result.unsigned(0, 1),
                    emptiedSegments: try result.unsigned(0, 2)
                )
                step.failpoint?.reach()
                return step
            }
        )
    }
}

extension JournalCleaning {
    /// What is durable with the step; nil where it found nothing to do.
    fileprivate var failpoint: Failpoint? {
        if emptiedSegments > 0 { return .cacheSegmentTruncated }
        if relocatedBlocks > 0 { return .cacheItemsRelocated }
        return isDone ? nil : .cacheSegmentSealed
    }
}
