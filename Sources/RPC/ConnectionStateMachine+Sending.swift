public import AshlarCore
import DequeModule
public import NIOCore

extension RPCConnectionStateMachine {
    /// A frame of the application that waits for credit.
    struct WaitingFrame {
        var header: RPCFrameHeader
        var deadline: MonotonicTime?
        var body: ByteBuffer
        var payload: [ByteBuffer]
    }

    /// A slot for a request of this end.
    struct OutboundSlot {
        enum State: UInt8 {
            case free
            /// Begun; its bytes are being made.
            case encoding
            /// Waits for credit.
            case waiting
            /// Its deadline passed while it waited: never leaves.
            case dropped
            /// On the wire.
            case sent
            /// Its deadline passed on the wire: the answer will be thrown away.
            case abandoned
        }

        var id: UInt64
        var deadline: MonotonicTime?
        var type: RPCMessageType
        var state: State
    }

    /// What is to become of a frame of the application whose bytes are made.
    public enum Admission: Sendable {
        /// Write it now, with this header, behind everything written before.
        case write(RPCFrameHeader)
        /// Hand it to `wait(_:_:)`.
        case wait
        /// A request: drop it; its completion gets the failure. It is no longer in flight.
        case refuse(RPCFailure)
        /// An answer: drop it and close the connection.
        case close(RPCCloseReason)
        /// An answer that nobody waits for any more: drop it.
        case drop
    }

    // MARK: - Requests

    /// Takes a slot for a request.
    ///
    /// - Throws: ``RPCFailure`` of kind `notSent` where the connection does not stand, drains, or has as many requests
    ///   in flight as it may.
    public mutating func beginRequest(
        type: RPCMessageType,
        deadline: MonotonicTime?,
        now: MonotonicTime
    ) throws(RPCFailure) -> RPCRequestID {
        guard phase == .established else {
            throw RPCFailure(.notSent, mayHaveExecuted: false, "not connected")
        }
        guard !isPeerDraining, !isDraining else {
            throw RPCFailure(.notSent, mayHaveExecuted: false, "connection is draining")
        }
        if let deadline, deadline <= now {
            throw RPCFailure(.deadline, mayHaveExecuted: false, "deadline had passed before sending")
        }
        guard outboundInFlight < configuration.requestsInFlightMaximum else {
            throw RPCFailure(.notSent, mayHaveExecuted: false, "busy: \(outboundInFlight) requests in flight")
        }
        let slot: Int
        if let free = outboundFree.popLast() {
            slot = Int(free)
        } else {
            slot = outboundSlots.count
            outboundSlots.append(OutboundSlot(id: 0, deadline: nil, type: type, state: .free))
        }
        outboundSequence += 1
        outboundInFlight += 1
        let id = outboundSequence << RPCLimits.slotBits | UInt64(slot)
        outboundSlots[slot] = OutboundSlot(id: id, deadline: deadline, type: type, state: .encoding)
        if let deadline, deadline < earliestDeadline { earliestDeadline = deadline }
        return RPCRequestID(id)
    }

    /// The bytes of a request are made: `frameBytes` of them, header included.
    public mutating func requestEncoded(_ id: RPCRequestID, frameBytes: Int, now: MonotonicTime) -> Admission {
        precondition(outboundSlots[id.slot].id == id.rawValue, "a request is encoded once, after it was begun")
        precondition(outboundSlots[id.slot].state == .encoding, "a request is encoded once, after it was begun")
        guard frameBytes <= configuration.frameMaximumBytes else {
            releaseOutbound(id.slot)
            return .refuse(
                RPCFailure(.notSent, mayHaveExecuted: false, "request of \(frameBytes) bytes is too large")
            )
        }
        if waiting.isEmpty, frameBytes <= sendWindow {
            sendWindow -= frameBytes
            outboundSlots[id.slot].state = .sent
            return .write(requestHeader(id, frameBytes: frameBytes, now: now))
        }
        guard waitingRequestBytes + frameBytes <= configuration.waitingRequestBytesMaximum else {
            releaseOutbound(id.slot)
            return .refuse(
                RPCFailure(.notSent, mayHaveExecuted: false, "busy: \(waitingRequestBytes) bytes wait for credit")
            )
        }
        return .wait
    }

    /// Keeps a request, for which `requestEncoded` said `wait`, until there is credit.
    public mutating func wait(_ id: RPCRequestID, body: ByteBuffer, payload: [ByteBuffer]) {
        let slot = outboundSlots[id.slot]
        precondition(slot.id == id.rawValue && slot.state == .encoding, "only what was begun can wait")
        outboundSlots[id.slot].state = .waiting
        let length = Self.frameBytes(body: body, payload: payload)
        waitingRequestBytes += length
        waiting.append(
            WaitingFrame(
                header: RPCFrameHeader(
                    length: UInt32(length),
                    type: slot.type,
                    flags: 0,
                    id: id.rawValue,
                    word: 0,
                    credit: 0
                ),
                deadline: slot.deadline,
                body: body,
                payload: payload
            )
        )
    }

    private mutating func requestHeader(_ id: RPCRequestID, frameBytes: Int, now: MonotonicTime) -> RPCFrameHeader {
        let slot = outboundSlots[id.slot]
        return RPCFrameHeader(
            length: UInt32(frameBytes),
            type: slot.type,
            flags: 0,
            id: id.rawValue,
            word: Self.milliseconds(until: slot.deadline, now: now),
            credit: takeCredit()
        )
    }

