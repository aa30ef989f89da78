import ISCSI
import NIOCore

// Input: one byte of options, one byte of portion, then the stream.
//
// options  bit 0  header digests
//          bit 1  data digests
//          bit 2  the stream holds PDUs without digests, which are put on before it is decoded
//          bit 3  the data segments may be no longer than 512 bytes

/// Bytes as they may come over a connection: PDUs are cut alike however the bytes are portioned, and what is cut can be
/// put together again.
func fuzzISCSIFrame(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let options = input.byte()
    let portion = Int(input.byte())
    let maximum: UInt32 = options & 8 != 0 ? 512 : 1 << 20
    var decoder = FrameDecoder(dataSegmentMaximumBytes: maximum)
    var stream = ByteBuffer(bytes: input.rest())
    if options & 4 != 0 {
        var encoder = FrameEncoder()
        encoder.headerDigest = options & 1 != 0
        encoder.dataDigest = options & 2 != 0
        stream = encode(cut(stream, by: decoder).frames, by: encoder)
    }
    decoder.headerDigest = options & 1 != 0
    decoder.dataDigest = options & 2 != 0
    let whole = cut(stream, by: decoder)
    let portioned = cut(stream, by: decoder, portion: portion)
    try require(whole.failure == portioned.failure, "the failure depends on the portions")
    try requireSame(whole.frames, portioned.frames, "in portions")
    try require(options & 4 == 0 || whole.failure == nil, "what was encoded is not decoded")
    var encoder = FrameEncoder()
    encoder.headerDigest = decoder.headerDigest
    encoder.dataDigest = decoder.dataDigest
    try requireSame(whole.frames, cut(encode(whole.frames, by: encoder), by: decoder).frames, "after encoding")
    for frame in whole.frames {
        try require(frame.header.dataLength <= maximum, "a data segment above the limit")
        try checkViews(of: frame.header)
        try checkAdditionalHeaders(frame.additional)
    }
}

private struct CutFrames {
    var frames: [Frame] = []
    var failure: FrameDecoder.Failure?
}

private func cut(_ stream: ByteBuffer, by decoder: FrameDecoder, portion: Int = 0) -> CutFrames {
    var decoder = decoder
    var result = CutFrames()
    for var part in stream.portions(portion) {
        decoder.feed(&part)
        do throws(FrameDecoder.Failure) {
            while let frame = try decoder.next() { result.frames.append(frame) }
        } catch {
            result.failure = error
            return result
        }
    }
    return result
}

private func encode(_ frames: [Frame], by encoder: FrameEncoder) -> ByteBuffer {
    var stream = ByteBuffer()
    for frame in frames {
        stream.writeImmutableBuffer(encoder.frame(frame.header, additional: frame.additional, data: frame.data))
    }
    return stream
}

private func requireSame(_ some: [Frame], _ others: [Frame], _ what: String) throws(FuzzFailure) {
    try require(some.count == others.count, "\(some.count) frames, \(others.count) \(what)")
    for (one, other) in zip(some, others) {
        let isSame = one.header == other.header && one.additional == other.additional && one.data == other.data
        try require(isSame, "a frame is another \(what)")
    }
}

/// A header looked at as any PDU, whatever its opcode says: nothing traps, and what a view knows survives encoding.
private func checkViews(of header: BasicHeader) throws(FuzzFailure) {
    let views: [any PDU.Type] = [
        AsyncMessagePDU.self, DataInPDU.self, DataOutPDU.self, LoginRequestPDU.self, LoginResponsePDU.self,
        LogoutRequestPDU.self, LogoutResponsePDU.self, NopInPDU.self, NopOutPDU.self, ReadyToTransferPDU.self,
        RejectPDU.self, SCSICommandPDU.self, SCSIResponsePDU.self, SnackPDU.self,
        TaskManagementRequestPDU.self, TaskManagementResponsePDU.self, TextRequestPDU.self, TextResponsePDU.self,
    ]
    for view in views {
        let encoded = view.init(header).header
        try require(view.init(encoded).header == encoded, "\(view) is another after encoding")
    }
    var bytes = ByteBuffer()
    header.write(into: &bytes)
    try require(BasicHeader(peeking: bytes) == header, "a header is another after encoding")
}

private func checkAdditionalHeaders(_ bytes: ByteBuffer?) throws(FuzzFailure) {
    guard let bytes, let decoded = AdditionalHeaders(bytes) else { return }
    try require(decoded.cdbTail.count + 16 <= ISCSILimits.cdbMaximumBytes, "a CDB above the limit")
    try require(AdditionalHeaders(decoded.bytes) == decoded, "additional headers are others after encoding")
}
