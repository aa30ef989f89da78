package import NIOCore

/// SCSI Command (RFC 7143, 11.3).
package struct SCSICommandPDU: PDU {
    package var isImmediate = false
    package var isFinal = true
    package var isRead = false
    package var isWrite = false
    package var attribute: UInt8 = 0
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var expectedDataTransferLength: UInt32 = 0
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0
    /// The first 16 bytes of the CDB, as two big-endian halves.
    package var cdbHigh: UInt64 = 0
    package var cdbLow: UInt64 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isImmediate = header.isImmediate
        isFinal = header.isFinal
        isRead = header.flags & 0x40 != 0
        isWrite = header.flags & 0x20 != 0
        attribute = header.flags & 0x07
        lun = header.lun
        tag = header.tag
        expectedDataTransferLength = header.word20
        commandNumber = header.word24
        expectedStatus = header.word28
        cdbHigh = UInt64(header.word32) << 32 | UInt64(header.word36)
        cdbLow = UInt64(header.word40) << 32 | UInt64(header.word44)
    }

    package var header: BasicHeader {
        let flags =
            (isFinal ? 0x80 : 0) | (isRead ? 0x40 : 0) | (isWrite ? 0x20 : 0) | attribute & 0x07
        var header = BasicHeader(.scsiCommand, isImmediate: isImmediate, flags: flags, tag: tag)
        header.lun = lun
        header.word20 = expectedDataTransferLength
        header.word24 = commandNumber
        header.word28 = expectedStatus
        header.word32 = UInt32(truncatingIfNeeded: cdbHigh >> 32)
        header.word36 = UInt32(truncatingIfNeeded: cdbHigh)
        header.word40 = UInt32(truncatingIfNeeded: cdbLow >> 32)
        header.word44 = UInt32(truncatingIfNeeded: cdbLow)
        return header
    }

    /// The 16 bytes of CDB in the header.
    package var cdb: [UInt8] {
        get {
            func byte(_ half: UInt64, _ index: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: half >> (56 - 8 * index)) }
            // A literal: it is made without a look for its type at run time, once a command.
            return [
                byte(cdbHigh, 0), byte(cdbHigh, 1), byte(cdbHigh, 2), byte(cdbHigh, 3),
                byte(cdbHigh, 4), byte(cdbHigh, 5), byte(cdbHigh, 6), byte(cdbHigh, 7),
                byte(cdbLow, 0), byte(cdbLow, 1), byte(cdbLow, 2), byte(cdbLow, 3),
                byte(cdbLow, 4), byte(cdbLow, 5), byte(cdbLow, 6), byte(cdbLow, 7),
            ]
        }
        set {
            var halves: (UInt64, UInt64) = (0, 0)
            for index in 0..<16 {
                let byte = index < newValue.count ? UInt64(newValue[index]) : 0
                if index < 8 { halves.0 = halves.0 << 8 | byte } else { halves.1 = halves.1 << 8 | byte }
            }
            cdbHigh = halves.0
            cdbLow = halves.1
        }
    }
}

/// SCSI Response (RFC 7143, 11.4). Its data segment is the sense data behind a length of two bytes.
package struct SCSIResponsePDU: PDU {
    package var tag: UInt32 = 0
    /// 00h command completed at target, 01h target failure.
    package var response: UInt8 = 0
    package var status: UInt8 = 0
    package var snackTag: UInt32 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    package var expectedDataSN: UInt32 = 0
    package var residual = Residual.none
    package var bidirectionalResidual = Residual.none

    package init() {}

    package init(_ header: BasicHeader) {
        tag = header.tag
        response = UInt8(truncatingIfNeeded: header.specific >> 8)
        status = UInt8(truncatingIfNeeded: header.specific)
        snackTag = header.word20
        numbers = header.numbers
        expectedDataSN = header.word36
        residual = Residual(
            isOverflow: header.flags & 0x04 != 0,
            isUnderflow: header.flags & 0x02 != 0,
            count: header.word44
        )
        bidirectionalResidual = Residual(
            isOverflow: header.flags & 0x10 != 0,
            isUnderflow: header.flags & 0x08 != 0,
            count: header.word40
        )
    }

    package var header: BasicHeader {
        let flags = 0x80 | residual.flags | bidirectionalResidual.flags << 2
        var header = BasicHeader(.scsiResponse, flags: flags, tag: tag)
        header.specific = UInt16(response) << 8 | UInt16(status)
        header.word20 = snackTag
        header.numbers = numbers
        header.word36 = expectedDataSN
        header.word40 = bidirectionalResidual.count
        header.word44 = residual.count
        return header
    }
}

