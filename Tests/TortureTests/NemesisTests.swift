import Testing

@testable import ashlar_torture

/// What `ss` prints.
@Suite struct ConnectionTests {
    @Test func eachConnectionIsFoundOnceWithTheRolesOfItsEnds() {
        let text = """
            0      0          127.0.0.1:40000      127.0.0.1:7401  users:(("ashlar",pid=11,fd=9))
            0      0          127.0.0.1:7401       127.0.0.1:40000 users:(("ashlar",pid=12,fd=7))
            0      5          127.0.0.1:3260       127.0.0.1:50000 users:(("ashlar",pid=11,fd=3))
            0      0          127.0.0.1:50000      127.0.0.1:3260  users:(("torture",pid=99,fd=3))
            0      0          127.0.0.1:1          127.0.0.1:2     users:(("other",pid=98,fd=3))
            0      0          127.0.0.1:2          127.0.0.1:1     users:(("other",pid=98,fd=4))
            """
        let connections = Connection.parse(text, roles: [11: "target", 12: "cache"])
        #expect(connections.map(\.name) == ["cache-target", "client-target"])
        #expect(connections.first?.local == Connection.End(host: "127.0.0.1", port: 7401))
        #expect(
            connections.map(\.sockets) == [
                [.init(pid: 12, descriptor: 7), .init(pid: 11, descriptor: 9)],
                [.init(pid: 11, descriptor: 3), .init(pid: 99, descriptor: 3)],
            ]
        )
    }
}

/// The time until all clients go on.
@Suite struct StallsTests {
    @Test func aStallLastsUntilTheLastClientHasAnAnswerToSomethingNew() {
        var history = History()
        history.add(
            client: 1,
            text: "R 0 1 1 2 0:1\nR 0 1 500 9000 0:1\nR 0 1 1500 3000 0:1\nR 0 1 1600 2500 0:1\nE 1\n"
        )
        history.add(
            client: 2,
            text: "W 9 0 1 1 2 o\nW 1 0 1 1100 2000 f\nW 2 0 1 1200 8000 l\nW 3 0 1 9000 9500 o\nE 1\n"
        )
        let stalls = Stalls.byFault(
            [FaultDone(name: "kill-target", time: 1_000), FaultDone(name: "kill-target", time: 9_100)],
            history
        )
        #expect(stalls["kill-target"]?.count == 2)
        #expect(stalls["kill-target"]?.milliseconds == [8], "from 1,000 to 9,500; after the second one both had ended")
    }

    @Test func aFaultInTheWakeOfAnotherIsCountedAndNotMeasured() {
        func stalls(_ first: String, _ second: String, _ faults: [(String, UInt64)]) -> [String: Stalls] {
            var history = History()
            history.add(client: 1, text: first + "E 1\n")
            history.add(client: 2, text: second + "E 1\n")
            return Stalls.byFault(faults.map { FaultDone(name: $0.0, time: $0.1) }, history)
        }
        let steady = (0..<100).map { "R 0 1 \($0 * 10_000) \($0 * 10_000 + 5_000) 0:1\n" }.joined()
        // The second client has an answer to something new at 400,000 only.
        let late = "R 0 1 90000 99000 0:1\nR 0 1 150000 400000 0:1\nR 0 1 500000 500100 0:1\n"
        let both = stalls(steady, late, [("cut", 100_000), ("kill", 120_000), ("move", 450_000)])
        #expect(both["cut"]?.milliseconds == [300] && both["cut"]?.overlapped == 0)
        #expect(both["kill"]?.milliseconds == [] && both["kill"]?.overlapped == 1 && both["kill"]?.count == 1)
        #expect(both["move"]?.milliseconds == [50] && both["move"]?.overlapped == 0)
        #expect(both["kill"]?.text == "1; 1 in the wake of others")
        // It has stood still since long before the fault, whatever for.
        let still = "R 0 1 1000 2000 0:1\nR 0 1 600000 700000 0:1\n"
        let limit = 2_000 + Stalls.stillMicroseconds
        #expect(stalls(steady, still, [("kill", limit + 1)])["kill"]?.overlapped == 1)
        #expect(stalls(steady, still, [("kill", limit)])["kill"]?.milliseconds == [398])
    }

    @Test func percentilesAreOfWhatThereIs() {
        #expect(Stalls(count: 1, milliseconds: []).percentile(99) == 0)
        #expect(Stalls(count: 4, milliseconds: [1, 2, 3, 4]).percentile(50) == 2)
        #expect(Stalls(count: 4, milliseconds: [1, 2, 3, 4]).percentile(99) == 4)
        #expect(Stalls(count: 0).text == "0")
    }

    @Test func everyFaultHasANameOfItsOwn() {
        #expect(Set(Fault.weights.map(\.fault.name)).count == Fault.weights.count)
        #expect(Fault.named("kill-target") == Fault(kind: .kill, role: "target"))
        #expect(Fault.named("kill-nobody") == nil)
    }
}

/// What the nemesis is told of an object.
@Suite struct LiveObjectTests {
    @Test func theBlocksOfAllExtentsAreRead() {
        let object = LiveObject(row: "18|2|0+8,100+1")
        #expect(object?.id == 18 && object?.server == 2)
        #expect(object?.blocks == [0..<8, 100..<101])
        #expect(LiveObject(row: "18|2") == nil)
        #expect(LiveObject(row: "18|2|0+8,100") == nil)
    }

    @Test func aFileThatIsNotThereHasNoPath() {
        #expect(LiveObject(row: "18|2|0+8")?.path(below: "/nowhere") == nil)
    }
}
