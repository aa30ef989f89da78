import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

@Suite struct ReadTests {
    @Test(arguments: [false, true], [512, 1_000, 8_192])
    func dataAreSplitBySegmentAndBurst(_ digests: Bool, _ segment: UInt32) {
        var options = ISCSIInitiatorOptions()
        options.maxRecvDataSegmentLength = segment
        options.maxBurstLength = 4_096
        options.headerDigest = digests ? ["CRC32C"] : ["None"]
        options.dataDigest = options.headerDigest
        let harness = Harness.loggedIn(options)
        for size in [1, 2, 3, 4, 511, 512, 4_095, 4_096, 4_097, 10_001] {
            let data = pattern(size)
            // Scattered over buffers of odd sizes, one of them empty.
            var parts = [ByteBuffer()]
            var rest = data
            while rest.readableBytes > 0, let part = rest.readSlice(length: min(777, rest.readableBytes)) {
                parts.append(part)
            }
            let tag = harness.command([0x28], read: UInt32(size))
            harness.complete(tag, .good(dataIn: parts))
            guard let result = harness.results.last else { return }
            #expect(result.data == data)
            #expect(result.status == 0)
            #expect(result.residual == .none)
            #expect(result.isCollapsed)
            var end = 0
            for (pdu, length) in zip(result.dataIn, result.dataLengths) {
                #expect(length <= Int(segment))
                end += length
                #expect(pdu.isFinal == (end % 4_096 == 0 || end == size))
            }
        }
    }

    @Test func payloadIsNotCopied() {
        let harness = Harness.loggedIn()
        let tag = harness.command([0x28], read: 4_096)
        let data = pattern(4_096)
        harness.target.complete(tag: tag, with: .good(dataIn: [data]))
        var sent: [UnsafeRawPointer?] = []
        while let action = harness.target.nextAction() {
            if case .sendData(let bytes) = action { sent.append(bytes.withUnsafeReadableBytes { $0.baseAddress }) }
        }
        #expect(sent == [data.withUnsafeReadableBytes { $0.baseAddress }])
    }

    @Test func residuals() {
        let harness = Harness.loggedIn()
        func run(_ tag: UInt32, _ completion: CommandCompletion) -> ISCSIInitiatorResult? {
            harness.complete(tag, completion)
            return harness.results.last
        }
        func under(_ count: UInt32) -> Residual { Residual(isOverflow: false, isUnderflow: true, count: count) }
        func over(_ count: UInt32) -> Residual { Residual(isOverflow: true, isUnderflow: false, count: count) }

        var result = run(harness.command([0x28], read: 1_024), .good(dataIn: [pattern(512)]))
        #expect(result?.residual == under(512))
        #expect(result?.isCollapsed == true)
        result = run(harness.command([0x28], read: 512), .good(dataIn: [pattern(1_024)]))
        #expect(result?.residual == over(512))
        #expect(result?.data.readableBytes == 512)
        result = run(harness.command([0x12], read: 255), .good())
        #expect(result?.residual == under(255))
        #expect(result?.isCollapsed == false)
        result = run(harness.command([0x28], read: 0), .good(impliedLength: 512))
        #expect(result?.residual == over(512))
        result = run(harness.command([0x28]), .good(dataIn: [pattern(512)], impliedLength: 512))
        #expect(result?.residual == over(512))
        #expect(result?.data.readableBytes == 0)
        result = run(
            harness.command([0x28], read: 1_024),
            CommandCompletion(status: 2, sense: pattern(18), dataIn: [pattern(512)])
        )
        #expect(result?.residual == under(512))
        #expect(result?.data == pattern(512))
        #expect(result?.sense == pattern(18))
        #expect(result?.status == 2)
        result = run(harness.command([0x2A], write: pattern(1_024)), .good(impliedLength: 512))
        #expect(result?.residual == under(512))
        result = run(harness.command([0x2A], write: pattern(512)), .good(impliedLength: 1_024))
        #expect(result?.residual == over(512))
        result = run(harness.command([0x2A], write: pattern(512)), .targetFailure)
        #expect(result?.response == 1)
    }

    @Test func completionsOfUnknownTagsAreIgnored() {
        let harness = Harness.loggedIn()
        let tag = harness.command()
        harness.complete(tag + 1)
        harness.complete(tag)
        harness.complete(tag)
        #expect(harness.results.count == 1)
    }
}

