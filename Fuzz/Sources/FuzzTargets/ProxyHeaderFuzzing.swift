import ISCSI
import NIOCore

// Input: one byte, the length of the portions in which the connection's bytes come (0: all at once), then the bytes.

/// The PROXY header of a connection: the same in whatever portions, within its bound, and what follows is left.
func fuzzProxyHeader(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let portion = Int(input.byte())
    let stream = ByteBuffer(bytes: input.rest())
    let whole = decode(stream, portion: 0)
    let parts = decode(stream, portion: portion)
    try require(whole == parts, "another header in portions of \(portion) bytes")
    if case .header(_, let consumed) = whole {
        let length = stream.getInteger(at: stream.readerIndex + 14, as: UInt16.self) ?? 0
        try require(consumed == 16 + Int(length), "a header takes \(consumed) bytes and not \(16 + Int(length))")
        try require(consumed <= ISCSILimits.proxyHeaderMaximumBytes, "a header beyond the bound")
    }
    if case .needsMore = whole {
        try require(stream.readableBytes < ISCSILimits.proxyHeaderMaximumBytes, "more is wanted beyond the bound")
    }
}

private enum ProxyHeaderOutcome: Hashable {
    case header(ProxyHeader, consumed: Int)
    case needsMore
    case refused(ProxyHeaderDecoder.Failure)
}

private func decode(_ stream: ByteBuffer, portion: Int) -> ProxyHeaderOutcome {
    var decoder = ProxyHeaderDecoder()
    var fed = 0
    for part in stream.portions(portion) {
        fed += part.readableBytes
        var bytes = part
        do throws(ProxyHeaderDecoder.Failure) {
            guard let header = try decoder.decode(&bytes) else { continue }
            return .header(header, consumed: fed - bytes.readableBytes)
        } catch {
            return .refused(error)
        }
    }
    return .needsMore
}
