import Synchronization

/// Lets jobs into the part between a put and its map, and lets a stop wait until the last has left it.
///
/// After ``close()`` nobody enters; who is inside finishes, so that no object that is put stays without its map for
/// want of time.
final class AgentGate: Sendable {
    private struct State {
        var isClosed = false
        var inside = 0
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    private let state = Mutex(State())

    /// Whether the agent stops.
    var isClosed: Bool { state.withLock { $0.isClosed } }

    /// - Returns: whether the caller is inside; then it must ``leave()``.
    func enter() -> Bool {
        state.withLock { state in
            guard !state.isClosed else { return false }
            state.inside += 1
            return true
        }
    }

    func leave() {
        let released = state.withLock { state in
            precondition(state.inside > 0, "nobody is inside who could leave")
            state.inside -= 1
            guard state.inside == 0 else { return [CheckedContinuation<Void, Never>]() }
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in released { continuation.resume() }
    }

    /// - Returns: whether it was open.
    @discardableResult
    func close() -> Bool {
        state.withLock { state in
            defer { state.isClosed = true }
            return !state.isClosed
        }
    }

    /// Waits until nobody is inside.
    func waitUntilEmpty() async {
        await withCheckedContinuation { continuation in
            let isEmpty = state.withLock { state in
                guard state.inside > 0 else { return true }
                state.waiting.append(continuation)
                return false
            }
            if isEmpty { continuation.resume() }
        }
    }
}
