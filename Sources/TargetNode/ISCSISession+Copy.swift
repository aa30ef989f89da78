import AshlarCore
import ISCSI
import Logging
import NIOCore
import Ownership
import RPC
import SCSI
import Transport

/// What a session remembers of its EXTENDED COPY commands, oldest first.
struct CopyRecords {
    private var records: [CopyRecord] = []

    /// The record of a list identifier.
    func record(_ listIdentifier: UInt32) -> CopyRecord? { records.last { $0.listIdentifier == listIdentifier } }

    /// Whether a copy of a list identifier runs.
    func isRunning(_ listIdentifier: UInt32) -> Bool { record(listIdentifier)?.progress == .inProgress }

    /// Puts a record in the place of the one with its identifier. The oldest of too many copies that have ended is forgotten.
    mutating func put(_ record: CopyRecord) {
        records.removeAll { $0.listIdentifier == record.listIdentifier }
        let ended = records.indices.filter { records[$0].progress != .inProgress }
        if let oldest = ended.first, ended.count >= SCSILimits.copiesMaximum { records.remove(at: oldest) }
        records.append(record)
    }
}

/// An EXTENDED COPY under way: in `runningCopies` of the session that it came through and of those that it uses.
final class CopyJob {
    let copy: ExtendedCopy
    let task: SessionTask
    /// The session of the command, which answers it.
    let coordinator: ISCSISession
    /// Who reads and writes each device: sessions of one initiator.
    let devices: [any CopyParticipant]
    var record: CopyRecord
    /// The change that a session has asked its owner for, and that may take effect yet.
    var step: (session: any CopyParticipant, change: UInt64)?

    init(
        _ copy: ExtendedCopy,
        _ task: SessionTask,
        coordinator: ISCSISession,
        devices: [any CopyParticipant]
    ) {
        self.copy = copy
        self.task = task
        self.coordinator = coordinator
        self.devices = devices
        record = CopyRecord(
            listIdentifier: copy.listIdentifier ?? 0,
            progress: .inProgress,
            segmentsDone: 0,
            bytesWritten: 0
        )
    }

    var isRunning: Bool { record.progress == .inProgress }

    /// The sessions that know of it.
    var sessions: [any CopyParticipant] { devices + [coordinator] }
}

// EXTENDED COPY (SPC-5, 6.6). A device is this volume, or another one that the same initiator is logged in to at this node, on whichever loop: so
// that reservations hold for it as for any command of that session. Inside a volume the owner copies whole data blocks, most of
// which become references to the same slots (M11); all else is read and written here.
extension ISCSISession {
    func begin(_ copy: ExtendedCopy, _ task: SessionTask) {
        let missing = copy.devices.filter { service.session(of: self, designatedBy: $0) == nil }
        guard !missing.isEmpty, service.hasOtherLoops else { return begin(copy, task, elsewhere: [:]) }
        service.sessionsElsewhere(of: self, designatedBy: missing) { [self] found in
            defer { drain() }
            // Not where it was aborted meanwhile.
            if isLive(task) { begin(copy, task, elsewhere: found) }
        }
    }

    private func begin(_ copy: ExtendedCopy, _ task: SessionTask, elsewhere: [CopyDevice: CopyElsewhere]) {
        if let identifier = copy.listIdentifier, copies.isRunning(identifier) {
            return answer(task, .checkCondition(.copyInProgress))
        }
        guard runningCopies.values.count(where: { $0.coordinator === self }) < SCSILimits.copiesMaximum else {
            return answer(task, BackEndFailure.busy.response)
        }
        var devices: [any CopyParticipant] = []
        for device in copy.devices {
            let here: (any CopyParticipant)? = service.session(of: self, designatedBy: device)
            guard let session = here ?? elsewhere[device], let unit = session.unit else {
                return answer(task, .checkCondition(.unreachableCopyTarget))
            }
            guard [0, unit.volume.geometry.logicalBlockSizeBytes].contains(device.logicalBlockSizeBytes) else {
                return answer(task, .checkCondition(.wrongCopyBlockLength))
            }
            devices.append(session)
        }
        let job = CopyJob(copy, task, coordinator: self, devices: devices)
        for session in job.sessions { session.join(job) }
        remember(job)
        if copy.isImmediate { answer(task, .good) }
        run(job)
    }

    private func remember(_ job: CopyJob) {
        if job.copy.listIdentifier != nil { copies.put(job.record) }
    }

    /// Ends a copy: nothing more is asked for it, and what it has asked for is answered to nobody.
    private func close(_ job: CopyJob, _ progress: CopyRecord.Progress) {
        job.record.progress = progress
        for session in job.sessions { session.leave(job) }
        remember(job)
    }

