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
    /// What of a run has arrived.
    enum Part {
        /// A block is missing.
        case missing
        /// Plain bytes: of the block, or of several in a row, or of all of a run that does not lie in an object.
        case bytes(ByteBuffer)
        /// A block that the part before it holds.
        case joined
    }

    /// The parts of each run in order; a run in an object has one for each block.
    var parts: [[Part]] = []
    /// The block that the first slot of each run in an object must have been written as.
    private var origins: [BlockID] = []
    /// What is being fetched or waited for.
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

    /// Begins anew with another map.
    func begin(_ runs: [ReadCommand.Run]) {
        self.runs = runs
        parts = Array(repeating: [], count: runs.count)
        missing = 0
        origins = []
        origins.reserveCapacity(runs.count)
        var block = firstBlock
        for run in runs {
            if case .object(_, _, _, let origin?, _) = run { origins.append(origin) } else { origins.append(block) }
            block = block + UInt64(run.count)
        }
    }

    /// The block that a slot of a run in an object must have been written as.
    func origin(ofRun index: Int, place: Int) -> BlockID { origins[index] + UInt64(place) }

    /// The first block that has not arrived.
    var firstMissing: (run: Int, place: Int)? {
        for (run, pieces) in parts.enumerated() {
            if let place = pieces.firstIndex(where: { if case .missing = $0 { true } else { false } }) {
                return (run, place)
            }
        }
        return nil
    }

    /// The LBA at which a run, or a data block in it, begins; where the read begins behind that, the LBA at which the read does.
    func address(ofRun index: Int, block: Int = 0) -> LBA {
        let before = runs[..<index].reduce(0) { $0 + $1.count }
        let offset = (firstBlock.rawValue + UInt64(before) + UInt64(block)) * UInt64(geometry.blockSizeBytes)
        return LBA(max(offset, range.offset) / UInt64(geometry.logicalBlockSizeBytes))
    }

    /// The LBA at which a block in an object begins, likewise.
    func address(of piece: SlotPiece) -> LBA { address(ofRun: piece.run, block: piece.place) }
}

/// Blocks of a read that follow one another both in an answer's payload, as they are, and in the read: they go on as one piece, which
/// costs less than one for each.
private struct PlainRow {
    private var first: SlotPiece?
    private var start = 0
    private var count = 0

    /// Whether a block goes on where the row ends; it is then in the row.
    mutating func takes(_ piece: SlotPiece) -> Bool {
        guard let first, piece == first.moved(by: count) else { return false }
        count += 1
        return true
    }

    /// Begins with a block whose bytes are at an index of the payload.
    mutating func begin(_ piece: SlotPiece, at index: Int) {
        first = piece
        start = index
        count = 1
    }

    /// Puts the row in the place of its first block.
    mutating func end(of payload: ByteBuffer, blockBytes: Int, in assembly: ReadAssembly) {
        if let first, count > 1, let bytes = payload.getSlice(at: start, length: count * blockBytes) {
            assembly.parts[first.run][first.place] = .bytes(bytes)
        }
        first = nil
        count = 0
    }
}

