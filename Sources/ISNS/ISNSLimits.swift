/// Bounds of the iSNS protocol machine; their relations are asserted in `ISNSTests`.
package enum ISNSLimits {
    /// Header of a PDU (RFC 4171, 5.1).
    package static let headerBytes = 12
    /// Payload of one PDU: its length has two bytes and is a multiple of four.
    package static let payloadMaximumBytes = 65_532
    /// A message gathered from several PDUs.
    package static let messageMaximumBytes = 4 << 20
    /// Attributes of one message.
    package static let attributesMaximum = 65_536
    /// iSCSI name without its terminating NUL (RFC 4171, 6.4.1; RFC 7143, 4.2.7.1).
    package static let nameMaximumBytes = 223
    /// Alias without its terminating NUL (RFC 4171, 6.4.3).
    package static let aliasMaximumBytes = 255
    /// Entity identifier without its terminating NUL (RFC 4171, 6.2.1).
    package static let entityMaximumBytes = 255
    /// Storage nodes in one registration: with names of any length they fit into one PDU.
    package static let nodesInRegistrationMaximum = 64
    /// Storage nodes in one deregistration.
    package static let nodesInDeregistrationMaximum = 64
    /// Up to so many targets, the server is asked which ones it knows: some servers answer in one PDU only, and cannot
    /// answer at all where that is too small.
    package static let namesAskedForMaximum = 200
    /// Registrations refused one after the other before the connection is given up for a while.
    package static let refusalsMaximum = 8
    /// How long a request may stay unanswered.
    package static let requestTimeoutNanoseconds: UInt64 = 10_000_000_000
    /// How long deregistration may delay the end of a target.
    package static let stopTimeoutNanoseconds: UInt64 = 2_000_000_000
    /// The shortest wait before connecting again; doubles with every failure.
    package static let backoffMinimumNanoseconds: UInt64 = 1_000_000_000
    /// The longest wait before connecting again.
    package static let backoffMaximumNanoseconds: UInt64 = 20_000_000_000
    /// How often the volumes are listed.
    package static let listIntervalNanoseconds: UInt64 = 10_000_000_000
    /// Pause before volumes are listed again that could not be.
    package static let listRetryNanoseconds: UInt64 = 2_000_000_000
    /// How often the server is asked at least whether it still has the registration.
    package static let renewalMaximumNanoseconds: UInt64 = 60_000_000_000
    /// How often at most, however short the server's registration period is.
    package static let renewalMinimumNanoseconds: UInt64 = 1_000_000_000
    /// The registration period is divided by this for the interval of renewal.
    package static let renewalsInPeriod: UInt64 = 3
    /// Objects of a notification that a log line names.
    package static let notedObjectsMaximum = 8
}
