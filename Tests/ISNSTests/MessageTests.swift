import AshlarTestSupport
import ISNS
import NIOCore
import Testing

/// Messages written out by hand from RFC 4171, sections 5 and 6.
@Suite struct MessageTests {
    private func check(_ message: ISNSMessage, _ golden: String) throws {
        let bytes = hex(golden)
        #expect(message.encoded() == bytes, "\(message.encoded().hexDump(format: .compact))")
        #expect(try messages(bytes) == [message])
    }

    private static let registration = """
        0001 0001 00e0 8c00 0007 0000
        00000020 00000008 69716e2e 61000000
        00000001 00000004 65310000
        00000000 00000000
        00000001 00000004 65310000
        00000002 00000004 00000002
        00000010 00000010 00000000 00000000 0000ffff 0a000001
        00000011 00000004 00000cbc
        00000014 00000004 00000c86
        00000017 00000004 00000c86
        00000020 00000008 69716e2e 61000000
        00000021 00000004 00000001
        00000022 00000004 76310000
        00000030 00000008 69716e2e 61000000
        00000031 00000010 00000000 00000000 0000ffff 0a000001
        00000032 00000004 00000cbc
        00000033 00000004 00000003
        """

    private func registration() throws -> ISNSMessage {
        let portal = try portal(1)
        return DeviceAttributeRegistration(
            source: "iqn.a",
            entity: "e1",
            portal: DeviceAttributeRegistration.Portal(portal: portal, inquiryPort: 3_206, notificationPort: 3_206),
            targets: [try #require(ISNSTarget(name: "iqn.a", alias: "v1"))],
            groupPortal: portal,
            groupTag: 3
        ).message(transactionID: 7)
    }

    @Test func deviceAttributeRegistration() throws {
        try check(registration(), Self.registration)
    }

    @Test func deviceAttributeRegistrationResponse() throws {
        let response = try #require(
            messages(
                hex(
                    """
                    0001 8001 0024 4c00 0007 0000
                    00000000
                    00000001 00000004 65310000
                    00000000 00000000
                    00000006 00000004 0000003c
                    """
                )
            ).first
        )
        #expect(response.function == .deviceAttributeRegistration.response)
        #expect(response.status == .successful)
        #expect(DeviceAttributeRegistration.registrationPeriodSeconds(response) == 60)
    }

    @Test func deviceDeregistration() throws {
        let message = DeviceDeregistration(
            source: "iqn.a",
            objects: [.node("iqn.bcd"), .portal(try portal(1)), .entity("e1")]
        ).message(transactionID: 0x0102)
        // A name of seven bytes has one NUL behind it, as every text has at least one.
        try check(
            message,
            """
            0001 0004 0058 8c00 0102 0000
            00000020 00000008 69716e2e 61000000
            00000000 00000000
            00000020 00000008 69716e2e 62636400
            00000010 00000010 00000000 00000000 0000ffff 0a000001
            00000011 00000004 00000cbc
            00000001 00000004 65310000
            """
        )
    }

    @Test func deviceAttributeQuery() throws {
        let message = DeviceAttributeQuery(source: "iqn.a", entity: "e1", includesNames: true)
            .message(transactionID: 9)
        try check(
            message,
            """
            0001 0002 003c 8c00 0009 0000
            00000020 00000008 69716e2e 61000000
            00000001 00000004 65310000
            00000000 00000000
            00000010 00000000
            00000011 00000000
            00000020 00000000
            """
        )
    }

