import AshlarCore
import NIOCore

extension CommandSet {
    /// LOG SENSE (SPC-5, 6.10). SP is a reserved bit here: log parameters are not saved.
    static let logCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x4D, 0x00, 0xFF, 0xFF, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00],
            rules: .duringErasure,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 7, count: 2)) },
            plan: LogSense.plan
        )
    ]
}

/// Log pages (SPC-5, 7.3; SBC-4, 6.4).
enum LogSense {
    /// One log page, or subpage.
    struct Page {
        /// PAGE CODE.
        let code: UInt8
        /// SUBPAGE CODE; 0 for a page.
        let subpage: UInt8
        /// Its PARAMETER CODEs, ascending; none: it lists pages.
        let parameters: [UInt16]
    }

    /// A log parameter: its code, and what follows its four bytes of header.
    struct Parameter {
        /// PARAMETER CODE.
        let code: UInt16
        /// At most 255 bytes.
        let value: ByteBuffer
    }

    /// PAGE CODE of the logical block provisioning page.
    static let provisioningCode: UInt8 = 0x0C
    /// PAGE CODE of the general statistics and performance page.
    static let statisticsCode: UInt8 = 0x19

    /// All pages, in ascending order, as page 00h/FFh lists them.
    static let pages: [Page] = [
        Page(code: 0x00, subpage: 0x00, parameters: []),
        Page(code: 0x00, subpage: 0xFF, parameters: []),
        Page(code: provisioningCode, subpage: 0x00, parameters: [0x0001, 0x0002]),
        Page(code: statisticsCode, subpage: 0x00, parameters: [0x0001, 0x0002, 0x0003]),
    ]

    // MARK: Command

    /// PC may ask for cumulative values (01b) or for thresholds (00b), which parameters that are lists do not have, so
    /// that both give the same (SPC-5, 6.10). Default values (10b, 11b) would be those of LOG SELECT, which there is
    /// not.
    static func plan(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        let code = command[2] & 0x3F
        guard pages.contains(where: { $0.code == code }) else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 5)) }
        guard let page = pages.first(where: { $0.code == code && $0.subpage == command[3] }) else {
            throw SCSIError(.invalidFieldInCDB(byte: 3, bit: 7))
        }
        guard command[2] >> 6 <= 0b01 else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7)) }
        let pointer = UInt16(truncatingIfNeeded: command.bigEndian(at: 5, count: 2))
        guard pointer <= page.parameters.last ?? 0 else { throw SCSIError(.invalidFieldInCDB(byte: 5, bit: 7)) }
        let allocationLength = command.bigEndian(at: 7, count: 2)
        guard page.parameters.isEmpty else {
            return .logSense(
                LogPageQuery(
                    code: code,
                    subpage: page.subpage,
                    parameterPointer: pointer,
                    allocationLength: allocationLength
                )
            )
        }
        return .complete(.good(supportedPages(page).cut(toAllocationLength: allocationLength)))
    }

    /// Pages 00h and 00h/FFh (SPC-5, 7.3): all pages, and all pages with their subpages.
    private static func supportedPages(_ page: Page) -> ByteBuffer {
        var data = ByteBuffer()
        if page.subpage == 0 {
            let codes = pages.filter { $0.subpage == 0 }.map(\.code)
            data.writeBytes([page.code, 0x00, 0x00, UInt8(codes.count)] + codes)
        } else {
            let codes = pages.flatMap { [$0.code, $0.subpage] }
            data.writeBytes([0x40 | page.code, page.subpage, 0x00, UInt8(codes.count)] + codes)
        }
        return data
    }

    // MARK: Parameters

    /// Logical block provisioning (SBC-4, 6.4.5): mapping resources, available and used, in threshold sets; a count that
    /// does not fit is the largest that does. A set that is used in part is not available. The space that blocks not yet
    /// mapped will take is common to all volumes, so that only what is used has a SCOPE, dedicated to the logical unit (01b).
    static func provisioning(_ statistics: UnitStatistics, _ unit: LogicalUnit) -> [Parameter] {
        let setBytes = unit.logicalBlockBytes << unit.thresholdExponent
        let sizeBytes = unit.volume.geometry.sizeBytes
        let mappedBytes = min(sizeBytes, statistics.mappedBytes)
        return [
            resourceCount(code: 0x0001, (sizeBytes - mappedBytes) / setBytes, scope: 0b00),
            resourceCount(code: 0x0002, (mappedBytes + setBytes - 1) / setBytes, scope: 0b01),
        ]
    }

    private static func resourceCount(code: UInt16, _ count: UInt64, scope: UInt8) -> Parameter {
        var value = ByteBuffer()
        value.writeInteger(UInt32(clamping: count))
        value.writeBytes([scope, 0x00, 0x00, 0x00])
        return Parameter(code: code, value: value)
    }

    /// General statistics and performance (SPC-5, 7.3): commands and logical blocks are counted; times are not
    /// measured, and zero intervals of a millisecond: sg_logs shows the page only with the idle time (0002h) and the
    /// length of an interval (0003h).
    static func general(_ statistics: UnitStatistics) -> [Parameter] {
        var access = ByteBuffer()
        access.writeInteger(statistics.readCommands)
        access.writeInteger(statistics.writeCommands)
        access.writeInteger(statistics.blocksWritten)
        access.writeInteger(statistics.blocksRead)
        access.writeRepeatingByte(0, count: 4 * 8)
        var interval = ByteBuffer()
        interval.writeInteger(UInt32(3))
        interval.writeInteger(UInt32(1))
        return [
            Parameter(code: 0x0001, value: access),
            Parameter(code: 0x0002, value: ByteBuffer(repeating: 0, count: 8)),
            Parameter(code: 0x0003, value: interval),
        ]
    }
}

extension LogicalUnit {
    /// THRESHOLD EXPONENT (SBC-4, 6.6): a threshold set has two to the power of this logical blocks. It is one data block, which
    /// is what is mapped; where that is one logical block it is two of them, since an exponent of zero would say that
    /// there are no threshold sets to count in.
    var thresholdExponent: UInt8 {
        max(1, UInt8(truncatingIfNeeded: logicalBlocksPerDataBlock.trailingZeroBitCount))
    }
}

extension LogPageQuery {
    /// PARAMETER CONTROL BYTE: not saved by itself (TSD), a binary list (FORMAT AND LINKING 11b) (SPC-5, 7.3.2).
    private static let controlByte: UInt8 = 0x23

    /// The answer, from what the owner counted. DS says that the page is not saved.
    public func response(_ statistics: UnitStatistics, unit: LogicalUnit) -> SCSIResponse {
        let parameters =
            code == LogSense.provisioningCode
            ? LogSense.provisioning(statistics, unit) : LogSense.general(statistics)
        var body = ByteBuffer()
        for parameter in parameters where parameter.code >= parameterPointer {
            body.writeInteger(parameter.code)
            body.writeInteger(Self.controlByte)
            body.writeInteger(UInt8(parameter.value.readableBytes))
            body.writeImmutableBuffer(parameter.value)
        }
        var data = ByteBuffer()
        data.writeBytes([0x80 | code, subpage])
        data.writeInteger(UInt16(body.readableBytes))
        data.writeImmutableBuffer(body)
        return .good(data.cut(toAllocationLength: allocationLength))
    }
}
