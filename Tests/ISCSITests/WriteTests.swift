import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// Ways in which a write's data may come.
struct WriteCase: Sendable, CustomTestStringConvertible {
    var immediateData: Bool
    var initialR2T: Bool
    var maxOutstandingR2T: UInt16
    var digests: Bool
    var segment: UInt32

    static let all: [WriteCase] = {
        var cases: [WriteCase] = []
        for immediate in [true, false] {
            for initial in [true, false] {
                for outstanding: UInt16 in [1, 2, 8] {
                    for digests in [true, false] {
                        for segment: UInt32 in [512, 1_000, 8_192] {
                            cases.append(
                                WriteCase(
                                    immediateData: immediate,
                                    initialR2T: initial,
                                    maxOutstandingR2T: outstanding,
                                    digests: digests,
                                    segment: segment
                                )
                            )
                        }
                    }
                }
            }
        }
        return cases
    }()

    var testDescription: String {
        "immediate \(immediateData) R2T \(initialR2T) x\(maxOutstandingR2T) digests \(digests) segment \(segment)"
    }

    var options: ISCSIInitiatorOptions {
        var options = ISCSIInitiatorOptions()
        options.immediateData = immediateData
        options.initialR2T = initialR2T
        options.maxOutstandingR2T = maxOutstandingR2T
        options.headerDigest = digests ? ["CRC32C", "None"] : ["None"]
        options.dataDigest = options.headerDigest
        options.maxBurstLength = 4_096
        options.firstBurstLength = 3_000
        return options
    }
}

@Suite struct WriteTests {
    @Test(arguments: WriteCase.all)
    func everyWayOfDataGivesTheSameBytes(_ test: WriteCase) {
        var configuration = ISCSIConfiguration()
        configuration.maxRecvDataSegmentLength = test.segment
        let harness = Harness.loggedIn(test.options, configuration: configuration)
        harness.execute = { _ in .good() }
        var sizes = [1, 2, 3, 511, 512, 513, 2_999, 3_000, 3_001, 4_096, 4_097, 7_096, 8_192, 20_001]
        var random = SplitMix(state: UInt64(test.segment) + UInt64(test.maxOutstandingR2T))
        sizes += (0..<4).map { _ in Int.random(in: 1...30_000, using: &random) }
        for (index, size) in sizes.enumerated() {
            harness.portion = index % 3 == 0 ? 0 : Int.random(in: 20...5_000, using: &random)
            let data = pattern(size, seed: UInt8(index))
            harness.command([0x2A], write: data)
            #expect(harness.commands.last?.dataOut == data)
            #expect(harness.results.count == index + 1)
        }
        #expect(harness.outstandingCommands == 0)
        #expect(harness.bufferedBytes == 0)
        #expect(!harness.isClosed)
        #expect(harness.results.allSatisfy { $0.status == 0 && $0.residual == .none })
    }

    @Test func immediateDataOfAWholeWriteAreNotCopied() {
        let harness = Harness.loggedIn()
        let (_, bytes) = harness.initiator.command(cdb: [0x2A], write: pattern(4_096))
        var input = bytes
        harness.target.received(&input, now: harness.now)
        harness.drain()
        let address = bytes.withUnsafeReadableBytes { $0.baseAddress.map { $0 + 48 } }
        let taken = harness.commands.first?.dataOut?.withUnsafeReadableBytes { $0.baseAddress }
        #expect(address == taken)
    }

    @Test func manyReadyToTransfersAreOutAtOnce() {
        var options = ISCSIInitiatorOptions()
        options.maxOutstandingR2T = 4
        options.immediateData = false
        options.maxBurstLength = 1_024
        options.answersReadyToTransfer = false
        let harness = Harness.loggedIn(options)
        harness.command([0x2A], write: pattern(10_000))
        var asked: [ReadyToTransferPDU] {
            harness.events.compactMap { if case .readyToTransfer(let pdu) = $0 { pdu } else { nil } }
        }
        #expect(asked.map(\.bufferOffset) == [0, 1_024, 2_048, 3_072])
        #expect(asked.map(\.r2tSN) == [0, 1, 2, 3])
        #expect(Set(asked.map(\.transferTag)).count == 4)
        harness.send(harness.initiator.dataOut(for: asked[0]))
        #expect(asked.count == 5)
        var index = 1
        while index < asked.count {
            harness.send(harness.initiator.dataOut(for: asked[index]))
            index += 1
        }
        #expect(asked.map(\.desiredLength) == [UInt32](repeating: 1_024, count: 9) + [784])
        #expect(harness.commands.first?.dataOut == pattern(10_000))
    }

    @Test func dataThatAreTooLongAreRefusedNotGathered() {
        var options = ISCSIInitiatorOptions()
        options.initialR2T = false
        let harness = Harness.loggedIn(options)
        let size = Limits.transferMaximumBytes + ISCSILimits.transferSlackBytes + 1
        let tag = harness.command([0x8A], write: pattern(70_000), expected: size)
        #expect(harness.commands.last?.dataOutTooLong == true)
        #expect(harness.commands.last?.dataOut == nil)
        #expect(harness.bufferedBytes == 0)
        harness.complete(tag, CommandCompletion(status: 2, sense: pattern(18)))
        #expect(harness.results.last?.status == 2)
        #expect(!harness.isClosed)
    }

