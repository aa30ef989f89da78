import AshlarCore

/// Bounds of the iSCSI protocol machine; their relations are asserted in `FuzzTests`.
package enum ISCSILimits {
    /// Basic header segment (RFC 7143, 11.2.1).
    package static let headerBytes = 48
    /// Largest additional header segments: TotalAHSLength is one byte of words.
    package static let additionalHeaderMaximumBytes = 255 * 4
    /// Longest CDB taken from an extended-CDB AHS (SPC-5: 260).
    package static let cdbMaximumBytes = 260
    /// Data segment before a session has declared anything (RFC 7143, 13.12), and in the whole login phase.
    package static let loginDataSegmentBytes = 8_192
    /// Longest key name (RFC 7143, 6.1).
    package static let keyNameMaximumBytes = 63
    /// Longest value outside of a key's own definition (RFC 7143, 6.1: 255 bytes of text, larger for binary values).
    package static let valueMaximumBytes = 8_192
    /// Text of one request gathered over PDUs with the C bit.
    package static let textMaximumBytes = 65_536
    /// Keys in one request.
    package static let keysMaximum = 128
    /// Login requests of one login: beyond this the initiator is not getting anywhere.
    package static let loginRequestsMaximum = 64
    /// Immediate commands in flight beyond the command window.
    package static let immediateCommandsMaximum = 16
    /// Write data that may be asked for with R2T on one connection at once.
    package static let solicitedMaximumBytes = 32 << 20
    /// A write may announce this much more than a transfer may hold before its data are refused.
    package static let transferSlackBytes: UInt32 = 64 << 10
    /// Task-management requests in the hands of the shell at once.
    package static let taskManagementMaximum = 16
    /// Bytes of CHAP challenge that we send.
    package static let chapChallengeBytes = 32
    /// Largest CHAP challenge or response taken from a peer (RFC 7143, 12.1.3: 1,024).
    package static let chapBinaryMaximumBytes = 1_024
    /// Largest data segment that any side may declare (RFC 7143, 13.12).
    package static let dataSegmentMaximumBytes: UInt64 = (1 << 24) - 1
    /// Payload of a ping that is echoed.
    package static let pingEchoMaximumBytes = 65_536
    /// Longest initiator or target name (RFC 7143, 4.2.7.1).
    package static let nameMaximumBytes = 223
    /// Longest text that a log line repeats from a peer.
    package static let noteTextMaximumBytes = 256
    /// Serial-number distance within which a queued command is kept: the widest window ever offered.
    package static let commandWindowMaximum: UInt32 = 4_096
    /// Longest PROXY header with its first 16 bytes: what fits the smallest TCP segment, which the specification has receivers
    /// take (2.2). It allows 65,551 bytes; what goes beyond the addresses is TLVs, of which none is used here.
    package static let proxyHeaderMaximumBytes = 536
}
