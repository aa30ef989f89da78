import AshlarCore
import AshlarTestSupport
import Ownership

// Copies: each initiator copies to a place of its own, which nobody else writes. What it reads there is what the source was when
// the copy was made, so that the checker takes it for a read of the source at that time.
extension Cluster {
    /// Copies some blocks to the initiator's own place, or reads what was copied there; `false` where neither can be done now.
    func issueCopy(_ session: ClusterSession) -> Bool {
        let initiator = session.initiator
        let last = initiator.copy.map { operations[$0] }
        let place = Self.placeOfCopies(initiator.index) * UInt64(blockBytes)
        if let last, last.fate == .done, generator.chance(60) {
            initiator.readsOfCopy += 1
            let count = UInt64(last.count * Self.sectorBytes)
            var read = last
            read.isRead = true
            read.fate = .open
            submit(read, .read(ByteRange(offset: place, count: count)), session)
            return true
        }
        // One whose outcome is not known may still come.
        guard initiator.readsOfCopy == 0, last.map({ $0.fate != .open || $0.latest < now }) ?? true else {
            return false
        }
        let first = generator.below(Self.blocksInWindow)
        let count = 1 + generator.below(Self.blocksInWindow - first)
        let operation = ClusterOperation(
            isRead: false,
            firstSector: generator.below(Self.windows) * sectorsInWindow + first * sectorsInBlock,
            count: count * sectorsInBlock,
            values: [],
            begun: now,
            isOfCopy: true
        )
        initiator.copy = operations.count
        submit(
            operation,
            .copy(
                source: offset(ofSector: operation.firstSector),
                destination: place,
                count: UInt64(count * blockBytes)
            ),
            session
        )
        return true
    }
}
