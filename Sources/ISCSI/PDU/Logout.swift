/// Logout Request (RFC 7143, 11.14).
package struct LogoutRequestPDU: PDU {
    package var isImmediate = false
    /// 0 close the session, 1 close the connection, 2 remove the connection for recovery.
    package var reason: UInt8 = 0
    package var tag: UInt32 = 0
    package var connectionID: UInt16 = 0
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isImmediate = header.isImmediate
        reason = header.flags & 0x7F
        tag = header.tag
        connectionID = UInt16(truncatingIfNeeded: header.word20 >> 16)
        commandNumber = header.word24
        expectedStatus = header.word28
    }

    package var header: BasicHeader {
        var header = BasicHeader(.logoutRequest, isImmediate: isImmediate, flags: 0x80 | reason & 0x7F, tag: tag)
        header.word20 = UInt32(connectionID) << 16
        header.word24 = commandNumber
        header.word28 = expectedStatus
        return header
    }
}

/// Logout Response (RFC 7143, 11.15).
package struct LogoutResponsePDU: PDU {
    /// 0 closed, 1 CID not found, 2 recovery not supported, 3 clean-up failed.
    package var response: UInt8 = 0
    package var tag: UInt32 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    package var time2Wait: UInt16 = 0
    package var time2Retain: UInt16 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        response = UInt8(truncatingIfNeeded: header.specific >> 8)
        tag = header.tag
        numbers = header.numbers
        time2Wait = UInt16(truncatingIfNeeded: header.word40 >> 16)
        time2Retain = UInt16(truncatingIfNeeded: header.word40)
    }

    package var header: BasicHeader {
        var header = BasicHeader(.logoutResponse, tag: tag)
        header.specific = UInt16(response) << 8
        header.numbers = numbers
        header.word40 = UInt32(time2Wait) << 16 | UInt32(time2Retain)
        return header
    }
}
