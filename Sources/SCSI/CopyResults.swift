import AshlarCore
import NIOCore

extension CommandSet {
    /// RECEIVE COPY RESULTS with its service actions, which SPC-5 has as commands: RECEIVE COPY STATUS (LID1), RECEIVE COPY DATA
    /// (LID1), RECEIVE COPY OPERATING PARAMETERS, RECEIVE COPY FAILURE DETAILS (LID1) and RECEIVE COPY STATUS (LID4).
    static let copyResultCommands: [SupportedCommand] = [
        entry(.copyStatus),
        entry(.receiveData),
        SupportedCommand(
            [0x84, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x03,
            rules: .any,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 10, count: 4)) },
            plan: CopyResultCommands.operatingParameters
        ),
        entry(.failedSegmentDetails),
        entry(.copyStatusLong),
    ]

    /// A service action that needs the record of a copy.
    private static func entry(_ action: CopyResultsQuery.ServiceAction) -> SupportedCommand {
        let isLong = action == .copyStatusLong
        let identifier: [UInt8] = isLong ? [0xFF, 0xFF, 0xFF, 0xFF] : [0xFF, 0x00, 0x00, 0x00]
        return SupportedCommand(
            [0x84, action.rawValue] + identifier + [0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: UInt16(action.rawValue),
            rules: .any,
            transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 10, count: 4)) },
            plan: { context throws(SCSIError) in
                .copyResults(
                    CopyResultsQuery(
                        action: action,
                        listIdentifier: UInt32(
                            truncatingIfNeeded: context.command.bigEndian(at: 2, count: isLong ? 4 : 1)
                        ),
                        allocationLength: context.command.bigEndian(at: 10, count: 4)
                    )
                )
            }
        )
    }
}

/// The decision of RECEIVE COPY OPERATING PARAMETERS, which needs no record.
enum CopyResultCommands {
    /// OPERATING PARAMETERS (SPC-4, 6.24): lists without identifier are taken (SNLID); there is neither inline nor held data, and
    /// no stream device. DATA SEGMENT GRANULARITY is the power of two of the logical block.
    static func operatingParameters(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let types = [ExtendedCopyCommands.segmentDescriptorType, ExtendedCopyCommands.deviceDescriptorType]
        var data = ByteBuffer()
        data.writeInteger(UInt32(40 + types.count))
        data.writeBytes([0x01, 0x00, 0x00, 0x00])
        data.writeInteger(UInt16(SCSILimits.copyDevicesMaximum))
        data.writeInteger(UInt16(SCSILimits.copySegmentsMaximum))
        data.writeInteger(UInt32(SCSILimits.copyListMaximumBytes))
        data.writeInteger(UInt32(SCSILimits.copySegmentMaximumBytes))
        data.writeRepeatingByte(0, count: 14)
        data.writeInteger(UInt16(SCSILimits.copiesMaximum))
        data.writeInteger(UInt8(SCSILimits.copiesMaximum))
        data.writeInteger(ThirdPartyCopyPage.segmentGranularity(context.unit))
        data.writeRepeatingByte(0, count: 5)
        data.writeInteger(UInt8(types.count))
        data.writeBytes(types)
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 10, count: 4))))
    }
}

extension CopyResultsQuery {
    /// COPY COMMAND STATUS (LID1) and COPY OPERATION STATUS (LID4).
    private enum Status {
        static let inProgress: UInt8 = 0x00
        static let done: UInt8 = 0x01
        static let failed: UInt8 = 0x02
        /// LID4: whether in the foreground or the background is not told.
        static let inProgressLong: UInt8 = 0x10
    }

    /// TRANSFER COUNT UNITS.
    private enum Units {
        static let bytes: UInt8 = 0x00
        static let mebibytes: UInt8 = 0x02
    }

    /// The answer from what the nexus remembers of the copy with the list identifier.
    ///
    /// - Parameter record: the copy; `nil` where none is known, which is INVALID FIELD IN CDB.
    public func response(_ record: CopyRecord?) -> SCSIResponse {
        guard let record, let data = data(of: record) else {
            return .checkCondition(.invalidFieldInCDB(byte: 2, bit: 7))
        }
        return .good(data.cut(toAllocationLength: allocationLength))
    }

    private func data(of record: CopyRecord) -> ByteBuffer? {
        switch (action, record.progress) {
        case (.copyStatus, _): shortStatus(record)
        case (.copyStatusLong, _): longStatus(record)
        case (.failedSegmentDetails, .failed(let sense)): failureDetails(sense)
        // What has not ended has no details yet.
        case (.failedSegmentDetails, .inProgress): nil
        // AVAILABLE DATA zero: nothing failed, nothing is held.
        case (.failedSegmentDetails, .done), (.receiveData, _): ByteBuffer(repeating: 0, count: 4)
        }
    }

    /// COPY STATUS: HDD zero, since no data are held.
    private func shortStatus(_ record: CopyRecord) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(UInt32(8))
        switch record.progress {
        case .inProgress: data.writeInteger(Status.inProgress)
        case .done: data.writeInteger(Status.done)
        case .failed: data.writeInteger(Status.failed)
        }
        data.writeInteger(UInt16(clamping: record.segmentsDone))
        if let bytes = UInt32(exactly: record.bytesWritten) {
            data.writeInteger(Units.bytes)
            data.writeInteger(bytes)
        } else {
            data.writeInteger(Units.mebibytes)
            data.writeInteger(UInt32(clamping: record.bytesWritten >> 20))
        }
        return data
    }

    /// FAILED SEGMENT DETAILS: the sense data of the command that failed, behind its status.
    private func failureDetails(_ sense: SenseData) -> ByteBuffer {
        let bytes = sense.encode()
        var data = ByteBuffer()
        data.writeInteger(UInt32(56 + bytes.readableBytes))
        data.writeRepeatingByte(0, count: 52)
        data.writeInteger(SCSIStatus.checkCondition.rawValue)
        data.writeInteger(UInt8(0))
        data.writeInteger(UInt16(bytes.readableBytes))
        data.writeImmutableBuffer(bytes)
        return data
    }

    /// RECEIVE COPY STATUS (LID4): RESPONSE TO SERVICE ACTION 01h, OPERATION COUNTER as the segments done, no estimate for the
    /// next update (FFFFFFFFh).
    private func longStatus(_ record: CopyRecord) -> ByteBuffer {
        var status = SCSIStatus.good
        var sense = ByteBuffer()
        let operation: UInt8
        switch record.progress {
        case .inProgress: operation = Status.inProgressLong
        case .done: operation = Status.done
        case .failed(let condition):
            operation = Status.failed
            status = .checkCondition
            sense = condition.encode()
        }
        let senseLength = UInt8(clamping: sense.readableBytes)
        var data = ByteBuffer()
        data.writeInteger(UInt32(28 + sense.readableBytes))
        data.writeBytes([0x01, operation])
        data.writeInteger(UInt16(clamping: record.segmentsDone))
        data.writeInteger(UInt32.max)
        data.writeBytes([status.rawValue, senseLength, senseLength, Units.bytes])
        data.writeInteger(record.bytesWritten)
        data.writeInteger(UInt16(clamping: record.segmentsDone))
        data.writeRepeatingByte(0, count: 6)
        data.writeImmutableBuffer(sense)
        return data
    }
}
