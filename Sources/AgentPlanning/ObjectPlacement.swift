package import AshlarCore

/// Which object server gets an object: rendezvous hashing, so that a server more or less moves only its own share.
///
/// Servers that are not connected, or refused a put a short while ago, come last: an object goes where it can be stored
/// now, and the map says where that is.
package struct ObjectPlacement: Sendable {
    /// The configured servers in the order of their numbers.
    package let servers: [ObjectServerID]
    private var restsUntil: [ObjectServerID: MonotonicTime] = [:]

    package init(servers: some Sequence<ObjectServerID>) { self.servers = servers.sorted() }

    /// The servers to offer `object` to, the best first; at most ``AgentLimits/putAttemptsMaximum``. Those that are excluded get
    /// none, whatever becomes of the others.
    package func order(
        of object: ObjectID,
        connected: Set<ObjectServerID>,
        excluded: Set<ObjectServerID> = [],
        now: MonotonicTime
    ) -> [ObjectServerID] {
        let ranked = servers.filter { !excluded.contains($0) }.map { (server: $0, score: Self.score(object, $0)) }
            .sorted { ($0.score, $0.server) > ($1.score, $1.server) }
            .map(\.server)
        func place(_ server: ObjectServerID) -> Int {
            guard connected.contains(server) else { return 2 }
            return restsUntil[server].map { now < $0 } ?? false ? 1 : 0
        }
        let ordered = (0...2).flatMap { wanted in ranked.filter { place($0) == wanted } }
        return Array(ordered.prefix(AgentLimits.putAttemptsMaximum))
    }

    /// A put on `server` failed: others come first for a while.
    package mutating func putFailed(on server: ObjectServerID, now: MonotonicTime) {
        restsUntil[server] = now.advanced(byNanoseconds: AgentLimits.placementRestMilliseconds * 1_000_000)
    }

    /// A put on `server` succeeded.
    package mutating func putSucceeded(on server: ObjectServerID) { restsUntil[server] = nil }

    private static func score(_ object: ObjectID, _ server: ObjectServerID) -> UInt64 {
        AgentRandom.mix(
            AgentRandom.mix(object.rawValue) ^ AgentRandom.mix(UInt64(UInt32(bitPattern: server.rawValue)) << 17 | 1)
        )
    }
}
