import Ownership
import Testing

@testable import PostgresStore

/// What a failure means, by SQLSTATE, severity and the part of the transaction that it came in (D30, D31).
struct OutcomeTests {
    static let transient = [
        "57P01", "57P02", "57P03", "57014", "40001", "40P01", "53100", "53200", "53300", "08006", "25006",
    ]
    static let hopeless = ["XX000", "XX001", "23505", "42P01", "22012", "0A000"]

    @Test("an error before the COMMIT has changed nothing", arguments: transient)
    func before(state: String) {
        #expect(Outcome(sqlState: state, isError: true, .before) == .nothingDone)
        #expect(Outcome(sqlState: state, isError: false, .before) == .nothingDone)
    }

    @Test("an error in the COMMIT has changed nothing, the end of the session leaves it open", arguments: transient)
    func during(state: String) {
        #expect(Outcome(sqlState: state, isError: true, .during) == .nothingDone)
        #expect(Outcome(sqlState: state, isError: false, .during) == .unknown)
    }

    @Test("behind the COMMIT nothing is certain", arguments: transient + hopeless + ["40003"])
    func after(state: String) {
        for isError in [true, false] { #expect(Outcome(sqlState: state, isError: isError, .after) == .unknown) }
    }

    @Test("damage and defects never succeed", arguments: hopeless)
    func impossible(state: String) {
        #expect(Outcome(sqlState: state, isError: true, .before) == .impossible)
        #expect(Outcome(sqlState: state, isError: true, .during) == .impossible)
        #expect(Outcome(sqlState: state, isError: false, .during) == .unknown)
    }

    @Test("without a SQLSTATE it is the connection that broke; 40003 says by itself that nothing is known")
    func others() {
        #expect(Outcome(sqlState: nil, isError: false, .before) == .nothingDone)
        #expect(Outcome(sqlState: nil, isError: false, .during) == .unknown)
        for stage in CommitStage.allCases { #expect(Outcome(sqlState: "40003", isError: true, stage) == .unknown) }
    }

    @Test(
        "D30: a warning that a commit waits for its standbys no longer is known by any of its signs, and others are not"
    )
    func warnings() {
        var notice = ServerNotice()
        #expect(!notice.leavesReplicationOpen)
        notice.severity = "WARNING"
        #expect(!notice.leavesReplicationOpen)
        notice.function = "SyncRepWaitForLSN"
        #expect(notice.leavesReplicationOpen)
        notice.function = "pg_signal_backend"
        notice.message = "PID 1 is not a PostgreSQL backend process"
        #expect(!notice.leavesReplicationOpen)
        notice.message = "canceling wait for synchronous replication due to user request"
        #expect(notice.leavesReplicationOpen)
        notice.message = ""
        notice.sqlState = "57P01"
        #expect(notice.leavesReplicationOpen)
        notice.severity = "NOTICE"
        #expect(!notice.leavesReplicationOpen)
    }
}

/// Which servers are accepted after which (D30).
struct ServerHistoryTests {
    private func server(_ timeline: UInt32 = 1, at position: UInt64 = 1_000, system: Int64 = 7) -> ServerState {
        ServerState(systemIdentifier: system, timeline: timeline, flushed: WALPosition(position))
    }

    private func history(timeline: UInt32 = 1, acknowledged: UInt64 = 1_000) -> ServerHistory {
        var history = ServerHistory()
        #expect(history.refusal(of: server(timeline), branches: nil) == nil)
        history.noteAcknowledged(WALPosition(acknowledged))
        history.noteAcknowledged(WALPosition(acknowledged / 2))
        return history
    }

    @Test("the same server after a crash has what it acknowledged, and no less will do")
    func sameServer() {
        var history = history()
        #expect(history.refusal(of: server(at: 1_000), branches: nil) == nil)
        #expect(
            history.refusal(of: server(at: 999 - ServerHistory.slackBytes), branches: nil)?.contains("lost") == true
        )
        #expect(history.refusal(of: server(at: 999 - ServerHistory.slackBytes), branches: nil, allowsLoss: true) == nil)
    }

    @Test("another system, and an older timeline, are refused, also where losses do not matter")
    func strangers() {
        for allowsLoss in [false, true] {
            var history = history(timeline: 3)
            #expect(history.refusal(of: server(3, system: 8), branches: nil, allowsLoss: allowsLoss) != nil)
            let old = history.refusal(of: server(2, at: 9_000), branches: nil, allowsLoss: allowsLoss)
            #expect(old?.contains("old primary") == true)
        }
    }

    @Test("a promoted standby is accepted where its timeline left the old one behind what was acknowledged")
    func promotion() {
        let left = TimelineBranch(timeline: 1, position: WALPosition(1_000))
        var history = history()
        #expect(history.needsBranches(of: server(2)) && !history.needsBranches(of: server(1)))
        let early = [TimelineBranch(timeline: 1, position: WALPosition(999))]
        // What it has written since does not make up for it.
        #expect(history.refusal(of: server(2, at: 5_000), branches: early)?.contains("lost") == true)
        #expect(history.refusal(of: server(2, at: 5_000), branches: [])?.contains("does not come from") == true)
        #expect(history.refusal(of: server(2, at: 500), branches: nil)?.contains("lost") == true)
        #expect(history.refusal(of: server(2, at: 1_000), branches: [left]) == nil)
        #expect(history.refusal(of: server(1, at: 9_000), branches: nil) != nil)
        let next = left.timeline + 1
        let branches = [left, TimelineBranch(timeline: next, position: WALPosition(4_000))]
        history.noteAcknowledged(WALPosition(4_000))
        #expect(history.refusal(of: server(3, at: 4_000), branches: branches) == nil)
    }

    @Test("positions and histories are read as PostgreSQL writes them")
    func texts() {
        #expect(WALPosition(text: "16/B374D848")?.rawValue == 0x16_B374_D848)
        #expect(WALPosition(0x16_0000_00FF).description == "16/FF")
        for text in ["", "1", "1/", "/1", "1/2/3", "x/1", "1/123456789"] { #expect(WALPosition(text: text) == nil) }
        let text = "1\t0/3000148\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n"
        #expect(
            TimelineBranch.parse(text) == [
                TimelineBranch(timeline: 1, position: WALPosition(0x300_0148)),
                TimelineBranch(timeline: 2, position: WALPosition(0x500_0000)),
            ]
        )
    }

    @Test("what a server must not have is named with its remedy")
    func obstacles() {
        var state = ServerState(durability: [
            "fsync": "on", "full_page_writes": "on", "synchronous_commit": "remote_apply",
        ])
        #expect(state.obstacle(allowUnsafeDurability: false) == nil)
        for name in ServerState.durabilitySettings {
            var unsafe = state
            unsafe.durability[name] = "off"
            let obstacle = unsafe.obstacle(allowUnsafeDurability: false)
            #expect(obstacle?.hasPrefix("\(name) is off") == true && obstacle?.contains("Set it on") == true)
            #expect(unsafe.obstacle(allowUnsafeDurability: true) == nil)
        }
        state.isReadOnly = true
        #expect(state.obstacle(allowUnsafeDurability: true)?.contains("default_transaction_read_only") == true)
        state.isInRecovery = true
        #expect(state.obstacle(allowUnsafeDurability: true)?.contains("standby") == true)
    }

    @Test("the hosts of a connection string are tried one by one")
    func hosts() {
        func options(_ dsn: String) -> [[String: String]] {
            ConnectionHost.of(dsn).map { Dictionary(uniqueKeysWithValues: $0.options) }
        }
        #expect(options("host=a dbname=x") == [[:]])
        #expect(options("not a string") == [[:]])
        #expect(options("host=a,b port=1,2") == [["host": "a", "port": "1"], ["host": "b", "port": "2"]])
        #expect(options("host=a,b port=1") == [["host": "a"], ["host": "b"]])
        #expect(options("postgresql://u@a:1,b:2/x") == [["host": "a", "port": "1"], ["host": "b", "port": "2"]])
        #expect(
            options("host=a,b hostaddr=10.0.0.1,10.0.0.2") == [
                ["host": "a", "hostaddr": "10.0.0.1"], ["host": "b", "hostaddr": "10.0.0.2"],
            ]
        )
        #expect(options("host=a,b port=1,2,3") == [[:]], "libpq tells what is wrong with it")
        #expect(ConnectionHost.of("host=a,b port=1,2").map(\.name) == ["a:1", "b:2"])
    }
}
