import AshlarCore
import ISCSI
import NIOCore
import Ownership
import RPC
import SCSI

// SCSI commands: what the device server decides by itself is answered at once, the rest goes to the owner.
extension ISCSISession {
    func execute(_ command: ISCSICommand) {
        guard let unit else { return machine.complete(tag: command.tag, with: .targetFailure) }
        let transfer = CommandSet.block.transfer(cdb: command.cdb, lun: command.lun, unit: unit)
        guard !command.dataOutTooLong else {
            let sense = SCSIResponse.checkCondition(.invalidFieldInCDB(byte: 0))
            return answer(command, sense, transfer: transfer)
        }
        var pendingSense: SenseData?
        if hasAttention {
            switch CommandSet.block.rules(cdb: command.cdb, lun: command.lun).attention {
            case .report:
                if let attention = takeAttention() {
                    return answer(command, .unitAttention(attention), transfer: transfer)
                }
            case .deliver: pendingSense = takeAttention().map(SenseData.unitAttention)
            case .bypass: break
            }
        }
        let plan = CommandSet.block.plan(
            cdb: command.cdb,
            lun: command.lun,
            dataOut: command.dataOut,
            unit: unit,
            pendingSense: pendingSense
        )
        switch plan {
        case .complete(let response): answer(command, response, transfer: transfer)
        case .synchronizeCache:
            // There is no volatile cache (I1).
            answer(command, .good, transfer: transfer)
        case .read(let read):
            self.read(read.range, for: command.tag, geometry: unit.volume.geometry) { [self] result in
                switch result {
                case .success(let buffers):
                    taskEnded(command.tag)
                    machine.complete(
                        tag: command.tag,
                        with: .good(dataIn: buffers, impliedLength: read.range.count)
                    )
                case .failure(let failure): answer(command, failure.response, transfer: transfer)
                }
            }
        case .write(let write):
            perform(.write(write.range, write.data, geometry: unit.volume.geometry), command, transfer)
        case .compareAndWrite(let range, let compare, let write):
            perform(.compareAndWrite(range, compare: compare, write: write), command, transfer)
        case .zero(let ranges): zero(Self.steps(ranges), command, transfer)
        case .writeSame(let range, let pattern): writeSame(range, pattern, command, transfer, unit.volume.geometry)
        case .verify(let range, let mode): verify(range, mode, command, transfer, unit)
        case .orWrite, .writeAndVerify, .lbaStatus, .reservationIn, .reservationOut, .reserveUnit, .releaseUnit,
            .modeSelect, .setIdentifyingInformation, .erase, .extendedCopy, .copyResults, .targetPortGroups, .logSense:
            // No entry of the table makes these plans yet.
            answer(command, BackEndFailure.internalError.response, transfer: transfer)
        }
    }

    /// Ends a command with a response.
    private func answer(_ command: ISCSICommand, _ response: SCSIResponse, transfer: DataTransfer) {
        taskEnded(command.tag)
        let dataIn = response.dataIn.map { [$0] } ?? []
        let implied = transfer.impliedByteCount(dataInCount: response.dataIn?.readableBytes ?? 0)
        machine.complete(
            tag: command.tag,
            with: CommandCompletion(
                status: response.status.rawValue,
                sense: unit.flatMap { response.encodedSense(for: $0) },
                dataIn: dataIn,
                impliedLength: response.status == .good ? implied : nil
            )
        )
    }

    /// Sends one operation to the owner and answers the command with its outcome.
    private func perform(_ operation: BackEndRequest.Operation, _ command: ISCSICommand, _ transfer: DataTransfer) {
        submit(
            BackEndRequest(task: command.tag, operation: operation) { [self] outcome in
                switch outcome {
                case .done: answer(command, .good, transfer: transfer)
                case .read: answer(command, BackEndFailure.internalError.response, transfer: transfer)
                case .failed(let failure): answer(command, failure.response, transfer: transfer)
                }
            }
        )
    }

    // MARK: Commands in steps

