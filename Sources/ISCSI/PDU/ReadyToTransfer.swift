/// Ready To Transfer (RFC 7143, 11.8).
package struct ReadyToTransferPDU: PDU {
    package var lun: UInt64 = 0
    package var tag: UInt32 = 0
    package var transferTag: UInt32 = 0
    package var numbers = TargetNumbers(status: 0, expectedCommand: 0, maximumCommand: 0)
    package var r2tSN: UInt32 = 0
    package var bufferOffset: UInt32 = 0
    package var desiredLength: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        numbers = header.numbers
        r2tSN = header.word36
        bufferOffset = header.word40
        desiredLength = header.word44
    }

    package var header: BasicHeader {
        var header = BasicHeader(.r2t, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.numbers = numbers
        header.word36 = r2tSN
        header.word40 = bufferOffset
        header.word44 = desiredLength
        return header
    }
}
