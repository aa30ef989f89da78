import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

@Suite struct SessionTests {
    private var discovery: ISCSIInitiatorOptions {
        var options = ISCSIInitiatorOptions()
        options.sessionType = .discovery
        options.targetName = nil
        return options
    }

    private func texts(_ harness: Harness) -> [(TextResponsePDU, ByteBuffer)] {
        harness.events.compactMap { if case .text(let pdu, let data) = $0 { (pdu, data) } else { nil } }
    }

    @Test func sendTargetsInDiscovery() {
        let harness = Harness.loggedIn(discovery)
        let (tag, bytes) = harness.initiator.text(ByteBuffer(string: "SendTargets=All\0"))
        harness.send(bytes)
        #expect(harness.listings.map(\.scope) == [.all])
        #expect(harness.listings.map(\.initiatorName) == ["iqn.2026-01.test:initiator"])
        harness.target.targetsListed(
            tag: tag,
            [
                ListedTarget(name: "iqn.a", addresses: ["10.0.0.1:3260,1", "[::1]:3260,2"]),
                ListedTarget(name: "iqn.b", addresses: []),
            ]
        )
        harness.settle()
        let answer = "TargetName=iqn.a\0TargetAddress=10.0.0.1:3260,1\0TargetAddress=[::1]:3260,2\0TargetName=iqn.b\0"
        #expect(texts(harness).last?.1 == ByteBuffer(string: answer))
        #expect(texts(harness).last?.0.isFinal == true)
        #expect(texts(harness).last?.0.transferTag == reservedTag)
        harness.send(harness.initiator.text(ByteBuffer(string: "SendTargets=iqn.b\0")).bytes)
        #expect(harness.listings.last?.scope == .named("iqn.b"))
    }

    @Test func longAnswersGoOverSeveralPDUs() {
        var options = discovery
        options.maxRecvDataSegmentLength = 512
        let harness = Harness.loggedIn(options)
        let (tag, bytes) = harness.initiator.text(ByteBuffer(string: "SendTargets=All\0"))
        harness.send(bytes)
        let targets = (0..<50).map { ListedTarget(name: "iqn.2026-01.test:\($0)", addresses: ["10.0.0.1:3260,1"]) }
        harness.target.targetsListed(tag: tag, targets)
        harness.settle()
        var whole = ByteBuffer()
        while let (pdu, data) = texts(harness).last {
            #expect(data.readableBytes <= 512)
            whole.writeImmutableBuffer(data)
            guard !pdu.isFinal else { break }
            #expect(pdu.continues)
            harness.send(
                harness.initiator.text(ByteBuffer()) {
                    $0.tag = tag
                    $0.transferTag = pdu.transferTag
                }.bytes
            )
        }
        let expected = targets.flatMap { [TextKey("TargetName", $0.name), TextKey("TargetAddress", $0.addresses[0])] }
        #expect(whole == TextKeys.encode(expected))
        #expect(harness.listings.count == 1)
    }

    @Test func longRequestsComeOverSeveralPDUs() {
        let harness = Harness.loggedIn(discovery)
        let (tag, bytes) = harness.initiator.text(ByteBuffer(string: "SendTar")) {
            $0.isFinal = false
            $0.continues = true
        }
        harness.send(bytes)
        #expect(harness.listings.isEmpty)
        guard let (pdu, _) = texts(harness).last else { return }
        #expect(!pdu.isFinal)
        harness.send(
            harness.initiator.text(ByteBuffer(string: "gets=All\0")) {
                $0.tag = tag
                $0.transferTag = pdu.transferTag
            }.bytes
        )
        #expect(harness.listings.map(\.scope) == [.all])
    }

    @Test func sendTargetsInANormalSession() {
        let harness = Harness.loggedIn()
        for (value, scope) in [("", true), ("iqn.2026-01.test:volume", true), ("All", false), ("iqn.other", false)] {
            let count = harness.listings.count
            let (tag, bytes) = harness.initiator.text(ByteBuffer(string: "SendTargets=\(value)\0"))
            harness.send(bytes)
            #expect(harness.listings.count == count + (scope ? 1 : 0))
            if scope {
                #expect(harness.listings.last?.scope == .named("iqn.2026-01.test:volume"))
                harness.target.targetsListed(tag: tag, [])
                harness.settle()
            } else {
                #expect(texts(harness).last?.1 == ByteBuffer(string: "SendTargets=Reject\0"))
            }
        }
    }