    @Test func I10_solicitedDataAreBoundedAndServedInOrder() {
        var configuration = ISCSIConfiguration()
        configuration.bufferedBytesMaximum = 25_000
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        let harness = Harness.loggedIn(options, configuration: configuration)
        harness.initiator.options.answersReadyToTransfer = false
        let tags = (0..<6).map { _ in harness.command([0x2A], write: pattern(10_000)) }
        var asked: [UInt32] {
            harness.events.compactMap { if case .readyToTransfer(let pdu) = $0 { pdu.tag } else { nil } }
        }
        #expect(asked == Array(tags[..<2]))
        #expect(harness.bufferedBytes == 20_000)
        harness.initiator.options.answersReadyToTransfer = true
        for case .readyToTransfer(let pdu) in harness.events { harness.send(harness.initiator.dataOut(for: pdu)) }
        #expect(harness.commands.count == 2)
        for tag in tags { harness.complete(tag) }
        #expect(harness.commands.map(\.tag) == tags)
        #expect(harness.bufferedBytes == 0)
    }

    @Test func I10_anOrderedWriteBehindAFullBufferGoesOn() {
        var configuration = ISCSIConfiguration()
        configuration.bufferedBytesMaximum = 25_000
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        let harness = Harness.loggedIn(options, configuration: configuration)
        harness.execute = { _ in .good() }
        for index in 0..<20 { harness.command([0x2A], write: pattern(10_000), attribute: index % 2 == 0 ? 1 : 2) }
        #expect(harness.results.count == 20)
    }

    @Test func lyingDataOutEndsTheSession() {
        let changes: [(inout DataOutPDU) -> Void] = [
            { $0.bufferOffset += 4 },
            { $0.transferTag += 1 },
            { $0.transferTag = reservedTag },
            { $0.isFinal = false },
        ]
        for change in changes {
            var options = ISCSIInitiatorOptions()
            options.immediateData = false
            options.answersReadyToTransfer = false
            let harness = Harness.loggedIn(options)
            harness.command([0x2A], write: pattern(1_000))
            guard case .readyToTransfer(let r2t)? = harness.events.last else {
                Issue.record("no R2T")
                return
            }
            var pdu = DataOutPDU()
            pdu.tag = r2t.tag
            pdu.transferTag = r2t.transferTag
            pdu.expectedStatus = harness.initiator.expectedStatus
            change(&pdu)
            harness.send(harness.initiator.encoder.frame(pdu.header, data: pattern(1_000)))
            #expect(harness.rejects == [RejectReason.protocolError.rawValue])
            #expect(harness.ended == [.protocolError])
            #expect(harness.isClosed)
            #expect(harness.commands.isEmpty)
        }
    }

    /// RFC 7143, 7.8: a gap in the DataSNs may hide lost data, so that the command cannot be done. The session goes on.
    @Test(arguments: [UInt32(1), 27, .max])
    func aDataOutOutOfSequenceFailsItsCommandAlone(_ number: UInt32) {
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        options.answersReadyToTransfer = false
        let harness = Harness.loggedIn(options)
        harness.command([0x2A], write: pattern(1_000))
        guard case .readyToTransfer(let r2t)? = harness.events.last else {
            Issue.record("no R2T")
            return
        }
        var pdu = harness.initiator.dataOut(for: r2t)
        pdu.setInteger(number, at: pdu.readerIndex + 36)
        harness.send(pdu)
        #expect(harness.commands.map(\.isDataOutBroken) == [true])
        #expect(harness.commands.first?.dataOut == nil)
        // What still comes of it is dropped; the answer gives its room back.
        harness.send(harness.initiator.dataOut(for: r2t))
        harness.complete(r2t.tag)
        #expect(harness.bufferedBytes == 0)
        #expect(harness.rejects.isEmpty && harness.ended.isEmpty && !harness.isClosed)
    }

    @Test func dataBeyondWhatWasAskedForEndTheSession() {
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        options.answersReadyToTransfer = false
        let harness = Harness.loggedIn(options)
        harness.command([0x2A], write: pattern(1_000))
        var pdu = DataOutPDU()
        pdu.tag = 1
        pdu.transferTag = 1
        harness.send(harness.initiator.encoder.frame(pdu.header, data: pattern(1_004)))
        #expect(harness.ended == [.protocolError])
    }

    @Test func unsolicitedDataAreRefusedWhereNotAgreed() {
        let harness = Harness.loggedIn()
        var pdu = SCSICommandPDU()
        pdu.isWrite = true
        pdu.isFinal = false
        pdu.tag = 5
        pdu.commandNumber = harness.initiator.commandNumber
        pdu.expectedDataTransferLength = 8_192
        harness.send(harness.initiator.encoder.frame(pdu.header))
        #expect(harness.ended == [.protocolError])

        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        let other = Harness.loggedIn(options)
        pdu.isFinal = true
        pdu.commandNumber = other.initiator.commandNumber
        other.send(other.initiator.encoder.frame(pdu.header, data: pattern(8)))
        #expect(other.ended == [.protocolError])
    }

    @Test func dataDigestErrorIsRejectedAndEndsTheSession() {
        var options = ISCSIInitiatorOptions()
        options.dataDigest = ["CRC32C"]
        options.headerDigest = ["CRC32C"]
        let harness = Harness.loggedIn(options)
        var bytes = harness.initiator.command(cdb: [0x2A], write: pattern(100)).bytes
        bytes.setInteger(UInt8(0xEE), at: bytes.readerIndex + 60)
        harness.send(bytes)
        #expect(harness.rejects == [RejectReason.dataDigestError.rawValue])
        #expect(harness.ended == [.digestError])
        #expect(harness.commands.isEmpty)

        let other = Harness.loggedIn(options)
        var wrong = other.initiator.command(cdb: [0x2A], write: pattern(100)).bytes
        wrong.setInteger(UInt8(0xEE), at: wrong.readerIndex + 40)
        other.send(wrong)
        #expect(other.ended == [.digestError])
        #expect(other.rejects.isEmpty)
    }
}
