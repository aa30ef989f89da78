import AshlarCore
import AshlarTestSupport
import BlockObjects
import NIOCore
import Ownership

/// A target's writes through: it packs those of all its sessions together.
final class ClusterThroughTarget {
    var packer: ThroughPacker<ClusterDirectWrite>
    /// The server that its sessions last wrote to.
    var server = 0
    var isPacking = false

    init(blockSizeBytes: UInt32) { packer = ThroughPacker(blockSizeBytes: blockSizeBytes) }
}

// Writes through of targets: to the cache and into an object at the same time. The write itself goes on its way as any other, with its place in
// the object; here is what becomes of the object.
extension Cluster {
    /// Takes a write that goes into an object as well; its place there, or nil where it goes to the cache alone.
    func takeThrough(
        _ id: CommandID,
        _ attempt: UInt32,
        _ request: ClusterRequest,
        _ context: CommandContext,
        _ session: ClusterSession
    ) -> ThroughPlace? {
        guard let target = throughTarget(of: session), attempt == 1, let server = session.server,
            case .write(let offset, let checksums, let bytes) = request.command,
            Int(offset) % blockBytes == 0, bytes.readableBytes % blockBytes == 0, generator.chance(80)
        else { return nil }
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
        let place = target.packer.add(write, blocks: blocks, epoch: epoch, now: MonotonicTime(now))
        target.server = server
        if place != nil { count("write through") }
        if !target.isPacking {
            target.isPacking = true
            // What comes within a while goes together.
            after(UInt64(generator.below(6)) * 1_000_000) { [self] in
                target.isPacking = false
                target.packer.pack(now: MonotonicTime(now))
                run(target)
            }
        }
        return place
    }

    /// The initiators that write directly in other clusters do so here, or in turns.
    func throughTarget(of session: ClusterSession) -> ClusterThroughTarget? {
        session.initiator.index < 2 ? throughTargets.first : nil
    }

    /// Lets time pass.
    func tickThrough() {
        for target in throughTargets { target.packer.tick(now: MonotonicTime(now)) }
    }

    private func run(_ target: ClusterThroughTarget) {
        while let action = target.packer.nextAction() {
            switch action {
            case .begin(let number, let epoch, let count): begin(target, number, epoch, count)
            case .put(let pack): put(target, pack)
            }
        }
    }

    private func begin(_ target: ClusterThroughTarget, _ number: UInt64, _ epoch: Epoch, _ wanted: Int) {
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

    private func put(_ target: ClusterThroughTarget, _ pack: ThroughPacker<ClusterDirectWrite>.Pack) {
        let object = pack.grant.object
        guard let bytes = build(pack) else {
            problems.append("I11: writes through cannot be packed into object \(object)")
            return
        }
        let server = nodes[generator.below(nodes.count)].number
        if !isQuiet, generator.below(40) == 0 {
            count("intent given up")
            store.sweep(object)
        }
        let isLate = !isQuiet && generator.below(10) == 0
        var isEnded = false
        put(object, bytes, on: server) { [self] result in
            guard !isEnded else { return }
            isEnded = true
            guard case .success = result, let done = target.packer.putSucceeded(pack.number, now: MonotonicTime(now))
            else {
                count("write through: put failed")
                target.packer.putFailed(pack.number, now: MonotonicTime(now))
                return run(target)
            }
            run(target)
            let pause = isLate ? UInt64(generator.below(4_000)) * 1_000_000 : 0
            after(pause) { [self] in map(target, done, server, bytes.readableBytes) }
        }
        after(3_000_000_000) { [self] in
            guard !isEnded else { return }
            isEnded = true
            target.packer.putFailed(pack.number, now: MonotonicTime(now))
            run(target)
        }
    }

    private func build(_ pack: ThroughPacker<ClusterDirectWrite>.Pack) -> ByteBuffer? {
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
        _ target: ClusterThroughTarget,
        _ pack: ThroughPacker<ClusterDirectWrite>.Pack,
        _ objectServer: ObjectServerID,
        _ sizeBytes: Int
    ) {
        let writes = pack.writes.map(\.item)
        let index = target.server
        let generation = servers[index].generation
        after(delay()) { [self] in
            guard servers[index].generation == generation else { return }
            onServer(index) { server in
                let now = MonotonicTime(self.now)
                if self.defect == .throughIgnoresVersion {
                    return self.mapWhatever(pack, objectServer, sizeBytes, server, now)
                }
                let list = writes.map { write in
                    let ticket = Ticket(server.nextTicket)
                    server.nextTicket += 1
                    server.tickets[ticket] = { [self] answer in ended(write, answer) }
                    return DirectWrite(ticket: ticket, context: write.context, blocks: write.blocks)
                }
                server.core.mapThrough(
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

    /// The defect: what the blocks hold by now is taken for what lies in the object.
    private func mapWhatever(
        _ pack: ThroughPacker<ClusterDirectWrite>.Pack,
        _ objectServer: ObjectServerID,
        _ sizeBytes: Int,
        _ server: Server,
        _ now: MonotonicTime
    ) {
        let blocks = pack.writes.flatMap { entry in (0..<entry.blocks.count).map { entry.blocks.first + $0 } }
        let slots = blocks.enumerated().map { index, block in
            let item = store.loadRegion(Self.volume, BlockRange(first: block, count: 1)).items.first
            return ObjectMap.Slot(
                block: block,
                version: item?.version ?? pack.grant.version(of: UInt32(index)),
                condition: .itemHasVersion
            )
        }
        let ticket = Ticket(server.nextTicket)
        server.nextTicket += 1
        server.tickets[ticket] = { _ in }
        server.core.map(
            ticket,
            volume: Self.volume,
            map: ObjectMap(
                object: pack.grant.object,
                server: objectServer,
                sizeBytes: UInt64(sizeBytes),
                slots: slots
            ),
            deadline: now.advanced(byNanoseconds: 20_000_000_000),
            now: now
        )
    }

    /// Whatever the map says but that a write is durable counts for nothing: the write has an answer of its own on its way.
    private func ended(_ write: ClusterDirectWrite, _ answer: OwnerAnswer) {
        guard write.session.connection == write.connection, !write.session.isEnded, case .done = answer else { return }
        if write.session.inFlight[write.id] != nil { count("write through: object first") }
        write.session.client.answered(write.id, attempt: write.attempt, disposition(answer))
        drain(write.session)
    }
}
