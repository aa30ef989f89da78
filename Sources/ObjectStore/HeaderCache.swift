import AshlarCore
import BlockObjects
import NIOConcurrencyHelpers

/// Parsed headers of objects that were lately put or read, bounded by their slots.
///
/// Two generations: when the young one is full it becomes the old one and the old one is forgotten. What is used meanwhile
/// moves back to the young one. That is nearly the order of use, without a list.
struct HeaderCache: Sendable {
    struct Entry: Sendable {
        let header: BlockObjectHeader
        /// Index of the root where the object was found.
        let root: Int
    }

    private struct Generations {
        var young: [ObjectID: Entry] = [:]
        var old: [ObjectID: Entry] = [:]
        var youngSlots = 0
    }

    private let generations = NIOLockedValueBox(Generations())
    private let slotsMaximum: Int

    init(slotsMaximum: Int) {
        self.slotsMaximum = slotsMaximum
    }

    func entry(_ id: ObjectID) -> Entry? {
        generations.withLockedValue { generations in
            if let entry = generations.young[id] { return entry }
            guard let entry = generations.old.removeValue(forKey: id) else { return nil }
            insert(entry, for: id, in: &generations)
            return entry
        }
    }

    func insert(_ entry: Entry, for id: ObjectID) {
        generations.withLockedValue { insert(entry, for: id, in: &$0) }
    }

    func remove(_ id: ObjectID) {
        generations.withLockedValue { generations in
            generations.old[id] = nil
            if let entry = generations.young.removeValue(forKey: id) {
                generations.youngSlots -= entry.header.slots.count
            }
        }
    }

    private func insert(_ entry: Entry, for id: ObjectID, in generations: inout Generations) {
        if let former = generations.young.removeValue(forKey: id) {
            generations.youngSlots -= former.header.slots.count
        }
        let count = entry.header.slots.count
        // Each generation keeps to a half, so that both together stay under the bound.
        guard count <= slotsMaximum / 2 else { return }
        if generations.youngSlots + count > slotsMaximum / 2 {
            generations.old = generations.young
            generations.young = [:]
            generations.youngSlots = 0
        }
        generations.old[id] = nil
        generations.young[id] = entry
        generations.youngSlots += count
    }

    /// Slots of all headers held; for tests.
    var slotCount: Int {
        generations.withLockedValue { generations in
            generations.youngSlots + generations.old.values.reduce(0) { $0 + $1.header.slots.count }
        }
    }
}
