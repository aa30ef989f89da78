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
        let header = try header(format, context.parameterBytes(count: format.headerBytes))
        let count = format.headerBytes + header.deviceBytes + header.segmentBytes
        guard count - format.headerBytes <= SCSILimits.copyListMaximumBytes, count <= listLength else {
            throw SCSIError(.parameterListLengthError)
        }
        let list = try context.parameterBytes(count: count)
        let segmentsOffset = format.headerBytes + header.deviceBytes
        guard header.deviceBytes / deviceDescriptorBytes <= SCSILimits.copyDevicesMaximum else {
            throw SCSIError(SenseData(.illegalRequest, .tooManyCopyDevices))
        }
        guard header.segmentBytes / segmentDescriptorBytes <= SCSILimits.copySegmentsMaximum else {
            throw SCSIError(SenseData(.illegalRequest, .tooManyCopySegments))
        }
        var devices = try devices(list[format.headerBytes..<segmentsOffset], format)
        let segments = try segments(list[segmentsOffset...], devices: &devices, unit: context.unit)
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

    private static func header(_ format: Format, _ bytes: [UInt8]) throws(SCSIError) -> Header {
        var header: Header
        let inlineBytes: UInt64
        switch format {
        case .short:
            header = Header(
                listIdentifier: UInt32(bytes[0]),
                isImmediate: false,
                deviceBytes: Int(bytes[2..<4].bigEndianNumber),
                segmentBytes: Int(bytes[8..<12].bigEndianNumber)
            )
            inlineBytes = bytes[12..<16].bigEndianNumber
        case .long:
            try checkLongHeader(bytes)
            header = Header(
                listIdentifier: UInt32(truncatingIfNeeded: bytes[20..<24].bigEndianNumber),
                isImmediate: bytes[15] & 0x01 != 0,
                deviceBytes: Int(bytes[42..<44].bigEndianNumber),
                segmentBytes: Int(bytes[44..<46].bigEndianNumber)
            )
            inlineBytes = bytes[46..<48].bigEndianNumber
        }
        guard inlineBytes == 0 else { throw SCSIError(SenseData(.illegalRequest, .inlineDataLengthExceeded)) }
        switch bytes[1] >> 3 & 0x3 {
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
    private static func checkLongHeader(_ bytes: [UInt8]) throws(SCSIError) {
        guard bytes[0] == 0x01 else { throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 7)) }
        guard bytes[2..<4].bigEndianNumber == 0x20 else {
            throw SCSIError(.invalidFieldInParameterList(byte: 2, bit: 7))
        }
        guard bytes[15] & 0x02 == 0 else { throw SCSIError(.invalidFieldInParameterList(byte: 15, bit: 1)) }
        guard bytes[16] == 0xFF else { throw SCSIError(.invalidFieldInParameterList(byte: 16, bit: 7)) }
    }

    // MARK: Devices

    private static func devices(_ bytes: ArraySlice<UInt8>, _ format: Format) throws(SCSIError) -> [CopyDevice] {
        var devices: [CopyDevice] = []
        for offset in stride(from: bytes.startIndex, to: bytes.endIndex, by: deviceDescriptorBytes) {
            guard bytes[offset] == deviceDescriptorType else {
                throw SCSIError(
                    SenseData(.illegalRequest, .unsupportedCopyDeviceType, field: .parameters(byte: offset))
                )
            }
            guard bytes.endIndex - offset >= deviceDescriptorBytes else {
                throw SCSIError(.invalidFieldInParameterList(byte: format.deviceLengthOffset, bit: 7))
            }
            devices.append(try device(bytes[offset..<(offset + deviceDescriptorBytes)]))
        }
        return devices
    }

    /// An identification CSCD descriptor. LU ID TYPE is ignored where a designator names the logical unit, NUL is obsolete, and
    /// PAD means nothing, since only whole blocks are copied.
    private static func device(_ bytes: ArraySlice<UInt8>) throws(SCSIError) -> CopyDevice {
        let offset = bytes.startIndex
        guard bytes[offset + 1] & 0x1F == 0 else {
            throw SCSIError(SenseData(.copyAborted, .incorrectCopyDeviceType))
        }
        guard bytes[offset + 5] & 0x30 == 0 else {
            // ASSOCIATION: ports and targets cannot be copied.
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 5, bit: 5))
        }
        let length = Int(bytes[offset + 7])
        guard length <= designatorMaximumBytes else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 7, bit: 7))
        }
        return CopyDevice(
            designatorType: bytes[offset + 5] & 0x0F,
            designator: Array(bytes[(offset + 8)..<(offset + 8 + length)]),
            logicalBlockSizeBytes: UInt32(bytes[(offset + 29)..<(offset + 32)].bigEndianNumber)
        )
    }

    // MARK: Segments

    private static func segments(
        _ bytes: ArraySlice<UInt8>,
        devices: inout [CopyDevice],
        unit: LogicalUnit
    ) throws(SCSIError) -> [CopySegment] {
        var segments: [CopySegment] = []
        for offset in stride(from: bytes.startIndex, to: bytes.endIndex, by: segmentDescriptorBytes) {
            guard bytes[offset] == segmentDescriptorType else {
                throw SCSIError(
                    SenseData(.illegalRequest, .unsupportedCopySegmentType, field: .parameters(byte: offset))
                )
            }
            guard bytes.endIndex - offset >= segmentDescriptorBytes else {
                throw SCSIError(.parameterListLengthError)
            }
            let segment = bytes[offset..<(offset + segmentDescriptorBytes)]
            segments.append(try Self.segment(segment, devices: &devices, unit: unit))
        }
        return segments
    }

    /// A block device to block device segment descriptor. CAT means nothing, as PAD does; FCO (SPC-5) asks for a copy without
    /// moving data, which is refused. BLOCK DEVICE NUMBER OF BLOCKS zero copies nothing.
    private static func segment(
        _ bytes: ArraySlice<UInt8>,
        devices: inout [CopyDevice],
        unit: LogicalUnit
    ) throws(SCSIError) -> CopySegment {
        let offset = bytes.startIndex
        guard bytes[offset + 1] & 0xFC == 0 else {
            let wrong = bytes[offset + 1] & 0xFC
            throw SCSIError(
                .invalidFieldInParameterList(byte: offset + 1, bit: UInt8(7 - wrong.leadingZeroBitCount))
            )
        }
        guard bytes[(offset + 2)..<(offset + 4)].bigEndianNumber == UInt64(segmentDescriptorBytes - 4) else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 2, bit: 7))
        }
        let source = try index(Int(bytes[(offset + 4)..<(offset + 6)].bigEndianNumber), of: &devices, unit: unit)
        let destination = try index(Int(bytes[(offset + 6)..<(offset + 8)].bigEndianNumber), of: &devices, unit: unit)
        let countsDestination = bytes[offset + 1] & 0x02 != 0
        let blocks = bytes[(offset + 10)..<(offset + 12)].bigEndianNumber
        let given = devices[countsDestination ? destination : source].logicalBlockSizeBytes
        guard blocks * (given == 0 ? unit.logicalBlockBytes : UInt64(given)) <= SCSILimits.copySegmentMaximumBytes
        else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 10, bit: 7))
        }
        return CopySegment(
            source: source,
            destination: destination,
            sourceAddress: LBA(bytes[(offset + 12)..<(offset + 20)].bigEndianNumber),
            destinationAddress: LBA(bytes[(offset + 20)..<(offset + 28)].bigEndianNumber),
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
