import AshlarCore
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// What the connections of one store share: what is known of the server, and what is logged while it cannot be used.
///
/// Any thread.
final class ServerWatch: Sendable {
    private struct State {
        var history = ServerHistory()
        var outage = OutageLog()
        var refusal: String?
    }

    private let state = NIOLockedValueBox(State())
    private let logger: Logger

    init(logger: Logger) { self.logger = logger }

    /// Why the server that was found last is refused.
    var refusal: String? { state.withLockedValue { $0.refusal } }

    func noteAcknowledged(_ position: WALPosition) {
        state.withLockedValue { $0.history.noteAcknowledged(position) }
    }

    func needsBranches(of server: ServerState) -> Bool {
        state.withLockedValue { $0.history.needsBranches(of: server) }
    }

    /// Takes a server in, or says why not.
    func refusal(of server: ServerState, branches: [TimelineBranch]?, allowsLoss: Bool) -> String? {
        let (refusal, timelines) = state.withLockedValue { state in
            let old = state.history.server?.timeline
            let refusal = state.history.refusal(of: server, branches: branches, allowsLoss: allowsLoss)
            return (refusal, old.flatMap { $0 < server.timeline && refusal == nil ? ($0, server.timeline) : nil })
        }
        if let (old, new) = timelines {
            let proof: Logger.MetadataValue =
                branches == nil
                ? "its history may not be read, only where its log ends was compared" : "its history has them"
            logger.warning(
                "another PostgreSQL server has been promoted",
                metadata: ["timeline": "\(new)", "before": "\(old)", "acknowledged writes": proof]
            )
        }
        return refusal
    }

    /// No host could be used: why the first one that answered is refused; nil where none answered.
    func found(refusal: String?) { state.withLockedValue { $0.refusal = refusal } }

    /// A connection could not be made, or broke.
    func failed(lane: String, _ error: PostgresError) {
        let (line, isRefused) = state.withLockedValue { state in
            (state.outage.failed(error.description, now: Self.now), state.refusal != nil)
        }
        log(line, lane: lane, level: isRefused ? .error : .warning)
    }

    /// A connection was made.
    func connected() {
        let line = state.withLockedValue { state in
            state.refusal = nil
            return state.outage.succeeded(now: Self.now)
        }
        log(line, lane: "", level: .notice)
    }

    private func log(_ line: OutageLog.Line?, lane: String, level: Logger.Level) {
        switch line {
        case .began(let reason):
            logger.log(level: level, "PostgreSQL cannot be used", metadata: ["lane": "\(lane)", "reason": "\(reason)"])
        case .lasts(let reason, let failures, let milliseconds):
            logger.log(
                level: level,
                "PostgreSQL still cannot be used",
                metadata: [
                    "reason": "\(reason)", "attempts": "\(failures)", "for": "\(milliseconds / 1_000) s",
                ]
            )
        case .ended(let failures, let milliseconds):
            logger.notice(
                "PostgreSQL can be used again",
                metadata: ["attempts": "\(failures)", "after": "\(milliseconds) ms"]
            )
        case nil: break
        }
    }

    private static var now: MonotonicTime {
        MonotonicTime(NIODeadline.now().uptimeNanoseconds)
    }
}
