import AshlarCore
import Logging
import NIOCore
import Ownership
import RPC
import Transport

/// A write command on its way into an object, with what is needed to send it through the cache instead.
final class DirectCommand {
    let session: ISCSISession
    let request: BackEndRequest
    let id: CommandID
    let attempt: UInt32
    let context: CommandContext
    let blocks: BlockRange
    let checksums: [Checksum]
    let bytes: ByteBuffer

    init(
        _ session: ISCSISession,
        _ request: BackEndRequest,
        _ id: CommandID,
        _ attempt: UInt32,
        _ context: CommandContext,
        _ blocks: BlockRange,
        _ checksums: [Checksum],
        _ bytes: ByteBuffer
    ) {
        self.session = session
        self.request = request
        self.id = id
        self.attempt = attempt
        self.context = context
        self.blocks = blocks
        self.checksums = checksums
        self.bytes = bytes
    }

    /// The blocks of a write that may go straight to an object; nil for one that is too small, or not made of data blocks.
    static func blocks(offset: UInt64, byteCount: Int, of volume: VolumeDescription) -> BlockRange? {
        let minimum = volume.policy.directWriteMinimumBytes
        guard minimum > 0, byteCount >= Int(minimum) else { return nil }
        return wholeBlocks(offset: offset, byteCount: byteCount, of: volume)
    }

    /// The data blocks that a write is made of; nil where it has parts of some, or is more than an object takes.
    static func wholeBlocks(offset: UInt64, byteCount: Int, of volume: VolumeDescription) -> BlockRange? {
        let range = ByteRange(offset: offset, count: UInt64(byteCount))
        let size = UInt64(volume.geometry.blockSizeBytes)
        guard range.offset % size == 0, range.count % size == 0, range.count <= UInt64(Limits.objectTargetBytes),
            volume.geometry.contains(range)
        else { return nil }
        return volume.geometry.blocks(touching: range)
    }
}

// Direct writes: runs the actions of the packer (M4).
extension VolumeBackend {
    /// Takes a write that may go straight to an object; `false` where it is to go through the cache.
    func takeDirect(
        _ request: BackEndRequest,
        _ id: CommandID,
        _ attempt: UInt32,
        _ context: CommandContext,
        of session: ISCSISession
    ) -> Bool {
        // What is sent again goes the way that always ends.
        guard attempt == 1, request.mayGoDirect, case .write(let offset, let checksums, let bytes) = request.operation,
            let volume, !service.objects.isEmpty,
            let blocks = DirectCommand.blocks(offset: offset, byteCount: bytes.readableBytes, of: volume)
        else { return false }
        let command = DirectCommand(session, request, id, attempt, context, blocks, checksums, bytes)
        var packer = direct ?? DirectPacker(blockSizeBytes: volume.geometry.blockSizeBytes)
        let isTaken = packer.add(command, blocks: blocks, epoch: context.proved.epoch, now: service.now)
        direct = packer
        if isTaken { scheduleDirect() }
        return isTaken
    }

    /// Packs at the end of the loop's turn, so that what came together goes together.
    private func scheduleDirect() {
        guard !isDirectScheduled else { return }
        isDirectScheduled = true
        let bound = NIOLoopBound(self, eventLoop: service.loop)
        service.loop.execute {
            let backend = bound.value
            backend.isDirectScheduled = false
            backend.direct?.pack(now: backend.service.now)
            backend.runDirect()
        }
    }

    /// Gives up on what has waited for long.
    func tickDirect() {
        guard direct?.waitingCount ?? 0 > 0 else { return }
        direct?.tick(now: service.now)
        runDirect()
    }

    /// Another owner serves, or none: what waits goes through the cache, where its session has it wait.
    func directOwnerLost() {
        guard direct != nil else { return }
        direct?.ownerLost()
        runDirect()
    }

    private func runDirect() {
        while let action = direct?.nextAction() {
            switch action {
            case .begin(let number, let epoch, let count): begin(number, epoch, count)
            case .put(let pack): put(pack)
            case .giveBack(let commands): for command in commands { command.session.writeThroughCache(command) }
            }
        }
    }

    private func begin(_ number: UInt64, _ epoch: Epoch, _ count: Int) {
        askForObjects(epoch, count) { [self] grants in
            defer { runDirect() }
            guard let grants else {
                direct?.beginFailed(number, now: service.now)
                return
            }
            direct?.granted(number, grants, now: service.now)
        }
    }

    // MARK: Objects

    private func put(_ pack: DirectPacker<DirectCommand>.Pack) {
        putObject(pack.grant, pack.writes) { [self] result in
            defer { runDirect() }
            switch result {
            case .success(let end):
                guard let pack = direct?.putSucceeded(pack.number, now: service.now) else { return }
                map(pack, end)
            case .failure(let failure): putFailed(pack, failure.reason)
            }
        }
    }

    private func putFailed(_ pack: DirectPacker<DirectCommand>.Pack, _ reason: String) {
        service.logger.warning(
            "a direct write goes through the cache",
            metadata: ["object": "\(pack.grant.object)", "reason": "\(reason)"]
        )
        direct?.putFailed(pack.number, now: service.now)
    }

    // MARK: Maps

    private func map(_ pack: DirectPacker<DirectCommand>.Pack, _ put: PutEnd) {
        let commands = pack.writes.map(\.item)
        guard let owner, let volume else {
            for command in commands { command.session.writeThroughCache(command) }
            return
        }
        let message = MapDirect(volume: volume.id, object: pack.grant.object, put, commands)
        let client = owner.client
        client.send(message, deadlineMilliseconds: Limits.commandDeadlineMilliseconds) { result in
            switch result {
            case .failure(let failure):
                for command in commands {
                    if failure.kind == .notSent, client.isConnected {
                        command.session.writeThroughCache(command)
                    } else {
                        command.session.directLost(command)
                    }
                }
            case .success(var answer):
                // R6: whatever a refusal of the whole means, a write under the same id settles it.
                let outcomes = (try? answer.decode(MapDirect.Answer.self))?.outcomes ?? []
                for (index, command) in commands.enumerated() {
                    if outcomes.count == commands.count {
                        command.session.directEnded(command, outcomes[index])
                    } else {
                        command.session.writeThroughCache(command)
                    }
                }
            }
        }
    }
}

// What becomes of a direct write, for the session that it came by.
extension ISCSISession {
    /// Sends a write that did not go straight to an object through the cache, under the same id.
    func writeThroughCache(_ command: DirectCommand) {
        if nexus?.isServing(command.context.proved.epoch) == true {
            send(command.request, command.id, command.attempt, command.context, throughCache: true)
        } else {
            nexus?.answered(command.id, attempt: command.attempt, .notSent)
        }
        drain()
    }

    /// Whether a map was done is not known.
    func directLost(_ command: DirectCommand) {
        nexus?.answered(command.id, attempt: command.attempt, .ownerLost)
        drain()
    }

    /// The owner has judged a direct write.
    func directEnded(_ command: DirectCommand, _ outcome: MapDirect.Outcome) {
        switch outcome.status {
        case .ok: nexus?.answered(command.id, attempt: command.attempt, .final(.done, outcome.stamp))
        case .stale: return writeThroughCache(command)
        default:
            var detail = ByteBuffer()
            CommandAnswer(stamp: outcome.stamp, detail: outcome.detail).encode(into: &detail)
            let error = RPCError(outcome.status, "a direct write was refused", detail: detail)
            nexus?.answered(command.id, attempt: command.attempt, disposition(of: error))
        }
        drain()
    }
}
