public import AshlarCore

/// What a session is for (RFC 7143, 13.21).
public enum SessionType: String, Sendable, Hashable {
    /// SCSI commands.
    case normal = "Normal"
    /// SendTargets only.
    case discovery = "Discovery"
}

/// Who wants to log in, and where.
public struct LoginIdentity: Sendable, Hashable {
    /// The initiator's iSCSI name.
    public var initiatorName: String
    /// The initiator's name for people.
    public var initiatorAlias: String?
    /// The initiator's session identifier, 48 bits.
    public var isid: UInt64
    /// The target's iSCSI name; `nil` in a discovery session that names none.
    public var targetName: String?
    /// What the session is for.
    public var sessionType: SessionType

    /// An identity with each part named.
    public init(
        initiatorName: String,
        initiatorAlias: String? = nil,
        isid: UInt64,
        targetName: String?,
        sessionType: SessionType
    ) {
        self.initiatorName = initiatorName
        self.initiatorAlias = initiatorAlias
        self.isid = isid
        self.targetName = targetName
        self.sessionType = sessionType
    }
}

/// The answer to ``ISCSIAction/resolveTarget(_:)``: the target exists and has these rules.
public struct ResolvedTarget: Sendable {
    /// Who may log in and how they prove themselves.
    public var access: AccessRules
    /// Portal group tag to declare; `nil`: that of the configuration.
    public var portalGroupTag: UInt16?
    /// Alias to declare; `nil`: that of the configuration.
    public var alias: String?

    /// A target with its rules.
    public init(access: AccessRules, portalGroupTag: UInt16? = nil, alias: String? = nil) {
        self.access = access
        self.portalGroupTag = portalGroupTag
        self.alias = alias
    }
}

/// Outcome of a login: Status-Class and Status-Detail (RFC 7143, 11.13.5).
public struct LoginStatus: Sendable, Hashable, CustomStringConvertible {
    /// Class in the upper byte, detail in the lower.
    public let code: UInt16

    /// A status by its number.
    public init(code: UInt16) { self.code = code }

    /// The login goes on.
    public static let success = LoginStatus(code: 0x0000)
    /// The target is at another address for now.
    public static let movedTemporarily = LoginStatus(code: 0x0101)
    /// The target is at another address for good.
    public static let movedPermanently = LoginStatus(code: 0x0102)
    /// Any other error of the initiator.
    public static let initiatorError = LoginStatus(code: 0x0200)
    /// The initiator did not prove who it is, or proof is required.
    public static let authenticationFailure = LoginStatus(code: 0x0201)
    /// The initiator may not use this target.
    public static let authorizationFailure = LoginStatus(code: 0x0202)
    /// There is no such target.
    public static let notFound = LoginStatus(code: 0x0203)
    /// The target was removed.
    public static let targetRemoved = LoginStatus(code: 0x0204)
    /// No version in common.
    public static let unsupportedVersion = LoginStatus(code: 0x0205)
    /// Too many connections.
    public static let tooManyConnections = LoginStatus(code: 0x0206)
    /// A key is missing.
    public static let missingParameter = LoginStatus(code: 0x0207)
    /// The connection cannot join the session.
    public static let cannotIncludeInSession = LoginStatus(code: 0x0208)
    /// No sessions of this type.
    public static let sessionTypeNotSupported = LoginStatus(code: 0x0209)
    /// The session to join does not exist.
    public static let sessionDoesNotExist = LoginStatus(code: 0x020A)
    /// A request that is none of a login.
    public static let invalidDuringLogin = LoginStatus(code: 0x020B)
    /// Any other error of the target.
    public static let targetError = LoginStatus(code: 0x0300)
    /// The target does not serve now.
    public static let serviceUnavailable = LoginStatus(code: 0x0301)
    /// The target has not the resources now.
    public static let outOfResources = LoginStatus(code: 0x0302)

    /// The number, as the standard writes it.
    public var description: String {
        let digits = String(code, radix: 16)
        return String(repeating: "0", count: 4 - digits.count) + digits + "h"
    }
}

/// What a login has agreed on.
public struct SessionParameters: Sendable, Hashable {
    /// Who logged in, and where.
    public var identity: LoginIdentity
    /// CHAP_N of the initiator; `nil` where it did not prove itself.
    public var authenticatedName: String?
    /// Portal group tag that was declared.
    public var portalGroupTag: UInt16 = 1
    /// CID of the connection.
    public var connectionID: UInt16 = 0
    /// CRC-32C behind headers.
    public var headerDigest = false
    /// CRC-32C behind data.
    public var dataDigest = false
    /// All data but immediate data must be asked for.
    public var initialR2T = true
    /// Data may come with the command.
    public var immediateData = true
    /// Largest data segment that the initiator takes, in bytes.
    public var maxSendDataSegmentLength: UInt32 = 8_192
    /// Largest data segment that we take, in bytes.
    public var maxRecvDataSegmentLength: UInt32 = 8_192
    /// Most bytes of one solicited sequence.
    public var maxBurstLength: UInt32 = 262_144
    /// Most unsolicited bytes of one command.
    public var firstBurstLength: UInt32 = 65_536
    /// R2Ts of one command at a time.
    public var maxOutstandingR2T: UInt16 = 1
    /// Seconds the initiator waits before it reconnects.
    public var defaultTime2Wait: UInt16 = 2
    /// Seconds a connection's tasks are kept after it broke; 0, as there is nothing to recover with level 0.
    public var defaultTime2Retain: UInt16 = 0

    /// The values that hold where no key was negotiated (RFC 7143, 13).
    public init(identity: LoginIdentity) { self.identity = identity }
}
