import AshlarCore
import NIOCore
import Testing

@testable import RPC

private func reason(_ action: RPCConnectionStateMachine.ReceiveAction) -> RPCCloseReason? {
    if case .close(let reason) = action { reason } else { nil }
}

struct HandshakeTests {
    @Test func bothEndsLearnOfEachOther() throws {
        let pair = try Pair(
            adjustClient: { $0.features = 6 },
            adjustServer: {
                $0.features = 3
                $0.versions = 1...4
            }
        )
        #expect(pair.server.nextFrame(now: pair.now) == nil)
        #expect(!pair.client.isEstablished)
        let hello = try #require(pair.client.nextFrame(now: pair.now))
        #expect(pair.client.nextFrame(now: pair.now) == nil)
        guard case .established(let atServer) = pair.server.received(arrived(hello), now: pair.now) else {
            throw Failure("not accepted")
        }
        #expect(atServer == RPCRemote(node: try node(.target, "target-1"), version: 1, features: 2))
        let answer = try #require(pair.server.nextFrame(now: pair.now))
        guard case .established(let atClient) = pair.client.received(arrived(answer), now: pair.now) else {
            throw Failure("not accepted")
        }
        #expect(atClient == RPCRemote(node: try node(.cache, "cache-1"), version: 1, features: 2))
        #expect(pair.client.isEstablished && pair.server.isEstablished)
        #expect(pair.client.sendWindowBytes == 8_192)
    }

    /// Runs a handshake that is refused: what each end says.
    private func refused(_ pair: Pair) throws -> (server: RPCCloseReason?, client: RPCCloseReason?) {
        let hello = try #require(pair.client.nextFrame(now: pair.now))
        let atServer = reason(pair.server.received(arrived(hello), now: pair.now))
        let answer = try #require(pair.server.nextFrame(now: pair.now))
        let atClient = reason(pair.client.received(arrived(answer), now: pair.now))
        if let goaway = pair.client.nextFrame(now: pair.now) {
            #expect(goaway.header.type == .goaway)
            let told = reason(pair.server.received(arrived(goaway), now: pair.now))
            #expect(pair.client.nextFrame(now: pair.now) == nil)
            return (told, atClient)
        }
        #expect(pair.server.nextFrame(now: pair.now) == nil)
        return (atServer, atClient)
    }

