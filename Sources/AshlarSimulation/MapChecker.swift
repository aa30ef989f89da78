import AshlarCore
import AshlarTestSupport
import BlockObjects
import Ownership

/// Checks the map of one volume against what was committed, after every step (I5 to I8): it takes in only what commits write,
/// make zeros and copy, nothing of moves, evictions, fills and compactions, which must not change what a block holds.
struct MapChecker {
    /// The checksum of what was last written to a block; none: zeros.
    private var written: [BlockID: Checksum] = [:]
    /// The version of what was last written or copied to a block, also where it has become zeros since.
    private var newest: [BlockID: Version] = [:]
    /// The blocks that are looked at.
    let blocks: [BlockID]

    init(blocks: [BlockID]) { self.blocks = blocks }

    /// Takes in a commit that was made; of direct writes it is given what their slots hold.
    ///
    /// - Returns: where versions do not agree with the order (M4): rebuilding the map from objects would choose the older bytes.
    mutating func committed(
        _ commit: VolumeCommit,
        mapped: [[Bool]?],
        checksum: (ObjectMap, Int) -> Checksum?
    ) -> [String] {
        var problems: [String] = []
        func note(_ block: BlockID, _ version: Version) {
            if let old = newest[block], old >= version {
                problems.append("M4: version \(version) of block \(block) was committed after version \(old)")
            }
            newest[block] = max(version, newest[block] ?? version)
        }
        for range in commit.zeros { cut(range) }
        for reference in commit.references {
            for offset in 0..<reference.source.blocks.count {
                written[reference.destination + offset] = written[reference.source.blocks.first + offset]
            }
        }
        for reference in commit.references {
            for offset in 0..<reference.blocks.count { note(reference.destination + offset, reference.version) }
        }
        for write in commit.writes {
            written[write.block] = write.checksum
            note(write.block, write.version)
        }
        for (map, slots) in zip(commit.maps, mapped) {
            for (index, slot) in map.slots.enumerated() where slot.condition == .always && slots?[index] == true {
                written[slot.block] = checksum(map, index)
                note(slot.block, slot.version)
            }
        }
        return problems
    }

    /// Takes in that blocks became zeros.
    mutating func cut(_ range: BlockRange) {
        for block in blocks where range.contains(block) { written[block] = nil }
    }

    /// What is wrong with the map now.
    func violations(_ store: ModelStore, _ volume: VolumeID, _ nodes: [ObjectNode]) -> [String] {
        var result: [String] = []
        for block in blocks {
            let expected = written[block]
            let item = store.item(volume, block)
            let extent = store.extent(volume, block)
            if let item {
                if item.checksum != expected {
                    result.append("I8: the item of block \(block) is not what was last written")
                }
                // Eviction may drop it at any time.
                guard item.isMoved else { continue }
            }
            guard let extent else {
                if let expected {
                    let what = item == nil ? "nowhere" : "moved to nowhere"
                    result.append("I8: block \(block) with checksum \(expected) is \(what)")
                }
                continue
            }
            if let problem = Self.problem(extent, expected, store, nodes) {
                result.append("\(item == nil ? "I8" : "I5"): block \(block) \(problem)")
            }
        }
        return result
    }

    private static func problem(
        _ extent: Extent,
        _ expected: Checksum?,
        _ store: ModelStore,
        _ nodes: [ObjectNode]
    ) -> String? {
        guard store.objectState(extent.object) == .live else {
            return "is in object \(extent.object), which is not live"
        }
        guard let slots = nodes.first(where: { $0.number == extent.server })?.holdings[extent.object],
            slots.indices.contains(Int(extent.firstSlot.rawValue))
        else { return "is in object \(extent.object), which server \(extent.server) does not have" }
        let slot = slots[Int(extent.firstSlot.rawValue)]
        guard slot.block == extent.origin else { return "is in a slot of block \(slot.block)" }
        return slot.checksum == expected ? nil : "is in a slot that is not what was last written"
    }
}

extension Cluster {
    /// Looks at the whole map.
    func checkMap(_ step: String) {
        guard problems.count < 8 else { return }
        problems += map.violations(store, Self.volume, nodes).map { "\($0) (after \(step), at \(now))" }
    }

    /// Makes a transaction, unless it fails as a whole.
    func applied(_ commits: [VolumeCommit]) -> Result<[VolumeCommitResult], StoreFailure> {
        if let failure = store.failure(of: commits) {
            count("required map failed")
            return .failure(failure)
        }
        return .success(apply(commits))
    }

    /// Makes a transaction, and looks what it left.
    func apply(_ commits: [VolumeCommit], isUnguarded: Bool = false) -> [VolumeCommitResult] {
        let results = store.commit(commits, isUnguarded: isUnguarded)
        for (commit, result) in zip(commits, results) {
            guard case .committed(let detail) = result else {
                count("fenced")
                continue
            }
            problems += map.committed(commit, mapped: detail.mapped) { [nodes] map, index in
                let slots = nodes.first { $0.number == map.server }?.holdings[map.object]
                return slots.flatMap { $0.indices.contains(index) ? $0[index].checksum : nil }
            }
            for (request, mapped) in zip(commit.maps, detail.mapped) { countMap(request, mapped) }
            if detail.evicted.contains(true) { count("evicted") }
            if detail.filled.contains(true) { count("filled") }
        }
        checkMap("commit")
        return results
    }

    private func countMap(_ map: ObjectMap, _ mapped: [Bool]?) {
        guard let mapped else { return count("late map") }
        if mapped.contains(false) { count("map of a block written meanwhile") }
        guard mapped.contains(true) else { return }
        if map.isRequired { return count("mapped directly") }
        if case .extentNames? = map.slots.first?.condition { count("compacted") } else { count("moved") }
    }
}