/// The difference between the expected data transfer length and what the command has to do (RFC 7143, 11.4.5).
package struct Residual: Hashable, Sendable {
    package var isOverflow: Bool
    package var isUnderflow: Bool
    package var count: UInt32

    package static let none = Residual(isOverflow: false, isUnderflow: false, count: 0)

    package init(isOverflow: Bool, isUnderflow: Bool, count: UInt32) {
        self.isOverflow = isOverflow
        self.isUnderflow = isUnderflow
        self.count = count
    }

    /// What remains when `implied` bytes were to be moved and `expected` were announced.
    package init(expected: UInt32, implied: UInt64) {
        if implied > UInt64(expected) {
            self.init(isOverflow: true, isUnderflow: false, count: UInt32(clamping: implied - UInt64(expected)))
        } else if implied < UInt64(expected) {
            self.init(isOverflow: false, isUnderflow: true, count: expected - UInt32(implied))
        } else {
            self = .none
        }
    }

    /// The O (04h) and U (02h) bits.
    package var flags: UInt8 { (isOverflow ? 0x04 : 0) | (isUnderflow ? 0x02 : 0) }
}

/// What additional header segments may hold (RFC 7143, 11.2.2).
package struct AdditionalHeaders: Hashable, Sendable {
    /// CDB bytes from the 17th on.
    package var cdbTail: [UInt8] = []
    /// Expected Bidirectional Read Data Length.
    package var bidirectionalReadLength: UInt32?

    package init() {}

    /// Decodes; `nil` where a length lies, a type is unknown or comes twice.
    package init?(_ bytes: ByteBuffer) {
        var bytes = bytes
        var hasTail = false
        while bytes.readableBytes > 0 {
            guard let (length, type) = bytes.readMultipleIntegers(as: (UInt16, UInt8).self), length >= 1,
                var content = bytes.readSlice(length: Int(length))
            else { return nil }
            let padding = (4 - (Int(length) + 3) % 4) % 4
            guard bytes.readSlice(length: padding) != nil else { return nil }
            content.moveReaderIndex(forwardBy: 1)
            switch type & 0x3F {
            case 1:
                guard !hasTail, content.readableBytes + 16 <= ISCSILimits.cdbMaximumBytes else { return nil }
                hasTail = true
                cdbTail = Array(content.readableBytesView)
            case 2:
                guard bidirectionalReadLength == nil, content.readableBytes == 4 else { return nil }
                bidirectionalReadLength = content.readInteger(as: UInt32.self)
            default:
                return nil
            }
        }
    }

    /// Encodes, padded to words.
    package var bytes: ByteBuffer {
        var buffer = ByteBuffer()
        if !cdbTail.isEmpty {
            buffer.writeMultipleIntegers(UInt16(cdbTail.count + 1), UInt8(1), UInt8(0))
            buffer.writeBytes(cdbTail)
            buffer.writeRepeatingByte(0, count: (4 - cdbTail.count % 4) % 4)
        }
        if let length = bidirectionalReadLength {
            buffer.writeMultipleIntegers(UInt16(5), UInt8(2), UInt8(0), length)
        }
        return buffer
    }
}
