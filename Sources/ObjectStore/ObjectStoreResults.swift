public import AshlarCore
public import BlockObjects
public import NIOCore

/// Which slots of an object are wanted.
public enum SlotSelection: Sendable, Hashable {
    /// All of them, in order.
    case all
    /// These, in this order; at most ``AshlarCore/Limits/objectSlotsMaximum``.
    case slots([SlotIndex])
}

/// What a put did.
public enum PutOutcome: Sendable, Hashable {
    /// The object is new.
    case stored
    /// The very same bytes lay there already; they are durable now (M9).
    case alreadyStored
}

/// Slots of an object, as they are stored.
public struct StoredObject: Sendable, Hashable {
    /// The object's header.
    public let header: BlockObjectHeader
    /// The slots that were wanted, in the order in which they were asked for; their stored checksums are verified.
    public let slots: [StoredSlot]
    /// The stored bytes of all of them one behind the other, in as few pieces as they were read in: slots that lie in a row are one.
    public let payload: [ByteBuffer]
}

/// A part of the list of all objects.
public struct ObjectPage: Sendable, Hashable {
    /// Ids of objects, each once, in the order of a hash of the id, which never changes.
    public let ids: [ObjectID]
    /// Where the next page begins (the `after` of the next call); nil at the end.
    public let next: ObjectID?
}

/// What was verified of an object.
public struct VerifiedObject: Sendable, Hashable {
    /// Slots of the object.
    public let slots: Int
    /// Bytes of one copy.
    public let bytes: UInt64
    /// Roots that hold it; more than one only after a root was out of service or weights were changed.
    public let copies: Int
}

/// What an object store knows of the database that its objects belong to.
public struct DatabaseKnowledge: Sendable, Hashable {
    /// The highest clock that it was ever told; 0: none.
    public let clock: UInt64
    /// The highest object id that lay there since the start; 0: none.
    public let highestObject: ObjectID
}

/// The state of an object store.
public struct ObjectStoreStatistics: Sendable, Hashable {
    /// The state of one root.
    public struct Root: Sendable, Hashable {
        /// Its directory.
        public let path: String
        /// Its share of new objects.
        public let weight: UInt32
        /// Its own uuid, 32 hexadecimal digits.
        public let uuid: String
        /// Objects that lie there.
        public let objects: UInt64
        /// Bytes of these.
        public let bytes: UInt64
        /// Objects whose size no object can have, as found at the start: torn or emptied files (D11).
        public let damagedObjects: UInt64
        /// Free bytes of the file system; nil where it does not say.
        public let freeBytes: UInt64?
        /// All bytes of the file system; nil where it does not say.
        public let totalBytes: UInt64?
        /// Why the root was taken out of service; nil while it is in service (D12).
        public let failure: String?
    }

    /// Each root, in the order of the configuration.
    public let roots: [Root]

    /// Objects in all roots.
    public var objects: UInt64 { roots.reduce(0) { $0 + $1.objects } }
    /// Bytes of the objects in all roots.
    public var bytes: UInt64 { roots.reduce(0) { $0 + $1.bytes } }
    /// Free bytes of the roots that are in service. Roots on one file system count it each.
    public var freeBytes: UInt64 { roots.reduce(0) { $0 + ($1.failure == nil ? $1.freeBytes ?? 0 : 0) } }
}
