import AshlarCore
import ISCSI
import NIOCore
import Ownership
import RPC
import SCSI

/// A command of the initiator on its way through the target.
///
/// The initiator may use its tag again once the command was answered or aborted; which object it is tells the two apart.
final class SessionTask {
    let command: ISCSICommand
    /// What the CDB implies, for the residual count.
    let transfer: DataTransfer
    /// What reservations, erasures and unit attention conditions do to it.
    let rules: CommandRules
    // The owner's ids of its requests that have no outcome, for task management: mostly one.
    private var firstCommand: CommandID?
    private var otherCommands: [CommandID] = []

    init(command: ISCSICommand, transfer: DataTransfer, rules: CommandRules) {
        self.command = command
        self.transfer = transfer
        self.rules = rules
    }

    var tag: UInt32 { command.tag }

    /// The owner's ids of its requests that have no outcome.
    var commands: [CommandID] { firstCommand.map { [$0] + otherCommands } ?? otherCommands }

    /// A request of it was handed to the nexus's client.
    func began(_ id: CommandID) {
        if firstCommand == nil { firstCommand = id } else { otherCommands.append(id) }
    }

    /// A request of it has an outcome.
    func ended(_ id: CommandID) {
        if firstCommand == id { firstCommand = nil } else { otherCommands.removeAll { $0 == id } }
    }
}

// SCSI commands: each is checked by the device server, and then by the volume's owner, who knows of reservations, unit attention
// conditions and erasures: reads and writes are what they ask the owner for, all others ask whether they may be done.
extension ISCSISession {
    func execute(_ command: ISCSICommand) {
        guard let unit = unprotectedUnit else { return machine.complete(tag: command.tag, with: .targetFailure) }
        let task = begin(command, unit)
        guard !command.isDataOutBroken else { return answer(task, .checkCondition(.dataPhaseError)) }
        if task.rules.attention == .report, let attention = takeLocalAttention() {
            return answer(task, .unitAttention(attention))
        }
        // Whether the volume may be written is for its owner to say, who knows it at this moment.
        let plan = plan(task, unit)
        switch plan {
        case .complete(let response) where task.rules.attention == .bypass: answer(task, response)
        // Also what is refused for one of its fields: a conflict, a condition or an erasure is told before that. Not so an
        // operation code or a service action that there is not: ILLEGAL REQUEST may have any precedence (SAM-6, 5.3.3).
        case .complete, .modeSelect, .synchronizeCache:
            check(task) { [self] report in
                guard isLive(task) else {
                    if let attention = report.attention { tell(attention) }
                    return
                }
                guard let unit = self.unit else { return answer(task, BackEndFailure.internalError.response) }
                let attention =
                    report.attention ?? (task.rules.attention == .deliver ? takeLocalAttention() : nil)
                let sense = attention.map(SenseData.unitAttention) ?? pendingSense(report.state)
                perform(self.plan(task, unit, pendingSense: sense), task, unit)
            }
        default: perform(plan, task, unit)
        }
    }

    private func plan(_ task: SessionTask, _ unit: LogicalUnit, pendingSense: SenseData? = nil) -> SCSICommandPlan {
        let plan = CommandSet.block.plan(
            cdb: task.command.cdb,
            lun: task.command.lun,
            dataOut: task.command.dataOut,
            unit: unit,
            pendingSense: pendingSense
        )
        guard task.command.dataOutTooLong else { return plan }
        // None of its data were taken. Mostly the CDB says by itself what is wrong: so many blocks.
        if case .complete(let response) = plan, response.status == .checkCondition { return plan }
        return .complete(.checkCondition(.wrongDataOutLength))
    }

    /// What REQUEST SENSE tells where no condition waits (SBC-4, 4.11.3).
    private func pendingSense(_ state: LogicalUnitState) -> SenseData? {
        guard let erasure = state.erasure, let unit else { return nil }
        let progress = erasure.progress(ofBytes: unit.volume.geometry.sizeBytes)
        return erasure.kind == .format ? .formatInProgress(progress: progress) : .sanitizeInProgress(progress: progress)
    }

