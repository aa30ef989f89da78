import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// Whatever comes, the machine neither traps nor grows (I10).
@Suite struct FuzzTests {
    /// Answers everything at random.
    private func answer(_ harness: Harness, _ random: inout SplitMix) {
        harness.drain()
        for command in harness.commands where Bool.random(using: &random) {
            harness.target.complete(tag: command.tag, with: .good(dataIn: [pattern(64)]))
        }
        for request in harness.managements where Bool.random(using: &random) {
            harness.target.taskManagementCompleted(tag: request.tag, .functionComplete)
        }
        for request in harness.listings where Bool.random(using: &random) {
            harness.target.targetsListed(tag: request.tag, [ListedTarget(name: "iqn.x", addresses: ["a:1,1"])])
        }
        harness.commands.removeAll()
        harness.managements.removeAll()
        harness.listings.removeAll()
        harness.notes.removeAll()
        harness.drain()
        harness.toInitiator.clear()
        #expect(harness.bufferedBytes <= 144 * 262_144 + ISCSILimits.solicitedMaximumBytes + (4 << 20))
        let bound = Int(Limits.commandWindow) + ISCSILimits.immediateCommandsMaximum
        let outstanding = harness.outstandingCommands
        #expect(outstanding <= bound)
    }

    @Test func I10_randomBytes() {
        var random = SplitMix(state: 1)
        for round in 0..<300 {
            let harness = round % 2 == 0 ? Harness() : Harness.loggedIn()
            harness.isConnected = false
            for _ in 0..<20 where !harness.isClosed {
                let count = Int.random(in: 0..<400, using: &random)
                harness.send(ByteBuffer(bytes: (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }))
                answer(harness, &random)
            }
        }
    }

    /// Headers that look right in parts get further in than noise.
    @Test func I10_randomPDUs() {
        var random = SplitMix(state: 2)
        let opcodes: [Opcode] = [
            .nopOut, .scsiCommand, .scsiCommand, .scsiCommand, .taskManagementRequest, .textRequest, .dataOut, .dataOut,
            .logoutRequest, .snack, .loginRequest,
        ]
        for round in 0..<400 {
            var options = ISCSIInitiatorOptions()
            options.initialR2T = round % 2 == 0
            options.maxOutstandingR2T = 4
            options.maxBurstLength = 1_024
            options.firstBurstLength = 1_024
            let harness = round % 8 == 0 ? Harness(options) : Harness.loggedIn(options)
            harness.isConnected = false
            for _ in 0..<60 where !harness.isClosed {
                let opcode = opcodes.randomElement(using: &random) ?? .nopOut
                var header = BasicHeader(
                    opcode,
                    isImmediate: Int.random(in: 0..<4, using: &random) == 0,
                    flags: [0x80, 0xA1, 0xC1, 0x21, 0x81, 0x87, UInt8.random(in: 0...255, using: &random)]
                        .randomElement(using: &random) ?? 0,
                    tag: UInt32.random(in: 0..<6, using: &random)
                )
                header.word20 =
                    [0, 1, 2, 3, 512, 2_000, 40_000, 9_000_000, reservedTag].randomElement(using: &random) ?? 0
                header.word24 = 100 &+ UInt32.random(in: 0..<8, using: &random)
                header.word28 = UInt32.random(in: 0..<8, using: &random)
                header.word36 = UInt32.random(in: 0..<3, using: &random)
                header.word40 = [0, 512, 1_024].randomElement(using: &random) ?? 0
                let data =
                    opcode == .textRequest || opcode == .loginRequest
                    ? ByteBuffer(string: "SendTargets=All\0InitiatorName=a\0TargetName=b\0")
                    : pattern([0, 0, 4, 512, 1_024].randomElement(using: &random) ?? 0)
                harness.send(harness.initiator.encoder.frame(header, data: data))
                answer(harness, &random)
                if Int.random(in: 0..<10, using: &random) == 0 { harness.target.stampArrived(random.next() >> 1) }
            }
        }
    }

    /// Sessions that are right but for one damaged byte.
    @Test func I10_damagedSessions() {
        var random = SplitMix(state: 3)
        for _ in 0..<300 {
            let harness = Harness.loggedIn()
            harness.isConnected = false
            var bytes = ByteBuffer()
            for _ in 0..<6 {
                bytes.writeImmutableBuffer(harness.initiator.command(cdb: [0x2A], write: pattern(300)).bytes)
                bytes.writeImmutableBuffer(harness.initiator.command(cdb: [0x28], read: 512).bytes)
                bytes.writeImmutableBuffer(harness.initiator.nopOut(pattern(5)))
                bytes.writeImmutableBuffer(harness.initiator.taskManagement(1) { $0.referencedTag = 1 }.bytes)
            }
            bytes.setInteger(
                UInt8.random(in: 0...255, using: &random),
                at: Int.random(in: 0..<bytes.readableBytes, using: &random)
            )
            harness.portion = Int.random(in: 1...2_000, using: &random)
            harness.send(bytes)
            answer(harness, &random)
        }
    }

    @Test func relationsBetweenLimits() {
        #expect(Limits.commandWindow <= ISCSILimits.commandWindowMaximum)
        #expect(ISCSILimits.solicitedMaximumBytes >= Int(Limits.transferMaximumBytes + ISCSILimits.transferSlackBytes))
        #expect(ISCSILimits.textMaximumBytes >= ISCSILimits.valueMaximumBytes + ISCSILimits.keyNameMaximumBytes)
        let configuration = ISCSIConfiguration()
        #expect(configuration.firstBurstLength <= configuration.maxBurstLength)
        #expect(UInt64(configuration.maxRecvDataSegmentLength) <= ISCSILimits.dataSegmentMaximumBytes)
        #expect(ISCSILimits.nameMaximumBytes < 256)
    }
}
