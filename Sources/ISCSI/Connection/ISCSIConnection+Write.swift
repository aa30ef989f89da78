import AshlarCore
import DequeModule
import NIOCore

/// Commands and the data that come with them, unasked, or by R2T.
extension ISCSIConnection {
    /// A command arrived; its turn may come later.
    mutating func receiveCommand(_ frame: Frame, isImmediate: Bool) {
        let header = frame.header
        guard parameters?.identity.sessionType == .normal else {
            return fail(header, "a SCSI command in a discovery session")
        }
        let pdu = SCSICommandPDU(header)
        guard pdu.tag != reservedTag else { return fail(header, "a command without a task tag", reason: .invalidField) }
        guard tasks[pdu.tag] == nil, managements[pdu.tag] == nil else {
            return fail(header, "a task tag that is in use", reason: .taskInProgress)
        }
        guard !isImmediate || immediateTasks < ISCSILimits.immediateCommandsMaximum else {
            note(.debug, "too many immediate commands")
            return reject(header, .tooManyImmediateCommands)
        }
        var additional = AdditionalHeaders()
        if let bytes = frame.additional {
            guard let decoded = AdditionalHeaders(bytes) else {
                return fail(header, "malformed additional header segments", reason: .invalidField)
            }
            additional = decoded
        }
        let task = ISCSITask(command: Self.command(pdu, additional), commandNumber: pdu.commandNumber)
        if let error = begin(task, pdu, frame.data) { return fail(header, error) }
        heldBytes += task.heldBytes
        solicitedBytes += task.solicitedBytes
        tasks[pdu.tag] = task
        guard isImmediate else { return }
        immediateTasks += 1
        admit(tag: pdu.tag, commandNumber: pdu.commandNumber)
    }

    private static func command(_ pdu: SCSICommandPDU, _ additional: AdditionalHeaders) -> ISCSICommand {
        ISCSICommand(
            tag: pdu.tag,
            lun: pdu.lun,
            cdb: additional.cdbTail.isEmpty ? pdu.cdb : pdu.cdb + additional.cdbTail,
            attribute: TaskAttribute(rawValue: pdu.attribute) ?? .simple,
            expectedDataTransferLength: pdu.expectedDataTransferLength,
            isRead: pdu.isRead,
            isWrite: pdu.isWrite,
            isImmediate: pdu.isImmediate,
            bidirectionalReadLength: additional.bidirectionalReadLength,
            dataOut: nil,
            dataOutTooLong: false
        )
    }

    /// Takes the immediate data and finds out what is to follow; returns what is wrong, or `nil`.
    private func begin(_ task: ISCSITask, _ pdu: SCSICommandPDU, _ data: ByteBuffer) -> String? {
        guard let parameters else { return "no session" }
        let count = UInt32(data.readableBytes)
        let expected = pdu.expectedDataTransferLength
        guard pdu.isWrite else {
            guard count == 0 else { return "data with a command that does not write" }
            return pdu.isFinal ? nil : "F bit missing in a command that does not write"
        }
        let unsolicited = min(expected, parameters.firstBurstLength)
        guard count == 0 || parameters.immediateData else { return "immediate data were not agreed on" }
        guard count <= unsolicited else { return "more immediate data than agreed" }
        guard pdu.isFinal || !parameters.initialR2T else { return "unsolicited data were not agreed on" }
        guard pdu.isFinal || count < unsolicited else { return "F bit missing, yet no more data may follow" }
        let (maximum, overflow) = Limits.transferMaximumBytes.addingReportingOverflow(ISCSILimits.transferSlackBytes)
        guard overflow || expected <= maximum else {
            task.command.dataOutTooLong = true
            return nil
        }
        guard expected > 0 else { return nil }
        var gather = DataGather(
            expected: expected,
            unsolicitedMaximum: unsolicited,
            awaitsUnsolicited: !pdu.isFinal
        )
        if count < expected, bufferQueue.isEmpty, hasRoom(for: expected) {
            task.solicitedBytes = Int(expected)
            gather.buffer.reserveCapacity(Int(expected))
        } else {
            // No room for all of it yet: what may come unasked is taken in any case.
            task.heldBytes = Int(pdu.isFinal ? count : unsolicited)
            if count < expected { gather.buffer.reserveCapacity(task.heldBytes) }
        }
        gather.append(data)
        task.gather = gather
        return nil
    }

    /// A command's turn has come.
    mutating func admit(tag: UInt32, commandNumber: UInt32) {
        // Gone where task management has dropped it meanwhile.
        guard let task = tasks[tag], !task.isAdmitted, task.commandNumber == commandNumber else { return }
        task.isAdmitted = true
        task.order = nextOrder
        nextOrder += 1
        if !task.command.isImmediate { numberedTasks += 1 }
        if task.command.attribute == .ordered { orderedTasks += 1 }
        advance(tag: tag)
    }

    /// Goes on with a task as far as it can go now. The gather is never copied here, as that would copy its data.
    mutating func advance(tag: UInt32) {
        guard let task = tasks[tag], task.isAdmitted, task.phase == .gathering else { return }
        guard let isComplete = task.gather?.isComplete else { return release(tag: tag) }
        if isComplete {
            let data = task.gather?.buffer
            task.gather = nil
            task.command.dataOut = data
            return release(tag: tag)
        }
        guard task.gather?.awaitsUnsolicited == false, task.gather?.isQueuedForBuffer == false else { return }
        guard task.solicitedBytes == 0 else { return solicit(tag: tag) }
        task.gather?.isQueuedForBuffer = true
        bufferQueue.append(tag)
        serveBufferQueue()
    }

