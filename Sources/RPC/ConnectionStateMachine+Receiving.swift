public import AshlarCore
import DequeModule
import NIOCore

extension RPCConnectionStateMachine {
    /// A slot for a request of the peer.
    struct InboundSlot {
        var id: UInt64
        var frameBytes: Int
        var type: RPCMessageType
    }

    /// What a frame has brought.
    public enum ReceiveAction: Sendable {
        /// Nothing for the application.
        case none
        /// The handshake is done.
        case established(RPCRemote)
        /// Hand it to the application, which answers it.
        case request(RPCRequest)
        /// Complete the request of this end; then call `answerFinished(frameBytes:)`.
        case answer(RPCRequestID, RPCAnswer, frameBytes: Int)
        /// The peer drains: fail these requests, which it has not executed and will not.
        case draining(RPCCloseReason, notExecuted: [RPCRequestID])
        /// Write what `nextFrame(now:)` gives, then close.
        case close(RPCCloseReason)
    }

    /// A frame has arrived.
    public mutating func received(_ frame: RPCFrame, now: MonotonicTime) -> ReceiveAction {
        lastReceivedAt = now
        switch phase {
        case .idle: preconditionFailure("a frame before the start")
        case .closed: return .none
        case .handshaking: return handshakeReceived(frame)
        case .established: break
        }
        let header = frame.header
        guard header.flags & ~RPCFrameHeader.answerFlag == 0 else {
            return violation("unknown flags in a frame of type \(header.type)")
        }
        if header.credit > 0 {
            sendWindow += Int(header.credit)
            guard sendWindow <= peerWindow else {
                return .close(fail(RPCCloseReason(.flowControlViolation, "credit beyond the window")))
            }
        }
        if header.type.belongsToApplication {
            let length = Int(header.length)
            guard length <= receiveWindow else {
                return .close(
                    fail(RPCCloseReason(.flowControlViolation, "frame of \(length) bytes, window \(receiveWindow)"))
                )
            }
            receiveWindow -= length
            return header.isAnswer ? answerReceived(frame) : requestReceived(frame, now: now)
        }
        return controlReceived(frame)
    }

    /// The bytes that a shell could not cut into frames, or another reason to end that it found.
    public mutating func streamFailed(_ reason: RPCCloseReason) -> ReceiveAction {
        guard phase != .closed else { return .none }
        return .close(fail(reason))
    }

    /// The application is done with the bytes of an answer.
    public mutating func answerFinished(frameBytes: Int) {
        pendingCredit += frameBytes
    }

    /// A request that was kept back while too many answers waited; to be asked for after frames were written.
    public mutating func nextParkedRequest() -> RPCRequest? {
        guard phase == .established, !isCongested else { return nil }
        return parked.popFirst()
    }

    var isCongested: Bool { waitingAnswerBytes > configuration.waitingAnswerBytesHighWater }

    private mutating func violation(_ text: String) -> ReceiveAction {
        .close(fail(RPCCloseReason(.protocolViolation, text)))
    }

    // MARK: - Application

    private mutating func requestReceived(_ frame: RPCFrame, now: MonotonicTime) -> ReceiveAction {
        let header = frame.header
        guard header.id > lastAcceptedID || isDraining else { return violation("request ids must grow") }
        if isDraining {
            // Sent before the peer saw the goaway: it knows from the goaway's id that this was not executed.
            pendingCredit += Int(header.length)
            return .none
        }
        guard inboundInFlight < configuration.requestsInFlightMaximum else {
            return violation("more than \(inboundInFlight) requests in flight")
        }
        lastAcceptedID = header.id
        inboundInFlight += 1
        let entry = InboundSlot(id: header.id, frameBytes: Int(header.length), type: header.type)
        let slot: UInt32
        if let free = inboundFree.popLast() {
            slot = free
            inboundSlots[Int(free)] = entry
        } else {
            slot = UInt32(inboundSlots.count)
            inboundSlots.append(entry)
        }
        let request = RPCRequest(
            handle: RPCRequestHandle(id: header.id, slot: slot),
            type: header.type,
            body: frame.body,
            deadline: header.word == 0 ? nil : now.advanced(byNanoseconds: UInt64(header.word) * 1_000_000)
        )
        guard parked.isEmpty, !isCongested else {
            parked.append(request)
            return .none
        }
        return .request(request)
    }

