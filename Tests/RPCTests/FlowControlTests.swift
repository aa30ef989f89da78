import AshlarCore
import NIOCore
import Testing

@testable import RPC

struct FlowControlTests {
    @Test func creditComesBackWithTheAnswer() throws {
        let pair = try Pair()
        try pair.establish()
        let request = try pair.deliver(pair.request(1_000))
        #expect(pair.client.sendWindowBytes == 8_192 - 1_024)
        #expect(pair.server.receiveWindowBytes == 8_192 - 1_024)
        let answer = try pair.answer(request, 76)
        #expect(answer.header.credit == 1_024)
        guard case .answer(_, _, let bytes) = pair.client.received(answer, now: pair.now) else { throw Failure("none") }
        #expect(bytes == 100)
        #expect(pair.client.sendWindowBytes == 8_192)
        #expect(pair.client.receiveWindowBytes == 8_192 - 100)
        pair.client.answerFinished(frameBytes: bytes)
        #expect(pair.client.nextFrame(now: pair.now) == nil)
        #expect(try pair.request().header.credit == 100)
    }

    @Test func creditOfItsOwnAboveTheThreshold() throws {
        let pair = try Pair()
        try pair.establish()
        let requests = try (0..<3).map { _ in try pair.deliver(pair.request()) }
        for request in requests {
            #expect(pair.client.nextFrame(now: pair.now) == nil)
            _ = pair.client.received(try pair.answer(request, 976), now: pair.now)
            pair.client.answerFinished(frameBytes: 1_000)
        }
        let credit = try #require(pair.client.nextFrame(now: pair.now))
        #expect(credit.header.type == .credit)
        #expect(credit.header.credit == 3_000)
        #expect(pair.client.nextFrame(now: pair.now) == nil)
        #expect(pair.client.receiveWindowBytes == 8_192)
    }

    @Test func I10_windowIsNeverExceeded() throws {
        let pair = try Pair()
        try pair.establish()
        for _ in 0..<4 { _ = try pair.deliver(pair.request(2_024)) }
        #expect(pair.client.sendWindowBytes == 0)
        #expect(throws: Failure.self) { try pair.request() }
        let action = pair.server.received(frame(id: .max), now: pair.now)
        guard case .close(let reason) = action else { throw Failure("accepted beyond the window") }
        #expect(reason.code == .flowControlViolation)
    }

    @Test func creditBeyondTheWindowEndsTheConnection() throws {
        let pair = try Pair()
        try pair.establish()
        let action = pair.client.received(frame(type: .credit, id: 0, credit: 1), now: pair.now)
        guard case .close(let reason) = action else { throw Failure("accepted") }
        #expect(reason.code == .flowControlViolation)
    }

    @Test func I10_waitingRequestsAreBounded() throws {
        let pair = try Pair()
        try pair.establish()
        var waiting = 0
        for _ in 0..<16 {
            let id = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
            switch pair.client.requestEncoded(id, frameBytes: 2_048, now: pair.now) {
            case .write:
                continue
            case .wait:
                waiting += 1
                pair.client.wait(id, body: ByteBuffer(repeating: 0, count: 2_024), payload: [])
            case .refuse(let failure):
                #expect(waiting == 8)
                #expect(failure.kind == .notSent)
                #expect(pair.client.waitingBytes == 16_384)
                return
            case .close, .drop:
                throw Failure("a request is never closed upon")
            }
        }
        throw Failure("nothing was refused")
    }

    @Test func I10_requestsAreKeptBackWhileAnswersWait() throws {
        let pair = try Pair(adjustClient: { $0.windowBytes = 2_048 })
        try pair.establish()
        // A client that finishes with nothing: 2,048 bytes of answers leave, the others wait.
        var requests: [RPCRequest] = []
        for _ in 0..<5 { requests.append(try pair.deliver(pair.request())) }
        _ = try pair.answer(requests[0], 2_024)
        for request in requests[1...] {
            let admission = pair.server.answerEncoded(request.handle, status: .ok, frameBytes: 2_048, now: pair.now)
            guard case .wait = admission else { throw Failure("no wait") }
            pair.server.wait(request.handle, status: .ok, body: ByteBuffer(repeating: 1, count: 2_024), payload: [])
        }
        #expect(pair.server.waitingBytes == 8_192)
        guard case .none = pair.server.received(try pair.request(), now: pair.now) else {
            throw Failure("request was handed on in spite of the answers that wait")
        }
        #expect(pair.server.nextParkedRequest() == nil)
        for _ in 0..<2 {
            _ = pair.server.received(frame(type: .credit, id: 0, credit: 2_048), now: pair.now)
            #expect(pair.server.nextFrame(now: pair.now)?.header.length == 2_048)
        }
        #expect(pair.server.nextParkedRequest() != nil)
        #expect(pair.server.nextParkedRequest() == nil)
    }