    /// Goes on with the next segment.
    private func run(_ job: CopyJob) {
        guard job.record.segmentsDone < job.copy.segments.count else {
            close(job, .done)
            if !job.copy.isImmediate { answer(job.task, .good) }
            return
        }
        let segment = job.copy.segments[job.record.segmentsDone]
        guard let source = job.devices[segment.source].unit, let target = job.devices[segment.destination].unit else {
            return fail(job, .unreachableCopyTarget)
        }
        let counted = segment.countsDestination ? target : source
        let count = segment.blockCount * UInt64(counted.volume.geometry.logicalBlockSizeBytes)
        guard
            let from = source.range(at: segment.sourceAddress, bytes: count),
            let to = target.range(at: segment.destinationAddress, bytes: count)
        else { return fail(job, .copyAborted) }
        copy(from, to, job)
    }

    /// Copies the rest of a segment, a step at a time.
    private func copy(_ from: ByteRange, _ to: ByteRange, _ job: CopyJob) {
        let segment = job.copy.segments[job.record.segmentsDone]
        let (reader, writer) = (job.devices[segment.source], job.devices[segment.destination])
        guard from.count > 0 else {
            job.record.segmentsDone += 1
            remember(job)
            return run(job)
        }
        guard let source = reader.unit?.volume.geometry, let target = writer.unit?.volume.geometry else {
            return fail(job, .unreachableCopyTarget)
        }
        let step = CopyStep(from: from, to: to, blockBytes: reader === writer ? UInt64(source.blockSizeBytes) : nil)
        if step.isInside {
            let inside = BackEndRequest.Operation.copy(source: from.offset, destination: to.offset, count: step.count)
            return change(inside, step.count, from, to, at: writer, job)
        }
        let piece = ByteRange(offset: from.offset, count: step.count)
        reader.read(piece, for: task(of: job, at: reader), geometry: source) { [self] result in
            defer { drain() }
            guard job.isRunning else { return }
            switch result {
            case .success(let buffers):
                var bytes = ByteBuffer()
                bytes.reserveCapacity(Int(step.count))
                for buffer in buffers { bytes.writeImmutableBuffer(buffer) }
                let place = ByteRange(offset: to.offset, count: step.count)
                change(.write(place, bytes, geometry: target), step.count, from, to, at: writer, job)
            case .failure(let failure): fail(job, failure, at: reader)
            }
        }
        if reader !== self { reader.drain() }
    }

    /// Asks for the change that is the next step of a copy, then goes on behind it.
    private func change(
        _ operation: BackEndRequest.Operation,
        _ count: UInt64,
        _ from: ByteRange,
        _ to: ByteRange,
        at session: any CopyParticipant,
        _ job: CopyJob
    ) {
        let change = session.submitChange(operation, for: task(of: job, at: session)) { [self] outcome in
            defer { drain() }
            job.step = nil
            guard job.isRunning else {
                // What the owner has told once is reported all the same.
                if case .failed(.attention(let attention)) = outcome { session.tell(attention) }
                return
            }
            switch outcome {
            case .done:
                job.record.bytesWritten += count
                remember(job)
                copy(from.dropped(count), to.dropped(count), job)
            case .failed(let failure): fail(job, failure, at: session)
            case .read, .checked, .mapped: fail(job, .internalError, at: session)
            }
        }
        // Without a number it was refused at once, and the copy has ended.
        if let change { job.step = (session, change) }
        if session !== self { session.drain() }
    }

    /// The command that a session works for: none where it was answered already, or is another session's.
    private func task(of job: CopyJob, at session: any CopyParticipant) -> SessionTask? {
        session === self && !job.copy.isImmediate ? job.task : nil
    }

    /// A step failed at the owner of one of the volumes.
    private func fail(_ job: CopyJob, _ failure: BackEndFailure, at session: any CopyParticipant) {
        if case .attention(let attention) = failure, session !== self || job.copy.isImmediate {
            // The condition is that session's, and is reported with the next command that it can be reported with.
            session.tell(attention)
            return fail(job, .copyAborted)
        }
        // Where nothing was done yet, the command is answered as any other.
        guard job.record.bytesWritten == 0, !job.copy.isImmediate else {
            return fail(job, failure.response.sense ?? .copyAborted)
        }
        close(job, .failed(failure.response.sense ?? .copyAborted))
        fail(job.task, failure)
    }

    private func fail(_ job: CopyJob, _ sense: SenseData) {
        close(job, .failed(sense))
        if !job.copy.isImmediate { answer(job.task, .checkCondition(sense)) }
    }

    // MARK: The end of tasks and sessions

