import AshlarCore
import NIOCore

/// MODE SENSE (6) and (10) with their pages (SPC-5, 6.14, 6.15 and 7.5; SBC-4, 6.5). All pages can be saved (PS).
enum ModeSense {
    /// One mode page, or subpage, with its header.
    struct Page {
        /// PAGE CODE.
        let code: UInt8
        /// SUBPAGE CODE; 0 for the page_0 format.
        let subpage: UInt8
        /// The bytes behind the header.
        let bytes: @Sendable (ModeParameters) -> [UInt8]
        /// Ones where MODE SELECT may change a bit.
        let changeable: [UInt8]
        /// Takes what can be changed from the bytes behind the header, which are at `offset` of the parameter list.
        let apply: @Sendable (_ bytes: [UInt8], _ offset: Int, inout ModeParameters) throws(SCSIError) -> Void
    }

    /// PAGE CONTROL (SPC-5, table 181).
    private enum PageControl: UInt8 {
        case current = 0
        case changeable = 1
        case standard = 2
        case saved = 3
    }

    /// All pages, in the order in which "return all pages" lists them.
    static let pages: [Page] = [
        fixedPage(0x08, cachingPage),
        Page(
            code: 0x0A,
            subpage: 0x00,
            bytes: controlPage,
            changeable: [0x04, 0x00, 0x08] + [UInt8](repeating: 0, count: 7)
        ) { bytes, _, mode throws(SCSIError) in
            mode.isSenseInDescriptorFormat = bytes[0] & 0x04 != 0
            mode.isSoftwareWriteProtected = bytes[2] & 0x08 != 0
        },
        fixedPage(0x0A, subpage: 0x01, [UInt8](repeating: 0, count: 28)),
        Page(
            code: 0x1C,
            subpage: 0x00,
            bytes: exceptionsPage,
            changeable: [0x08, 0x0F] + [UInt8](repeating: 0, count: 8)
        ) { bytes, offset, mode throws(SCSIError) in
            guard bytes[1] <= exceptionReportingMethodMaximum else {
                throw SCSIError(.invalidFieldInParameterList(byte: offset + 1, bit: 3))
            }
            mode.isExceptionReportingDisabled = bytes[0] & 0x08 != 0
            mode.exceptionReportingMethod = bytes[1]
        },
    ]

    /// Caching (SBC-4, table 176): WCE zero, since no acknowledged byte is volatile (I1); RCD zero.
    private static let cachingPage = [UInt8](repeating: 0, count: 18)

    /// Control (SPC-5, table 445): one task set for all nexuses (TST 000b), log parameters are not saved (GLTSD), commands
    /// may be reordered (QUEUE ALGORITHM MODIFIER 1h), commands that another nexus aborts end with TASK ABORTED (TAS), BUSY
    /// for as long as it lasts (BUSY TIMEOUT PERIOD FFFFh).
    private static func controlPage(_ mode: ModeParameters) -> [UInt8] {
        [
            0x02 | (mode.isSenseInDescriptorFormat ? 0x04 : 0), 0x10, mode.isSoftwareWriteProtected ? 0x08 : 0, 0x40,
            0x00, 0x00, 0xFF, 0xFF, 0x00, 0x00,
        ]
    }

    /// Informational exceptions control (SBC-4, 6.5): DEXCPT and MRIE.
    private static func exceptionsPage(_ mode: ModeParameters) -> [UInt8] {
        [mode.isExceptionReportingDisabled ? 0x08 : 0, mode.exceptionReportingMethod & 0x0F]
            + [UInt8](repeating: 0, count: 8)
    }

    /// Largest MRIE that is not reserved (SBC-4, 6.5).
    private static let exceptionReportingMethodMaximum: UInt8 = 6

    /// A page that cannot change.
    private static func fixedPage(_ code: UInt8, subpage: UInt8 = 0, _ bytes: [UInt8]) -> Page {
        Page(
            code: code,
            subpage: subpage,
            bytes: { _ in bytes },
            changeable: [UInt8](repeating: 0, count: bytes.count)
        ) { _, _, _ throws(SCSIError) in }
    }