    private func perform(_ plan: SCSICommandPlan, _ task: SessionTask, _ unit: LogicalUnit) {
        let geometry = unit.geometry
        switch plan {
        case .complete(let response): answer(task, response)
        case .synchronizeCache:
            // There is no volatile cache (I1).
            answer(task, .good)
        case .read(let read):
            self.read(read.range, for: task, geometry: geometry) { [self] result in
                switch result {
                case .success(let buffers):
                    guard end(task) else { return }
                    machine.complete(
                        tag: task.tag,
                        with: .good(dataIn: buffers, impliedLength: read.range.count)
                    )
                case .failure(let failure): fail(task, failure)
                }
            }
        case .write(let write):
            // WRITE ATOMIC (16) would be whole on either way; it takes the one that all other special writes take.
            let mayGoDirect = task.command.cdb.first != 0x9C
            perform(.write(write.range, write.data, geometry: geometry), task, mayGoDirect: mayGoDirect)
        case .orWrite(let range, let data): perform(.orWrite(range, data, geometry: geometry), task)
        case .compareAndWrite(let range, let compare, let write):
            perform(.compareAndWrite(range, compare: compare, write: write), task)
        case .writeAndVerify(let write, let compares): writeAndVerify(write, compares: compares, task, geometry)
        case .zero(let ranges): perform(.zero(ranges), task)
        case .writeSame(let range, let pattern): writeSame(range, pattern, task, geometry)
        case .verify(let range, let mode): verify(range, mode, task, geometry)
        default: performOfUnit(plan, task, unit)
        }
    }

    /// Plans that are about the logical unit, not its blocks.
    private func performOfUnit(_ plan: SCSICommandPlan, _ task: SessionTask, _ unit: LogicalUnit) {
        switch plan {
        case .reservationOut(.register(let key, let new, let ignoresExisting, let others, _, isForAllPorts: true)):
            // All target ports are those of all nodes that live, also of one that came just now.
            service.refreshNodes { [self] in
                let action = ReservationAction.register(
                    key,
                    new: new,
                    ignoresExisting: ignoresExisting,
                    others: others,
                    targetPorts: service.targetPorts,
                    isForAllPorts: true
                )
                change(.reservation(action), task)
                drain()
            }
        case .reservationOut(let action): change(.reservation(action), task)
        case .reserveUnit: change(.reserve, task)
        case .releaseUnit: change(.release, task)
        case .modeSelect(let mode, let isSaved):
            // What the initiator asks for next has to be answered by the new parameters.
            step(.unit(.modeSelect(mode, isSaved: isSaved)), task) { [self] in
                refreshUnit { [self] in answer(task, .good) }
            }
        case .setIdentifyingInformation(let kind, let bytes): change(.identify(kind, bytes), task)
        case .erase(let erasure, let isImmediate): change(.erase(erasure, isImmediate: isImmediate), task)
        case .reservationIn(let query):
            check(task, wantsReservations: true) { [self] in answer(task, query.response($0.state.reservations)) }
        case .lbaStatus(let query): tellMap(query, task, unit)
        case .logSense(let query):
            check(task) { [self] report in
                guard let unit = self.unit else { return answer(task, BackEndFailure.internalError.response) }
                answer(task, query.response(UnitStatistics(report.counters, unit.volume.geometry), unit: unit))
            }
        case .targetPortGroups(let query):
            check(task) { [self] _ in
                service.refreshNodes { [self] in
                    answer(task, query.response(service.targetPortGroups))
                    drain()
                }
            }
        case .copyResults(let query):
            check(task) { [self] _ in answer(task, query.response(copies.record(query.listIdentifier))) }
        case .extendedCopy(let copy): check(task) { [self] _ in begin(copy, task) }
        case .complete, .read, .write, .compareAndWrite, .zero, .writeSame, .verify, .synchronizeCache, .orWrite,
            .writeAndVerify:
            preconditionFailure("a plan about blocks is performed elsewhere")
        }
    }

