import AshlarCore
import NIOCore
import Ownership
import SCSI

/// Through whom a copy reads and writes a device: a session of the coordinator's loop, or one of another loop of the node.
///
/// Called, and calls back, on the coordinator's loop.
protocol CopyParticipant: AnyObject {
    /// The device; nil where it is not known any more.
    var unit: LogicalUnit? { get }
    /// A copy begins that uses it.
    func join(_ job: CopyJob)
    /// That copy has ended.
    func leave(_ job: CopyJob)
    /// Reads bytes of the device.
    ///
    /// - Parameter task: The command that it is done for; nil: none of this session.
    func read(
        _ range: ByteRange,
        for task: SessionTask?,
        geometry: Geometry,
        completion: @escaping (Result<[ByteBuffer], BackEndFailure>) -> Void
    )
    /// Asks the owner for a change; its number for ``takeBack(_:deadline:completion:)``, nil where it was refused at once.
    func submitChange(
        _ operation: BackEndRequest.Operation,
        for task: SessionTask?,
        completion: @escaping (BackEndRequest.Outcome) -> Void
    ) -> UInt64?
    /// Has the owner take a change back; the completion says whether it has in time (R6).
    func takeBack(_ change: UInt64, deadline: MonotonicTime, completion: @escaping (Bool) -> Void)
    /// Has its initiator be told of a condition.
    func tell(_ attention: UnitAttention)
    /// Runs what its machines want by now.
    func drain()
}

extension ISCSISession: CopyParticipant {
    func join(_ job: CopyJob) { runningCopies[ObjectIdentifier(job)] = job }

    func leave(_ job: CopyJob) { runningCopies[ObjectIdentifier(job)] = nil }

    func submitChange(
        _ operation: BackEndRequest.Operation,
        for task: SessionTask?,
        completion: @escaping (BackEndRequest.Outcome) -> Void
    ) -> UInt64? {
        let request = BackEndRequest(task: task, operation: operation, completion: completion)
        submit(request)
        return request.command?.rawValue
    }

    func takeBack(_ change: UInt64, deadline: MonotonicTime, completion: @escaping (Bool) -> Void) {
        takeBack(CommandID(change), deadline: deadline, completion: completion)
    }
}

/// A session of another loop, for one copy. What is asked of it, and what it answers, goes from loop to loop, in order: copies are
/// few, and their steps large.
///
/// On the coordinator's loop, but for what stands in closures for the other one.
final class CopyElsewhere: CopyParticipant {
    /// A session that a device designates, as its own loop has found it.
    struct Found: Sendable {
        let device: CopyDevice
        let session: NIOLoopBound<ISCSISession>
        let id: ObjectIdentifier
        let unit: LogicalUnit
    }

    /// As it was when the copy began: what does not hold any more is refused by the owner.
    let unit: LogicalUnit?
    private let session: NIOLoopBound<ISCSISession>
    private let loop: any EventLoop
    private var job: CopyJob?
    private var lastNumber: UInt64 = 0
    private var reads: [UInt64: (Result<[ByteBuffer], BackEndFailure>) -> Void] = [:]
    private var changes: [UInt64: (BackEndRequest.Outcome) -> Void] = [:]
    private var takingBack: [UInt64: (Bool) -> Void] = [:]

    init(_ found: Found, loop: any EventLoop) {
        unit = found.unit
        session = found.session
        self.loop = loop
    }

    private func takeNumber() -> UInt64 {
        lastNumber += 1
        return lastNumber
    }

    func join(_ job: CopyJob) {
        self.job = job
        let (id, session, bound) = (ObjectIdentifier(self), session, NIOLoopBound(self, eventLoop: loop))
        session.eventLoop.execute {
            let ended = { bound.eventLoop.execute { bound.value.sessionEnded() } }
            guard session.value.nexus != nil else { return ended() }
            session.value.copiesElsewhere[id] = RemoteCopy(sessionEnded: ended)
        }
    }

