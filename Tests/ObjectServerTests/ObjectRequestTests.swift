import AshlarCore
import BlockObjects
import Foundation
import NIOCore
import ObjectStore
import RPC
import Testing
import Transport

@testable import ObjectServer

@Suite("Requests of an object server", .timeLimit(.minutes(2)))
struct ObjectRequestTests {
    private func put(_ client: RPCClientHandle, _ id: UInt64, _ bytes: ByteBuffer) async throws -> RPCAnswer {
        try await client.call(PutObject(object: ObjectID(id)), payload: [bytes], deadlineMilliseconds: patience)
    }

    private func get(
        _ client: RPCClientHandle,
        _ id: UInt64,
        first: UInt32,
        count: UInt32
    ) async throws -> RPCAnswer {
        try await client.call(
            GetSlots(object: ObjectID(id), firstSlot: SlotIndex(first), count: count),
            deadlineMilliseconds: patience
        )
    }

    private func list(
        _ client: RPCClientHandle,
        after: ObjectID?,
        limit: UInt32
    ) async throws -> ListObjects.Answer {
        try await client.call(
            ListObjects(after: after, limit: limit),
            answer: ListObjects.Answer.self,
            deadlineMilliseconds: patience
        ).0
    }

    @Test("I11: what was put comes back, slot by slot, with its encoding and checksum")
    func roundTrip() async throws {
        try await withServer { _, _, client async throws in
            let seeds: [UInt64] = [1, 2, 0, 3, 4]
            #expect(try await put(client, 1, object(1, seeds: seeds)).isOK)
            var answer = try await get(client, 1, first: 1, count: 3)
            let message = try answer.decode(GetSlots.Answer.self)
            #expect(message.blockSizeBytes == 4_096)
            #expect(message.slots.map(\.block) == [BlockID(11), BlockID(12), BlockID(13)])
            #expect(message.slots.map(\.version) == [Version(101), Version(102), Version(103)])
            #expect(message.slots.map(\.encoding) == [0, 2, 1])
            let inflater = try BlockInflater()
            for (slot, seed) in zip(message.slots, seeds[1...3]) {
                let bytes = answer.body.readSlice(length: Int(slot.storedBytes))
                let encoding = try #require(SlotEncoding(rawValue: slot.encoding))
                let stored = StoredSlot(encoding: encoding, bytes: try #require(bytes), checksum: slot.checksum)
                let plain = try stored.decoded(blockSizeBytes: 4_096, slot: SlotIndex(0), using: inflater)
                #expect(plain == block(seed: seed))
            }
            #expect(answer.body.readableBytes == 0)
        }
    }

    @Test("M9: the same bytes may be put again, others under the same key may not")
    func keyIsWrittenOnce() async throws {
        try await withServer { _, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [2])).isOK)
            #expect(try await put(client, 1, object(1, seeds: [2])).isOK)
            #expect(try await put(client, 1, object(1, seeds: [4])).status == .exists)
            var answer = try await get(client, 1, first: 0, count: 1)
            _ = try answer.decode(GetSlots.Answer.self)
            #expect(answer.body == block(seed: 2))
        }
    }

    @Test("Bytes that are not that object are refused, and nothing is stored")
    func badObjects() async throws {
        try await withServer { _, _, client async throws in
            let sound = try object(1, seeds: [1, 2])
            var flipped = sound
            let last = flipped.writerIndex - 1
            flipped.setInteger(try #require(flipped.getInteger(at: last, as: UInt8.self)) ^ 1, at: last)
            let truncated = try #require(sound.getSlice(at: 0, length: sound.readableBytes - 1))
            let large = ByteBuffer(repeating: 1, count: Limits.objectMaximumBytes + 1)
            for bytes in [ByteBuffer(), ByteBuffer(string: "no object"), flipped, truncated, large] {
                #expect(try await put(client, 1, bytes).status == .invalidMessage)
            }
            #expect(try await put(client, 2, sound).status == .invalidMessage, "the bytes are object 1")
            #expect(try await list(client, after: nil, limit: 10).objects.isEmpty)
        }
    }

    @Test("I7: an object that is not there is told apart from everything else")
    func missingObjects() async throws {
        try await withServer { _, _, client async throws in
            #expect(try await get(client, 5, first: 0, count: 1).status == .noSuchObject)
            let verify = VerifyObject(object: ObjectID(5))
            #expect(try await client.call(verify, deadlineMilliseconds: patience).status == .noSuchObject)
            let delete = DeleteObject(object: ObjectID(5))
            #expect(try await client.call(delete, deadlineMilliseconds: patience).isOK)
        }
    }

    @Test("A deleted object is gone, and its neighbour is not")
    func delete() async throws {
        try await withServer { _, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [2])).isOK)
            #expect(try await put(client, 2, object(2, seeds: [2])).isOK)
            let delete = DeleteObject(object: ObjectID(1))
            #expect(try await client.call(delete, deadlineMilliseconds: patience).isOK)
            #expect(try await get(client, 1, first: 0, count: 1).status == .noSuchObject)
            #expect(try await get(client, 2, first: 0, count: 1).isOK)
        }
    }

    @Test("Targets and cache servers put and read, but do not delete", arguments: [Role.target, .cache])
    func deletionIsForCollectors(role: Role) async throws {
        try await withServer(as: role) { _, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [2])).isOK)
            let delete = DeleteObject(object: ObjectID(1))
            #expect(try await client.call(delete, deadlineMilliseconds: patience).status == .unsupported)
            #expect(try await get(client, 1, first: 0, count: 1).isOK)
        }
    }

    @Test(
        "I10: slots that an object has not, or no object has",
        arguments: [(0, 0), (0, 3), (1, 2), (2, 1), (0, 4_097), (4_096, 1), (.max, 1), (1, .max)] as [(UInt32, UInt32)]
    )
    func slotsOutOfRange(first: UInt32, count: UInt32) async throws {
        try await withServer { _, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [1, 2])).isOK)
            #expect(try await get(client, 1, first: first, count: count).status == .outOfRange)
        }
    }

    @Test("I10: a list comes in pages of any size, each object once")
    func pages() async throws {
        try await withServer(roots: ["a", "b"]) { _, _, client async throws in
            for id in 1...20 { #expect(try await put(client, UInt64(id), object(UInt64(id), seeds: [2])).isOK) }
            for limit: UInt32 in [0, 1, 7, 20, 1_000_000] {
                var found: [ObjectID] = []
                var after: ObjectID?
                repeat {
                    let page = try await list(client, after: after, limit: limit)
                    #expect(page.objects.count <= max(1, Int(limit)))
                    found += page.objects
                    after = page.next
                } while after != nil
                #expect(found.count == 20)
                #expect(Set(found) == Set((1...20).map { ObjectID(UInt64($0)) }))
            }
        }
    }

    @Test("I11: a byte that changed on the disk is a medium error, for verify and for get")
    func corruption() async throws {
        try await withServer { cluster, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [2, 4])).isOK)
            let verify = VerifyObject(object: ObjectID(1))
            #expect(try await client.call(verify, deadlineMilliseconds: patience).isOK)
            let files = FileManager.default.enumerator(atPath: cluster.directory + "/root")?.compactMap {
                $0 as? String
            }
            let name = try #require(files?.first { $0.hasSuffix(".object") })
            let path = "\(cluster.directory)/root/\(name)"
            let file = try #require(FileHandle(forUpdatingAtPath: path))
            let end = try file.seekToEnd()
            try file.seek(toOffset: end - 1)
            let last = try #require(try file.readToEnd()?.first)
            try file.seek(toOffset: end - 1)
            try file.write(contentsOf: Data([last ^ 1]))
            try file.close()
            #expect(try await client.call(verify, deadlineMilliseconds: patience).status == .mediumError)
            #expect(try await get(client, 1, first: 1, count: 1).status == .mediumError)
            #expect(try await get(client, 1, first: 0, count: 2).error?.damagedSlot == SlotIndex(1), "it is named")
            #expect(try await get(client, 1, first: 0, count: 1).isOK)
        }
    }

    @Test("The numbers are those of what is stored")
    func statistics() async throws {
        try await withServer(roots: ["a", "b"]) { _, _, client async throws in
            let bytes = try object(1, seeds: [2])
            #expect(try await put(client, 1, bytes).isOK)
            let (answer, _) = try await client.call(
                ObjectStatistics(),
                answer: ObjectStatistics.Answer.self,
                deadlineMilliseconds: patience
            )
            #expect(answer.server == ObjectServerID(7))
            #expect(answer.objects == 1)
            #expect(answer.bytes == UInt64(bytes.readableBytes))
            #expect(answer.freeBytes > 0)
            #expect(answer.rootsOutOfService == 0)
        }
    }

    /// Any bytes under any type.
    private struct Raw<Kind: RPCMessage>: RPCMessage {
        static var type: RPCMessageType { Kind.type }
        var bytes: ByteBuffer
        init(_ bytes: ByteBuffer) { self.bytes = bytes }
        init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) { bytes = buffer }
        func encode(into buffer: inout ByteBuffer) { buffer.writeImmutableBuffer(bytes) }
    }

    @Test("Requests that are cut off, too long, or for somebody else are answered as such")
    func badRequests() async throws {
        try await withServer { _, _, client async throws in
            func status<M: RPCMessage>(_ message: M) async throws -> RPCStatus {
                try await client.call(message, deadlineMilliseconds: patience).status
            }
            var long = ByteBuffer()
            GetSlots(object: ObjectID(1), firstSlot: SlotIndex(0), count: 1).encode(into: &long)
            for length in 0..<long.readableBytes {
                let cut = try #require(long.getSlice(at: 0, length: length))
                #expect(try await status(Raw<GetSlots>(cut)) == .invalidMessage)
            }
            long.writeInteger(UInt8(0))
            #expect(try await status(Raw<GetSlots>(long)) == .invalidMessage)
            let short = ByteBuffer(bytes: [1, 2, 3])
            #expect(try await status(Raw<PutObject>(short)) == .invalidMessage)
            #expect(try await status(Raw<DeleteObject>(short)) == .invalidMessage)
            #expect(try await status(Raw<ListObjects>(short)) == .invalidMessage)
            #expect(try await status(Raw<VerifyObject>(short)) == .invalidMessage)
            #expect(try await status(Raw<ObjectStatistics>(short)) == .invalidMessage)
            #expect(try await status(Evict()) == .unsupported)
            #expect(try await status(ObjectStatistics()) == .ok)
        }
    }

    @Test("Many requests at once are each answered with their own object")
    func manyAtOnce() async throws {
        try await withServer { _, _, client async throws in
            let ids = (1...64).map { UInt64($0) }
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for id in ids {
                    group.addTask { try await put(client, id, object(id, seeds: [2 * id])).isOK }
                }
                for try await isOK in group { #expect(isOK) }
            }
            try await withThrowingTaskGroup(of: Bool.self) { group in
                for id in ids {
                    group.addTask {
                        var answer = try await get(client, id, first: 0, count: 1)
                        _ = try answer.decode(GetSlots.Answer.self)
                        return answer.body == block(seed: 2 * id)
                    }
                }
                for try await isRight in group { #expect(isRight) }
            }
        }
    }

    @Test("The header of an object says whose blocks it holds, and which")
    func header() async throws {
        try await withServer(as: .control) { _, _, client async throws in
            #expect(try await put(client, 1, object(1, seeds: [1, 2, 0])).isOK)
            let (answer, _) = try await client.call(
                ObjectHeader(object: ObjectID(1)),
                answer: ObjectHeader.Answer.self,
                deadlineMilliseconds: patience
            )
            #expect(answer.blockSizeBytes == 4_096 && answer.uuid.count == 16)
            #expect(answer.slots.map(\.block) == [10, 11, 12].map { BlockID($0) })
            #expect(answer.slots.map(\.version) == [100, 101, 102].map { Version($0) })
            let missing = try await client.call(ObjectHeader(object: ObjectID(2)), deadlineMilliseconds: patience)
            #expect(missing.status == .noSuchObject)
        }
    }

    @Test(
        "M8: the clock of the database only grows, and only agents and control may raise it",
        arguments: [
            Role.agent, .control, .target, .cache,
        ]
    )
    func clock(role: Role) async throws {
        try await withServer(as: role) { _, _, client async throws in
            var answer = try await client.call(RaiseClock(clock: 5), deadlineMilliseconds: patience)
            guard role == .agent || role == .control else {
                #expect(answer.status == .unsupported)
                return
            }
            let first = try answer.decode(RaiseClock.Answer.self)
            #expect(first.clock == 5 && first.highestObject == ObjectID(0))
            #expect(try await put(client, 9, object(9, seeds: [1])).isOK)
            var again = try await client.call(RaiseClock(clock: 3), deadlineMilliseconds: patience)
            let second = try again.decode(RaiseClock.Answer.self)
            #expect(second.clock == 5 && second.highestObject == ObjectID(9))
        }
    }

    @Test("Every error of the store has a status of its own meaning")
    func errorMapping() {
        let expected: [(ObjectStoreError.Code, RPCStatus)] = [
            (.noSpace, .noSpace), (.inputOutput, .inputOutput), (.rootOutOfService, .inputOutput),
            (.notFound, .noSuchObject), (.exists, .exists), (.corrupt, .mediumError), (.invalid, .invalidMessage),
            (.busy, .busy), (.closed, .busy), (.refused, .internalError),
        ]
        for (code, status) in expected {
            let error = RPCError(ObjectStoreError(code, "why"), answering: PutObject.type)
            #expect(error.status == status)
            #expect(error.message == "why")
        }
        #expect(RPCError(ObjectStoreError(.invalid, "why"), answering: GetSlots.type).status == .outOfRange)
    }
}
