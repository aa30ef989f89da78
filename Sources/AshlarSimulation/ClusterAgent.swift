import AshlarCore
import AshlarTestSupport
import NIOCore
import Ownership

// Agents: move, evict, compact, collect; some die with what they hold, some are very late.
extension Cluster {
    func agent() {
        after(UInt64(30 + generator.below(150)) * 1_000_000 / UInt64(trouble)) { [self] in
            let index = anyServer(for: nil)
            switch generator.below(10) {
            case 0..<5: move(index)
            case 5, 6:
                request(index) {
                    $0.requestEviction($1, now: $2)
                } answer: { _ in
                    self.count("evict")
                }
            case 7, 8: compact(index)
            default:
                store.collect()
                count("collect")
            }
            agent()
        }
    }

    private func move(_ index: Int) {
        request(index) {
            $0.requestMoveWork($1, now: $2)
        } answer: { [self] answer in
            guard case .moveWork(let work?) = answer else { return }
            count("move")
            after(delay()) { [self] in
                let fate = isQuiet ? 2 : generator.below(20 / trouble)
                if fate == 0 { return store.sweep(work.object) }
                store.put(work.object, work.blocks.map { ($0.row.block, $0.bytes) })
                if fate == 1 {
                    // Given up and collected before its map is asked for.
                    store.sweep(work.object)
                    store.collect()
                }
                let slots = work.blocks.map {
                    ObjectMap.Slot(block: $0.row.block, version: $0.row.version, condition: .itemHasVersion)
                }
                map(index, work.object, slots)
            }
        }
    }

    private func map(_ index: Int, _ object: ObjectID, _ slots: [ObjectMap.Slot]) {
        let map = ObjectMap(object: object, server: ObjectServerID(1), sizeBytes: 1, slots: slots)
        request(index) {
            let deadline = $2.advanced(byNanoseconds: 20_000_000_000)
            $0.map($1, volume: Self.volume, map: map, deadline: deadline, now: $2)
        } answer: { [self] answer in
            if case .count(let count, _) = answer, count > 0 { self.count("mapped") }
        }
    }

    private func compact(_ index: Int) {
        request(index) {
            $0.requestCompactionWork($1, now: $2)
        } answer: { [self] answer in
            guard case .compactionWork(let work?) = answer else { return }
            var contents: [(block: BlockID, bytes: ByteBuffer)] = []
            var slots: [ObjectMap.Slot] = []
            for extent in work.extents {
                for offset in 0..<extent.blocks.count {
                    let slot = SlotIndex(extent.firstSlot.rawValue + UInt32(offset))
                    guard let found = store.slot(extent.object, slot) else { return count("compaction source gone") }
                    guard found.block == extent.origin + offset else {
                        return count("slot of another block")
                    }
                    if extent.copy != nil { count("compaction of a copy") }
                    let block = extent.blocks.first + offset
                    contents.append((block, found.bytes))
                    slots.append(
                        ObjectMap.Slot(
                            block: block,
                            version: extent.copy?.version ?? Version(1),
                            condition: .extentNames(extent.object, slot)
                        )
                    )
                }
            }
            count("compaction")
            after(delay()) { [self] in
                store.put(work.object, contents)
                map(index, work.object, slots)
            }
        }
    }
}
