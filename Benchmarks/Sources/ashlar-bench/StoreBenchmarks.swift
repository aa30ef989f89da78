import AshlarCore
import Ownership
import PostgresStore

let storeBenchmarks = [
    // The calls of a whole transaction: one operation is one block that it writes.
    Benchmark("store/commit-1", counted: 1_024) { bodyOfCommits(blocks: 1) },
    Benchmark("store/commit-16", step: 16, counted: 1_024) { bodyOfCommits(blocks: 16) },
    Benchmark("store/commit-64", step: 64, counted: 1_024) { bodyOfCommits(blocks: 64) },
    // One operation is one slot of an object of 1,024 that is mapped.
    Benchmark("store/map-1024", step: 1_024, counted: 8_192) {
        let commit = commitOfMap(slots: 1_024)
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations / 1_024 { sum &+= UInt64(CommitEncoding.parameterBytes(of: [commit])) }
            return sum
        }
    },
]

private func bodyOfCommits(blocks: Int) -> Benchmark.Body {
    var commit = VolumeCommit(volume: VolumeID(1), epoch: Epoch(1))
    for index in 0..<blocks {
        commit.writes.append(
            ItemWrite(
                block: BlockID(UInt64(index * 7)),
                version: Version(UInt64(index + 1)),
                checksum: blockChecksum,
                bytes: block
            )
        )
    }
    let done = (0..<blocks).map { CommandID(UInt64($0 + 100)) }
    commit.marks = [NexusMark(nexus: NexusNumber(1), lowWater: CommandID(100), done: done)]
    let commits = [commit]
    return { operations in
        var sum: UInt64 = 0
        for _ in 0..<operations / blocks { sum &+= UInt64(CommitEncoding.parameterBytes(of: commits)) }
        return sum
    }
}

private func commitOfMap(slots: Int) -> VolumeCommit {
    var commit = VolumeCommit(volume: VolumeID(1), epoch: Epoch(1))
    commit.maps = [
        ObjectMap(
            object: ObjectID(1),
            server: ObjectServerID(1),
            sizeBytes: UInt64(slots * blockBytes),
            slots: (0..<slots).map {
                ObjectMap.Slot(
                    block: BlockID(UInt64($0)),
                    version: Version(UInt64($0 + 1)),
                    condition: .itemHasVersion
                )
            }
        )
    ]
    return commit
}
