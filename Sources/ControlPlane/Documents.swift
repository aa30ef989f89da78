// The documents of the API, as server and client write and read them. Sizes are bytes, times are RFC 3339 in UTC.

/// A document that a client sends; fields that it does not know are refused.
public protocol RequestDocument: Codable, Sendable {
    /// The names that may stand in it.
    static var fields: Set<String> { get }
}

/// Cache policy; in a request only the named parts, in an answer all of them.
public struct PolicyDocument: RequestDocument, Hashable {
    /// `lru`, `fifo`, `count`, `bytes` or `age`.
    public var move: String?
    /// Bound of `count`.
    public var unmovedItemsMaximum: UInt64?
    /// Bound of `bytes`.
    public var unmovedBytesMaximum: UInt64?
    /// Bound of `age`.
    public var unmovedAgeMaximumSeconds: UInt32?
    /// Moved items above this are evicted.
    public var cachedBytesMaximum: UInt64?
    /// `never`, `always` or `second`.
    public var readFill: String?
    /// Objects with a lower live share are compacted.
    public var compactBelowPercent: UInt8?
    /// Aligned writes from this size on go straight to an object; 0 for never.
    public var directWriteMinimumBytes: UInt32?
    /// Aligned writes from this size on, below that of direct ones, are written to cache and object at the same time; 0 for never.
    public var writeThroughMinimumBytes: UInt32?
    /// Whether reads ask the owner and the object servers at once.
    public var readsBothAtOnce: Bool?

    /// A policy without a part.
    public init() {}

    /// The names that may stand in it.
    public static let fields: Set<String> = [
        "move", "unmovedItemsMaximum", "unmovedBytesMaximum", "unmovedAgeMaximumSeconds", "cachedBytesMaximum",
        "readFill", "compactBelowPercent", "directWriteMinimumBytes", "writeThroughMinimumBytes", "readsBothAtOnce",
    ]

    /// Whether no part is named.
    public var isEmpty: Bool { self == PolicyDocument() }
}

/// A CHAP name with its secret; only ever sent to the control role, never by it.
public struct CredentialDocument: RequestDocument, Hashable, CustomStringConvertible {
    /// CHAP_N.
    public var name: String
    /// The shared secret.
    public var secret: String

    /// A name with its secret.
    public init(name: String, secret: String) {
        self.name = name
        self.secret = secret
    }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["name", "secret"]

    /// The name alone.
    public var description: String { "credential of \(name)" }
}

/// A volume to be created.
public struct CreateVolumeRequest: RequestDocument {
    /// 1 to 64 of a-z, 0-9, hyphen and dot.
    public var name: String
    /// A multiple of the block size.
    public var sizeBytes: UInt64
    /// A power of two from 512 to 65,536.
    public var blockSizeBytes: UInt32?
    /// 512 or 4,096.
    public var logicalBlockSizeBytes: UInt32?
    /// The iSCSI name; absent: made from the name.
    public var iqn: String?
    /// Whether writes are refused.
    public var readOnly: Bool?
    /// Cache policy.
    public var policy: PolicyDocument?
    /// Initiators that may log in; absent or empty: any.
    public var initiators: [String]?
    /// What initiators prove with; absent or empty: no authentication.
    public var credentials: [CredentialDocument]?
    /// What the target proves itself with.
    public var mutual: CredentialDocument?

    /// A volume of a name and a size, everything else as usual.
    public init(name: String, sizeBytes: UInt64) {
        self.name = name
        self.sizeBytes = sizeBytes
    }

    /// The names that may stand in it.
    public static let fields: Set<String> = [
        "name", "sizeBytes", "blockSizeBytes", "logicalBlockSizeBytes", "iqn", "readOnly", "policy", "initiators",
        "credentials", "mutual",
    ]
}

/// Changes of a volume; what is absent stays as it is.
public struct ChangeVolumeRequest: RequestDocument {
    /// Whether writes are refused.
    public var readOnly: Bool?
    /// Parts of the cache policy.
    public var policy: PolicyDocument?
    /// Replaces the list of initiators.
    public var initiators: [String]?
    /// Replaces the credentials of initiators.
    public var credentials: [CredentialDocument]?
    /// Replaces what the target proves itself with; an empty name removes it.
    public var mutual: CredentialDocument?

