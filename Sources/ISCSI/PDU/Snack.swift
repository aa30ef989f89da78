/// SNACK Request (RFC 7143, 11.16). With ErrorRecoveryLevel 0 it is always rejected.
package struct SnackPDU: PDU {
    /// 0 data or R2T, 1 status, 2 DataACK, 3 R-data.
    package var type: UInt8 = 0
    package var lun: UInt64 = 0
    package var tag: UInt32 = reservedTag
    package var transferTag: UInt32 = reservedTag
    package var expectedStatus: UInt32 = 0
    package var beginRun: UInt32 = 0
    package var runLength: UInt32 = 0

    package init() {}

    package init(_ header: BasicHeader) {
        type = header.flags & 0x0F
        lun = header.lun
        tag = header.tag
        transferTag = header.word20
        expectedStatus = header.word28
        beginRun = header.word40
        runLength = header.word44
    }

    package var header: BasicHeader {
        var header = BasicHeader(.snack, flags: 0x80 | type & 0x0F, tag: tag)
        header.lun = lun
        header.word20 = transferTag
        header.word28 = expectedStatus
        header.word40 = beginRun
        header.word44 = runLength
        return header
    }
}
