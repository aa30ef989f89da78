import AshlarCore
import NIOCore
import NIOPosix
import RPC
import Synchronization
import Transport

/// A cache server in memory: one volume with its items, extents and objects, under the rules of moving (M1, M5 to M8).
final class FakeCache: Sendable {
    struct Item {
        var version: Version
        var bytes: ByteBuffer
        var isMoved = false
    }

    struct Place: Hashable {
        var object: ObjectID
        var slot: SlotIndex
    }

    enum RowState { case intended, live, dead }

    struct Row {
        var state: RowState
        var server = ObjectServerID(0)
    }

    struct State {
        var items: [BlockID: Item] = [:]
        var extents: [BlockID: Place] = [:]
        var rows: [ObjectID: Row] = [:]
        var nextVersion: UInt64 = 1
        var nextObject: UInt64 = 1
        /// Blocks that are being moved.
        var handedOut: [ObjectID: [BlockID]] = [:]
        var handedOutMaximum = 0
        var blocksInWork = 4
        /// Sources that are to be compacted.
        var sparse: Set<ObjectID> = []
        /// Requests in the order of their arrival.
        var received: [RPCMessageType] = []
        var refusals: [RPCMessageType: RPCError] = [:]
        /// Called with the answer to a question for moves before it goes out.
        var onMoveWork: (@Sendable (inout State, inout MoveWork.Answer, inout ByteBuffer) -> Void)?
        var onCompactionWork: (@Sendable (inout State, inout CompactionWork.Answer) -> Void)?
        /// Types whose answers are held back, and those answers.
        var held: Set<RPCMessageType> = []
        var heldAnswers: [@Sendable () -> Void] = []
        var evictions: [CountAnswer] = []
        /// The clock of the database; nextObject is the other half of its age.
        var clock: UInt64 = 0
        var draining: [ObjectServerID] = []
        var scrubWork: [ScrubWork.Object] = []
        var reports: [ReportObjects] = []
    }

    static let volume = VolumeID(3)
    static let uuid = [UInt8](repeating: 9, count: 16)
    static let blockSizeBytes: UInt32 = 4_096

    private let state = Mutex(State())
    private let server = Mutex<RPCServer?>(nil)

    static func start(_ cluster: TestCluster, name: String = "cache-1") async throws -> FakeCache {
        let cache = FakeCache()
        let started = try await RPCServer.start(
            RPCServer.Configuration(
                host: "127.0.0.1",
                port: 0,
                identity: try cluster.identity(.cache, name),
                acceptedRoles: [.agent]
            ),
            group: MultiThreadedEventLoopGroup.singleton,
            logger: quiet
        ) { _ in FakeCacheHandler(cache) }
        cache.server.withLock { $0 = started }
        return cache
    }

    var endpoint: String { server.withLock { $0.map { "\($0.endpoint)" } ?? "" } }

    func stop() async {
        release()
        await server.withLock { $0 }?.shutdown()
    }

    func with<Value: Sendable>(_ body: (inout State) -> sending Value) -> Value { state.withLock { body(&$0) } }

    /// Writes blocks with ascending ids and bytes of these seeds.
    func write(from first: UInt64, seeds: [UInt64]) {
        with { state in
            for (index, seed) in seeds.enumerated() {
                state.write(BlockID(first + UInt64(index)), block(seed: seed))
            }
        }
    }

    /// Lets answers go that were held back, and holds no more back.
    func release() {
        let answers = with { state in
            state.held = []
            defer { state.heldAnswers = [] }
            return state.heldAnswers
        }
        for answer in answers { answer() }
    }

    /// What a reader of the volume is to find.
    var unmoved: Int { with { $0.items.values.count { !$0.isMoved } } }
}

extension FakeCache.State {
    mutating func write(_ id: BlockID, _ bytes: ByteBuffer) {
        items[id] = FakeCache.Item(version: Version(nextVersion), bytes: bytes)
        nextVersion += 1
    }

    mutating func intend() -> ObjectID {
        let object = ObjectID(nextObject)
        nextObject += 1
        rows[object] = FakeCache.Row(state: .intended)
        return object
    }

