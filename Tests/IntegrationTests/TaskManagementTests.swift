import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    /// Task management while initiators write: nothing of what was taken back appears later (R6).
    @Suite(.serialized) struct TaskManagementTests {
        /// BUS DEVICE RESET FUNCTION OCCURRED.
        private static let deviceReset: UInt16 = 0x2903
        /// COMMANDS CLEARED BY ANOTHER INITIATOR.
        private static let commandsCleared: UInt16 = 0x2F00

        @Test func acknowledgedBytesStayWhileTasksAreTakenBack_R6() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let runs = try (0..<2).map { index in
                    Initiator.Writes(
                        url: try cluster.url(target: index + 1),
                        journal: "\(cluster.data)/journal-\(index)",
                        depth: 16,
                        milliseconds: 8_000,
                        sectors: 512,
                        stride: 2,
                        offset: index
                    )
                }
                let processes = [
                    try await Initiator.shared.start(runs[0]), try await Initiator.shared.start(runs[1]),
                ]
                let functions: [TaskManagementFunction] = [
                    .abortTaskSet, .clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset,
                ]
                var count = 0
                while processes.allSatisfy(\.isRunning), count < 200 {
                    let function = functions[count % functions.count]
                    let manager = try await cluster.session("manager", target: count / functions.count % 2 + 1)
                    #expect(try manager.manage(function) == .functionComplete, "\(function)")
                    if function == .targetColdReset {
                        #expect(manager.waitForClose(seconds: 10).isClosed)
                    } else {
                        #expect(try manager.attentions().allSatisfy { $0 >> 8 == 0x29 })
                        try manager.logOut()
                    }
                    count += 1
                    try await Task.sleep(for: .milliseconds(100))
                }
                for process in processes {
                    let report = try await Initiator.shared.finish(process)
                    #expect(report.acknowledged > 100 && report.repeats > 0 && report.logins > 1, "\(report)")
                }
                #expect(count >= functions.count)
                for target in 1...2 { try await Initiator.shared.verify(runs, through: cluster.url(target: target)) }
            }
        }

        @Test func whatIsAbortedIsDoneNoLater_R6() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let writer = try await cluster.session("writer", target: 1)
                let reader = try await cluster.session("reader", target: 2)
                let blocks: UInt64 = 128
                let count = 16
                var unanswered = 0
                _ = try writer.attentions()
                for round in 1...12 {
                    let data = [UInt8](repeating: UInt8(round), count: Int(blocks) * 512)
                    let tags = (0..<count).map {
                        writer.begin(RawInitiator.write16(UInt64($0) * blocks, UInt32(blocks)), write: data)
                    }
                    // Some have begun then, others wait for their data.
                    let wait = Int32(round % 4 * 10)
                    if wait > 0 { _ = writer.receive(milliseconds: wait) }
                    var aborted = tags
                    if round % 2 == 0 {
                        #expect(try writer.manage(.abortTaskSet) == .functionComplete)
                    } else {
                        aborted = tags.filter { $0 % 2 == 0 }
                        for tag in aborted {
                            let response = try writer.manage(.abortTask, of: tag)
                            #expect(response == .functionComplete || response == .taskDoesNotExist)
                        }
                        _ = try writer.finish(tags.filter { $0 % 2 == 1 })
                    }
                    func firstBytes() throws -> [UInt8] {
                        try (0..<count).map { try reader.read(UInt64($0) * blocks, UInt32(blocks))[0] }
                    }
                    let before = try firstBytes()
                    for (index, tag) in tags.enumerated() {
                        let outcome = writer.outcome(tag)
                        if outcome == nil, aborted.contains(tag) { unanswered += 1 }
                        if outcome?.isGood == true { #expect(before[index] == UInt8(round)) }
                    }
                    try await Task.sleep(for: .milliseconds(100))
                    #expect(try firstBytes() == before, "round \(round)")
                }
                #expect(unanswered > 0, "every write was done before it could be aborted")
                #expect(try writer.manage(.abortTask, of: 0x7FFF_0000) == .taskDoesNotExist)
                #expect(try writer.manage(.taskReassign, of: 0x7FFF_0000) == .reassignmentNotSupported)
                #expect(try writer.manage(.clearACA) == .functionNotSupported)
                try writer.writeAndRead(0, fill: 0xEE)
            }
        }

        @Test func otherNexusesAreTold() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                for function in [
                    TaskManagementFunction.clearTaskSet, .logicalUnitReset, .targetWarmReset, .targetColdReset,
                ] {
                    try await othersAreTold(of: function, cluster)
                    try await cluster.session("after", target: 1).writeAndRead(0, fill: 2)
                }
            }
        }

        private func othersAreTold(of function: TaskManagementFunction, _ cluster: TestCluster) async throws {
            let data = [UInt8](repeating: 1, count: 64 << 10)
            var aborted = 0
            for _ in 0..<20 where aborted == 0 {
                let writer = try await cluster.session("writer", target: 1)
                let manager = try await cluster.session("manager", target: 2)
                for initiator in [writer, manager] { _ = try initiator.attentions() }
                // On one place they wait for each other.
                let tags = (0..<32).map { _ in writer.begin(RawInitiator.write16(0, 128), write: data) }
                #expect(try manager.manage(function) == .functionComplete)
                guard function != .targetColdReset else {
                    #expect(manager.waitForClose(seconds: 10).isClosed)
                    // Its connection goes with its nexus, and so do the answers.
                    #expect(writer.waitForClose(seconds: 10).isClosed)
                    aborted = tags.compactMap { writer.outcome($0) }.count { !$0.isGood }
                    break
                }
                let outcomes = try writer.finish(tags)
                aborted = outcomes.count { $0.status == RawInitiator.taskAborted }
                let told = outcomes.compactMap(\.sense?.code) + (try writer.attentions())
                let expected = function == .clearTaskSet ? Self.commandsCleared : Self.deviceReset
                #expect(told == [expected] || told.isEmpty && aborted == 0, "\(told)")
                #expect(
                    try manager.attentions() == (function == .clearTaskSet ? [] : [Self.deviceReset]),
                    "to the nexus that asked"
                )
                for outcome in outcomes {
                    let isKnown = [0, RawInitiator.taskAborted].contains(outcome.status)
                    #expect(isKnown || outcome.sense?.code == expected, "\(outcome)")
                }
            }
            #expect(aborted > 0 || function == .targetColdReset)
        }

        @Test func otherUnitsAreNoMatterOfTheVolume() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let sessions = [
                    try await cluster.session("writer", target: 1), try await cluster.session("manager", target: 2),
                ]
                for initiator in sessions { _ = try initiator.attentions() }
                for function in [TaskManagementFunction.abortTaskSet, .clearTaskSet, .logicalUnitReset] {
                    #expect(try sessions[1].manage(function, lun: 7 << 48) == .lunDoesNotExist, "\(function)")
                }
                #expect(try sessions[1].manage(.abortTask, lun: 7 << 48, of: 0x7FFF_0000) == .lunDoesNotExist)
                for initiator in sessions { #expect(try initiator.attentions().isEmpty) }
                // LUN 0 in the flat addressing method.
                #expect(try sessions[1].manage(.logicalUnitReset, lun: 1 << 62) == .functionComplete)
                for initiator in sessions { #expect(try initiator.attentions() == [Self.deviceReset]) }
            }
        }

        @Test func withTheOwnerStoppedAFunctionStillEnds() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let session = try await cluster.session("waiting")
                try session.writeAndRead(0, fill: 1)
                let pid = try cluster.state().pids("cache")[0]
                defer { kill(pid, SIGCONT) }
                try await ProcessRunner.suspend(pid)
                let write = session.begin(RawInitiator.write16(0, 1), write: [UInt8](repeating: 0xEE, count: 512))
                let tag = session.beginManagement(.logicalUnitReset)
                let end = session.waitForClose(seconds: 40)
                let isAnswered = end.events.contains { event in
                    if case .taskManagement(let pdu) = event { pdu.tag == tag } else { false }
                }
                #expect(end.isClosed || isAnswered)
                #expect(session.outcome(write)?.isGood != true)
                // It lies in the owner's socket and its stamp has lapsed: it is refused (R1), not done late.
                kill(pid, SIGCONT)
                let after = try await ProcessRunner.eventually("a new login", timeout: .seconds(30)) {
                    () -> RawInitiator? in
                    try? await cluster.session("waiting")
                }
                #expect(try after.read(0, 1) == [UInt8](repeating: 1, count: 512))
                try await Task.sleep(for: .seconds(1))
                #expect(try after.read(0, 1) == [UInt8](repeating: 1, count: 512))
                try after.writeAndRead(0, fill: 3)
            }
        }
    }
}
