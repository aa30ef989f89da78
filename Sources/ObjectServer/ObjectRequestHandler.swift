import AshlarCore
import BlockObjects
import Logging
import NIOCore
import ObjectStore
import Observability
import RPC
import Transport

/// Answers the requests of one connection. Bound to its event loop: the store does the work on its threads and comes
/// back here.
///
/// Every request is answered exactly once, in the order in which the store is done with them.
final class ObjectRequestHandler: RPCConnectionHandler {

    private let store: ObjectStore
    private let serverID: ObjectServerID
    private let metrics: ObjectServerMetrics
    private let logger: Logger

    init(store: ObjectStore, serverID: ObjectServerID, metrics: ObjectServerMetrics, logger: Logger) {
        self.store = store
        self.serverID = serverID
        self.metrics = metrics
        self.logger = logger
    }

    func requestReceived(_ request: RPCRequest, connection: RPCServerConnection) {
        metrics.countRequest(request.type)
        do throws(RPCError) {
            switch request.type {
            case PutObject.type: try put(request, connection)
            case GetSlots.type: try get(request, connection)
            case DeleteObject.type: try delete(request, connection)
            case ListObjects.type: try list(request, connection)
            case VerifyObject.type: try verify(request, connection)
            case ObjectStatistics.type: try statistics(request, connection)
            case ObjectHeader.type: try header(request, connection)
            case RaiseClock.type: try raiseClock(request, connection)
            default: throw RPCError(.unsupported, "message type \(request.type) is not for an object server")
            }
        } catch {
            fail(request.handle, error, connection)
        }
    }

    func readCompleted(connection: RPCServerConnection) {}

    func connectionClosed(connection: RPCServerConnection) {}

    // MARK: - Requests

    private func put(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let (message, object) = try decode(PutObject.self, request)
        let count = object.readableBytes
        guard count <= Limits.objectMaximumBytes else {
            throw RPCError(
                .invalidMessage,
                "an object of \(count) bytes; at most \(Limits.objectMaximumBytes) are allowed"
            )
        }
        let answer = Answer(self, request, connection, message.object)
        // What targets put are large writes, streams mostly; what agents put was small, and is read at random.
        let isCached = connection.peer.node.role != .target
        store.put(message.object, bytes: object, isCached: isCached) { result in
            answer.send(result) { handler, connection, handle, outcome in
                if outcome == .stored { handler.metrics.bytesPut.increment(by: UInt64(count)) }
                connection.respond(to: handle)
            }
        }
    }

    private func get(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(GetSlots.self, request)
        let (end, overflow) = message.firstSlot.rawValue.addingReportingOverflow(message.count)
        guard message.count > 0, !overflow, end <= Limits.objectSlotsMaximum else {
            throw RPCError(.outOfRange, "\(message.count) slots from slot \(message.firstSlot) on: no object has them")
        }
        let slots = (message.firstSlot.rawValue..<end).map { SlotIndex($0) }
        let answer = Answer(self, request, connection, message.object)
        store.get(message.object, slots: .slots(slots)) { result in
            answer.send(result) { handler, connection, handle, found in
                handler.respond(to: handle, found, firstSlot: message.firstSlot, connection)
            }
        }
    }

    private func respond(
        to handle: RPCRequestHandle,
        _ found: StoredObject,
        firstSlot: SlotIndex,
        _ connection: RPCServerConnection
    ) {
        var slots: [GetSlots.Slot] = []
        slots.reserveCapacity(found.slots.count)
        var bytes = 0
        for (entry, stored) in zip(found.header.slots[Int(firstSlot.rawValue)...], found.slots) {
            let count = stored.bytes.readableBytes
            bytes += count
            slots.append(
                GetSlots.Slot(
                    block: entry.block,
                    version: entry.version,
                    checksum: stored.checksum,
                    encoding: stored.encoding.rawValue,
                    storedBytes: UInt32(count)
                )
            )
        }
        metrics.slotsRead.increment(by: UInt64(slots.count))
        metrics.bytesRead.increment(by: UInt64(bytes))
        let message = GetSlots.Answer(blockSizeBytes: found.header.blockSizeBytes, slots: slots)
        connection.respond(to: handle, message, payload: found.payload)
    }

    private func delete(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(DeleteObject.self, request)
        // Only who collects may delete: a target or a cache server never has a reason to.
        guard connection.peer.node.role == .agent || connection.peer.node.role == .control else {
            throw RPCError(.unsupported, "role \(connection.peer.node.role.rawValue) may not delete objects")
        }
        let answer = Answer(self, request, connection, message.object)
        store.delete(message.object) { result in
            answer.send(result) { _, connection, handle, _ in connection.respond(to: handle) }
        }
    }

    private func list(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(ListObjects.self, request)
        let maximum = min(RPCMessageLimits.objectsMaximum, ObjectStoreLimits.listMaximum)
        let limit = min(max(1, Int(message.limit)), maximum)
        let answer = Answer(self, request, connection, nil)
        store.list(after: message.after, limit: limit) { result in
            answer.send(result) { _, connection, handle, page in
                connection.respond(to: handle, ListObjects.Answer(objects: page.ids, next: page.next))
            }
        }
    }

