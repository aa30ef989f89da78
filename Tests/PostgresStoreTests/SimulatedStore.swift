import AshlarCore
import AshlarTestSupport
import Ownership
import Testing

@testable import PostgresStore

/// The store of the simulated clusters, which has to do what PostgreSQL does: it is given the same commits.
struct SimulatedStore {
    private var store: ModelStore
    private let volume: VolumeID
    private let server: CacheServerID
    private let now = MonotonicTime(1)

    /// One with a volume as that of ``Fixture``, in the same epoch, and the same objects.
    init(volume: VolumeID, epoch: Epoch, objects: [ObjectID]) throws {
        self.volume = volume
        let description = VolumeDescription(
            id: volume,
            name: "v",
            iqn: "iqn.2026-01.io.ashlar:v",
            uuid: [UInt8](repeating: 1, count: 16),
            geometry: try Geometry(sizeBytes: 1 << 30, blockSizeBytes: UInt32(Fixture.blockBytes)),
            policy: .standard
        )
        store = ModelStore(volumes: [description])
        server = store.register(endpoint: "a:1", lease: 1 << 60, now: now)
        while try #require(store.state(of: volume)).epoch < epoch { _ = try takeOver() }
        let reserved = store.reserve(count: objects.count)
        try #require(reserved == objects.sorted())
    }

    mutating func openNexus(_ row: NexusRow) throws {
        let epoch = try #require(store.state(of: volume)).epoch
        let isOpen = store.openNexus(volume, epoch, row)
        try #require(isOpen)
    }

    /// What there is of the volume.
    var counts: VolumeCounts { store.countVolume(volume) }

    mutating func takeOver() throws -> Ownership {
        guard case .owned(let ownership) = store.takeOver(volume, server: server, now: now) else {
            throw StoreFailure.broken("the volume is not owned")
        }
        return ownership
    }

    /// What a scrub found; -1 is all of an object.
    mutating func report(_ finding: ObjectFinding) {
        for slot in finding.slots {
            let slots = slot < 0 ? 0..<UInt32(Limits.objectSlotsMaximum) : UInt32(slot)..<UInt32(slot) + 1
            store.damagedSlots[finding.object, default: []].formUnion(slots.map { SlotIndex($0) })
        }
    }

    /// Makes a commit, and expects of it what PostgreSQL has found, and the same items and extents after it.
    mutating func commit(
        _ part: VolumeCommit,
        as found: VolumeCommitResult.CommitDetail,
        _ region: RegionRows,
        _ place: Comment
    )
        throws
    {
        guard case .committed(let detail)? = store.commit([part]).first else {
            throw StoreFailure.broken("the simulated store has fenced what PostgreSQL has made")
        }
        #expect(detail.mapped == found.mapped, place)
        #expect(detail.evicted == found.evicted, place)
        #expect(detail.returned == found.returned, place)
        #expect(detail.filled == found.filled, place)
        let known = store.loadRegion(volume, BlockRange(first: BlockID(0), count: CommitPropertyTests.blocks))
        try #require(known.items == region.items, place)
        try #require(Self.single(known.extents) == Self.single(region.extents), place)
        try #require(store.violations.isEmpty, place)
    }

    /// Extents one block at a time: how they are put together is the store's own affair.
    private static func single(_ extents: [Extent]) -> [Extent] {
        extents.flatMap { extent in
            (0..<extent.blocks.count).map { extent.clipped(to: BlockRange(first: extent.blocks.first + $0, count: 1)) }
        }
    }
}