    @Test func deviceAttributeQueryResponse() throws {
        let response = try #require(
            messages(
                hex(
                    """
                    0001 8002 0064 4c00 0009 0000
                    00000000
                    00000001 00000004 65310000
                    00000000 00000000
                    00000010 00000010 00000000 00000000 0000ffff 0a000001
                    00000011 00000004 00000cbc
                    00000011 00000004 00000cbd
                    00000020 00000008 69716e2e 61000000
                    00000007 00000004 00000001
                    """
                )
            ).first
        )
        let answer = DeviceAttributeQuery.Answer(response)
        #expect(answer.portals == [try portal(1)])
        #expect(answer.names == ["iqn.a"])
    }

    @Test func stateChangeRegistration() throws {
        let message = StateChangeRegistration(
            source: "iqn.a",
            events: [.initiatorsAndSelf, .added, .removed, .updated]
        ).message(transactionID: 1)
        try check(
            message,
            """
            0001 0005 0034 8c00 0001 0000
            00000020 00000008 69716e2e 61000000
            00000020 00000008 69716e2e 61000000
            00000000 00000000
            00000023 00000004 0000009c
            """
        )
    }

    private static let notification = """
        0001 0008 0048 4c00 0055 0000
        00000020 00000008 69716e2e 61000000
        00000004 00000008 00000000 6a2b3c4d
        00000023 00000004 00000008
        00000020 00000008 69716e2e 62000000
        00000811 00000004 00000001
        """

    @Test func stateChangeNotification() throws {
        let message = try #require(messages(hex(Self.notification)).first)
        let notification = try StateChangeNotification(message)
        #expect(notification.changes.map(\.name) == ["iqn.b"])
        #expect(notification.changes.map(\.events) == [.added])
    }

    private static let inquiry = """
        0001 000d 0040 4c00 0033 0000
        00000004 00000008 00000000 6a2b3c4d
        00000001 00000004 65310000
        00000010 00000010 00000000 00000000 0000ffff 0a000001
        00000011 00000004 00000cbc
        """

    @Test func inquiriesAreAnsweredWithTheirAttributes() throws {
        var responder = ISNSResponder(entity: "e1", portal: try portal(1))
        var bytes = hex(Self.inquiry)
        let answers = responder.received(&bytes)
        let sent = answers.compactMap { if case .send(let bytes) = $0 { bytes } else { nil } }
        #expect(
            sent == [
                hex(
                    """
                    0001 800d 0044 8c00 0033 0000
                    00000000
                    00000004 00000008 00000000 6a2b3c4d
                    00000001 00000004 65310000
                    00000010 00000010 00000000 00000000 0000ffff 0a000001
                    00000011 00000004 00000cbc
                    """
                )
            ]
        )
    }

    @Test func inquiriesForOthersAreNotConfirmed() throws {
        for (entity, last) in [("e2", UInt8(1)), ("e1", 2)] {
            var responder = ISNSResponder(entity: entity, portal: try portal(last))
            var bytes = hex(Self.inquiry)
            let sent = responder.received(&bytes).compactMap { if case .send(let bytes) = $0 { bytes } else { nil } }
            let response = try #require(messages(sent.first ?? ByteBuffer()).first)
            #expect(response.status == .noSuchEntry)
            #expect(response.attributes.isEmpty)
        }
    }

    @Test func notificationsAreAnsweredWithTheirDestination() throws {
        var responder = ISNSResponder(entity: "e1", portal: try portal(1))
        var bytes = hex(Self.notification)
        let answers = responder.received(&bytes)
        #expect(answers.count == 2)
        guard case .note(let note) = answers[0], case .send(let sent) = answers[1] else {
            Issue.record("a line and an answer were expected")
            return
        }
        #expect(note.severity == .info)
        #expect(note.message == "iSNS state change: iqn.b (added)")
        #expect(sent == hex("0001 8008 0014 8c00 0055 0000 00000000 00000020 00000008 69716e2e 61000000"))
    }

    @Test func whatATargetDoesNotServeIsRefused() throws {
        var responder = ISNSResponder(entity: "e1", portal: try portal(1))
        // A heartbeat; an inquiry without attributes; a notification of a node without its events.
        for (request, answer) in [
            ("0001 000e 0000 4c00 0001 0000", "0001 800e 0004 8c00 0001 0000 0000000f"),
            ("0001 000d 0000 4c00 0002 0000", "0001 800d 0004 8c00 0002 0000 00000002"),
            (
                """
                0001 0008 0020 4c00 0003 0000
                00000020 00000008 69716e2e 61000000 00000020 00000008 69716e2e 62000000
                """,
                "0001 8008 0004 8c00 0003 0000 00000010"
            ),
        ] {
            var bytes = hex(request)
            let sent = responder.received(&bytes).compactMap { if case .send(let bytes) = $0 { bytes } else { nil } }
            #expect(sent == [hex(answer)])
        }
    }

    // MARK: Streams

    @Test func messagesComeInAnyPortions() throws {
        let one = try registration()
        let stream = hex(Self.registration + Self.notification + Self.inquiry)
        let whole = try messages(stream)
        #expect(whole.count == 3 && whole.first == one)
        for size in 1..<64 {
            var decoder = ISNSMessageDecoder()
            var rest = stream
            var found: [ISNSMessage] = []
            while rest.readableBytes > 0 {
                var part = rest.readSlice(length: min(size, rest.readableBytes)) ?? ByteBuffer()
                decoder.feed(&part)
                while let message = try decoder.next() { found.append(message) }
            }
            #expect(found == whole)
        }
    }

    @Test func longMessagesAreCutAndJoined() throws {
        let names = (0..<9_000).map { ISNSAttribute.text(.iscsiName, "iqn.2026-01.io.ashlar:volume-\($0)") }
        let message = ISNSMessage(
            function: .deviceAttributeQuery.response,
            flags: .server,
            transactionID: 3,
            status: .successful,
            attributes: [.delimiter] + names
        )
        let bytes = message.encoded()
        #expect(try messages(bytes) == [message])
        let first = try #require(try ISNSHeader(peeking: bytes))
        #expect(first.flags == [.server, .first] && first.sequenceID == 0)
        #expect(Int(first.length) == ISNSLimits.payloadMaximumBytes)
        // A message within another one, a number that is left out, a beginning without an end.
        let second = ISNSLimits.headerBytes + Int(first.length)
        let third = try #require(bytes.getSlice(at: second, length: bytes.readableBytes - second))
        let begin = try #require(bytes.getSlice(at: 0, length: second))
        #expect(throws: ISNSError.sequenceBroken) { try messages(third) }
        #expect(throws: ISNSError.sequenceBroken) {
            try messages(ByteBuffer(bytes: [begin, begin].flatMap(\.readableBytesView)))
        }
        var skipped = bytes
        skipped.setInteger(UInt16(2), at: second + 10)
        #expect(throws: ISNSError.sequenceBroken) { try messages(skipped) }
        #expect(try messages(begin).isEmpty)
    }

    @Test func endlessMessagesAreRefused() throws {
        var decoder = ISNSMessageDecoder()
        let payload = ByteBuffer(repeating: 0, count: ISNSLimits.payloadMaximumBytes)
        var thrown: ISNSError?
        for sequence in 0..<100 where thrown == nil {
            var pdu = ByteBuffer()
            ISNSHeader(
                function: .deviceAttributeQuery.response,
                length: UInt16(payload.readableBytes),
                flags: sequence == 0 ? [.server, .first] : .server,
                transactionID: 1,
                sequenceID: UInt16(sequence)
            ).encode(into: &pdu)
            pdu.writeImmutableBuffer(payload)
            decoder.feed(&pdu)
            do {
                let message = try decoder.next()
                #expect(message == nil)
            } catch {
                thrown = error
            }
        }
        #expect(thrown == .messageTooLong)
    }

    @Test func truncatedMessagesAreWaitedFor() throws {
        let bytes = hex(Self.registration)
        for length in 0..<bytes.readableBytes {
            #expect(try messages(bytes.getSlice(at: 0, length: length) ?? ByteBuffer()).isEmpty)
        }
    }

    @Test func lyingLengthsAreRefused() throws {
        let bytes = hex(Self.registration)
        func change<T: FixedWidthInteger>(_ offset: Int, _ value: T) -> ByteBuffer {
            var changed = bytes
            changed.setInteger(value, at: offset)
            return changed
        }
        #expect(throws: ISNSError.unsupportedVersion(2)) { try messages(change(0, UInt16(2))) }
        #expect(throws: ISNSError.lengthNotAligned(0xE5)) { try messages(change(4, UInt16(0xE5))) }
        #expect(throws: ISNSError.authenticated) { try messages(change(6, UInt16(0xAC00))) }
        // A shorter PDU cuts its last attribute.
        #expect(throws: ISNSError.truncated) { try messages(change(4, UInt16(0xDC))) }
        #expect(throws: ISNSError.lengthNotAligned(7)) { try messages(change(16, UInt32(7))) }
        for length: UInt32 in [0x8000_0000, 0xFFFF_FFFC, 0x1000] {
            #expect(throws: ISNSError.truncated) { try messages(change(16, length)) }
        }
        // A response needs its status.
        #expect(throws: ISNSError.truncated) { try messages(hex("0001 8001 0000 4c00 0001 0000")) }
    }

    @Test func attributesHaveABound() throws {
        var payload = ByteBuffer()
        for _ in 0...ISNSLimits.attributesMaximum { ISNSAttribute.delimiter.encode(into: &payload) }
        let header = ISNSHeader(
            function: .deviceAttributeQuery,
            length: 0,
            flags: .client,
            transactionID: 1,
            sequenceID: 0
        )
        #expect(throws: ISNSError.tooManyAttributes) { try ISNSMessage(header: header, payload: payload) }
    }

    @Test(arguments: 0..<40)
    func randomBytesNeverTrap(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let valid = hex(Self.registration + Self.notification + Self.inquiry)
        for _ in 0..<100 {
            var bytes = valid
            if generator.chance(20) {
                bytes = ByteBuffer(bytes: (0..<generator.below(300)).map { _ in UInt8(generator.below(256)) })
            } else {
                for _ in 0...generator.below(4) {
                    bytes.setInteger(UInt8(generator.below(256)), at: generator.below(bytes.readableBytes))
                }
            }
            var responder = ISNSResponder(entity: "e1", portal: try portal(1))
            var copy = bytes
            _ = responder.received(&copy)
            _ = responder.received(&bytes)
        }
    }

    // MARK: Values

    @Test func limitsFitTogether() throws {
        let name = String(repeating: "n", count: ISNSLimits.nameMaximumBytes)
        let alias = String(repeating: "a", count: ISNSLimits.aliasMaximumBytes)
        let node = try #require(ISNSTarget(name: name, alias: alias))
        let portal = try portal(1)
        let largest = DeviceAttributeRegistration(
            source: name,
            entity: String(repeating: "e", count: ISNSLimits.entityMaximumBytes),
            portal: DeviceAttributeRegistration.Portal(portal: portal, inquiryPort: 1, notificationPort: 1),
            targets: Array(repeating: node, count: ISNSLimits.nodesInRegistrationMaximum),
            groupPortal: portal,
            groupTag: 1
        ).message(transactionID: 1).encoded()
        #expect(largest.readableBytes <= ISNSLimits.headerBytes + ISNSLimits.payloadMaximumBytes)
        let removal = DeviceDeregistration(
            source: name,
            objects: Array(repeating: .node(name), count: ISNSLimits.nodesInDeregistrationMaximum)
        ).message(transactionID: 1).encoded()
        #expect(removal.readableBytes <= ISNSLimits.headerBytes + ISNSLimits.payloadMaximumBytes)
        // What a server answers about so many names fits into one PDU, too.
        #expect(
            ISNSLimits.namesAskedForMaximum * (8 + ISNSLimits.nameMaximumBytes + 1) < ISNSLimits.payloadMaximumBytes
        )
        #expect(ISNSLimits.payloadMaximumBytes % 4 == 0 && ISNSLimits.payloadMaximumBytes <= UInt16.max)
        #expect(ISNSLimits.renewalMinimumNanoseconds <= ISNSLimits.renewalMaximumNanoseconds)
        #expect(ISNSLimits.backoffMinimumNanoseconds <= ISNSLimits.backoffMaximumNanoseconds)
    }

    @Test func namesAndAddressesAreChecked() throws {
        #expect(ISNSTarget(name: "", alias: nil) == nil)
        #expect(ISNSTarget(name: String(repeating: "n", count: 224), alias: nil) == nil)
        #expect(ISNSTarget(name: "a\0b", alias: nil) == nil)
        #expect(ISNSTarget(name: "a", alias: String(repeating: "a", count: 256))?.alias == nil)
        #expect(ISNSTarget(name: "a", alias: "")?.alias == nil)
        #expect(ISNSPortal(address: [1, 2, 3], port: 1) == nil)
        #expect(ISNSPortal(address: [UInt8](repeating: 1, count: 16), port: 1) != nil)
        // The bit of UDP.
        let address = ISNSAttribute.address(.portalAddress, try portal(1))
        #expect(ISNSPortal(address: address, port: .number(.portalPort, 0x0001_0CBC)) == nil)
        #expect(ISNSAttribute(tag: .iscsiName, value: ByteBuffer(bytes: [0xFF, 0xFE, 0, 0])).text == nil)
        #expect("\(ISNSStatus.invalidRegistration)" == "Invalid Registration (3)")
        #expect("\(ISNSStatus(rawValue: 0xFFFF_FFFF))" == "status 4294967295")
    }
}
