import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct TwoTargetsTests {
        @Test func whatOneAcknowledgesTheOtherReadsAtOnce_I2() async throws {
            try await TestCluster.with { cluster in
                try await Initiator.shared.pingpong(cluster.url(target: 1), cluster.url(target: 2), turns: 500)
                let written = try await Images.io(cluster.url(target: 1), ["write -P 0x5a 1M 64k"])
                #expect(written.isSuccess, "\(written.summary)")
                let read = try await Images.io(cluster.url(target: 2), ["read -P 0x5a 1M 64k", "read -P 0 2M 64k"])
                #expect(read.isSuccess && !read.output.contains("verification failed"), "\(read.summary)")
            }
        }

        @Test func writesToDifferentSectorsOfOneBlockLoseNothing_D14() async throws {
            try await TestCluster.with { cluster in
                // Two blocks' worth of places for each of 64 blocks: nearly every write meets another of its block.
                let runs = try (0..<2).map { index in
                    Initiator.Writes(
                        url: try cluster.url(target: index + 1),
                        journal: "\(cluster.data)/journal-\(index)",
                        depth: 16,
                        milliseconds: 5_000,
                        sectors: 512,
                        stride: 2,
                        offset: index
                    )
                }
                let processes = [
                    try await Initiator.shared.start(runs[0]), try await Initiator.shared.start(runs[1]),
                ]
                for process in processes {
                    let report = try await Initiator.shared.finish(process)
                    #expect(report.acknowledged > 100)
                }
                for target in 1...2 {
                    try await Initiator.shared.verify(runs, through: cluster.url(target: target))
                }
                try await cluster.drain(cachedBytesMaximum: 0)
                try await Initiator.shared.verify(runs, through: cluster.url(target: 1))
            }
        }

        @Test func aTargetThatIsStoppedTellsItsInitiators() async throws {
            try await TestCluster.with { cluster in
                let session = try await cluster.session("told")
                try session.writeAndRead(0, fill: 1)
                let pid = try cluster.state().pids("target")[0]
                kill(pid, SIGTERM)
                let (isClosed, events) = session.waitForClose(seconds: 20)
                let announced = events.compactMap { if case .async(let pdu, _) = $0 { pdu.event } else { nil } }
                // First they are asked to log out; who stays is told that its session will be dropped.
                let expected = [AsyncEvent.logoutRequested, .sessionDropped].map(\.rawValue)
                #expect(isClosed && announced == expected, "\(announced)")
                _ = try await ProcessRunner.eventually("the target runs again", timeout: .seconds(60)) { () -> Bool? in
                    let state = try cluster.state()
                    return state.ready && state.pids("target")[0] != pid ? true : nil
                }
                try await cluster.session("again").writeAndRead(0, fill: 2)
            }
        }

        /// One initiator goes when it is asked to, and meets no error; one that stays is dropped; both are sent elsewhere.
        @Test func aDrainedTargetIsEmptiedWithoutAnError() async throws {
            try await TestCluster.with { cluster in
                let stubborn = try await cluster.session("stubborn")
                try stubborn.writeAndRead(0, fill: 1)
                let url = try cluster.url(target: 1)
                async let reads = Images.io(
                    url,
                    ["write -P 7 1M 4k"] + (0..<32).flatMap { _ in ["sleep 1000", "read -P 7 1M 4k"] }
                )
                let count = "SELECT count(*) FROM ashlar_inspect.sessions WHERE node = "
                try await cluster.wait("two are logged in", count + "'target-1'", is: "2")

                let drained = try await cluster.ashlar(["target", "drain", "target-1"])
                #expect(drained.isSuccess && drained.output.contains("draining"), "\(drained.summary)")
                try await cluster.wait("the one that listens has gone over", count + "'target-2'", is: "1")
                let (isClosed, events) = stubborn.waitForClose(seconds: 45)
                let announced = events.compactMap { if case .async(let pdu, _) = $0 { pdu.event } else { nil } }
                #expect(isClosed && announced.first == AsyncEvent.logoutRequested.rawValue, "\(announced)")
                // Status class 1: the target has moved.
                let sent = await #expect(throws: ProcessFailure.self) { try await cluster.session("sent") }
                #expect(sent.map { "\($0)".contains("refused with 101") } == true, "\(String(describing: sent))")
                try await cluster.wait("target-1 is empty", count + "'target-1'", is: "0")
                let result = try await reads
                #expect(result.isSuccess && !result.output.contains("verification failed"), "\(result.summary)")

                let undone = try await cluster.ashlar(["target", "drain", "target-1", "--undo"])
                #expect(undone.isSuccess && !undone.output.contains("draining"), "\(undone.summary)")
                _ = try await ProcessRunner.eventually("target-1 takes sessions again", timeout: .seconds(20)) {
                    () -> Bool? in
                    guard let session = try? await cluster.session("back") else { return nil }
                    try session.writeAndRead(0, fill: 2)
                    return true
                }
            }
        }

        @Test func bothPortalsAreDiscovered() async throws {
            try await TestCluster.with(volumes: ["demo:64M", "other:1M"]) { cluster in
                let first = try await ProcessRunner.check("iscsi-ls", ["iscsi://127.0.0.1:\(cluster.port)"])
                let state = try cluster.state()
                for portal in state.portals { #expect(first.contains(portal.iqn), "\(first)") }
                let inquiry = try await ProcessRunner.check("iscsi-inq", [try cluster.url(target: 2)])
                #expect(inquiry.contains("DISK") || inquiry.contains("DIRECT_ACCESS"), "\(inquiry)")
                let pages = try await (1...2).asyncMap { target in
                    try await ProcessRunner.check(
                        "iscsi-inq",
                        ["-e", "1", "-c", "0x80", try cluster.url(target: target)]
                    )
                }
                #expect(pages[0] == pages[1], "a volume has one serial number through every target")
                try await listsByName(cluster)
            }
        }

        /// A target that is asked for by its name is listed as all are: where it is there, and where the initiator may see it.
        private func listsByName(_ cluster: TestCluster) async throws {
            let (demo, other) = try await (cluster.iqn(), cluster.iqn("other"))
            let discovery = try RawInitiator(port: cluster.port, iqn: nil, name: "discovers")
            try discovery.logIn()
            #expect(try discovery.discover().sorted() == [demo, other].sorted())
            #expect(try discovery.discover(other) == [other])
            #expect(try discovery.discover(other + "x").isEmpty)
            try await cluster.change(#"{"initiators":["iqn.2026-01.org.example:nobody"]}"#, volume: "other")
            #expect(try discovery.discover(other).isEmpty)
            #expect(try discovery.discover() == [demo])
            try discovery.logOut()
        }
    }
}

extension Sequence {
    /// Transforms the elements one after the other.
    func asyncMap<Value>(_ transform: (Element) async throws -> Value) async rethrows -> [Value] {
        var result: [Value] = []
        for element in self { result.append(try await transform(element)) }
        return result
    }
}
