/// What the control role refuses, or cannot do.
///
/// Its text names the thing and holds no secret.
public struct ControlError: Error, Sendable, Hashable, Codable, CustomStringConvertible {
    /// The kinds of refusal; each has an HTTP status.
    public struct Code: RawRepresentable, Sendable, Hashable, Codable {
        /// The name in answers.
        public let rawValue: String

        /// A code by its name.
        public init(rawValue: String) { self.rawValue = rawValue }

        /// The request cannot be read.
        public static let badRequest = Code(rawValue: "bad-request")
        /// No token, or another one.
        public static let unauthorized = Code(rawValue: "unauthorized")
        /// There is no such path.
        public static let notFound = Code(rawValue: "not-found")
        /// There is no such volume.
        public static let noSuchVolume = Code(rawValue: "no-such-volume")
        /// There is no such target.
        public static let noSuchTarget = Code(rawValue: "no-such-target")
        /// There is no such cache server.
        public static let noSuchCache = Code(rawValue: "no-such-cache")
        /// There is no such object server.
        public static let noSuchObjectServer = Code(rawValue: "no-such-object-server")
        /// No object server would be left to take objects.
        public static let lastObjectServer = Code(rawValue: "last-object-server")
        /// There is no such job.
        public static let noSuchJob = Code(rawValue: "no-such-job")
        /// A volume of this name exists.
        public static let volumeExists = Code(rawValue: "volume-exists")
        /// A volume with this iSCSI name exists.
        public static let iqnExists = Code(rawValue: "iqn-exists")
        /// The volume is being deleted.
        public static let volumeDeleting = Code(rawValue: "volume-deleting")
        /// Initiators are logged in.
        public static let sessionsOpen = Code(rawValue: "sessions-open")
        /// A volume would become smaller.
        public static let wouldShrink = Code(rawValue: "would-shrink")
        /// A value is outside its bounds.
        public static let invalid = Code(rawValue: "invalid")
        /// Too much is under way.
        public static let busy = Code(rawValue: "busy")
        /// PostgreSQL cannot be reached.
        public static let databaseUnavailable = Code(rawValue: "database-unavailable")
        /// No cache server can be reached.
        public static let cacheUnavailable = Code(rawValue: "cache-unavailable")
        /// An object server cannot be reached.
        public static let objectsUnavailable = Code(rawValue: "objects-unavailable")
        /// A defect.
        public static let internalError = Code(rawValue: "internal-error")

        /// The HTTP status of this kind (RFC 9110, 15).
        public var httpStatus: Int {
            switch self {
            case .badRequest: 400
            case .unauthorized: 401
            case .notFound, .noSuchVolume, .noSuchTarget, .noSuchCache, .noSuchObjectServer, .noSuchJob: 404
            case .volumeExists, .iqnExists, .volumeDeleting, .sessionsOpen, .wouldShrink, .lastObjectServer: 409
            case .invalid: 422
            case .busy, .databaseUnavailable, .cacheUnavailable, .objectsUnavailable: 503
            default: 500
            }
        }
    }

    /// The kind.
    public var code: Code
    /// What is the matter, with the thing named.
    public var message: String
    /// What to do about it.
    public var remedy: String

    /// A refusal.
    public init(_ code: Code, _ message: String, remedy: String = "") {
        self.code = code
        self.message = message
        self.remedy = remedy
    }

    /// Message and remedy.
    public var description: String { remedy.isEmpty ? message : "\(message) \(remedy)" }

    static func noSuchVolume(_ name: String) -> ControlError {
        ControlError(
            .noSuchVolume,
            "There is no volume \"\(name)\".",
            remedy: "List the volumes with: ashlar volume list."
        )
    }

    static func noSuchTarget(_ name: String) -> ControlError {
        ControlError(
            .noSuchTarget,
            "There is no target \"\(name)\".",
            remedy: "List the targets with: ashlar target list."
        )
    }

    static func noSuchCache(_ name: String) -> ControlError {
        ControlError(
            .noSuchCache,
            "There is no cache server \"\(name)\".",
            remedy: "List the cache servers with: ashlar cache stats."
        )
    }

    static func noSuchObjectServer(_ id: String) -> ControlError {
        ControlError(
            .noSuchObjectServer,
            "There is no object server \"\(id)\".",
            remedy: "List the object servers with: ashlar objects list."
        )
    }
}
