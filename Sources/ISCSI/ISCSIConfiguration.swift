public import AshlarCore

/// Whether a digest is used on a connection (RFC 7143, 13.1).
public enum DigestPolicy: Sendable, Hashable {
    /// Never, whatever the initiator offers.
    case never
    /// Where the initiator prefers it.
    case allowed
    /// Always; a login without it is refused.
    case required
}

/// How a connection treats its initiator; the same for all connections of a portal.
public struct ISCSIConfiguration: Sendable {
    /// Portal group that the connection came in by (RFC 7143, 13.9).
    public var portalGroupTag: UInt16 = 1
    /// Name for people that a target declares (RFC 7143, 13.6).
    public var targetAlias: String?
    /// Largest data segment that we take, in bytes (RFC 7143, 13.12).
    public var maxRecvDataSegmentLength: UInt32 = 256 << 10
    /// Most bytes of one solicited sequence (RFC 7143, 13.13).
    public var maxBurstLength: UInt32 = 1 << 20
    /// Most unsolicited bytes of one command (RFC 7143, 13.14).
    public var firstBurstLength: UInt32 = 256 << 10
    /// R2Ts of one command at a time (RFC 7143, 13.17).
    public var maxOutstandingR2T: UInt16 = 8
    /// Whether all data but immediate data must be asked for (RFC 7143, 13.10).
    public var initialR2T = false
    /// Whether data may come with the command (RFC 7143, 13.11).
    public var immediateData = true
    /// Digests behind headers.
    public var headerDigest = DigestPolicy.allowed
    /// Digests behind data.
    public var dataDigest = DigestPolicy.allowed
    /// Numbered commands of a session in flight at most.
    public var commandWindow: UInt32 = Limits.commandWindow
    /// Write data asked for by R2T that one connection may hold, in bytes; at least one transfer goes on always.
    public var bufferedBytesMaximum = ISCSILimits.solicitedMaximumBytes
    /// How long a session may be idle, or a stamp unproved, before it is pinged.
    public var pingIntervalNanoseconds: UInt64 = 1_000_000_000
    /// How long a ping may stay unanswered before the session is dropped.
    public var pingTimeoutNanoseconds: UInt64 = 20_000_000_000
    /// How long a login may take.
    public var loginTimeoutNanoseconds: UInt64 = 15_000_000_000
    /// CHAP algorithms that are accepted; the initiator's order of preference decides among them.
    public var chapAlgorithms: [CHAPAlgorithm] = [.sha3_256, .sha256, .sha1, .md5]
    /// The logical unit that a LUN, eight bytes as they came, names in any of its addressing methods; `nil`: there is none.
    public var logicalUnit: @Sendable (_ lun: UInt64) -> UInt64? = { $0 }
    /// Who may open discovery sessions.
    public var discoveryAccess = AccessRules()

    /// The values that a portal has for which nothing is configured.
    public init() {}
}

// swift-format-ignore: AlwaysUseLowerCamelCase
/// Hash functions of CHAP by their numbers in the PPP registry (RFC 7143, 12.1.3).
public enum CHAPAlgorithm: UInt8, Sendable, Hashable, CaseIterable {
    /// MD5.
    case md5 = 5
    /// SHA-1.
    case sha1 = 6
    /// SHA-256.
    case sha256 = 7
    /// SHA3-256.
    case sha3_256 = 8

    /// Length of a digest in bytes.
    public var digestLength: Int {
        switch self {
        case .md5: 16
        case .sha1: 20
        case .sha256, .sha3_256: 32
        }
    }
}
