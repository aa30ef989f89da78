import AshlarCore
import NIOCore
import NIOPosix
import RPC
import Testing

@testable import Transport

@Suite(.timeLimit(.minutes(2)))
struct RPCIntegrationTests {
    @Test func rightPeersTalk() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache, "cache-1"))
        let client = TestClient(try cluster.identity(.target, "target-1"), to: server.server.endpoint)
        let payload = ByteBuffer(string: "payload")
        let (number, rest) = try await client.handle.call(
            Number(42),
            answer: Number.self,
            payload: [payload],
            deadlineMilliseconds: 10_000
        )
        #expect(number == Number(42))
        #expect(rest == payload)
        let peer = try await server.events.first { event in
            if case .accepted(let peer) = event { peer } else { nil }
        }
        #expect(peer.node == (try cluster.node(.target, "target-1")))
        #expect(peer.version == 1)
        let connected = try await client.states.first { state in
            if case .connected(let peer) = state { peer } else { nil }
        }
        #expect(connected.node.name == "cache-1")
        await client.handle.close()
        #expect(await client.handle.state() == .closed)
        await server.stop()
        #expect(server.server.connectionCount == 0)
    }

    @Test func errorsCarryStatusTextAndDetail() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        let answer = try await client.handle.call(Number(EchoHandler.failing), deadlineMilliseconds: 10_000)
        #expect(answer.status == .wrongEpoch)
        let error = try #require(answer.error)
        #expect(error.message == "another epoch")
        #expect(error.ownerHint == RPCOwnerHint(epoch: Epoch(7), endpoint: "cache-2:7401"))
        await #expect(throws: RPCError.self) { try await client.call(EchoHandler.failing) }
        await client.handle.close()
        await server.stop()
    }

    @Test func largePayloadsPassWindowsInBothDirections() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        let payload = ByteBuffer(repeating: 0x5A, count: Int(Limits.transferMaximumBytes))
        try await withThrowingTaskGroup(of: Void.self) { group in
            for value in 0..<10 as Range<UInt64> {
                group.addTask {
                    let (number, rest) = try await client.handle.call(
                        Number(value),
                        answer: Number.self,
                        payload: [payload],
                        deadlineMilliseconds: 60_000
                    )
                    #expect(number == Number(value))
                    #expect(rest == payload)
                }
            }
            try await group.waitForAll()
        }
        await client.handle.close()
        await server.stop()
    }

    @Test func deadlinePassesAndTheLateAnswerIsDropped() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        #expect(try await client.call(1) == 1)
        let failure = try await #require(throws: RPCFailure.self) {
            try await client.call(EchoHandler.late, deadlineMilliseconds: 60)
        }
        #expect(failure.kind == .deadline)
        #expect(failure.mayHaveExecuted)
        #expect(try await client.call(2) == 2)
        #expect(try await client.call(3) == 3)
        await client.handle.close()
        await server.stop()
    }

    @Test func requestsInFlightFailWhenTheConnectionEnds() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        #expect(try await client.call(1) == 1)
        let call = Task { try await client.call(EchoHandler.unanswered) }
        // Before, the server would only tell that it has not executed the request.
        _ = try await server.received.first { $0 == EchoHandler.unanswered ? $0 : nil }
        await server.stop()
        let failure = try await #require(throws: RPCFailure.self) { try await call.value }
        #expect(failure.kind == .connectionLost)
        #expect(failure.mayHaveExecuted)
        await client.handle.close()
    }

    @Test func withoutServerRequestsAreNotSent() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let endpoint = server.server.endpoint
        await server.stop()
        let client = TestClient(try cluster.identity(.target), to: endpoint)
        let reason = try await client.disconnection()
        #expect(reason.contains("cannot connect"), "\(reason)")
        let failure = try await #require(throws: RPCFailure.self) {
            try await client.call(1, deadlineMilliseconds: 30)
        }
        #expect(!failure.mayHaveExecuted)
        let result = Recorder<Result<RPCAnswer, RPCFailure>>()
        client.handle.send(Number(1), deadlineMilliseconds: 1_000) { result.record($0) }
        let immediate = try await result.first { result in
            if case .failure(let failure) = result { failure } else { nil }
        }
        #expect(immediate.kind == .notSent)
        await client.handle.close()
        await #expect(throws: RPCFailure.self) { try await client.call(1) }
    }

    @Test func clientReconnectsAfterServerRestart() async throws {
        let cluster = try TestCluster()
        let first = try await TestServer.start(cluster.identity(.cache))
        let endpoint = first.server.endpoint
        let client = TestClient(try cluster.identity(.target), to: endpoint)
        #expect(try await client.call(1) == 1)
        await first.stop()
        _ = try await client.disconnection()
        let second = try await TestServer.start(cluster.identity(.cache), port: endpoint.port)
        #expect(try await client.call(2) == 2)
        await client.handle.close()
        await second.stop()
    }

    @Test func shutdownDrainsWhatWasAccepted() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let client = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        #expect(try await client.call(1) == 1)
        let payload = ByteBuffer(repeating: 1, count: 1 << 20)
        let calls = (0..<16 as Range<UInt64>).map { value in
            Task {
                try await client.handle.call(
                    Number(value),
                    answer: Number.self,
                    payload: [payload],
                    deadlineMilliseconds: 10_000
                ).0.value
            }
        }
        let results = Recorder<UInt64>()
        await server.server.shutdown(drain: .seconds(5))
        for (value, call) in calls.enumerated() {
            do {
                #expect(try await call.value == UInt64(value))
                results.record(UInt64(value))
            } catch let failure as RPCFailure {
                // What was not accepted before the goaway is known not to be executed.
                #expect(!failure.mayHaveExecuted, "\(failure)")
            }
            if value == 0 { await client.handle.close() }
        }
        #expect(server.server.connectionCount == 0)
    }

    @Test func tooManyConnectionsAreRefusedWithAReason() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache)) { $0.connectionsMaximum = 1 }
        let first = TestClient(try cluster.identity(.target), to: server.server.endpoint)
        #expect(try await first.call(1) == 1)
        let second = TestClient(try cluster.identity(.target, "node-2"), to: server.server.endpoint)
        let reason = try await second.disconnection()
        #expect(reason.contains("too many connections"), "\(reason)")
        #expect(try await server.refusal().contains("too many connections"))
        #expect(try await first.call(2) == 2)
        await first.handle.close()
        #expect(try await second.call(3) == 3)
        await second.handle.close()
        await server.stop()
    }

    @Test func manySmallRequests() async throws {
        let cluster = try TestCluster()
        let server = try await TestServer.start(cluster.identity(.cache))
        let identity = try cluster.identity(.target)
        let eventLoop = MultiThreadedEventLoopGroup.singleton.next()
        let done = eventLoop.makePromise(of: Int.self)
        let endpoint = server.server.endpoint
        eventLoop.execute {
            let run = ManyRequests(total: 100_000, inFlight: 128, done: done)
            run.start(on: eventLoop, identity: identity, endpoint: endpoint)
        }
        #expect(try await done.futureResult.get() == 100_000)
        await server.stop()
    }
}

