import AshlarCore

/// Task management (RFC 7143, 11.5 and 11.6; 4.2.3.3).
extension ISCSIConnection {
    mutating func receiveTaskManagement(_ header: BasicHeader) {
        let pdu = TaskManagementRequestPDU(header)
        guard parameters?.identity.sessionType == .normal else {
            return fail(header, "task management in a discovery session")
        }
        guard tasks[pdu.tag] == nil, managements[pdu.tag] == nil, pdu.tag != reservedTag else {
            return fail(header, "a task tag that is in use", reason: .taskInProgress)
        }
        guard managements.count < ISCSILimits.taskManagementMaximum else {
            return respond(to: pdu.tag, .functionRejected)
        }
        guard let function = TaskManagementFunction(rawValue: pdu.function) else {
            return respond(to: pdu.tag, .functionNotSupported)
        }
        switch function {
        case .abortTask:
            abortTask(pdu)
        case .taskReassign:
            respond(to: pdu.tag, .reassignmentNotSupported)
        case .clearACA:
            respond(to: pdu.tag, .functionNotSupported)
        case .abortTaskSet, .clearTaskSet, .logicalUnitReset:
            let logicalUnit = configuration.logicalUnit
            guard let unit = logicalUnit(pdu.lun) else { return respond(to: pdu.tag, .lunDoesNotExist) }
            abort(pdu, function) { logicalUnit($0.command.lun) == unit }
        case .targetWarmReset, .targetColdReset:
            abort(pdu, function) { _ in true }
        }
    }

    private mutating func abortTask(_ pdu: TaskManagementRequestPDU) {
        guard let task = tasks[pdu.referencedTag], isSameUnit(task.command.lun, pdu.lun) else {
            // A command that never came counts as come and aborted, where its number could still come.
            let number = pdu.referencedCommandNumber
            let isPossible =
                tasks[pdu.referencedTag] == nil && Serial.isLessOrEqual(expectedCommand, number)
                && Serial.isLessOrEqual(number, maximumCommand) && Serial.isLess(number, pdu.commandNumber)
            guard isPossible, waiting[number] == nil else {
                let isUnit = configuration.logicalUnit(pdu.lun) != nil
                return respond(to: pdu.tag, isUnit ? .taskDoesNotExist : .lunDoesNotExist)
            }
            respond(to: pdu.tag, .functionComplete)
            return skip(number)
        }
        guard task.phase == .executing else {
            remove(tag: pdu.referencedTag)
            respond(to: pdu.tag, .functionComplete)
            return resume()
        }
        hand(over: pdu, .abortTask, tasks: [pdu.referencedTag])
    }

    /// Whether two LUNs name one logical unit, or are the same where there is none.
    private func isSameUnit(_ first: UInt64, _ second: UInt64) -> Bool {
        guard first != second else { return true }
        guard let unit = configuration.logicalUnit(first) else { return false }
        return unit == configuration.logicalUnit(second)
    }

    private mutating func abort(
        _ pdu: TaskManagementRequestPDU,
        _ function: TaskManagementFunction,
        where isHit: (ISCSITask) -> Bool
    ) {
        var given: [UInt32] = []
        var dropped: [UInt32] = []
        for (tag, task) in tasks where isHit(task) {
            guard task.isAdmitted || Serial.isLess(task.commandNumber, pdu.commandNumber) else { continue }
            if task.phase == .executing { given.append(tag) } else { dropped.append(tag) }
        }
        for tag in dropped { remove(tag: tag) }
        hand(over: pdu, function, tasks: given.sorted())
        resume()
    }

    private mutating func hand(
        over pdu: TaskManagementRequestPDU,
        _ function: TaskManagementFunction,
        tasks: [UInt32]
    ) {
        let request = TaskManagementRequest(tag: pdu.tag, function: function, lun: pdu.lun, tasks: tasks)
        managements[pdu.tag] = request
        actions.append(.manageTasks(request))
    }

    /// The request was carried out, or could not be: the answer to ``ISCSIAction/manageTasks(_:)``.
    ///
    /// With `.functionComplete`, the tasks it hit that were not completed are forgotten: no response of theirs goes out
    /// any more.
    public mutating func taskManagementCompleted(tag: UInt32, _ response: TaskManagementResponse) {
        guard phase == .fullFeature, let request = managements.removeValue(forKey: tag) else { return }
        if response == .functionComplete {
            for task in request.tasks { remove(tag: task) }
        }
        respond(to: tag, response)
        if response == .functionComplete, request.function == .targetColdReset { return finish(.reset) }
        resume()
    }

    private mutating func respond(to tag: UInt32, _ response: TaskManagementResponse) {
        var pdu = TaskManagementResponsePDU()
        pdu.tag = tag
        pdu.response = response.rawValue
        pdu.numbers = numbers(consumingStatus: true)
        send(encoder.frame(pdu.header))
    }
}
