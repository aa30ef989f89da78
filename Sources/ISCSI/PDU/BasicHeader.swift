package import NIOCore

/// The 48 bytes that every PDU begins with, as fields at fixed offsets (RFC 7143, 11.2.1).
///
/// The PDU types are views of it: each has `init(_:)` to decode and `header` to encode.
package struct BasicHeader: Hashable, Sendable {
    /// Byte 0: the immediate bit (40h) and the opcode.
    package var first: UInt8
    /// Byte 1: the final bit (80h) and flags of the opcode.
    package var flags: UInt8
    /// Bytes 2 and 3, of the opcode.
    package var specific: UInt16
    /// TotalAHSLength in four-byte words.
    package var additionalWords: UInt8
    /// DataSegmentLength in bytes, 24 bits, without padding.
    package var dataLength: UInt32
    /// Bytes 8 to 15: the logical unit number, or of the opcode.
    package var lun: UInt64
    /// Bytes 16 to 19: initiator task tag.
    package var tag: UInt32
    /// Bytes 20 to 23.
    package var word20: UInt32
    /// Bytes 24 to 27.
    package var word24: UInt32
    /// Bytes 28 to 31.
    package var word28: UInt32
    /// Bytes 32 to 35.
    package var word32: UInt32
    /// Bytes 36 to 39.
    package var word36: UInt32
    /// Bytes 40 to 43.
    package var word40: UInt32
    /// Bytes 44 to 47.
    package var word44: UInt32

    /// A header of `opcode` whose other fields are zero.
    package init(_ opcode: Opcode, isImmediate: Bool = false, flags: UInt8 = 0x80, tag: UInt32 = reservedTag) {
        self.first = opcode.rawValue | (isImmediate ? 0x40 : 0)
        self.flags = flags
        self.specific = 0
        self.additionalWords = 0
        self.dataLength = 0
        self.lun = 0
        self.tag = tag
        self.word20 = 0
        self.word24 = 0
        self.word28 = 0
        self.word32 = 0
        self.word36 = 0
        self.word40 = 0
        self.word44 = 0
    }

    /// The header at the reader index of `buffer`, which must hold 48 bytes; `nil` where it holds fewer.
    package init?(peeking buffer: ByteBuffer) {
        // Six wide reads cost less than a read of each field.
        guard
            let words = buffer.peekMultipleIntegers(as: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64).self)
        else { return nil }
        self.first = UInt8(truncatingIfNeeded: words.0 >> 56)
        self.flags = UInt8(truncatingIfNeeded: words.0 >> 48)
        self.specific = UInt16(truncatingIfNeeded: words.0 >> 32)
        self.additionalWords = UInt8(truncatingIfNeeded: words.0 >> 24)
        self.dataLength = UInt32(truncatingIfNeeded: words.0) & 0xFF_FFFF
        self.lun = words.1
        self.tag = UInt32(truncatingIfNeeded: words.2 >> 32)
        self.word20 = UInt32(truncatingIfNeeded: words.2)
        self.word24 = UInt32(truncatingIfNeeded: words.3 >> 32)
        self.word28 = UInt32(truncatingIfNeeded: words.3)
        self.word32 = UInt32(truncatingIfNeeded: words.4 >> 32)
        self.word36 = UInt32(truncatingIfNeeded: words.4)
        self.word40 = UInt32(truncatingIfNeeded: words.5 >> 32)
        self.word44 = UInt32(truncatingIfNeeded: words.5)
    }

    /// Appends the 48 bytes.
    package func write(into buffer: inout ByteBuffer) {
        let start = UInt32(first) << 24 | UInt32(flags) << 16 | UInt32(specific)
        let lengths = UInt32(additionalWords) << 24 | dataLength & 0xFF_FFFF
        buffer.writeMultipleIntegers(
            UInt64(start) << 32 | UInt64(lengths),
            lun,
            UInt64(tag) << 32 | UInt64(word20),
            UInt64(word24) << 32 | UInt64(word28),
            UInt64(word32) << 32 | UInt64(word36),
            UInt64(word40) << 32 | UInt64(word44)
        )
    }

    /// The opcode, `nil` where RFC 7143 knows none of that number.
    package var opcode: Opcode? { Opcode(rawValue: first & 0x3F) }
    /// The I bit: the command is not numbered and not queued.
    package var isImmediate: Bool { first & 0x40 != 0 }
    /// The F bit.
    package var isFinal: Bool { flags & 0x80 != 0 }

    /// The fields that every PDU of a target carries.
    package var numbers: TargetNumbers {
        get { TargetNumbers(status: word24, expectedCommand: word28, maximumCommand: word32) }
        set {
            word24 = newValue.status
            word28 = newValue.expectedCommand
            word32 = newValue.maximumCommand
        }
    }
}

/// The tag that stands for no task, and no transfer (RFC 7143, 11.2.1.8).
package let reservedTag: UInt32 = 0xFFFF_FFFF

/// StatSN, ExpCmdSN and MaxCmdSN.
package struct TargetNumbers: Hashable, Sendable {
    /// StatSN.
    package var status: UInt32
    /// ExpCmdSN.
    package var expectedCommand: UInt32
    /// MaxCmdSN.
    package var maximumCommand: UInt32

    /// The three numbers.
    package init(status: UInt32, expectedCommand: UInt32, maximumCommand: UInt32) {
        self.status = status
        self.expectedCommand = expectedCommand
        self.maximumCommand = maximumCommand
    }
}

/// Operation codes (RFC 7143, 11.2.1.2).
package enum Opcode: UInt8, Sendable, CaseIterable {
    case nopOut = 0x00
    case scsiCommand = 0x01
    case taskManagementRequest = 0x02
    case loginRequest = 0x03
    case textRequest = 0x04
    case dataOut = 0x05
    case logoutRequest = 0x06
    case snack = 0x10
    case nopIn = 0x20
    case scsiResponse = 0x21
    case taskManagementResponse = 0x22
    case loginResponse = 0x23
    case textResponse = 0x24
    case dataIn = 0x25
    case logoutResponse = 0x26
    case r2t = 0x31
    case asyncMessage = 0x32
    case reject = 0x3F
}

/// A typed view of a header.
package protocol PDU: Sendable {
    /// Decodes; the caller has looked at the opcode.
    init(_ header: BasicHeader)
    /// Encodes, with a data length of zero.
    var header: BasicHeader { get }
}

/// Serial-number arithmetic on 32 bits (RFC 1982, as RFC 7143, 4.2.2.1 asks).
package enum Serial {
    /// Whether `lhs` comes before `rhs`.
    package static func isLess(_ lhs: UInt32, _ rhs: UInt32) -> Bool { Int32(bitPattern: lhs &- rhs) < 0 }
    /// Whether `lhs` comes before `rhs` or is it.
    package static func isLessOrEqual(_ lhs: UInt32, _ rhs: UInt32) -> Bool { Int32(bitPattern: lhs &- rhs) <= 0 }
}

/// One PDU as it came: header, additional segments, data without padding. The buffers are slices of what was received.
package struct Frame: Sendable {
    /// The basic header segment.
    package var header: BasicHeader
    /// All additional header segments.
    package var additional: ByteBuffer?
    /// The data segment.
    package var data: ByteBuffer

    /// A frame of the parts.
    package init(header: BasicHeader, additional: ByteBuffer? = nil, data: ByteBuffer = ByteBuffer()) {
        self.header = header
        self.additional = additional
        self.data = data
    }
}
