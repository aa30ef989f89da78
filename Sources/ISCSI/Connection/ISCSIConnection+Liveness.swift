public import AshlarCore

/// Proof that the initiator lives (R1), in constant space.
///
/// A mark is the state of our numbers when the evidence was taken up. Whatever the initiator shows to have received
/// from behind the mark was sent after it, and so after the evidence arrived:
/// - an ExpStatSN above the mark's StatSN acknowledges a status that was not yet numbered at the mark;
/// - a transfer tag not below the mark's belongs to an R2T or a ping that was not yet made at the mark.
///
/// One mark is pending; evidence that arrives meanwhile waits as `latest` and gets its mark when the pending one is
/// proved. That mark is later than it need be, never earlier.
struct ProofTracker: Sendable {
    struct Mark: Sendable {
        var token: UInt64
        var status: UInt32
        var transferTag: UInt32
    }

    private(set) var pending: Mark?
    private var latest: UInt64?

    /// Evidence arrived.
    mutating func arrived(_ token: UInt64, status: UInt32, transferTag: UInt32) {
        if let latest, token <= latest { return }
        latest = token
        if pending == nil { pending = Mark(token: token, status: status, transferTag: transferTag) }
    }

    /// The initiator has every status below `expected`; returns what that proves.
    mutating func acknowledged(expected: UInt32, status: UInt32, transferTag: UInt32) -> UInt64? {
        guard let pending, Serial.isLess(pending.status, expected) else { return nil }
        return proved(pending, status, transferTag)
    }

    /// The initiator has the R2T or the ping of `tag`; returns what that proves.
    mutating func answered(_ tag: UInt32, status: UInt32, transferTag: UInt32) -> UInt64? {
        guard let pending, Serial.isLessOrEqual(pending.transferTag, tag) else { return nil }
        return proved(pending, status, transferTag)
    }

    private mutating func proved(_ mark: Mark, _ status: UInt32, _ transferTag: UInt32) -> UInt64 {
        pending = nil
        if let latest, latest > mark.token {
            pending = Mark(token: latest, status: status, transferTag: transferTag)
        }
        return mark.token
    }
}

extension ISCSIConnection {
    /// Evidence of the back end, numbered by `token`, arrived now (R1). Tokens only grow; others are ignored.
    ///
    /// ``ISCSIAction/proved(_:)`` follows once the initiator has shown that it received a PDU that was sent after this
    /// call.
    public mutating func stampArrived(_ token: UInt64) {
        guard phase != .closed else { return }
        if proof.pending == nil { lastProof = now }
        proof.arrived(token, status: statusNumber, transferTag: nextTransferTag)
    }

    /// ExpStatSN of a PDU. One that acknowledges what was never sent proves nothing.
    mutating func acknowledge(_ expected: UInt32) {
        guard Serial.isLess(acknowledgedStatus, expected) else { return }
        guard Serial.isLessOrEqual(expected, statusNumber) else {
            note(.debug, "ExpStatSN \(expected) is ahead of StatSN \(statusNumber)")
            return
        }
        acknowledgedStatus = expected
        emit(proof.acknowledged(expected: expected, status: statusNumber, transferTag: nextTransferTag))
    }

    /// Data answered an R2T that was outstanding.
    mutating func proveTransfer(_ tag: UInt32) {
        emit(proof.answered(tag, status: statusNumber, transferTag: nextTransferTag))
    }

    /// A NOP-Out answers a ping.
    mutating func pingAnswered(_ tag: UInt32) {
        guard pingTag == tag else {
            note(.debug, "a NOP-Out answers no ping")
            return
        }
        pingTag = nil
        emit(proof.answered(tag, status: statusNumber, transferTag: nextTransferTag))
        if isPingWanted {
            isPingWanted = false
            sendPing()
        }
    }

    private mutating func emit(_ token: UInt64?) {
        guard let token else { return }
        lastProof = now
        actions.append(.proved(token))
    }

    /// Pings the initiator now, or as soon as the ping under way is answered.
    public mutating func ping(now: MonotonicTime) {
        self.now = now
        guard phase == .fullFeature else { return }
        guard pingTag == nil else {
            isPingWanted = true
            return
        }
        sendPing()
    }

    private mutating func sendPing() {
        let tag = takeTransferTag()
        pingTag = tag
        pingSent = now
        var pdu = NopInPDU()
        pdu.transferTag = tag
        pdu.numbers = numbers(consumingStatus: false)
        send(encoder.frame(pdu.header))
    }

    /// Time passes: ends logins that take too long and sessions that do not answer, pings those that are idle.
    public mutating func tick(now: MonotonicTime) {
        self.now = now
        switch phase {
        case .closed:
            return
        case .login:
            guard now.nanoseconds(since: started) >= configuration.loginTimeoutNanoseconds else { return }
            note(.warning, "the login took too long")
            finish(.protocolError)
        case .fullFeature:
            if pingTag != nil {
                guard now.nanoseconds(since: pingSent) >= configuration.pingTimeoutNanoseconds else { return }
                note(.warning, "a ping was not answered in time")
                return finish(.pingTimeout)
            }
            let interval = configuration.pingIntervalNanoseconds
            let isIdle = now.nanoseconds(since: lastHeard) >= interval
            let isUnproved = proof.pending != nil && now.nanoseconds(since: lastProof) >= interval
            if isIdle || isUnproved { sendPing() }
        }
    }
}
