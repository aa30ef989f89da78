public import Logging
public import NIOCore
public import RPC

/// An ``RPCClient`` for any thread or task: every call hops to its loop. For control-plane use; the data path stays on
/// the loop.
public struct RPCClientHandle: Sendable {
    private let eventLoop: any EventLoop
    private let box: NIOLoopBoundBox<RPCClient?>

    init(_ client: RPCClient) {
        eventLoop = client.eventLoop
        box = NIOLoopBoundBox(client, eventLoop: client.eventLoop)
    }

    private init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        box = NIOLoopBoundBox.makeEmptyBox(valueType: RPCClient.self, eventLoop: eventLoop)
    }

    /// Makes a client on `eventLoop` and starts it; does not wait for the connection.
    public static func connect(
        on eventLoop: any EventLoop,
        configuration: RPCClient.Configuration,
        logger: Logger,
        onStateChange: (@Sendable (RPCClient.State) -> Void)? = nil
    ) -> RPCClientHandle {
        let handle = RPCClientHandle(eventLoop: eventLoop)
        eventLoop.execute {
            let client = RPCClient(
                eventLoop: eventLoop,
                configuration: configuration,
                logger: logger,
                onStateChange: onStateChange
            )
            handle.box.value = client
            client.start()
        }
        return handle
    }

    /// Sends a request and waits for its answer; without a connection it first waits for one.
    ///
    /// - Parameter deadlineMilliseconds: bounds all the waiting; 0 for none.
    /// - Throws: ``RPCFailure`` where there is no answer. An answer with another status than ok is returned.
    public func call<M: RPCMessage>(
        _ message: M,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32
    ) async throws(RPCFailure) -> RPCAnswer {
        let result: Result<RPCAnswer, RPCFailure> = await withCheckedContinuation { continuation in
            eventLoop.execute {
                guard let client = box.value else {
                    continuation.resume(returning: .failure(Self.closed))
                    return
                }
                client.send(
                    message,
                    payload: payload,
                    deadlineMilliseconds: deadlineMilliseconds,
                    waitsForConnection: true
                ) { continuation.resume(returning: $0) }
            }
        }
        return try result.get()
    }

    /// Sends a request and decodes its answer.
    ///
    /// - Returns: the answer's message, and the bytes behind it.
    /// - Throws: ``RPCFailure`` where there is no answer, ``RPCError`` where its status is not ok.
    public func call<M: RPCMessage, A: RPCMessage>(
        _ message: M,
        answer type: A.Type,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32
    ) async throws -> (A, payload: ByteBuffer) {
        var answer = try await call(message, payload: payload, deadlineMilliseconds: deadlineMilliseconds)
        let decoded = try answer.decode(A.self)
        return (decoded, answer.body)
    }

    /// Sends a request from any thread; the completion is called on the client's loop.
    public func send<M: RPCMessage>(
        _ message: M,
        payload: [ByteBuffer] = [],
        deadlineMilliseconds: UInt32,
        waitsForConnection: Bool = false,
        completion: @escaping @Sendable (Result<RPCAnswer, RPCFailure>) -> Void
    ) {
        eventLoop.execute {
            guard let client = box.value else {
                completion(.failure(Self.closed))
                return
            }
            client.send(
                message,
                payload: payload,
                deadlineMilliseconds: deadlineMilliseconds,
                waitsForConnection: waitsForConnection,
                completion: completion
            )
        }
    }

    /// What the connection is up to.
    public func state() async -> RPCClient.State {
        await withCheckedContinuation { continuation in
            eventLoop.execute { continuation.resume(returning: box.value?.state ?? .closed) }
        }
    }

    /// Closes the client for good.
    public func close() async {
        await withCheckedContinuation { continuation in
            eventLoop.execute {
                box.value?.close()
                box.value = nil
                continuation.resume()
            }
        }
    }

    private static let closed = RPCFailure(.notSent, mayHaveExecuted: false, "client closed")
}
