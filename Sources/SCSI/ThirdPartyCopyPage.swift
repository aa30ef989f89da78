import AshlarCore
import NIOCore

/// VPD page 8Fh, Third-party Copy (SPC-5, 7.7.18): what EXTENDED COPY can do, in descriptors whose length is a multiple of four.
enum ThirdPartyCopyPage {
    /// THIRD-PARTY COPY DESCRIPTOR TYPE.
    private enum DescriptorType: UInt16 {
        case supportedCommands = 0x0001
        case parameterData = 0x0004
        case supportedDescriptors = 0x0008
        case supportedDeviceIdentifiers = 0x000C
        case generalCopyOperations = 0x8001
    }

    static func body(_ unit: LogicalUnit) -> [UInt8] {
        descriptor(.supportedCommands, supportedCommands())
            + descriptor(.parameterData, parameterData())
            + descriptor(
                .supportedDescriptors,
                [0x02, ExtendedCopyCommands.segmentDescriptorType, ExtendedCopyCommands.deviceDescriptorType]
            )
            + descriptor(.supportedDeviceIdentifiers, [0x00, 0x02, 0xFF, 0xFF])
            + descriptor(.generalCopyOperations, generalCopyOperations(unit))
    }

    /// The power of two of the logical block: the smallest that a segment copies.
    static func segmentGranularity(_ unit: LogicalUnit) -> UInt8 {
        UInt8(truncatingIfNeeded: unit.logicalBlockBytes.trailingZeroBitCount)
    }

    private static func descriptor(_ type: DescriptorType, _ body: [UInt8]) -> [UInt8] {
        let filled = body + [UInt8](repeating: 0, count: (4 - body.count % 4) % 4)
        let length = UInt16(filled.count)
        return [
            UInt8(type.rawValue >> 8), UInt8(type.rawValue & 0xFF), UInt8(length >> 8), UInt8(length & 0xFF),
        ] + filled
    }

    /// The operation codes with their service actions, from the table of commands.
    private static func supportedCommands() -> [UInt8] {
        let commands = [CommandSet.extendedCopyCommands, CommandSet.copyResultCommands].flatMap { entries in
            let actions = entries.compactMap { entry in entry.serviceAction.map { UInt8($0 & 0x1F) } }
            return entries.prefix(1).map(\.operationCode) + [UInt8(actions.count)] + actions
        }
        return [UInt8(commands.count)] + commands
    }

    private static func parameterData() -> [UInt8] {
        var data = ByteBuffer()
        data.writeInteger(UInt32(0))
        data.writeInteger(UInt16(SCSILimits.copyDevicesMaximum))
        data.writeInteger(UInt16(SCSILimits.copySegmentsMaximum))
        data.writeInteger(UInt32(SCSILimits.copyListMaximumBytes))
        data.writeRepeatingByte(0, count: 16)
        return Array(data.readableBytesView)
    }

    private static func generalCopyOperations(_ unit: LogicalUnit) -> [UInt8] {
        var data = ByteBuffer()
        data.writeInteger(UInt32(SCSILimits.copiesMaximum))
        data.writeInteger(UInt32(SCSILimits.copiesMaximum))
        data.writeInteger(UInt32(SCSILimits.copySegmentMaximumBytes))
        data.writeInteger(segmentGranularity(unit))
        data.writeRepeatingByte(0, count: 19)
        return Array(data.readableBytesView)
    }
}
