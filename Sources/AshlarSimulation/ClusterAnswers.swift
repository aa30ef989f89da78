import AshlarCore
import AshlarTestSupport
import Ownership

// What an initiator hears of its commands.
extension Cluster {
    func complete(
        _ request: ClusterRequest,
        _ outcome: NexusOutcome<ClusterAnswer>,
        _ session: ClusterSession
    ) {
        let index = request.operation
        session.inFlight = session.inFlight.filter { $0.value != index }
        fold(UInt64(index))
        fold(now)
        // An initiator that has gone hears nothing.
        guard !session.isInitiatorGone else { return }
        if operations[index].isRead, case .answered(.read(let runs, let payload)) = outcome {
            return assemble(request, runs, payload, session)
        }
        session.received = now
        if operations[index].isRead { readEnded(index, session) }
        session.isClearing = session.isClearing && operations[index].reservation == nil
        switch outcome {
        case .answered(.done): done(index, session)
        case .committedEarlier:
            count("committed earlier")
            done(index, session)
        case .aborted:
            count("aborted")
            operations[index].fate = .never
        case .answered(.miscompare):
            count("miscompare")
            operations[index].fate = .never
        case .answered(.read): count("read by what is no read")
        case .answered(.failed(.superseded)): count("superseded")
        case .answered(.failed(let refusal)):
            count("failed \(refusal)")
            operations[index].fate = .never
            operations[index].refusal = refusal
            switch refusal {
            case .attention, .outOfRange: operations[index].isExcused = true
            default: break
            }
            if refusal == .reservationConflict { keptOut(session) }
        }
        owners[index] = nil
    }

    private func done(_ index: Int, _ session: ClusterSession) {
        count("changes done")
        if operations[index].expected != nil { count("compared and written") }
        if operations[index].isOfCopy { count("copied") }
        operations[index].fate = .done
        operations[index].latest = min(operations[index].latest, now)
        if let reservation = operations[index].reservation { done(reservation, session) }
        guard operations[index].isReset else { return }
        count("reset done")
        for other in operations.indices
        where operations[other].fate == .open && operations[other].begun <= operations[index].begun {
            operations[other].latest = min(operations[other].latest, now)
        }
    }
}
