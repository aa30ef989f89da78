import AshlarCore
import ISNS
import NIOCore

// Input: one byte of options, one byte of portion, then the stream.
//
// options  bit 0  the client has two volumes to register instead of none
//          bit 1  the client's portal is its own, so that it deregisters at the end

/// Bytes as an iSNS server may send them: messages are cut alike however the bytes are portioned, can be put together
/// again, and neither who answers them nor who waits for answers loses its way.
func fuzzISNS(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let options = input.byte()
    let portion = Int(input.byte())
    let stream = ByteBuffer(bytes: input.rest())
    let whole = cut(stream, portion: 0)
    let portioned = cut(stream, portion: portion)
    try require(whole.failure == portioned.failure, "the failure depends on the portions")
    try require(whole.messages == portioned.messages, "messages depend on the portions")
    for message in whole.messages {
        let again = cut(message.encoded(), portion: portion)
        try require(again.messages == [message] && again.failure == nil, "a message is another after encoding")
    }
    guard let portal = ISNSPortal(address: [10, 0, 0, 1], port: 3_260) else { throw FuzzFailure("no portal") }
    try checkResponder(stream.portions(portion), portal, whole)
    try checkClient(stream.portions(portion), portal, options)
}

private struct CutMessages {
    var messages: [ISNSMessage] = []
    var failure: ISNSError?
}

private func cut(_ stream: ByteBuffer, portion: Int) -> CutMessages {
    var decoder = ISNSMessageDecoder()
    var result = CutMessages()
    for var part in stream.portions(portion) {
        decoder.feed(&part)
        do throws(ISNSError) {
            while let message = try decoder.next() { result.messages.append(message) }
        } catch {
            result.failure = error
            return result
        }
    }
    return result
}

/// Every request has one answer, and nothing follows a close.
private func checkResponder(_ parts: [ByteBuffer], _ portal: ISNSPortal, _ whole: CutMessages) throws(FuzzFailure) {
    var responder = ISNSResponder(entity: "e1", portal: portal)
    var answered = 0
    var isClosed = false
    for var part in parts {
        for answer in responder.received(&part) {
            try require(!isClosed, "an answer behind a close")
            switch answer {
            case .send(let bytes):
                let sent = cut(bytes, portion: 0)
                try require(sent.messages.count == 1 && sent.failure == nil, "an answer is no message")
                try require(sent.messages[0].function.isResponse, "an answer is no response")
                answered += 1
            case .close: isClosed = true
            case .note: continue
            }
        }
    }
    try require(answered == whole.messages.count { !$0.function.isResponse }, "\(answered) answers")
    try require(isClosed == (whole.failure != nil), "closed without a failure, or not closed after one")
}

/// What is sent are messages; the end comes once, and nothing after it.
private func checkClient(_ parts: [ByteBuffer], _ portal: ISNSPortal, _ options: UInt8) throws(FuzzFailure) {
    var client = ISNSClient(
        configuration: ISNSClientConfiguration(
            entity: "e1",
            portal: portal,
            portalGroupTag: 1,
            inquiryPort: 3_206,
            isPortalShared: options & 2 == 0,
            seed: 1
        )
    )
    let names = options & 1 != 0 ? ["iqn.a", "iqn.b"] : []
    let volumes = names.compactMap { ISNSTarget(name: $0, alias: nil) }
    var now = MonotonicTime(1)
    var isStopped = false
    func check(_ actions: [ISNSAction]) throws(FuzzFailure) {
        for action in actions {
            try require(!isStopped, "an action after the end")
            switch action {
            case .send(let bytes):
                let sent = cut(bytes, portion: 0)
                try require(sent.messages.count == 1 && sent.failure == nil, "a request is no message")
            case .stopped: isStopped = true
            case .connect, .close, .listTargets, .note: continue
            }
        }
    }
    try check(client.start(now: now))
    for var part in parts {
        // Where the stream broke the connection, the next part comes over another one.
        try check(client.connected(now: now))
        try check(client.targetsListed(volumes, now: now))
        try check(client.received(&part, now: now))
        now = now.advanced(byNanoseconds: 1_000_000_000)
        try check(client.timePassed(now: now))
    }
    try check(client.stop(now: now))
    try check(client.timePassed(now: now.advanced(byNanoseconds: 60_000_000_000)))
    try require(isStopped, "the end does not come")
    try check(client.timePassed(now: now.advanced(byNanoseconds: 120_000_000_000)))
}
