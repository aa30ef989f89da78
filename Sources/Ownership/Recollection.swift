public import AshlarCore

/// What an owner has acknowledged of a volume until it lost it: when it takes the volume over again, the database must know as much.
///
/// A database that knows less has gone back in time: a standby was promoted that was behind, or a backup restored. What the owner
/// acknowledged is gone then, and whoever it was acknowledged to must not be served as if it were not.
struct Recollection {
    /// The last epoch.
    let epoch: Epoch
    /// Versions below this one are covered by what was durable (M2).
    let versionCeiling: Version
    /// Commands whose effects were durable, by nexus.
    let done: [NexusNumber: Set<CommandID>]

    init(of volume: VolumeOwner) {
        epoch = volume.epoch
        versionCeiling = volume.durableCeiling
        done = volume.nexuses.filter { $0.value.state == .open || $0.value.state == .unresumed }.mapValues(\.done)
    }

    /// What is missing in what a takeover found; nil: nothing.
    func contradiction(to ownership: Ownership) -> String? {
        guard ownership.epoch > epoch else {
            return "it is at epoch \(ownership.epoch), and epoch \(epoch) was served here"
        }
        guard ownership.firstVersion >= versionCeiling else {
            return
                "it would hand out version \(ownership.firstVersion), and those below \(versionCeiling) were handed out here"
        }
        let rows = Dictionary(ownership.nexuses.map { ($0.number, $0.mark) }) { first, _ in first }
        for (nexus, commands) in done.sorted(by: { $0.key < $1.key }) {
            guard let mark = rows[nexus] else {
                // Another owner, and only one, could have closed it.
                if ownership.epoch.rawValue > epoch.rawValue + 1 { continue }
                return "it does not know session \(nexus)"
            }
            let known = Set(mark.done)
            let missing = commands.filter { $0 >= mark.lowWater && !known.contains($0) }
            if let first = missing.min() {
                return "it lacks \(missing.count) acknowledged commands of session \(nexus), the first of them \(first)"
            }
        }
        return nil
    }
}

extension CacheOwner {
    /// Volumes that are not served because the database knows less of them than was acknowledged here, each with the reason.
    public var refusedVolumes: [VolumeID: String] {
        volumes.compactMapValues { slot in
            if case .refused(let why) = slot { why } else { nil }
        }
    }

    /// Refuses to serve a volume of which the database knows less than was acknowledged here.
    mutating func refuseVolume(_ id: VolumeID, why: String, tickets: [Ticket]) {
        volumes[id] = .refused(why)
        actions.append(
            .alarm(
                "volume \(id) is not served: the database has lost acknowledged writes, \(why). Bring back the server that has them, "
                    + "or restart this cache server to go on without them"
            )
        )
        for ticket in tickets { refuse(ticket, .busy("the database has lost acknowledged writes")) }
    }
}
