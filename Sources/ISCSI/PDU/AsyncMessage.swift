/// Asynchronous Message (RFC 7143, 11.9).
package struct AsyncMessagePDU: PDU {
    package var lun: UInt64 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    /// 0 SCSI event, 1 log out, 2 connection dropped, 3 session dropped, 4 negotiate.
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
