/// Stages of a login and of a session (RFC 7143, 11.12.3).
package enum LoginStage: UInt8, Sendable {
    case securityNegotiation = 0
    case operationalNegotiation = 1
    case fullFeature = 3
}

/// Login Request (RFC 7143, 11.12).
package struct LoginRequestPDU: PDU {
    package var isTransit = false
    package var continues = false
    /// Two bits each; a value of 2 is reserved.
    package var currentStage: UInt8 = 0
    package var nextStage: UInt8 = 0
    package var versionMaximum: UInt8 = 0
    package var versionMinimum: UInt8 = 0
    /// 48 bits.
    package var isid: UInt64 = 0
    package var tsih: UInt16 = 0
    package var tag: UInt32 = 0
    package var connectionID: UInt16 = 0
    package var commandNumber: UInt32 = 0
    package var expectedStatus: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isTransit = header.flags & 0x80 != 0
        continues = header.flags & 0x40 != 0
        currentStage = header.flags >> 2 & 0x03
        nextStage = header.flags & 0x03
        versionMaximum = UInt8(truncatingIfNeeded: header.specific >> 8)
        versionMinimum = UInt8(truncatingIfNeeded: header.specific)
        isid = header.lun >> 16
        tsih = UInt16(truncatingIfNeeded: header.lun)
        tag = header.tag
        connectionID = UInt16(truncatingIfNeeded: header.word20 >> 16)
        commandNumber = header.word24
        expectedStatus = header.word28
    }

    package var header: BasicHeader {
        let flags =
            (isTransit ? 0x80 : 0) | (continues ? 0x40 : 0) | (currentStage & 3) << 2 | nextStage & 3
        var header = BasicHeader(.loginRequest, isImmediate: true, flags: flags, tag: tag)
        header.specific = UInt16(versionMaximum) << 8 | UInt16(versionMinimum)
        header.lun = isid << 16 | UInt64(tsih)
        header.word20 = UInt32(connectionID) << 16
        header.word24 = commandNumber
        header.word28 = expectedStatus
        return header
    }
}

/// Login Response (RFC 7143, 11.13).
package struct LoginResponsePDU: PDU {
    package var isTransit = false
    package var continues = false
    package var currentStage: UInt8 = 0
    package var nextStage: UInt8 = 0
    package var versionMaximum: UInt8 = 0
    package var versionActive: UInt8 = 0
    /// 48 bits.
    package var isid: UInt64 = 0
    package var tsih: UInt16 = 0
    package var tag: UInt32 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    /// Status-Class in the upper byte, Status-Detail in the lower.
    package var status: UInt16 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        isTransit = header.flags & 0x80 != 0
        continues = header.flags & 0x40 != 0
        currentStage = header.flags >> 2 & 0x03
        nextStage = header.flags & 0x03
        versionMaximum = UInt8(truncatingIfNeeded: header.specific >> 8)
        versionActive = UInt8(truncatingIfNeeded: header.specific)
        isid = header.lun >> 16
        tsih = UInt16(truncatingIfNeeded: header.lun)
        tag = header.tag
        numbers = header.numbers
        status = UInt16(truncatingIfNeeded: header.word36 >> 16)
    }

    package var header: BasicHeader {
        let flags =
            (isTransit ? 0x80 : 0) | (continues ? 0x40 : 0) | (currentStage & 3) << 2 | nextStage & 3
        var header = BasicHeader(.loginResponse, flags: flags, tag: tag)
        header.specific = UInt16(versionMaximum) << 8 | UInt16(versionActive)
        header.lun = isid << 16 | UInt64(tsih)
        header.numbers = numbers
        header.word36 = UInt32(status) << 16
        return header
    }
}