    @Test func I10_answersThatNobodyTakesEndTheConnection() throws {
        let pair = try Pair(
            adjustClient: { $0.windowBytes = 2_048 },
            adjustServer: {
                $0.waitingAnswerBytesHighWater = 1 << 20
                $0.waitingAnswerBytesMaximum = 4_096
            }
        )
        try pair.establish()
        var requests: [RPCRequest] = []
        for _ in 0..<4 { requests.append(try pair.deliver(pair.request())) }
        _ = try pair.answer(requests[0], 2_024)
        for request in requests[1...2] {
            let admission = pair.server.answerEncoded(request.handle, status: .ok, frameBytes: 2_048, now: pair.now)
            guard case .wait = admission else { throw Failure("no wait") }
            pair.server.wait(request.handle, status: .ok, body: ByteBuffer(repeating: 1, count: 2_024), payload: [])
        }
        let last = pair.server.answerEncoded(requests[3].handle, status: .ok, frameBytes: 2_048, now: pair.now)
        guard case .close(let reason) = last else { throw Failure("not closed") }
        #expect(reason.code == .overflow)
    }

    @Test func whatWaitsLeavesInOrder() throws {
        let pair = try Pair()
        try pair.establish()
        for _ in 0..<4 { _ = try pair.request(2_024) }
        var ids: [UInt64] = []
        for size in [1_000, 10, 500] {
            let id = try pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
            guard case .wait = pair.client.requestEncoded(id, frameBytes: 24 + size, now: pair.now) else {
                throw Failure("no wait")
            }
            pair.client.wait(
                id,
                body: ByteBuffer(repeating: 1, count: size / 2),
                payload: [
                    ByteBuffer(repeating: 2, count: size / 2)
                ]
            )
            ids.append(id.rawValue)
        }
        // Room for the second, not for the first: nothing overtakes.
        _ = pair.client.received(frame(type: .credit, id: 0, credit: 500), now: pair.now)
        #expect(pair.client.nextFrame(now: pair.now) == nil)
        _ = pair.client.received(frame(type: .credit, id: 0, credit: 4_000), now: pair.now)
        var left: [UInt64] = []
        while let frame = pair.client.nextFrame(now: pair.now) { left.append(frame.header.id) }
        #expect(left == ids)
    }
}

