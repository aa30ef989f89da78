import AshlarCore
import NIOCore
import RPC

// Input:
//
// byte 0  bit 0  this end connects (else it is connected to)
//         bit 1  the handshake is part of the input (else a valid one goes first)
//         bit 2  the rest is a stream of bytes (else steps, as `RPCFuzzSession.step` reads them)
// byte 1  length of the portions in which a stream comes; 0: one

/// Bytes from a peer that has a certificate: frames are cut alike in whatever portions they come, and the connection keeps
/// its bounds whatever is in them and whatever this end does meanwhile.
func fuzzRPCFrame(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let options = input.byte()
    let portion = Int(input.byte())
    let isClient = options & 1 != 0
    guard let session = RPCFuzzSession(isClient: isClient) else { throw FuzzFailure("a node's name is not valid") }
    if options & 2 == 0 { try session.shakeHands() }
    if options & 4 != 0 {
        let stream = ByteBuffer(bytes: input.rest())
        try checkPortions(stream, portion: portion)
        for part in stream.portions(portion) { try session.receive(part) }
    } else {
        while !input.isEmpty { try session.step(&input) }
    }
    session.end()
}

private func checkPortions(_ stream: ByteBuffer, portion: Int) throws(FuzzFailure) {
    let whole = cut(stream, portion: 0)
    let portioned = cut(stream, portion: portion)
    try require(whole.frames == portioned.frames, "the frames depend on the portions")
    try require(whole.failure == portioned.failure, "the failure depends on the portions")
    var encoded = ByteBuffer()
    for frame in whole.frames {
        frame.header.encode(into: &encoded)
        encoded.writeImmutableBuffer(frame.body)
    }
    try require(encoded == stream.getSlice(at: 0, length: encoded.readableBytes), "frames are others after encoding")
}

private func cut(_ stream: ByteBuffer, portion: Int) -> (frames: [RPCFrame], failure: RPCCloseReason?) {
    var decoder = RPCFrameDecoder(frameMaximumBytes: RPCFuzzSession.frameMaximumBytes)
    var frames: [RPCFrame] = []
    for part in stream.portions(portion) {
        decoder.append(part)
        do throws(RPCCloseReason) {
            while let frame = try decoder.next(windowBytes: .max) { frames.append(frame) }
        } catch {
            return (frames, error)
        }
    }
    return (frames, nil)
}

/// An end of a connection with small bounds, and a shell round it that does what it is told to.
private final class RPCFuzzSession {
    static let frameMaximumBytes = 2_048
    private static let windowBytes: UInt32 = 8_192
    private static let requestsMaximum = 16
    private static let waitingMaximumBytes = 16_384

    private var machine: RPCConnectionStateMachine
    private var decoder = RPCFrameDecoder(frameMaximumBytes: RPCLimits.handshakeFrameMaximumBytes)
    private let isClient: Bool
    private let own: NodeIdentity
    private let peer: NodeIdentity
    private var now = MonotonicTime(1_000_000_000)
    private var isClosed = false
    /// Requests of the peer that are not answered.
    private var toAnswer: [RPCRequest] = []
    /// Requests of this end that have neither answer nor failure.
    private var asked: [RPCRequestID: RPCMessageType] = [:]
    private var lastPeerID: UInt64 = 0
    /// The window that the peer announced; a hello that is part of the input may announce any.
    private var peerWindowBytes = Int(UInt32.max)

    init?(isClient: Bool) {
        let cluster = ClusterID(high: 0x0011_2233_4455_6677, low: 0x8899_AABB_CCDD_EEFF)
        guard
            let cache = NodeIdentity(cluster: cluster, role: .cache, name: "cache-1"),
            let target = NodeIdentity(cluster: cluster, role: .target, name: "target-1")
        else { return nil }
        self.isClient = isClient
        own = isClient ? target : cache
        peer = isClient ? cache : target
        var configuration = RPCConnectionConfiguration(
            node: own,
            side: isClient
                ? .client(expectedRole: .cache, expectedName: "cache-1") : .server(acceptedRoles: [.target, .agent])
        )
        configuration.windowBytes = Self.windowBytes
        configuration.frameMaximumBytes = Self.frameMaximumBytes
        configuration.requestsInFlightMaximum = Self.requestsMaximum
        configuration.waitingRequestBytesMaximum = Self.waitingMaximumBytes
        configuration.waitingAnswerBytesHighWater = 4_096
        configuration.waitingAnswerBytesMaximum = Self.waitingMaximumBytes
        machine = RPCConnectionStateMachine(configuration)
        machine.start(now: now)
        machine.peerCertified(peer)
    }

