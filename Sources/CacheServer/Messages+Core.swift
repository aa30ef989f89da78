import AshlarCore
import NIOCore
import Ownership
import RPC

// Between the wire's messages and the core's values.

extension CommandContext {
    init(_ header: CommandHeader) {
        self.init(
            volume: header.volume,
            nexus: header.nexus,
            command: header.command,
            lowWater: header.lowWater,
            proved: header.proved
        )
    }
}

extension ReadCommand.Run {
    init(_ run: ReadRun) {
        switch run {
        case .bytes(let checksums): self = .bytes(checksums: checksums)
        case .object(let object, let server, let firstSlot, let origin, let count):
            self = .object(object, server: server, firstSlot: firstSlot, origin: origin, count: count)
        case .zeros(let count): self = .zeros(count: count)
        }
    }
}

extension MapMove {
    var objectMap: ObjectMap {
        ObjectMap(
            object: object,
            server: server,
            sizeBytes: sizeBytes,
            slots: slots.map { ObjectMap.Slot(block: $0.block, version: $0.version, condition: .itemHasVersion) }
        )
    }
}

extension MapCompaction {
    var objectMap: ObjectMap {
        ObjectMap(
            object: object,
            server: server,
            sizeBytes: sizeBytes,
            slots: slots.map {
                ObjectMap.Slot(
                    block: $0.block,
                    version: $0.version,
                    condition: .extentNames($0.source, $0.sourceSlot)
                )
            }
        )
    }
}

extension MoveAssignment {
    var payload: [ByteBuffer] { blocks.map(\.bytes) }
}

extension MoveWork.Answer {
    /// Without work: an answer without blocks.
    init(_ work: MoveAssignment?) {
        guard let work else {
            self.init(
                volume: VolumeID(0),
                uuid: [UInt8](repeating: 0, count: 16),
                blockSizeBytes: 0,
                object: ObjectID(0),
                blocks: []
            )
            return
        }
        self.init(
            volume: work.volume.id,
            uuid: work.volume.uuid,
            blockSizeBytes: work.volume.geometry.blockSizeBytes,
            object: work.object,
            blocks: work.blocks.map {
                MoveWork.Block(block: $0.row.block, version: $0.row.version, checksum: $0.row.checksum)
            }
        )
    }
}

extension CompactionWork.Answer {
    /// Without work: an answer without runs.
    init(_ work: CompactionAssignment?) {
        guard let work else {
            self.init(
                volume: VolumeID(0),
                uuid: [UInt8](repeating: 0, count: 16),
                blockSizeBytes: 0,
                object: ObjectID(0),
                runs: []
            )
            return
        }
        self.init(
            volume: work.volume.id,
            uuid: work.volume.uuid,
            blockSizeBytes: work.volume.geometry.blockSizeBytes,
            object: work.object,
            runs: work.extents.map {
                CompactionWork.LiveRun(
                    blocks: $0.blocks,
                    source: $0.object,
                    server: $0.server,
                    firstSlot: $0.firstSlot,
                    copy: $0.copy
                )
            }
        )
    }
}

extension MapDirect.Outcome {
    /// What one of an object's commands was answered.
    init(_ answer: OwnerAnswer) {
        switch answer {
        case .done(let stamp): self.init(status: .ok, stamp: stamp, detail: 0)
        case .refused(let refusal, let stamp):
            let error = RPCError(refusal, stamp)
            var detail = error.detail
            let value = error.ownerHint == nil ? (try? CommandAnswer(decoding: &detail))?.detail : nil
            let none = Stamp(epoch: Epoch(0), time: MonotonicTime(0))
            self.init(status: error.status, stamp: stamp ?? none, detail: value ?? 0)
        default:
            // The owner answers a change in no other way.
            let none = Stamp(epoch: Epoch(0), time: MonotonicTime(0))
            self.init(status: .internalError, stamp: none, detail: 0)
        }
    }
}

extension ByteBuffer {
    /// The bytes of a message.
    init(_ message: some RPCMessage) {
        self.init()
        message.encode(into: &self)
    }
}

extension RPCError {
    /// The one place where the owner's refusals become statuses of the wire.
    init(_ refusal: Refusal, _ stamp: Stamp?) {
        let stamp = stamp ?? Stamp(epoch: Epoch(0), time: MonotonicTime(0))
        func detail(_ value: UInt64 = 0) -> ByteBuffer { ByteBuffer(CommandAnswer(stamp: stamp, detail: value)) }
        switch refusal {
        case .unproved: self.init(.unproved, "the proof of the initiator's life is too old", detail: detail())
        case .wrongEpoch: self = .wrongEpoch(current: stamp.epoch, owner: "", "made for another epoch")
        case .notOwner(let endpoint):
            self = .notOwner(current: stamp.epoch, owner: endpoint ?? "", "the volume is not owned here")
        case .nexusClosed: self.init(.nexusClosed, "the nexus is closed", detail: detail())
        case .belowLowWater: self.init(.belowLowWater, "the command was given up", detail: detail())
        case .aborted: self.init(.aborted, "task management took the command back", detail: detail())
        case .superseded: self.init(.aborted, "the command was sent again", detail: detail())
        case .outOfRange: self.init(.outOfRange, "beyond the end of the volume", detail: detail())
        case .readOnly: self.init(.readOnly, "the volume is read-only", detail: detail())
        case .mediumError(let offset): self.init(.mediumError, "a block is damaged or lost", detail: detail(offset))
        case .deadline: self.init(.deadlineExceeded, "the command waited as long as it may", detail: detail())
        case .busy(let why): self.init(.busy, why, detail: detail())
        case .stale: self.init(.stale, "to be sent as a write", detail: detail())
        case .noSuchVolume: self.init(.noSuchVolume, "there is no such volume")
        case .invalid(let why): self.init(.invalidMessage, why, detail: detail())
        case .attention(let attention):
            self.init(.unitAttention, "a unit attention condition", detail: detail(UInt64(attention.rawValue)))
        case .reservationConflict: self.init(.reservationConflict, "a reservation is in the way", detail: detail())
        case .erasing(let kind, let progress):
            self.init(
                .erasing,
                "the unit is being erased",
                detail: detail(UInt64(kind.rawValue) << 16 | UInt64(progress))
            )
        case .taskAborted: self.init(.taskAborted, "another nexus had the command aborted", detail: detail())
        case .softwareWriteProtected: self.init(.softwareWriteProtected, "SWP is set", detail: detail())
        case .invalidRelease: self.init(.invalidRelease, "the reservation is of another type", detail: detail())
        case .noRegistrationRoom: self.init(.noRegistrationRoom, "too many registrations", detail: detail())
        case .invalidParameter(let byte):
            self.init(.invalidParameter, "a parameter does not fit the state", detail: detail(UInt64(byte)))
        }
    }

    /// The one place where the store's failures become statuses of the wire.
    init(_ failure: StoreFailure) {
        switch failure {
        case .refused(let why): self.init(.busy, "PostgreSQL: \(why)")
        case .unknownOutcome(let why): self.init(.busy, "PostgreSQL: \(why)")
        case .broken(let why): self.init(.internalError, "PostgreSQL: \(why)")
        }
    }
}
