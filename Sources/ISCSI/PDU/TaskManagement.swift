/// Task Management Function Request (RFC 7143, 11.5).
package struct TaskManagementRequestPDU: PDU {
    package var isImmediate = false
    package var function: UInt8 = 0
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var referencedTag: UInt32 = reservedTag
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0
    package var referencedCommandNumber: UInt32 = 0
    package var expectedDataSN: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isImmediate = header.isImmediate
        function = header.flags & 0x7F
        lun = header.lun
        tag = header.tag
        referencedTag = header.word20
        commandNumber = header.word24
        expectedStatus = header.word28
        referencedCommandNumber = header.word32
        expectedDataSN = header.word36
    }

    package var header: BasicHeader {
        let flags = 0x80 | function & 0x7F
        var header = BasicHeader(.taskManagementRequest, isImmediate: isImmediate, flags: flags, tag: tag)
        header.lun = lun
        header.word20 = referencedTag
        header.word24 = commandNumber
        header.word28 = expectedStatus
        header.word32 = referencedCommandNumber
        header.word36 = expectedDataSN
        return header
    }
}

/// Task Management Function Response (RFC 7143, 11.6).
package struct TaskManagementResponsePDU: PDU {
    package var response: UInt8 = 0
    package var tag: UInt32 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)

    package init() {}

    package init(_ header: BasicHeader) {
        response = UInt8(truncatingIfNeeded: header.specific >> 8)
        tag = header.tag
        numbers = header.numbers
    }

    package var header: BasicHeader {
        var header = BasicHeader(.taskManagementResponse, tag: tag)
        header.specific = UInt16(response) << 8
        header.numbers = numbers
        return header
    }
}
