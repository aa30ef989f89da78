import AshlarCore
import Ownership
import PostgresStore
import Testing

/// The rules of moving, M1 to M9, as far as the store answers for them.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct MappingRuleTests {
    @Test func m1AMoveMapsOnlySlotsWhoseItemHasTheVersion() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        try await fixture.commit { $0.writes = [write(1, 1), write(2, 2), write(3, 3)] }
        try await fixture.commit { $0.writes = [write(2, 4)] }
        let detail = try await fixture.commit {
            $0.maps = [map(object, [(1, 1), (2, 2), (3, 3), (4, 9)], .itemHasVersion)]
        }
        #expect(detail.mapped == [[true, false, true, false]])
        let region = try await fixture.region()
        #expect(region.items.map(\.isMoved) == [true, false, true])
        #expect(region.extents.map(\.blocks.first) == [BlockID(1), BlockID(3)])
        #expect(region.extents.map(\.firstSlot) == [SlotIndex(0), SlotIndex(2)])
    }

    @Test func m1AMapOfAnObjectThatIsNotIntendedIsRefusedWhole() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit { $0.writes = [write(1, 1)] }
        try fixture.connect().script(
            "UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = \(objects[0])"
        )
        let detail = try await fixture.commit {
            $0.maps = [
                map(objects[0], [(1, 1)], .itemHasVersion), map(ObjectID(9_999), [(1, 1)], .always),
                map(objects[1], [], .always),
            ]
        }
        #expect(detail.mapped == [nil, nil, []])
        let region = try await fixture.region()
        #expect(region.extents.isEmpty && !region.items[0].isMoved)
        // One without a reference is collected.
        let collected = try await ask {
            fixture.store.collectObjects(intentAgeMilliseconds: 60_000, graceMilliseconds: 0, limit: 10, completion: $0)
        }
        #expect(collected.isEmpty)
        try await Task.sleep(for: .milliseconds(5))
        let again = try await ask {
            fixture.store.collectObjects(intentAgeMilliseconds: 60_000, graceMilliseconds: 1, limit: 10, completion: $0)
        }
        #expect(again.map(\.object) == [objects[1]])
    }

    @Test func m2VersionsAreNeverHandedOutTwice() async throws {
        let fixture = try await Fixture()
        for ceiling in [500, 300] as [UInt64] {
            try await fixture.commit { $0.versionCeiling = Version(ceiling) }
        }
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(0), count: 1 << 20)] }
        let ownership = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
        #expect(ownership.firstVersion == Version(500))
    }

    @Test func m3EvictingNeedsMovedAndTheVersion() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        try await fixture.commit { $0.writes = [write(1, 1), write(2, 2), write(3, 3)] }
        try await fixture.commit { $0.maps = [map(object, [(1, 1), (2, 2)], .itemHasVersion)] }
        let candidates = try await ask {
            fixture.store.fetchEvictionCandidates(volume: fixture.volume, limit: 10, completion: $0)
        }
        #expect(candidates.map(\.version) == [Version(1), Version(2)])
        let detail = try await fixture.commit {
            $0.evictions = [(1, 1), (2, 1), (3, 3), (4, 1)].map {
                Eviction(block: BlockID($0.0), version: Version($0.1))
            }
        }
        #expect(detail.evicted == [true, false, false, false])
        #expect(try await fixture.region().items.map(\.block) == [BlockID(2), BlockID(3)])
    }

    @Test func m4ADirectWriteReplacesItemsAndExtents() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit { $0.maps = [map(objects[0], (0..<16).map { ($0, 1) }, .always)] }
        try await fixture.commit { $0.writes = [write(5, 20), write(9, 21)] }
        try await fixture.commit { $0.maps = [map(objects[1], (4..<8).map { ($0, 30) }, .always)] }
        let region = try await fixture.region()
        #expect(region.items.map(\.block) == [BlockID(9)])
        #expect(region.extents.map(\.object) == [objects[0], objects[1], objects[0]])
        #expect(region.extents.map(\.blocks.count) == [4, 4, 8])
        #expect(region.extents.map(\.firstSlot.rawValue) == [0, 0, 8])
        #expect(try fixture.number("SELECT live_slots FROM block_objects WHERE object_id = \(objects[0])") == 12)
    }

    @Test func m5UnmapMakesLateMapsFail() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit {
            $0.writes = [write(1, 1), write(2, 2)]
            $0.maps = [map(objects[0], [(8, 3)], .always)]
        }
        let detail = try await fixture.commit {
            $0.zeros = [BlockRange(first: BlockID(0), count: 16)]
            $0.maps = [
                map(objects[1], [(1, 1), (2, 2)], .itemHasVersion),
                map(objects[2], [(8, 3)], .extentNames(objects[0], SlotIndex(0))),
            ]
        }
        #expect(detail.mapped == [[false, false], [false]])
        let region = try await fixture.region()
        #expect(region.items.isEmpty && region.extents.isEmpty)
    }

    @Test func m6ACompactionChangesOnlyWhatStillNamesItsSource() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit { $0.maps = [map(objects[0], (0..<8).map { ($0, 1) }, .always)] }
        try await fixture.commit {
            $0.writes = [write(2, 9)]
            $0.maps = [map(objects[1], [(5, 10)], .always)]
        }
        let sparse = try await ask {
            fixture.store.fetchCompactionCandidates(
                volume: fixture.volume,
                belowPercent: 90,
                limit: 10,
                completion: $0
            )
        }
        #expect(sparse.map(\.0.object) == [objects[0]])
        #expect(sparse.first?.1.map(\.blocks.count) == [5, 2])
        var compaction = map(objects[2], [], .always)
        compaction.slots = (2..<7).map { block in
            ObjectMap.Slot(
                block: BlockID(block),
                version: Version(1),
                condition: .extentNames(objects[0], SlotIndex(UInt32(block)))
            )
        }
        let detail = try await fixture.commit { $0.maps = [compaction] }
        #expect(detail.mapped == [[true, true, true, false, true]])
        let region = try await fixture.region()
        #expect(region.items.map(\.isMoved) == [false], "items are not touched")
        #expect(region.extents.map(\.object) == [objects[0], objects[2], objects[1], objects[2], objects[0]])
    }

    @Test func m7DeadIsFinalAndOnlyWithoutReferences() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit {
            $0.maps = [map(objects[0], [(0, 1)], .always), map(objects[1], [(1, 2)], .always)]
        }
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(1), count: 1)] }
        // A wrong counter must not be enough.
        try fixture.connect().script("UPDATE block_objects SET live_slots = 0 WHERE object_id = \(objects[0])")
        func collect(grace: UInt64) async throws -> [ObjectID] {
            try await ask {
                fixture.store.collectObjects(
                    intentAgeMilliseconds: 0,
                    graceMilliseconds: grace,
                    limit: 10,
                    completion: $0
                )
            }.map(\.object)
        }
        #expect(try await collect(grace: 60_000) == [])
        let states = try fixture.connect().query("SELECT state FROM block_objects ORDER BY object_id")
        #expect(try states.map { try $0.string("state") } == ["live", "dead", "dead"])
        let late = try await fixture.commit { $0.maps = [map(objects[2], [(7, 5)], .always)] }
        #expect(late.mapped == [nil], "a swept intent is not mapped any more")
        try await Task.sleep(for: .milliseconds(5))
        #expect(try await collect(grace: 1) == [objects[1]])
        try await ask { fixture.store.forgetObjects(objects, completion: $0) }
        #expect(try fixture.number("SELECT count(*) FROM block_objects") == 1, "only dead ones are forgotten")
    }

    @Test func m8KnownObjectsAreThoseWithARow() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        let asked = objects + [ObjectID(1 << 40)]
        let known = try await ask { fixture.store.knownObjects(asked, completion: $0) }
        #expect(known == Set(objects))
    }

    @Test func m9AnObjectIsMappedOnce() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        let first = try await fixture.commit {
            $0.maps = [map(object, [(1, 1)], .always), map(object, [(2, 2)], .always)]
        }
        #expect(first.mapped == [[true], nil])
        let second = try await fixture.commit { $0.maps = [map(object, [(3, 3)], .always)] }
        #expect(second.mapped == [nil])
        #expect(try await fixture.region().extents.map(\.blocks.first) == [BlockID(1)])
    }

    @Test func laterMapsOfACommitSeeWhatEarlierOnesDid() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit { $0.maps = [map(objects[0], [(1, 1)], .always)] }
        let detail = try await fixture.commit {
            $0.maps = [
                map(objects[1], [(1, 2)], .always),
                map(objects[2], [(1, 1)], .extentNames(objects[0], SlotIndex(0))),
            ]
        }
        #expect(detail.mapped == [[true], [false]])
    }

    @Test func concurrentCutsOfOneExtentKeepEveryBlock() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        try await fixture.commit { $0.maps = [map(object, (0..<256).map { ($0, 1) }, .always)] }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for block in stride(from: UInt64(0), to: 256, by: 2) {
                group.addTask {
                    try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(block), count: 1)] }
                }
            }
            try await group.waitForAll()
        }
        let region = try await fixture.region()
        #expect(region.extents.map(\.blocks.first.rawValue) == Array(stride(from: UInt64(1), to: 256, by: 2)))
        #expect(
            region.extents.allSatisfy {
                $0.blocks.count == 1 && UInt64($0.firstSlot.rawValue) == $0.blocks.first.rawValue
            }
        )
        #expect(try fixture.number("SELECT live_slots FROM block_objects") == 128)
    }
}
