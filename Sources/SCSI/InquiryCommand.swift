import NIOCore

/// INQUIRY (SPC-5, 6.7): standard data and vital product data pages.
enum InquiryCommand {
    /// T10 VENDOR IDENTIFICATION.
    static let vendor = "ASHLAR"
    /// PRODUCT IDENTIFICATION.
    static let product = "VOLUME"
    /// Bytes of the standard INQUIRY data.
    static let standardBytes = 96
    /// Version descriptors (SPC-5, table 151): SAM-5, iSCSI, SPC-4, SBC-3, SBC-4; none of them claims a revision.
    static let versionDescriptors: [UInt16] = [0x00A0, 0x0960, 0x0460, 0x04C0, 0x0600]

    /// Direct access block device, connected.
    private static let connected: UInt8 = 0x00
    /// No logical unit can be here: qualifier 011b, type 1Fh.
    private static let notSupported: UInt8 = 0x7F

    static func plan(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        let peripheral = context.isUnitSelected ? connected : notSupported
        let data: ByteBuffer
        if command.isSet(byte: 1, bit: 0) {
            data = try vitalProductData(context, peripheral: peripheral)
        } else {
            guard command[2] == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7)) }
            data = standard(context.unit, peripheral: peripheral)
        }
        return .complete(.good(data.cut(toAllocationLength: command.bigEndian(at: 3, count: 2))))
    }

    /// Standard INQUIRY data (SPC-5, table 145): SPC-4, HISUP, implicit asymmetric access (TPGS 01b), third-party copies (3PC),
    /// several ports (MULTIP), command queuing (CMDQUE).
    private static func standard(_ unit: LogicalUnit, peripheral: UInt8) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeBytes([peripheral, 0x00, 0x06, 0x12, UInt8(standardBytes - 5), 0x18, 0x10, 0x02])
        data.writeField(vendor, count: 8)
        data.writeField(product, count: 16)
        data.writeField(unit.productRevision, count: 4)
        data.writeRepeatingByte(0, count: 22)
        for descriptor in versionDescriptors {
            data.writeInteger(descriptor)
        }
        data.writeRepeatingByte(0, count: standardBytes - data.readableBytes)
        return data
    }

    private static func vitalProductData(
        _ context: CommandContext,
        peripheral: UInt8
    ) throws(SCSIError) -> ByteBuffer {
        let code = context.command[2]
        let pages = context.isUnitSelected ? VitalProductData.pages : VitalProductData.pagesWithoutUnit
        guard let page = pages.first(where: { $0.code == code }) else {
            throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7))
        }
        let body = code == 0x00 ? pages.map(\.code) : page.body(context.unit)
        var data = ByteBuffer()
        data.writeInteger(peripheral)
        data.writeInteger(code)
        data.writeInteger(UInt16(body.count))
        data.writeBytes(body)
        return data
    }
}