    private func hasRoom(for bytes: UInt32) -> Bool {
        solicitedBytes == 0 || solicitedBytes + Int(bytes) <= configuration.bufferedBytesMaximum
    }

    /// Gives room to the tasks that wait for it, oldest first.
    ///
    /// The oldest of all tasks gets it even where there is none: everything else may wait for that task, if it is
    /// ORDERED.
    mutating func serveBufferQueue() {
        while let tag = bufferQueue.first {
            guard tasks[tag]?.gather?.isQueuedForBuffer == true else {
                bufferQueue.removeFirst()
                continue
            }
            guard hasRoom(for: tasks[tag]?.command.expectedDataTransferLength ?? 0) else { break }
            bufferQueue.removeFirst()
            grant(tag: tag)
        }
        guard !bufferQueue.isEmpty else { return }
        let oldest = tasks.lazy.filter { $0.value.isAdmitted }.min { $0.value.order < $1.value.order }?.key
        if let oldest, tasks[oldest]?.gather?.isQueuedForBuffer == true { grant(tag: oldest) }
    }

    /// Reserves the room for all the data of a task, and asks for them.
    private mutating func grant(tag: UInt32) {
        guard let expected = tasks[tag]?.gather?.expected, let held = tasks[tag]?.heldBytes else { return }
        solicitedBytes += Int(expected)
        heldBytes -= held
        tasks[tag]?.solicitedBytes = Int(expected)
        tasks[tag]?.heldBytes = 0
        tasks[tag]?.gather?.isQueuedForBuffer = false
        tasks[tag]?.gather?.buffer.reserveCapacity(Int(expected))
        solicit(tag: tag)
    }

    /// Sends as many R2Ts as may be outstanding.
    private mutating func solicit(tag: UInt32) {
        guard let parameters, let lun = tasks[tag]?.command.lun else { return }
        while var pdu = tasks[tag]?.gather?.nextRequest(parameters, transferTag: nextTransferTag) {
            _ = takeTransferTag()
            pdu.lun = lun
            pdu.tag = tag
            pdu.numbers = numbers(consumingStatus: false)
            send(encoder.frame(pdu.header))
        }
    }

    // MARK: Data-Out

    mutating func receiveDataOut(_ frame: Frame) {
        let pdu = DataOutPDU(frame.header)
        // Data of a task that is done, refused or aborted may still be under way: they are dropped.
        guard tasks[pdu.tag]?.gather != nil else {
            note(.debug, "Data-Out for no task that gathers data")
            return
        }
        // In place: a copy of the gather here would copy its data.
        switch tasks[pdu.tag]?.gather?.take(pdu, frame.data) {
        case .breach(let message): return fail(frame.header, message)
        case .sequence: return abandon(tag: pdu.tag)
        case nil: break
        }
        if pdu.transferTag != reservedTag { proveTransfer(pdu.transferTag) }
        if pdu.isFinal { advance(tag: pdu.tag) }
    }

    /// Data of a command may be missing: it is handed to the shell without any, to be refused; the rest that comes is dropped.
    private mutating func abandon(tag: UInt32) {
        note(.warning, "a DataSN is out of order")
        tasks[tag]?.gather = nil
        tasks[tag]?.command.isDataOutBroken = true
        advance(tag: tag)
    }

    // MARK: Release

    /// All is there: hands the command to the shell unless ORDERED holds it back.
    private mutating func release(tag: UInt32) {
        guard let task = tasks[tag] else { return }
        guard orderedTasks == 0 || mayRun(task) else {
            task.phase = .held
            held.append(tag)
            return
        }
        task.phase = .executing
        actions.append(.execute(task.command))
        // The shell owns the data now; only their size is still counted here.
        task.command.dataOut = nil
    }

    /// Whether no task that must come first is left (SAM-6, 8.6): HEAD OF QUEUE waits for none, ORDERED for all older
    /// ones, others for older ORDERED ones, each of the same logical unit.
    private func mayRun(_ task: ISCSITask) -> Bool {
        guard task.command.attribute != .headOfQueue else { return true }
        let isOrdered = task.command.attribute == .ordered
        for other in tasks.values where other.isAdmitted && other.order < task.order {
            guard other.command.lun == task.command.lun else { continue }
            if isOrdered || other.command.attribute == .ordered { return false }
        }
        return true
    }

    /// Takes a task out, and lets go what waited for it.
    mutating func remove(tag: UInt32) {
        guard let task = tasks.removeValue(forKey: tag) else { return }
        if task.command.isImmediate { immediateTasks -= 1 }
        if task.isAdmitted {
            if !task.command.isImmediate { numberedTasks -= 1 }
            if task.command.attribute == .ordered { orderedTasks -= 1 }
        }
        heldBytes -= task.heldBytes
        solicitedBytes -= task.solicitedBytes
    }

    /// Goes on with what waited for room or for older tasks.
    mutating func resume() {
        serveBufferQueue()
        guard !held.isEmpty else { return }
        let tags = held.sorted { tasks[$0]?.order ?? 0 < tasks[$1]?.order ?? 0 }
        held = []
        for tag in tags where tasks[tag]?.phase == .held { release(tag: tag) }
    }
}
