/// A number with a meaning: no bare integer crosses a module border.
///
/// Each conforming type is a distinct wrapper, so that a block id cannot be taken for a logical block address.
public protocol Identifier: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible
where RawValue: FixedWidthInteger & Sendable {
    /// Wraps a number; every number is accepted.
    init(_ rawValue: RawValue)
}

extension Identifier {
    /// Orders by number.
    @inlinable
    public static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }

    /// The number in decimal.
    public var description: String { String(rawValue) }

    /// Wraps a number; never `nil`.
    @inlinable
    public init(rawValue: RawValue) { self.init(rawValue) }
}

/// The key of a volume in PostgreSQL; never reused.
public struct VolumeID: Identifier {
    /// The number.
    public let rawValue: Int64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}

/// The number of a data block of a volume: byte offset divided by the volume's block size.
public struct BlockID: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The block `distance` blocks further on.
    @inlinable
    public static func + (lhs: BlockID, distance: UInt64) -> BlockID { BlockID(lhs.rawValue + distance) }

    /// The number of blocks from `rhs` to `lhs`, which must not be lower.
    @inlinable
    public static func - (lhs: BlockID, rhs: BlockID) -> UInt64 { lhs.rawValue - rhs.rawValue }
}

/// A SCSI logical block address, in units of the volume's logical block size (SBC-4, 4.5).
public struct LBA: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The version of a data block: from one counter a volume, never used twice (rule M2). 0 means never written.
public struct Version: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The number of an ownership of a volume (I3). Grows with every takeover; 0 means never owned.
public struct Epoch: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The key of a block object; handed out once, never reused (I6, M9).
public struct ObjectID: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The place of a data block inside a block object, counted from 0.
public struct SlotIndex: Identifier {
    /// The number.
    public let rawValue: UInt32
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// The number of a nexus (an I_T_L session): grows with every login to the volume, never reused (R3).
public struct NexusNumber: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The number of a command inside its nexus; only grows (R4).
public struct CommandID: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

/// The key of a cache server's registration in PostgreSQL; a new one for every start of a process.
public struct CacheServerID: Identifier {
    /// The number.
    public let rawValue: Int64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int64) { self.rawValue = rawValue }
}

/// The configured number of an object server, stored with every object that lies there.
public struct ObjectServerID: Identifier {
    /// The number.
    public let rawValue: Int32
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: Int32) { self.rawValue = rawValue }
}

/// A CRC-32C (Castagnoli) over one data block or a part of one (I11).
public struct Checksum: Identifier {
    /// The number.
    public let rawValue: UInt32
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// A reading of a monotonic clock, in nanoseconds from an origin of that clock's own.
public struct MonotonicTime: Identifier {
    /// The number.
    public let rawValue: UInt64
    /// Wraps a number.
    @inlinable
    public init(_ rawValue: UInt64) { self.rawValue = rawValue }

    /// The reading `nanoseconds` later; stays at the end of the range instead of wrapping.
    @inlinable
    public func advanced(byNanoseconds nanoseconds: UInt64) -> MonotonicTime {
        let (sum, overflow) = rawValue.addingReportingOverflow(nanoseconds)
        return MonotonicTime(overflow ? .max : sum)
    }

    /// Nanoseconds from `earlier` to this reading; 0 where `earlier` is later.
    @inlinable
    public func nanoseconds(since earlier: MonotonicTime) -> UInt64 {
        rawValue > earlier.rawValue ? rawValue - earlier.rawValue : 0
    }
}

/// Evidence of an owner's time, carried by every answer of the owner (rule R1).
public struct Stamp: Hashable, Sendable {
    /// The epoch the owner served when it made the stamp.
    public var epoch: Epoch
    /// The owner's monotonic clock when it made the stamp.
    public var time: MonotonicTime

    /// A stamp made at `time` by the owner that serves `epoch`.
    @inlinable
    public init(epoch: Epoch, time: MonotonicTime) {
        self.epoch = epoch
        self.time = time
    }

    /// Whether this stamp is newer evidence than `other`: a higher epoch, or a later time in the same one.
    @inlinable
    public func isNewer(than other: Stamp) -> Bool {
        epoch > other.epoch || (epoch == other.epoch && time > other.time)
    }
}

/// A port of an initiator logged in through a target port: SCSI's I_T nexus (SAM-6, iSCSI name rules of RFC 7143, 4.4.7).
public struct InitiatorTargetNexus: Hashable, Sendable {
    /// The iSCSI name of the initiator.
    public var initiatorName: String
    /// The six bytes of the initiator session id, in the low 48 bits.
    public var isid: UInt64
    /// The target portal group tag.
    public var portalGroupTag: UInt16

    /// The nexus between an initiator port and a target port.
    public init(initiatorName: String, isid: UInt64, portalGroupTag: UInt16) {
        self.initiatorName = initiatorName
        self.isid = isid
        self.portalGroupTag = portalGroupTag
    }
}