    mutating func moveWork() -> (MoveWork.Answer, ByteBuffer) {
        let taken = Set(handedOut.values.joined())
        let blocks = items.filter { !$0.value.isMoved && !taken.contains($0.key) }.keys.sorted().prefix(blocksInWork)
        var answer = MoveWork.Answer(
            volume: FakeCache.volume,
            uuid: FakeCache.uuid,
            blockSizeBytes: FakeCache.blockSizeBytes,
            object: ObjectID(0),
            blocks: []
        )
        var payload = ByteBuffer()
        guard !blocks.isEmpty else { return (answer, payload) }
        answer.object = intend()
        for id in blocks {
            guard let item = items[id] else { continue }
            answer.blocks.append(
                MoveWork.Block(block: id, version: item.version, checksum: item.bytes.checksum)
            )
            payload.writeImmutableBuffer(item.bytes)
        }
        handedOut[answer.object] = Array(blocks)
        handedOutMaximum = max(handedOutMaximum, handedOut.count)
        onMoveWork?(&self, &answer, &payload)
        return (answer, payload)
    }

    /// M1: only for an object that is still intended, and only where the version is still that of the slot (I5).
    mutating func map(_ move: MapMove) throws(RPCError) -> CountAnswer {
        handedOut[move.object] = nil
        guard rows[move.object]?.state == .intended else { throw RPCError(.aborted, "not intended") }
        var count: UInt64 = 0
        for (index, slot) in move.slots.enumerated() where items[slot.block]?.version == slot.version {
            extents[slot.block] = FakeCache.Place(object: move.object, slot: SlotIndex(UInt32(index)))
            items[slot.block]?.isMoved = true
            count += 1
        }
        rows[move.object] = FakeCache.Row(state: .live, server: move.server)
        return CountAnswer(count: count)
    }

    mutating func compactionWork() -> CompactionWork.Answer {
        var answer = CompactionWork.Answer(
            volume: FakeCache.volume,
            uuid: FakeCache.uuid,
            blockSizeBytes: FakeCache.blockSizeBytes,
            object: ObjectID(0),
            runs: []
        )
        for (id, place) in extents.sorted(by: { $0.key < $1.key }) where sparse.contains(place.object) {
            answer.runs.append(
                CompactionWork.LiveRun(
                    blocks: BlockRange(first: id, count: 1),
                    source: place.object,
                    server: rows[place.object]?.server ?? ObjectServerID(0),
                    firstSlot: place.slot
                )
            )
        }
        guard !answer.runs.isEmpty else { return answer }
        answer.object = intend()
        onCompactionWork?(&self, &answer)
        return answer
    }

    /// M6: a slot only where the extent still names its source.
    mutating func map(_ compaction: MapCompaction) throws(RPCError) -> CountAnswer {
        guard rows[compaction.object]?.state == .intended else { throw RPCError(.aborted, "not intended") }
        var count: UInt64 = 0
        for (index, slot) in compaction.slots.enumerated() {
            let source = FakeCache.Place(object: slot.source, slot: slot.sourceSlot)
            guard extents[slot.block] == source else { continue }
            extents[slot.block] = FakeCache.Place(object: compaction.object, slot: SlotIndex(UInt32(index)))
            count += 1
        }
        rows[compaction.object] = FakeCache.Row(state: .live, server: compaction.server)
        return CountAnswer(count: count)
    }

    /// M7; ages count for nothing here.
    mutating func collect() -> Collect.Answer {
        let used = Set(extents.values.map(\.object))
        for (object, row) in rows where row.state != .dead && !used.contains(object) && handedOut[object] == nil {
            rows[object]?.state = .dead
        }
        let dead = rows.filter { $0.value.state == .dead }.sorted { $0.key < $1.key }
        return Collect.Answer(objects: dead.map { Collect.DeadObject(object: $0.key, server: $0.value.server) })
    }
}

private final class FakeCacheHandler: RPCConnectionHandler {
    private let cache: FakeCache

    init(_ cache: FakeCache) { self.cache = cache }

