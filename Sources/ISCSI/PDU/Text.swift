/// Text Request (RFC 7143, 11.10).
package struct TextRequestPDU: PDU {
    package var isImmediate = false
    package var isFinal = true
    package var continues = false
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var transferTag: UInt32 = reservedTag
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isImmediate = header.isImmediate
        isFinal = header.isFinal
        continues = header.flags & 0x40 != 0
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        commandNumber = header.word24
        expectedStatus = header.word28
    }

    package var header: BasicHeader {
        let flags: UInt8 = (isFinal ? 0x80 : 0) | (continues ? 0x40 : 0)
        var header = BasicHeader(.textRequest, isImmediate: isImmediate, flags: flags, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.word24 = commandNumber
        header.word28 = expectedStatus
        return header
    }
}

/// Text Response (RFC 7143, 11.11).
package struct TextResponsePDU: PDU {
    package var isFinal = true
    package var continues = false
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var transferTag: UInt32 = reservedTag
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)

    package init() {}

    package init(_ header: BasicHeader) {
        isFinal = header.isFinal
        continues = header.flags & 0x40 != 0
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        numbers = header.numbers
    }

    package var header: BasicHeader {
        let flags: UInt8 = (isFinal ? 0x80 : 0) | (continues ? 0x40 : 0)
        var header = BasicHeader(.textResponse, flags: flags, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.numbers = numbers
        return header
    }
}
