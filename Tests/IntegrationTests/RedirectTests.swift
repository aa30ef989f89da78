import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    /// Logins that are sent to another target, and targets that are drained.
    @Suite(.serialized) struct RedirectTests {
        /// ASYMMETRIC ACCESS STATE CHANGED.
        private static let accessStateChanged: UInt16 = 0x2A06
        /// Asymmetric access states.
        private static let active: UInt8 = 0
        private static let standby: UInt8 = 2

        /// How a target answers a login: the status, and the address that comes with it.
        private func logIn(_ cluster: TestCluster, _ name: String, target: Int = 1) async throws -> (UInt16, String?) {
            let initiator = try await RawInitiator(port: cluster.port + target - 1, iqn: cluster.iqn(), name: name)
            if let refusal = try initiator.tryLogIn() {
                return (refusal.status, refusal.keys.first { $0.name == "TargetAddress" }?.value)
            }
            return (0, nil)
        }

        /// Waits until a login is answered by a status.
        private func wait(_ cluster: TestCluster, status: UInt16, _ what: String, target: Int = 1) async throws {
            _ = try await ProcessRunner.eventually(what, timeout: .seconds(30)) { () -> Bool? in
                try await logIn(cluster, "asks", target: target).0 == status ? true : nil
            }
        }

        @Test func initiatorsFollowARedirection() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let other = "127.0.0.1:\(cluster.port + 1)"
                for (redirect, status) in [("temporarily", UInt16(0x0101)), ("permanently", 0x0102)] {
                    try await cluster.configure("target", "target", ["redirect": redirect])
                    try await wait(cluster, status: status, "target 1 sends logins \(redirect) elsewhere")
                    let (_, address) = try await logIn(cluster, "moved")
                    #expect(address == other)
                    #expect(try await logIn(cluster, "stays", target: 2).0 == 0)
                    // libiscsi follows 0101h only.
                    if redirect == "temporarily" { try await follow(cluster) }
                    let list = try await ProcessRunner.check("iscsi-ls", ["iscsi://127.0.0.1:\(cluster.port)"])
                    #expect(try await list.contains(cluster.iqn()), "\(list)")
                    #expect(
                        try await cluster.sql("SELECT count(DISTINCT node) FROM nexuses WHERE node <> 'target-2'")
                            == "0"
                    )
                }
                // Without another target that lives, it serves by itself.
                let pid = try cluster.state().pids("target")[1]
                defer { kill(pid, SIGCONT) }
                try await ProcessRunner.suspend(pid)
                let late = "UPDATE target_nodes SET last_seen = now() - interval '1 hour' WHERE node = 'target-2'"
                _ = try await cluster.sql(late)
                try await wait(cluster, status: 0, "target 1 serves by itself")
                try await cluster.session("served").writeAndRead(9, fill: 9)
            }
        }

        /// Two front doors without another node: each serves, and counts what is logged in to a volume.
        @Test func frontDoorsSendNothingToOneAnother() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                for index in 0...1 {
                    try await cluster.configure("target", "target", ["redirect": "temporarily"], index: index)
                }
                try await cluster.wait(
                    "both have told that they are front doors",
                    "SELECT count(*) FROM target_nodes WHERE NOT receives_logins",
                    is: "2"
                )
                for target in 1...2 { try await wait(cluster, status: 0, "target \(target) serves", target: target) }
                let session = try await cluster.session("served", target: 1)
                let discovery = try RawInitiator(port: cluster.port, iqn: nil, name: "discovers")
                try discovery.logIn()
                let idle = try RawInitiator(port: cluster.port, iqn: nil, name: "idle")
                for _ in 0..<12 {
                    for initiator in [session, discovery] { _ = initiator.receive(milliseconds: 500) }
                }
                #expect(try await cluster.sql("SELECT sessions FROM target_nodes WHERE node = 'target-1'") == "1")
                try session.writeAndRead(1, fill: 1)
                idle.close()

                // A node that is drained, and is the last, sends to the front door, which serves then.
                try await cluster.configure("target", "target", ["redirect": "never"], index: 1)
                try await wait(cluster, status: 0x0101, "target 1 sends logins to target 2")
                _ = try await cluster.sql("UPDATE target_nodes SET draining = true WHERE node = 'target-2'")
                try await wait(cluster, status: 0, "target 1 serves again")
                try await wait(cluster, status: 0x0101, "target 2 sends logins to target 1", target: 2)
            }
        }

        /// qemu and libiscsi reach the volume through the target that sends them elsewhere.
        private func follow(_ cluster: TestCluster) async throws {
            let written = try await Images.io(cluster.url(target: 1), ["write -P 0x31 1M 64k"])
            #expect(written.isSuccess, "\(written.summary)")
            let read = try await Images.io(cluster.url(target: 2), ["read -P 0x31 1M 64k"])
            #expect(read.isSuccess && !read.output.contains("verification failed"), "\(read.summary)")
            try await Initiator.shared.pingpong(cluster.url(target: 1), cluster.url(target: 2), turns: 50)
        }

        /// Drains target 1, or ends that: every session is told so, once.
        private func drain(_ cluster: TestCluster, _ isDraining: Bool, _ sessions: [RawInitiator]) async throws {
            _ = try await cluster.sql("UPDATE target_nodes SET draining = \(isDraining) WHERE node = 'target-1'")
            for initiator in sessions {
                let state = isDraining ? Self.standby : Self.active
                let groups = try initiator.targetPortGroups()
                #expect(groups.states == [1: state, 2: Self.active])
                // The regular report may have been quicker than the command.
                #expect(try groups.attentions + initiator.attentions() == [Self.accessStateChanged])
                #expect(try initiator.attentions().isEmpty, "once")
            }
        }

        private func isAskedToLogOut(_ initiator: RawInitiator, keeping other: RawInitiator) -> Bool {
            let clock = ContinuousClock()
            let deadline = clock.now + .seconds(60)
            while clock.now < deadline, let events = initiator.receive(milliseconds: 100) {
                _ = other.receive(milliseconds: 0)
                for case .async(let pdu, _) in events where pdu.event == AsyncEvent.logoutRequested.rawValue {
                    return true
                }
            }
            return false
        }

        @Test func aTargetIsDrained() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let leaving = try await cluster.session("leaving", target: 1)
                let staying = try await cluster.session("staying", target: 2)
                for initiator in [leaving, staying] {
                    _ = try initiator.attentions()
                    #expect(try initiator.targetPortGroups().states == [1: Self.active, 2: Self.active])
                }
                try await drain(cluster, true, [leaving, staying])
                // What is open goes on meanwhile; what is new goes elsewhere.
                try leaving.writeAndRead(1, fill: 1)
                let (status, address) = try await logIn(cluster, "new")
                #expect(status == 0x0101 && address == "127.0.0.1:\(cluster.port + 1)")
                let written = try await Images.io(cluster.url(target: 1), ["write -P 0x44 1M 64k"])
                #expect(written.isSuccess, "\(written.summary)")

                // Asked to go, it may stay after all; the next time it is asked anew.
                #expect(isAskedToLogOut(leaving, keeping: staying))
                try await drain(cluster, false, [leaving, staying])
                try leaving.writeAndRead(1, fill: 2)
                try await drain(cluster, true, [leaving, staying])
                let (isClosed, events) = leaving.waitForClose(seconds: 60, keeping: [staying])
                let announced = events.compactMap { if case .async(let pdu, _) = $0 { pdu } else { nil } }
                #expect(isClosed)
                #expect(
                    announced.map(\.event)
                        == [AsyncEvent.logoutRequested.rawValue, AsyncEvent.sessionDropped.rawValue],
                    "\(announced)"
                )
                #expect((announced.first?.parameter3 ?? 0) > 0)
                // A session for discovery is none of those that are dropped.
                let discovery = try RawInitiator(port: cluster.port, iqn: nil, name: "discovers")
                try discovery.logIn()
                #expect(!discovery.waitForClose(seconds: 3, keeping: [staying]).isClosed)
                #expect(try await discovery.discover() == [cluster.iqn()])
                try discovery.logOut()
                try staying.writeAndRead(2, fill: 2)

                try await drain(cluster, false, [staying])
                try await wait(cluster, status: 0, "target 1 takes sessions again")
                let back = try await cluster.session("leaving", target: 1)
                try back.writeAndRead(3, fill: 3)
                #expect(!back.waitForClose(seconds: 3, keeping: [staying]).isClosed)
            }
        }
    }
}