    // MARK: Answers

    /// Ends a command with a response, unless it was aborted meanwhile.
    func answer(_ task: SessionTask, _ response: SCSIResponse) {
        guard end(task) else { return }
        let dataIn = response.dataIn.map { [$0] } ?? []
        // What a command writes is known whatever became of it; what it reads only where it did.
        var implied: UInt64?
        if response.status == .good || task.transfer.isDataOut {
            implied = task.transfer.impliedByteCount(dataInCount: response.dataIn?.readableBytes ?? 0)
        }
        machine.complete(
            tag: task.tag,
            with: CommandCompletion(
                status: response.status.rawValue,
                sense: unit.flatMap { response.encodedSense(for: $0) },
                dataIn: dataIn,
                impliedLength: implied
            )
        )
    }

    /// Ends a command that the back end did not do.
    func fail(_ task: SessionTask, _ failure: BackEndFailure) {
        guard case .attention(let attention) = failure else { return answer(task, failure.response) }
        switch attention {
        case .modeParametersChanged, .capacityChanged, .inquiryDataChanged, .deviceReset:
            // What the initiator asks for next has to be answered by what is true now; a reset brings saved parameters back.
            refreshUnit { [self] in report(attention, task) }
        default: report(attention, task)
        }
    }

    /// Ends a command with a condition. For the owner it is told thereby: where the command was aborted meanwhile, it has to
    /// wait here for the next one.
    private func report(_ attention: UnitAttention, _ task: SessionTask) {
        guard isLive(task) else { return tell(attention) }
        answer(task, .unitAttention(attention))
    }

    /// Sends one operation to the owner and answers the command with its outcome.
    private func perform(_ operation: BackEndRequest.Operation, _ task: SessionTask, mayGoDirect: Bool = false) {
        submit(operation, for: task, mayGoDirect: mayGoDirect) { [self] outcome in
            switch outcome {
            case .done: answer(task, .good)
            case .failed(let failure): fail(task, failure)
            case .read, .checked, .mapped: fail(task, .internalError)
            }
        }
    }

    /// Asks the owner for something that a command needs; of one that was aborted nothing more is asked.
    func submit(
        _ operation: BackEndRequest.Operation,
        for task: SessionTask,
        mayGoDirect: Bool = false,
        completion: @escaping (BackEndRequest.Outcome) -> Void
    ) {
        guard isLive(task) else { return }
        submit(
            BackEndRequest(
                task: task,
                operation: operation,
                mayGoDirect: mayGoDirect,
                completion: completion
            )
        )
    }

    // MARK: The logical unit

    /// Asks the owner whether a command may be done, and takes in what the unit's state is.
    private func check(
        _ task: SessionTask,
        wantsReservations: Bool = false,
        then proceed: @escaping (UnitReport) -> Void
    ) {
        submit(.check(task.rules, wantsReservations: wantsReservations), for: task) { [self] outcome in
            switch outcome {
            case .checked(let report): takeIn(report) { proceed(report) }
            case .failed(let failure): fail(task, failure)
            case .done, .read, .mapped: fail(task, .internalError)
            }
        }
    }

    /// Brings what is known of the unit up to date, in the background of no command.
    func refreshUnit(then proceed: @escaping () -> Void) {
        let check = BackEndRequest.Operation.check(.information, wantsReservations: false)
        submit(
            BackEndRequest(task: nil, operation: check) { [self] outcome in
                // Where it fails, the next command that asks will bring it.
                guard case .checked(let report) = outcome else { return proceed() }
                takeIn(report, then: proceed)
            }
        )
    }

    private func change(_ action: UnitAction, _ task: SessionTask) {
        perform(.unit(action), task)
    }