/// Two machines back to back, sizes and order from a seed: no window is ever exceeded (a machine that receives beyond
/// its window closes), nothing is ever stuck, everything is answered once.
struct FlowControlPropertyTests {
    private struct Generator: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var value = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
            value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
            return value ^ (value >> 31)
        }
    }

    private final class World {
        let pair: Pair
        var generator: Generator
        var toServer: [RPCFrame] = []
        var toClient: [RPCFrame] = []
        var unanswered: [RPCRequest] = []
        var unfinished: [Int] = []
        var begun = 0
        var answered = 0
        var digest: UInt64 = 0
        let total: Int

        init(seed: UInt64, total: Int) throws {
            pair = try Pair()
            try pair.establish()
            generator = Generator(state: seed)
            self.total = total
        }

        func pick(_ bound: Int) -> Int { Int(generator.next() % UInt64(bound)) }

        /// Mostly small bodies, some of the largest.
        func size() -> Int {
            switch pick(4) {
            case 0: 2_024
            case 1: pick(2_025)
            default: pick(100)
            }
        }

        func begin() {
            guard begun < total else { return }
            let bytes = size()
            guard let id = try? pair.client.beginRequest(type: RPCMessageType(0x10), deadline: nil, now: pair.now)
            else { return }
            let body = ByteBuffer(repeating: 1, count: bytes)
            switch pair.client.requestEncoded(id, frameBytes: 24 + bytes, now: pair.now) {
            case .write(let header): toServer.append(RPCFrame(header: header, body: body))
            case .wait: pair.client.wait(id, body: body, payload: [])
            case .refuse: return
            case .close, .drop: Issue.record("a request is written, kept or refused")
            }
            begun += 1
        }

        func answer() {
            guard !unanswered.isEmpty else { return }
            let request = unanswered.remove(at: pick(unanswered.count))
            let bytes = size()
            let body = ByteBuffer(repeating: 2, count: bytes)
            switch pair.server.answerEncoded(request.handle, status: .ok, frameBytes: 24 + bytes, now: pair.now) {
            case .write(let header): toClient.append(RPCFrame(header: header, body: body))
            case .wait: pair.server.wait(request.handle, status: .ok, body: body, payload: [])
            case .refuse, .close, .drop: Issue.record("an answer is written or kept")
            }
        }

        func pump() {
            while let frame = pair.client.nextFrame(now: pair.now) { toServer.append(arrived(frame)) }
            while let frame = pair.server.nextFrame(now: pair.now) { toClient.append(arrived(frame)) }
            while let request = pair.server.nextParkedRequest() { unanswered.append(request) }
        }

        func arriveAtServer() throws {
            guard !toServer.isEmpty else { return }
            switch pair.server.received(toServer.removeFirst(), now: pair.now) {
            case .request(let request): unanswered.append(request)
            case .none: break
            case .close(let reason): throw Failure("server closes: \(reason)")
            default: throw Failure("unexpected action of the server")
            }
        }

        func arriveAtClient() throws {
            guard !toClient.isEmpty else { return }
            let frame = toClient.removeFirst()
            digest = digest &* 31 &+ frame.header.id &+ UInt64(frame.header.credit)
            switch pair.client.received(frame, now: pair.now) {
            case .answer(_, _, let bytes):
                answered += 1
                unfinished.append(bytes)
            case .none: break
            case .close(let reason): throw Failure("client closes: \(reason)")
            default: throw Failure("unexpected action of the client")
            }
        }

        func finish() {
            guard !unfinished.isEmpty else { return }
            pair.client.answerFinished(frameBytes: unfinished.remove(at: pick(unfinished.count)))
        }

        func check() throws {
            guard
                pair.client.sendWindowBytes >= 0, pair.server.sendWindowBytes >= 0,
                pair.client.receiveWindowBytes >= 0, pair.server.receiveWindowBytes >= 0,
                pair.client.sendWindowBytes <= pair.server.receiveWindowBytes
                    || !toServer.isEmpty || !toClient.isEmpty
            else { throw Failure("windows disagree") }
        }

        func run() throws {
            var steps = 0
            while answered < total {
                steps += 1
                guard steps < total * 200 else {
                    throw Failure("stuck: \(answered) of \(total) answered, \(begun) begun")
                }
                switch pick(6) {
                case 0: begin()
                case 1: answer()
                case 2: try arriveAtServer()
                case 3: try arriveAtClient()
                case 4: finish()
                default: pump()
                }
                try check()
            }
            // At rest both windows are whole but for credit below the threshold.
            while !unfinished.isEmpty { finish() }
            repeat {
                while !toServer.isEmpty { try arriveAtServer() }
                while !toClient.isEmpty { try arriveAtClient() }
                pump()
            } while !toServer.isEmpty || !toClient.isEmpty
            guard pair.client.requestsInFlight == 0, pair.server.requestsToAnswer == 0, pair.client.waitingBytes == 0
            else { throw Failure("something is left") }
            guard pair.client.sendWindowBytes >= 2_048 * 3, pair.server.sendWindowBytes >= 2_048 * 3 else {
                throw Failure("windows have shrunk")
            }
        }
    }

    private func digest(_ seed: UInt64, total: Int) throws -> UInt64 {
        let world = try World(seed: seed, total: total)
        do {
            try world.run()
        } catch {
            throw Failure("seed \(seed): \(error)")
        }
        return world.digest
    }

    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func neverExceededNeverStuck(_ seed: UInt64) throws {
        _ = try digest(seed, total: 500)
    }

    @Test func sameSeedSameSchedule() throws {
        #expect(try digest(99, total: 300) == digest(99, total: 300))
        #expect(try digest(99, total: 300) != digest(100, total: 300))
    }

    /// The harness can fail: an application that finishes with nothing gets stuck.
    @Test func canaryThatMustFail() throws {
        let world = try World(seed: 5, total: 500)
        #expect(throws: Failure.self) {
            for _ in 0..<50_000 {
                switch world.pick(5) {
                case 0: world.begin()
                case 1: world.answer()
                case 2: try world.arriveAtServer()
                case 3: try world.arriveAtClient()
                default: world.pump()
                }
            }
            if world.answered < 500 { throw Failure("stuck") }
        }
    }
}