@Suite struct OrderTests {
    private func raw(_ harness: Harness, _ number: UInt32, tag: UInt32) -> ByteBuffer {
        var pdu = SCSICommandPDU()
        pdu.tag = tag
        pdu.commandNumber = number
        pdu.expectedStatus = harness.initiator.expectedStatus
        return harness.initiator.encoder.frame(pdu.header)
    }

    @Test func commandsRunInOrderOfTheirNumbers() {
        let harness = Harness.loggedIn()
        for number: UInt32 in [103, 101, 102] {
            harness.send(raw(harness, number, tag: number))
            #expect(harness.commands.isEmpty)
        }
        harness.send(raw(harness, 100, tag: 100))
        #expect(harness.commands.map(\.tag) == [100, 101, 102, 103])
    }

    @Test func numbersOutsideOfTheWindowAreIgnored() {
        let harness = Harness.loggedIn()
        for number: UInt32 in [99, 0, 100 + Limits.commandWindow, 100 &- 0x8000_0000] {
            harness.send(raw(harness, number, tag: number &+ 1))
        }
        #expect(harness.outstandingCommands == 0)
        harness.send(raw(harness, 102, tag: 1))
        harness.send(raw(harness, 102, tag: 2))
        #expect(harness.outstandingCommands == 1)
        #expect(!harness.isClosed)
    }

    @Test func I10_theWindowClosesAndOpens() {
        var configuration = ISCSIConfiguration()
        configuration.commandWindow = 4
        let harness = Harness.loggedIn(configuration: configuration)
        #expect(harness.initiator.maximumCommand == 103)
        let tags = (0..<5).map { _ in harness.command() }
        #expect(harness.commands.count == 4)
        harness.complete(tags[2])
        #expect(harness.initiator.maximumCommand == 104)
        #expect(harness.initiator.expectedCommand == 104)
        harness.send(raw(harness, 104, tag: tags[4]))
        #expect(harness.commands.count == 5)
        for tag in harness.commands.map(\.tag) { harness.complete(tag) }
        #expect(harness.initiator.maximumCommand == 108)
    }

    @Test func numbersWrap() {
        let harness = Harness()
        harness.initiator.commandNumber = 0xFFFF_FFFE
        harness.send(harness.initiator.start())
        harness.execute = { _ in .good() }
        for _ in 0..<6 { harness.command() }
        #expect(harness.results.count == 6)
        #expect(harness.initiator.expectedCommand == 4)
    }

    @Test func immediateCommandsRunAtOnceAndAreBounded() {
        let harness = Harness.loggedIn()
        for _ in 0..<ISCSILimits.immediateCommandsMaximum { harness.command(isImmediate: true) }
        #expect(harness.commands.count == ISCSILimits.immediateCommandsMaximum)
        #expect(harness.commands.allSatisfy { $0.isImmediate })
        harness.command(isImmediate: true)
        #expect(harness.rejects == [RejectReason.tooManyImmediateCommands.rawValue])
        #expect(harness.initiator.expectedCommand == 100)
        harness.complete(harness.commands[0].tag)
        harness.command(isImmediate: true)
        #expect(harness.commands.count == ISCSILimits.immediateCommandsMaximum + 1)
    }

    @Test func tagsInUseEndTheSession() {
        let harness = Harness.loggedIn()
        harness.send(raw(harness, 100, tag: 9))
        harness.send(raw(harness, 101, tag: 9))
        #expect(harness.ended == [.protocolError])
    }

    @Test func D34_orderedCommandsWaitAndHoldBack() {
        let harness = Harness.loggedIn()
        let first = harness.command()
        let second = harness.command()
        let ordered = harness.command(attribute: 2)
        let after = harness.command()
        let head = harness.command(attribute: 3)
        let elsewhere = harness.command(lun: 1 << 48)
        #expect(harness.commands.map(\.tag) == [first, second, head, elsewhere])
        harness.complete(first)
        #expect(harness.commands.count == 4)
        harness.complete(second)
        #expect(harness.commands.last?.tag == ordered)
        harness.complete(ordered)
        #expect(harness.commands.last?.tag == after)
    }

