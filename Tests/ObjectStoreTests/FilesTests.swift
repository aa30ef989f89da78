import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import Testing

@testable import ObjectStore

/// What the store does when nothing fails.
@Suite struct FilesTests {
    @Test func M9_aKeyIsWrittenOnce() throws {
        let files = try Fixtures.files(ModelFileSystem())
        let object = try Fixtures.object(1)
        #expect(try files.put(ObjectID(1), bytes: object) == .stored)
        #expect(try files.put(ObjectID(1), bytes: object) == .alreadyStored)
        let same = try Fixtures.object(1, variant: 1)
        #expect(same.readableBytes == object.readableBytes)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: same) } == .exists)
        let longer = try Fixtures.object(1, blocks: 4)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: longer) } == .exists)
        #expect(try files.get(ObjectID(1), selection: .all).slots.map(\.bytes) == (0..<3).map { Fixtures.block(1, $0) })
        #expect(files.statistics().objects == 1)
        #expect(files.statistics().bytes == UInt64(object.readableBytes))
    }

    @Test func I11_onlySoundObjectsOfTheirOwnIdAreTaken() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        let object = try Fixtures.object(1)
        let before = disk.files()
        #expect(Fixtures.code { _ = try files.put(ObjectID(2), bytes: object) } == .invalid)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: ByteBuffer()) } == .invalid)
        let cut = try #require(object.getSlice(at: 0, length: object.readableBytes - 1))
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: cut) } == .invalid)
        var bad = object
        bad.setInteger(UInt8(0x55), at: object.readableBytes - 600)
        let error = Fixtures.error { _ = try files.put(ObjectID(1), bytes: bad) }
        #expect(error?.code == .invalid)
        #expect(error?.slot == SlotIndex(1))
        #expect(disk.files() == before)
    }

    @Test func slotsComeInTheOrderAskedFor() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1, blocks: 200))
        for isCached in [true, false] {
            let source = isCached ? files : try reopened(files, disk)
            let wanted = [199, 0, 5, 5, 6, 100] as [UInt32]
            let found = try source.get(ObjectID(1), selection: .slots(wanted.map { SlotIndex($0) }))
            #expect(found.slots.map(\.bytes) == wanted.map { Fixtures.block(1, UInt64($0)) })
            #expect(found.header.slots.count == 200)
            #expect(try source.get(ObjectID(1), selection: .slots([])).slots.isEmpty)
            let beyond = Fixtures.error { _ = try source.get(ObjectID(1), selection: .slots([SlotIndex(200)])) }
            #expect(beyond?.code == .invalid)
            let many = [SlotIndex](repeating: SlotIndex(0), count: 4_097)
            #expect(Fixtures.code { _ = try source.get(ObjectID(1), selection: .slots(many)) } == .invalid)
        }
    }

    private func reopened(_ files: ObjectFiles, _ disk: ModelFileSystem) throws -> ObjectFiles {
        files.close()
        return try Fixtures.files(disk)
    }

    @Test func onlyWantedSlotsAreRead() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1, blocks: 200))
        let header = try files.header(ObjectID(1))
        let near = StoredRun.covering([SlotIndex(3), SlotIndex(4), SlotIndex(20)], of: header)
        #expect(near == [StoredRun(start: header.slots[3].storedOffset, end: header.slots[20].storedEnd)])
        let far = StoredRun.covering([SlotIndex(190), SlotIndex(0)], of: header)
        #expect(far.map(\.start) == [header.slots[0].storedOffset, header.slots[190].storedOffset])
        disk.forgetCalls()
        _ = try files.get(ObjectID(1), selection: .slots([SlotIndex(190)]))
        #expect(disk.calls.map(\.kind) == [.openFile, .read], "with a cached header one read is enough")
    }

    @Test func aHeaderLargerThanTheFirstReadIsRead() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        var builder = try BlockObjectBuilder(
            objectID: ObjectID(5),
            volumeID: VolumeID(1),
            volumeUUID: Array(0..<16),
            blockSizeBytes: 512,
            compressor: nil
        )
        let zeros = ByteBuffer(repeating: 0, count: 512)
        for index in 0..<UInt64(Limits.objectSlotsMaximum) {
            try builder.add(
                block: BlockID(index),
                version: Version(1),
                checksum: .zeros(count: 512),
                bytes: zeros
            )
        }
        _ = try files.put(ObjectID(5), bytes: builder.finish())
        let again = try reopened(files, disk)
        #expect(try again.header(ObjectID(5)).slots.count == 4_096)
        let found = try again.get(ObjectID(5), selection: .slots([SlotIndex(4_095)]))
        #expect(found.slots.map(\.encoding) == [.zeros])
    }

    @Test func I11_bitRotIsFoundAndNamed() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        let object = try Fixtures.object(1)
        _ = try files.put(ObjectID(1), bytes: object)
        let path = try #require(disk.files().first { $0.hasSuffix(".object") })
        disk.change(path) { $0[object.readableBytes - 1] ^= 1 }
        let error = Fixtures.error { _ = try files.get(ObjectID(1), selection: .all) }
        #expect(error?.code == .corrupt)
        #expect(error?.slot == SlotIndex(2))
        #expect(Fixtures.error { _ = try files.verify(ObjectID(1)) }?.slot == SlotIndex(2))
        #expect(try files.get(ObjectID(1), selection: .slots([SlotIndex(0)])).slots.count == 1)
        disk.change(path) { $0[object.readableBytes - 1] ^= 1 }
        disk.change(path) { $0[70] ^= 1 }
        #expect(Fixtures.code { _ = try files.verify(ObjectID(1)) } == .corrupt)
        let other = try Fixtures.object(2)
        disk.change(path) { $0 = Array(other.readableBytesView) }
        #expect(Fixtures.code { _ = try files.verify(ObjectID(1)) } == .corrupt, "an object under another's name")
    }

    @Test func deletingIsIdempotent() throws {
        let files = try Fixtures.files(ModelFileSystem())
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        #expect(try files.delete(ObjectID(1)))
        #expect(try !files.delete(ObjectID(1)))
        #expect(Fixtures.code { _ = try files.get(ObjectID(1), selection: .all) } == .notFound)
        #expect(Fixtures.code { _ = try files.header(ObjectID(1)) } == .notFound)
        #expect(Fixtures.code { _ = try files.verify(ObjectID(1)) } == .notFound)
        #expect(files.statistics().objects == 0)
        #expect(files.statistics().bytes == 0)
    }

    @Test(arguments: [1, 7, 100, 101])
    func listingPagesOverAllRoots(limit: Int) throws {
        let disk = ModelFileSystem(directories: ["a", "b", "c"])
        var configuration = Fixtures.configuration(["/a"])
        configuration.directoryBits = 3
        try Fixtures.files(disk, configuration).close()
        let files = try Fixtures.files(disk, Fixtures.configuration(["/a", "/b", "/c"]))
        for id in 1...100 as ClosedRange<UInt64> {
            _ = try files.put(ObjectID(id), bytes: Fixtures.object(id, blocks: 1))
        }
        var all: [ObjectID] = []
        var cursor: ObjectID?
        repeat {
            let page = try files.list(after: cursor, limit: limit)
            #expect(page.ids.count <= limit)
            all += page.ids
            cursor = page.next
            // What is deleted behind or at the cursor does not disturb it.
            if let cursor, limit == 7 { _ = try files.delete(cursor) }
        } while cursor != nil
        #expect(all.map(\.rawValue).sorted() == Array(1...100))
        #expect(Fixtures.code { _ = try files.list(after: nil, limit: 0) } == .invalid)
        #expect(Fixtures.code { _ = try files.list(after: nil, limit: 10_001) } == .invalid)
    }

    @Test func objectsSpreadByWeight() throws {
        let keys = (0..<3).map { Placement.rootKey(uuid: [UInt8](repeating: UInt8($0), count: 16)) }
        let weights: [UInt32] = [100, 200, 700]
        func winner(_ id: UInt64, _ weights: [UInt32]) -> Int? {
            weights.indices.max { left, right in
                Placement.score(ObjectID(id), rootKey: keys[left], weight: weights[left])
                    < Placement.score(ObjectID(id), rootKey: keys[right], weight: weights[right])
            }
        }
        var counts = [0, 0, 0]
        var moved = 0
        for id in 0..<20_000 as Range<UInt64> {
            let index = try #require(winner(id, weights))
            counts[index] += 1
            // A new root takes its share from the others, and nothing moves between those.
            let before = try #require(winner(id, [100, 200]))
            if index != before {
                moved += 1
                #expect(index == 2)
            }
        }
        #expect(abs(counts[0] - 2_000) < 200 && abs(counts[1] - 4_000) < 300 && abs(counts[2] - 14_000) < 400)
        #expect(moved == counts[2])
    }

    @Test func aRootOfWeightZeroTakesNoNewObjectsButServesItsOwn() throws {
        let disk = ModelFileSystem(directories: ["a", "b"])
        let files = try Fixtures.files(disk, Fixtures.configuration(["/a", "/b"]))
        for id in 1...30 as ClosedRange<UInt64> {
            _ = try files.put(ObjectID(id), bytes: Fixtures.object(id, blocks: 1))
        }
        let before = files.statistics().roots[0].objects
        #expect(before > 5 && before < 25)
        files.close()
        let again = try Fixtures.files(disk, Fixtures.configuration(["/b", "/a"], weights: [100, 0]))
        for id in 31...60 as ClosedRange<UInt64> {
            _ = try again.put(ObjectID(id), bytes: Fixtures.object(id, blocks: 1))
        }
        #expect(again.statistics().roots[1].objects == before)
        #expect(again.statistics().objects == 60)
        for id in 1...60 as ClosedRange<UInt64> {
            #expect(try again.get(ObjectID(id), selection: .all).slots.count == 1)
            #expect(try again.put(ObjectID(id), bytes: Fixtures.object(id, blocks: 1)) == .alreadyStored)
        }
        #expect(again.statistics().objects == 60)
    }

    @Test func I10_theHeaderCacheIsBounded() throws {
        let cache = HeaderCache(slotsMaximum: 100)
        for id in 0..<500 as Range<UInt64> {
            let header = try BlockObjectReader(decoding: Fixtures.object(id, blocks: 7)).header
            cache.insert(HeaderCache.Entry(header: header, root: 0), for: ObjectID(id))
            #expect(cache.entry(ObjectID(id)) != nil)
            _ = cache.entry(ObjectID(0))
            #expect(cache.slotCount <= 100)
        }
        #expect(cache.entry(ObjectID(0)) != nil, "what is used stays")
        #expect(cache.entry(ObjectID(100)) == nil)
        cache.remove(ObjectID(0))
        #expect(cache.entry(ObjectID(0)) == nil)
    }

    @Test func namesAreReadInOneFormOnly() {
        #expect(RootLayout.objectID(ofName: "000000000000002a.object") == ObjectID(42))
        #expect(RootLayout.objectID(ofName: "ffffffffffffffff.object") == ObjectID(.max))
        for name in [
            "2a.object", "000000000000002A.object", "000000000000002a", "+00000000000002a.object", ".object", "",
        ] {
            #expect(RootLayout.objectID(ofName: name) == nil, "\(name)")
        }
    }
}
