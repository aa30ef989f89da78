import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import Ownership

/// A write on its way into an object.
struct ClusterDirectWrite {
    let session: ClusterSession
    let id: CommandID
    let attempt: UInt32
    let request: ClusterRequest
    let context: CommandContext
    let blocks: BlockRange
    let checksums: [Checksum]
    let bytes: ByteBuffer
    let connection: Int
}

/// A target's direct writes: it packs those of all its sessions together (M4).
final class ClusterDirectTarget {
    var packer: DirectPacker<ClusterDirectWrite>
    /// The server that its sessions last wrote to.
    var server = 0
    var isPacking = false

    init(blockSizeBytes: UInt32) { packer = DirectPacker(blockSizeBytes: blockSizeBytes) }
}

// Direct writes of targets: into an object, then mapped, or through the cache under the same number.
extension Cluster {
    /// Takes a write that goes straight to an object; `false` where it does not.
    func takeDirect(
        _ id: CommandID,
        _ attempt: UInt32,
        _ request: ClusterRequest,
        _ context: CommandContext,
        _ session: ClusterSession
    ) -> Bool {
        guard let target = directTarget(of: session), attempt == 1, let server = session.server,
            case .write(let offset, let checksums, let bytes) = request.command,
            Int(offset) % blockBytes == 0, bytes.readableBytes % blockBytes == 0, generator.chance(60)
        else { return false }
        let blocks = BlockRange(
            first: BlockID(offset / UInt64(blockBytes)),
            count: UInt64(bytes.readableBytes / blockBytes)
        )
        let write = ClusterDirectWrite(
            session: session,
            id: id,
            attempt: attempt,
            request: request,
            context: context,
            blocks: blocks,
            checksums: checksums,
            bytes: bytes,
            connection: session.connection
        )
        let epoch = context.proved.epoch
        guard target.packer.add(write, blocks: blocks, epoch: epoch, now: MonotonicTime(now)) else { return false }
        target.server = server
        if !target.isPacking {
            target.isPacking = true
            // What comes within a while goes together.
            after(UInt64(generator.below(6)) * 1_000_000) { [self] in
                target.isPacking = false
                target.packer.pack(now: MonotonicTime(now))
                run(target)
            }
        }
        return true
    }

    /// Two initiators share the first target, so that their writes share objects; others have none that writes directly.
    private func directTarget(of session: ClusterSession) -> ClusterDirectTarget? {
        session.initiator.index < 2 ? directTargets.first : nil
    }

    /// Where a write goes: those of sessions that write directly are made of whole data blocks now and then.
    func placeOfWrite(_ first: Int, _ count: Int, _ session: ClusterSession) -> (first: Int, count: Int) {
        guard directTarget(of: session) != nil || throughTarget(of: session) != nil, generator.chance(60) else {
            return (first, count)
        }
        let start = first / sectorsInBlock * sectorsInBlock
        let end = (first + count + sectorsInBlock - 1) / sectorsInBlock * sectorsInBlock
        return (start, end - start)
    }

    /// Lets time pass.
    func tickDirect() {
        for target in directTargets {
            target.packer.tick(now: MonotonicTime(now))
            run(target)
        }
    }

    private func run(_ target: ClusterDirectTarget) {
        while let action = target.packer.nextAction() {
            switch action {
            case .begin(let number, let epoch, let count): begin(target, number, epoch, count)
            case .put(let pack): put(target, pack)
            case .giveBack(let writes):
                count("direct write given back")
                for write in writes { writeThroughCache(write) }
            }
        }
    }

    private func begin(_ target: ClusterDirectTarget, _ number: UInt64, _ epoch: Epoch, _ wanted: Int) {
        request(target.server) {
            $0.beginDirect($1, volume: Self.volume, epoch: epoch, count: wanted, now: $2)
        } answer: { [self] answer in
            if case .grants(_, let grants) = answer {
                target.packer.granted(number, grants, now: MonotonicTime(now))
            } else {
                target.packer.beginFailed(number, now: MonotonicTime(now))
            }
            run(target)
        }
        after(1_000_000_000) { [self] in
            target.packer.beginFailed(number, now: MonotonicTime(now))
            run(target)
        }
    }

