/// The order in which an agent moves a volume's unmoved items to block objects.
public enum MovePolicy: String, Sendable, Hashable, CaseIterable {
    /// Least recently written or read first.
    case lru
    /// In the order in which they first became unmoved.
    case fifo
    /// Only as many as exceed `unmovedItemsMaximum`, oldest first.
    case count
    /// Only as many as exceed `unmovedBytesMaximum`, oldest first.
    case bytes
    /// Only those unmoved for longer than `unmovedAgeMaximumSeconds`.
    case age
}

/// When a copy of a block that was read from an object is kept in the cache.
public enum ReadFillPolicy: String, Sendable, Hashable, CaseIterable {
    /// Never.
    case never
    /// At the first read.
    case always
    /// At the second read within the memory of the owner.
    case second
}

/// How the owner and its agents treat the cache of one volume; changeable while running.
public struct CachePolicy: Hashable, Sendable {
    /// What to move, and in which order.
    public var move: MovePolicy
    /// Bound for ``MovePolicy/count``.
    public var unmovedItemsMaximum: UInt64
    /// Bound for ``MovePolicy/bytes``.
    public var unmovedBytesMaximum: UInt64
    /// Bound for ``MovePolicy/age``; also the age after which every policy moves an item.
    public var unmovedAgeMaximumSeconds: UInt32
    /// Moved items above this many bytes are evicted.
    public var cachedBytesMaximum: UInt64
    /// When blocks read from objects are kept.
    public var readFill: ReadFillPolicy
    /// An object whose live share is below this many percent is compacted.
    public var compactBelowPercent: UInt8
    /// Writes of whole data blocks and at least this many bytes go straight to a block object (M4); 0 for never.
    public var directWriteMinimumBytes: UInt32
    /// Writes of whole data blocks and at least this many bytes, and fewer than go straight to an object, are written to the cache and to a
    /// block object at the same time; 0 for never.
    public var writeThroughMinimumBytes: UInt32
    /// Whether targets that read ask the object servers for what last lay there, at the same time as the owner.
    public var readsBothAtOnce: Bool

    /// What a volume gets for which nothing is named.
    public static let standard = CachePolicy(
        move: .fifo,
        unmovedItemsMaximum: 1 << 20,
        unmovedBytesMaximum: 1 << 30,
        unmovedAgeMaximumSeconds: 300,
        cachedBytesMaximum: 256 << 20,
        readFill: .never,
        compactBelowPercent: 50,
        directWriteMinimumBytes: 64 << 10
    )

    /// A policy with each of its parts named.
    public init(
        move: MovePolicy,
        unmovedItemsMaximum: UInt64,
        unmovedBytesMaximum: UInt64,
        unmovedAgeMaximumSeconds: UInt32,
        cachedBytesMaximum: UInt64,
        readFill: ReadFillPolicy,
        compactBelowPercent: UInt8,
        directWriteMinimumBytes: UInt32,
        writeThroughMinimumBytes: UInt32 = 0,
        readsBothAtOnce: Bool = false
    ) {
        self.move = move
        self.unmovedItemsMaximum = unmovedItemsMaximum
        self.unmovedBytesMaximum = unmovedBytesMaximum
        self.unmovedAgeMaximumSeconds = unmovedAgeMaximumSeconds
        self.cachedBytesMaximum = cachedBytesMaximum
        self.readFill = readFill
        self.compactBelowPercent = compactBelowPercent
        self.directWriteMinimumBytes = directWriteMinimumBytes
        self.writeThroughMinimumBytes = writeThroughMinimumBytes
        self.readsBothAtOnce = readsBothAtOnce
    }

    /// Whether a write of so many bytes, of whole data blocks, goes straight to an object.
    public func isDirect(byteCount: Int) -> Bool {
        directWriteMinimumBytes > 0 && byteCount >= Int(directWriteMinimumBytes)
    }

    /// Whether a write of so many bytes, of whole data blocks, is written to the cache and to an object at the same time.
    public func isThrough(byteCount: Int) -> Bool {
        writeThroughMinimumBytes > 0 && byteCount >= Int(writeThroughMinimumBytes) && !isDirect(byteCount: byteCount)
    }
}

/// A CHAP secret with the name it belongs to. Its description hides the secret.
public struct CHAPCredential: Hashable, Sendable, CustomStringConvertible {
    /// CHAP_N.
    public var name: String
    /// The shared secret.
    public var secret: String

    /// A name and its secret.
    public init(name: String, secret: String) {
        self.name = name
        self.secret = secret
    }

    /// The name alone.
    public var description: String { "CHAP credential of \(name)" }
}

/// Who may log in to a volume, and how they prove themselves.
public struct AccessRules: Hashable, Sendable {
    /// iSCSI names of the initiators that may log in; empty: any.
    public var initiators: [String]
    /// What initiators prove with; empty: no authentication.
    public var credentials: [CHAPCredential]
    /// What the target proves itself with, where the initiator asks (mutual CHAP).
    public var mutual: CHAPCredential?

    /// Rules with each part named; without arguments everyone may log in.
    public init(initiators: [String] = [], credentials: [CHAPCredential] = [], mutual: CHAPCredential? = nil) {
        self.initiators = initiators
        self.credentials = credentials
        self.mutual = mutual
    }

    /// Whether an initiator of that name is on the list of those that may log in.
    public func lists(_ initiator: String) -> Bool { initiators.isEmpty || initiators.contains(initiator) }

    /// Whether an initiator may log in that proves itself so; nil: not at all.
    public func admits(_ initiator: String, proof: CHAPCredential?) -> Bool {
        lists(initiator) && (credentials.isEmpty || proof.map(credentials.contains) ?? false)
    }
}

/// What every role needs to know of a volume: the row of `volumes`.
public struct VolumeDescription: Hashable, Sendable {
    /// The key.
    public var id: VolumeID
    /// The name that people use.
    public var name: String
    /// The iSCSI name that initiators use.
    public var iqn: String
    /// 16 bytes that name the volume to the world: VPD page 83h and the serial number come from them.
    public var uuid: [UInt8]
    /// Size and block sizes.
    public var geometry: Geometry
    /// Whether writes are refused.
    public var isReadOnly: Bool
    /// Cache policy.
    public var policy: CachePolicy
    /// Access rules.
    public var access: AccessRules
    /// Grows with every change of the row; a node can tell whether it serves the newest.
    public var revision: UInt64
    /// Bytes from here on may lie what has to become zeros first, since the volume was once this small; nil: nowhere.
    public var zeroFromBytes: UInt64?

    /// A volume with each part named.
    public init(
        id: VolumeID,
        name: String,
        iqn: String,
        uuid: [UInt8],
        geometry: Geometry,
        isReadOnly: Bool = false,
        policy: CachePolicy = .standard,
        access: AccessRules = AccessRules(),
        revision: UInt64 = 1
    ) {
        self.id = id
        self.name = name
        self.iqn = iqn
        self.uuid = uuid
        self.geometry = geometry
        self.isReadOnly = isReadOnly
        self.policy = policy
        self.access = access
        self.revision = revision
    }
}

/// The roles of a cluster; each certificate names one.
public enum Role: String, Sendable, Hashable, CaseIterable {
    /// iSCSI towards initiators.
    case target
    /// Owner of volumes.
    case cache
    /// Store of block objects.
    case objects
    /// Moves, evicts, compacts, collects.
    case agent
    /// API and administration.
    case control
}
