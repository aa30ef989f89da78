import AshlarCore
import NIOCore

/// A text request over one or more PDUs, and its answer over one or more (RFC 7143, 11.10 and 11.11).
struct TextExchange: Sendable {
    var tag: UInt32?
    /// Of our last answer, which the next request of the exchange repeats.
    var transferTag: UInt32 = reservedTag
    var lun: UInt64 = 0
    var gatherer = TextGatherer()
    /// Answers to keys other than SendTargets.
    var answer: [TextKey] = []
    /// MaxRecvDataSegmentLength declared anew: it holds from the end of the exchange on (RFC 7143, 13.12).
    var declaredSegmentLength: UInt32?
    /// Whether the shell looks for targets.
    var isListing = false
    /// Whether the initiator's F bit came: it has no more to ask.
    var isFinal = false
    /// What is left of a long answer.
    var rest: ByteBuffer?
}

extension ISCSIConnection {
    mutating func receiveText(_ frame: Frame) {
        let pdu = TextRequestPDU(frame.header)
        guard pdu.tag != reservedTag, !(pdu.isFinal && pdu.continues) else {
            return fail(frame.header, "bad bits or tag in a text request", reason: .invalidField)
        }
        guard !text.isListing else { return fail(frame.header, "a text request before the last was answered") }
        if pdu.transferTag == reservedTag {
            text = TextExchange()
            text.tag = pdu.tag
            text.lun = pdu.lun
        } else {
            guard text.tag == pdu.tag, text.transferTag == pdu.transferTag else {
                return fail(frame.header, "a text request that continues none")
            }
        }
        text.isFinal = pdu.isFinal
        if text.rest != nil {
            guard frame.data.readableBytes == 0 else { return fail(frame.header, "text while more was asked for") }
            return sendText()
        }
        do throws(TextFailure) {
            guard let whole = try text.gatherer.add(frame.data, continues: pdu.continues) else {
                return sendTextResponse(nil, isFinal: false, continues: false)
            }
            try answer(TextKeys.decode(whole), frame.header)
        } catch {
            fail(frame.header, "bad text: \(error)")
        }
    }

    private mutating func answer(_ keys: [TextKey], _ header: BasicHeader) {
        guard let parameters, let tag = text.tag else { return }
        var scope: TargetListScope?
        for key in keys {
            switch key.name {
            case "SendTargets":
                scope = listScope(key.value, parameters.identity)
                if scope == nil { text.answer.append(TextKey(key.name, "Reject")) }
            case "MaxRecvDataSegmentLength":
                var negotiation = KeyNegotiation(configuration: configuration, identity: parameters.identity)
                guard negotiation.settle(key) == .declared else {
                    return fail(header, "MaxRecvDataSegmentLength is out of range", reason: .invalidField)
                }
                text.declaredSegmentLength = negotiation.parameters.maxSendDataSegmentLength
            case "InitiatorAlias":
                continue
            case let name where name.hasPrefix("X-") || name.hasPrefix("X#"):
                text.answer.append(TextKey(name, "NotUnderstood"))
            case let name:
                text.answer.append(TextKey(name, KeyNegotiation.isKnown(name) ? "Reject" : "NotUnderstood"))
            }
        }
        if let scope {
            text.isListing = true
            let name = parameters.identity.initiatorName
            actions.append(.listTargets(TargetListRequest(tag: tag, scope: scope, initiatorName: name)))
            return
        }
        text.rest = TextKeys.encode(text.answer)
        text.answer = []
        sendText()
    }

    /// What SendTargets asks for; `nil` where it may not (RFC 7143, appendix C).
    private func listScope(_ value: String, _ identity: LoginIdentity) -> TargetListScope? {
        if identity.sessionType == .discovery {
            guard !value.isEmpty else { return nil }
            return value == "All" ? .all : .named(value)
        }
        guard let own = identity.targetName, value.isEmpty || value == own else { return nil }
        return .named(own)
    }

    /// The targets that the initiator may see: the answer to ``ISCSIAction/listTargets(_:)``.
    public mutating func targetsListed(tag: UInt32, _ targets: [ListedTarget]) {
        guard phase == .fullFeature, text.isListing, text.tag == tag else { return }
        text.isListing = false
        var keys = text.answer
        text.answer = []
        for target in targets {
            keys.append(TextKey("TargetName", target.name))
            for address in target.addresses { keys.append(TextKey("TargetAddress", address)) }
        }
        text.rest = TextKeys.encode(keys)
        sendText()
    }

    /// Sends the next part of the answer.
    private mutating func sendText() {
        guard var rest = text.rest else { return }
        let limit = Int(parameters?.maxSendDataSegmentLength ?? 512)
        let part = rest.readSlice(length: min(limit, rest.readableBytes))
        let isLast = rest.readableBytes == 0
        text.rest = isLast ? nil : rest
        sendTextResponse(part, isFinal: isLast && text.isFinal, continues: !isLast)
    }

    private mutating func sendTextResponse(_ data: ByteBuffer?, isFinal: Bool, continues: Bool) {
        guard let tag = text.tag else { return }
        var pdu = TextResponsePDU()
        pdu.isFinal = isFinal
        pdu.continues = continues
        pdu.lun = text.lun
        pdu.tag = tag
        pdu.transferTag = isFinal ? reservedTag : takeTransferTag()
        pdu.numbers = numbers(consumingStatus: true)
        text.transferTag = pdu.transferTag
        send(encoder.frame(pdu.header, data: data))
        guard isFinal else { return }
        if let length = text.declaredSegmentLength { parameters?.maxSendDataSegmentLength = length }
        text = TextExchange()
    }
}
