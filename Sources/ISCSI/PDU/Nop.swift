/// NOP-Out (RFC 7143, 11.18).
package struct NopOutPDU: PDU {
    package var isImmediate = false
    package var lun: UInt64 = 0
    /// Reserved where the PDU only answers a ping, or only carries ExpStatSN.
    package var tag: UInt32 = reservedTag
    package var transferTag: UInt32 = reservedTag
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isImmediate = header.isImmediate
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        commandNumber = header.word24
        expectedStatus = header.word28
    }

    package var header: BasicHeader {
        var header = BasicHeader(.nopOut, isImmediate: isImmediate, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.word24 = commandNumber
        header.word28 = expectedStatus
        return header
    }
}

/// NOP-In (RFC 7143, 11.19).
package struct NopInPDU: PDU {
    package var lun: UInt64 = 0
    package var tag: UInt32 = reservedTag
    package var transferTag: UInt32 = reservedTag
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)

    package init() {}

    package init(_ header: BasicHeader) {
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        numbers = header.numbers
    }

    package var header: BasicHeader {
        var header = BasicHeader(.nopIn, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.numbers = numbers
        return header
    }
}
