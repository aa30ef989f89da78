import AshlarCore
import Ownership
import PostgresStore
import Testing

/// The rules of moving and copying, M1 to M9 and M11, as far as the store answers for them.
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

    /// What is required is marked as done in the same transaction: it must not be that without its map (R4).
    @Test func m4WhereARequiredMapCannotBeMadeNothingIs() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try fixture.connect().script(
            "UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = \(objects[0])"
        )
        let maps = objects.enumerated().map { index, object in
            var required = map(object, [(UInt64(index), 1), (UInt64(index) + 8, 1)], .always)
            required.slots[1].condition = .never
            required.isRequired = true
            return required
        }
        let failure = await #expect(throws: StoreFailure.self) {
            try await fixture.commit {
                $0.maps = maps
                $0.writes = [write(7, 7)]
            }
        }
        guard case .broken = failure else {
            Issue.record("\(String(describing: failure))")
            return
        }
        var region = try await fixture.region()
        #expect(region.extents.isEmpty && region.items.isEmpty)
        let detail = try await fixture.commit { $0.maps = [maps[1]] }
        #expect(detail.mapped == [[true, false]])
        region = try await fixture.region()
        #expect(region.extents.map(\.blocks) == [BlockRange(first: BlockID(1), count: 1)])
        // Mapped already, and so not by this transaction.
        await #expect(throws: StoreFailure.self) { try await fixture.commit { $0.maps = [maps[1]] } }
    }

    /// An update of a row in which no indexed column changes is made in place (HOT): `live_slots` changes with each overwrite.
    @Test func anOverwriteInAnObjectMakesNoEntriesInItsIndexes() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit { $0.maps = [map(objects[0], (0..<8).map { ($0, 1) }, .always)] }
        try await fixture.commit { $0.maps = [map(objects[1], [(3, 9)], .always)] }
        let connection = try fixture.connect()
        func number(_ sql: String) throws -> Int64? { try connection.query(sql).first?.int64("n") }
        #expect(try number("SELECT live_slots AS n FROM block_objects WHERE object_id = \(objects[0])") == 7)
        let indexes = "pg_indexes WHERE tablename = 'block_objects'"
        #expect(try number("SELECT count(*) AS n FROM \(indexes) AND indexdef LIKE '%is_empty%'") == 1)
        #expect(try number("SELECT count(*) AS n FROM \(indexes) AND indexdef LIKE '%live_slots%'") == 0)
        let empty = """
            SELECT count(*) AS n FROM block_objects WHERE is_empty AND object_id IN (\(objects[0]), \(objects[1]))
            """
        #expect(try number(empty) == 0)
        let last = try await fixture.reserve(1)
        try await fixture.commit { $0.maps = [map(last[0], (0..<8).map { ($0, 20 + $0) }, .always)] }
        #expect(try number(empty) == 2)
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

    @Test func I11_evictingLeavesTheLastIntactCopy_whichIsMovedAgain() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit { $0.writes = (1...6).map { write($0, $0) } }
        try await fixture.commit {
            $0.maps = [
                map(objects[0], (1...4).map { ($0, $0) }, .itemHasVersion),
                map(objects[1], [(5, 5), (6, 6)], .itemHasVersion),
            ]
        }
        let damage = [
            ObjectFinding(object: objects[0], slots: [1, 3], isMissing: false, isWhole: true),
            ObjectFinding(object: objects[1], slots: [-1], isMissing: true, isWhole: true),
        ]
        try await ask { fixture.store.reportObjects(token: 0, damage, completion: $0) }
        let connection = try fixture.connect()
        // Neither copy of block 4 is any good.
        try connection.query(
            "INSERT INTO damaged_items (volume_id, block_id, version) VALUES ($1, 4, 4)",
            [.int(fixture.volume.rawValue)]
        )
        let detail = try await fixture.commit {
            $0.evictions = (1...6).map { Eviction(block: BlockID($0), version: Version($0 == 6 ? 7 : $0)) }
        }
        #expect(detail.evicted == [true, false, true, true, false, false])
        #expect(detail.returned == [false, true, false, false, true, false])
        let queue = try await ask {
            fixture.store.fetchMoveCandidates(volume: fixture.volume, from: nil, limit: 9, completion: $0)
        }
        #expect(queue.items.map(\.block) == [BlockID(2), BlockID(5)])
        #expect(try await fixture.region().items.map(\.block) == [BlockID(2), BlockID(5), BlockID(6)])
        // Moved anew, it is not damaged any more, and goes.
        try await fixture.commit { $0.maps = [map(objects[2], [(2, 2), (5, 5)], .itemHasVersion)] }
        let left = try connection.query("SELECT block_id FROM ashlar_inspect.damage WHERE place = 'object' ORDER BY 1")
        #expect(try left.map { try $0.int64("block_id") } == [4, 6])
        let again = try await fixture.commit {
            $0.evictions = [2, 5].map { Eviction(block: BlockID($0), version: Version($0)) }
        }
        #expect(again.evicted == [true, true])
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

    @Test func m11ACopySharesSlotsAndIsCounted() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(3)
        try await fixture.commit { $0.maps = [map(objects[0], (0..<8).map { ($0, 1) }, .always)] }
        try await fixture.commit {
            $0.writes = [write(21, 9), write(40, 10)]
            $0.maps = [map(objects[1], (20..<24).map { ($0, 11) }, .always)]
        }
        let source = try #require(await fixture.region().extents.first)
        let copy = Reference(
            source: source.clipped(to: BlockRange(first: BlockID(2), count: 4)),
            destination: BlockID(21),
            version: Version(30)
        )
        try await fixture.commit { $0.references = [copy] }
        let region = try await fixture.region()
        #expect(region.items.map(\.block) == [BlockID(40)])
        #expect(region.extents.map(\.blocks.first.rawValue) == [0, 20, 21])
        #expect(region.extents.last == copy.extent)
        #expect(copy.extent.copy == BlockCopy(origin: BlockID(2), version: Version(30)))
        func live(_ object: ObjectID) throws -> Int64 {
            try fixture.number("SELECT live_slots FROM block_objects WHERE object_id = \(object)")
        }
        #expect(try live(objects[0]) == 12)
        #expect(try live(objects[1]) == 1)
        // Cut in the middle, each part still says where it comes from; the source may go.
        try await fixture.commit {
            $0.zeros = [BlockRange(first: BlockID(0), count: 8), BlockRange(first: BlockID(22), count: 1)]
        }
        let parts = try await fixture.region().extents.dropFirst()
        #expect(parts.map(\.blocks.first.rawValue) == [21, 23] && parts.map(\.origin.rawValue) == [2, 4])
        #expect(parts.map(\.firstSlot.rawValue) == [2, 4])
        #expect(try live(objects[0]) == 3)
        let sparse = try await ask {
            fixture.store.fetchCompactionCandidates(volume: fixture.volume, belowPercent: 90, limit: 9, completion: $0)
        }
        #expect(sparse.first { $0.0.object == objects[0] }?.1 == Array(parts))
        // A compaction makes plain extents of them.
        var compaction = map(objects[2], [], .always)
        compaction.slots = [(21, 2), (23, 4)].map { block, slot in
            ObjectMap.Slot(
                block: BlockID(block),
                version: Version(30),
                condition: .extentNames(objects[0], SlotIndex(slot))
            )
        }
        #expect(try await fixture.commit { $0.maps = [compaction] }.mapped == [[true, true]])
        let moved = try await fixture.region().extents.dropFirst()
        #expect(moved.map(\.object) == [objects[2], objects[2], objects[0]])
        #expect(moved.map { $0.copy?.origin } == [nil, nil, BlockID(5)])
    }

    @Test func m6ACompactionLooksAtTheSlotToo() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit { $0.maps = [map(objects[0], (0..<4).map { ($0, 1) }, .always)] }
        let source = try #require(await fixture.region().extents.first)
        for (block, version) in [(1, 30), (2, 31)] as [(UInt64, UInt64)] {
            let copy = Reference(
                source: source.clipped(to: BlockRange(first: BlockID(block), count: 1)),
                destination: BlockID(20),
                version: Version(version)
            )
            try await fixture.commit { $0.references = [copy] }
        }
        // Planned while block 20 shared slot 1.
        var late = map(objects[1], [], .always)
        late.slots = [
            ObjectMap.Slot(
                block: BlockID(20),
                version: Version(30),
                condition: .extentNames(objects[0], SlotIndex(1))
            )
        ]
        #expect(try await fixture.commit { $0.maps = [late] }.mapped == [[false]])
        #expect(try await fixture.region().extents.last?.origin == BlockID(2))
    }

    @Test func m11ACopyOfWhatDoesNotLieThereChangesNothing() async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(2)
        try await fixture.commit {
            $0.maps = [map(objects[0], (0..<8).map { ($0, 1) }, .always), map(objects[1], [(20, 2)], .always)]
        }
        let source = try #require(await fixture.region().extents.first)
        try await fixture.commit { $0.writes = [write(20, 9)] }
        var shifted = source
        shifted.firstSlot = SlotIndex(1)
        var longer = source
        longer.blocks.count = 9
        var other = source
        other.object = objects[1]
        for wrong in [shifted, longer, other] {
            var part = VolumeCommit(volume: fixture.volume, epoch: fixture.epoch)
            part.references = [Reference(source: wrong, destination: BlockID(20), version: Version(30))]
            let commits = [part]
            await #expect(throws: StoreFailure.self) {
                _ = try await ask { fixture.store.commit(commits, completion: $0) }
            }
            let region = try await fixture.region()
            #expect(region.items.map(\.block) == [BlockID(20)] && region.extents.count == 2)
        }
        // Nor one of an epoch that is over.
        var late = VolumeCommit(volume: fixture.volume, epoch: Epoch(fixture.epoch.rawValue + 1))
        late.references = [Reference(source: source, destination: BlockID(20), version: Version(30))]
        let commits = [late]
        guard case .fenced = try await ask({ fixture.store.commit(commits, completion: $0) })[0] else {
            Issue.record("a copy of another epoch was made")
            return
        }
        #expect(try await fixture.region().items.count == 1)
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
