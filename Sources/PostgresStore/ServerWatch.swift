import AshlarCore
import Dispatch
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
        /// Whether what is known is going to be kept.
        var isKeeping = false
        /// What was kept last.
        var kept: ServerMemory?
    }

    private let state: NIOLockedValueBox<State>
    private let logger: Logger
    private let memory: ServerMemoryFile?
    /// Why no server can be taken: what an earlier process has known is not to be had.
    private let obstacle: String?
    /// Where files are written, which may take long: on the thread of no connection.
    private let queue = DispatchQueue(label: "ashlar.server-memory")

    init(memory: ServerMemoryFile? = nil, logger: Logger) {
        self.logger = logger
        self.memory = memory
        var state = State()
        var obstacle: String?
        do throws(PostgresError) {
            if let known = try memory?.read() {
                state.history = ServerHistory(known)
                state.kept = known
            }
        } catch {
            obstacle = error.message
        }
        self.obstacle = obstacle
        self.state = NIOLockedValueBox(state)
    }

    /// Keeps what is known, and waits for that. Blocks.
    func shutdown() {
        guard memory != nil else { return }
        queue.sync { keepNow() }
    }

    /// Keeps what is known: at once, or together with what else comes to be known within a second.
    private func keep(isUrgent: Bool) {
        guard memory != nil else { return }
        if isUrgent { return queue.async { self.keepNow() } }
        let isFirst = state.withLockedValue { state in
            defer { state.isKeeping = true }
            return !state.isKeeping
        }
        guard isFirst else { return }
        let delay = DispatchTimeInterval.milliseconds(PostgresStoreLimits.serverMemoryLagMilliseconds)
        queue.asyncAfter(deadline: .now() + delay) { self.keepNow() }
    }

    /// On the queue.
    private func keepNow() {
        let known = state.withLockedValue { state -> ServerMemory? in
            state.isKeeping = false
            return state.history.memory == state.kept ? nil : state.history.memory
        }
        guard let memory, let known else { return }
        do throws(PostgresError) {
            try memory.write(known)
            state.withLockedValue { $0.kept = known }
        } catch {
            logger.error(
                "what is known of PostgreSQL's server is not kept: a restart would forget it",
                metadata: ["reason": "\(error)"]
            )
        }
    }

    /// Why the server that was found last is refused.
    var refusal: String? { state.withLockedValue { $0.refusal } }

    func noteAcknowledged(_ position: WALPosition) {
        state.withLockedValue { $0.history.noteAcknowledged(position) }
        keep(isUrgent: false)
    }

    func needsBranches(of server: ServerState) -> Bool {
        state.withLockedValue { $0.history.needsBranches(of: server) }
    }

    /// Takes a server in, or says why not.
    func refusal(of server: ServerState, branches: [TimelineBranch]?, allowsLoss: Bool) -> String? {
        if let obstacle { return obstacle }
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
        keep(isUrgent: true)
        guard let refusal, let memory else { return refusal }
        return refusal + " (remembered in \(memory.path))"
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