    private func expect(_ code: RPCCloseCode, foundByServer: Bool, in pair: Pair) throws {
        let (server, client) = try refused(pair)
        #expect(server?.code == code)
        #expect(client?.code == code)
        #expect(server?.text == client?.text)
        #expect(server?.isFromPeer == !foundByServer)
        #expect(client?.isFromPeer == foundByServer)
        #expect(pair.client.isClosed && pair.server.isClosed)
        let failure = #expect(throws: RPCFailure.self) {
            try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
        }
        #expect(failure?.mayHaveExecuted == false)
    }

    @Test func wrongRole() throws {
        let pair = try Pair(adjustServer: { $0.side = .server(acceptedRoles: [.agent]) })
        try expect(.wrongRole, foundByServer: true, in: pair)
        let other = try Pair(adjustClient: { $0.side = .client(expectedRole: .objects, expectedName: nil) })
        try expect(.wrongRole, foundByServer: false, in: other)
    }

    @Test func wrongName() throws {
        let pair = try Pair(adjustClient: { $0.side = .client(expectedRole: .cache, expectedName: "cache-2") })
        try expect(.wrongName, foundByServer: false, in: pair)
    }

    @Test func wrongCluster() throws {
        let other = ClusterID(high: 1, low: 2)
        let stranger = try node(.target, "target-1", cluster: other)
        let pair = try Pair(adjustClient: { $0.node = stranger })
        try expect(.wrongCluster, foundByServer: true, in: pair)
    }

    @Test func noCommonVersion() throws {
        let higher = try Pair(adjustClient: { $0.versions = 2...9 })
        try expect(.noCommonVersion, foundByServer: true, in: higher)
        let lower = try Pair(adjustServer: { $0.versions = 2...9 })
        try expect(.noCommonVersion, foundByServer: true, in: lower)
    }

    @Test func highestCommonVersionIsChosen() throws {
        let pair = try Pair(adjustClient: { $0.versions = 1...5 }, adjustServer: { $0.versions = 2...3 })
        let hello = try #require(pair.client.nextFrame(now: pair.now))
        guard case .established(let remote) = pair.server.received(arrived(hello), now: pair.now) else {
            throw Failure("not accepted")
        }
        #expect(remote.version == 3)
        let answer = try #require(pair.server.nextFrame(now: pair.now))
        guard case .established(let other) = pair.client.received(arrived(answer), now: pair.now) else {
            throw Failure("not accepted")
        }
        #expect(other.version == 3)
    }

    @Test func helloThatBeliesTheCertificate() throws {
        let pair = try Pair()
        pair.server.peerCertified(try node(.target, "target-2"))
        try expect(.identityMismatch, foundByServer: true, in: pair)
        let nameless = try Pair()
        nameless.server.peerCertified(nil)
        try expect(.identityMismatch, foundByServer: true, in: nameless)
        let server = try Pair()
        server.client.peerCertified(try node(.cache, "cache-2"))
        try expect(.identityMismatch, foundByServer: false, in: server)
    }

    @Test func windowThatHoldsNoFrame() throws {
        let pair = try Pair(adjustServer: { $0.frameMaximumBytes = 8_000 })
        let hello = RPCHello(
            versionMinimum: 1,
            versionMaximum: 1,
            node: try node(.target, "target-1"),
            windowBytes: 7_999,
            features: 0
        )
        var body = ByteBuffer()
        hello.encode(into: &body)
        let action = pair.server.received(frame(type: .hello, id: 0, body: body), now: pair.now)
        #expect(reason(action)?.code == .invalidHello)
    }

    @Test func firstFrameIsNoHello() throws {
        let pair = try Pair()
        let action = pair.server.received(frame(id: 1), now: pair.now)
        #expect(reason(action)?.code == .invalidHello)
        let refusal = try #require(pair.server.nextFrame(now: pair.now))
        #expect(refusal.header.type == .hello && refusal.header.isAnswer)
        #expect(reason(pair.client.received(frame(type: .ping, id: 1), now: pair.now))?.code == .protocolViolation)
        let garbage = try Pair()
        let hello = frame(type: .hello, id: 0, body: ByteBuffer(bytes: [1, 2, 3]))
        #expect(reason(garbage.server.received(hello, now: garbage.now))?.code == .invalidHello)
    }

    @Test func refusedBeforeHelloWasRead() throws {
        let pair = try Pair()
        let refusal = RPCCloseReason(.tooManyConnections, "at most 1")
        #expect(reason(pair.server.refusePeer(refusal)) == refusal)
        let answer = try #require(pair.server.nextFrame(now: pair.now))
        #expect(reason(pair.client.received(arrived(answer), now: pair.now))?.code == .tooManyConnections)
    }

    @Test func handshakeTakesTooLong() throws {
        let pair = try Pair()
        let limit = RPCLimits.handshakeTimeoutNanoseconds
        let early = pair.now.advanced(byNanoseconds: limit - 1)
        #expect(pair.server.tick(now: early).close == nil)
        let late = pair.now.advanced(byNanoseconds: limit)
        #expect(pair.server.tick(now: late).close?.code == .handshakeTimeout)
        #expect(pair.server.isClosed)
        #expect(pair.server.tick(now: late).close == nil)
    }
}

struct RequestTests {
    @Test func answersComeInAnyOrder() throws {
        let pair = try Pair()
        try pair.establish()
        var requests: [RPCRequest] = []
        var ids: [UInt64] = []
        for _ in 0..<10 {
            let frame = try pair.request(10)
            ids.append(frame.header.id)
            requests.append(try pair.deliver(frame))
        }
        #expect(ids == ids.sorted() && Set(ids).count == 10)
        #expect(pair.server.requestsToAnswer == 10)
        for index in [3, 9, 0, 1, 2, 8, 4, 7, 5, 6] {
            let answer = try pair.answer(requests[index], index)
            guard case .answer(let id, let read, let bytes) = pair.client.received(answer, now: pair.now) else {
                throw Failure("no answer")
            }
            #expect(id.rawValue == ids[index])
            #expect(read.isOK && read.body.readableBytes == index)
            pair.client.answerFinished(frameBytes: bytes)
        }
        #expect(pair.client.requestsInFlight == 0)
        #expect(pair.server.requestsToAnswer == 0)
        // Slots are used again, under higher ids.
        let next = try pair.request()
        #expect(next.header.id > ids[9])
        #expect(RPCRequestID(next.header.id).slot < 10)
    }

    @Test func I10_requestsInFlightAreBounded() throws {
        let pair = try Pair()
        try pair.establish()
        for _ in 0..<16 { _ = try pair.deliver(pair.request()) }
        let failure = #expect(throws: RPCFailure.self) { try pair.request() }
        #expect(failure?.kind == .notSent)
        #expect(failure?.mayHaveExecuted == false)
        // A peer that does not keep to it is cut off.
        let action = pair.server.received(frame(id: .max), now: pair.now)
        #expect(reason(action)?.code == .protocolViolation)
    }

