import AshlarCore
import Logging
import NIOCore
import Ownership
import RPC
import Transport

extension DirectCommand {
    /// The blocks of a write that goes to the cache and into an object; nil for one that is too small or too large, or not made of data blocks.
    static func throughBlocks(offset: UInt64, byteCount: Int, of volume: VolumeDescription) -> BlockRange? {
        guard volume.policy.isThrough(byteCount: byteCount) else { return nil }
        return wholeBlocks(offset: offset, byteCount: byteCount, of: volume)
    }
}

// Writes through: runs the actions of the packer. A write is sent to the owner by its session, whatever becomes of its object here; what the
// map of the object says of it counts only where it is durable.
extension VolumeBackend {
    /// Takes a write that goes into an object as well; its place there, or nil where it goes to the cache alone.
    func takeThrough(
        _ request: BackEndRequest,
        _ id: CommandID,
        _ attempt: UInt32,
        _ context: CommandContext,
        of session: ISCSISession
    ) -> ThroughPlace? {
        guard writesThrough, attempt == 1, request.mayGoDirect, let volume, !service.objects.isEmpty,
            case .write(let offset, let checksums, let bytes) = request.operation,
            let blocks = DirectCommand.throughBlocks(offset: offset, byteCount: bytes.readableBytes, of: volume)
        else { return nil }
        let command = DirectCommand(session, request, id, attempt, context, blocks, checksums, bytes)
        var packer = through ?? ThroughPacker(blockSizeBytes: volume.geometry.blockSizeBytes)
        through = nil
        let place = packer.add(command, blocks: blocks, epoch: context.proved.epoch, now: service.now)
        through = packer
        scheduleThrough()
        return place
    }

    /// Packs at the end of the loop's turn, so that what came together goes together.
    private func scheduleThrough() {
        guard !isThroughScheduled else { return }
        isThroughScheduled = true
        let bound = NIOLoopBound(self, eventLoop: service.loop)
        service.loop.execute {
            let backend = bound.value
            backend.isThroughScheduled = false
            backend.through?.pack(now: backend.service.now)
            backend.runThrough()
        }
    }

    /// Gives up on what has waited for long.
    func tickThrough() {
        guard through?.waitingCount ?? 0 > 0 else { return }
        through?.tick(now: service.now)
    }

    private func runThrough() {
        while let action = through?.nextAction() {
            switch action {
            case .begin(let number, let epoch, let count): begin(number, epoch, count)
            case .put(let pack): put(pack)
            }
        }
    }

    private func begin(_ number: UInt64, _ epoch: Epoch, _ count: Int) {
        askForObjects(epoch, count) { [self] grants in
            defer { runThrough() }
            guard let grants else {
                through?.beginFailed(number, now: service.now)
                return
            }
            through?.granted(number, grants, now: service.now)
        }
    }

    // MARK: Objects

    private func put(_ pack: ThroughPacker<DirectCommand>.Pack) {
        putObject(pack.grant, pack.writes) { [self] result in
            defer { runThrough() }
            switch result {
            case .success(let end):
                guard let pack = through?.putSucceeded(pack.number, now: service.now) else { return }
                map(pack, end)
            case .failure(let failure): putFailed(pack, failure.reason)
            }
        }
    }

    private func putFailed(_ pack: ThroughPacker<DirectCommand>.Pack, _ reason: String) {
        service.logger.warning(
            "writes through are in the cache alone",
            metadata: ["object": "\(pack.grant.object)", "reason": "\(reason)"]
        )
        through?.putFailed(pack.number, now: service.now)
    }

    // MARK: Maps

    private func map(_ pack: ThroughPacker<DirectCommand>.Pack, _ put: PutEnd) {
        guard let owner, let volume else { return }
        let commands = pack.writes.map(\.item)
        let message = MapDirect(volume: volume.id, object: pack.grant.object, put, commands)
        owner.client.send(MapThrough(message), deadlineMilliseconds: Limits.commandDeadlineMilliseconds) { result in
            // Whatever else comes back, or does not: each write has an answer of its own on its way.
            guard case .success(var answer) = result, let outcomes = try? answer.decode(MapDirect.Answer.self).outcomes,
                outcomes.count == commands.count
            else { return }
            for (command, outcome) in zip(commands, outcomes) where outcome.status == .ok {
                command.session.throughMapped(command, outcome.stamp)
            }
        }
    }
}

extension ISCSISession {
    /// A write through is durable.
    func throughMapped(_ command: DirectCommand, _ stamp: Stamp) {
        nexus?.answered(command.id, attempt: command.attempt, .final(.done, stamp))
        drain()
    }
}
