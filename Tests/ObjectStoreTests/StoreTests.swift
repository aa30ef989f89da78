import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import ObjectStore

/// The store with its threads, on the file system of the machine.
@Suite struct StoreTests {
    private func store(_ paths: [String]) throws -> ObjectStore {
        try ObjectStore(configuration: Fixtures.configuration(paths), logger: Fixtures.logger)
    }

    @Test func everythingGoesThereAndBackOnARealDisk() async throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.subdirectory("root")
        let store = try store([path])
        let object = try Fixtures.object(1, blocks: 100)
        #expect(try await outcome { store.put(ObjectID(1), bytes: object, completion: $0) } == .stored)
        #expect(try await outcome { store.put(ObjectID(1), bytes: object, completion: $0) } == .alreadyStored)
        let found = try await outcome {
            store.get(ObjectID(1), slots: .slots([SlotIndex(99), SlotIndex(3)]), completion: $0)
        }
        #expect(found.slots.map(\.bytes) == [Fixtures.block(1, 99), Fixtures.block(1, 3)])
        #expect(found.payload == found.slots.map(\.bytes))
        let row = try await outcome {
            store.get(ObjectID(1), slots: .slots((10..<60).map { SlotIndex($0) }), completion: $0)
        }
        #expect(row.payload.count == 1, "what lies in a row is one piece")
        #expect(row.payload.first == row.slots.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1.bytes) })
        #expect(try await outcome { store.header(ObjectID(1), completion: $0) }.slots.count == 100)
        #expect(try await outcome { store.verify(ObjectID(1), completion: $0) }.copies == 1)
        #expect(try await outcome { store.list(after: nil, limit: 5, completion: $0) }.ids == [ObjectID(1)])
        let statistics = try await outcome { store.statistics(completion: $0) }
        #expect(statistics.objects == 1)
        #expect(statistics.bytes == UInt64(object.readableBytes))
        #expect(statistics.freeBytes > 0)
        store.shutdown()
        let again = try self.store([path])
        #expect(try await outcome { again.verify(ObjectID(1), completion: $0) }.slots == 100)
        #expect(try await outcome { again.delete(ObjectID(1), completion: $0) })
        #expect(try await outcome { again.delete(ObjectID(1), completion: $0) } == false)
        again.shutdown()
        again.shutdown()
        await #expect(throws: ObjectStoreError.self) {
            _ = try await outcome { again.header(ObjectID(1), completion: $0) }
        }
    }

    @Test func aRootOfTheStandardSizeIsMade() async throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.subdirectory("root")
        let configuration = ObjectStoreConfiguration(
            roots: [.init(path: path)],
            clusterID: Fixtures.clusterID,
            serverID: ObjectServerID(1)
        )
        let store = try ObjectStore(configuration: configuration, logger: Fixtures.logger)
        #expect(try LinuxFileSystem().names(in: "\(path)/objects").count == 32)
        #expect(try LinuxFileSystem().names(in: "\(path)/objects/1f").count == 32)
        store.shutdown()
    }

    @Test func manyPutsAndGetsRunAtOnce() async throws {
        let scratch = try ScratchDirectory()
        let store = try store([scratch.subdirectory("a"), scratch.subdirectory("b")])
        defer { store.shutdown() }
        try await withThrowingTaskGroup(of: Void.self) { group in
            for id in 1...60 as ClosedRange<UInt64> {
                group.addTask {
                    let object = try Fixtures.object(id)
                    _ = try await outcome { store.put(ObjectID(id), bytes: object, completion: $0) }
                    let found = try await outcome { store.get(ObjectID(id), slots: .all, completion: $0) }
                    #expect(found.slots.map(\.bytes) == (0..<3).map { Fixtures.block(id, $0) })
                    if id % 3 == 0 { _ = try await outcome { store.delete(ObjectID(id), completion: $0) } }
                }
            }
            try await group.waitForAll()
        }
        let statistics = try await outcome { store.statistics(completion: $0) }
        #expect(statistics.objects == 40)
        #expect(statistics.roots.allSatisfy { $0.objects > 0 })
        let page = try await outcome { store.list(after: nil, limit: 100, completion: $0) }
        #expect(page.ids.count == 40)
    }

    @Test func M9_ofManyPutsToOneKeyOneKindWins() async throws {
        let scratch = try ScratchDirectory()
        let store = try store([scratch.subdirectory("root")])
        defer { store.shutdown() }
        let variants = try (0..<2 as Range<UInt64>).map { try Fixtures.object(7, variant: $0) }
        let results = await withTaskGroup(of: (Int, Result<PutOutcome, any Error>).self) { group in
            for index in 0..<24 {
                let object = variants[index % 2]
                group.addTask {
                    do {
                        let outcome = try await outcome { store.put(ObjectID(7), bytes: object, completion: $0) }
                        return (index % 2, .success(outcome))
                    } catch {
                        return (index % 2, .failure(error))
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        let winners = Set(results.compactMap { (try? $0.1.get()) == nil ? nil : $0.0 })
        #expect(winners.count == 1)
        #expect(results.filter { (try? $0.1.get()) == .stored }.count == 1)
        for case (_, .failure(let error)) in results {
            #expect((error as? ObjectStoreError)?.code == .exists)
        }
        let winner = try #require(winners.first)
        let found = try await outcome { store.get(ObjectID(7), slots: .all, completion: $0) }
        #expect(found.slots[0].bytes == Fixtures.block(7, 0, UInt64(winner)))
    }

    @Test func completionsReachTheExecutorManyAtOnce() async throws {
        let wakes = NIOLockedValueBox<[@Sendable () -> Void]>([])
        let store = try ObjectStore(
            configuration: Fixtures.configuration(),
            fileSystem: ModelFileSystem(),
            logger: Fixtures.logger,
            executor: { work in wakes.withLockedValue { $0.append(work) } }
        )
        let answers = NIOLockedValueBox(0)
        for id in 1...50 as ClosedRange<UInt64> {
            store.header(ObjectID(id)) { _ in answers.withLockedValue { $0 += 1 } }
        }
        store.shutdown()
        #expect(answers.withLockedValue { $0 } == 0, "nothing runs outside the executor")
        let work = wakes.withLockedValue { $0 }
        #expect(work.count == 1)
        for piece in work { piece() }
        #expect(answers.withLockedValue { $0 } == 50)
    }

    @Test func I10_aFullQueueAnswersBusyAtOnce() throws {
        let pool = try WorkerPool(threads: 1, waitingMaximum: 2)
        let gate = ConditionLock(value: 0)
        let ran = NIOLockedValueBox<[Int]>([])
        #expect(
            pool.submit {
                gate.lock(whenValue: 0)
                gate.unlock(withValue: 1)
                gate.lock(whenValue: 2)
                gate.unlock()
            } == nil
        )
        gate.lock(whenValue: 1)
        gate.unlock()
        #expect(pool.submit { ran.withLockedValue { $0.append(1) } } == nil)
        #expect(pool.submit { ran.withLockedValue { $0.append(2) } } == nil)
        #expect(pool.submit { ran.withLockedValue { $0.append(3) } } == .full)
        gate.lock()
        gate.unlock(withValue: 2)
        pool.shutdown()
        #expect(ran.withLockedValue { $0 } == [1, 2], "what waits is run before the end")
        #expect(pool.submit {} == .closed)
    }

    @Test func limitsFitTogether() {
        #expect(ObjectStoreLimits.putBytesWaitingMaximum >= Limits.objectMaximumBytes)
        #expect(ObjectStoreLimits.headerReadBytes >= BlockObjectsLimits.headerBytes(slotCount: 1_024))
        #expect(ObjectStoreLimits.cachedSlotsMaximum / 2 >= Int(Limits.objectSlotsMaximum))
        #expect(ObjectStoreLimits.directoryBitsMaximum <= 8, "two hexadecimal digits name a directory")
        #expect(Int(ObjectStoreLimits.readThroughMaximumBytes) + Limits.objectMaximumBytes < Int(UInt32.max))
    }
}
