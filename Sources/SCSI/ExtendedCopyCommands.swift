import AshlarCore
import NIOCore

extension CommandSet {
    /// EXTENDED COPY (LID1) and (LID4) (SPC-4, 6.4; SPC-5, 6.6).
    static let extendedCopyCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x83, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x00,
            rules: .write,
            isTimeBounded: false,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 10, count: 4)) },
            plan: { context throws(SCSIError) in try ExtendedCopyCommands.plan(.short, context) }
        ),
        SupportedCommand(
            [0x83, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x01,
            rules: .write,
            isTimeBounded: false,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 10, count: 4)) },
            plan: { context throws(SCSIError) in try ExtendedCopyCommands.plan(.long, context) }
        ),
    ]
}

/// The decision of EXTENDED COPY: the parameter list, as far as it can be judged without the devices.
enum ExtendedCopyCommands {
    /// The two parameter lists, by the size of their list identifier.
    enum Format {
        /// LID1: one byte.
        case short
        /// LID4: four bytes.
        case long

        /// Bytes before the first descriptor.
        var headerBytes: Int { self == .short ? 16 : 48 }
        /// Where CSCD DESCRIPTOR LIST LENGTH stands, two bytes.
        var deviceLengthOffset: Int { self == .short ? 2 : 42 }
    }

    /// DESCRIPTOR TYPE CODE of the identification CSCD descriptor.
    static let deviceDescriptorType: UInt8 = 0xE4
    /// DESCRIPTOR TYPE CODE of the block device to block device segment descriptor.
    static let segmentDescriptorType: UInt8 = 0x02
    /// The CSCD descriptor ID of the logical unit that gets the command.
    static let ownDeviceIdentifier = 0xFFFF
    /// Bytes of an identification CSCD descriptor.
    static let deviceDescriptorBytes = 32
    /// Bytes of a block device to block device segment descriptor.
    static let segmentDescriptorBytes = 28
    /// Longest designator in an identification CSCD descriptor.
    static let designatorMaximumBytes = 20

    /// What the header says.
    private struct Header {
        var listIdentifier: UInt32?
        var isImmediate: Bool
        var deviceBytes: Int
        var segmentBytes: Int
    }

    /// A parameter list length of zero is no error, and copies nothing. Lengths are judged first, then the number of descriptors,
    /// their types, and what is in them.
    static func plan(_ format: Format, _ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let listLength = context.command.bigEndian(at: 10, count: 4)
        guard listLength > 0 else { return .complete(.good) }
        guard listLength >= UInt64(format.headerBytes), listLength <= UInt64(context.dataOutCount) else {
            throw SCSIError(.parameterListLengthError)
        }
        let header = try header(format, context.parameterList(count: UInt64(format.headerBytes)))
        let count = format.headerBytes + header.deviceBytes + header.segmentBytes
        guard count - format.headerBytes <= SCSILimits.copyListMaximumBytes, count <= listLength else {
            throw SCSIError(.parameterListLengthError)
        }
        let list = try context.parameterList(count: UInt64(count))
        let segmentsOffset = format.headerBytes + header.deviceBytes
        guard header.deviceBytes / deviceDescriptorBytes <= SCSILimits.copyDevicesMaximum else {
            throw SCSIError(SenseData(.illegalRequest, .tooManyCopyDevices))
        }
        guard header.segmentBytes / segmentDescriptorBytes <= SCSILimits.copySegmentsMaximum else {
            throw SCSIError(SenseData(.illegalRequest, .tooManyCopySegments))
        }
        var devices = try devices(list, format.headerBytes..<segmentsOffset, format)
        let segments = try segments(list, from: segmentsOffset, devices: &devices, unit: context.unit)
        return .extendedCopy(
            ExtendedCopy(
                listIdentifier: header.listIdentifier,
                isImmediate: header.isImmediate,
                devices: devices,
                segments: segments
            )
        )
    }

    // MARK: Header

