public import AshlarCore
public import NIOCore

/// A read: the bytes of `range` are the data-in; the transport cuts them to what the initiator expects.
public struct ReadPlan: Sendable, Hashable {
    /// What to read; never empty.
    public var range: ByteRange
    /// FORCE UNIT ACCESS: true of every read, since there is no volatile cache (I1).
    public var isForceUnitAccess: Bool
    /// DISABLE PAGE OUT: the blocks need not be kept in memory.
    public var isPageOutDisabled: Bool

    /// A read with each part named.
    public init(range: ByteRange, isForceUnitAccess: Bool, isPageOutDisabled: Bool) {
        self.range = range
        self.isForceUnitAccess = isForceUnitAccess
        self.isPageOutDisabled = isPageOutDisabled
    }
}

/// A write: `data` has exactly `range.count` bytes, a multiple of the logical block, or of ``Limits/writeGranularityBytes`` for a
/// WRITE whose initiator sent less than its CDB implies.
public struct WritePlan: Sendable, Hashable {
    /// What to write; never empty.
    public var range: ByteRange
    /// The bytes.
    public var data: ByteBuffer
    /// FORCE UNIT ACCESS: true of every write (I1).
    public var isForceUnitAccess: Bool
    /// DISABLE PAGE OUT: the blocks need not be kept in memory.
    public var isPageOutDisabled: Bool

    /// A write with each part named.
    public init(range: ByteRange, data: ByteBuffer, isForceUnitAccess: Bool, isPageOutDisabled: Bool) {
        self.range = range
        self.data = data
        self.isForceUnitAccess = isForceUnitAccess
        self.isPageOutDisabled = isPageOutDisabled
    }
}

/// What VERIFY compares the medium with.
public enum VerifyMode: Sendable, Hashable {
    /// Nothing: that the blocks can be read is enough (BYTCHK 00b).
    case mediumOnly
    /// As many bytes as the range has (BYTCHK 01b).
    case compareData(ByteBuffer)
    /// One logical block, with each logical block of the range (BYTCHK 11b).
    case compareOneBlock(ByteBuffer)
}

/// What is to be done for a command. Ranges are inside the volume and never empty, and their ends are ends of logical blocks, but
/// for the end of a ``WritePlan`` of less data than the CDB implies. What is large and rare is kept indirectly.
public enum SCSICommandPlan: Sendable, Hashable {
    /// Nothing more: this is the answer.
    indirect case complete(SCSIResponse)
    /// Read and answer GOOD with the bytes.
    case read(ReadPlan)
    /// Write, whole or not at all (I12).
    case write(WritePlan)
    /// Compare, and write if nothing differs, as one; both buffers have `range.count` bytes.
    case compareAndWrite(range: ByteRange, compare: ByteBuffer, write: ByteBuffer)
    /// Make the ranges read as zeros and give their space back. They may touch or overlap.
    case zero([ByteRange])
    /// Write the pattern, one logical block long and not all zeros, to each logical block of the range.
    case writeSame(range: ByteRange, pattern: ByteBuffer)
    /// Compare, changing nothing.
    case verify(range: ByteRange, mode: VerifyMode)
    /// Answer once all writes to the range that were acknowledged are durable, which they are (I1).
    case synchronizeCache(range: ByteRange)
    /// OR the data into the range, as one; `data` has `range.count` bytes.
    case orWrite(range: ByteRange, data: ByteBuffer)
    /// Write, then read back; `compares`: byte by byte (BYTCHK 01b).
    case writeAndVerify(WritePlan, compares: Bool)
    /// Tell which blocks are mapped.
    indirect case lbaStatus(LBAStatusQuery)
    /// Tell registrations or the reservation.
    indirect case reservationIn(ReservationQuery)
    /// Change registrations or the reservation.
    indirect case reservationOut(ReservationAction)
    /// RESERVE (6) and (10).
    case reserveUnit
    /// RELEASE (6) and (10).
    case releaseUnit
    /// Put mode parameters in force; `isSaved`: and keep them over a reset.
    case modeSelect(ModeParameters, isSaved: Bool)
    /// Keep identifying information.
    case setIdentifyingInformation(IdentifyingInformationKind, [UInt8])
    /// Erase the whole medium; `isImmediate`: answer once that has begun.
    indirect case erase(Erasure, isImmediate: Bool)
    /// Copy between logical units, or inside one.
    indirect case extendedCopy(ExtendedCopy)
    /// Tell what became of a copy of this nexus.
    indirect case copyResults(CopyResultsQuery)
    /// Tell the target port groups and their states.
    indirect case targetPortGroups(TargetPortGroupsQuery)
    /// Tell a log page that holds numbers of the owner.
    indirect case logSense(LogPageQuery)
}

/// What a CDB says about the bytes that go with it, for the transport's residual counts (SAM-6, 5.4.2).
public enum DataTransfer: Sendable, Hashable {
    /// None.
    case none
    /// So many bytes from the initiator.
    case dataOut(UInt64)
    /// So many bytes to the initiator.
    case dataIn(UInt64)
    /// An allocation length: as many bytes to the initiator as there are, and no more than this.
    case dataInAtMost(UInt64)

    /// Whether the bytes come from the initiator.
    public var isDataOut: Bool {
        if case .dataOut = self { true } else { false }
    }

    /// The bytes that the command implies, from those the response holds: what the transport compares with the expected
    /// data transfer length.
    public func impliedByteCount(dataInCount: Int) -> UInt64 {
        switch self {
        case .none: 0
        case .dataOut(let count), .dataIn(let count): count
        case .dataInAtMost(let count): min(count, UInt64(dataInCount))
        }
    }
}
