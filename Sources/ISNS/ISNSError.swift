/// What can be wrong with bytes that came as iSNSP.
public enum ISNSError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The version is not 1 (RFC 4171, 5.1.1).
    case unsupportedVersion(UInt16)
    /// The length of a PDU or of an attribute is not a multiple of four.
    case lengthNotAligned(Int)
    /// An authentication block follows; signatures are not supported.
    case authenticated
    /// A PDU does not continue the message that was begun.
    case sequenceBroken
    /// The message is longer than any that is expected.
    case messageTooLong
    /// The payload ends within an attribute or before its status.
    case truncated
    /// The message has more attributes than any that is expected.
    case tooManyAttributes
    /// An attribute that the message must have is missing, or is none of its kind.
    case invalidAttribute(tag: UInt32)

    /// The fault in words.
    public var description: String {
        switch self {
        case .unsupportedVersion(let version): "iSNSP version \(version) is not supported"
        case .lengthNotAligned(let length): "length \(length) is not a multiple of four"
        case .authenticated: "the message is signed; authentication is not supported"
        case .sequenceBroken: "a PDU does not continue its message"
        case .messageTooLong: "the message is too long"
        case .truncated: "the message ends within an attribute"
        case .tooManyAttributes: "the message has too many attributes"
        case .invalidAttribute(let tag): "attribute \(tag) is missing or invalid"
        }
    }
}
