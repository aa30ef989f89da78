import AshlarCore

// What is asked of the server next, and what its answers mean.
extension ISNSClient {
    /// Works out what must be registered and removed so that the server has the wanted nodes.
    mutating func plan(stale: Set<String> = []) {
        guard let wanted else { return }
        let missing = wanted.values.filter { registered[$0.name] != $0 && !refused.contains($0.name) }
        additions = missing.sorted { $0.name < $1.name }
        singly = 0
        let known = stale.union(removals).union(registered.keys)
        removals = known.filter { wanted[$0] == nil }.sorted()
        isChangeUntold = isChangeUntold || !additions.isEmpty || !removals.isEmpty
    }

    /// Sends the next request, where there is one and none is in flight.
    mutating func advance(_ now: MonotonicTime) {
        listWhereDue(now)
        guard inFlight == nil else { return }
        switch phase {
        case .stopping(let step, let deadline): return advanceStop(step, deadline, now)
        case .connected: break
        case .idle, .connecting, .waiting, .stopped: return
        }
        guard let wanted else { return }
        if !isInspected, let asker = source ?? wanted.keys.min() { return inspect(asker, wanted.count, now) }
        if wanted.isEmpty {
            if let source {
                send(.removeEntity, now) { [entity = configuration.entity] in
                    DeviceDeregistration(source: source, objects: [.entity(entity)]).message(transactionID: $0)
                }
            }
            return
        }
        if !additions.isEmpty { return register(now) }
        guard let source = sourceThatStays() else { return }
        if !removals.isEmpty {
            let names = Array(removals.prefix(ISNSLimits.nodesInDeregistrationMaximum))
            return send(.removeNodes(names), now) {
                DeviceDeregistration(source: source, objects: names.map { .node($0) }).message(transactionID: $0)
            }
        }
        if isChangeUntold {
            isChangeUntold = false
            note(.info, "targets registered with the iSNS server: \(registered.count)")
        }
        guard configuration.inquiryPort != nil, subscribed != source else { return }
        send(.subscribe(source), now) {
            // Of a target's own domains, what is of interest to it: initiators that come, change and go.
            StateChangeRegistration(source: source, events: [.initiatorsAndSelf, .added, .removed, .updated])
                .message(transactionID: $0)
        }
    }

    private mutating func inspect(_ asker: String, _ count: Int, _ now: MonotonicTime) {
        let includesNames = count <= ISNSLimits.namesAskedForMaximum
        send(.inspect(includesNames: includesNames), now) { [entity = configuration.entity] in
            DeviceAttributeQuery(source: asker, entity: entity, includesNames: includesNames)
                .message(transactionID: $0)
        }
    }

    private mutating func register(_ now: MonotonicTime) {
        let count = singly > 0 ? 1 : ISNSLimits.nodesInRegistrationMaximum
        let targets = Array(additions.prefix(count))
        let portal = DeviceAttributeRegistration.Portal(
            portal: configuration.portal,
            inquiryPort: inquiriesAreRefused ? nil : configuration.inquiryPort,
            notificationPort: configuration.inquiryPort
        )
        let registration = DeviceAttributeRegistration(
            source: source ?? targets[0].name,
            entity: configuration.entity,
            portal: source == nil ? portal : nil,
            targets: targets,
            groupPortal: configuration.portal,
            groupTag: configuration.portalGroupTag
        )
        send(.register(targets, withPortal: source == nil), now) { registration.message(transactionID: $0) }
    }

    /// The source, which is replaced before it is removed.
    private mutating func sourceThatStays() -> String? {
        guard let current = source, let wanted, wanted[current] == nil else { return source }
        if let other = registered.keys.filter({ wanted[$0] != nil }).min() { source = other }
        return source
    }

    private mutating func advanceStop(_ step: StopStep, _ deadline: MonotonicTime, _ now: MonotonicTime) {
        guard let source, step != .done else { return finish() }
        switch step {
        case .portal:
            phase = .stopping(.othersAsked, deadline: deadline)
            send(.removePortal, now) { [portal = configuration.portal] in
                DeviceDeregistration(source: source, objects: [.portal(portal)]).message(transactionID: $0)
            }
        case .othersAsked:
            phase = .stopping(.done, deadline: deadline)
            send(.askForOthers, now) { [entity = configuration.entity] in
                DeviceAttributeQuery(source: source, entity: entity, includesNames: false).message(transactionID: $0)
            }
        case .entity:
            phase = .stopping(.done, deadline: deadline)
            send(.removeEntity, now) { [entity = configuration.entity] in
                DeviceDeregistration(source: source, objects: [.entity(entity)]).message(transactionID: $0)
            }
        case .done: break
        }
    }

