import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import ObjectStore
import Ownership

// What is wrong with a history: one checker, which knows nothing of what was planted.
extension Cluster {
    /// All that is wrong with what initiators saw, with the map, and with what the tables hold now.
    func violations() -> [String] {
        var result = store.violations + alarms + problems
        checkMap("the end")
        // I8: the last read of all, from the tables and the disks alone.
        let last = ClusterOperation(
            isRead: true,
            firstSector: 0,
            count: sectors,
            values: (0..<sectors).map { sector in
                let offset = offset(ofSector: sector)
                // What lies behind the end is not yet zeros, and will be before anybody reads it.
                guard offset < store.description(of: Self.volume)?.zeroFromBytes ?? .max else { return 0 }
                return content(BlockID(offset / UInt64(blockBytes)), &result)?
                    .getInteger(at: Int(offset) % blockBytes) ?? 0
            },
            begun: now,
            latest: now,
            fate: .done
        )
        if counters["damaged read"] != nil { result.append("I11: a damaged block was returned") }
        if counters["slot of another block"] != nil { result.append("M11: a slot holds another block") }
        if counters["answered twice"] != nil { result.append("a request was answered twice") }
        var history = operations.filter { !$0.isReset } + [last] + copies(&result)
        result += ReservationChecker.violations(&history)
        history.removeAll { $0.reservation != nil || $0.isOfCopy && !$0.isRead }
        return result + LinearizabilityChecker.violations(history, sectors: sectors)
    }

    /// What a block holds, by the item or the file of its object; nil: zeros, or lost.
    private func content(_ block: BlockID, _ problems: inout [String]) -> ByteBuffer? {
        if let item = store.loadBytes(Self.volume, [block]).first { return item.bytes }
        guard let extent = store.extent(Self.volume, block) else { return nil }
        guard let node = node(extent.server), let files = node.files else { return nil }
        let found = try? files.get(extent.object, selection: .slots([extent.firstSlot]))
        node.disk.forgetCalls()
        guard let found, let stored = found.slots.first,
            let bytes = plain(
                (entry: found.header.slots[Int(extent.firstSlot.rawValue)], stored: stored),
                origin: extent.origin
            )
        else {
            problems.append("I8: block \(block) cannot be read from object \(extent.object)")
            return nil
        }
        return bytes
    }

    /// What the tables say of the places for copies, as reads of what was copied at the time when it was.
    private func copies(_ problems: inout [String]) -> [ClusterOperation] {
        var result: [ClusterOperation] = []
        for initiator in initiators {
            guard let index = initiator.copy, operations[index].fate == .done else { continue }
            var read = operations[index]
            read.isRead = true
            read.values = []
            let first = Self.placeOfCopies(initiator.index)
            for block in 0..<UInt64(read.count / sectorsInBlock) {
                let bytes = content(BlockID(first + block), &problems)
                read.values += (0..<sectorsInBlock).map {
                    bytes?.getInteger(at: $0 * Self.sectorBytes) ?? 0
                }
            }
            result.append(read)
        }
        return result
    }
}
