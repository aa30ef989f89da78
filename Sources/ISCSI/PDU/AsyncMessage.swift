/// What an Asynchronous Message says (RFC 7143, 11.9.1), with the parameters that mean something. The target sends
/// ``logoutRequested`` and ``sessionDropped``.
package enum AsyncEvent: UInt8, Sendable, Hashable {
    /// A SCSI event: sense data follow.
    case scsi = 0
    /// The initiator has to log out within Parameter3 seconds.
    case logoutRequested = 1
    /// The connection with the CID in Parameter1 is dropped: reconnect after Parameter2 seconds, tasks are kept for Parameter3.
    case connectionDropped = 2
    /// All connections of the session are dropped; times as before.
    case sessionDropped = 3
    /// The initiator has to send a text request within Parameter3 seconds.
    case negotiationRequested = 4
}

/// Asynchronous Message (RFC 7143, 11.9).
package struct AsyncMessagePDU: PDU {
    package var lun: UInt64 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    /// ``AsyncEvent``, or 255 for events of a vendor.
    package var event: UInt8 = 0
    package var vendorCode: UInt8 = 0
    package var parameter1: UInt16 = 0
    package var parameter2: UInt16 = 0
    package var parameter3: UInt16 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        lun = header.lun
        numbers = header.numbers
        event = UInt8(truncatingIfNeeded: header.word36 >> 24)
        vendorCode = UInt8(truncatingIfNeeded: header.word36 >> 16)
        parameter1 = UInt16(truncatingIfNeeded: header.word36)
        parameter2 = UInt16(truncatingIfNeeded: header.word40 >> 16)
        parameter3 = UInt16(truncatingIfNeeded: header.word40)
    }

    package var header: BasicHeader {
        var header = BasicHeader(.asyncMessage)
        header.lun = lun
        header.numbers = numbers
        header.word36 = UInt32(event) << 24 | UInt32(vendorCode) << 16 | UInt32(parameter1)
        header.word40 = UInt32(parameter2) << 16 | UInt32(parameter3)
        return header
    }
}
