import AshlarCore
import BlockObjects
import ISCSI
import Logging
import NIOCore
import Ownership
import RPC
import SCSI
import Transport

/// A read on its way: what the owner's map said, and the parts that have arrived.
final class ReadAssembly {
    let range: ByteRange
    let task: SessionTask?
    let geometry: Geometry
    let completion: (Result<[ByteBuffer], BackEndFailure>) -> Void
    var runs: [ReadCommand.Run] = []
    /// Plain bytes of each run, a run's pieces in order; nil while it is being fetched.
    var parts: [[ByteBuffer]?] = []
    var missing = 0
    var repeats = 0
    var isFinished = false

    init(
        range: ByteRange,
        task: SessionTask?,
        geometry: Geometry,
        completion: @escaping (Result<[ByteBuffer], BackEndFailure>) -> Void
    ) {
        self.range = range
        self.task = task
        self.geometry = geometry
        self.completion = completion
    }

    var firstBlock: BlockID { geometry.blocks(touching: range).first }

    /// The block that the first slot of a run in an object must have been written as.
    func origin(ofRun index: Int) -> BlockID {
        if case .object(_, _, _, let origin?, _) = runs[index] { return origin }
        return firstBlock + UInt64(runs[..<index].reduce(0) { $0 + $1.count })
    }

    /// The LBA at which a run, or a data block in it, begins; where the read begins behind that, the LBA at which the read does.
    func address(ofRun index: Int, block: Int = 0) -> LBA {
        let before = runs[..<index].reduce(0) { $0 + $1.count }
        let offset = (firstBlock.rawValue + UInt64(before) + UInt64(block)) * UInt64(geometry.blockSizeBytes)
        return LBA(max(offset, range.offset) / UInt64(geometry.logicalBlockSizeBytes))
    }
}

// Reads: one request to the owner, then what lies in objects from the object servers, in parallel.
extension ISCSISession {
    /// Reads bytes; the pieces come in order and add up to the range. Without a task it is the target's own.
    func read(
        _ range: ByteRange,
        for task: SessionTask?,
        geometry: Geometry,
        completion: @escaping (Result<[ByteBuffer], BackEndFailure>) -> Void
    ) {
        ask(ReadAssembly(range: range, task: task, geometry: geometry, completion: completion))
    }

    private func ask(_ assembly: ReadAssembly) {
        if let task = assembly.task, !isLive(task) { return }
        submit(
            BackEndRequest(task: assembly.task, operation: .read(assembly.range)) { [self] outcome in
                switch outcome {
                case .read(let answer, let payload): begin(assembly, answer, payload)
                case .done, .checked, .mapped: finish(assembly, failure: .internalError)
                case .failed(let failure): finish(assembly, failure: failure)
                }
            }
        )
    }

    private func finish(_ assembly: ReadAssembly, failure: BackEndFailure) {
        guard !assembly.isFinished else { return }
        assembly.isFinished = true
        assembly.completion(.failure(failure))
    }

    /// Takes the owner's answer: verifies the bytes that it holds, and asks for what lies in objects.
    private func begin(_ assembly: ReadAssembly, _ answer: ReadCommand.Answer, _ payload: ByteBuffer) {
        let blocks = assembly.geometry.blocks(touching: assembly.range).count
        guard answer.runs.reduce(0, { $0 + UInt64($1.count) }) == blocks else {
            return finish(assembly, failure: .internalError)
        }
        let wasSame = assembly.repeats > 0 && assembly.runs == answer.runs
        guard !wasSame else {
            // I7: only a repeat with an unchanged map is an error.
            let index = assembly.parts.firstIndex { $0 == nil } ?? 0
            return finish(assembly, failure: .unreadable(assembly.address(ofRun: index)))
        }
        let size = Int(assembly.geometry.blockSizeBytes)
        if answer.runs.count == 1, case .bytes(let checksums) = answer.runs[0] {
            return finish(assembly, checksums, payload, blockBytes: size)
        }
        assembly.runs = answer.runs
        assembly.parts = Array(repeating: nil, count: answer.runs.count)
        assembly.missing = 0
        var rest = payload
        for (index, run) in answer.runs.enumerated() {
            switch run {
            case .zeros(let count):
                assembly.parts[index] = [ByteBuffer(repeating: 0, count: Int(count) * size)]
            case .bytes(let checksums):
                guard let bytes = rest.readSlice(length: checksums.count * size) else {
                    return finish(assembly, failure: .internalError)
                }
                if let bad = Self.firstDamaged(bytes, checksums, blockBytes: size) {
                    return finishDamaged(assembly, run: index, block: bad)
                }
                assembly.parts[index] = [bytes]
            case .object: assembly.missing += 1
            }
        }
        guard assembly.missing > 0 else { return complete(assembly) }
        let round = assembly.repeats
        for (index, run) in answer.runs.enumerated() {
            if case .object(let object, let server, let firstSlot, _, let count) = run {
                let message = GetSlots(object: object, firstSlot: firstSlot, count: count)
                fetch(message, from: server, run: index, of: assembly, round: round, retries: 0)
            }
        }
    }

