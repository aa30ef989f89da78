/// What a check found and did.
public struct FsckReport: Codable, Sendable, Hashable {
    /// The kinds of finding.
    public enum Kind: String, Codable, Sendable, Hashable, CaseIterable {
        /// Two extents of a volume have blocks in common.
        case extentsOverlap = "extents-overlap"
        /// An extent refers to an object without a row.
        case extentWithoutObject = "extent-without-object"
        /// An extent refers to an object that is not live.
        case extentOfDeadObject = "extent-of-dead-object"
        /// An extent refers to an object of another volume.
        case extentOfForeignObject = "extent-of-foreign-object"
        /// An extent refers to slots that the object does not have.
        case extentOutsideObject = "extent-outside-object"
        /// An extent lies behind the end of its volume.
        case extentOutsideVolume = "extent-outside-volume"
        /// An extent belongs to no volume.
        case extentWithoutVolume = "extent-without-volume"
        /// The live slots of an object are counted wrongly.
        case liveSlotsWrong = "live-slots-wrong"
        /// An item has another number of bytes than a block, or than its attributes say.
        case itemLengthWrong = "item-length-wrong"
        /// The bytes of an item do not have the checksum that was made when they were written.
        case itemChecksumWrong = "item-checksum-wrong"
        /// An item lacks an attribute.
        case itemMalformed = "item-malformed"
        /// An item lies behind the end of its volume.
        case itemOutsideVolume = "item-outside-volume"
        /// An item belongs to no volume.
        case itemWithoutVolume = "item-without-volume"
        /// An item is marked moved, but no extent maps its block.
        case movedItemUnmapped = "moved-item-unmapped"
        /// A live object has no bytes on its server.
        case objectMissing = "object-missing"
        /// The bytes of a live object are damaged.
        case objectDamaged = "object-damaged"
        /// Bytes lie on a server without a row.
        case objectUnknown = "object-unknown"
        /// An intent is so old that nobody will map it any more.
        case orphanIntent = "orphan-intent"

        /// Whether data may be lost or wrong: what is not, is only untidy.
        public var isDamage: Bool {
            switch self {
            case .liveSlotsWrong, .objectUnknown, .orphanIntent, .itemWithoutVolume, .extentWithoutVolume: false
            default: true
            }
        }
    }

    /// One thing that is not as it should be.
    public struct Finding: Codable, Sendable, Hashable {
        /// Its kind.
        public var kind: Kind
        /// The key of the volume, where there is one.
        public var volume: Int64?
        /// The block, where there is one.
        public var block: Int64?
        /// The object, where there is one.
        public var object: Int64?
        /// What is the matter.
        public var detail: String
    }

    /// Volumes looked at.
    public var volumes: UInt64 = 0
    /// Items whose bytes were read.
    public var items: UInt64 = 0
    /// Extents looked at.
    public var extents: UInt64 = 0
    /// Objects looked at.
    public var objects: UInt64 = 0
    /// Objects whose bytes were read on their servers.
    public var objectsVerified: UInt64 = 0
    /// The first findings.
    public var findings: [Finding] = []
    /// How many there are of each kind.
    public var counts: [String: UInt64] = [:]
    /// What was repaired.
    public var repairs: [String] = []
    /// What could not be looked at, and why.
    public var incomplete: [String] = []

    /// A report of nothing.
    public init() {}

    /// Whether nothing was found and everything was looked at.
    public var isClean: Bool { counts.isEmpty && incomplete.isEmpty }

    /// Whether data may be lost or wrong.
    public var hasDamage: Bool {
        counts.keys.contains { Kind(rawValue: $0)?.isDamage ?? true }
    }

    mutating func add(_ finding: Finding) {
        counts[finding.kind.rawValue, default: 0] += 1
        if findings.count < ControlLimits.findingsMaximum { findings.append(finding) }
    }
}