    /// Milliseconds that are left, at least 1 where there is a deadline; 0 where there is none.
    static func milliseconds(until deadline: MonotonicTime?, now: MonotonicTime) -> UInt32 {
        guard let deadline else { return 0 }
        let milliseconds = deadline.nanoseconds(since: now) / 1_000_000
        return UInt32(clamping: max(1, milliseconds))
    }

    mutating func releaseOutbound(_ slot: Int) {
        outboundSlots[slot].state = .free
        outboundSlots[slot].id = 0
        outboundInFlight -= 1
        outboundFree.append(UInt16(slot))
    }

    mutating func expireRequests(now: MonotonicTime) -> [(id: RPCRequestID, mayHaveExecuted: Bool)] {
        var expired: [(id: RPCRequestID, mayHaveExecuted: Bool)] = []
        var earliest = MonotonicTime(.max)
        for index in outboundSlots.indices {
            guard let deadline = outboundSlots[index].deadline else { continue }
            let isSent = outboundSlots[index].state == .sent
            guard isSent || outboundSlots[index].state == .waiting else { continue }
            if deadline <= now {
                expired.append((RPCRequestID(outboundSlots[index].id), isSent))
                outboundSlots[index].state = isSent ? .abandoned : .dropped
            } else if deadline < earliest {
                earliest = deadline
            }
        }
        earliestDeadline = earliest
        return expired
    }

    // MARK: - Answers

    /// The bytes of an answer are made: `frameBytes` of them, header included. The request is finished with.
    ///
    /// An answer above the largest frame is a programming error of the application; use ``fitsFrame(_:)`` before.
    public mutating func answerEncoded(
        _ handle: RPCRequestHandle,
        status: RPCStatus,
        frameBytes: Int,
        now: MonotonicTime
    ) -> Admission {
        precondition(frameBytes <= configuration.frameMaximumBytes, "an answer must fit a frame")
        guard phase == .established else { return .drop }
        if waiting.isEmpty, frameBytes <= sendWindow {
            let type = releaseInbound(handle)
            sendWindow -= frameBytes
            return .write(
                Self.answerHeader(handle, type: type, status: status, frameBytes: frameBytes, credit: takeCredit())
            )
        }
        guard waitingAnswerBytes + frameBytes <= configuration.waitingAnswerBytesMaximum else {
            return .close(fail(RPCCloseReason(.overflow, "\(waitingAnswerBytes) bytes of answers wait for credit")))
        }
        return .wait
    }

    /// Keeps an answer, for which `answerEncoded` said `wait`, until there is credit.
    public mutating func wait(
        _ handle: RPCRequestHandle,
        status: RPCStatus,
        body: ByteBuffer,
        payload: [ByteBuffer]
    ) {
        let type = releaseInbound(handle)
        let length = Self.frameBytes(body: body, payload: payload)
        waitingAnswerBytes += length
        waiting.append(
            WaitingFrame(
                header: Self.answerHeader(handle, type: type, status: status, frameBytes: length, credit: 0),
                deadline: nil,
                body: body,
                payload: payload
            )
        )
    }

    /// Whether a frame of so many bytes, header included, may be sent at all.
    public func fitsFrame(_ frameBytes: Int) -> Bool { frameBytes <= configuration.frameMaximumBytes }

    private static func answerHeader(
        _ handle: RPCRequestHandle,
        type: RPCMessageType,
        status: RPCStatus,
        frameBytes: Int,
        credit: UInt32
    ) -> RPCFrameHeader {
        RPCFrameHeader(
            length: UInt32(frameBytes),
            type: type,
            flags: RPCFrameHeader.answerFlag,
            id: handle.id,
            word: status.rawValue,
            credit: credit
        )
    }

    private mutating func releaseInbound(_ handle: RPCRequestHandle) -> RPCMessageType {
        let index = Int(handle.slot)
        precondition(
            inboundSlots.indices.contains(index) && inboundSlots[index].id == handle.id,
            "a request is answered exactly once"
        )
        let slot = inboundSlots[index]
        inboundSlots[index].id = 0
        inboundFree.append(handle.slot)
        inboundInFlight -= 1
        pendingCredit += slot.frameBytes
        return slot.type
    }

    // MARK: - Waiting

    static func frameBytes(body: ByteBuffer, payload: [ByteBuffer]) -> Int {
        payload.reduce(RPCFrameHeader.byteCount + body.readableBytes) { $0 + $1.readableBytes }
    }

    /// The first frame that waits, where the window has room for it.
    mutating func nextWaitingFrame(now: MonotonicTime) -> RPCOutboundFrame? {
        while let first = waiting.first {
            let length = Int(first.header.length)
            let slot = RPCRequestID(first.header.id).slot
            let isRequest = !first.header.isAnswer
            if isRequest, outboundSlots[slot].state == .dropped {
                waiting.removeFirst()
                waitingRequestBytes -= length
                releaseOutbound(slot)
                continue
            }
            guard length <= sendWindow else { return nil }
            waiting.removeFirst()
            sendWindow -= length
            var header = first.header
            if isRequest {
                waitingRequestBytes -= length
                outboundSlots[slot].state = .sent
                header.word = Self.milliseconds(until: first.deadline, now: now)
            } else {
                waitingAnswerBytes -= length
            }
            header.credit = takeCredit()
            return RPCOutboundFrame(header: header, body: first.body, payload: first.payload)
        }
        return nil
    }
}