// Reads: one request to the owner, then what lies in objects: from memory, else from the object servers, in parallel.
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
        if assembly.repeats == 0 { backend?.readAtOnce(assembly.geometry.blocks(touching: assembly.range)) }
    }

    private func finish(_ assembly: ReadAssembly, failure: BackEndFailure) {
        guard !assembly.isFinished else { return }
        assembly.isFinished = true
        assembly.completion(.failure(failure))
    }

    /// Takes the owner's answer: verifies the bytes that it holds, and gets what lies in objects.
    private func begin(_ assembly: ReadAssembly, _ answer: ReadCommand.Answer, _ payload: ByteBuffer) {
        let blocks = assembly.geometry.blocks(touching: assembly.range)
        guard answer.runs.reduce(0, { $0 + UInt64($1.count) }) == blocks.count else {
            return finish(assembly, failure: .internalError)
        }
        let wasSame = assembly.repeats > 0 && assembly.runs == answer.runs
        guard !wasSame else {
            // I7: only a repeat with an unchanged map is an error.
            let missing = assembly.firstMissing ?? (0, 0)
            let address = assembly.address(ofRun: missing.run, block: missing.place)
            return finish(assembly, failure: .unreadable(address))
        }
        backend?.notePlaces(answer.runs, from: blocks.first)
        let size = Int(assembly.geometry.blockSizeBytes)
        if answer.runs.count == 1, case .bytes(let checksums) = answer.runs[0] {
            return finish(assembly, checksums, payload, blockBytes: size)
        }
        assembly.begin(answer.runs)
        var rest = payload
        var missing: [SlotPiece] = []
        var isInObjects = false
        for (index, run) in answer.runs.enumerated() {
            switch run {
            case .zeros(let count):
                assembly.parts[index] = [.bytes(ByteBuffer(repeating: 0, count: Int(count) * size))]
            case .bytes(let checksums):
                guard let bytes = rest.readSlice(length: checksums.count * size) else {
                    return finish(assembly, failure: .internalError)
                }
                if let bad = Self.firstDamaged(bytes, checksums, blockBytes: size) {
                    return finishDamaged(assembly, run: index, block: bad)
                }
                assembly.parts[index] = [.bytes(bytes)]
            case .object(let object, let server, let firstSlot, _, let count):
                guard UInt64(firstSlot.rawValue) + UInt64(count) <= UInt64(Limits.objectSlotsMaximum) else {
                    return finish(assembly, failure: .internalError)
                }
                isInObjects = true
                let first = SlotPiece(object: object, server: server, slot: firstSlot, run: index, place: 0)
                look(first, count: Int(count), of: assembly, missing: &missing)
            }
        }
        assembly.missing = fetch(missing, of: assembly, waits: true)
        if assembly.missing == 0 { complete(assembly) }
        // Behind the read itself, so that nothing is in its way.
        if isInObjects { backend?.readFromObjects(blocks) }
    }

    // MARK: Bytes of the owner

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

    /// Takes what memory holds of a run in an object, and adds the rest to what is missing.
    private func look(_ first: SlotPiece, count: Int, of assembly: ReadAssembly, missing: inout [SlotPiece]) {
        let before = missing.count
        var gaps = 0
        var isInGap = false
        assembly.parts[first.run] = Array(repeating: .missing, count: count)
        for place in 0..<count {
            let piece = first.moved(by: place)
            if let bytes = find(piece, of: assembly) {
                assembly.parts[first.run][place] = .bytes(bytes)
                isInGap = false
            } else {
                missing.append(piece)
                if !isInGap { gaps += 1 }
                isInGap = true
            }
        }
        service.slots.count(hits: count - (missing.count - before), misses: missing.count - before)
        guard gaps > TargetLimits.gapsOfRunMaximum else { return }
        // One request for all of it costs less than many small ones.
        missing.removeSubrange(before...)
        missing.append(contentsOf: (0..<count).map(first.moved))
        assembly.parts[first.run] = Array(repeating: .missing, count: count)
    }

    private func find(_ piece: SlotPiece, of assembly: ReadAssembly) -> ByteBuffer? {
        service.slots.find(
            piece.object,
            piece.slot,
            writtenAs: assembly.origin(ofRun: piece.run, place: piece.place),
            blockBytes: Int(assembly.geometry.blockSizeBytes)
        )
    }

    /// Gets what is missing, all of it at once; what is being read ahead is waited for.
    ///
    /// - Returns: how many events have to come until nothing is missing.
    private func fetch(_ pieces: [SlotPiece], of assembly: ReadAssembly, waits: Bool) -> Int {
        guard !pieces.isEmpty else { return 0 }
        var rest = pieces
        var flights: [(flight: SlotReader.Flight, pieces: [SlotPiece])] = []
        if waits, service.slots.isReadingAhead {
            rest = []
            for piece in pieces {
                guard let flight = service.slots.flight(piece.object, piece.slot) else {
                    rest.append(piece)
                    continue
                }
                if flights.last?.flight === flight {
                    flights[flights.count - 1].pieces.append(piece)
                } else {
                    flights.append((flight, [piece]))
                }
            }
        }
        let round = assembly.repeats
        for (flight, pieces) in flights {
            flight.waiters.append { [self] in aheadArrived(pieces, of: assembly, round: round) }
        }
        let requests = SlotRequest.joined(rest)
        for request in requests { fetch(request, of: assembly, round: round, retries: 0) }
        return flights.count + requests.count
    }

    /// What was being read ahead has arrived, or failed: what is not there is fetched after all.
    private func aheadArrived(_ pieces: [SlotPiece], of assembly: ReadAssembly, round: Int) {
        defer { drain() }
        guard !assembly.isFinished, assembly.repeats == round else { return }
        var missing: [SlotPiece] = []
        for piece in pieces {
            if let bytes = find(piece, of: assembly) {
                assembly.parts[piece.run][piece.place] = .bytes(bytes)
            } else {
                missing.append(piece)
            }
        }
        assembly.missing += fetch(missing, of: assembly, waits: false) - 1
        if assembly.missing == 0 { complete(assembly) }
    }

    private func fetch(_ request: SlotRequest, of assembly: ReadAssembly, round: Int, retries: Int) {
        let server = request.server
        guard let client = service.objects[server] else {
            service.logger.error("an object lies on a server that is not configured", metadata: ["server": "\(server)"])
            return finish(assembly, failure: .unreachable)
        }
        let message = GetSlots(object: request.object, firstSlot: request.firstSlot, count: request.count)
        let bytes = Int(request.count) * Int(assembly.geometry.blockSizeBytes)
        service.slots.fetchBegan(bytes)
        client.send(message, deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds) { [self] result in
            defer { drain() }
            service.slots.fetchEnded(bytes)
            guard !assembly.isFinished, assembly.repeats == round else { return }
            switch result {
            case .failure(let failure):
                retry(request, assembly, round, retries, reason: failure.reason)
            case .success(var answer):
                do throws(RPCError) {
                    let slots = try answer.decode(GetSlots.Answer.self)
                    slotsArrived(slots, answer.body, request, of: assembly)
                } catch {
                    switch error.status {
                    case .noSuchObject: askAgain(assembly)
                    case .busy, .deadlineExceeded:
                        retry(request, assembly, round, retries, reason: error.message)
                    default:
                        service.logger.error(
                            "an object cannot be read",
                            metadata: ["object": "\(request.object)", "reason": "\(error.message)"]
                        )
                        let damaged = request.pieces.first { $0.slot == error.damagedSlot } ?? request.pieces[0]
                        finish(assembly, failure: .unreadable(assembly.address(of: damaged)))
                    }
                }
            }
        }
    }

    private func retry(
        _ request: SlotRequest,
        _ assembly: ReadAssembly,
        _ round: Int,
        _ retries: Int,
        reason: String
    ) {
        guard retries < TargetLimits.fetchRetriesMaximum else {
            service.logger.error(
                "an object server cannot be reached",
                metadata: ["server": "\(request.server)", "reason": "\(reason)"]
            )
            return finish(assembly, failure: .unreachable)
        }
        let bound = NIOLoopBound((self, assembly), eventLoop: service.loop)
        service.loop.scheduleTask(in: TargetLimits.fetchRetryInterval) {
            let (session, assembly) = bound.value
            guard !assembly.isFinished, assembly.repeats == round else { return }
            session.fetch(request, of: assembly, round: round, retries: retries + 1)
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
        _ request: SlotRequest,
        of assembly: ReadAssembly
    ) {
        guard
            slots.slots.count == Int(request.count), slots.blockSizeBytes == assembly.geometry.blockSizeBytes
        else { return finish(assembly, failure: .unreadable(assembly.address(of: request.pieces[0]))) }
        let size = Int(slots.blockSizeBytes)
        var rest = payload
        var next = 0
        var row = PlainRow()
        for slot in slots.slots {
            // Each slot of a request is that of a piece, or of several.
            let first = request.pieces[next]
            let index = rest.readerIndex
            let plain: ByteBuffer
            do {
                plain = try service.slots.plain(slot, from: &rest, at: first.slot, blockSizeBytes: slots.blockSizeBytes)
            } catch {
                service.logger.error(
                    "an object's block is damaged (I11)",
                    metadata: ["object": "\(request.object)", "error": "\(error)"]
                )
                return finish(assembly, failure: .unreadable(assembly.address(of: first)))
            }
            let isPlain = slot.encoding == SlotEncoding.plain.rawValue
            while next < request.pieces.count, request.pieces[next].slot == first.slot {
                let piece = request.pieces[next]
                next += 1
                guard slot.block == assembly.origin(ofRun: piece.run, place: piece.place) else {
                    return finish(assembly, failure: .unreadable(assembly.address(of: piece)))
                }
                if isPlain, row.takes(piece) {
                    assembly.parts[piece.run][piece.place] = .joined
                } else {
                    row.end(of: payload, blockBytes: size, in: assembly)
                    assembly.parts[piece.run][piece.place] = .bytes(plain)
                    if isPlain { row.begin(piece, at: index) }
                }
            }
            service.slots.keep(slot, plain, at: request.object, first.slot, isAhead: false)
        }
        row.end(of: payload, blockBytes: size, in: assembly)
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
            for case .bytes(var piece) in part where left > 0 {
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