    @Test func otherKeysInFullFeaturePhase() {
        let harness = Harness.loggedIn()
        harness.send(
            harness.initiator.text(
                ByteBuffer(string: "MaxRecvDataSegmentLength=600\0MaxBurstLength=512\0Foo=1\0X-foo=2\0")
            ).bytes
        )
        #expect(
            texts(harness).last?.1
                == ByteBuffer(string: "MaxBurstLength=Reject\0Foo=NotUnderstood\0X-foo=NotUnderstood\0")
        )
        let tag = harness.command([0x28], read: 1_200)
        harness.complete(tag, .good(dataIn: [pattern(1_200)]))
        #expect(harness.results.last?.dataLengths == [600, 600])
    }

    @Test func discoveryTakesNoCommands() {
        let harness = Harness.loggedIn(discovery)
        harness.command()
        #expect(harness.ended == [.protocolError])
        let other = Harness.loggedIn(discovery)
        other.send(other.initiator.taskManagement(5).bytes)
        #expect(other.ended == [.protocolError])
    }

    @Test func logout() {
        var responses: [UInt8] = []
        for (reason, connection, isOver) in [(UInt8(0), UInt16(9), true), (1, 1, true), (1, 2, false), (2, 1, false)] {
            let harness = Harness.loggedIn()
            harness.command()
            harness.send(harness.initiator.logout(reason: reason, connectionID: connection))
            responses += harness.events.compactMap { if case .logout(let pdu) = $0 { pdu.response } else { nil } }
            #expect(harness.ended == (isOver ? [.loggedOut] : []))
            #expect(harness.isClosed == isOver)
            #expect(harness.outstandingCommands == (isOver ? 0 : 1))
        }
        #expect(responses == [0, 0, 1, 2])
    }

    @Test func snackIsRejectedWithTheHeader() {
        let harness = Harness.loggedIn()
        var snack = SnackPDU()
        snack.type = 1
        snack.expectedStatus = harness.initiator.expectedStatus
        var header = ByteBuffer()
        snack.header.write(into: &header)
        harness.send(header)
        guard case .reject(let pdu, let data)? = harness.events.last else {
            Issue.record("no Reject")
            return
        }
        #expect(pdu.reason == RejectReason.snackReject.rawValue)
        #expect(data == header)
        #expect(!harness.isClosed)
    }

    @Test func unknownAndMisplacedOpcodes() {
        let harness = Harness.loggedIn()
        var header = BasicHeader(.nopOut)
        header.first = 0x1C
        harness.send(harness.initiator.encoder.frame(header))
        #expect(harness.rejects == [RejectReason.commandNotSupported.rawValue])
        #expect(!harness.isClosed)
        harness.send(harness.initiator.encoder.frame(BasicHeader(.dataIn)))
        #expect(harness.ended == [.protocolError])
    }

    @Test func segmentsThatAreTooLongEndTheSession() {
        let harness = Harness.loggedIn()
        var header = BasicHeader(.nopOut)
        header.dataLength = 262_145
        var bytes = ByteBuffer()
        header.write(into: &bytes)
        harness.send(bytes)
        #expect(harness.ended == [.protocolError])
        #expect(harness.rejects == [RejectReason.protocolError.rawValue])
    }

    @Test func asyncMessages() {
        let harness = Harness.loggedIn()
        harness.target.requestLogout(withinSeconds: 5)
        harness.target.terminate(.shutdown)
        harness.settle()
        let messages = harness.events.compactMap { if case .async(let pdu, let data) = $0 { (pdu, data) } else { nil } }
        #expect(messages.map(\.0.event) == [1, 3])
        #expect(messages.first?.0.parameter3 == 5)
        #expect(messages.allSatisfy { $0.1.readableBytes == 0 })
    }

    @Test func endsComeOnce() {
        for reason in [SessionEndReason.reinstated, .shutdown] {
            let harness = Harness.loggedIn()
            harness.command()
            harness.target.terminate(reason)
            harness.target.inputClosed()
            harness.target.terminate(.reset)
            harness.settle()
            #expect(harness.ended == [reason])
            harness.complete(1)
            harness.advance(milliseconds: 60_000)
            harness.command()
            #expect(harness.results.isEmpty)
            #expect(harness.commands.count == 1)
        }
        let harness = Harness.loggedIn()
        harness.target.inputClosed()
        harness.settle()
        #expect(harness.ended == [.connectionClosed])
    }
}