    // MARK: Answers

    mutating func answered(_ request: Request, _ response: ISNSMessage, _ now: MonotonicTime) {
        let status = response.status ?? .messageFormatError
        switch request {
        case .inspect(let includesNames): inspected(response, status, includesNames, now)
        case .register(let targets, let withPortal): registrationAnswered(targets, withPortal, response, status, now)
        case .removeNodes(let names):
            if status != .successful { note(.warning, "iSNS deregistration refused: \(status)") }
            // What the server keeps in spite of it is found by the next inspection.
            for name in names { registered[name] = nil }
            removals.removeAll { names.contains($0) }
            if let last = source, names.contains(last) {
                source = nil
                subscribed = nil
            }
        case .removeEntity:
            if status != .successful { note(.warning, "iSNS deregistration of the entity refused: \(status)") }
            guard phase == .connected else { return }
            note(.info, "no target is left to be registered with the iSNS server")
            forget()
            plan()
        case .subscribe(let name):
            if status != .successful { note(.debug, "iSNS notifications refused: \(status)") }
            // A refusal is not repeated for the same node.
            subscribed = name
        case .removePortal:
            if status != .successful { note(.warning, "iSNS deregistration of the portal refused: \(status)") }
        case .askForOthers:
            let others = status == .successful ? DeviceAttributeQuery.Answer(response).portals : []
            let isAlone = others.subtracting([configuration.portal]).isEmpty
            let isKnown = [.successful, .noSuchEntry, .sourceUnknown].contains(status)
            if isAlone, isKnown, case .stopping(_, let deadline) = phase {
                phase = .stopping(.entity, deadline: deadline)
            }
        }
    }

    private mutating func inspected(
        _ response: ISNSMessage,
        _ status: ISNSStatus,
        _ includesNames: Bool,
        _ now: MonotonicTime
    ) {
        isInspected = true
        let answer = status == .successful ? DeviceAttributeQuery.Answer(response) : DeviceAttributeQuery.Answer()
        if let source {
            let hasSource = !includesNames || answer.names.contains(source)
            if !hasSource || !answer.portals.contains(configuration.portal) {
                note(.info, "the iSNS server does not have the registration any more; registering again")
                forget()
            }
        }
        // What was refused may be possible now.
        refused = []
        if !answer.names.isEmpty { seen(answer.names, now) }
        plan()
        listWhereDue(now)
    }

    private mutating func registrationAnswered(
        _ targets: [ISNSTarget],
        _ withPortal: Bool,
        _ response: ISNSMessage,
        _ status: ISNSStatus,
        _ now: MonotonicTime
    ) {
        if status == .successful {
            confirmed(periodSeconds: DeviceAttributeRegistration.registrationPeriodSeconds(response), now)
            if source == nil { source = targets[0].name }
            for target in targets { registered[target.name] = target }
            return leaveOut(targets)
        }
        if status == .inquiryNotAvailable, withPortal, !inquiriesAreRefused {
            inquiriesAreRefused = true
            return note(.info, "the iSNS server does not inquire")
        }
        refusalsInRow += 1
        guard refusalsInRow < ISNSLimits.refusalsMaximum else {
            return fail("registrations are refused: \(status)", now)
        }
        if targets.count > 1 {
            // One that cannot be registered must not keep the others away.
            singly = targets.count
            return
        }
        for target in targets {
            refused.insert(target.name)
            note(.warning, "iSNS registration of \(target.name) refused: \(status)")
        }
        leaveOut(targets)
    }

    /// Takes out of the additions what is settled. A list that came meanwhile has ordered them anew.
    private mutating func leaveOut(_ targets: [ISNSTarget]) {
        let settled = Set(targets)
        additions.removeAll { settled.contains($0) }
        singly = max(0, singly - targets.count)
    }
}