    private func put(_ target: ClusterDirectTarget, _ pack: DirectPacker<ClusterDirectWrite>.Pack) {
        let object = pack.grant.object
        guard let bytes = build(pack) else {
            problems.append("I11: direct writes cannot be packed into object \(object)")
            return
        }
        let server = nodes[generator.below(nodes.count)].number
        if !isQuiet, generator.below(40) == 0 {
            count("intent given up")
            store.sweep(object)
        }
        let isLate = !isQuiet && generator.below(20) == 0
        var isEnded = false
        put(object, bytes, on: server) { [self] result in
            guard !isEnded else { return }
            let pause = isLate ? UInt64(generator.below(4_000)) * 1_000_000 : 0
            isEnded = true
            guard case .success = result, let done = target.packer.putSucceeded(pack.number, now: MonotonicTime(now))
            else {
                target.packer.putFailed(pack.number, now: MonotonicTime(now))
                return run(target)
            }
            run(target)
            after(pause) { [self] in map(done, server, bytes.readableBytes) }
        }
        after(3_000_000_000) { [self] in
            guard !isEnded else { return }
            isEnded = true
            target.packer.putFailed(pack.number, now: MonotonicTime(now))
            run(target)
        }
    }

    private func build(_ pack: DirectPacker<ClusterDirectWrite>.Pack) -> ByteBuffer? {
        do {
            var builder = try BlockObjectBuilder(
                objectID: pack.grant.object,
                volumeID: Self.volume,
                volumeUUID: [UInt8](repeating: 1, count: 16),
                blockSizeBytes: UInt32(blockBytes),
                compressor: nil
            )
            for (write, blocks) in pack.writes {
                try builder.add(
                    run: blocks.first,
                    firstVersion: pack.grant.version(of: UInt32(builder.slotCount)),
                    checksums: write.checksums,
                    bytes: write.bytes
                )
            }
            return try builder.finish()
        } catch {
            return nil
        }
    }

    private func map(
        _ pack: DirectPacker<ClusterDirectWrite>.Pack,
        _ objectServer: ObjectServerID,
        _ sizeBytes: Int
    ) {
        let writes = pack.writes.map(\.item)
        guard let first = writes.first, let index = first.session.server else {
            for write in writes { writeThroughCache(write) }
            return
        }
        if writes.count > 1 { count("direct writes in one object") }
        // What was on its way when a connection broke arrives all the same, or not.
        let isLost = generator.chance(50)
        let generation = servers[index].generation
        after(delay()) { [self] in
            let isBroken = writes.contains { $0.session.connection != $0.connection }
            guard servers[index].generation == generation, !isBroken || !isLost else {
                return writes.forEach { lost($0) }
            }
            onServer(index) { server in
                let now = MonotonicTime(self.now)
                let list = writes.map { write in
                    let ticket = Ticket(server.nextTicket)
                    server.nextTicket += 1
                    server.tickets[ticket] = { [self] answer in ended(write, answer) }
                    return DirectWrite(ticket: ticket, context: write.context, blocks: write.blocks)
                }
                if self.defect == .overtakenMapped { server.core.owned(Self.volume)?.direct.forgetChanges() }
                server.core.mapDirect(
                    volume: Self.volume,
                    object: pack.grant.object,
                    server: objectServer,
                    sizeBytes: UInt64(sizeBytes),
                    writes: list,
                    deadline: now.advanced(byNanoseconds: 20_000_000_000),
                    now: now
                )
            }
        }
    }

    // MARK: Ends

    private func ended(_ write: ClusterDirectWrite, _ answer: OwnerAnswer) {
        guard write.session.connection == write.connection, !write.session.isEnded else { return }
        switch answer {
        case .refused(.stale, _):
            count("direct write overtaken")
            return writeThroughCache(write)
        case .done: count("direct write")
        default: break
        }
        write.session.client.answered(write.id, attempt: write.attempt, disposition(answer))
        drain(write.session)
    }

    /// Sends a write that did not go straight to an object through the cache, under the same number.
    private func writeThroughCache(_ write: ClusterDirectWrite) {
        guard !write.session.isEnded else { return }
        if write.session.client.isServing(write.context.proved.epoch), write.session.connection == write.connection {
            send(write.id, write.attempt, write.request, write.context, write.session, throughCache: true)
        } else {
            write.session.client.answered(write.id, attempt: write.attempt, .notSent)
        }
        drain(write.session)
    }

    private func lost(_ write: ClusterDirectWrite) {
        guard !write.session.isEnded else { return }
        write.session.client.answered(write.id, attempt: write.attempt, .ownerLost)
        drain(write.session)
    }
}
