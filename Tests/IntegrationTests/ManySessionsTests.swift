import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    /// As many sessions at one target as a portal of a busy host has.
    @Suite(.serialized) struct ManySessionsTests {
        private static let sessions = 300
        /// What a session may cost the target while it is idle, in bytes.
        private static let sessionBytesMaximum = 256 << 10

        /// Takes what has come for each session; counts the pings by session. Answers go out by themselves.
        private func serve(_ sessions: [RawInitiator], _ pings: inout [Int]) throws {
            for (index, session) in sessions.enumerated() {
                guard let events = session.receive(milliseconds: 0) else {
                    throw ProcessFailure("\(session.name) was dropped")
                }
                for event in events {
                    switch event {
                    case .nopIn(let pdu, _) where pdu.transferTag != .max: pings[index] += 1
                    case .violation(let text): throw ProcessFailure("\(session.name): \(text)")
                    default: break
                    }
                }
            }
        }

        @Test func threeHundredSessionsAreServed_I10() async throws {
            try await TestCluster.with(volumes: ["demo:64M"], targets: 1) { cluster in
                let iqn = try await cluster.iqn()
                let pid = try cluster.state().pids("target")[0]
                let before = try TestCluster.residentBytes(pid)
                var sessions: [RawInitiator] = []
                var pings = [Int](repeating: 0, count: Self.sessions)
                for index in 0..<Self.sessions {
                    let session = try RawInitiator(port: cluster.port, iqn: iqn, name: "many-\(index)")
                    try session.logIn()
                    sessions.append(session)
                    // Those that are there want their pings answered meanwhile.
                    if index % 20 == 0 { try serve(sessions, &pings) }
                }
                for round in 0..<2 {
                    for (index, session) in sessions.enumerated() {
                        try session.writeAndRead(UInt64(index), fill: UInt8(truncatingIfNeeded: index + round))
                        if index % 20 == 0 { try serve(sessions, &pings) }
                    }
                    guard round == 0 else { break }
                    let clock = ContinuousClock()
                    let end = clock.now + .seconds(10)
                    pings = [Int](repeating: 0, count: Self.sessions)
                    while clock.now < end {
                        try serve(sessions, &pings)
                        try await Task.sleep(for: .milliseconds(50))
                    }
                    #expect(pings.allSatisfy { $0 > 0 }, "a session was not pinged")
                }
                #expect(
                    try await cluster.sql("SELECT count(*) FROM ashlar_inspect.sessions WHERE volume = 'demo'")
                        == String(Self.sessions)
                )
                let after = try TestCluster.residentBytes(pid)
                print("\(Self.sessions) sessions: from \(before >> 20) to \(after >> 20) MiB resident")
                #expect(after < before + Self.sessions * Self.sessionBytesMaximum)
                #expect(try cluster.state().pids("target")[0] == pid)
                for (index, session) in sessions.enumerated() {
                    try session.logOut()
                    if index % 20 == 0 { try serve(Array(sessions[(index + 1)...]), &pings) }
                }
                let open = "SELECT count(*) FROM ashlar_inspect.sessions WHERE volume = 'demo'"
                try await cluster.wait("all sessions are gone", open, is: "0")
            }
        }
    }
}
