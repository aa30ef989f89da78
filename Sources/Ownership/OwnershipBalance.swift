public import AshlarCore

/// A cache server that lives, as PostgreSQL knows it.
public struct CacheServerState: Sendable, Hashable {
    /// Its registration.
    public var id: CacheServerID
    /// Its name, which outlives registrations.
    public var name: String
    /// `host:port` at which it is reached.
    public var endpoint: String
    /// Whether its volumes are to go elsewhere: an operator drains it, or it is about to stop.
    public var isLeaving: Bool
    /// Volumes that it owns, or that are being given to it, to which somebody is logged in.
    public var usedVolumes: Int
    /// The other ones.
    public var idleVolumes: Int
    /// How long it has lived, in milliseconds of the database's clock.
    public var ageMilliseconds: UInt64
    /// How often a server of this name has started within ``OwnershipBalanceLimits/flappingWindowMilliseconds``.
    public var recentStarts: Int

    /// A server with each part named.
    public init(
        id: CacheServerID,
        name: String,
        endpoint: String,
        isLeaving: Bool = false,
        usedVolumes: Int,
        idleVolumes: Int,
        ageMilliseconds: UInt64,
        recentStarts: Int = 1
    ) {
        self.id = id
        self.name = name
        self.endpoint = endpoint
        self.isLeaving = isLeaving
        self.usedVolumes = usedVolumes
        self.idleVolumes = idleVolumes
        self.ageMilliseconds = ageMilliseconds
        self.recentStarts = recentStarts
    }

    /// Whether it came and went so often lately that it is given nothing until it has lived for a while.
    public var isQuarantined: Bool {
        recentStarts >= OwnershipBalanceLimits.flappingStarts
            && ageMilliseconds < OwnershipBalanceLimits.quarantineMilliseconds
    }
}

/// Who should give which volume to whom, so that each cache server has its share: a policy without state.
///
/// Volumes in use and idle ones are shared apart, so that a server is not left with all the work. Every server computes the same
/// plan from the same numbers and carries its own part out. Differences of one volume are left alone, so that a plan that
/// was carried out is followed by none.
public struct OwnershipBalance: Sendable {
    /// A volume to be handed over.
    public struct Transfer: Sendable, Hashable {
        /// The volume.
        public var volume: VolumeID
        /// Who gets it.
        public var successor: CacheServerID
        /// Where that server is reached.
        public var endpoint: String
    }

    /// A volume that is owned here.
    public struct OwnedVolume: Sendable, Hashable {
        /// The volume.
        public var id: VolumeID
        /// Whether somebody is logged in to it.
        public var isUsed: Bool

        /// A volume that is owned here.
        public init(id: VolumeID, isUsed: Bool) {
            self.id = id
            self.isUsed = isUsed
        }
    }

    /// All servers that live, in the order of their ids.
    private let servers: [CacheServerState]

    /// A policy for the servers that live now.
    public init(_ servers: [CacheServerState]) { self.servers = servers.sorted { $0.id < $1.id } }

    /// What `own` should hand over now.
    ///
    /// - Parameters:
    ///   - volumes: what it owns, without what it is handing over already.
    ///   - room: how many more hand-overs it may have under way.
    public func transfers(from own: CacheServerID, _ volumes: [OwnedVolume], room: Int) -> [Transfer] {
        var result: [Transfer] = []
        // Those in use first: they are why a server is added.
        for isUsed in [true, false] {
            var rest = volumes.filter { $0.isUsed == isUsed }.sorted { $0.id < $1.id }[...]
            for (taker, count) in gifts(from: own, used: isUsed) {
                for _ in 0..<count {
                    guard result.count < room, let volume = rest.popFirst() else { break }
                    result.append(Transfer(volume: volume.id, successor: taker.id, endpoint: taker.endpoint))
                }
            }
        }
        return result
    }

    /// Who may be given volumes: nobody who leaves; nobody in quarantine, unless there is no other.
    private var takers: [Int] {
        let staying = servers.indices.filter { !servers[$0].isLeaving }
        let sound = staying.filter { !servers[$0].isQuarantined }
        return sound.isEmpty ? staying : sound
    }

    /// How many volumes of a kind `own` gives to whom.
    private func gifts(from own: CacheServerID, used: Bool) -> [(taker: CacheServerState, count: Int)] {
        let takers = takers
        guard !takers.isEmpty else { return [] }
        func count(_ index: Int) -> Int { used ? servers[index].usedVolumes : servers[index].idleVolumes }
        let isTaker = Set(takers)
        // One in quarantine keeps what it has.
        let leaving = servers.indices.filter { servers[$0].isLeaving }
        let total = (takers + leaving).reduce(0) { $0 + count($1) }
        let share = total / takers.count
        var extra = total % takers.count
        // Those that have more than the others keep what does not divide: so nothing moves for it.
        var wanted: [Int: Int] = [:]
        for index in takers.sorted(by: { (count($1), $0) < (count($0), $1) }) {
            wanted[index] = share + (extra > 0 ? 1 : 0)
            extra -= extra > 0 ? 1 : 0
        }
        var needs = takers.map { (index: $0, count: (wanted[$0] ?? share) - count($0)) }.filter { $0.count > 0 }[...]
        var result: [(taker: CacheServerState, count: Int)] = []
        for giver in servers.indices where !isTaker.contains(giver) || count(giver) > (wanted[giver] ?? .max) {
            guard servers[giver].isLeaving || isTaker.contains(giver) else { continue }
            var excess = servers[giver].isLeaving ? count(giver) : count(giver) - (wanted[giver] ?? 0)
            while excess > 0, let need = needs.first {
                let given = min(excess, need.count)
                if servers[giver].id == own { result.append((servers[need.index], given)) }
                excess -= given
                needs[needs.startIndex].count -= given
                if needs[needs.startIndex].count == 0 { needs.removeFirst() }
            }
        }
        return result
    }
}

/// Bounds of the spreading of volumes.
public enum OwnershipBalanceLimits {
    /// Hand-overs of one server that are under way at once.
    public static let handOversAtOnce = 16
    /// How far back starts of a server count, in milliseconds.
    public static let flappingWindowMilliseconds: UInt64 = 600_000
    /// Starts within that time from which on a server is flapping.
    public static let flappingStarts = 4
    /// How long a server that is flapping has to live before it is given volumes, in milliseconds.
    public static let quarantineMilliseconds: UInt64 = 60_000
}

/// What a cache server looks at every second.
public struct CacheSurvey: Sendable {
    /// All servers that live.
    public var servers: [CacheServerState]
    /// Volumes that were given up for this server and that it has not taken over.
    public var handedOver: [VolumeID]

    /// What was found.
    public init(servers: [CacheServerState], handedOver: [VolumeID]) {
        self.servers = servers
        self.handedOver = handedOver
    }
}