    /// Cuts ranges into steps of at most ``Limits/zeroStepMaximumBytes`` and so many ranges that a message takes.
    static func steps(_ ranges: [ByteRange]) -> [[ByteRange]] {
        var steps: [[ByteRange]] = []
        var step: [ByteRange] = []
        var room = Limits.zeroStepMaximumBytes
        for range in ranges {
            var rest = range
            while rest.count > 0 {
                let count = min(rest.count, room)
                step.append(ByteRange(offset: rest.offset, count: count))
                rest = ByteRange(offset: rest.offset + count, count: rest.count - count)
                room -= count
                if room == 0 || step.count == Limits.unmapDescriptorsMaximum {
                    steps.append(step)
                    step = []
                    room = Limits.zeroStepMaximumBytes
                }
            }
        }
        if !step.isEmpty { steps.append(step) }
        return steps
    }

    /// UNMAP and WRITE SAME with zeros: step by step, each whole (I12).
    private func zero(_ steps: [[ByteRange]], _ command: ISCSICommand, _ transfer: DataTransfer) {
        guard let step = steps.first else { return answer(command, .good, transfer: transfer) }
        submit(
            BackEndRequest(task: command.tag, operation: .zero(step)) { [self] outcome in
                switch outcome {
                case .done: zero(Array(steps.dropFirst()), command, transfer)
                case .read: answer(command, BackEndFailure.internalError.response, transfer: transfer)
                case .failed(let failure): answer(command, failure.response, transfer: transfer)
                }
            }
        )
    }

    /// WRITE SAME with a pattern: writes of at most the largest transfer, one after the other.
    private func writeSame(
        _ range: ByteRange,
        _ pattern: ByteBuffer,
        _ command: ISCSICommand,
        _ transfer: DataTransfer,
        _ geometry: Geometry
    ) {
        guard range.count > 0 else { return answer(command, .good, transfer: transfer) }
        let count = min(range.count, UInt64(Limits.transferMaximumBytes))
        var bytes = ByteBuffer()
        bytes.reserveCapacity(Int(count))
        while bytes.readableBytes < Int(count) { bytes.writeImmutableBuffer(pattern) }
        let step = ByteRange(offset: range.offset, count: count)
        let rest = ByteRange(offset: range.offset + count, count: range.count - count)
        submit(
            BackEndRequest(task: command.tag, operation: .write(step, bytes, geometry: geometry)) { [self] outcome in
                switch outcome {
                case .done: writeSame(rest, pattern, command, transfer, geometry)
                case .read: answer(command, BackEndFailure.internalError.response, transfer: transfer)
                case .failed(let failure): answer(command, failure.response, transfer: transfer)
                }
            }
        )
    }

    /// VERIFY: reads, and compares where there is something to compare with.
    private func verify(
        _ range: ByteRange,
        _ mode: VerifyMode,
        _ command: ISCSICommand,
        _ transfer: DataTransfer,
        _ unit: LogicalUnit,
        position: UInt64 = 0
    ) {
        guard position < range.count else { return answer(command, .good, transfer: transfer) }
        let count = min(range.count - position, UInt64(Limits.transferMaximumBytes))
        let part = ByteRange(offset: range.offset + position, count: count)
        read(part, for: command.tag, geometry: unit.volume.geometry) { [self] result in
            switch result {
            case .failure(let failure): answer(command, failure.response, transfer: transfer)
            case .success(let buffers):
                let unitBytes = Int(unit.volume.geometry.logicalBlockSizeBytes)
                if let offset = Self.difference(buffers, mode, at: Int(position), logicalBlockBytes: unitBytes) {
                    let failure = BackEndFailure.miscompare(offset: UInt64(offset))
                    return answer(command, failure.response, transfer: transfer)
                }
                verify(range, mode, command, transfer, unit, position: position + count)
            }
        }
    }

    /// The offset in the data-out of the first byte that differs from what was read at `position`.
    static func difference(
        _ buffers: [ByteBuffer],
        _ mode: VerifyMode,
        at position: Int,
        logicalBlockBytes: Int
    ) -> Int? {
        let expected: ByteBuffer
        let period: Int
        switch mode {
        case .mediumOnly: return nil
        case .compareData(let data): (expected, period) = (data, Int.max)
        case .compareOneBlock(let data): (expected, period) = (data, logicalBlockBytes)
        }
        return expected.withUnsafeReadableBytes { wanted in
            var index = position
            for buffer in buffers {
                let found = buffer.withUnsafeReadableBytes { bytes -> Int? in
                    for byte in bytes {
                        let place = index % period
                        guard place < wanted.count, wanted[place] == byte else { return place }
                        index += 1
                    }
                    return nil
                }
                if let found { return found }
            }
            return nil
        }
    }
}