    /// No change.
    public init() {}

    /// The names that may stand in it.
    public static let fields: Set<String> = ["readOnly", "policy", "initiators", "credentials", "mutual"]
}

/// A new size for a volume.
public struct ResizeVolumeRequest: RequestDocument {
    /// A multiple of the block size.
    public var sizeBytes: UInt64
    /// Whether the volume may become smaller, and lose what lies behind its new end.
    public var force: Bool?

    /// A new size.
    public init(sizeBytes: UInt64, force: Bool? = nil) {
        self.sizeBytes = sizeBytes
        self.force = force
    }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["sizeBytes", "force"]
}

/// What a check is to do.
public struct FsckRequest: RequestDocument {
    /// Only this volume; absent: all.
    public var volume: String?
    /// Whether every object is read on its server.
    public var verify: Bool?
    /// Whether what is safe to repair is repaired.
    public var repair: Bool?

    /// A check.
    public init(volume: String? = nil, verify: Bool? = nil, repair: Bool? = nil) {
        self.volume = volume
        self.verify = verify
        self.repair = repair
    }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["volume", "verify", "repair"]
}

/// What rebuilding the map is to do.
public struct RecoverRequest: RequestDocument {
    /// Whether the plan is carried out; absent: it is only made.
    public var repair: Bool?

    /// A plan, or more.
    public init(repair: Bool? = nil) { self.repair = repair }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["repair"]
}

/// Settings of the cluster.
public struct ClusterDocument: Codable, Sendable, Hashable {
    /// The cluster.
    public var uuid: String
    /// Dead objects keep their bytes for at least so long.
    public var backupWindowSeconds: Int64
    /// How fast items, and objects, are verified; 0: not at all.
    public var scrubBytesPerSecond: Int64
    /// From the beginning of one verification to that of the next.
    public var scrubIntervalSeconds: Int64
    /// Whether objects may be deleted, by what object servers last said; absent: none was asked yet.
    public var deletionAllowed: Bool?
    /// Blocks that were found damaged and have not been written anew since.
    public var damagedBlocks: Int64
}

/// Changes of the settings of the cluster; what is absent stays as it is.
public struct ChangeClusterRequest: RequestDocument {
    /// 0 to a year.
    public var backupWindowSeconds: Int64?
    /// 0: not at all.
    public var scrubBytesPerSecond: Int64?
    /// 1 s to a year.
    public var scrubIntervalSeconds: Int64?

    /// No change.
    public init() {}

    /// The names that may stand in it.
    public static let fields: Set<String> = ["backupWindowSeconds", "scrubBytesPerSecond", "scrubIntervalSeconds"]
}

/// `PATCH /v1/objects/ID`.
public struct ChangeObjectServerRequest: RequestDocument {
    /// Whether its objects are to go to other object servers.
    public var draining: Bool

    /// A change of an object server.
    public init(draining: Bool) { self.draining = draining }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["draining"]
}

/// A volume as the API shows it. Secrets are never part of it.
public struct VolumeDocument: Codable, Sendable, Hashable {
    /// The key.
    public var id: Int64
    /// The name that people use.
    public var name: String
    /// The iSCSI name.
    public var iqn: String
    /// The identification towards initiators.
    public var uuid: String
    /// Size.
    public var sizeBytes: UInt64
    /// Data block.
    public var blockSizeBytes: UInt32
    /// SCSI logical block.
    public var logicalBlockSizeBytes: UInt32
    /// Whether writes are refused.
    public var readOnly: Bool
    /// `active` or `deleting`.
    public var state: String
    /// Cache policy, complete.
    public var policy: PolicyDocument
    /// Initiators that may log in; empty: any.
    public var initiators: [String]
    /// Names of the credentials of initiators.
    public var credentials: [String]
    /// Name of what the target proves itself with.
    public var mutual: String?
    /// Grows with every change.
    public var revision: Int64
    /// When it was created.
    public var createdAt: String
    /// What did not work although the change was made.
    public var warning: String?

