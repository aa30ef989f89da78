public import NIOCore

/// What a client asks its shell to do, in order.
public enum ISNSAction: Sendable {
    /// Open a connection to the server; answer by `connected` or `connectionClosed`.
    case connect
    /// Write and flush.
    case send(ByteBuffer)
    /// Close the connection. Nothing that comes of it is told to the machine.
    case close
    /// List the volumes; answer by `targetsListed`.
    case listTargets
    /// Log a line.
    case note(ISNSNote)
    /// Everything is done after `stop`.
    case stopped
}

/// What the answering of a server's requests asks the shell to do, in order.
public enum ISNSAnswer: Sendable {
    /// Write and flush.
    case send(ByteBuffer)
    /// Close the connection.
    case close
    /// Log a line.
    case note(ISNSNote)
}

/// A line for the log.
public struct ISNSNote: Sendable, Hashable {
    /// How much it matters.
    public enum Severity: Sendable, Hashable {
        /// For who looks for a fault.
        case debug
        /// The course of things.
        case info
        /// Something that an operator should know.
        case warning
    }

    /// How much it matters.
    public var severity: Severity
    /// The line.
    public var message: String

    /// A line of a severity.
    public init(severity: Severity, message: String) {
        self.severity = severity
        self.message = message
    }
}

/// What a client registers; the same as long as the process runs.
public struct ISNSClientConfiguration: Sendable, Hashable {
    /// Entity identifier. Targets that export the same volumes share it: a server has a node in one entity only.
    public var entity: String
    /// The portal that initiators are sent to.
    public var portal: ISNSPortal
    /// Tag of the portal group that each node is put into with the portal.
    public var portalGroupTag: UInt16
    /// TCP port at the portal's address on which inquiries and notifications are answered; `nil` for none.
    public var inquiryPort: UInt16?
    /// Whether other targets are behind the same portal: it is then not taken away when this one ends.
    public var isPortalShared: Bool
    /// Begins the generator that spreads reconnects.
    public var seed: UInt64
    /// How often the volumes are listed.
    public var listIntervalNanoseconds = ISNSLimits.listIntervalNanoseconds

    /// A configuration with each part named.
    public init(
        entity: String,
        portal: ISNSPortal,
        portalGroupTag: UInt16,
        inquiryPort: UInt16?,
        isPortalShared: Bool,
        seed: UInt64
    ) {
        precondition(
            (1...ISNSLimits.entityMaximumBytes).contains(entity.utf8.count),
            "an entity identifier has 1 to 255 bytes"
        )
        self.entity = entity
        self.portal = portal
        self.portalGroupTag = portalGroupTag
        self.inquiryPort = inquiryPort
        self.isPortalShared = isPortalShared
        self.seed = seed
    }
}