    private mutating func answerReceived(_ frame: RPCFrame) -> ReceiveAction {
        let id = RPCRequestID(frame.header.id)
        guard outboundSlots.indices.contains(id.slot), outboundSlots[id.slot].id == id.rawValue else {
            return violation("answer to an unknown request")
        }
        let slot = outboundSlots[id.slot]
        guard slot.state == .sent || slot.state == .abandoned else {
            return violation("answer to a request that was not sent")
        }
        guard slot.type == frame.header.type else {
            return violation("answer of type \(frame.header.type) to a request of type \(slot.type)")
        }
        releaseOutbound(id.slot)
        if slot.state == .abandoned {
            pendingCredit += Int(frame.header.length)
            return .none
        }
        let answer = RPCAnswer(
            type: frame.header.type,
            status: RPCStatus(rawValue: frame.header.word),
            body: frame.body
        )
        return .answer(id, answer, frameBytes: Int(frame.header.length))
    }

    // MARK: - Connection

    private mutating func controlReceived(_ frame: RPCFrame) -> ReceiveAction {
        switch frame.header.type {
        case .ping:
            if !frame.header.isAnswer {
                outgoingPong = frame.header.id
            } else if frame.header.id == awaitedPong {
                awaitedPong = nil
            }
            return .none
        case .credit:
            return .none
        case .goaway:
            return goawayReceived(frame)
        default:
            return violation("frame of type \(frame.header.type) on a connection that stands")
        }
    }

    private mutating func goawayReceived(_ frame: RPCFrame) -> ReceiveAction {
        var body = frame.body
        guard let goaway = try? RPCGoaway(decoding: &body) else { return violation("undecodable goaway") }
        let reason = RPCCloseReason(goaway.code, goaway.text, isFromPeer: true)
        guard goaway.code == .none else { return .close(fail(reason)) }
        isPeerDraining = true
        var notExecuted: [RPCRequestID] = []
        for index in outboundSlots.indices {
            let slot = outboundSlots[index]
            switch slot.state {
            case .waiting:
                notExecuted.append(RPCRequestID(slot.id))
                outboundSlots[index].state = .dropped
            case .sent where slot.id > goaway.lastAcceptedID:
                notExecuted.append(RPCRequestID(slot.id))
                releaseOutbound(index)
            case .abandoned where slot.id > goaway.lastAcceptedID:
                releaseOutbound(index)
            default:
                continue
            }
        }
        removeDropped()
        return .draining(reason, notExecuted: notExecuted)
    }

    /// Takes the requests out of the queue that must not leave any more.
    private mutating func removeDropped() {
        for frame in waiting where !frame.header.isAnswer {
            let slot = RPCRequestID(frame.header.id).slot
            guard outboundSlots[slot].id == frame.header.id, outboundSlots[slot].state == .dropped else { continue }
            waitingRequestBytes -= Int(frame.header.length)
            releaseOutbound(slot)
        }
        waiting.removeAll { frame in
            !frame.header.isAnswer
        }
    }

    // MARK: - Handshake

    private mutating func handshakeReceived(_ frame: RPCFrame) -> ReceiveAction {
        if frame.header.type == .goaway {
            var body = frame.body
            guard let goaway = try? RPCGoaway(decoding: &body) else { return violation("undecodable goaway") }
            return .close(fail(RPCCloseReason(goaway.code, goaway.text, isFromPeer: true)))
        }
        switch configuration.side {
        case .server(let acceptedRoles):
            guard frame.header.type == .hello, !frame.header.isAnswer else {
                return refuse(RPCCloseReason(.invalidHello, "first frame is of type \(frame.header.type)"))
            }
            return helloReceived(frame, acceptedRoles: acceptedRoles)
        case .client(let expectedRole, let expectedName):
            guard frame.header.type == .hello, frame.header.isAnswer else {
                return violation("frame of type \(frame.header.type) before the answer to hello")
            }
            return helloAnswerReceived(frame, expectedRole: expectedRole, expectedName: expectedName)
        }
    }