    /// A volume with each part named.
    public init(
        id: Int64,
        name: String,
        iqn: String,
        uuid: String,
        sizeBytes: UInt64,
        blockSizeBytes: UInt32,
        logicalBlockSizeBytes: UInt32,
        readOnly: Bool,
        state: String,
        policy: PolicyDocument,
        initiators: [String],
        credentials: [String],
        mutual: String?,
        revision: Int64,
        createdAt: String
    ) {
        self.id = id
        self.name = name
        self.iqn = iqn
        self.uuid = uuid
        self.sizeBytes = sizeBytes
        self.blockSizeBytes = blockSizeBytes
        self.logicalBlockSizeBytes = logicalBlockSizeBytes
        self.readOnly = readOnly
        self.state = state
        self.policy = policy
        self.initiators = initiators
        self.credentials = credentials
        self.mutual = mutual
        self.revision = revision
        self.createdAt = createdAt
    }
}

/// A page of volumes in the order of their names.
public struct VolumePage: Codable, Sendable {
    /// The volumes.
    public var volumes: [VolumeDocument]
    /// What to name as `after` for the next page; absent at the end.
    public var next: String?
}

/// What a volume takes up.
public struct SpaceDocument: Codable, Sendable, Hashable {
    /// The volume's name.
    public var volume: String
    /// Its size.
    public var sizeBytes: UInt64
    /// Cached items.
    public var items: UInt64
    /// Bytes of cached items.
    public var cachedBytes: UInt64
    /// Items that are not in an object yet.
    public var unmovedItems: UInt64
    /// Bytes of these.
    public var unmovedBytes: UInt64
    /// Age of the oldest of these, in seconds; absent where there is none.
    public var oldestUnmovedSeconds: Double?
    /// Extents.
    public var extents: UInt64
    /// Bytes that extents map.
    public var mappedBytes: UInt64
    /// Live objects.
    public var objects: UInt64
    /// Bytes of these.
    public var objectBytes: UInt64
}

/// A page of what volumes take up.
public struct SpacePage: Codable, Sendable {
    /// Volumes in the order of their names.
    public var volumes: [SpaceDocument]
    /// What to name as `after` for the next page; absent at the end.
    public var next: String?
}

/// `PATCH /v1/targets/NAME`.
public struct ChangeTargetRequest: RequestDocument {
    /// Whether sessions are to go to other targets.
    public var draining: Bool

    /// A change of a target.
    public init(draining: Bool) { self.draining = draining }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["draining"]
}

/// A target node, as its last report says.
public struct TargetDocument: Codable, Sendable, Hashable {
    /// Its name.
    public var node: String
    /// Its advertised portal.
    public var portal: String
    /// Its portal group tag.
    public var portalGroupTag: Int64
    /// Its release.
    public var release: String
    /// Sessions logged in.
    public var sessions: Int64
    /// Seconds since the report.
    public var heartbeatAgeSeconds: Double
    /// Whether it counts as alive.
    public var alive: Bool
    /// Whether sessions are to go to other targets.
    public var draining: Bool
}

/// An initiator that is logged in to a volume.
public struct SessionDocument: Codable, Sendable, Hashable {
    /// The volume's name.
    public var volume: String
    /// Number of the nexus.
    public var nexus: Int64
    /// The initiator.
    public var initiator: String
    /// Its session id in hexadecimal.
    public var isid: String
    /// Portal group tag.
    public var portalGroupTag: Int64
    /// The target node.
    public var node: String
    /// When it logged in.
    public var openedAt: String
}

/// `PATCH /v1/caches/NAME`.
public struct ChangeCacheRequest: RequestDocument {
    /// Whether its volumes are to go to other cache servers.
    public var draining: Bool

    /// A change of a cache server.
    public init(draining: Bool) { self.draining = draining }

    /// The names that may stand in it.
    public static let fields: Set<String> = ["draining"]
}

/// A cache server, as PostgreSQL knows it.
public struct CacheNodeDocument: Codable, Sendable, Hashable {
    /// Its name.
    public var name: String
    /// `host:port` that it was last registered with.
    public var endpoint: String
    /// Whether its lease lives.
    public var alive: Bool
    /// Whether its volumes are to go to other cache servers.
    public var draining: Bool
    /// Whether it is about to end.
    public var stopping: Bool
    /// Volumes that it owns.
    public var volumes: Int64
    /// Those of them to which somebody is logged in.
    public var volumesInUse: Int64
}

