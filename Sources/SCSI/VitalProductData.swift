import AshlarCore
import NIOCore

/// Vital product data pages (SPC-5, 7.7; SBC-4, 6.6), one entry each.
enum VitalProductData {
    /// A page: what follows its four bytes of header.
    struct Page {
        let code: UInt8
        let body: @Sendable (LogicalUnit) -> [UInt8]
    }

    /// All pages, in ascending order, as page 00h lists them.
    static let pages: [Page] = [
        Page(code: 0x00) { _ in [] },
        Page(code: 0x80) { Array($0.serialNumber.utf8) },
        Page(code: 0x83, body: deviceIdentification),
        Page(code: 0x86) { _ in extendedInquiry },
        Page(code: 0x87) { _ in modePagePolicy },
        Page(code: 0x88, body: ports),
        Page(code: 0x8F, body: ThirdPartyCopyPage.body),
        Page(code: 0xB0, body: blockLimits),
        Page(code: 0xB1) { _ in blockCharacteristics },
        Page(code: 0xB2, body: logicalBlockProvisioning),
    ]

    /// The pages of a LUN without a logical unit.
    static let pagesWithoutUnit: [Page] = [Page(code: 0x00) { _ in [] }]

    // MARK: Device identification

    /// What a designator names (SPC-5, table 594).
    private enum Association: UInt8 {
        case logicalUnit = 0x00
        case targetPort = 0x10
        case targetDevice = 0x20
    }

    /// Code sets (SPC-5, table 593).
    fileprivate enum CodeSet: UInt8 {
        case binary = 0x1
        case ascii = 0x2
        case utf8 = 0x3
    }

    /// What names the logical unit: from the volume alone, so that it is the same through every target.
    struct UnitDesignator {
        fileprivate let codeSet: CodeSet
        /// DESIGNATOR TYPE.
        let type: UInt8
        /// DESIGNATOR.
        let bytes: [UInt8]
    }

    /// The designators of page 83h with association 0.
    static func designatorsOfUnit(_ unit: LogicalUnit) -> [UnitDesignator] {
        let vendor = InquiryCommand.vendor.padding(toCount: 8)
        let identifier = unit.networkAddressIdentifier
        return [
            UnitDesignator(codeSet: .binary, type: 0x3, bytes: identifier),
            UnitDesignator(codeSet: .ascii, type: 0x1, bytes: Array((vendor + unit.serialNumber).utf8)),
            UnitDesignator(codeSet: .binary, type: 0xA, bytes: [0x10, 0x00] + unit.uuid),
            UnitDesignator(codeSet: .utf8, type: 0x8, bytes: nameString("naa." + hexadecimal(identifier))),
        ]
    }

    /// Page 83h (SPC-5, 7.7.6). What names the port comes from the portal group.
    private static func deviceIdentification(_ unit: LogicalUnit) -> [UInt8] {
        var page = designatorsOfUnit(unit).flatMap { part in
            designator(.logicalUnit, part.codeSet, type: part.type, part.bytes)
        }
        page += designator(.targetPort, .binary, type: 0x4, [0, 0] + bigEndian(unit.relativePortIdentifier))
        page += designator(.targetPort, .binary, type: 0x5, [0, 0] + bigEndian(unit.portalGroupTag))
        page += designator(.targetPort, .utf8, type: 0x8, nameString(portName(unit, tag: unit.portalGroupTag)))
        page += designator(.targetDevice, .utf8, type: 0x8, nameString(unit.targetName))
        return page
    }

    /// A designation descriptor (SPC-5, table 592); those of ports and devices name the protocol, iSCSI (5h), with PIV.
    private static func designator(
        _ association: Association,
        _ codeSet: CodeSet,
        type: UInt8,
        _ bytes: [UInt8]
    ) -> [UInt8] {
        let isOfTransport = association != .logicalUnit
        let body = bytes.prefix(Int(UInt8.max))
        return [
            (isOfTransport ? 0x50 : 0x00) | codeSet.rawValue,
            (isOfTransport ? 0x80 : 0x00) | association.rawValue | type,
            0x00, UInt8(body.count),
        ] + body
    }

    /// A SCSI name string: ends with a zero byte and is filled to a multiple of four (SPC-5, 7.7.6.11); at most 252 bytes.
    private static func nameString(_ name: String) -> [UInt8] {
        let bytes = name.utf8.prefix(SCSINames.nameStringMaximumBytes - 1)
        return bytes + [UInt8](repeating: 0, count: 4 - bytes.count % 4)
    }

    private static func bigEndian(_ value: UInt16) -> [UInt8] {
        [UInt8(value >> 8), UInt8(value & 0xFF)]
    }