    /// Ends the copies that task management is about, then has the owners of other volumes take back what these were asked for;
    /// the owner of this one is told by the function itself. The completion says whether they have (R6).
    ///
    /// - Parameter tasks: The copies to end; nil: all of this session.
    func endCopies(of tasks: [UInt32]?, deadline: MonotonicTime, completion: @escaping (Bool) -> Void) {
        var left: [(session: any CopyParticipant, change: UInt64)] = []
        for job in Array(runningCopies.values) where job.coordinator === self {
            if let tasks, job.copy.isImmediate || !tasks.contains(job.task.tag) { continue }
            close(job, .failed(.abortedCommand))
            if let step = job.step, step.session !== self { left.append(step) }
        }
        takeBack(left[...], deadline: deadline, completion: completion)
    }

    private func takeBack(
        _ steps: ArraySlice<(session: any CopyParticipant, change: UInt64)>,
        deadline: MonotonicTime,
        completion: @escaping (Bool) -> Void
    ) {
        guard let step = steps.first else { return completion(true) }
        step.session.takeBack(step.change, deadline: deadline) { [self] isDone in
            guard isDone else { return completion(false) }
            takeBack(steps.dropFirst(), deadline: deadline, completion: completion)
        }
    }

    /// Has the owner take one command back; asked again until it has or the deadline has passed.
    func takeBack(_ command: CommandID, deadline: MonotonicTime, completion: @escaping (Bool) -> Void) {
        // A nexus that is closed has its commands refused (R3).
        guard nexus != nil else { return completion(true) }
        guard service.now < deadline else { return completion(false) }
        guard let owner = backend?.owner?.client, let context = nexus?.context() else {
            return takeBackLater(command, deadline: deadline, completion: completion)
        }
        let message = FenceCommand(header: CommandHeader(context), commands: [command])
        owner.send(message, deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds) { [self] result in
            guard case .success(let answer) = result, answer.isOK || answer.status == .nexusClosed else {
                return takeBackLater(command, deadline: deadline, completion: completion)
            }
            nexus?.forget(command)
            drain()
            completion(true)
        }
    }

    private func takeBackLater(
        _ command: CommandID,
        deadline: MonotonicTime,
        completion: @escaping (Bool) -> Void
    ) {
        let bound = NIOLoopBound((self, completion), eventLoop: service.loop)
        service.loop.scheduleTask(in: TargetLimits.locateInterval) {
            let (session, completion) = bound.value
            session.takeBack(command, deadline: deadline, completion: completion)
        }
    }

    /// The session of a device has ended.
    func deviceLeft(_ job: CopyJob) {
        fail(job, .unreachableCopyTarget)
        drain()
    }

    /// The session ends: so do its copies, and those of others that read or write through it.
    func leaveCopies() {
        for job in Array(runningCopies.values) where job.coordinator !== self {
            job.coordinator.deviceLeft(job)
        }
        for copy in copiesElsewhere.values { copy.sessionEnded?() }
        copiesElsewhere = [:]
        let milliseconds = UInt64(TargetLimits.taskManagementDeadlineMilliseconds)
        let deadline = service.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        endCopies(of: nil, deadline: deadline) { [logger = service.logger] isDone in
            if !isDone { logger.warning("a step of a copy whose session has ended could not be taken back") }
        }
    }
}

/// How much of a copy is done at once, and by whom.
struct CopyStep: Hashable {
    /// Bytes.
    let count: UInt64
    /// Whether the volume's owner does it: both ends are made of data blocks, and do not overlap.
    let isInside: Bool

    /// The first step of a copy of as many bytes as both ranges have.
    ///
    /// - Parameter blockBytes: The data block, where both lie in one volume.
    init(from: ByteRange, to: ByteRange, blockBytes: UInt64?) {
        let most = min(from.count, UInt64(Limits.transferMaximumBytes))
        guard let size = blockBytes, from.offset % size == to.offset % size, from.offset != to.offset else {
            count = most
            isInside = false
            return
        }
        guard from.offset % size == 0 else {
            // Up to the next border of a data block, so that the rest is made of such.
            count = min(most, size - from.offset % size)
            isInside = false
            return
        }
        let distance = max(from.offset, to.offset) - min(from.offset, to.offset)
        let whole = min(most, distance)
        isInside = whole >= size
        count = isInside ? whole - whole % size : most
    }
}

extension ByteRange {
    fileprivate func dropped(_ bytes: UInt64) -> ByteRange { ByteRange(offset: offset + bytes, count: count - bytes) }
}

extension LogicalUnit {
    /// So many bytes from an address on, if they lie inside the volume and end with a logical block.
    fileprivate func range(at address: LBA, bytes: UInt64) -> ByteRange? {
        let size = UInt64(volume.geometry.logicalBlockSizeBytes)
        let (offset, overflow) = address.rawValue.multipliedReportingOverflow(by: size)
        guard !overflow, bytes % size == 0 else { return nil }
        let (_, isTooFar) = offset.addingReportingOverflow(bytes)
        let range = ByteRange(offset: offset, count: bytes)
        return !isTooFar && volume.geometry.contains(range) ? range : nil
    }
}
