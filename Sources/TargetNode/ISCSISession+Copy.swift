import AshlarCore
import ISCSI
import NIOCore
import RPC
import SCSI

/// What a session remembers of its EXTENDED COPY commands, oldest first.
struct CopyRecords {
    private var records: [CopyRecord] = []

    /// The record of a list identifier.
    func record(_ listIdentifier: UInt32) -> CopyRecord? { records.last { $0.listIdentifier == listIdentifier } }

    /// Whether a copy of a list identifier runs.
    func isRunning(_ listIdentifier: UInt32) -> Bool { record(listIdentifier)?.progress == .inProgress }

    /// Puts a record in the place of the one with its identifier.
    mutating func put(_ record: CopyRecord) {
        records.removeAll { $0.listIdentifier == record.listIdentifier }
        if records.count >= SCSILimits.copiesMaximum { records.removeFirst() }
        records.append(record)
    }
}

/// An EXTENDED COPY under way.
private final class CopyJob {
    let copy: ExtendedCopy
    let task: SessionTask
    /// Who reads and writes each device: sessions of this initiator.
    let devices: [ISCSISession]
    /// Resets of the session before it began.
    let generation: UInt64
    var record: CopyRecord

    init(_ copy: ExtendedCopy, _ task: SessionTask, devices: [ISCSISession], generation: UInt64) {
        self.copy = copy
        self.task = task
        self.devices = devices
        self.generation = generation
        record = CopyRecord(
            listIdentifier: copy.listIdentifier ?? 0,
            progress: .inProgress,
            segmentsDone: 0,
            bytesWritten: 0
        )
    }
}

// EXTENDED COPY (SPC-5, 6.6). A device is this volume, or another one that the same initiator is logged in to at this node: so
// that it may use it is proved by its login, and reservations hold for it as for any command of that session.
extension ISCSISession {
    func begin(_ copy: ExtendedCopy, _ task: SessionTask) {
        if let identifier = copy.listIdentifier, copies.isRunning(identifier) {
            return answer(task, .checkCondition(.copyInProgress))
        }
        var devices: [ISCSISession] = []
        for device in copy.devices {
            guard let session = service.session(of: self, designatedBy: device) else {
                return answer(task, .checkCondition(.unreachableCopyTarget))
            }
            devices.append(session)
        }
        let job = CopyJob(copy, task, devices: devices, generation: copyGeneration)
        remember(job)
        for device in devices where device !== self {
            // What a session that ends has asked of its owner is never answered.
            device.copiesByOthers[ObjectIdentifier(job)] = { [self] in
                end(job, .unreachableCopyTarget)
                drain()
            }
        }
        if copy.isImmediate { answer(task, .good) }
        run(job)
    }

    private func remember(_ job: CopyJob) {
        if job.record.progress != .inProgress {
            for device in job.devices { device.copiesByOthers[ObjectIdentifier(job)] = nil }
        }
        if job.copy.listIdentifier != nil { copies.put(job.record) }
    }

    /// Whether it has not failed yet, and neither the command was aborted nor the unit reset.
    private func isWanted(_ job: CopyJob) -> Bool {
        job.record.progress == .inProgress && job.generation == copyGeneration
            && (job.copy.isImmediate || isLive(job.task))
    }

    /// Goes on with the next segment.
    private func run(_ job: CopyJob) {
        guard job.record.segmentsDone < job.copy.segments.count else {
            job.record.progress = .done
            remember(job)
            if !job.copy.isImmediate { answer(job.task, .good) }
            return
        }
        let segment = job.copy.segments[job.record.segmentsDone]
        guard let source = job.devices[segment.source].unit, let target = job.devices[segment.destination].unit else {
            return end(job, .unreachableCopyTarget)
        }
        let counted = segment.countsDestination ? target : source
        let count = segment.blockCount * UInt64(counted.volume.geometry.logicalBlockSizeBytes)
        guard
            let from = source.range(at: segment.sourceAddress, bytes: count),
            let to = target.range(at: segment.destinationAddress, bytes: count)
        else { return end(job, .copyAborted) }
        copy(from, to, job)
    }

    /// Copies the rest of a segment, a transfer at a time.
    private func copy(_ from: ByteRange, _ to: ByteRange, _ job: CopyJob) {
        let segment = job.copy.segments[job.record.segmentsDone]
        let (reader, writer) = (job.devices[segment.source], job.devices[segment.destination])
        guard from.count > 0 else {
            job.record.segmentsDone += 1
            remember(job)
            return run(job)
        }
        guard let source = reader.unit?.volume.geometry, let target = writer.unit?.volume.geometry else {
            return end(job, .unreachableCopyTarget)
        }
        guard isWanted(job) else { return end(job, .abortedCommand) }
        let count = min(from.count, UInt64(Limits.transferMaximumBytes))
        reader.read(ByteRange(offset: from.offset, count: count), for: task(of: job, at: reader), geometry: source) {
            [self] result in
            guard isWanted(job) else { return end(job, .abortedCommand) }
            guard case .success(let buffers) = result else {
                if case .failure(let failure) = result { fail(job, failure) }
                return
            }
            var bytes = ByteBuffer()
            bytes.reserveCapacity(Int(count))
            for buffer in buffers { bytes.writeImmutableBuffer(buffer) }
            let write = BackEndRequest.Operation.write(
                ByteRange(offset: to.offset, count: count),
                bytes,
                geometry: target
            )
            let request = BackEndRequest(task: task(of: job, at: writer)?.tag, operation: write) { [self] outcome in
                switch outcome {
                case .done where isWanted(job):
                    job.record.bytesWritten += count
                    remember(job)
                    copy(from.dropped(count), to.dropped(count), job)
                case .done: end(job, .abortedCommand)
                case .failed(let failure): fail(job, failure)
                case .read, .checked, .mapped: fail(job, .internalError)
                }
                drain()
            }
            writer.submit(request)
            writer.drain()
        }
        if reader !== self { reader.drain() }
    }

    /// The command that a session works for: none where it was answered already, or is another session's.
    private func task(of job: CopyJob, at session: ISCSISession) -> SessionTask? {
        session === self && !job.copy.isImmediate ? job.task : nil
    }

    private func fail(_ job: CopyJob, _ failure: BackEndFailure) {
        guard job.record.progress == .inProgress else { return }
        // Where nothing was done yet, the command is answered as any other.
        guard job.record.bytesWritten == 0, !job.copy.isImmediate else {
            return end(job, failure.response.sense ?? .copyAborted)
        }
        job.record.progress = .failed(failure.response.sense ?? .copyAborted)
        remember(job)
        fail(job.task, failure)
    }

    private func end(_ job: CopyJob, _ sense: SenseData) {
        guard job.record.progress == .inProgress else { return }
        job.record.progress = .failed(sense)
        remember(job)
        if !job.copy.isImmediate { answer(job.task, .checkCondition(sense)) }
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