    private static func header(_ format: Format, _ list: ParameterList) throws(SCSIError) -> Header {
        var header: Header
        let inlineBytes: UInt64
        switch format {
        case .short:
            header = Header(
                listIdentifier: UInt32(list[0]),
                isImmediate: false,
                deviceBytes: Int(list.bigEndian(at: 2, count: 2)),
                segmentBytes: Int(list.bigEndian(at: 8, count: 4))
            )
            for offset in 4..<8 { try list.refuse(0xFF, ofByte: offset) }
            inlineBytes = list.bigEndian(at: 12, count: 4)
        case .long:
            try checkLongHeader(list)
            header = Header(
                listIdentifier: UInt32(truncatingIfNeeded: list.bigEndian(at: 20, count: 4)),
                isImmediate: list[15] & 0x01 != 0,
                deviceBytes: Int(list.bigEndian(at: 42, count: 2)),
                segmentBytes: Int(list.bigEndian(at: 44, count: 2))
            )
            inlineBytes = list.bigEndian(at: 46, count: 2)
        }
        guard inlineBytes == 0 else { throw SCSIError(SenseData(.illegalRequest, .inlineDataLengthExceeded)) }
        switch list[1] >> 3 & 0x3 {
        case 0b00, 0b10:
            break
        case 0b11:
            // The list is not remembered: it has no identifier, and nobody could ask how far a copy in the background is.
            guard header.listIdentifier == 0 else {
                throw SCSIError(.invalidFieldInParameterList(byte: format == .short ? 0 : 20, bit: 7))
            }
            guard !header.isImmediate else { throw SCSIError(.invalidFieldInParameterList(byte: 15, bit: 0)) }
            header.listIdentifier = nil
        default:
            throw SCSIError(.invalidFieldInParameterList(byte: 1, bit: 4))
        }
        return header
    }