    /// What most reads come to: one run of bytes in the answer is all of it.
    private func finish(_ assembly: ReadAssembly, _ checksums: [Checksum], _ payload: ByteBuffer, blockBytes: Int) {
        let start = assembly.firstBlock.rawValue * UInt64(blockBytes)
        let skip = Int(assembly.range.offset - start)
        guard
            payload.readableBytes >= checksums.count * blockBytes,
            let bytes = payload.getSlice(at: payload.readerIndex + skip, length: Int(assembly.range.count))
        else { return finish(assembly, failure: .internalError) }
        if let bad = Self.firstDamaged(payload, checksums, blockBytes: blockBytes) {
            assembly.runs = [.bytes(checksums: checksums)]
            return finishDamaged(assembly, run: 0, block: bad)
        }
        guard !assembly.isFinished else { return }
        assembly.isFinished = true
        assembly.completion(.success([bytes]))
    }

    private func finishDamaged(_ assembly: ReadAssembly, run: Int, block: Int) {
        service.logger.error("a cached block does not agree with its checksum (I11)")
        finish(assembly, failure: .unreadable(assembly.address(ofRun: run, block: block)))
    }

    private static func firstDamaged(_ bytes: ByteBuffer, _ checksums: [Checksum], blockBytes: Int) -> Int? {
        bytes.withUnsafeReadableBytes { raw in
            checksums.indices.first { index in
                let block = raw[index * blockBytes..<(index + 1) * blockBytes]
                return Checksum(of: UnsafeRawBufferPointer(rebasing: block)) != checksums[index]
            }
        }
    }

    // MARK: Objects

    private func fetch(
        _ message: GetSlots,
        from server: ObjectServerID,
        run: Int,
        of assembly: ReadAssembly,
        round: Int,
        retries: Int
    ) {
        guard let client = service.objects[server] else {
            service.logger.error("an object lies on a server that is not configured", metadata: ["server": "\(server)"])
            return finish(assembly, failure: .unreachable)
        }
        client.send(message, deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds) { [self] result in
            defer { drain() }
            guard !assembly.isFinished, assembly.repeats == round, assembly.parts[run] == nil else { return }
            switch result {
            case .failure(let failure):
                retry(message, server, run, assembly, round, retries, reason: failure.reason)
            case .success(var answer):
                do throws(RPCError) {
                    let slots = try answer.decode(GetSlots.Answer.self)
                    slotsArrived(slots, answer.body, message, run: run, of: assembly)
                } catch {
                    switch error.status {
                    case .noSuchObject: askAgain(assembly)
                    case .busy, .deadlineExceeded:
                        retry(message, server, run, assembly, round, retries, reason: error.message)
                    default:
                        service.logger.error(
                            "an object cannot be read",
                            metadata: ["object": "\(message.object)", "reason": "\(error.message)"]
                        )
                        let block = message.place(of: error.damagedSlot) ?? 0
                        finish(assembly, failure: .unreadable(assembly.address(ofRun: run, block: block)))
                    }
                }
            }
        }
    }