    private mutating func helloReceived(_ frame: RPCFrame, acceptedRoles: Set<Role>) -> ReceiveAction {
        var body = frame.body
        let hello: RPCHello
        do {
            hello = try RPCHello(decoding: &body)
        } catch {
            return refuse(RPCCloseReason(.invalidHello, "\(error)"))
        }
        if let reason = mismatch(hello) { return refuse(reason) }
        guard acceptedRoles.contains(hello.node.role) else {
            let accepted = acceptedRoles.map(\.rawValue).sorted().joined(separator: ", ")
            return refuse(
                RPCCloseReason(
                    .wrongRole,
                    "role \(hello.node.role.rawValue) may not connect to \(configuration.node.role.rawValue); "
                        + "accepted: \(accepted)"
                )
            )
        }
        let version = min(hello.versionMaximum, configuration.versions.upperBound)
        guard version >= hello.versionMinimum, version >= configuration.versions.lowerBound else {
            let own = configuration.versions
            return refuse(
                RPCCloseReason(
                    .noCommonVersion,
                    "peer speaks \(hello.versionMinimum) to \(hello.versionMaximum), "
                        + "\(configuration.node.role.rawValue) speaks \(own.lowerBound) to \(own.upperBound)"
                )
            )
        }
        var answer = ByteBuffer()
        RPCHelloAnswer.accepted(helloOfThisEnd(versions: version...version)).encode(into: &answer)
        outgoingHandshake = Self.frame(.hello, isAnswer: true, body: answer)
        return establish(hello, version: version)
    }

    private mutating func helloAnswerReceived(
        _ frame: RPCFrame,
        expectedRole: Role,
        expectedName: String?
    ) -> ReceiveAction {
        var body = frame.body
        let answer: RPCHelloAnswer
        do {
            answer = try RPCHelloAnswer(decoding: &body)
        } catch {
            return .close(fail(RPCCloseReason(.invalidHello, "answer to hello: \(error)")))
        }
        let hello: RPCHello
        switch answer {
        case .refused(let code, let text, _, _):
            return .close(fail(RPCCloseReason(code, text, isFromPeer: true)))
        case .accepted(let accepted):
            hello = accepted
        }
        if let reason = mismatch(hello) { return .close(fail(reason)) }
        guard hello.node.role == expectedRole else {
            return .close(
                fail(
                    RPCCloseReason(
                        .wrongRole,
                        "expected role \(expectedRole.rawValue), peer is \(hello.node.role.rawValue)"
                    )
                )
            )
        }
        if let expectedName, expectedName != hello.node.name {
            return .close(
                fail(RPCCloseReason(.wrongName, "expected node \(expectedName), peer is \(hello.node.name)"))
            )
        }
        let version = hello.versionMaximum
        guard hello.versionMinimum == version, configuration.versions.contains(version) else {
            return .close(fail(RPCCloseReason(.noCommonVersion, "peer chose version \(version)")))
        }
        return establish(hello, version: version)
    }

    /// What certificate, cluster and window have against this hello.
    private func mismatch(_ hello: RPCHello) -> RPCCloseReason? {
        guard let certified else {
            return RPCCloseReason(.identityMismatch, "the peer's certificate names no node")
        }
        guard certified.cluster == configuration.node.cluster, hello.node.cluster == configuration.node.cluster else {
            return RPCCloseReason(
                .wrongCluster,
                "peer is of cluster \(certified.cluster), this is \(configuration.node.cluster)"
            )
        }
        guard certified == hello.node else {
            return RPCCloseReason(
                .identityMismatch,
                "hello says \(hello.node.uri), certificate says \(certified.uri)"
            )
        }
        guard Int(hello.windowBytes) >= configuration.frameMaximumBytes else {
            return RPCCloseReason(.invalidHello, "window of \(hello.windowBytes) bytes holds no largest frame")
        }
        return nil
    }

    private mutating func refuse(_ reason: RPCCloseReason) -> ReceiveAction {
        var body = ByteBuffer()
        let answer = RPCHelloAnswer.refused(
            reason.code,
            text: reason.text,
            versionMinimum: configuration.versions.lowerBound,
            versionMaximum: configuration.versions.upperBound
        )
        answer.encode(into: &body)
        outgoingHandshake = Self.frame(.hello, isAnswer: true, body: body)
        return .close(fail(reason))
    }

    /// Refuses the peer before its hello was looked at: too many connections, or going out of service.
    public mutating func refusePeer(_ reason: RPCCloseReason) -> ReceiveAction {
        guard phase == .handshaking else { return .none }
        return refuse(reason)
    }

    private mutating func establish(_ hello: RPCHello, version: UInt16) -> ReceiveAction {
        phase = .established
        sendWindow = Int(hello.windowBytes)
        peerWindow = sendWindow
        return .established(
            RPCRemote(node: hello.node, version: version, features: hello.features & configuration.features)
        )
    }
}
