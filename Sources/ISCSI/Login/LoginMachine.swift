import AshlarCore
package import NIOCore

/// A login on one connection (RFC 7143, 6 and 11.12): requests in, responses or questions for the shell out.
///
/// | stage | waits for | left by |
/// | --- | --- | --- |
/// | `first` | the first request | names are there: `resolving`, or at once `negotiating` for a discovery session |
/// | `resolving` | the shell's word on the target | `negotiating`, or refused |
/// | `negotiating` | requests | T bit towards full feature: `opening` |
/// | `opening` | the shell's word on the session | finished, or refused |
///
/// Whatever is refused is final: the caller sends the response and closes.
package struct LoginMachine: Sendable {
    /// What the caller has to do.
    package enum Step: Sendable {
        /// Send this response and wait for the next request.
        case respond(LoginResponsePDU, ByteBuffer?)
        /// Send this response and close.
        case refuse(LoginResponsePDU, ByteBuffer?, reason: String)
        /// Ask the shell for the target.
        case resolve(LoginIdentity)
        /// Ask the shell to open the session.
        case open(SessionParameters)
        /// Send this response; the connection is in full feature phase with these parameters.
        case finish(LoginResponsePDU, ByteBuffer?, SessionParameters)
    }

    private enum Stage: Sendable {
        case first
        case resolving
        case negotiating
        case opening
        case over
    }

    private let configuration: ISCSIConfiguration
    private let randomBytes: [UInt8]
    private let hash: CHAPMachine.Hash

    private var stage = Stage.first
    private var gatherer = TextGatherer()
    private var requests = 0
    private var request = LoginRequestPDU()
    /// The stage of the login itself: that of the last answer's NSG, or of the first request.
    private var current: UInt8 = 0
    private var pending: [TextKey] = []
    private var answer: [TextKey] = []
    /// Every key that came so far.
    private var seen: [String: String] = [:]
    private var rules = AccessRules()
    private var alias: String?
    private var negotiation: KeyNegotiation?
    private var chap: CHAPMachine?
    /// Whether nothing more has to be proved.
    private var isAuthenticated = false
    private var hasDeclaredPortal = false
    private var hasDeclaredSegment = false

    /// Who logs in, as far as it is known.
    package private(set) var identity: LoginIdentity?

    /// A login that waits for its first request.
    package init(configuration: ISCSIConfiguration, randomBytes: [UInt8], hash: @escaping CHAPMachine.Hash) {
        self.configuration = configuration
        self.randomBytes = randomBytes
        self.hash = hash
    }

    // MARK: Events

    /// A login request came.
    package mutating func received(_ request: LoginRequestPDU, _ data: ByteBuffer) -> Step {
        let previous = self.request
        self.request = request
        requests += 1
        if stage == .first, requests == 1 {
            if let refusal = checkFirst() { return refusal }
        } else {
            guard stage == .first || stage == .negotiating else {
                return refuse(.initiatorError, "a request came before the last was answered")
            }
            guard request.isid == previous.isid, request.tsih == previous.tsih,
                request.connectionID == previous.connectionID
            else { return refuse(.initiatorError, "ISID, TSIH or CID changed during the login") }
        }
        guard requests <= ISCSILimits.loginRequestsMaximum else { return refuse(.initiatorError, "too many requests") }
        if let refusal = checkStages() { return refusal }
        do throws(TextFailure) {
            guard let text = try gatherer.add(data, continues: request.continues) else {
                return .respond(response(isTransit: false), nil)
            }
            let keys = try TextKeys.decode(text)
            try remember(keys)
            return process(keys)
        } catch {
            return refuse(.initiatorError, "bad text: \(error)")
        }
    }

    /// The shell knows the target.
    package mutating func resolved(_ target: ResolvedTarget) -> Step? {
        guard stage == .resolving else { return nil }
        rules = target.access
        alias = target.alias ?? configuration.targetAlias
        negotiation?.parameters.portalGroupTag = target.portalGroupTag ?? configuration.portalGroupTag
        return admit()
    }

    /// The shell opened the session.
    package mutating func opened(tsih: UInt16) -> Step? {
        guard stage == .opening, let negotiation else { return nil }
        precondition(tsih != 0, "TSIH 0 stands for no session")
        stage = .over
        var final = response(isTransit: true)
        final.tsih = tsih
        return .finish(final, encodedAnswer(), negotiation.parameters)
    }

    /// The shell refuses; `address` where the target moved.
    package mutating func refused(_ status: LoginStatus, address: String? = nil) -> Step? {
        guard stage == .resolving || stage == .opening else { return nil }
        answer = address.map { [TextKey("TargetAddress", $0)] } ?? []
        return refuse(status, "refused with \(status)")
    }

    /// A PDU came that has no place in a login.
    package mutating func receivedOther(tag: UInt32) -> Step {
        request.tag = tag
        return refuse(.invalidDuringLogin, "a PDU other than a login request came during the login")
    }

    /// No key is settled twice. Names may be repeated as they are: some initiators do so in each stage.
    private mutating func remember(_ keys: [TextKey]) throws(TextFailure) {
        for key in keys {
            guard let earlier = seen.updateValue(key.value, forKey: key.name) else { continue }
            switch key.name {
            case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName":
                guard earlier == key.value else { throw .duplicate(key.name) }
            default:
                throw .duplicate(key.name)
            }
        }
    }

    // MARK: Checks

    private mutating func checkFirst() -> Step? {
        guard request.versionMinimum == 0 else {
            return refuse(.unsupportedVersion, "version \(request.versionMinimum) is not supported")
        }
        guard request.tsih == 0 else {
            return refuse(.sessionDoesNotExist, "there is no session \(request.tsih) to join")
        }
        current = request.currentStage
        return nil
    }

    private mutating func checkStages() -> Step? {
        let next = request.nextStage
        guard request.currentStage == current, current <= LoginStage.operationalNegotiation.rawValue else {
            return refuse(.initiatorError, "the current stage is wrong")
        }
        guard !(request.isTransit && request.continues) else {
            return refuse(.initiatorError, "the T and C bits exclude each other")
        }
        if request.isTransit {
            let allowed = next == LoginStage.fullFeature.rawValue || (next == 1 && current == 0)
            guard allowed else { return refuse(.initiatorError, "the next stage is wrong") }
        }
        return nil
    }

    // MARK: Names

    private mutating func process(_ keys: [TextKey]) -> Step {
        guard stage == .first else { return negotiate(keys) }
        pending = keys
        let values = Dictionary(keys.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
        guard let initiator = values["InitiatorName"], !initiator.isEmpty else {
            return refuse(.missingParameter, "InitiatorName is missing")
        }
        guard let type = SessionType(rawValue: values["SessionType"] ?? "Normal") else {
            return refuse(.sessionTypeNotSupported, "the session type is unknown")
        }
        let target = values["TargetName"]
        guard type == .discovery || target?.isEmpty == false else {
            return refuse(.missingParameter, "TargetName is missing")
        }
        for name in [initiator, target, values["InitiatorAlias"]].compactMap(\.self) {
            guard name.utf8.count <= 255 else { return refuse(.initiatorError, "a name is too long") }
        }
        guard initiator.utf8.count <= ISCSILimits.nameMaximumBytes,
            target?.utf8.count ?? 0 <= ISCSILimits.nameMaximumBytes
        else { return refuse(.initiatorError, "a name is too long") }
        let identity = LoginIdentity(
            initiatorName: initiator,
            initiatorAlias: values["InitiatorAlias"],
            isid: request.isid,
            targetName: target,
            sessionType: type
        )
        self.identity = identity
        var negotiation = KeyNegotiation(configuration: configuration, identity: identity)
        negotiation.parameters.connectionID = request.connectionID
        self.negotiation = negotiation
        guard type == .normal else {
            // It shows all targets, whichever it names: the rules of one do not let in here.
            rules = configuration.discoveryAccess
            hasDeclaredPortal = target == nil
            return admit()
        }
        stage = .resolving
        return .resolve(identity)
    }

    /// The rules are known: lets the initiator in by name, and goes on with the keys of the first request.
    private mutating func admit() -> Step {
        stage = .negotiating
        guard let identity, rules.lists(identity.initiatorName) else {
            return refuse(.authorizationFailure, "the initiator is not on the access list")
        }
        isAuthenticated = rules.credentials.isEmpty
        let keys = pending
        pending = []
        return negotiate(keys)
    }

    // MARK: Negotiation

    private mutating func negotiate(_ keys: [TextKey]) -> Step {
        answer = []
        declareTarget()
        let isSecurity = current == LoginStage.securityNegotiation.rawValue
        if let refusal = isSecurity ? negotiateSecurity(keys) : negotiateOperation(keys) { return refusal }
        guard fitsAnswer else { return refuse(.initiatorError, "too many keys") }
        let isSure = isAuthenticated && isSecurityComplete
        guard request.isTransit, isSure else {
            // Without proof nobody leaves the security stage, and nobody may begin behind it.
            if !isSecurity && !isSure { return refuse(.authenticationFailure, "authentication is required") }
            return .respond(response(isTransit: false), encodedAnswer())
        }
        if request.nextStage == LoginStage.fullFeature.rawValue { return open() }
        current = request.nextStage
        return .respond(response(isTransit: true), encodedAnswer())
    }

    private var isSecurityComplete: Bool { chap?.isDone ?? true }

    private mutating func declareTarget() {
        guard !hasDeclaredPortal, let negotiation else { return }
        hasDeclaredPortal = true
        if let alias { answer.append(TextKey("TargetAlias", alias)) }
        answer.append(TextKey("TargetPortalGroupTag", String(negotiation.parameters.portalGroupTag)))
    }

    private mutating func open() -> Step {
        guard let parameters = negotiation?.parameters, negotiation?.satisfiesPolicy == true else {
            return refuse(.initiatorError, "a digest is required")
        }
        var settled = parameters
        settled.firstBurstLength = min(settled.firstBurstLength, settled.maxBurstLength)
        settled.authenticatedName = chap?.authenticatedName
        negotiation?.parameters = settled
        stage = .opening
        return .open(settled)
    }

    private mutating func negotiateSecurity(_ keys: [TextKey]) -> Step? {
        var chapKeys: [String: String] = [:]
        for key in keys {
            switch key.name {
            case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName":
                continue
            case "AuthMethod":
                if let refusal = chooseMethod(key.value) { return refusal }
            case "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C":
                chapKeys[key.name] = key.value
            default:
                if KeyNegotiation.isKnown(key.name) {
                    return refuse(.initiatorError, "\(key.name) in the security stage")
                }
                answer.append(TextKey(key.name, "NotUnderstood"))
            }
        }
        guard chap != nil else {
            guard chapKeys.isEmpty else { return refuse(.initiatorError, "CHAP keys without AuthMethod=CHAP") }
            guard isAuthenticated || !request.isTransit else {
                return refuse(.authenticationFailure, "authentication is required")
            }
            return nil
        }
        do throws(CHAPMachine.Failure) {
            if let more = try chap?.received(chapKeys) { answer += more }
            isAuthenticated = chap?.isDone ?? false
            return nil
        } catch {
            return refuse(.authenticationFailure, error.rawValue)
        }
    }

    private mutating func chooseMethod(_ value: String) -> Step? {
        let offered = TextValue.list(value)
        if !rules.credentials.isEmpty {
            guard offered.contains("CHAP") else {
                return refuse(.authenticationFailure, "the initiator does not offer CHAP")
            }
            chap = CHAPMachine(
                rules: rules,
                accepted: configuration.chapAlgorithms,
                randomBytes: randomBytes,
                hash: hash
            )
            answer.append(TextKey("AuthMethod", "CHAP"))
            return nil
        }
        guard offered.contains("None") else {
            return refuse(.authenticationFailure, "the initiator insists on CHAP, and no credentials are set")
        }
        answer.append(TextKey("AuthMethod", "None"))
        return nil
    }

    private mutating func negotiateOperation(_ keys: [TextKey]) -> Step? {
        for key in keys {
            switch key.name {
            case "InitiatorName", "InitiatorAlias", "SessionType", "TargetName":
                continue
            case "AuthMethod", "CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C":
                return refuse(.initiatorError, "\(key.name) outside of the security stage")
            case "SendTargets", "TargetAlias", "TargetAddress", "TargetPortalGroupTag":
                return refuse(.initiatorError, "\(key.name) is not for an initiator to send in a login")
            default:
                guard let outcome = negotiation?.settle(key) else { continue }
                switch outcome {
                case .answer(let value): answer.append(TextKey(key.name, value))
                case .declared: continue
                case .invalid: return refuse(.initiatorError, "the value of \(key.name) is out of range")
                }
            }
        }
        limitFirstBurst()
        if !hasDeclaredSegment {
            hasDeclaredSegment = true
            let length = configuration.maxRecvDataSegmentLength
            negotiation?.parameters.maxRecvDataSegmentLength = length
            answer.append(TextKey("MaxRecvDataSegmentLength", String(length)))
        }
        return nil
    }

    /// FirstBurstLength must not exceed MaxBurstLength (RFC 7143, 13.14), whichever of them came first.
    private mutating func limitFirstBurst() {
        guard let parameters = negotiation?.parameters, parameters.firstBurstLength > parameters.maxBurstLength else {
            return
        }
        guard let index = answer.firstIndex(where: { $0.name == "FirstBurstLength" && $0.value != "Reject" }) else {
            // Not in this answer: the parameters are limited when the session opens.
            return
        }
        negotiation?.parameters.firstBurstLength = parameters.maxBurstLength
        answer[index] = TextKey("FirstBurstLength", String(parameters.maxBurstLength))
    }

    // MARK: Responses

    private func response(isTransit: Bool) -> LoginResponsePDU {
        var response = LoginResponsePDU()
        response.isTransit = isTransit
        response.currentStage = request.currentStage
        response.nextStage = isTransit ? request.nextStage : 0
        response.isid = request.isid
        response.tsih = request.tsih
        response.tag = request.tag
        return response
    }

    private func encodedAnswer() -> ByteBuffer? {
        answer.isEmpty ? nil : TextKeys.encode(answer)
    }

    /// Whether the answer is no more than an initiator takes during a login.
    private var fitsAnswer: Bool {
        answer.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count + 2 } <= ISCSILimits.loginDataSegmentBytes
    }

    private mutating func refuse(_ status: LoginStatus, _ reason: String) -> Step {
        stage = .over
        var refusal = LoginResponsePDU()
        refusal.currentStage = request.currentStage
        refusal.isid = request.isid
        refusal.tsih = request.tsih
        refusal.tag = request.tag
        refusal.status = status.code
        let isRedirect = status.code >> 8 == 1
        return .refuse(refusal, isRedirect ? encodedAnswer() : nil, reason: reason)
    }
}