    private func retry(
        _ message: GetSlots,
        _ server: ObjectServerID,
        _ run: Int,
        _ assembly: ReadAssembly,
        _ round: Int,
        _ retries: Int,
        reason: String
    ) {
        guard retries < TargetLimits.fetchRetriesMaximum else {
            service.logger.error(
                "an object server cannot be reached",
                metadata: ["server": "\(server)", "reason": "\(reason)"]
            )
            return finish(assembly, failure: .unreachable)
        }
        let bound = NIOLoopBound((self, assembly), eventLoop: service.loop)
        service.loop.scheduleTask(in: TargetLimits.fetchRetryInterval) {
            let (session, assembly) = bound.value
            guard !assembly.isFinished, assembly.repeats == round else { return }
            session.fetch(message, from: server, run: run, of: assembly, round: round, retries: retries + 1)
        }
    }

    /// An object has gone: the whole read is repeated from the owner's map (I7, M10).
    private func askAgain(_ assembly: ReadAssembly) {
        assembly.repeats += 1
        guard assembly.repeats <= TargetLimits.readRepeatsMaximum else {
            return finish(assembly, failure: .unreadable(assembly.address(ofRun: 0)))
        }
        ask(assembly)
    }

    private func slotsArrived(
        _ slots: GetSlots.Answer,
        _ payload: ByteBuffer,
        _ message: GetSlots,
        run: Int,
        of assembly: ReadAssembly
    ) {
        let firstBlock = assembly.origin(ofRun: run)
        guard slots.slots.count == Int(message.count), slots.blockSizeBytes == assembly.geometry.blockSizeBytes else {
            return finish(assembly, failure: .unreadable(assembly.address(ofRun: run)))
        }
        var rest = payload
        var pieces: [ByteBuffer] = []
        pieces.reserveCapacity(slots.slots.count)
        do {
            for (index, slot) in slots.slots.enumerated() {
                guard
                    slot.block == firstBlock + UInt64(index), let encoding = SlotEncoding(rawValue: slot.encoding),
                    let bytes = rest.readSlice(length: Int(slot.storedBytes))
                else { return finish(assembly, failure: .unreadable(assembly.address(ofRun: run, block: index))) }
                let stored = StoredSlot(encoding: encoding, bytes: bytes, checksum: slot.checksum)
                pieces.append(
                    try stored.decoded(
                        blockSizeBytes: slots.blockSizeBytes,
                        slot: SlotIndex(message.firstSlot.rawValue + UInt32(index)),
                        using: service.inflater
                    )
                )
            }
        } catch {
            service.logger.error(
                "an object's block is damaged (I11)",
                metadata: ["object": "\(message.object)", "error": "\(error)"]
            )
            // The pieces before it are whole.
            return finish(assembly, failure: .unreadable(assembly.address(ofRun: run, block: pieces.count)))
        }
        assembly.parts[run] = pieces
        assembly.missing -= 1
        if assembly.missing == 0 { complete(assembly) }
    }

    /// Cuts whole blocks down to the bytes that were asked for.
    private func complete(_ assembly: ReadAssembly) {
        guard !assembly.isFinished else { return }
        assembly.isFinished = true
        let start = assembly.firstBlock.rawValue * UInt64(assembly.geometry.blockSizeBytes)
        var skip = Int(assembly.range.offset - start)
        var left = Int(assembly.range.count)
        var result: [ByteBuffer] = []
        for part in assembly.parts {
            for piece in part ?? [] where left > 0 {
                var piece = piece
                if skip > 0 {
                    let cut = min(skip, piece.readableBytes)
                    piece.moveReaderIndex(forwardBy: cut)
                    skip -= cut
                }
                guard let slice = piece.readSlice(length: min(left, piece.readableBytes)) else { continue }
                left -= slice.readableBytes
                if slice.readableBytes > 0 { result.append(slice) }
            }
        }
        precondition(left == 0, "the runs of a read cover its range")
        assembly.completion(.success(result))
    }
}