/// Keeps a number of requests in flight on the loop, as the data path does.
private final class ManyRequests {
    private let total: Int
    private let inFlight: Int
    private let done: EventLoopPromise<Int>
    private var client: RPCClient?
    private var sent = 0
    private var answered = 0

    init(total: Int, inFlight: Int, done: EventLoopPromise<Int>) {
        self.total = total
        self.inFlight = inFlight
        self.done = done
    }

    func start(on eventLoop: any EventLoop, identity: TLSIdentity, endpoint: RPCEndpoint) {
        let configuration = RPCClient.Configuration(
            endpoint: endpoint,
            identity: identity,
            expectedRole: .cache,
            seed: 1
        )
        let client = RPCClient(eventLoop: eventLoop, configuration: configuration, logger: quietLogger) { state in
            guard case .connected = state else { return }
            for _ in 0..<self.inFlight { self.sendOne() }
        }
        self.client = client
        client.start()
    }

    private func sendOne() {
        guard sent < total else { return }
        sent += 1
        let value = UInt64(sent) + 10_000
        client?.send(Number(value), deadlineMilliseconds: 30_000) { result in
            guard case .success(var answer) = result, (try? answer.decode(Number.self)) == Number(value) else {
                self.done.fail(RPCFailure(.connectionLost, mayHaveExecuted: true, "\(result)"))
                return
            }
            self.answered += 1
            guard self.answered < self.total else {
                self.client?.close()
                self.client = nil
                self.done.succeed(self.answered)
                return
            }
            self.sendOne()
        }
    }
}
