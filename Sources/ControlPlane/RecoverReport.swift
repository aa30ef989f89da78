/// What rebuilding the map found, and did or would do.
public struct RecoverReport: Codable, Sendable, Hashable {
    /// The kinds of finding.
    public enum Kind: String, Codable, Sendable, Hashable, CaseIterable {
        /// Objects hold newer versions of these blocks than the database: they are mapped.
        case newer
        /// These blocks cannot be read any more: their object is gone or damaged, and nothing newer is there.
        case lost
        /// The object of these blocks is gone, but their items are there: they are moved again.
        case kept
        /// Objects hold blocks behind the end of the volume: it was larger. They are left alone.
        case beyondEnd = "beyond-end"
        /// Objects belong to a volume that the database does not know: it is made anew.
        case unknownVolume = "unknown-volume"
        /// Objects name a volume by number and UUID, and the database has another one under that number, or another block size.
        case otherVolume = "other-volume"
        /// The rebuilding of this volume was interrupted; nobody can use it before it is run again.
        case interrupted
        /// The header of an object cannot be read: what it holds is not known.
        case unreadable
        /// Two servers hold different objects under one number.
        case twice

        /// Whether something is wrong that this does not put right.
        public var isLoss: Bool {
            switch self {
            case .lost, .otherVolume, .unreadable, .twice, .beyondEnd: true
            case .newer, .kept, .unknownVolume, .interrupted: false
            }
        }
    }

    /// One finding.
    public struct Finding: Codable, Sendable, Hashable {
        /// Its kind.
        public var kind: Kind
        /// The key of the volume, where there is one.
        public var volume: Int64?
        /// The first block, where it is about blocks.
        public var firstBlock: UInt64?
        /// How many blocks.
        public var blockCount: UInt64?
        /// The object, where it is about one.
        public var object: Int64?
        /// What is the matter.
        public var detail: String
    }

    /// Whether the database is older than the objects.
    public var isBehind = false
    /// Headers that were read.
    public var objects: UInt64 = 0
    /// Volumes whose map changes.
    public var volumes: [String] = []
    /// Blocks that are mapped to newer versions.
    public var blocksTaken: UInt64 = 0
    /// Items that are replaced by newer versions in objects.
    public var itemsReplaced: UInt64 = 0
    /// The first findings.
    public var findings: [Finding] = []
    /// How many there are of each kind.
    public var counts: [String: UInt64] = [:]
    /// What could not be looked at; nothing is repaired then.
    public var incomplete: [String] = []
    /// Whether the plan was carried out.
    public var isRepaired = false

    /// A report of nothing.
    public init() {}

    /// Whether there is something to carry out.
    public var isNeeded: Bool { isBehind || !volumes.isEmpty }

    /// Whether something is wrong that this does not put right.
    public var hasLoss: Bool { counts.keys.contains { Kind(rawValue: $0)?.isLoss ?? true } }

    mutating func add(
        _ kind: Kind,
        volume: Int64? = nil,
        blocks: (first: UInt64, count: UInt64)? = nil,
        object: Int64? = nil,
        _ detail: String
    ) {
        counts[kind.rawValue, default: 0] += 1
        guard findings.count < ControlLimits.findingsMaximum else { return }
        findings.append(
            Finding(
                kind: kind,
                volume: volume,
                firstBlock: blocks?.first,
                blockCount: blocks?.count,
                object: object,
                detail: detail
            )
        )
    }
}
