/// Reject (RFC 7143, 11.17). Its data segment is the header of the PDU that was rejected.
package struct RejectPDU: PDU {
    package var reason: UInt8 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    package var dataSN: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        reason = UInt8(truncatingIfNeeded: header.specific >> 8)
        numbers = header.numbers
        dataSN = header.word36
    }

    package var header: BasicHeader {
        var header = BasicHeader(.reject)
        header.specific = UInt16(reason) << 8
        header.numbers = numbers
        header.word36 = dataSN
        return header
    }
}

/// Why a PDU was rejected (RFC 7143, 11.17.1).
package enum RejectReason: UInt8, Sendable {
    case dataDigestError = 0x02
    case snackReject = 0x03
    case protocolError = 0x04
    case commandNotSupported = 0x05
    case tooManyImmediateCommands = 0x06
    case taskInProgress = 0x07
    case invalidDataAck = 0x08
    case invalidField = 0x09
    case longOperationReject = 0x0A
    case waitingForLogout = 0x0C
}
