/// Conditions that an initiator learns of with its next command (SAM-6, 5.14; SPC-5, annex F.2).
///
/// The raw value is what PostgreSQL and the wire carry; it never changes its meaning. There is none for a nexus that was lost, for it
/// ends with its session, none for the unit that comes up, for it keeps its state, and none for the list of logical units, for
/// every target has one.
public enum UnitAttention: UInt8, Sendable, Hashable, CaseIterable {
    /// Anything may have happened: what a target says of a condition that it does not know.
    case powerOnOrReset = 1
    /// A logical unit or target reset was done.
    case deviceReset = 3
    /// Another nexus changed mode pages.
    case modeParametersChanged = 5
    /// A reservation was taken away.
    case reservationsPreempted = 6
    /// A reservation that excluded others has gone.
    case reservationsReleased = 7
    /// A registration was taken away.
    case registrationsPreempted = 8
    /// The volume has another size.
    case capacityChanged = 9
    /// Another nexus cleared the task set.
    case commandsCleared = 10
    /// INQUIRY data or VPD pages changed: the volume has another iSCSI name.
    case inquiryDataChanged = 11
    /// The asymmetric access state of a target port group changed.
    case asymmetricAccessChanged = 13
    /// Another nexus set identifying information.
    case deviceIdentifierChanged = 14
}

/// How a pending unit attention condition meets a command (SAM-6, 5.14.5).
public enum UnitAttentionRule: UInt8, Sendable, Hashable {
    /// The command is not done: CHECK CONDITION, and the condition is cleared.
    case report = 0
    /// The command is done, the condition stays (INQUIRY, REPORT LUNS).
    case bypass = 1
    /// The condition is the command's answer, and cleared by it (REQUEST SENSE).
    case deliver = 2
}

/// What a command does to the medium, as far as reservations care (SPC-5, 5.14.1, and its tables for each command).
public enum CommandAccess: UInt8, Sendable, Hashable {
    /// No persistent reservation keeps it out.
    case any = 0
    /// Reads: kept out by a reservation for exclusive access.
    case read = 1
    /// Writes, or changes what the logical unit is: kept out by every reservation.
    case write = 2
}

/// What a logical unit has to know of a command before it does it, whatever the command does.
public struct CommandRules: Sendable, Hashable {
    /// What persistent reservations allow.
    public var access: CommandAccess
    /// Whether it is done though another nexus holds the logical unit by RESERVE (6) (SPC-2, 5.5.1).
    public var isAllowedUnderReserve: Bool
    /// Whether it is done while the logical unit is being sanitized or formatted (SBC-4, 4.11.2 and 5.4).
    public var isAllowedDuringErasure: Bool
    /// What a pending unit attention condition does.
    public var attention: UnitAttentionRule

    /// Rules with each part named.
    public init(
        access: CommandAccess,
        isAllowedUnderReserve: Bool = false,
        isAllowedDuringErasure: Bool = false,
        attention: UnitAttentionRule = .report
    ) {
        self.access = access
        self.isAllowedUnderReserve = isAllowedUnderReserve
        self.isAllowedDuringErasure = isAllowedDuringErasure
        self.attention = attention
    }
}
