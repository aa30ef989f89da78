import NIOCore
package import Ownership

/// What a commit becomes on its way to PostgreSQL, for the benchmarks.
package enum CommitEncoding {
    /// Bytes of the parameters of all statements of a transaction with `commits`, which are made here.
    package static func parameterBytes(of commits: [VolumeCommit]) -> Int {
        CommitPlan(commits).calls(lane: 0, JournalPlace(segment: 0, firstFrame: 0)).reduce(0) {
            $0 + $1.storage.readableBytes
        }
    }
}