/// A cache server and its numbers.
public struct CacheDocument: Codable, Sendable, Hashable {
    /// The numbers of one volume.
    public struct Volume: Codable, Sendable, Hashable {
        /// The key of the volume.
        public var id: Int64
        /// Its name, where it is known.
        public var name: String?
        /// The epoch served.
        public var epoch: UInt64
        /// Open nexuses.
        public var sessions: UInt32
        /// Unmoved items.
        public var unmovedItems: UInt64
        /// Bytes of items.
        public var cachedBytes: UInt64
        /// Reads served.
        public var reads: UInt64
        /// Writes served.
        public var writes: UInt64
    }

    /// `host:port`.
    public var endpoint: String
    /// Whether it answered.
    public var reachable: Bool
    /// Why it did not.
    public var reason: String?
    /// Bytes of block data in memory.
    public var imageBytes: UInt64
    /// Commits made.
    public var commits: UInt64
    /// Blocks committed.
    public var committedBlocks: UInt64
    /// Its volumes.
    public var volumes: [Volume]
    /// What PostgreSQL knows of it, where a server of this endpoint has registered.
    public var node: CacheNodeDocument?
}

/// An object server and its numbers.
public struct ObjectServerDocument: Codable, Sendable, Hashable {
    /// Its number.
    public var id: Int32
    /// `host:port`.
    public var endpoint: String
    /// Whether it answered.
    public var reachable: Bool
    /// Why it did not.
    public var reason: String?
    /// Objects stored.
    public var objects: UInt64
    /// Bytes stored.
    public var bytes: UInt64
    /// Bytes free.
    public var freeBytes: UInt64
    /// Roots that take no puts.
    public var rootsOutOfService: UInt32
    /// Whether its objects are to go to other object servers.
    public var draining: Bool
    /// Live objects that lie there, by the database; one that is drained loses them. Absent where the server is not recorded.
    public var liveObjects: UInt64?
}

/// How far a move is.
public struct MoveDocument: Codable, Sendable, Hashable {
    /// Items still unmoved.
    public var unmovedItems: UInt64
}

/// Something long that the control role does.
public struct JobDocument: Codable, Sendable, Hashable {
    /// `running`, `done` or `failed`.
    public enum State: String, Codable, Sendable, Hashable {
        /// Under way.
        case running
        /// Ended well.
        case done
        /// Ended badly; the message says why.
        case failed
    }

    /// Names it for ``JobDocument``s asked for later.
    public var id: String
    /// `delete`, `fsck` or `recover`.
    public var kind: String
    /// What it is about.
    public var subject: String
    /// How it stands.
    public var state: State
    /// Steps done.
    public var done: UInt64
    /// Steps in all, as far as is known; 0 where it is not.
    public var total: UInt64
    /// What is going on, or went wrong.
    public var message: String
    /// The report of a check that has ended.
    public var report: FsckReport?
    /// The report of a recovery that has ended.
    public var recovery: RecoverReport?
}

/// The number of a job that was begun.
public struct JobReference: Codable, Sendable, Hashable {
    /// ``JobDocument/id``.
    public var job: String
}

/// Lists in envelopes of their own, so that fields can be added beside them.
public struct TargetList: Codable, Sendable {
    /// The targets.
    public var targets: [TargetDocument]
}

/// A page of sessions.
public struct SessionList: Codable, Sendable {
    /// The sessions.
    public var sessions: [SessionDocument]
    /// Whether there are more than one page holds.
    public var truncated: Bool
}

/// The cache servers.
public struct CacheList: Codable, Sendable {
    /// The servers that are configured.
    public var caches: [CacheDocument]
    /// All servers that have registered lately, by name.
    public var nodes: [CacheNodeDocument]
}

/// The object servers.
public struct ObjectServerList: Codable, Sendable {
    /// The servers.
    public var objects: [ObjectServerDocument]
}

/// An error as the API answers it.
public struct ErrorDocument: Codable, Sendable {
    /// The error.
    public var error: ControlError

    /// An error in its envelope.
    public init(error: ControlError) { self.error = error }
}
