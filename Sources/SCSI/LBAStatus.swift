import AshlarCore
import NIOCore

extension CommandSet {
    /// GET LBA STATUS (16) (SBC-4, 5.6).
    static let lbaStatusCommands: [SupportedCommand] = [
        SupportedCommand(
            [0x9E, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x00],
            serviceAction: 0x12,
            rules: .read,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 10, count: 4)) },
            plan: LBAStatusCommand.plan
        )
    ]
}

/// The decision of GET LBA STATUS.
enum LBAStatusCommand {
    /// Bytes of the parameter data before the descriptors.
    static let headerBytes = 8
    /// Bytes of an LBA status descriptor.
    static let descriptorBytes = 16

    /// REPORT TYPE 00h alone is supported: all blocks, whatever their state. The starting address must be that of a block, so
    /// that the range is never empty.
    static func plan(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        guard context.command[14] == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 14, bit: 7)) }
        let address = context.command.bigEndian(at: 2, count: 8)
        guard address < context.unit.logicalBlockCount else { throw SCSIError(.addressOutOfRange(LBA(address))) }
        let size = context.unit.logicalBlockBytes
        return .lbaStatus(
            LBAStatusQuery(
                range: ByteRange(offset: address * size, count: (context.unit.logicalBlockCount - address) * size),
                allocationLength: context.command.bigEndian(at: 10, count: 4)
            )
        )
    }
}

extension LBAStatusQuery {
    /// PROVISIONING STATUS of an LBA status descriptor.
    private enum ProvisioningStatus: UInt8 {
        case mapped = 0x0
        case deallocated = 0x1
    }

    /// The parameter data for runs in ascending order, each beginning where the one before ended.
    ///
    /// Neighbours of one state become one descriptor, runs above the 32 bits of NUMBER OF LOGICAL BLOCKS several. PARAMETER DATA
    /// LENGTH counts all of them, at most ``SCSILimits/lbaStatusDescriptorsMaximum``, also where the allocation length
    /// cuts them off; what lies beyond is found with a later starting address.
    ///
    /// - Parameters:
    ///   - runs: what is known from the start of ``range`` on; what they have outside of it is left out.
    ///   - unit: the logical unit.
    public func response(_ runs: [MapRun], unit: LogicalUnit) -> SCSIResponse {
        var descriptors = ByteBuffer()
        var count = 0
        for run in joined(runs) {
            var address = run.range.offset / unit.logicalBlockBytes
            let end = run.range.end / unit.logicalBlockBytes
            while address < end, count < SCSILimits.lbaStatusDescriptorsMaximum {
                let blocks = UInt32(clamping: end - address)
                descriptors.writeInteger(address)
                descriptors.writeInteger(blocks)
                descriptors.writeInteger((run.isMapped ? ProvisioningStatus.mapped : .deallocated).rawValue)
                descriptors.writeRepeatingByte(0, count: 3)
                address += UInt64(blocks)
                count += 1
            }
        }
        var data = ByteBuffer()
        data.writeInteger(UInt32(LBAStatusCommand.headerBytes - 4 + descriptors.readableBytes))
        data.writeInteger(UInt32(0))
        data.writeImmutableBuffer(descriptors)
        return .good(data.cut(toAllocationLength: allocationLength))
    }

    /// The runs inside of the range, neighbours of one state as one.
    private func joined(_ runs: [MapRun]) -> [MapRun] {
        runs.reduce(into: []) { result, run in
            let start = max(run.range.offset, range.offset)
            let end = min(run.range.end, range.end)
            guard start < end else { return }
            if let last = result.last, last.isMapped == run.isMapped, last.range.end == start {
                result[result.count - 1].range.count = end - last.range.offset
            } else {
                result.append(MapRun(range: ByteRange(offset: start, count: end - start), isMapped: run.isMapped))
            }
        }
    }
}
