/// The mode parameters that MODE SELECT changes (SPC-5, 7.5; SBC-4, 6.5): one set for all nexuses.
public struct ModeParameters: Sendable, Hashable {
    /// SWP of the control mode page: the volume behaves as read-only.
    public var isSoftwareWriteProtected: Bool
    /// D_SENSE of the control mode page: sense data in descriptor format.
    public var isSenseInDescriptorFormat: Bool
    /// DEXCPT of the informational exceptions control page: no informational exceptions are reported.
    public var isExceptionReportingDisabled: Bool
    /// MRIE of the informational exceptions control page: how they would be reported, 0 to 6.
    public var exceptionReportingMethod: UInt8

    /// The defaults are those of a fresh volume.
    public init(
        isSoftwareWriteProtected: Bool = false,
        isSenseInDescriptorFormat: Bool = false,
        isExceptionReportingDisabled: Bool = false,
        exceptionReportingMethod: UInt8 = 0
    ) {
        self.isSoftwareWriteProtected = isSoftwareWriteProtected
        self.isSenseInDescriptorFormat = isSenseInDescriptorFormat
        self.isExceptionReportingDisabled = isExceptionReportingDisabled
        self.exceptionReportingMethod = exceptionReportingMethod
    }
}

/// What SANITIZE and FORMAT UNIT do to the whole medium, in the background.
public struct Erasure: Sendable, Hashable {
    /// Which command asked for it; the raw value is what PostgreSQL and the wire carry.
    public enum Kind: UInt8, Sendable, Hashable {
        /// SANITIZE, BLOCK ERASE: every block is unmapped.
        case blockErase = 1
        /// SANITIZE, CRYPTOGRAPHIC ERASE: blocks are unmapped, as volumes have no key of their own.
        case cryptographicErase = 2
        /// SANITIZE, OVERWRITE: every block is written.
        case overwrite = 3
        /// FORMAT UNIT: every block is unmapped.
        case format = 4
    }

    /// Which command asked for it.
    public var kind: Kind
    /// One logical block to overwrite with; empty for the other kinds.
    public var pattern: [UInt8]
    /// Where it goes on: all bytes of the volume before this one are done.
    public var position: UInt64

    /// An erasure with each part named.
    public init(kind: Kind, pattern: [UInt8] = [], position: UInt64 = 0) {
        self.kind = kind
        self.pattern = pattern
        self.position = position
    }

    /// The PROGRESS INDICATION of sense data: 65,536ths of the volume (SPC-5, 4.4.2.4.4).
    public func progress(ofBytes size: UInt64) -> UInt16 {
        guard size > 0 else { return 0 }
        return UInt16(clamping: position / max(1, size >> 16))
    }
}

/// Which text REPORT and SET IDENTIFYING INFORMATION are about (SPC-5, 6.32).
public enum IdentifyingInformationKind: UInt8, Sendable, Hashable {
    /// Bytes for programs, at most 64.
    case peripheral = 0
    /// UTF-8 text for people, at most 256 bytes.
    case text = 2
}

/// What belongs to a logical unit beside its blocks: kept by the volume's owner and in PostgreSQL, never in a target.
public struct LogicalUnitState: Sendable, Hashable {
    /// Registrations and the persistent reservation.
    public var reservations = PersistentReservations()
    /// The nexus that holds the unit by RESERVE (6) or (10).
    public var reservedBy: NexusNumber?
    /// Mode parameters in force.
    public var mode = ModeParameters()
    /// Mode parameters that come back with a reset.
    public var savedMode = ModeParameters()
    /// PERIPHERAL DEVICE IDENTIFYING INFORMATION.
    public var identifyingInformation: [UInt8] = []
    /// PERIPHERAL DEVICE TEXT IDENTIFYING INFORMATION, UTF-8.
    public var identifyingText: [UInt8] = []
    /// What is being erased now.
    public var erasure: Erasure?

    /// The state of a fresh volume.
    public init() {}
}