    func shakeHands() throws(FuzzFailure) {
        let hello = RPCHello(
            versionMinimum: RPCLimits.versionMaximum,
            versionMaximum: RPCLimits.versionMaximum,
            node: peer,
            windowBytes: Self.windowBytes,
            features: 0
        )
        var body = ByteBuffer()
        if isClient { RPCHelloAnswer.accepted(hello).encode(into: &body) } else { hello.encode(into: &body) }
        let flags = isClient ? RPCFrameHeader.answerFlag : 0
        try receive(Self.frame(.hello, flags: flags, body: body))
        try require(machine.isEstablished, "a valid handshake is refused")
        peerWindowBytes = Int(Self.windowBytes)
    }

    func receive(_ bytes: ByteBuffer) throws(FuzzFailure) {
        guard !isClosed else { return }
        decoder.append(bytes)
        while !isClosed {
            var next: RPCFrame?
            do throws(RPCCloseReason) {
                next = try decoder.next(windowBytes: machine.receiveWindowBytes)
            } catch {
                try handle(machine.streamFailed(error), nil)
                try require(isClosed, "a stream that failed goes on")
            }
            guard let frame = next else { break }
            try handle(machine.received(frame, now: now), frame)
        }
        try flush()
    }

    /// One step: a byte that says what, and what goes with it.
    func step(_ input: inout FuzzInput) throws(FuzzFailure) {
        let kind = input.byte()
        switch kind & 0x0F {
        case 0...5: try receive(frame(&input, kind))
        case 6: try answer(at: input.byte(), bytes: Int(input.word() & 0x0FFF))
        case 7, 8: try ask(type: input.byte() & 3, bytes: Int(input.word() & 0x0FFF), deadline: input.byte())
        case 9:
            now = now.advanced(byNanoseconds: UInt64(input.byte()) * 100_000_000)
            let action = machine.tick(now: now)
            for (id, _) in action.expired { try forget(id) }
            if action.close != nil { isClosed = true }
        case 10: if input.byte() < 16 { machine.drain() }
        case 11:
            if input.byte() < 8 {
                machine.fail(RPCCloseReason(.overflow, "as the shell wishes"))
                isClosed = true
            }
        default: try receive(answerFrame(&input))
        }
        try flush()
    }

    func end() {
        _ = machine.closed()
    }

    // MARK: Frames of the peer

    private func frame(_ input: inout FuzzInput, _ kind: UInt8) -> ByteBuffer {
        let types: [RPCMessageType] = [
            RPCMessageType(0x10), RPCMessageType(0x11), .ping, .credit, .goaway, .hello, RPCMessageType(0x20),
            RPCMessageType(UInt16(kind)),
        ]
        let type = types[Int(kind >> 4) & 7]
        let flags = input.byte()
        let delta = input.byte()
        let id = delta < 200 ? lastPeerID &+ UInt64(delta) : UInt64(input.long())
        let word = UInt32(input.byte()) << 4
        let credit = UInt32(input.byte()) << 4
        let body = input.take(Int(input.word() & 0x0FFF))
        if flags & 1 == 0, type.belongsToApplication { lastPeerID = id }
        return Self.frame(
            type,
            flags: UInt16(flags & 0x11),
            id: id,
            word: word,
            credit: credit,
            body: ByteBuffer(bytes: body)
        )
    }

    /// An answer to a request that was made, mostly.
    private func answerFrame(_ input: inout FuzzInput) -> ByteBuffer {
        let ids = asked.keys.sorted { $0.rawValue < $1.rawValue }
        let choice = Int(input.byte())
        let known: RPCRequestID? = ids.isEmpty ? nil : ids[choice % ids.count]
        let id = known ?? RPCRequestID(UInt64(choice))
        return Self.frame(
            asked[id] ?? RPCMessageType(0x10),
            flags: RPCFrameHeader.answerFlag,
            id: id.rawValue,
            word: UInt32(input.byte()),
            credit: UInt32(input.byte()) << 4,
            body: ByteBuffer(bytes: input.take(Int(input.byte())))
        )
    }

    private static func frame(
        _ type: RPCMessageType,
        flags: UInt16,
        id: UInt64 = 0,
        word: UInt32 = 0,
        credit: UInt32 = 0,
        body: ByteBuffer
    ) -> ByteBuffer {
        let header = RPCFrameHeader(
            length: UInt32(RPCFrameHeader.byteCount + body.readableBytes),
            type: type,
            flags: flags,
            id: id,
            word: word,
            credit: credit
        )
        var buffer = ByteBuffer()
        header.encode(into: &buffer)
        buffer.writeImmutableBuffer(body)
        return buffer
    }

    // MARK: The shell