    private func verify(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(VerifyObject.self, request)
        let answer = Answer(self, request, connection, message.object)
        store.verify(message.object) { result in
            answer.send(result) { _, connection, handle, _ in connection.respond(to: handle) }
        }
    }

    private func statistics(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        _ = try decodeWhole(ObjectStatistics.self, request)
        let answer = Answer(self, request, connection, nil)
        store.statistics { result in
            answer.send(result) { handler, connection, handle, statistics in
                handler.metrics.record(statistics)
                connection.respond(
                    to: handle,
                    ObjectStatistics.Answer(
                        server: handler.serverID,
                        objects: statistics.objects,
                        bytes: statistics.bytes,
                        freeBytes: statistics.freeBytes,
                        rootsOutOfService: UInt32(statistics.rootsOutOfService)
                    )
                )
            }
        }
    }

    private func header(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(ObjectHeader.self, request)
        let answer = Answer(self, request, connection, message.object)
        store.header(message.object) { result in
            answer.send(result) { _, connection, handle, header in
                connection.respond(
                    to: handle,
                    ObjectHeader.Answer(
                        volume: header.volumeID,
                        uuid: header.volumeUUID,
                        blockSizeBytes: header.blockSizeBytes,
                        sizeBytes: UInt64(header.objectBytes),
                        slots: header.slots.map { ObjectHeader.Slot(block: $0.block, version: $0.version) }
                    )
                )
            }
        }
    }

    private func raiseClock(_ request: RPCRequest, _ connection: RPCServerConnection) throws(RPCError) {
        let message = try decodeWhole(RaiseClock.self, request)
        // A clock that is too high would have nothing deleted any more.
        guard connection.peer.node.role == .agent || connection.peer.node.role == .control else {
            throw RPCError(.unsupported, "role \(connection.peer.node.role.rawValue) may not raise the clock")
        }
        let answer = Answer(self, request, connection, nil)
        store.raiseClock(message.clock) { result in
            answer.send(result) { _, connection, handle, known in
                connection.respond(
                    to: handle,
                    RaiseClock.Answer(clock: known.clock, highestObject: known.highestObject)
                )
            }
        }
    }

    // MARK: - Answers

    /// A request on its way through the store: carries the loop-bound ends of it to another thread and back.
    private struct Answer: Sendable {
        let handler: NIOLoopBound<ObjectRequestHandler>
        let connection: NIOLoopBound<RPCServerConnection>
        let handle: RPCRequestHandle
        let type: RPCMessageType
        /// For log lines.
        let object: ObjectID?

        init(
            _ handler: ObjectRequestHandler,
            _ request: RPCRequest,
            _ connection: RPCServerConnection,
            _ object: ObjectID?
        ) {
            self.handler = NIOLoopBound(handler, eventLoop: connection.eventLoop)
            self.connection = connection.loopBound
            handle = request.handle
            type = request.type
            self.object = object
        }

        /// Answers: with the store's error, or as `body` says. On the connection's loop.
        func send<Value>(
            _ result: Result<Value, ObjectStoreError>,
            _ body: (ObjectRequestHandler, RPCServerConnection, RPCRequestHandle, Value) -> Void
        ) {
            switch result {
            case .success(let value): body(handler.value, connection.value, handle, value)
            case .failure(let error):
                handler.value.report(error, object: object)
                handler.value.fail(handle, RPCError(error, answering: type), connection.value)
            }
        }
    }

    private func fail(_ handle: RPCRequestHandle, _ error: RPCError, _ connection: RPCServerConnection) {
        metrics.countFailure(error.status)
        connection.respond(to: handle, error: error)
    }

    /// What an operator has to know; the rest concerns only the peer.
    private func report(_ error: ObjectStoreError, object: ObjectID?) {
        let level: Logger.Level =
            switch error.code {
            case .corrupt, .exists: .error
            case .inputOutput, .rootOutOfService, .noSpace: .warning
            default: .debug
            }
        logger.log(
            level: level,
            "request failed",
            metadata: ["object": "\(object.map { "\($0)" } ?? "none")", "reason": "\(error)"]
        )
    }

    private func decode<M: RPCMessage>(_ type: M.Type, _ request: RPCRequest) throws(RPCError) -> (M, ByteBuffer) {
        var body = request.body
        do {
            let message = try M(decoding: &body)
            return (message, body.slice())
        } catch {
            throw RPCError(.invalidMessage, "message type \(request.type): \(error)")
        }
    }

    private func decodeWhole<M: RPCMessage>(_ type: M.Type, _ request: RPCRequest) throws(RPCError) -> M {
        let (message, rest) = try decode(type, request)
        guard rest.readableBytes == 0 else {
            let error = RPCDecodingError.trailingBytes(rest.readableBytes)
            throw RPCError(.invalidMessage, "message type \(request.type): \(error)")
        }
        return message
    }
}