    // MARK: Commands

    static func plan6(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let body = try selectedPages(context)
        let descriptor = blockDescriptor(context, isLong: false)
        var data = ByteBuffer()
        data.writeInteger(UInt8(3 + descriptor.readableBytes + body.readableBytes))
        data.writeInteger(UInt8(0))
        data.writeInteger(deviceSpecificParameter(context.unit))
        data.writeInteger(UInt8(descriptor.readableBytes))
        data.writeImmutableBuffer(descriptor)
        data.writeImmutableBuffer(body)
        return .complete(.good(data.cut(toAllocationLength: UInt64(context.command[4]))))
    }

    static func plan10(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let body = try selectedPages(context)
        let isLong = context.command.isSet(byte: 1, bit: 4)
        let descriptor = blockDescriptor(context, isLong: isLong)
        var data = ByteBuffer()
        data.writeInteger(UInt16(6 + descriptor.readableBytes + body.readableBytes))
        data.writeInteger(UInt8(0))
        data.writeInteger(deviceSpecificParameter(context.unit))
        data.writeInteger(UInt8(isLong && descriptor.readableBytes > 0 ? 0x01 : 0x00))
        data.writeInteger(UInt8(0))
        data.writeInteger(UInt16(descriptor.readableBytes))
        data.writeImmutableBuffer(descriptor)
        data.writeImmutableBuffer(body)
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 7, count: 2))))
    }

    /// WP and DPOFUA (SBC-4, table 174).
    private static func deviceSpecificParameter(_ unit: LogicalUnit) -> UInt8 {
        (unit.isWriteProtected ? 0x80 : 0x00) | 0x10
    }

    /// The short or the long LBA mode parameter block descriptor (SBC-4, tables 171 and 172); empty with DBD.
    private static func blockDescriptor(_ context: CommandContext, isLong: Bool) -> ByteBuffer {
        var data = ByteBuffer()
        guard !context.command.isSet(byte: 1, bit: 3) else { return data }
        let blockBytes = context.unit.volume.geometry.logicalBlockSizeBytes
        if isLong {
            data.writeInteger(context.unit.logicalBlockCount)
            data.writeInteger(UInt32(0))
        } else {
            data.writeInteger(UInt32(clamping: context.unit.logicalBlockCount))
        }
        data.writeInteger(blockBytes)
        return data
    }

    /// The pages that PAGE CODE and SUBPAGE CODE ask for.
    private static func selectedPages(_ context: CommandContext) throws(SCSIError) -> ByteBuffer {
        let code = context.command[2] & 0x3F
        let subpage = context.command[3]
        let isCodeKnown = code == 0x3F || pages.contains { $0.code == code }
        guard isCodeKnown else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 5)) }
        let selected = pages.filter { page in
            (code == 0x3F || page.code == code) && (subpage == 0xFF || page.subpage == subpage)
        }
        guard !selected.isEmpty, code != 0x3F || subpage == 0x00 || subpage == 0xFF else {
            throw SCSIError(.invalidFieldInCDB(byte: 3, bit: 7))
        }
        let control = PageControl(rawValue: context.command[2] >> 6) ?? .saved
        var data = ByteBuffer()
        for page in selected {
            let bytes =
                switch control {
                case .current: page.bytes(context.unit.mode)
                case .changeable: page.changeable
                case .standard: page.bytes(ModeParameters())
                case .saved: page.bytes(context.unit.savedMode)
                }
            if page.subpage == 0 {
                data.writeInteger(0x80 | page.code)
                data.writeInteger(UInt8(bytes.count))
            } else {
                data.writeInteger(0xC0 | page.code)
                data.writeInteger(page.subpage)
                data.writeInteger(UInt16(bytes.count))
            }
            data.writeBytes(bytes)
        }
        return data
    }
}