    func readCompleted(connection: RPCServerConnection) {}
    func connectionClosed(connection: RPCServerConnection) {}

    func requestReceived(_ request: RPCRequest, connection: RPCServerConnection) {
        let bound = connection.loopBound
        let handle = request.handle
        let result = cache.with { state -> Result<(ByteBuffer, ByteBuffer), RPCError> in
            state.received.append(request.type)
            do throws(RPCError) {
                if let refusal = state.refusals[request.type] { throw refusal }
                return .success(try Self.answer(request, &state))
            } catch {
                return .failure(error)
            }
        }
        let send: @Sendable () -> Void = {
            switch result {
            case .success(let (body, payload)): bound.value.respond(to: handle, body: body, payload: [payload])
            case .failure(let error): bound.value.respond(to: handle, error: error)
            }
        }
        let isHeld = cache.with { state in
            guard state.held.contains(request.type) else { return false }
            let eventLoop = bound.value.eventLoop
            state.heldAnswers.append { eventLoop.execute(send) }
            return true
        }
        if !isHeld { send() }
    }

    private static func answer(
        _ request: RPCRequest,
        _ state: inout FakeCache.State
    ) throws(RPCError) -> (ByteBuffer, ByteBuffer) {
        var body = ByteBuffer()
        var payload = ByteBuffer()
        switch request.type {
        case MoveWork.type:
            let (answer, bytes) = state.moveWork()
            answer.encode(into: &body)
            payload = bytes
        case MapMove.type: try state.map(decode(MapMove.self, request)).encode(into: &body)
        case CompactionWork.type: state.compactionWork().encode(into: &body)
        case MapCompaction.type: try state.map(decode(MapCompaction.self, request)).encode(into: &body)
        case Evict.type:
            let answer = state.evictions.isEmpty ? CountAnswer(count: 0) : state.evictions.removeFirst()
            answer.encode(into: &body)
        case Collect.type: state.collect().encode(into: &body)
        case ForgetObjects.type:
            for object in try decode(ForgetObjects.self, request).names.objects { state.rows[object] = nil }
        case KnownObjects.type:
            let asked = try decode(KnownObjects.self, request).names.objects
            KnownObjects(asked.filter { state.rows[$0] != nil }).encode(into: &body)
        case DatabaseAge.type:
            let marks = try decode(DatabaseAge.self, request).marks
            let isBehind = marks.contains { $0.clock > state.clock || $0.highestObject.rawValue >= state.nextObject }
            if !isBehind { state.clock += 1 }
            DatabaseAge.Answer(isBehind: isBehind, clock: state.clock, nextObject: ObjectID(state.nextObject))
                .encode(into: &body)
        case DrainingServers.type: DrainingServers.Answer(servers: state.draining).encode(into: &body)
        case ScrubWork.type:
            ScrubWork.Answer(token: 7, objects: state.scrubWork, items: 0).encode(into: &body)
            state.scrubWork = []
        case ReportObjects.type:
            state.reports.append(try decode(ReportObjects.self, request))
            CountAnswer(count: 0).encode(into: &body)
        default: throw RPCError(.unsupported, "not for a cache server")
        }
        return (body, payload)
    }

    private static func decode<M: RPCMessage>(_ type: M.Type, _ request: RPCRequest) throws(RPCError) -> M {
        var body = request.body
        do {
            return try M(decoding: &body)
        } catch {
            throw RPCError(.invalidMessage, "\(error)")
        }
    }
}

extension ByteBuffer {
    var checksum: Checksum { withUnsafeReadableBytes { Checksum(of: $0) } }
}

/// Bytes of a block: 0 gives zeros, odd seeds text that compresses, even ones noise that does not.
func block(seed: UInt64, count: Int = Int(FakeCache.blockSizeBytes)) -> ByteBuffer {
    var state = seed
    var buffer = ByteBuffer()
    for index in 0..<count {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let text = UInt8(truncatingIfNeeded: seed) &+ UInt8(index % 7)
        buffer.writeInteger(seed == 0 ? 0 : seed % 2 == 1 ? text : UInt8(truncatingIfNeeded: state >> 56))
    }
    return buffer
}
