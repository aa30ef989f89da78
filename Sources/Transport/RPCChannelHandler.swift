import AshlarCore
import NIOCore
import NIOSSL
import RPC

/// What a connection tells its user. All calls on the connection's loop.
protocol RPCChannelDelegate: AnyObject {
    func connectionEstablished(_ remote: RPCRemote)
    func requestReceived(_ request: RPCRequest)
    func answerReceived(_ id: RPCRequestID, _ answer: RPCAnswer)
    func requestsFailed(_ requests: [RPCRequestID], _ failure: RPCFailure)
    func connectionDraining(_ reason: RPCCloseReason)
    /// After the last frame of a read, before its flush.
    func readCompleted()
    /// Once; nothing is told after it.
    func connectionClosed(_ reason: RPCCloseReason)
}

/// Runs the actions of an `RPCConnectionStateMachine` on a channel: the only place that writes, flushes and closes.
///
/// - Frames are cut from the read buffer and handed on as slices, on the loop, without a task or a promise.
/// - Everything written during a read leaves with one flush at its end; everything written outside leaves with one
///   flush at the end of the loop's turn, or sooner where `flush()` is called.
/// - `output` holds frames that are not yet handed to the channel; the order of frames is that of `output` and of what
///   went to the channel before it.
final class RPCChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private(set) var machine: RPCConnectionStateMachine
    private var decoder = RPCFrameDecoder(frameMaximumBytes: RPCLimits.handshakeFrameMaximumBytes)
    private let frameMaximumBytes: Int
    private let tickInterval: TimeAmount
    private weak var delegate: (any RPCChannelDelegate)?
    private var context: ChannelHandlerContext?
    private var output = ByteBuffer()
    private var hasUnflushedWrites = false
    private var isReading = false
    private var isFlushScheduled = false
    private var isPeerKnown = false
    private var isClosing = false
    private var readTime: MonotonicTime?
    private var tickTask: RepeatedTask?
    private let refusal: RPCCloseReason?
    private var hasBeenAdopted = false
    private var closeReason: RPCCloseReason?
    private(set) var remoteAddress = "unknown"

    /// - Parameter refusal: where there is one, the peer is refused with it as soon as it speaks.
    init(
        _ configuration: RPCConnectionConfiguration,
        tickInterval: TimeAmount,
        refusal: RPCCloseReason? = nil
    ) {
        machine = RPCConnectionStateMachine(configuration)
        frameMaximumBytes = configuration.frameMaximumBytes
        self.tickInterval = tickInterval
        self.refusal = refusal
    }

    /// Binds the connection to its user; before, nobody is told anything.
    ///
    /// - Returns: why the connection has ended, where it has already.
    func adopt(by delegate: any RPCChannelDelegate) -> RPCCloseReason? {
        hasBeenAdopted = true
        if closeReason == nil { self.delegate = delegate }
        return closeReason
    }

    private var now: MonotonicTime { readTime ?? RPCClock.now }

    // MARK: - Channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { start(context) }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        finish(RPCCloseReason(.none, "connection closed"))
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        start(context)
        context.fireChannelActive()
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(RPCCloseReason(.none, "connection closed by the peer"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let tlsError = error as? NIOSSLError, case .uncleanShutdown = tlsError {
            finish(RPCCloseReason(.none, "connection closed by the peer without notice"))
        } else {
            finish(RPCCloseReason(.none, ConnectionErrorText.text(of: error)))
        }
        context.close(promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isClosing else { return }
        isReading = true
        if readTime == nil { readTime = RPCClock.now }
        if !isPeerKnown { learnPeer(context) }
        if let refusal, !machine.isClosed {
            run(machine.refusePeer(refusal))
            return
        }
        decoder.append(unwrapInboundIn(data))
        processFrames()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if isReading {
            delegate?.readCompleted()
            // No longer reading: should the socket become writable in this flush, more may leave at once.
            isReading = false
            flushNow()
            readTime = nil
        }
        context.fireChannelReadComplete()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable, !isReading { flushNow() }
        context.fireChannelWritabilityChanged()
    }

    private func start(_ context: ChannelHandlerContext) {
        guard tickTask == nil, !isClosing else { return }
        remoteAddress = context.remoteAddress.text
        machine.start(now: now)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        tickTask = context.eventLoop.scheduleRepeatedTask(initialDelay: tickInterval, delay: tickInterval) { _ in
            bound.value.tick()
        }
        flushNow()
    }

    private func learnPeer(_ context: ChannelHandlerContext) {
        isPeerKnown = true
        machine.peerCertified(Self.identity(in: context.pipeline))
    }

    /// The node that the verified certificate names; `nil` where there is none.
    private static func identity(in pipeline: ChannelPipeline) -> NodeIdentity? {
        guard
            let handler = try? pipeline.syncOperations.handler(type: NIOSSLHandler.self),
            let bytes = try? handler.peerCertificate?.toDERBytes(),
            let description = try? CertificateDescription(derBytes: bytes)
        else { return nil }
        return description.node
    }

    private func tick() {
        guard !isClosing else { return }
        if hasBeenAdopted, delegate == nil {
            close(RPCCloseReason(.none, "nobody uses the connection any more"))
            return
        }
        let action = machine.tick(now: RPCClock.now)
        for (id, mayHaveExecuted) in action.expired {
            delegate?.requestsFailed(
                [id],
                RPCFailure(
                    .deadline,
                    mayHaveExecuted: mayHaveExecuted,
                    mayHaveExecuted ? "no answer in time" : "no credit in time"
                )
            )
        }
        if let reason = action.close {
            closeNow(reason)
        } else {
            flushNow()
        }
    }

    // MARK: - Actions

    private func processFrames() {
        while !isClosing {
            do {
                guard let frame = try decoder.next(windowBytes: machine.receiveWindowBytes) else { return }
                run(machine.received(frame, now: now))
            } catch {
                run(machine.streamFailed(error))
            }
        }
    }

    private func run(_ action: RPCConnectionStateMachine.ReceiveAction) {
        switch action {
        case .none:
            break
        case .request(let request):
            delegate?.requestReceived(request)
        case .answer(let id, let answer, let frameBytes):
            delegate?.answerReceived(id, answer)
            machine.answerFinished(frameBytes: frameBytes)
        case .established(let remote):
            decoder.frameMaximumBytes = frameMaximumBytes
            pump()
            delegate?.connectionEstablished(remote)
        case .draining(let reason, let notExecuted):
            delegate?.connectionDraining(reason)
            delegate?.requestsFailed(
                notExecuted,
                RPCFailure(.notSent, mayHaveExecuted: false, "peer drains: \(reason.text)")
            )
        case .close(let reason):
            closeNow(reason)
        }
    }

    /// Writes what may still leave, tells the user, closes.
    private func closeNow(_ reason: RPCCloseReason) {
        guard !isClosing, let context else { return }
        pump()
        writeOutput(context)
        context.flush()
        finish(reason)
        context.close(promise: nil)
    }

    /// Tells the user that the connection has ended; once.
    private func finish(_ reason: RPCCloseReason) {
        guard !isClosing else { return }
        isClosing = true
        closeReason = reason
        tickTask?.cancel()
        tickTask = nil
        let requests = machine.closed()
        let delegate = delegate
        self.delegate = nil
        for request in requests {
            delegate?.requestsFailed(
                [request.id],
                RPCFailure(
                    request.mayHaveExecuted ? .connectionLost : .notSent,
                    mayHaveExecuted: request.mayHaveExecuted,
                    reason.description
                )
            )
        }
        delegate?.connectionClosed(reason)
    }

    // MARK: - Output

    /// Everything that may leave goes to the channel, with one flush.
    func flushNow() {
        guard !isClosing, let context else { return }
        if context.channel.isWritable {
            pump()
            deliverParked()
        }
        guard !isClosing else { return }
        if hasUnflushedWrites || output.readableBytes > 0 {
            // The storage comes back when the flush has taken the bytes, so that a busy connection allocates none.
            var handedOver = ByteBuffer()
            swap(&handedOver, &output)
            hasUnflushedWrites = false
            if handedOver.readableBytes > 0 { context.write(wrapOutboundOut(handedOver), promise: nil) }
            context.flush()
            if output.capacity == 0, handedOver.capacity <= TransportLimits.outputChunkBytes {
                handedOver.clear()
                output = handedOver
            }
        }
        if machine.isDrained { closeNow(RPCCloseReason(.none, "drained")) }
    }

    /// At the end of a read everything is flushed anyway; outside one, at the end of the loop's turn.
    private func scheduleFlush() {
        guard !isReading, !isFlushScheduled, let context else { return }
        isFlushScheduled = true
        context.eventLoop.assumeIsolated().execute {
            self.isFlushScheduled = false
            self.flushNow()
        }
    }

    /// Moves frames that may leave from the machine to `output`. Not while the socket is full: what waits in the
    /// machine is bounded there (many pings make one answer), what waits in a channel is not.
    private func pump() {
        while let frame = machine.nextFrame(now: now) {
            frame.header.encode(into: &output)
            var body = frame.body
            output.writeBuffer(&body)
            appendPayload(frame.payload)
        }
    }

    private func deliverParked() {
        var hasDelivered = false
        while !isClosing, let request = machine.nextParkedRequest() {
            hasDelivered = true
            delegate?.requestReceived(request)
        }
        guard hasDelivered else { return }
        delegate?.readCompleted()
        pump()
    }

    private func appendPayload(_ payload: [ByteBuffer]) {
        for piece in payload where piece.readableBytes > 0 {
            if piece.readableBytes <= TransportLimits.copyPayloadMaximumBytes {
                output.writeImmutableBuffer(piece)
            } else if let context {
                writeOutput(context)
                hasUnflushedWrites = true
                context.write(wrapOutboundOut(piece), promise: nil)
            }
        }
        if output.readableBytes > TransportLimits.outputChunkBytes, let context { writeOutput(context) }
    }

    private func writeOutput(_ context: ChannelHandlerContext) {
        guard output.readableBytes > 0 else { return }
        hasUnflushedWrites = true
        context.write(wrapOutboundOut(output), promise: nil)
        output = context.channel.allocator.buffer(capacity: TransportLimits.outputInitialBytes)
    }

    /// Leaves room for a header; the frame's bytes begin where this returns.
    private func beginFrame() -> Int {
        let start = output.writerIndex
        output.writeMultipleIntegers(UInt64(0), UInt64(0), UInt64(0))
        return start
    }

    /// Takes the bytes of a frame that cannot leave yet out of `output` again.
    private func takeBody(from start: Int) -> ByteBuffer {
        var body = ByteBuffer()
        let first = start + RPCFrameHeader.byteCount
        if let view = output.viewBytes(at: first, length: output.writerIndex - first) { body.writeBytes(view) }
        output.moveWriterIndex(to: start)
        return body
    }

    // MARK: - Sending

    var isOpen: Bool { !isClosing && machine.isEstablished }

    var canSendRequests: Bool { !isClosing && machine.canSendRequests }

    /// Sends a request, or keeps it until there is credit.
    ///
    /// - Throws: ``RPCFailure``; the request is then not in flight.
    func sendRequest(
        type: RPCMessageType,
        deadline: MonotonicTime?,
        payload: [ByteBuffer],
        encode: (inout ByteBuffer) -> Void
    ) throws(RPCFailure) -> RPCRequestID {
        let now = now
        let id = try machine.beginRequest(type: type, deadline: deadline, now: now)
        let start = beginFrame()
        encode(&output)
        let frameBytes = payload.reduce(output.writerIndex - start) { $0 + $1.readableBytes }
        switch machine.requestEncoded(id, frameBytes: frameBytes, now: now) {
        case .write(let header):
            header.set(in: &output, at: start)
            appendPayload(payload)
            scheduleFlush()
        case .wait:
            machine.wait(id, body: takeBody(from: start), payload: payload)
        case .refuse(let failure):
            output.moveWriterIndex(to: start)
            throw failure
        case .close, .drop:
            preconditionFailure("a request is written, kept or refused")
        }
        return id
    }

    /// Answers a request, or keeps the answer until there is credit. Dropped where the connection has ended.
    func respond(
        to handle: RPCRequestHandle,
        status: RPCStatus,
        payload: [ByteBuffer],
        encode: (inout ByteBuffer) -> Void
    ) {
        guard isOpen else { return }
        let start = beginFrame()
        encode(&output)
        let frameBytes = payload.reduce(output.writerIndex - start) { $0 + $1.readableBytes }
        guard machine.fitsFrame(frameBytes) else {
            output.moveWriterIndex(to: start)
            let error = RPCError(.internalError, "answer of \(frameBytes) bytes is too large")
            respond(to: handle, status: error.status, payload: []) { error.encode(into: &$0) }
            return
        }
        switch machine.answerEncoded(handle, status: status, frameBytes: frameBytes, now: now) {
        case .write(let header):
            header.set(in: &output, at: start)
            appendPayload(payload)
        case .wait:
            machine.wait(handle, status: status, body: takeBody(from: start), payload: payload)
        case .drop:
            output.moveWriterIndex(to: start)
        case .close(let reason):
            output.moveWriterIndex(to: start)
            // Not from inside the application's call: it may be in the middle of something.
            context?.eventLoop.assumeIsolated().execute { self.closeNow(reason) }
        case .refuse:
            preconditionFailure("an answer is never refused")
        }
        scheduleFlush()
    }

    /// Ends the connection in good order: see `RPCConnectionStateMachine.drain(_:)`.
    func drain(_ text: String) {
        guard !isClosing else { return }
        guard machine.isEstablished else {
            close(RPCCloseReason(.draining, text))
            return
        }
        machine.drain(text)
        flushNow()
    }

    /// Ends the connection now; requests in flight fail.
    func close(_ reason: RPCCloseReason) {
        guard !isClosing else { return }
        closeNow(machine.fail(reason))
    }
}
