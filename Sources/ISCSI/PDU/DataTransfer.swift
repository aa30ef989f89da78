/// SCSI Data-Out (RFC 7143, 11.7).
package struct DataOutPDU: PDU {
    package var isFinal = true
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    /// That of the R2T, or reserved for unsolicited data.
    package var transferTag: UInt32 = reservedTag
    package var expectedStatus: UInt32 = 0
    package var dataSN: UInt32 = 0
    package var bufferOffset: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isFinal = header.isFinal
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        expectedStatus = header.word28
        dataSN = header.word36
        bufferOffset = header.word40
    }

    package var header: BasicHeader {
        var header = BasicHeader(.dataOut, flags: isFinal ? 0x80 : 0, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.word28 = expectedStatus
        header.word36 = dataSN
        header.word40 = bufferOffset
        return header
    }
}

/// SCSI Data-In (RFC 7143, 11.7), with the status where the S bit is set.
package struct DataInPDU: PDU {
    package var isFinal = true
    package var acknowledges = false
    package var hasStatus = false
    package var status: UInt8 = 0
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var transferTag: UInt32 = reservedTag
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    package var dataSN: UInt32 = 0
    package var bufferOffset: UInt32 = 0
    package var residual = Residual.none

    package init() {}

    package init(_ header: BasicHeader) {
        isFinal = header.isFinal
        acknowledges = header.flags & 0x40 != 0
        hasStatus = header.flags & 0x01 != 0
        status = UInt8(truncatingIfNeeded: header.specific)
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        numbers = header.numbers
        dataSN = header.word36
        bufferOffset = header.word40
        residual = Residual(
            isOverflow: header.flags & 0x04 != 0,
            isUnderflow: header.flags & 0x02 != 0,
            count: header.word44
        )
    }

    package var header: BasicHeader {
        let flags = (isFinal ? 0x80 : 0) | (acknowledges ? 0x40 : 0) | residual.flags | (hasStatus ? 0x01 : 0)
        var header = BasicHeader(.dataIn, flags: flags, tag: tag)
        header.specific = UInt16(status)
        header.lun = lun
        header.word20 = transferTag
        header.numbers = numbers
        header.word36 = dataSN
        header.word40 = bufferOffset
        header.word44 = residual.count
        return header
    }
}
