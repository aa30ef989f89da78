public import AshlarCore
public import NIOCore
public import RPC

/// The application's end of a server connection. One per connection, made by the server's factory once the peer is
/// accepted; all calls on the connection's event loop.
public protocol RPCConnectionHandler: AnyObject {
    /// A request has arrived. It is answered exactly once, now or later, through `connection`.
    func requestReceived(_ request: RPCRequest, connection: RPCServerConnection)
    /// The last request of a read was handed over; what was answered so far is flushed after this returns.
    func readCompleted(connection: RPCServerConnection)
    /// The connection has ended; called once. Answers after it are dropped.
    func connectionClosed(connection: RPCServerConnection)
}

/// An accepted connection, as the application sees it.
///
/// - warning: Bound to `eventLoop`: every call must be made there. Other threads go through `loopBound`.
public final class RPCServerConnection {
    /// The loop that everything happens on.
    public let eventLoop: any EventLoop
    /// The other end.
    public let peer: RPCPeer
    /// A number of this connection, unique in its server.
    public let id: UInt64
    private let channel: RPCChannelHandler

    init(eventLoop: any EventLoop, peer: RPCPeer, id: UInt64, channel: RPCChannelHandler) {
        self.eventLoop = eventLoop
        self.peer = peer
        self.id = id
        self.channel = channel
    }

    /// Whether answers still reach the peer.
    public var isOpen: Bool { channel.isOpen }

    /// Requests that are not answered yet.
    public var requestsToAnswer: Int { channel.machine.requestsToAnswer }

    /// Bytes of answers that wait for the peer's credit.
    public var waitingBytes: Int { channel.machine.waitingBytes }

    /// Answers with a message and status ok. Not flushed: see ``flush()``.
    ///
    /// - Parameter payload: what follows the message, in order. Large buffers are not copied.
    @inlinable
    public func respond<M: RPCMessage>(to handle: RPCRequestHandle, _ message: M, payload: [ByteBuffer] = []) {
        respond(to: handle, status: .ok, payload: payload) { message.encode(into: &$0) }
    }

    /// Answers with a body that is made already. Not flushed: see ``flush()``.
    public func respond(
        to handle: RPCRequestHandle,
        status: RPCStatus = .ok,
        body: ByteBuffer = ByteBuffer(),
        payload: [ByteBuffer] = []
    ) {
        respond(to: handle, status: status, payload: payload) { $0.writeImmutableBuffer(body) }
    }

    /// Answers with an error. Not flushed: see ``flush()``.
    public func respond(to handle: RPCRequestHandle, error: RPCError) {
        respond(to: handle, status: error.status, payload: []) { error.encode(into: &$0) }
    }

    @usableFromInline
    func respond(
        to handle: RPCRequestHandle,
        status: RPCStatus,
        payload: [ByteBuffer],
        encode: (inout ByteBuffer) -> Void
    ) {
        eventLoop.assertInEventLoop()
        channel.respond(to: handle, status: status, payload: payload, encode: encode)
    }

    /// Sends what was answered. Without it that happens at the end of the loop's turn, or of the read.
    public func flush() {
        eventLoop.assertInEventLoop()
        channel.flushNow()
    }

    /// Ends the connection.
    public func close(reason: String) {
        eventLoop.assertInEventLoop()
        channel.close(RPCCloseReason(.none, reason))
    }

    /// A box to carry this connection to another thread and back to its loop.
    public var loopBound: NIOLoopBound<RPCServerConnection> { NIOLoopBound(self, eventLoop: eventLoop) }

    /// The present on the clock of deadlines.
    public var now: MonotonicTime { RPCClock.now }
}