    @Test func deadlineTravelsAsWhatRemains() throws {
        let pair = try Pair()
        try pair.establish()
        let deadline = pair.now.advanced(byNanoseconds: 1_500_000_000)
        let frame = try pair.request(deadline: deadline)
        #expect(frame.header.word == 1_500)
        let request = try pair.deliver(frame)
        #expect(request.deadline == deadline)
        let without = try pair.request()
        #expect(without.header.word == 0)
        #expect(try pair.deliver(without).deadline == nil)
        let soon = try pair.request(deadline: pair.now.advanced(byNanoseconds: 1))
        #expect(soon.header.word == 1)
        let failure = #expect(throws: RPCFailure.self) { try pair.request(deadline: pair.now) }
        #expect(failure?.kind == .deadline)
        #expect(failure?.mayHaveExecuted == false)
    }

    @Test func deadlinePassesOnTheWire() throws {
        let pair = try Pair()
        try pair.establish()
        let deadline = pair.now.advanced(byNanoseconds: 100)
        let request = try pair.deliver(pair.request(deadline: deadline))
        #expect(pair.client.tick(now: pair.now).expired.isEmpty)
        let expired = pair.client.tick(now: deadline).expired
        #expect(expired.count == 1)
        #expect(expired.first?.mayHaveExecuted == true)
        #expect(pair.client.tick(now: deadline).expired.isEmpty)
        // The slot stays taken until the late answer comes, which is thrown away.
        #expect(pair.client.requestsInFlight == 1)
        let answer = try pair.answer(request)
        guard case .none = pair.client.received(answer, now: deadline) else {
            throw Failure("late answer was handed on")
        }
        #expect(pair.client.requestsInFlight == 0)
        let again = frame(flags: 1, id: answer.header.id)
        #expect(reason(pair.client.received(again, now: deadline))?.code == .protocolViolation)
    }

    @Test func deadlinePassesWhileWaitingForCredit() throws {
        let pair = try Pair()
        try pair.establish()
        for _ in 0..<4 { _ = try pair.request(2_024) }
        let deadline = pair.now.advanced(byNanoseconds: 100)
        let id = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: deadline, now: pair.now)
        guard case .wait = pair.client.requestEncoded(id, frameBytes: 124, now: pair.now) else {
            throw Failure("no wait")
        }
        pair.client.wait(id, body: ByteBuffer(repeating: 1, count: 100), payload: [])
        let expired = pair.client.tick(now: deadline).expired
        #expect(expired.map(\.id) == [id])
        #expect(expired.first?.mayHaveExecuted == false)
        _ = pair.client.received(frame(type: .credit, id: 0, credit: 8_000), now: deadline)
        #expect(pair.client.nextFrame(now: deadline) == nil)
        #expect(pair.client.requestsInFlight == 4)
        #expect(pair.client.waitingBytes == 0)
    }

    @Test func answersThatNobodyAskedFor() throws {
        for id in [0, 1, 0x10000, UInt64.max] as [UInt64] {
            let pair = try Pair()
            try pair.establish()
            let action = pair.client.received(frame(flags: 1, id: id), now: pair.now)
            #expect(reason(action)?.code == .protocolViolation)
            let goaway = try #require(pair.client.nextFrame(now: pair.now))
            #expect(goaway.header.type == .goaway)
        }
        let pair = try Pair()
        try pair.establish()
        let request = try pair.request()
        let other = frame(type: RPCMessageType(0x11), flags: 1, id: request.header.id)
        #expect(reason(pair.client.received(other, now: pair.now))?.code == .protocolViolation)
    }

    @Test func framesThatBreakTheProtocol() throws {
        let frames = [
            frame(flags: 2, id: 1), frame(type: .hello, id: 0), frame(type: RPCMessageType(9), id: 0),
            frame(type: .goaway, id: 0), frame(id: 0),
        ]
        for bad in frames {
            let pair = try Pair()
            try pair.establish()
            #expect(reason(pair.server.received(bad, now: pair.now))?.code == .protocolViolation)
            guard case .none = pair.server.received(frame(id: 5), now: pair.now) else { throw Failure("still listens") }
        }
        let pair = try Pair()
        try pair.establish()
        _ = try pair.deliver(frame(id: 7))
        #expect(reason(pair.server.received(frame(id: 7), now: pair.now))?.code == .protocolViolation)
    }

    @Test func endTellsWhatMayHaveBeenExecuted() throws {
        let pair = try Pair()
        try pair.establish()
        var sent: [UInt64] = []
        for _ in 0..<4 { sent.append(try pair.request(2_024).header.id) }
        let waiting = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
        guard case .wait = pair.client.requestEncoded(waiting, frameBytes: 124, now: pair.now) else {
            throw Failure("no wait")
        }
        pair.client.wait(waiting, body: ByteBuffer(repeating: 1, count: 100), payload: [])
        let requests = pair.client.closed()
        #expect(requests.filter(\.mayHaveExecuted).map(\.id.rawValue) == sent)
        #expect(requests.filter { !$0.mayHaveExecuted }.map(\.id) == [waiting])
        #expect(pair.client.closed().isEmpty)
    }

    @Test func oversizedRequestIsRefusedHere() throws {
        let pair = try Pair()
        try pair.establish()
        let id = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
        guard case .refuse(let failure) = pair.client.requestEncoded(id, frameBytes: 2_049, now: pair.now) else {
            throw Failure("not refused")
        }
        #expect(!failure.mayHaveExecuted)
        #expect(pair.client.requestsInFlight == 0)
        #expect(!pair.server.fitsFrame(2_049))
    }
}

