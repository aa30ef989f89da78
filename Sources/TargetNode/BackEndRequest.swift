import AshlarCore
import NIOCore
import Ownership
import RPC
import SCSI

/// One command for the owner, with what is needed to send it again.
final class BackEndRequest {
    enum Operation: Sendable {
        case read(ByteRange)
        case write(offset: UInt64, checksums: [Checksum], bytes: ByteBuffer)
        case zero([ByteRange])
        case compareAndWrite(offset: UInt64, checksum: Checksum, compare: ByteBuffer, write: ByteBuffer)
        case orWrite(offset: UInt64, checksums: [Checksum], bytes: ByteBuffer)
        /// Inside the volume, of whole data blocks.
        case copy(source: UInt64, destination: UInt64, count: UInt64)
        case mapStatus(ByteRange, runsMaximum: Int)
        case check(CommandRules, wantsReservations: Bool)
        indirect case unit(UnitAction)
        case manage(UnitManagement)

        var isChange: Bool {
            switch self {
            case .read, .mapStatus, .check: false
            case .write, .zero, .compareAndWrite, .orWrite, .copy, .unit, .manage: true
            }
        }

        /// Whether it takes back what came before it.
        var isManagement: Bool { if case .manage = self { true } else { false } }

        /// How long the outcome is waited for, in milliseconds: an erasure that is not immediate takes as long as it takes.
        var deadlineMilliseconds: UInt32 {
            if case .unit(.erase(_, isImmediate: false)) = self { return TargetLimits.erasureDeadlineMilliseconds }
            if case .manage = self { return TargetLimits.taskManagementDeadlineMilliseconds }
            return Limits.commandDeadlineMilliseconds
        }
    }

    /// The initiator's task that it belongs to; nil where it is the target's own.
    let task: SessionTask?
    let operation: Operation
    /// Whether a large write of it may go straight to an object.
    let mayGoDirect: Bool
    let completion: (Outcome) -> Void
    /// Its number in the nexus, while it has no outcome.
    var command: CommandID?

    init(
        task: SessionTask?,
        operation: Operation,
        mayGoDirect: Bool = false,
        completion: @escaping (Outcome) -> Void
    ) {
        self.task = task
        self.operation = operation
        self.mayGoDirect = mayGoDirect
        self.completion = completion
    }

    /// What the owner, or the rules of epochs, made of it.
    enum Outcome: Sendable {
        case done
        case read(ReadCommand.Answer, payload: ByteBuffer)
        indirect case checked(UnitReport)
        case mapped([MappedRun])
        case failed(BackEndFailure)
    }
}

/// An answer of the owner as the nexus's client passes it on.
typealias BackEndAnswer = BackEndRequest.Outcome

extension BackEndRequest.Operation {
    /// A write with the checksums of its pieces between the borders of data blocks: made where the target first holds them
    /// whole (I11).
    static func write(_ range: ByteRange, _ bytes: ByteBuffer, geometry: Geometry) -> Self {
        .write(offset: range.offset, checksums: checksums(range, bytes, geometry), bytes: bytes)
    }

    /// An ORWRITE, with checksums as a write has them.
    static func orWrite(_ range: ByteRange, _ bytes: ByteBuffer, geometry: Geometry) -> Self {
        .orWrite(offset: range.offset, checksums: checksums(range, bytes, geometry), bytes: bytes)
    }

    private static func checksums(_ range: ByteRange, _ bytes: ByteBuffer, _ geometry: Geometry) -> [Checksum] {
        let size = UInt64(geometry.blockSizeBytes)
        return bytes.withUnsafeReadableBytes { raw in
            var list: [Checksum] = []
            list.reserveCapacity(raw.count / Int(size) + 2)
            var position = 0
            var offset = range.offset
            while position < raw.count {
                let count = min(Int(size - offset % size), raw.count - position)
                list.append(Checksum(of: UnsafeRawBufferPointer(rebasing: raw[position..<position + count])))
                position += count
                offset += UInt64(count)
            }
            return list
        }
    }

    /// A COMPARE AND WRITE with the checksum of both halves.
    static func compareAndWrite(_ range: ByteRange, compare: ByteBuffer, write: ByteBuffer) -> Self {
        let first = compare.withUnsafeReadableBytes { Checksum(of: $0) }
        let both = write.withUnsafeReadableBytes { first.continued(by: $0) }
        return .compareAndWrite(offset: range.offset, checksum: both, compare: compare, write: write)
    }
}

extension CommandHeader {
    init(_ context: CommandContext) {
        self.init(
            volume: context.volume,
            nexus: context.nexus,
            command: context.command,
            lowWater: context.lowWater,
            proved: context.proved
        )
    }
}

extension BackEndFailure {
    /// The one place where statuses of the wire become failures of SCSI.
    init(_ error: RPCError, geometry: Geometry) {
        var detail = error.detail
        let value = (try? CommandAnswer(decoding: &detail))?.detail ?? 0
        switch error.status {
        case .miscompare: self = .miscompare(offset: value)
        case .mediumError: self = .unreadable(LBA(value / UInt64(geometry.logicalBlockSizeBytes)))
        case .readOnly: self = .writeProtected
        case .outOfRange: self = .outOfRange(LBA(geometry.logicalBlockCount))
        case .busy: self = .busy
        case .deadlineExceeded: self = .deadlinePassed
        case .aborted, .belowLowWater: self = .aborted
        case .reservationConflict: self = .reservationConflict
        case .noSpace: self = .spaceExhausted
        case .unitAttention:
            // A condition of a later release is told as what every initiator knows.
            self = .attention(UInt8(exactly: value).flatMap(UnitAttention.init) ?? .powerOnOrReset)
        case .erasing:
            let kind = Erasure.Kind(rawValue: UInt8(truncatingIfNeeded: value >> 16)) ?? .format
            self = .erasing(kind, progress: UInt16(truncatingIfNeeded: value))
        case .taskAborted: self = .taskAborted
        case .softwareWriteProtected: self = .softwareWriteProtected
        case .invalidRelease: self = .invalidReleaseOfReservation
        case .noRegistrationRoom: self = .insufficientRegistrationResources
        case .invalidParameter: self = .invalidParameter(byte: Int(clamping: value), bit: nil)
        default: self = .internalError
        }
    }
}
