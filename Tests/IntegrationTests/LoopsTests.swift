import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    /// Sessions of one target on different event loops are to one another what sessions of different targets are.
    @Suite(.serialized) struct LoopsTests {
        /// BUS DEVICE RESET FUNCTION OCCURRED, COMMANDS CLEARED BY ANOTHER INITIATOR, ASYMMETRIC ACCESS STATE CHANGED.
        private static let deviceReset: UInt16 = 0x2903
        private static let commandsCleared: UInt16 = 0x2F00
        private static let accessStateChanged: UInt16 = 0x2A06

        @Test func sessionsOnDifferentLoopsOfOneTarget_I2_R3_R6() async throws {
            let extra = ["--target-loops", "2"]
            try await TestCluster.with(volumes: ["demo:16M"], targets: 1, extra: extra) { cluster in
                let sessions = [try await cluster.session("first"), try await cluster.session("second")]
                try await wait("each loop has one", cluster, "connections", are: [1, 1], keeping: sessions)
                try await wait("both are logged in", cluster, "sessions", are: [1, 1], keeping: sessions)
                for session in sessions { _ = try session.attentions() }
                try seeOneAnother(sessions)
                try clear(sessions[0], from: sessions[1])
                try clear(sessions[1], from: sessions[0])
                try await reinstate(cluster, keeping: sessions)
                try await drain(cluster, sessions)
            }
        }

        /// Waits until a condition holds; sessions answer their pings meanwhile.
        private func wait(
            _ what: String,
            keeping sessions: [RawInitiator],
            until isSo: () async throws -> Bool
        ) async throws {
            let clock = ContinuousClock()
            let deadline = clock.now + .seconds(60)
            while try await !isSo() {
                guard clock.now < deadline else { throw ProcessFailure("not in time: \(what)") }
                for session in sessions where session.receive(milliseconds: 50) == nil {
                    throw ProcessFailure("\(session.name) was closed; waiting for: \(what)")
                }
            }
        }

        /// Waits until the loops have so many connections or sessions.
        private func wait(
            _ what: String,
            _ cluster: TestCluster,
            _ kind: String,
            are expected: [Int],
            keeping sessions: [RawInitiator]
        ) async throws {
            try await wait("\(what): \(expected)", keeping: sessions) {
                var found: [Int] = []
                for loop in expected.indices {
                    let labels = "{loop=\"\(loop)\"}"
                    found.append(try await cluster.metric("target-1", "ashlar_target_\(kind)", labels))
                }
                return found == expected
            }
        }

        /// I2: what is acknowledged to one is read by the other at once.
        private func seeOneAnother(_ sessions: [RawInitiator]) throws {
            for turn in 0..<200 {
                let (writer, reader) = (sessions[turn % 2], sessions[(turn + 1) % 2])
                let data = [UInt8](repeating: UInt8(turn), count: 512)
                let place = UInt64(turn % 16)
                #expect(try writer.run(RawInitiator.write16(place, 1), write: data).isGood)
                #expect(try reader.read(place, 1) == data, "turn \(turn)")
            }
        }

        /// R6: CLEAR TASK SET and LOGICAL UNIT RESET reach the tasks of a session on the other loop.
        private func clear(_ writer: RawInitiator, from manager: RawInitiator) throws {
            let data = [UInt8](repeating: 1, count: 64 << 10)
            var aborted = 0
            for _ in 0..<20 where aborted == 0 {
                // On one place they wait for each other.
                let tags = (0..<32).map { _ in writer.begin(RawInitiator.write16(0, 128), write: data) }
                #expect(try manager.manage(.clearTaskSet) == .functionComplete)
                let outcomes = try writer.finish(tags)
                aborted = outcomes.count { $0.status == RawInitiator.taskAborted }
                let told = outcomes.compactMap(\.sense?.code) + (try writer.attentions())
                #expect(told == [Self.commandsCleared] || told.isEmpty && aborted == 0, "\(told)")
            }
            #expect(aborted > 0, "every write was done before it could be aborted")
            #expect(try manager.manage(.logicalUnitReset) == .functionComplete)
            for session in [writer, manager] { #expect(try session.attentions() == [Self.deviceReset]) }
        }

        /// R3: a login between the same ports ends the older session, which is on another loop.
        private func reinstate(_ cluster: TestCluster, keeping sessions: [RawInitiator]) async throws {
            var old = try await cluster.session("twice")
            try await wait("the first loop has it", cluster, "connections", are: [2, 1], keeping: sessions + [old])
            for expected in [[1, 2], [2, 1]] {
                let new = try await cluster.session("twice")
                let (isClosed, _) = old.waitForClose(seconds: 30, keeping: sessions + [new])
                #expect(isClosed, "the older session is still there")
                try new.writeAndRead(20, fill: UInt8(expected[0]))
                try await wait(
                    "the other loop has it",
                    cluster,
                    "connections",
                    are: expected,
                    keeping: sessions + [new]
                )
                old = new
            }
            try old.logOut()
            try await wait("it has gone", cluster, "sessions", are: [1, 1], keeping: sessions)
        }

        /// The sessions of all loops are told that the target is drained, and asked to log out; they count as those of one node.
        private func drain(_ cluster: TestCluster, _ sessions: [RawInitiator]) async throws {
            _ = try await cluster.sql("UPDATE target_nodes SET draining = true WHERE node = 'target-1'")
            for session in sessions.reversed() {
                let groups = try session.targetPortGroups()
                #expect(groups.states == [1: 2], "standby")
                // The regular report may have been quicker than the command.
                #expect(try groups.attentions + session.attentions() == [Self.accessStateChanged])
                #expect(try session.attentions().isEmpty, "once")
            }
            for _ in 0..<2 {
                // One for each loop.
                let late = try await RawInitiator(port: cluster.port, iqn: cluster.iqn(), name: "late")
                #expect(try late.tryLogIn()?.status == 0x0301, "service unavailable")
                late.close()
            }
            var asked = Set<String>()
            let clock = ContinuousClock()
            let deadline = clock.now + .seconds(60)
            while asked.count < sessions.count, clock.now < deadline {
                for session in sessions {
                    let events = session.receive(milliseconds: 50)
                    try #require(events != nil, "\(session.name) was closed before it was asked to log out")
                    for case .async(let pdu, _) in events ?? []
                    where pdu.event == AsyncEvent.logoutRequested.rawValue {
                        asked.insert(session.name)
                    }
                }
            }
            #expect(asked.count == sessions.count, "asked to log out: \(asked)")
            #expect(try await cluster.sql("SELECT sessions FROM target_nodes WHERE node = 'target-1'") == "2")
            for session in sessions { try session.logOut() }
            try await wait("all have gone", cluster, "connections", are: [0, 0], keeping: [])
        }
    }
}