    private func handle(_ action: RPCConnectionStateMachine.ReceiveAction, _ frame: RPCFrame?) throws(FuzzFailure) {
        switch action {
        case .none: break
        case .established(let remote):
            try require(remote.node == peer, "established with another peer")
            decoder.frameMaximumBytes = Self.frameMaximumBytes
        case .request(let request):
            try require(frame.map { request.type == $0.header.type } ?? false, "a request out of nothing")
            toAnswer.append(request)
        case .answer(let id, let answer, let frameBytes):
            try require(asked[id] == answer.type, "an answer to what was not asked")
            try require(frameBytes == frame.map { Int($0.header.length) }, "an answer of another length")
            asked[id] = nil
            machine.answerFinished(frameBytes: frameBytes)
        case .draining(_, let notExecuted):
            for id in notExecuted { try forget(id) }
        case .close:
            isClosed = true
        }
        try checkBounds()
    }

    private func forget(_ id: RPCRequestID) throws(FuzzFailure) {
        try require(asked.removeValue(forKey: id) != nil, "a request failed that was not asked, or twice")
    }

    private func answer(at index: UInt8, bytes: Int) throws(FuzzFailure) {
        guard !isClosed, !toAnswer.isEmpty else { return }
        let handle = toAnswer.remove(at: Int(index) % toAnswer.count).handle
        let frameBytes = RPCFrameHeader.byteCount + bytes
        guard machine.fitsFrame(frameBytes) else { return try answer(handle, bytes: 0) }
        try answer(handle, bytes: bytes)
    }

    private func answer(_ handle: RPCRequestHandle, bytes: Int) throws(FuzzFailure) {
        let frameBytes = RPCFrameHeader.byteCount + bytes
        switch machine.answerEncoded(handle, status: .ok, frameBytes: frameBytes, now: now) {
        case .write(let header):
            try require(Int(header.length) == frameBytes && header.isAnswer, "an answer's header is wrong")
        case .wait:
            machine.wait(handle, status: .ok, body: ByteBuffer(repeating: 0, count: bytes), payload: [])
        case .refuse: throw FuzzFailure("an answer is refused like a request")
        case .close: isClosed = true
        case .drop: break
        }
    }

    private func ask(type: UInt8, bytes: Int, deadline: UInt8) throws(FuzzFailure) {
        guard !isClosed else { return }
        let type = RPCMessageType(0x10 + UInt16(type))
        let id: RPCRequestID
        do throws(RPCFailure) {
            id = try machine.beginRequest(
                type: type,
                deadline: deadline == 0 ? nil : now.advanced(byNanoseconds: UInt64(deadline) * 100_000_000),
                now: now
            )
        } catch {
            return
        }
        try require(asked.updateValue(type, forKey: id) == nil, "a request's id is given twice")
        let frameBytes = RPCFrameHeader.byteCount + bytes
        switch machine.requestEncoded(id, frameBytes: frameBytes, now: now) {
        case .write(let header): try require(Int(header.length) == frameBytes, "a request's header is wrong")
        case .wait: machine.wait(id, body: ByteBuffer(repeating: 0, count: bytes), payload: [])
        case .refuse: asked[id] = nil
        case .close: isClosed = true
        case .drop: throw FuzzFailure("a request is dropped like an answer")
        }
    }

    private func flush() throws(FuzzFailure) {
        while let frame = machine.nextFrame(now: now) {
            let payload = frame.payload.reduce(0) { $0 + $1.readableBytes }
            let bytes = RPCFrameHeader.byteCount + frame.body.readableBytes + payload
            try require(Int(frame.header.length) == bytes, "a frame that leaves has another length")
            try require(bytes <= Self.frameMaximumBytes, "a frame that leaves is too large")
        }
        while let request = machine.nextParkedRequest() { toAnswer.append(request) }
        if machine.isClosed { isClosed = true }
        try checkBounds()
    }

    private func checkBounds() throws(FuzzFailure) {
        try require(machine.requestsInFlight <= Self.requestsMaximum, "too many requests are in flight")
        try require(machine.requestsToAnswer <= Self.requestsMaximum, "too many requests are to be answered")
        try require(machine.sendWindowBytes >= 0, "more was sent than granted")
        // A credit that goes beyond the window is counted, and then ends the connection.
        let isWithinWindow = machine.isClosed || machine.sendWindowBytes <= peerWindowBytes
        try require(isWithinWindow, "more is granted than the window")
        try require(machine.receiveWindowBytes >= 0, "more was received than granted")
        try require(machine.receiveWindowBytes <= Int(Self.windowBytes), "more was granted than the window")
        try require(machine.waitingBytes <= 2 * Self.waitingMaximumBytes, "too many bytes wait")
        try require(decoder.pendingBytes <= 1 << 20, "too many bytes are kept")
    }
}