struct KeepAliveTests {
    @Test func silenceIsPingedAndThenEnds() throws {
        let pair = try Pair()
        try pair.establish()
        let idle = pair.now.advanced(byNanoseconds: RPCLimits.keepAliveIdleNanoseconds)
        #expect(pair.client.tick(now: idle).close == nil)
        let ping = try #require(pair.client.nextFrame(now: idle))
        #expect(ping.header.type == .ping && !ping.header.isAnswer)
        _ = pair.client.tick(now: idle)
        #expect(pair.client.nextFrame(now: idle) == nil)
        _ = pair.server.received(arrived(ping), now: idle)
        let pong = try #require(pair.server.nextFrame(now: idle))
        #expect(pong.header.id == ping.header.id && pong.header.isAnswer)
        _ = pair.client.received(arrived(pong), now: idle)
        let late = idle.advanced(byNanoseconds: RPCLimits.keepAliveTimeoutNanoseconds)
        #expect(pair.client.tick(now: MonotonicTime(late.rawValue - 1)).close == nil)
        #expect(pair.client.tick(now: late).close?.code == .keepAliveTimeout)
    }

    @Test func I10_manyPingsMakeOneAnswer() throws {
        let pair = try Pair()
        try pair.establish()
        for id in 1...1_000 as ClosedRange<UInt64> {
            guard case .none = pair.server.received(frame(type: .ping, id: id), now: pair.now) else {
                throw Failure("ping was not taken")
            }
        }
        #expect(pair.server.nextFrame(now: pair.now)?.header.id == 1_000)
        #expect(pair.server.nextFrame(now: pair.now) == nil)
    }
}

struct DrainTests {
    @Test func whatWasAcceptedIsAnsweredAndTheRestIsNotExecuted() throws {
        let pair = try Pair()
        try pair.establish()
        let accepted = try pair.deliver(pair.request())
        let late = try pair.request()
        pair.server.drain()
        let goaway = try #require(pair.server.nextFrame(now: pair.now))
        #expect(!pair.server.isDrained)
        // The request that crosses the goaway is not handed to the application.
        guard case .none = pair.server.received(late, now: pair.now) else { throw Failure("was executed") }
        guard case .draining(let reason, let notExecuted) = pair.client.received(arrived(goaway), now: pair.now) else {
            throw Failure("goaway was not understood")
        }
        #expect(reason.isFromPeer)
        #expect(notExecuted.map(\.rawValue) == [late.header.id])
        #expect(!pair.client.canSendRequests && !pair.client.isDrained)
        #expect(throws: RPCFailure.self) { try pair.request() }
        let answer = try pair.answer(accepted)
        guard case .answer = pair.client.received(answer, now: pair.now) else { throw Failure("no answer") }
        #expect(pair.server.isDrained && pair.client.isDrained)
    }

    @Test func requestsThatWaitAreNotSent() throws {
        let pair = try Pair()
        try pair.establish()
        for _ in 0..<4 { _ = try pair.deliver(pair.request(2_024)) }
        let waiting = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
        guard case .wait = pair.client.requestEncoded(waiting, frameBytes: 124, now: pair.now) else {
            throw Failure("no wait")
        }
        pair.client.wait(waiting, body: ByteBuffer(repeating: 1, count: 100), payload: [])
        pair.server.drain()
        let goaway = try #require(pair.server.nextFrame(now: pair.now))
        guard case .draining(_, let notExecuted) = pair.client.received(arrived(goaway), now: pair.now) else {
            throw Failure("goaway was not understood")
        }
        #expect(notExecuted == [waiting])
        #expect(pair.client.requestsInFlight == 4)
        #expect(pair.client.waitingBytes == 0)
    }
}
