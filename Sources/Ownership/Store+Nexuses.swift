public import AshlarCore

// What the store keeps of nexuses.

/// What is durable of a nexus's commands: committed with the batch that holds their effects (R4).
public struct NexusMark: Sendable, Hashable {
    /// The nexus.
    public var nexus: NexusNumber
    /// Every command below this one is answered and forgotten; it only grows.
    public var lowWater: CommandID
    /// Commands at or above `lowWater` whose effects are durable, ascending. The store keeps the union with those it had,
    /// less those below the low-water mark.
    public var done: [CommandID]

    /// The marks of one nexus.
    public init(nexus: NexusNumber, lowWater: CommandID, done: [CommandID]) {
        self.nexus = nexus
        self.lowWater = lowWater
        self.done = done
    }
}

/// The unit attention conditions of one nexus.
public struct NexusAttentions: Sendable, Hashable {
    /// The nexus.
    public var nexus: NexusNumber
    /// What waits to be reported, or was and may not have arrived; oldest first.
    public var attentions: [UnitAttention]

    /// The conditions of one nexus.
    public init(nexus: NexusNumber, attentions: [UnitAttention]) {
        self.nexus = nexus
        self.attentions = attentions
    }
}

/// Until when another nexus aborted the changes of one.
public struct NexusAbort: Sendable, Hashable {
    /// The nexus.
    public var nexus: NexusNumber
    /// On the clock of the epoch in which it is committed; only grows.
    public var time: MonotonicTime

    /// One nexus and the time.
    public init(nexus: NexusNumber, time: MonotonicTime) {
        self.nexus = nexus
        self.time = time
    }
}

/// A nexus as PostgreSQL remembers it.
public struct NexusRow: Sendable, Hashable {
    /// The number.
    public var number: NexusNumber
    /// Which ports it joins.
    public var ports: InitiatorTargetNexus
    /// The node through which it was opened.
    public var node: String
    /// Low-water mark and the commands above it whose effects are durable.
    public var mark: NexusMark
    /// Unit attention conditions that wait to be reported, oldest first.
    public var attentions: [UnitAttention]
    /// When another nexus last aborted its changes: all whose initiator had proved no more than that when they came (R6, R9).
    public var aborted: Stamp?

    /// A remembered nexus.
    public init(
        number: NexusNumber,
        ports: InitiatorTargetNexus,
        node: String,
        mark: NexusMark,
        attentions: [UnitAttention] = [],
        aborted: Stamp? = nil
    ) {
        self.number = number
        self.ports = ports
        self.node = node
        self.mark = mark
        self.attentions = attentions
        self.aborted = aborted
    }
}