    /// What LID4 has beyond LID1: PARAMETER LIST FORMAT 01h, and a header that says of itself that it is a descriptor of 20h
    /// bytes and type FFh. G_SENSE asks for sense data with GOOD, which are not sent.
    private static func checkLongHeader(_ list: ParameterList) throws(SCSIError) {
        guard list[0] == 0x01 else { throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 7)) }
        guard list.bigEndian(at: 2, count: 2) == 0x20 else {
            throw SCSIError(.invalidFieldInParameterList(byte: 2, bit: 7))
        }
        guard list[15] & 0x02 == 0 else { throw SCSIError(.invalidFieldInParameterList(byte: 15, bit: 1)) }
        guard list[16] == 0xFF else { throw SCSIError(.invalidFieldInParameterList(byte: 16, bit: 7)) }
    }

    // MARK: Devices

    private static func devices(
        _ list: ParameterList,
        _ range: Range<Int>,
        _ format: Format
    ) throws(SCSIError) -> [CopyDevice] {
        var devices: [CopyDevice] = []
        for offset in stride(from: range.lowerBound, to: range.upperBound, by: deviceDescriptorBytes) {
            guard list[offset] == deviceDescriptorType else {
                throw SCSIError(
                    SenseData(.illegalRequest, .unsupportedCopyDeviceType, field: .parameters(byte: offset))
                )
            }
            guard range.upperBound - offset >= deviceDescriptorBytes else {
                throw SCSIError(.invalidFieldInParameterList(byte: format.deviceLengthOffset, bit: 7))
            }
            devices.append(try device(list, at: offset))
        }
        return devices
    }

    /// An identification CSCD descriptor. LU ID TYPE is ignored where a designator names the logical unit, NUL is obsolete, and
    /// PAD means nothing, since only whole blocks are copied.
    private static func device(_ list: ParameterList, at offset: Int) throws(SCSIError) -> CopyDevice {
        guard list[offset + 1] & 0x1F == 0 else {
            throw SCSIError(SenseData(.copyAborted, .incorrectCopyDeviceType))
        }
        guard list[offset + 5] & 0x30 == 0 else {
            // ASSOCIATION: ports and targets cannot be copied.
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 5, bit: 5))
        }
        let length = Int(list[offset + 7])
        guard length <= designatorMaximumBytes else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 7, bit: 7))
        }
        return CopyDevice(
            designatorType: list[offset + 5] & 0x0F,
            designator: Array(list.bytes[(offset + 8)..<(offset + 8 + length)]),
            logicalBlockSizeBytes: UInt32(list.bigEndian(at: offset + 29, count: 3))
        )
    }

    // MARK: Segments

    private static func segments(
        _ list: ParameterList,
        from start: Int,
        devices: inout [CopyDevice],
        unit: LogicalUnit
    ) throws(SCSIError) -> [CopySegment] {
        var segments: [CopySegment] = []
        for offset in stride(from: start, to: list.count, by: segmentDescriptorBytes) {
            guard list[offset] == segmentDescriptorType else {
                throw SCSIError(
                    SenseData(.illegalRequest, .unsupportedCopySegmentType, field: .parameters(byte: offset))
                )
            }
            guard list.count - offset >= segmentDescriptorBytes else {
                throw SCSIError(.parameterListLengthError)
            }
            segments.append(try segment(list, at: offset, devices: &devices, unit: unit))
        }
        return segments
    }

    /// A block device to block device segment descriptor. CAT means nothing, as PAD does; FCO (SPC-5) asks for a copy without
    /// moving data, which is refused. BLOCK DEVICE NUMBER OF BLOCKS zero copies nothing.
    private static func segment(
        _ list: ParameterList,
        at offset: Int,
        devices: inout [CopyDevice],
        unit: LogicalUnit
    ) throws(SCSIError) -> CopySegment {
        try list.refuse(0xFC, ofByte: offset + 1)
        guard list.bigEndian(at: offset + 2, count: 2) == UInt64(segmentDescriptorBytes - 4) else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 2, bit: 7))
        }
        let source = try index(Int(list.bigEndian(at: offset + 4, count: 2)), of: &devices, unit: unit)
        let destination = try index(Int(list.bigEndian(at: offset + 6, count: 2)), of: &devices, unit: unit)
        let countsDestination = list[offset + 1] & 0x02 != 0
        let blocks = list.bigEndian(at: offset + 10, count: 2)
        let given = devices[countsDestination ? destination : source].logicalBlockSizeBytes
        guard blocks * (given == 0 ? unit.logicalBlockBytes : UInt64(given)) <= SCSILimits.copySegmentMaximumBytes
        else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 10, bit: 7))
        }
        return CopySegment(
            source: source,
            destination: destination,
            sourceAddress: LBA(list.bigEndian(at: offset + 12, count: 8)),
            destinationAddress: LBA(list.bigEndian(at: offset + 20, count: 8)),
            blockCount: blocks,
            countsDestination: countsDestination
        )
    }

    /// Index of a CSCD descriptor ID among the devices, to which FFFFh, the logical unit of the command, is added when it is
    /// first named.
    private static func index(
        _ identifier: Int,
        of devices: inout [CopyDevice],
        unit: LogicalUnit
    ) throws(SCSIError) -> Int {
        guard identifier == ownDeviceIdentifier else {
            guard devices.indices.contains(identifier) else { throw SCSIError(.unreachableCopyTarget) }
            return identifier
        }
        let own = CopyDevice(unit)
        if let known = devices.firstIndex(of: own) { return known }
        devices.append(own)
        return devices.count - 1
    }
}

extension CopyDevice {
    /// The logical unit by its NAA designator.
    init(_ unit: LogicalUnit) {
        self.init(
            designatorType: 0x3,
            designator: unit.networkAddressIdentifier,
            logicalBlockSizeBytes: unit.volume.geometry.logicalBlockSizeBytes
        )
    }
}

extension LogicalUnit {
    /// Whether a device of an EXTENDED COPY is this logical unit: whether VPD page 83h has its designator with association 0.
    public func isDesignated(by device: CopyDevice) -> Bool {
        VitalProductData.designatorsOfUnit(self).contains { designator in
            designator.type == device.designatorType && designator.bytes == device.designator
        }
    }
}
