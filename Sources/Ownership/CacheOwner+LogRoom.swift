public import AshlarCore

// Back-pressure by the room that PostgreSQL has left for its write-ahead log. A server whose log finds no room ends at once, and comes up
// again only when there is some: so writes are slowed down before that, and wait when there is next to none (I10). They are not failed
// before their deadline. What they wait for is PostgreSQL itself, its archiver and its standbys: nothing that is done here makes room.
extension CacheOwner {
    /// The shell measured the room for the log; nil: it is not known, and holds nothing back.
    public mutating func logRoomMeasured(freeBytes: UInt64?, now: MonotonicTime) {
        let wasFull = isLogFull
        logFreeBytes = freeBytes
        guard isLogFull != wasFull else { return }
        if let freeBytes, isLogFull {
            actions.append(.alarm("PostgreSQL has \(freeBytes) bytes left for its log: writes wait"))
        } else {
            actions.append(.note("PostgreSQL has room for its log again: writes go on"))
        }
        flush(now: now)
    }

    /// Whether there is so little room that nothing is written.
    var isLogFull: Bool { logFreeBytes.map { $0 < configuration.logWaitBelowBytes } ?? false }

    /// How long a write is held back: nil where there is room enough, growing smoothly above the high watermark of unmoved bytes, and
    /// below the one of room for the log (I10). At the hard limits the commit waits instead.
    func slowdown() -> UInt64? {
        let unmoved = Self.shortage(
            from: configuration.unmovedHighWatermarkBytes,
            to: configuration.unmovedHardLimitBytes,
            at: unmovedBytes
        )
        var log = 0.0
        if let free = logFreeBytes, free < configuration.logSlowBelowBytes {
            let room = configuration.logSlowBelowBytes
            log = Self.shortage(from: 0, to: room - min(room, configuration.logWaitBelowBytes), at: room - free)
        }
        let delay = UInt64(max(unmoved, log) * Double(OwnerLimits.slowdownMaximum))
        return delay < OwnerLimits.slowdownMinimum ? nil : delay
    }

    /// 0 up to `low`, 1 from `high` on, and in between by how far it is.
    private static func shortage(from low: UInt64, to high: UInt64, at value: UInt64) -> Double {
        guard value > low, high > low else { return 0 }
        return Double(min(value, high) - low) / Double(high - low)
    }
}

extension Command {
    /// Whether it waits where PostgreSQL has no room for its log: all that changes blocks. Reservations and the like are small, and what
    /// others wait for.
    var waitsForLogRoom: Bool {
        switch kind {
        case .client, .erase, .manage: !writes.isEmpty || !zeros.isEmpty || !references.isEmpty
        case .map, .direct, .evict, .fill, .forget: true
        }
    }
}
