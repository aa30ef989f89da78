import AshlarCore
import Observability
import SCSI

/// What a target is as one node, however many event loops serve it: the connections and sessions of each loop, what the cluster
/// knows of its nodes, and whether this one is being drained. A value; ``SharedNode`` keeps the one of a process.
///
/// Nothing of it is asked for by commands that read or write.
struct NodeState: Sendable {
    /// What one event loop has.
    struct Share: Sendable, Hashable {
        /// Connections at the portal, logged in or not.
        var connections = 0
        /// Sessions that are logged in to a volume.
        var sessions = 0
        /// Whether one of its links to cache servers is connected.
        var isConnected = false
    }

    /// What an answer to a report changes for the sessions of all loops.
    struct News: Sendable, Hashable {
        /// Whether sessions are to go elsewhere from now on; nil: as before.
        var isDraining: Bool?
        /// Initiators are to be told that the state of a target port group is another one.
        var isAccessChanged = false
    }

    /// `address:port,tag` as SendTargets returns it.
    let portal: String
    private let name: String
    private let port: TargetPort
    private let redirect: LoginRedirect
    /// By loop.
    private(set) var shares: [Share]
    /// The targets that live, as the newest report told; this one is among them.
    private(set) var nodes: [TargetNodeState] = []
    /// Since when an operator wants the sessions to go elsewhere.
    private(set) var drainingSince: MonotonicTime?
    /// The states of the target port groups that initiators were told.
    private var lastStates: [UInt16: AsymmetricAccessState] = [:]
    private var reportsBegun: UInt64 = 0
    /// The newest report whose answer was taken.
    private var reportTaken: UInt64 = 0
    private var nextTSIH: UInt16 = 1

    init(name: String, portal: String, port: TargetPort, redirect: LoginRedirect, loops: Int) {
        precondition(loops > 0, "a target has a loop")
        self.name = name
        self.portal = portal
        self.port = port
        self.redirect = redirect
        shares = Array(repeating: Share(), count: loops)
    }

    // MARK: Connections

    /// The loop that a new connection is served by: the one with the fewest, and the first of these; nil where the portal takes no
    /// more.
    mutating func connectionArrived() -> Int? {
        let total = shares.reduce(0) { $0 + $1.connections }
        guard total < TargetLimits.connectionsMaximum else { return nil }
        guard let loop = shares.indices.min(by: { shares[$0].connections < shares[$1].connections }) else { return nil }
        shares[loop].connections += 1
        return loop
    }

    mutating func connectionEnded(on loop: Int) {
        precondition(shares[loop].connections > 0, "a connection ends once")
        shares[loop].connections -= 1
    }

    mutating func sessionOpened(on loop: Int) { shares[loop].sessions += 1 }

    mutating func sessionClosed(on loop: Int) {
        precondition(shares[loop].sessions > 0, "a session is closed once")
        shares[loop].sessions -= 1
    }

    mutating func linksChanged(on loop: Int, isConnected: Bool) { shares[loop].isConnected = isConnected }

    /// Whether every loop has a link to a cache server: a connection may come to any.
    var isReady: Bool { shares.allSatisfy(\.isConnected) }

    /// A target session identifying handle that is not 0 (RFC 7143, 11.12.6).
    mutating func takeTSIH() -> UInt16 {
        let handle = nextTSIH
        nextTSIH = nextTSIH == .max ? 1 : nextTSIH + 1
        return handle
    }

    // MARK: Nodes

    /// What is to be reported of this node, and the number of the report.
    mutating func beginReport() -> (number: UInt64, node: TargetNodeState) {
        reportsBegun += 1
        let node = TargetNodeState(
            name: name,
            portal: portal,
            port: port,
            release: ProgramRelease.current,
            sessions: UInt32(shares.reduce(0) { $0 + $1.sessions }),
            receivesLogins: redirect == .never
        )
        return (reportsBegun, node)
    }

    /// Takes the answer to a report in; nil where it is older than what is known.
    ///
    /// Loops report by connections of their own, so that the answer to an earlier report may come behind that to a later one:
    /// what the later one told holds, for it was asked for when the earlier one was under way.
    mutating func take(_ list: [TargetNodeState], ofReport number: UInt64, now: MonotonicTime) -> News? {
        guard number > reportTaken else { return nil }
        reportTaken = number
        nodes = list
        var news = News()
        let isWanted = nodes.contains { $0.name == name && $0.isDraining }
        if isWanted != isDraining {
            drainingSince = isWanted ? now : nil
            news.isDraining = isWanted
        }
        let groups = targetPortGroups
        // Groups that come and go are no change of a state: an initiator learns of them where it discovers.
        news.isAccessChanged = groups.contains { group in lastStates[group.tag].map { $0 != group.state } ?? false }
        lastStates = Dictionary(uniqueKeysWithValues: groups.map { ($0.tag, $0.state) })
        return news
    }

    /// Whether sessions are to go elsewhere.
    var isDraining: Bool { drainingSince != nil }

    /// All target ports that live, ascending; nodes behind one balanced address share one.
    var targetPorts: [TargetPort] {
        let known = nodes.map(\.port).filter { $0.relativePortIdentifier != 0 }
        return Set(known + [port]).sorted {
            ($0.relativePortIdentifier, $0.portalGroupTag) < ($1.relativePortIdentifier, $1.portalGroupTag)
        }
    }

    /// The target port groups: standby where every node of a group is being drained (SPC-5, 5.16.2).
    var targetPortGroups: [TargetPortGroup] {
        let ports = targetPorts
        return Set(ports.map(\.portalGroupTag)).sorted().map { tag in
            let members = nodes.filter { $0.port.portalGroupTag == tag }
            let isDraining = !members.isEmpty && members.allSatisfy(\.isDraining)
            return TargetPortGroup(
                tag: tag,
                state: isDraining ? .standby : .activeOptimized,
                ports: ports.filter { $0.portalGroupTag == tag }.map(\.relativePortIdentifier)
            )
        }
    }

    /// Where a login is to go instead: to the living node with the fewest sessions, where this node only receives, or is being
    /// drained.
    mutating func redirection() -> (portal: String, isPermanent: Bool)? {
        guard redirect != .never || isDraining else { return nil }
        let others = nodes.filter { $0.name != name && $0.portal != portal }
        guard let least = LoginDestination.choose(among: others, servesIfThereIsNone: !isDraining) else { return nil }
        // Counted at once: the next report comes in seconds, and many may log in until then.
        if let index = nodes.firstIndex(where: { $0.name == least.name }) { nodes[index].sessions += 1 }
        let address = least.portal.split(separator: ",").first.map(String.init) ?? least.portal
        return (address, redirect == .permanently && !isDraining)
    }
}