    func leave(_ job: CopyJob) {
        self.job = nil
        // Nobody waits any more; and a session that ends answers nobody.
        reads = [:]
        changes = [:]
        let (id, session) = (ObjectIdentifier(self), session)
        session.eventLoop.execute { session.value.copyElsewhereEnded(id) }
    }

    private func sessionEnded() {
        guard let job else { return }
        job.coordinator.deviceLeft(job)
    }

    func read(
        _ range: ByteRange,
        for task: SessionTask?,
        geometry: Geometry,
        completion: @escaping (Result<[ByteBuffer], BackEndFailure>) -> Void
    ) {
        let number = takeNumber()
        reads[number] = completion
        let (session, bound) = (session, NIOLoopBound(self, eventLoop: loop))
        session.eventLoop.execute {
            session.value.read(range, for: nil, geometry: geometry) { result in
                bound.eventLoop.execute { bound.value.reads.removeValue(forKey: number)?(result) }
            }
            session.value.drain()
        }
    }

    func submitChange(
        _ operation: BackEndRequest.Operation,
        for task: SessionTask?,
        completion: @escaping (BackEndRequest.Outcome) -> Void
    ) -> UInt64? {
        let number = takeNumber()
        changes[number] = completion
        let (id, session, bound) = (ObjectIdentifier(self), session, NIOLoopBound(self, eventLoop: loop))
        session.eventLoop.execute {
            let request = BackEndRequest(task: nil, operation: operation) { outcome in
                session.value.stepElsewhereEnded(id)
                bound.eventLoop.execute { bound.value.changeEnded(number, outcome) }
            }
            session.value.copiesElsewhere[id, default: RemoteCopy()].step = request
            session.value.submit(request)
            session.value.drain()
        }
        return number
    }

    private func changeEnded(_ number: UInt64, _ outcome: BackEndRequest.Outcome) {
        if let completion = changes.removeValue(forKey: number) { return completion(outcome) }
        // What the owner has told once is reported all the same.
        if case .failed(.attention(let attention)) = outcome { tell(attention) }
    }

    func takeBack(_ change: UInt64, deadline: MonotonicTime, completion: @escaping (Bool) -> Void) {
        takingBack[change] = completion
        let (id, session, bound) = (ObjectIdentifier(self), session, NIOLoopBound(self, eventLoop: loop))
        session.eventLoop.execute {
            let ended = { @Sendable (isDone: Bool) in
                bound.eventLoop.execute { bound.value.takingBack.removeValue(forKey: change)?(isDone) }
            }
            // It came behind the change on its way from loop to loop: without a number the change has ended.
            let step = session.value.copiesElsewhere.removeValue(forKey: id)?.step
            guard let command = step?.command else { return ended(true) }
            session.value.takeBack(command, deadline: deadline) { ended($0) }
        }
    }

    func tell(_ attention: UnitAttention) {
        let session = session
        session.eventLoop.execute { session.value.tell(attention) }
    }

    /// The other loop does so by itself.
    func drain() {}
}

// The other side: what a session knows of copies of other loops that use it.
extension ISCSISession {
    /// A step that was asked for before the end may take effect yet, and may still be taken back.
    fileprivate func copyElsewhereEnded(_ id: ObjectIdentifier) {
        copiesElsewhere[id]?.sessionEnded = nil
        if copiesElsewhere[id]?.step == nil { copiesElsewhere[id] = nil }
    }

    fileprivate func stepElsewhereEnded(_ id: ObjectIdentifier) {
        copiesElsewhere[id]?.step = nil
        if copiesElsewhere[id]?.sessionEnded == nil { copiesElsewhere[id] = nil }
    }
}

/// A copy of another loop that uses a session: what this loop knows of it.
struct RemoteCopy {
    /// To be called when the session ends; nil where the copy has ended.
    var sessionEnded: (() -> Void)?
    /// The change that may take effect yet.
    var step: BackEndRequest?
}