    @Test func extendedCDBsArriveWhole() {
        let harness = Harness.loggedIn()
        var pdu = SCSICommandPDU()
        pdu.tag = 1
        pdu.commandNumber = 100
        pdu.cdb = [0x7F] + [UInt8](repeating: 1, count: 15)
        pdu.isRead = true
        pdu.isWrite = true
        var additional = AdditionalHeaders()
        additional.cdbTail = [2, 3, 4, 5]
        additional.bidirectionalReadLength = 64
        harness.send(harness.initiator.encoder.frame(pdu.header, additional: additional.bytes))
        #expect(harness.commands.first?.cdb == [0x7F] + [UInt8](repeating: 1, count: 15) + [2, 3, 4, 5])
        #expect(harness.commands.first?.bidirectionalReadLength == 64)
    }
}

@Suite struct TaskManagementTests {
    @Test func abortOfARunningTaskGoesToTheShell() {
        let harness = Harness.loggedIn()
        let tag = harness.command()
        let (request, bytes) = harness.initiator.taskManagement(1) { $0.referencedTag = tag }
        harness.send(bytes)
        #expect(
            harness.managements
                == [TaskManagementRequest(tag: request, function: .abortTask, lun: 0, tasks: [tag])]
        )
        #expect(harness.taskResponses.isEmpty)
        harness.target.taskManagementCompleted(tag: request, .functionComplete)
        harness.settle()
        #expect(harness.taskResponses == [0])
        harness.complete(tag)
        #expect(harness.results.isEmpty)
        #expect(harness.outstandingCommands == 0)
    }

    @Test func aTaskThatEndsBeforeItsAbortAnswersFirst() {
        let harness = Harness.loggedIn()
        let tag = harness.command()
        let (request, bytes) = harness.initiator.taskManagement(1) { $0.referencedTag = tag }
        harness.send(bytes)
        harness.complete(tag)
        #expect(harness.results.map(\.tag) == [tag])
        harness.target.taskManagementCompleted(tag: request, .taskDoesNotExist)
        harness.settle()
        #expect(harness.taskResponses == [1])
    }

    @Test func abortOfATaskThatGathersDataIsDoneHere() {
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        options.answersReadyToTransfer = false
        let harness = Harness.loggedIn(options)
        let tag = harness.command([0x2A], write: pattern(4_096))
        harness.send(harness.initiator.taskManagement(1) { $0.referencedTag = tag }.bytes)
        #expect(harness.taskResponses == [0])
        #expect(harness.managements.isEmpty)
        #expect(harness.bufferedBytes == 0)
        // Data under way are dropped.
        guard
            case .readyToTransfer(let pdu)? = harness.events.first(where: {
                if case .readyToTransfer = $0 { true } else { false }
            })
        else {
            Issue.record("no R2T")
            return
        }
        harness.send(harness.initiator.dataOut(for: pdu))
        #expect(!harness.isClosed)
        #expect(harness.commands.isEmpty)
    }

    @Test func abortOfAnUnknownTask() {
        let harness = Harness.loggedIn()
        harness.send(
            harness.initiator.taskManagement(1) {
                $0.referencedTag = 77; $0.referencedCommandNumber = 50
            }.bytes
        )
        #expect(harness.taskResponses == [1])
        // A number in the window that never came counts as come.
        harness.send(
            harness.initiator.taskManagement(1) {
                $0.referencedTag = 78
                $0.referencedCommandNumber = 101
                $0.commandNumber = 102
            }.bytes
        )
        #expect(harness.taskResponses == [1, 0])
        #expect(harness.initiator.expectedCommand == 100)
        harness.command()
        #expect(harness.commands.count == 1)
        harness.complete(harness.commands[0].tag)
        #expect(harness.initiator.expectedCommand == 102)
    }

    @Test func setsAndResetsHitTheTasksOfTheUnit() {
        for function: UInt8 in [2, 4, 5, 6] {
            var options = ISCSIInitiatorOptions()
            options.immediateData = false
            options.answersReadyToTransfer = false
            let harness = Harness.loggedIn(options)
            let first = harness.command()
            let other = harness.command(lun: 1 << 48)
            let gathering = harness.command([0x2A], write: pattern(100))
            let (request, bytes) = harness.initiator.taskManagement(function)
            harness.send(bytes)
            #expect(harness.managements.last?.tasks == (function == 6 ? [first, other] : [first]))
            #expect(harness.outstandingCommands == 2)
            harness.target.taskManagementCompleted(tag: request, .functionComplete)
            harness.settle()
            #expect(harness.taskResponses == [0])
            #expect(harness.outstandingCommands == (function == 6 ? 0 : 1))
            #expect(!harness.commands.contains { $0.tag == gathering })
            harness.command()
            #expect(harness.commands.count == 3)
        }
    }

    /// A target of one logical unit, LUN 0 in the peripheral (0) or the flat addressing method (4000h and zeros).
    private static let oneUnit: ISCSIConfiguration = {
        var configuration = ISCSIConfiguration()
        configuration.logicalUnit = { $0 == 0 || $0 == 1 << 62 ? 0 : nil }
        return configuration
    }()

    @Test func aUnitThatDoesNotExistIsLeftAlone() {
        let harness = Harness.loggedIn(configuration: Self.oneUnit)
        let tag = harness.command()
        for function: UInt8 in [2, 4, 5] {
            harness.send(harness.initiator.taskManagement(function) { $0.lun = 7 << 48 }.bytes)
        }
        harness.send(
            harness.initiator.taskManagement(1) {
                $0.lun = 7 << 48; $0.referencedTag = tag; $0.referencedCommandNumber = 50
            }.bytes
        )
        #expect(harness.taskResponses == [2, 2, 2, 2])
        #expect(harness.managements.isEmpty && harness.outstandingCommands == 1)
        // Resets of the target name no unit.
        harness.send(harness.initiator.taskManagement(6) { $0.lun = 7 << 48 }.bytes)
        #expect(harness.managements.map(\.tasks) == [[tag]])
        // A command that was sent there, and waits for its answer, can be taken back all the same.
        let lost = harness.command(lun: 7 << 48)
        harness.send(
            harness.initiator.taskManagement(1) {
                $0.lun = 7 << 48; $0.referencedTag = lost
            }.bytes
        )
        #expect(harness.managements.last?.tasks == [lost])
    }

    @Test func eitherAddressingMethodNamesTheUnit() {
        for function: UInt8 in [1, 2, 4, 5] {
            for (ofTask, ofFunction) in [(0, 1 << 62), (1 << 62, 0)] as [(UInt64, UInt64)] {
                let harness = Harness.loggedIn(configuration: Self.oneUnit)
                let tag = harness.command(lun: ofTask)
                harness.send(
                    harness.initiator.taskManagement(function) {
                        $0.lun = ofFunction; $0.referencedTag = tag
                    }.bytes
                )
                #expect(harness.managements.map(\.tasks) == [[tag]], "function \(function)")
            }
        }
    }

    @Test func coldResetEndsTheSession() {
        let harness = Harness.loggedIn()
        let (request, bytes) = harness.initiator.taskManagement(7)
        harness.send(bytes)
        harness.target.taskManagementCompleted(tag: request, .functionComplete)
        harness.settle()
        #expect(harness.taskResponses == [0])
        #expect(harness.ended == [.reset])
        #expect(harness.isClosed)
    }

    @Test func whatIsNotSupportedIsSaid() {
        let harness = Harness.loggedIn()
        for function: UInt8 in [3, 8, 9] { harness.send(harness.initiator.taskManagement(function).bytes) }
        #expect(harness.taskResponses == [5, 4, 5])
        #expect(harness.managements.isEmpty)
    }

    @Test func I10_requestsInTheShellAreBounded() {
        let harness = Harness.loggedIn()
        for _ in 0...ISCSILimits.taskManagementMaximum { harness.send(harness.initiator.taskManagement(5).bytes) }
        #expect(harness.managements.count == ISCSILimits.taskManagementMaximum)
        #expect(harness.taskResponses == [255])
    }

    @Test func numberedRequestsWaitForTheirTurn() {
        let harness = Harness.loggedIn()
        let late = harness.initiator.command(cdb: [0]).bytes
        harness.send(harness.initiator.taskManagement(5, isImmediate: false).bytes)
        #expect(harness.managements.isEmpty)
        harness.send(late)
        #expect(harness.managements.last?.tasks == [1])
    }
}
