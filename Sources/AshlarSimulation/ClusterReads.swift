import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import ObjectStore
import Ownership

/// A read whose blocks a target puts together: what the owner returned, and slots of objects.
final class ClusterRead {
    let request: ClusterRequest
    let range: ByteRange
    var runs: [ReadRun] = []
    var blocks: [ByteBuffer?] = []
    /// How often it was asked again because an object had gone (I7).
    var repeats = 0
    var isFinished = false
    /// What came of slots that were sent for along with the question to the owner, by its place in the read.
    var early: [Int: ClusterEarlySlot] = [:]

    init(request: ClusterRequest, range: ByteRange) {
        self.request = request
        self.range = range
    }
}

// What a target does with the answer to a read. The rules are those of TargetNode's `ISCSISession+Reading`.
extension Cluster {
    private static let repeatsMaximum = 8
    private static let retriesMaximum = 20

    func assemble(_ request: ClusterRequest, _ runs: [ReadRun], _ payload: [ByteBuffer], _ session: ClusterSession) {
        guard case .read(let range) = request.command else { return count("answer to what is no read") }
        let read = session.reads[request.operation] ?? ClusterRead(request: request, range: range)
        if read.repeats > 0, read.runs == runs {
            // Only a repeat with an unchanged map is an error, and there is none: the object should be there.
            problems.append("I7: a read at \(now) found an object missing that the map still names")
            return fail(read, session)
        }
        session.reads[request.operation] = read
        let count = runs.reduce(0) { $0 + Int($1.blockCount) }
        // M10: what was fetched by an older map is not used with a newer one.
        if defect != .readsMixed || read.blocks.count != count {
            read.blocks = Array(repeating: nil, count: count)
        }
        read.runs = runs
        notePlaces(read)
        if defect == .knownPlacesTrusted {
            for (block, slot) in read.early where block < count { read.blocks[block] = slot.bytes }
        }
        var index = 0
        var rest = payload.reduce(into: ByteBuffer()) { $0.writeImmutableBuffer($1) }
        let isSlow = !isQuiet && generator.below(12) == 0
        for run in runs {
            let start = index
            index += Int(run.blockCount)
            switch run {
            case .zeros:
                for block in start..<index where read.blocks[block] == nil {
                    read.blocks[block] = ByteBuffer(repeating: 0, count: blockBytes)
                }
            case .bytes(let checksums):
                for (block, checksum) in zip(start..<index, checksums) {
                    guard let bytes = rest.readSlice(length: blockBytes), bytes.testChecksum == checksum else {
                        self.count("damaged read")
                        return fail(read, session)
                    }
                    if read.blocks[block] == nil { read.blocks[block] = bytes }
                }
            case .object(let object, let server, let first, let origin, let slots):
                let own = BlockID(range.offset / UInt64(blockBytes) + UInt64(start))
                if origin != nil { self.count("read from a shared slot") }
                self.count("read from object")
                if takeEarly(of: read, start..<index, object, first) { continue }
                let piece = ClusterPiece(
                    object: object,
                    server: server,
                    first: first,
                    origin: origin ?? own,
                    slots: slots,
                    start: start,
                    slowedBy: isSlow ? UInt64(generator.below(3_000)) * 1_000_000 : 0
                )
                fetch(piece, read, session, round: read.repeats, retries: 0)
            }
        }
        complete(read, session)
    }

    private func fetch(
        _ piece: ClusterPiece,
        _ read: ClusterRead,
        _ session: ClusterSession,
        round: Int,
        retries: Int
    ) {
        self.read(piece.object, piece.first, piece.slots, on: piece.server, slowedBy: piece.slowedBy) { [self] result in
            guard !read.isFinished, read.repeats == round else { return }
            switch result {
            case .success(let slots):
                for (offset, slot) in slots.enumerated() {
                    guard let bytes = plain(slot, origin: piece.origin + UInt64(offset)) else {
                        count(
                            slot.entry.block == piece.origin + UInt64(offset) ? "damaged read" : "slot of another block"
                        )
                        return fail(read, session)
                    }
                    if read.blocks[piece.start + offset] == nil { read.blocks[piece.start + offset] = bytes }
                }
                complete(read, session)
            case .failure(.refused(let error)) where error.code == .notFound: askAgain(read, session)
            case .failure(.refused(let error)) where error.code == .corrupt:
                count("damaged read")
                fail(read, session)
            case .failure where retries < Self.retriesMaximum:
                after(250_000_000) { [self] in
                    guard !read.isFinished, read.repeats == round else { return }
                    var piece = piece
                    piece.slowedBy = 0
                    fetch(piece, read, session, round: round, retries: retries + 1)
                }
            case .failure: fail(read, session)
            }
        }
    }

    /// An object has gone: the whole read is repeated from the owner's map (I7, M10).
    private func askAgain(_ read: ClusterRead, _ session: ClusterSession) {
        count("read repeated")
        read.repeats += 1
        guard read.repeats <= Self.repeatsMaximum, !session.isEnded, !session.isInitiatorGone else {
            return fail(read, session)
        }
        let id = session.client.submit(
            read.request,
            isChange: false,
            deadline: MonotonicTime(now + 20_000_000_000)
        )
        session.inFlight[id] = read.request.operation
        drain(session)
    }

    private func fail(_ read: ClusterRead, _ session: ClusterSession) {
        guard !read.isFinished else { return }
        count("reads failed")
        read.isFinished = true
        session.reads[read.request.operation] = nil
        guard !session.isInitiatorGone, !session.isEnded else { return }
        operations[read.request.operation].fate = .never
        readEnded(read.request.operation, session)
    }

    /// An initiator has heard the end of a read.
    func readEnded(_ index: Int, _ session: ClusterSession) {
        owners[index] = nil
        session.reads[index] = nil
        if operations[index].isOfCopy, session.initiator.session === session { session.initiator.readsOfCopy -= 1 }
    }

    private func complete(_ read: ClusterRead, _ session: ClusterSession) {
        guard !read.isFinished, !read.blocks.contains(where: { $0 == nil }) else { return }
        read.isFinished = true
        let index = read.request.operation
        session.reads[index] = nil
        guard !session.isInitiatorGone, !session.isEnded else { return }
        session.received = now
        readEnded(index, session)
        var bytes = ByteBuffer()
        for block in read.blocks { if let block { bytes.writeImmutableBuffer(block) } }
        count("reads done")
        let first = operations[index].firstSector
        let skip = Int(offset(ofSector: first)) % blockBytes
        operations[index].values = (0..<operations[index].count).map { sector in
            bytes.getInteger(at: skip + sector * Self.sectorBytes) ?? .max
        }
        for value in operations[index].values { fold(value) }
        operations[index].fate = .done
        guard !operations[index].isOfCopy else {
            // It shows what was copied, when that was copied.
            return count("copies read")
        }
        operations[index].latest = now
        for (sector, value) in operations[index].values.enumerated() { session.initiator.seen[first + sector] = value }
    }
}

/// A run of slots that a read fetches.
private struct ClusterPiece {
    var object: ObjectID
    var server: ObjectServerID
    var first: SlotIndex
    var origin: BlockID
    var slots: UInt32
    /// The first of the read's blocks that they are.
    var start: Int
    var slowedBy: UInt64
}

extension ReadRun {
    /// Blocks of the run.
    fileprivate var blockCount: UInt32 {
        switch self {
        case .zeros(let count), .object(_, server: _, firstSlot: _, origin: _, let count): count
        case .bytes(let checksums): UInt32(checksums.count)
        }
    }
}
