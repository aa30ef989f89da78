import AshlarCore

/// Where a login goes that a node does not serve.
enum LoginDestination {
    /// The node with the fewest sessions of those that receive logins and are not being drained; `nil` where there is none.
    ///
    /// Front doors are sent nothing, else two of them would send a login to and fro. They serve by themselves where no other
    /// node can: so a node that is being drained, and does not serve in such a case, sends there what is left.
    static func choose(among others: [TargetNodeState], servesIfThereIsNone: Bool) -> TargetNodeState? {
        let open = others.filter { !$0.isDraining }
        return least(open.filter(\.receivesLogins)) ?? (servesIfThereIsNone ? nil : least(open))
    }

    private static func least(_ nodes: [TargetNodeState]) -> TargetNodeState? {
        nodes.min { ($0.sessions, $0.name) < ($1.sessions, $1.name) }
    }
}