    // MARK: Ports

    /// Page 88h (SPC-5, 7.7): each target port with its relative identifier and its name; no initiator ports.
    private static func ports(_ unit: LogicalUnit) -> [UInt8] {
        unit.targetPorts.prefix(SCSILimits.reportedPortsMaximum).flatMap { port in
            let identifier = bigEndian(port.relativePortIdentifier)
            let descriptors =
                designator(.targetPort, .binary, type: 0x4, [0, 0] + identifier)
                + designator(.targetPort, .utf8, type: 0x8, nameString(portName(unit, tag: port.portalGroupTag)))
            return [0, 0] + identifier + [0, 0, 0, 0, 0, 0] + bigEndian(UInt16(descriptors.count)) + descriptors
        }
    }

    /// The name of a target port (RFC 7143, 4.4): that of the target and the portal group tag.
    private static func portName(_ unit: LogicalUnit, tag: UInt16) -> String {
        unit.targetName + ",t,0x" + hexadecimal(bigEndian(tag))
    }

    // MARK: Other pages

    /// Page 87h (SPC-5, 7.7): all mode pages and subpages (3Fh/FFh) are shared by all nexuses.
    private static let modePagePolicy: [UInt8] = [0x3F, 0xFF, 0x00, 0x00]

    /// Page 86h (SPC-5, table 600): SIMPLE, ORDERED and HEAD OF QUEUE (SIMPSUP, ORDSUP, HEADSUP); a change of the list of logical
    /// units is told once a nexus (LUICLR).
    private static let extendedInquiry: [UInt8] = {
        var bytes = [UInt8](repeating: 0, count: 60)
        bytes[1] = 0x07
        bytes[3] = 0x01
        return bytes
    }()

    /// Page B0h (SBC-4, table 186). WRITE ATOMIC takes whole data blocks (MAXIMUM ATOMIC TRANSFER LENGTH, ATOMIC ALIGNMENT and
    /// ATOMIC TRANSFER LENGTH GRANULARITY), without atomic boundaries (two zeros).
    private static func blockLimits(_ unit: LogicalUnit) -> [UInt8] {
        let granularity = unit.logicalBlocksPerDataBlock
        var data = ByteBuffer()
        data.writeInteger(UInt8(0))
        data.writeInteger(UInt8(clamping: SCSILimits.compareAndWriteMaximumBlocks(unit)))
        data.writeInteger(UInt16(clamping: granularity))
        data.writeInteger(UInt32(clamping: SCSILimits.transferMaximumBlocks(unit)))
        data.writeInteger(SCSILimits.transferOptimalBytes / unit.volume.geometry.logicalBlockSizeBytes)
        data.writeInteger(UInt32(0))
        data.writeInteger(UInt32(clamping: SCSILimits.unmapMaximumBlocks(unit)))
        data.writeInteger(UInt32(clamping: Limits.unmapDescriptorsMaximum))
        data.writeInteger(granularity)
        data.writeInteger(UInt32(0x8000_0000))
        data.writeInteger(SCSILimits.writeSameMaximumBlocks(unit))
        data.writeInteger(UInt32(clamping: SCSILimits.atomicMaximumBlocks(unit)))
        data.writeInteger(granularity)
        data.writeInteger(granularity)
        data.writeRepeatingByte(0, count: 8)
        return Array(data.readableBytesView)
    }

    /// Page B1h (SBC-4, table 183): MEDIUM ROTATION RATE 0001h, non-rotating; WABEREQ and WACEREQ 01b, since reads are answered after
    /// an erasure without a write before.
    private static let blockCharacteristics: [UInt8] = [0x00, 0x01, 0x00, 0x50] + [UInt8](repeating: 0, count: 56)

    /// Page B2h (SBC-4, table 191): THRESHOLD EXPONENT, by which log page 0Ch counts; LBPU, LBPWS, LBPWS10, LBPRZ 001b; thin
    /// provisioned (PROVISIONING TYPE 2h).
    private static func logicalBlockProvisioning(_ unit: LogicalUnit) -> [UInt8] {
        [unit.thresholdExponent, 0xE4, 0x02, 0x00]
    }
}

/// Bounds of names in designators.
enum SCSINames {
    /// Longest SCSI name string with its filling: the largest multiple of four that a designator's length can say.
    static let nameStringMaximumBytes = 252
}

extension String {
    /// The text, filled with spaces at its end.
    fileprivate func padding(toCount count: Int) -> String {
        self + String(repeating: " ", count: Swift.max(0, count - self.count))
    }
}
