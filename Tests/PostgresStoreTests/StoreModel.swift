import AshlarCore
import NIOCore
import Ownership

/// What the tables must say, kept in memory, one block at a time and one part of a commit after the other.
struct StoreModel {
    struct Item: Equatable {
        var version: Version
        var checksum: Checksum
        var bytes: ByteBuffer
        var isMoved: Bool
        /// Number of the commit in which it became unmoved.
        var since: Int
    }

    struct Place: Equatable {
        var object: ObjectID
        var slot: UInt32
        var copy: BlockCopy?
    }

    struct Object: Equatable {
        var isLive: Bool
        var slots: UInt32
    }

    var items: [BlockID: Item] = [:]
    var places: [BlockID: Place] = [:]
    var objects: [ObjectID: Object] = [:]
    /// Slots that were found damaged; -1: all of the object.
    var damage: [ObjectID: Set<Int32>] = [:]
    var unit = LogicalUnitState()
    /// Of the nexuses that are open.
    var attentions: [NexusNumber: [UnitAttention]] = [:]
    var aborted: [NexusNumber: Stamp] = [:]
    private var commitNumber = 0

    mutating func reserve(_ ids: [ObjectID]) {
        for id in ids { objects[id] = Object(isLive: false, slots: 0) }
    }

    mutating func apply(_ part: VolumeCommit) -> VolumeCommitResult.CommitDetail {
        commitNumber += 1
        var detail = VolumeCommitResult.CommitDetail()
        for run in part.zeros {
            items = items.filter { !run.contains($0.key) }
            places = places.filter { !run.contains($0.key) }
        }
        for reference in part.references { apply(reference) }
        for write in part.writes {
            let old = items[write.block]
            items[write.block] = Item(
                version: write.version,
                checksum: write.checksum,
                bytes: write.bytes,
                isMoved: false,
                since: old.map { $0.isMoved ? commitNumber : $0.since } ?? commitNumber
            )
        }
        detail.mapped = part.maps.map { apply($0) }
        for eviction in part.evictions {
            let item = items[eviction.block]
            let isMeant = item?.isMoved == true && item?.version == eviction.version
            let isLast = places[eviction.block].map { isDamaged($0) } ?? false
            if isMeant, isLast {
                items[eviction.block]?.isMoved = false
                items[eviction.block]?.since = commitNumber
            } else if isMeant {
                items[eviction.block] = nil
            }
            detail.evicted.append(isMeant && !isLast)
            detail.returned.append(isMeant && isLast)
        }
        for fill in part.fills {
            detail.filled.append(items[fill.block] == nil)
            if items[fill.block] == nil {
                items[fill.block] = Item(
                    version: fill.version,
                    checksum: fill.checksum,
                    bytes: fill.bytes,
                    isMoved: true,
                    since: 0
                )
            }
        }
        if let unit = part.unit { self.unit = unit }
        for entry in part.attentions where attentions[entry.nexus] != nil { attentions[entry.nexus] = entry.attentions }
        for entry in part.aborts where attentions[entry.nexus] != nil {
            let stamp = Stamp(epoch: part.epoch, time: entry.time)
            if aborted[entry.nexus].map(stamp.isNewer) ?? true { aborted[entry.nexus] = stamp }
        }
        return detail
    }

    private func isDamaged(_ place: Place) -> Bool {
        let slots = damage[place.object, default: []]
        return slots.contains(-1) || slots.contains(Int32(place.slot))
    }

    private mutating func apply(_ reference: Reference) {
        for offset in 0..<reference.source.blocks.count {
            let block = reference.destination + offset
            items[block] = nil
            places[block] = Place(
                object: reference.source.object,
                slot: reference.source.firstSlot.rawValue + UInt32(offset),
                copy: BlockCopy(origin: reference.source.origin + offset, version: reference.version)
            )
        }
    }

    private mutating func apply(_ map: ObjectMap) -> [Bool]? {
        guard let object = objects[map.object], !object.isLive else { return nil }
        objects[map.object] = Object(isLive: true, slots: UInt32(map.slots.count))
        return map.slots.enumerated().map { index, slot in
            switch slot.condition {
            case .always: items[slot.block] = nil
            case .never: return false
            case .itemHasVersion:
                guard items[slot.block]?.version == slot.version else { return false }
                items[slot.block]?.isMoved = true
            case .extentNames(let source, let sourceSlot):
                guard let place = places[slot.block], place.object == source, place.slot == sourceSlot.rawValue else {
                    return false
                }
            }
            places[slot.block] = Place(object: map.object, slot: UInt32(index))
            return true
        }
    }

    func liveSlots(_ object: ObjectID) -> Int { places.values.reduce(0) { $0 + ($1.object == object ? 1 : 0) } }

    /// Unmoved blocks, oldest first.
    var queue: [BlockID] {
        items.filter { !$0.value.isMoved }.sorted { ($0.value.since, $0.key) < ($1.value.since, $1.key) }.map(\.key)
    }
}

/// A small generator with a seed, so that a failing run can be repeated.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
}
