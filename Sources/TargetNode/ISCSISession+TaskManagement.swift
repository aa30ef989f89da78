import AshlarCore
import ISCSI
import NIOCore
import Ownership
import RPC
import Transport

// Task management (R6): the owner fences what is to be aborted, so that nothing of it is done once the function was answered.
extension ISCSISession {
    /// Has the owner take back what the initiator wants to be rid of.
    func manage(_ request: TaskManagementRequest) {
        let ids = request.tasks.flatMap { liveTasks[$0]?.commands ?? [] }
        // From here on nothing more is asked of the owner for them, and their answers go nowhere.
        for tag in request.tasks { forget(task: tag) }
        let management = UnitManagement(request.function)
        let milliseconds = UInt64(TargetLimits.taskManagementDeadlineMilliseconds)
        let deadline = service.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        endCopies(of: management == nil ? request.tasks : nil, deadline: deadline) { [self] isDone in
            guard isDone else { return terminate(.reset) }
            if let management {
                carryOut(management, request, ids: ids, deadline: deadline)
            } else if nexus != nil, !ids.isEmpty {
                fence(request, ids: ids, deadline: deadline)
            } else {
                complete(request, ids)
            }
            drain()
        }
    }

    /// Has the owner carry out what concerns all nexuses, as a command of this one: it waits for a proof (R1), and is done once
    /// however often it is sent (R4). Where it was not, it is made anew until the deadline has passed.
    private func carryOut(
        _ management: UnitManagement,
        _ request: TaskManagementRequest,
        ids: [CommandID],
        deadline: MonotonicTime
    ) {
        guard service.now < deadline else { return terminate(.reset) }
        guard nexus != nil else { return }
        let command = BackEndRequest(task: nil, operation: .manage(management)) { [self] outcome in
            guard case .done = outcome else {
                return later { $0.carryOut(management, request, ids: ids, deadline: deadline) }
            }
            complete(request, ids)
        }
        submit(command, until: deadline)
    }

    /// Has the owner take commands back; asked again until the owner has answered or the deadline has passed. Then the session
    /// ends: so the initiator knows that nothing of it is done any more, whatever keeps the owner from saying so.
    private func fence(_ request: TaskManagementRequest, ids: [CommandID], deadline: MonotonicTime) {
        guard service.now < deadline else { return terminate(.reset) }
        guard let context = nexus?.context() else { return }
        guard let owner = backend?.owner?.client else {
            return later { $0.fence(request, ids: ids, deadline: deadline) }
        }
        owner.send(
            FenceCommand(header: CommandHeader(context), commands: ids),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            defer { drain() }
            guard case .success(let answer) = result, answer.isOK else {
                if case .success(let answer) = result, answer.status == .nexusClosed { return terminate(.reset) }
                return later { $0.fence(request, ids: ids, deadline: deadline) }
            }
            complete(request, ids)
        }
    }

    private func complete(_ request: TaskManagementRequest, _ ids: [CommandID]) {
        for id in ids { nexus?.forget(id) }
        machine.taskManagementCompleted(tag: request.tag, .functionComplete)
    }

    /// Tries again in a moment.
    private func later(_ attempt: @escaping (ISCSISession) -> Void) {
        guard let loop = context?.eventLoop else { return }
        let bound = NIOLoopBound((self, attempt), eventLoop: loop)
        loop.scheduleTask(in: TargetLimits.locateInterval) {
            let (session, attempt) = bound.value
            attempt(session)
            session.drain()
        }
    }
}

extension UnitManagement {
    /// The functions that concern all nexuses.
    fileprivate init?(_ function: TaskManagementFunction) {
        switch function {
        case .clearTaskSet: self = .clearTaskSet
        case .logicalUnitReset: self = .logicalUnitReset
        case .targetWarmReset: self = .targetWarmReset
        case .targetColdReset: self = .targetColdReset
        case .abortTask, .abortTaskSet, .clearACA, .taskReassign: return nil
        }
    }
}
