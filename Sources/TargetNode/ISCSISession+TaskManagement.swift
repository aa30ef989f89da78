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
        let ids = request.tasks.flatMap { commandsOfTask[$0] ?? [] }
        // From here on nothing more is asked of the owner for them, and their answers go nowhere.
        for tag in request.tasks { forget(task: tag) }
        let management = UnitManagement(request.function)
        let milliseconds = UInt64(TargetLimits.taskManagementDeadlineMilliseconds)
        let deadline = service.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        endCopies(of: management == nil ? request.tasks : nil, deadline: deadline) { [self] isDone in
            guard isDone else { return terminate(.reset) }
            guard nexus != nil, management != nil || !ids.isEmpty else {
                machine.taskManagementCompleted(tag: request.tag, .functionComplete)
                return drain()
            }
            fence(request, management, ids: ids, deadline: deadline)
        }
    }

    /// Has the owner take commands back; asked again until the owner has answered or the deadline has passed. Then the session
    /// ends: so the initiator knows that nothing of it is done any more, whatever keeps the owner from saying so.
    private func fence(
        _ request: TaskManagementRequest,
        _ management: UnitManagement?,
        ids: [CommandID],
        deadline: MonotonicTime
    ) {
        guard service.now < deadline else { return terminate(.reset) }
        guard let context = nexus?.context() else { return }
        guard let owner = backend?.owner?.client else {
            return fenceLater(request, management, ids: ids, deadline: deadline)
        }
        let completion: (Result<RPCAnswer, RPCFailure>) -> Void = { [self] result in
            defer { drain() }
            guard case .success(let answer) = result, answer.isOK else {
                if case .success(let answer) = result, answer.status == .nexusClosed { return terminate(.reset) }
                return fenceLater(request, management, ids: ids, deadline: deadline)
            }
            for id in ids { nexus?.forget(id) }
            machine.taskManagementCompleted(tag: request.tag, .functionComplete)
        }
        let header = CommandHeader(context)
        let milliseconds = TargetLimits.controlDeadlineMilliseconds
        if let management {
            let message = ManageUnit(header: header, function: management)
            owner.send(message, deadlineMilliseconds: milliseconds, completion: completion)
        } else {
            let message = FenceCommand(header: header, commands: ids)
            owner.send(message, deadlineMilliseconds: milliseconds, completion: completion)
        }
    }

    private func fenceLater(
        _ request: TaskManagementRequest,
        _ management: UnitManagement?,
        ids: [CommandID],
        deadline: MonotonicTime
    ) {
        guard let loop = context?.eventLoop else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: TargetLimits.locateInterval) {
            bound.value.fence(request, management, ids: ids, deadline: deadline)
            bound.value.drain()
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
