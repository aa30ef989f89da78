import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// Asynchronous messages (RFC 7143, 11.9), and text requests that change what was agreed on.
@Suite struct AsyncMessageTests {
    /// The bytes that the target sends because of a call, and whether the initiator takes them.
    private func sent(_ call: (Harness) -> Void) -> ByteBuffer {
        let harness = Harness.loggedIn()
        harness.isConnected = false
        call(harness)
        harness.drain()
        return harness.toInitiator
    }

    /// A message with its event and three parameters, behind the numbers of a session that has only logged in.
    private func golden(_ event: String) -> ByteBuffer {
        hex(
            """
            32 80 0000 00 000000 0000000000000000 ffffffff 00000000 00000002 00000064
            000000e3 \(event) 00000000
            """
        )
    }

    @Test func eventsAreWrittenAsTheStandardHasThem() {
        #expect(sent { $0.target.requestLogout(withinSeconds: 258) } == golden("01 00 0000 0000 0102"))
        #expect(sent { $0.target.terminate(.shutdown) } == golden("03 00 0000 0000 0000"))
    }

    @Test func aTargetThatGoesAwaySaysSo() {
        let harness = Harness.loggedIn()
        harness.target.terminate(.shutdown)
        harness.settle()
        let messages = harness.events.compactMap { if case .async(let pdu, _) = $0 { pdu.event } else { nil } }
        #expect(messages == [AsyncEvent.sessionDropped.rawValue])
        #expect(harness.ended == [.shutdown] && harness.isClosed)
        for reason in [SessionEndReason.reset, .reinstated, .pingTimeout] {
            #expect(sent { $0.target.terminate(reason) }.readableBytes == 0, "\(reason)")
        }
    }

    @Test func nothingIsSentOutsideOfTheFullFeaturePhase() {
        let harness = Harness()
        harness.target.terminate(.shutdown)
        harness.target.requestLogout(withinSeconds: 1)
        harness.drain()
        #expect(harness.toInitiator.readableBytes == 0)
        #expect(harness.isClosed)
    }

    /// Reads as many bytes as come in pieces of the lengths.
    private func read(_ harness: Harness, _ count: UInt32) -> [Int]? {
        let tag = harness.command([0x28], read: count)
        harness.complete(tag, .good(dataIn: [pattern(Int(count))]))
        return harness.results.last?.dataLengths
    }

    @Test func anEmptyTextRequestChangesNothing() {
        let harness = Harness.loggedIn()
        harness.send(harness.initiator.text(ByteBuffer()).bytes)
        let answers = harness.events.compactMap { event -> (Bool, Int)? in
            if case .text(let pdu, let data) = event { (pdu.isFinal, data.readableBytes) } else { nil }
        }
        #expect(answers.count == 1 && answers.first?.0 == true && answers.first?.1 == 0)
        #expect(read(harness, 8_192) == [8_192])
    }

    @Test func aSegmentLengthDeclaredAnewHolds() {
        let harness = Harness.loggedIn()
        #expect(read(harness, 20_000) == [8_192, 8_192, 3_616])
        harness.initiator.options.maxRecvDataSegmentLength = 65_536
        harness.send(harness.initiator.text(ByteBuffer(string: "MaxRecvDataSegmentLength=65536\0")).bytes)
        #expect(read(harness, 20_000) == [20_000])
        harness.send(harness.initiator.text(ByteBuffer(string: "MaxRecvDataSegmentLength=512\0")).bytes)
        harness.initiator.options.maxRecvDataSegmentLength = 512
        #expect(read(harness, 1_100) == [512, 512, 76])
    }

    @Test func aSegmentLengthHoldsFromTheEndOfTheExchangeOn() {
        let harness = Harness.loggedIn()
        let (tag, bytes) = harness.initiator.text(ByteBuffer(string: "MaxRecvDataSegmentLength=512\0")) {
            $0.isFinal = false
        }
        harness.send(bytes)
        guard case .text(let open, _)? = harness.events.last else {
            Issue.record("no answer")
            return
        }
        #expect(!open.isFinal)
        #expect(read(harness, 8_192) == [8_192])
        let last = harness.initiator.text(ByteBuffer()) {
            $0.tag = tag
            $0.transferTag = open.transferTag
        }
        harness.send(last.bytes)
        harness.initiator.options.maxRecvDataSegmentLength = 512
        #expect(read(harness, 1_024) == [512, 512])

        // An exchange that a new one replaces has agreed on nothing (RFC 7143, 11.10.4).
        let other = Harness.loggedIn()
        other.send(
            other.initiator.text(ByteBuffer(string: "MaxRecvDataSegmentLength=512\0")) { $0.isFinal = false }.bytes
        )
        other.send(other.initiator.text(ByteBuffer()).bytes)
        #expect(read(other, 8_192) == [8_192])
    }

    @Test(arguments: ["511", "16777216", "none"])
    func aSegmentLengthOutOfRangeIsRejected(_ value: String) {
        let harness = Harness.loggedIn()
        harness.send(harness.initiator.text(ByteBuffer(string: "MaxRecvDataSegmentLength=\(value)\0")).bytes)
        #expect(harness.rejects == [RejectReason.invalidField.rawValue])
        #expect(harness.ended == [.protocolError])
    }

    /// Keys that RFC 7143, section 13, allows in the login alone (IO, LO) change nothing later.
    @Test(arguments: [
        "HeaderDigest=CRC32C", "DataDigest=CRC32C", "MaxConnections=4", "InitialR2T=No", "ImmediateData=No",
        "MaxBurstLength=512", "FirstBurstLength=512", "DefaultTime2Wait=9", "DefaultTime2Retain=9",
        "MaxOutstandingR2T=4", "DataPDUInOrder=No", "DataSequenceInOrder=No", "ErrorRecoveryLevel=2",
        "TaskReporting=RFC3720", "iSCSIProtocolLevel=1", "SessionType=Discovery", "InitiatorName=iqn.x",
        "TargetName=iqn.x", "AuthMethod=None",
    ])
    func keysOfTheLoginAreRejected(_ pair: String) {
        let harness = Harness.loggedIn()
        let before = harness.target.session
        harness.send(harness.initiator.text(ByteBuffer(string: pair + "\0")).bytes)
        guard case .text(_, let data)? = harness.events.last else {
            Issue.record("no answer")
            return
        }
        #expect(data == ByteBuffer(string: "\(pair.prefix { $0 != "=" })=Reject\0"))
        #expect(harness.target.session == before)
        #expect(!harness.isClosed)
    }
}
