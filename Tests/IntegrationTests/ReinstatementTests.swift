import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// A login between the same ports ends the older session, wherever that is (R3).
    @Suite(.serialized) struct ReinstatementTests {
        @Test func anIdleSessionIsClosedWhenItsPortLogsInElsewhere_R3() async throws {
            let address = "127.0.0.1:\(try Balancer.freePort())"
            try await TestCluster.with(volumes: ["demo:16M"], extra: ["--balanced-portal", address]) { cluster in
                let sibling = try await cluster.session("twice", target: 1, isid: 0x4000_0137_0002)
                var old = try await cluster.session("twice", target: 1)
                try old.writeAndRead(0, fill: 1)
                for target in [2, 1, 1] {
                    let new = try await cluster.session("twice", target: target)
                    // It does nothing meanwhile but answer pings.
                    #expect(old.waitForClose(seconds: 15).isClosed, "the idle session is still there")
                    try new.writeAndRead(0, fill: UInt8(target))
                    old = new
                }
                #expect(!sibling.waitForClose(seconds: 1).isClosed, "another port of the initiator")
                try sibling.writeAndRead(0, fill: 9)
            }
        }
    }
}
