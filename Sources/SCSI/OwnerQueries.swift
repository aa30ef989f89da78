public import AshlarCore

// What is asked of the back end before a command can be answered: each query turns what it gets into the data-in.

/// GET LBA STATUS (SBC-4, 5.6).
public struct LBAStatusQuery: Sendable, Hashable {
    /// What to tell of: from the starting address to the end of the volume, or as far as the command reaches.
    public var range: ByteRange
    /// ALLOCATION LENGTH.
    public var allocationLength: UInt64
}

/// A run of bytes, in whole logical blocks, that are all mapped or all unmapped.
public struct MapRun: Sendable, Hashable {
    /// The bytes.
    public var range: ByteRange
    /// Whether they lie in an item or an object.
    public var isMapped: Bool

    /// A run with its state.
    public init(range: ByteRange, isMapped: Bool) {
        self.range = range
        self.isMapped = isMapped
    }
}

/// PERSISTENT RESERVE IN (SPC-5, 6.16).
public struct ReservationQuery: Sendable, Hashable {
    /// The service actions.
    public enum ServiceAction: UInt8, Sendable, Hashable {
        /// READ KEYS.
        case readKeys = 0
        /// READ RESERVATION.
        case readReservation = 1
        /// REPORT CAPABILITIES.
        case reportCapabilities = 2
        /// READ FULL STATUS.
        case readFullStatus = 3
    }

    /// What to tell.
    public var action: ServiceAction
    /// ALLOCATION LENGTH.
    public var allocationLength: UInt64
}

/// RECEIVE COPY RESULTS and RECEIVE COPY STATUS (SPC-4, 6.24; SPC-5, 6.22).
public struct CopyResultsQuery: Sendable, Hashable {
    /// The service actions that need the record of a copy.
    public enum ServiceAction: UInt8, Sendable, Hashable {
        /// COPY STATUS (LID1).
        case copyStatus = 0
        /// RECEIVE DATA (LID1): there is never held data.
        case receiveData = 1
        /// FAILED SEGMENT DETAILS (LID1).
        case failedSegmentDetails = 4
        /// RECEIVE COPY STATUS (LID4).
        case copyStatusLong = 5
    }

    /// What to tell.
    public var action: ServiceAction
    /// LIST IDENTIFIER.
    public var listIdentifier: UInt32
    /// ALLOCATION LENGTH.
    public var allocationLength: UInt64
}

/// What became of an EXTENDED COPY, as long as its nexus remembers it.
public struct CopyRecord: Sendable, Hashable {
    /// How far a copy is.
    public enum Progress: Sendable, Hashable {
        /// It runs.
        case inProgress
        /// It ended with GOOD.
        case done
        /// It ended with CHECK CONDITION and this sense.
        case failed(SenseData)
    }

    /// LIST IDENTIFIER.
    public var listIdentifier: UInt32
    /// How far it is.
    public var progress: Progress
    /// Segment descriptors done.
    public var segmentsDone: Int
    /// Bytes written.
    public var bytesWritten: UInt64

    /// A record with each part named.
    public init(listIdentifier: UInt32, progress: Progress, segmentsDone: Int, bytesWritten: UInt64) {
        self.listIdentifier = listIdentifier
        self.progress = progress
        self.segmentsDone = segmentsDone
        self.bytesWritten = bytesWritten
    }
}

/// A logical unit as an EXTENDED COPY names it: an identification CSCD descriptor (SPC-5, 6.6.5.3).
public struct CopyDevice: Sendable, Hashable {
    /// DESIGNATOR TYPE.
    public var designatorType: UInt8
    /// DESIGNATOR.
    public var designator: [UInt8]
    /// DISK BLOCK LENGTH; 0 where it was not given.
    public var logicalBlockSizeBytes: UInt32
}

/// A block to block segment of an EXTENDED COPY (SPC-5, 6.6.6.3), in logical blocks of its ends.
public struct CopySegment: Sendable, Hashable {
    /// Index of the device to read.
    public var source: Int
    /// Index of the device to write.
    public var destination: Int
    /// First address to read.
    public var sourceAddress: LBA
    /// First address to write.
    public var destinationAddress: LBA
    /// BLOCK DEVICE NUMBER OF BLOCKS, of the source, or of the destination where `countsDestination`.
    public var blockCount: UInt64
    /// DC: the blocks are counted in the destination's size.
    public var countsDestination: Bool
}

/// EXTENDED COPY (LID1) and (LID4) (SPC-4, 6.4; SPC-5, 6.6), checked as far as it can be without the devices.
public struct ExtendedCopy: Sendable, Hashable {
    /// LIST IDENTIFIER; `nil` where the list is not to be remembered.
    public var listIdentifier: UInt32?
    /// Whether the command ends as soon as the copy has begun (IMMED of LID4).
    public var isImmediate: Bool
    /// The devices by index.
    public var devices: [CopyDevice]
    /// What to copy, in order.
    public var segments: [CopySegment]
}

/// REPORT TARGET PORT GROUPS (SPC-5, 6.36).
public struct TargetPortGroupsQuery: Sendable, Hashable {
    /// PARAMETER DATA FORMAT 001b: the extended header.
    public var isExtended: Bool
    /// ALLOCATION LENGTH.
    public var allocationLength: UInt64
}

/// The states of a target port group (SPC-5, table 308).
public enum AsymmetricAccessState: UInt8, Sendable, Hashable {
    /// Active/optimized.
    case activeOptimized = 0x0
    /// Active/non-optimized.
    case activeNonOptimized = 0x1
    /// Standby.
    case standby = 0x2
    /// Unavailable.
    case unavailable = 0x3
    /// Transitioning.
    case transitioning = 0xF
}

/// A target port group: every node with one portal group tag.
public struct TargetPortGroup: Sendable, Hashable {
    /// TARGET PORT GROUP: the portal group tag.
    public var tag: UInt16
    /// Its state.
    public var state: AsymmetricAccessState
    /// RELATIVE TARGET PORT IDENTIFIERs, ascending.
    public var ports: [UInt16]

    /// A group with each part named.
    public init(tag: UInt16, state: AsymmetricAccessState, ports: [UInt16]) {
        self.tag = tag
        self.state = state
        self.ports = ports
    }
}

/// LOG SENSE for pages with numbers of the owner (SPC-5, 6.10 and 7.3).
public struct LogPageQuery: Sendable, Hashable {
    /// PAGE CODE.
    public var code: UInt8
    /// SUBPAGE CODE.
    public var subpage: UInt8
    /// PARAMETER POINTER: parameters below it are left out.
    public var parameterPointer: UInt16
    /// ALLOCATION LENGTH.
    public var allocationLength: UInt64
}

/// What log pages tell of a logical unit: counted since its owner took it over.
public struct UnitStatistics: Sendable, Hashable {
    /// Read commands done.
    public var readCommands: UInt64
    /// Write commands done.
    public var writeCommands: UInt64
    /// Logical blocks read.
    public var blocksRead: UInt64
    /// Logical blocks written.
    public var blocksWritten: UInt64
    /// Bytes of data blocks that are mapped.
    public var mappedBytes: UInt64

    /// Numbers with each part named.
    public init(
        readCommands: UInt64,
        writeCommands: UInt64,
        blocksRead: UInt64,
        blocksWritten: UInt64,
        mappedBytes: UInt64
    ) {
        self.readCommands = readCommands
        self.writeCommands = writeCommands
        self.blocksRead = blocksRead
        self.blocksWritten = blocksWritten
        self.mappedBytes = mappedBytes
    }
}