    private func tellMap(_ query: LBAStatusQuery, _ task: SessionTask, _ unit: LogicalUnit) {
        submit(.mapStatus(query.range, runsMaximum: SCSILimits.lbaStatusDescriptorsMaximum), for: task) {
            [self] outcome in
            switch outcome {
            case .mapped(let runs):
                let size = UInt64(unit.volume.geometry.blockSizeBytes)
                let clipped = runs.map { run in
                    let start = max(run.blocks.first.rawValue * size, query.range.offset)
                    let end = min(run.blocks.end.rawValue * size, query.range.end)
                    return MapRun(range: ByteRange(offset: start, count: end - start), isMapped: run.isMapped)
                }
                answer(task, query.response(clipped, unit: unit))
            case .failed(let failure): fail(task, failure)
            case .done, .read, .checked: fail(task, .internalError)
            }
        }
    }

    // MARK: Commands of several parts

    /// Sends an operation to the owner; goes on where it was done, fails the command where not.
    func step(_ operation: BackEndRequest.Operation, _ task: SessionTask, then proceed: @escaping () -> Void) {
        submit(operation, for: task) { [self] outcome in
            switch outcome {
            case .done: proceed()
            case .failed(let failure): fail(task, failure)
            case .read, .checked, .mapped: fail(task, .internalError)
            }
        }
    }

    /// WRITE SAME with a pattern: a write, since it covers no more than one transfer.
    private func writeSame(_ range: ByteRange, _ pattern: ByteBuffer, _ task: SessionTask, _ geometry: Geometry) {
        var bytes = ByteBuffer()
        bytes.reserveCapacity(Int(range.count))
        while bytes.readableBytes < Int(range.count) { bytes.writeImmutableBuffer(pattern) }
        perform(.write(range, bytes, geometry: geometry), task)
    }

    /// WRITE AND VERIFY: the blocks are read back once they are durable. Both parts are whole (I12), the two together are not: what
    /// another command writes there in between is what is compared.
    private func writeAndVerify(_ write: WritePlan, compares: Bool, _ task: SessionTask, _ geometry: Geometry) {
        step(.write(write.range, write.data, geometry: geometry), task) { [self] in
            verify(write.range, compares ? .compareData(write.data) : .mediumOnly, task, geometry)
        }
    }

    /// VERIFY: reads, and compares where there is something to compare with.
    private func verify(_ range: ByteRange, _ mode: VerifyMode, _ task: SessionTask, _ geometry: Geometry) {
        read(range, for: task, geometry: geometry) { [self] result in
            switch result {
            case .failure(let failure): fail(task, failure)
            case .success(let buffers):
                let unitBytes = Int(geometry.logicalBlockSizeBytes)
                guard let offset = Self.difference(buffers, mode, logicalBlockBytes: unitBytes) else {
                    return answer(task, .good)
                }
                fail(task, .miscompare(offset: UInt64(offset)))
            }
        }
    }

    /// The offset in the data-out of the first byte that differs from what was read.
    static func difference(_ buffers: [ByteBuffer], _ mode: VerifyMode, logicalBlockBytes: Int) -> Int? {
        let expected: ByteBuffer
        let period: Int
        switch mode {
        case .mediumOnly: return nil
        case .compareData(let data): (expected, period) = (data, Int.max)
        case .compareOneBlock(let data): (expected, period) = (data, logicalBlockBytes)
        }
        var index = 0
        for buffer in buffers {
            var rest = buffer
            while rest.readableBytes > 0 {
                let place = index % period
                let count = min(rest.readableBytes, period - place)
                guard
                    let found = rest.readSlice(length: count),
                    let wanted = expected.getSlice(at: expected.readerIndex + place, length: count)
                else { return place }
                if let difference = found.firstDifference(from: wanted) { return place + difference }
                index += count
            }
        }
        return nil
    }
}

extension UnitStatistics {
    init(_ counters: UnitCounters, _ geometry: Geometry) {
        let unit = UInt64(geometry.logicalBlockSizeBytes)
        self.init(
            readCommands: counters.reads,
            writeCommands: counters.writes,
            blocksRead: counters.bytesRead / unit,
            blocksWritten: counters.bytesWritten / unit,
            mappedBytes: counters.mappedBytes
        )
    }
}
