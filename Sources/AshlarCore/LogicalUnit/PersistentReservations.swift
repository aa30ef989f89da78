/// A reservation key (SPC-5, 5.14.4); 0 means none.
public struct ReservationKey: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The types of persistent reservations (SPC-5, table 59).
public enum ReservationType: UInt8, Sendable, Hashable, CaseIterable {
    /// Others may read.
    case writeExclusive = 1
    /// Others may neither read nor write.
    case exclusiveAccess = 3
    /// Who is registered may write, others may read.
    case writeExclusiveRegistrantsOnly = 5
    /// Who is registered may read and write.
    case exclusiveAccessRegistrantsOnly = 6
    /// Who is registered holds it, others may read.
    case writeExclusiveAllRegistrants = 7
    /// Who is registered holds it.
    case exclusiveAccessAllRegistrants = 8

    /// Whether every registrant holds the reservation.
    public var isOfAllRegistrants: Bool {
        self == .writeExclusiveAllRegistrants || self == .exclusiveAccessAllRegistrants
    }

    /// Whether those who do not hold it, but are registered, may do what the holder may.
    public var admitsRegistrants: Bool { rawValue >= 5 }

    /// Whether others may read.
    public var admitsReaders: Bool {
        self == .writeExclusive || self == .writeExclusiveRegistrantsOnly || self == .writeExclusiveAllRegistrants
    }
}

/// A target port as persistent reservations name it.
public struct TargetPort: Sendable, Hashable {
    /// Portal group tag.
    public var portalGroupTag: UInt16
    /// RELATIVE TARGET PORT IDENTIFIER.
    public var relativePortIdentifier: UInt16

    /// A port with its two numbers.
    public init(portalGroupTag: UInt16, relativePortIdentifier: UInt16) {
        self.portalGroupTag = portalGroupTag
        self.relativePortIdentifier = relativePortIdentifier
    }
}

/// An initiator port as a TransportID names it (SPC-5, 7.6.4.6).
public struct InitiatorPort: Sendable, Hashable {
    /// iSCSI name.
    public var name: String
    /// ISID; `nil`: all ports of the initiator (TPID FORMAT 00b).
    public var isid: UInt64?

    /// A port with its name.
    public init(name: String, isid: UInt64?) {
        self.name = name
        self.isid = isid
    }
}

/// What a PERSISTENT RESERVE OUT command asks for (SPC-5, 6.17).
public enum ReservationAction: Sendable, Hashable {
    /// REGISTER, or REGISTER AND IGNORE EXISTING KEY. A new key of 0 unregisters. Through each of `targetPorts` (that of the
    /// command alone, or all with ALL_TG_PT), for the port of the command and with SPEC_I_PT for `others` as well.
    /// `isForAllPorts`: ALL_TG_PT; then the port's registrations through target ports that are not known now count, too.
    case register(
        ReservationKey,
        new: ReservationKey,
        ignoresExisting: Bool,
        others: [InitiatorPort],
        targetPorts: [TargetPort],
        isForAllPorts: Bool = false
    )
    /// RESERVE.
    case reserve(ReservationKey, ReservationType)
    /// RELEASE.
    case release(ReservationKey, ReservationType)
    /// CLEAR.
    case clear(ReservationKey)
    /// PREEMPT, or PREEMPT AND ABORT.
    case preempt(ReservationKey, ReservationType, victim: ReservationKey, aborts: Bool)
    /// REGISTER AND MOVE.
    case move(ReservationKey, new: ReservationKey, unregisters: Bool, to: InitiatorPort, through: TargetPort)
}

/// A registered I_T nexus.
public struct Registration: Sendable, Hashable {
    /// The ports.
    public var ports: InitiatorTargetNexus
    /// RELATIVE TARGET PORT IDENTIFIER of the target port.
    public var relativePortIdentifier: UInt16
    /// Its key; never 0.
    public var key: ReservationKey

    /// A registration with each part named.
    public init(ports: InitiatorTargetNexus, relativePortIdentifier: UInt16, key: ReservationKey) {
        self.ports = ports
        self.relativePortIdentifier = relativePortIdentifier
        self.key = key
    }
}

/// Registrations and the persistent reservation of a logical unit (SPC-5, 5.14).
public struct PersistentReservations: Sendable, Hashable {
    /// PRGENERATION.
    public var generation: UInt32 = 0
    /// In the order in which they were made; no two have the same ports.
    public var registrations: [Registration] = []
    /// The type of the reservation; `nil`: there is none.
    public var type: ReservationType?
    /// Who holds it; `nil` where there is none, or all registrants do.
    public var holder: InitiatorTargetNexus?

    /// No registration, no reservation.
    public init() {}
}
