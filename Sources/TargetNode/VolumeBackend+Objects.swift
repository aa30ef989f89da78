import AshlarCore
import BlockObjects
import NIOCore
import Ownership
import RPC
import Transport

// What direct writes and writes through share: objects that this target makes.
extension VolumeBackend {
    /// Asks the owner for objects; `completion` gets nil where it could not be asked, or did not say which. It may be called before this returns.
    func askForObjects(_ epoch: Epoch, _ count: Int, completion: @escaping ([DirectGrant]?) -> Void) {
        guard let owner, let volume else { return completion(nil) }
        owner.client.send(
            BeginDirect(volume: volume.id, epoch: epoch, count: UInt32(count)),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { result in
            guard case .success(var answer) = result, let found = try? answer.decode(BeginDirect.Answer.self) else {
                return completion(nil)
            }
            completion(
                found.grants.map {
                    DirectGrant(object: $0.object, firstVersion: $0.firstVersion, slots: $0.slots)
                }
            )
        }
    }

    /// An object that an object server has made durable.
    struct PutEnd {
        var server: ObjectServerID
        var sizeBytes: UInt64
    }

    /// Why an object was not put, as far as is known.
    struct PutFailure: Error {
        var reason: String
    }

    /// Makes an object of writes and puts it; `completion` may be called before this returns.
    func putObject(
        _ grant: DirectGrant,
        _ writes: [(item: DirectCommand, blocks: BlockRange)],
        completion: @escaping (Result<PutEnd, PutFailure>) -> Void
    ) {
        func fail(_ reason: String) { completion(.failure(PutFailure(reason: reason))) }
        guard let server = service.placementOfDirect(grant.object), let client = service.objects[server] else {
            return fail("no object server is connected that is not drained")
        }
        let pieces: [ByteBuffer]
        do throws(BlockObjectError) {
            guard let built = try build(grant, writes) else { return fail("the volume has changed") }
            pieces = built
        } catch {
            // A block that does not agree with its checksum is refused by the owner as well, which says so.
            return fail("\(error)")
        }
        let sizeBytes = pieces.reduce(0) { $0 + UInt64($1.readableBytes) }
        client.send(
            PutObject(object: grant.object),
            payload: pieces,
            deadlineMilliseconds: TargetLimits.directPutDeadlineMilliseconds
        ) { [service] result in
            switch result {
            case .success(let answer) where answer.isOK:
                service.directPutEnded(on: server, isDone: true)
                completion(.success(PutEnd(server: server, sizeBytes: sizeBytes)))
            case .success(let answer):
                service.directPutEnded(on: server, isDone: false)
                fail(answer.error.map { "\($0)" } ?? "no reason given")
            case .failure(let failure):
                // M9: whether it is there or not, the id is not used again.
                service.directPutEnded(on: server, isDone: false)
                fail(failure.reason)
            }
        }
    }

    private func build(
        _ grant: DirectGrant,
        _ writes: [(item: DirectCommand, blocks: BlockRange)]
    ) throws(BlockObjectError) -> [ByteBuffer]? {
        guard let volume else { return nil }
        var builder = try BlockObjectBuilder(
            objectID: grant.object,
            volumeID: volume.id,
            volumeUUID: volume.uuid,
            blockSizeBytes: volume.geometry.blockSizeBytes,
            compressor: nil
        )
        for (command, blocks) in writes {
            try builder.add(
                run: blocks.first,
                firstVersion: grant.version(of: UInt32(builder.slotCount)),
                checksums: command.checksums,
                bytes: command.bytes
            )
        }
        return try builder.finishInPieces()
    }
}

extension MapDirect {
    /// The map of an object of these writes, in slot order.
    init(volume: VolumeID, object: ObjectID, _ put: VolumeBackend.PutEnd, _ commands: [DirectCommand]) {
        self.init(
            volume: volume,
            object: object,
            server: put.server,
            sizeBytes: put.sizeBytes,
            writes: commands.map {
                MapDirect.Write(
                    nexus: $0.context.nexus,
                    command: $0.context.command,
                    lowWater: $0.context.lowWater,
                    proved: $0.context.proved,
                    blocks: $0.blocks
                )
            }
        )
    }
}
