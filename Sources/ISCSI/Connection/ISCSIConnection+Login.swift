import AshlarCore
import NIOCore

extension ISCSIConnection {
    mutating func handleLogin(_ frame: Frame) {
        guard login != nil else { return }
        guard frame.header.opcode == .loginRequest, frame.additional == nil else {
            if let step = login?.receivedOther(tag: frame.header.tag) { run(step) }
            return
        }
        let request = LoginRequestPDU(frame.header)
        if !hasCommandNumber {
            hasCommandNumber = true
            expectedCommand = request.commandNumber
        }
        if let step = login?.received(request, frame.data) { run(step) }
    }

    /// The target exists: the answer to ``ISCSIAction/resolveTarget(_:)``.
    public mutating func targetResolved(_ target: ResolvedTarget) {
        guard phase == .login, let step = login?.resolved(target) else { return }
        run(step)
    }

    /// The session is open at the back end: the answer to ``ISCSIAction/openSession(_:)``.
    ///
    /// Where the connection has gone meanwhile, the session ends at once by an action.
    public mutating func sessionOpened(tsih: UInt16) {
        guard isOpening else { return }
        isOpening = false
        guard phase == .login, let step = login?.opened(tsih: tsih) else {
            actions.append(.sessionEnded(.connectionClosed))
            return
        }
        run(step)
    }

    /// Refuses the login: an answer to ``ISCSIAction/resolveTarget(_:)`` and ``ISCSIAction/openSession(_:)``.
    public mutating func loginRefused(_ status: LoginStatus) {
        isOpening = false
        guard phase == .login, let step = login?.refused(status) else { return }
        run(step)
    }

    /// Sends the initiator elsewhere: an answer to ``ISCSIAction/resolveTarget(_:)`` and
    /// ``ISCSIAction/openSession(_:)``.
    ///
    /// - Parameters:
    ///   - address: `host:port` or `host:port,tag`.
    ///   - permanently: Whether the initiator should remember it.
    public mutating func loginRedirected(to address: String, permanently: Bool) {
        isOpening = false
        let status = permanently ? LoginStatus.movedPermanently : .movedTemporarily
        guard phase == .login, let step = login?.refused(status, address: address) else { return }
        run(step)
    }

    private mutating func run(_ step: LoginMachine.Step) {
        switch step {
        case .respond(var response, let text):
            sendLogin(&response, text)
        case .refuse(var response, let text, let reason):
            nameThePeer()
            note(.warning, "login refused with \(LoginStatus(code: response.status)): \(reason)")
            sendLogin(&response, text)
            finish(.protocolError)
        case .resolve(let identity):
            nameThePeer()
            actions.append(.resolveTarget(identity))
        case .open(let parameters):
            nameThePeer()
            isOpening = true
            actions.append(.openSession(parameters))
        case .finish(var response, let text, let parameters):
            sendLogin(&response, text)
            enterFullFeature(parameters)
        }
    }

    private mutating func sendLogin(_ response: inout LoginResponsePDU, _ text: ByteBuffer?) {
        response.numbers = numbers(consumingStatus: true)
        send(encoder.frame(response.header, data: text))
    }

    private mutating func enterFullFeature(_ parameters: SessionParameters) {
        login = nil
        self.parameters = parameters
        hasSession = true
        phase = .fullFeature
        lastHeard = now
        lastProof = now
        encoder.headerDigest = parameters.headerDigest
        encoder.dataDigest = parameters.dataDigest
        decoder.headerDigest = parameters.headerDigest
        decoder.dataDigest = parameters.dataDigest
        decoder.dataSegmentMaximumBytes = parameters.maxRecvDataSegmentLength
        let kind = parameters.identity.sessionType == .normal ? "session" : "discovery session"
        note(.debug, "\(kind) opened, target \(Self.printable(parameters.identity.targetName ?? "none"))")
    }

    private mutating func nameThePeer() {
        guard let name = login?.identity?.initiatorName else { return }
        peerName = Self.printable(name)
    }

    /// Text of a peer as it may stand in a log line.
    static func printable(_ text: String) -> String {
        let safe = text.unicodeScalars.prefix(ISCSILimits.noteTextMaximumBytes).map { scalar in
            scalar.properties.generalCategory == .control || scalar.properties.generalCategory == .format
                ? "?" : String(scalar)
        }
        return safe.joined()
    }
}
