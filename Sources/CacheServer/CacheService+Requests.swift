import AshlarCore
import Logging
import NIOCore
import Ownership
import PostgresStore
import RPC
import Transport

/// One RPC connection to the cache server: hands requests to the service, and ends the service's turn once a read.
///
/// Whoever was connected before this process began connects again as soon as its port is open, which may be before the service is made:
/// until then requests are refused as busy, and made again. The connection stays, so that each request has to look for the service anew.
final class CacheConnection: RPCConnectionHandler {
    private let service: NIOLoopBoundBox<CacheService?>

    init(service: NIOLoopBoundBox<CacheService?>) { self.service = service }

    func requestReceived(_ request: RPCRequest, connection: RPCServerConnection) {
        guard let service = service.value else {
            let error = RPCError(.busy, "the cache server is starting")
            return connection.respond(to: request.handle, error: error)
        }
        service.handle(request, on: connection)
    }

    func readCompleted(connection: RPCServerConnection) { service.value?.endTurn() }

    func connectionClosed(connection: RPCServerConnection) {}
}

// Requests in, answers out: the one place where the wire's messages and the core's events meet.
extension CacheService {
    func handle(_ request: RPCRequest, on connection: RPCServerConnection) {
        do throws(RPCDecodingError) {
            guard try dispatch(request, on: connection) else {
                let error = RPCError(.unsupported, "cache servers do not take messages of type \(request.type)")
                return connection.respond(to: request.handle, error: error)
            }
        } catch {
            connection.respond(to: request.handle, error: RPCError(.invalidMessage, "\(error)"))
        }
    }

    private func waiting(_ request: RPCRequest, _ connection: RPCServerConnection, isLookUp: Bool = false) -> Ticket {
        ticket(.request(connection, request.handle, isLookUp: isLookUp))
    }

    private func deadline(_ request: RPCRequest) -> MonotonicTime {
        request.deadline ?? now.advanced(byNanoseconds: UInt64(Limits.commandDeadlineMilliseconds) * 1_000_000)
    }

    /// `false` for a type that is not known here.
    private func dispatch(_ request: RPCRequest, on connection: RPCServerConnection) throws(RPCDecodingError) -> Bool {
        var body = request.body
        switch request.type {
        case ReadCommand.type:
            let message = try body.readRPCWholeMessage(ReadCommand.self)
            submit(message.header, .read(message.range), request, connection)
        case WriteCommand.type:
            let message = try WriteCommand(decoding: &body)
            // A small payload gets storage of its own at once: while it waits, a slice would have the whole read buffer copied.
            let isSmall = body.readableBytes <= CacheServerLimits.copiedPayloadMaximumBytes
            let bytes = isSmall ? body.compacted : body
            let write = CommandOperation.write(offset: message.offset, checksums: message.checksums, bytes: bytes)
            submit(message.header, write, request, connection)
        case ZeroCommand.type:
            let message = try body.readRPCWholeMessage(ZeroCommand.self)
            submit(message.header, .zero(message.ranges), request, connection)
        case CompareAndWriteCommand.type:
            let message = try CompareAndWriteCommand(decoding: &body)
            let operation = CommandOperation.compareAndWrite(
                offset: message.offset,
                checksum: message.checksum,
                bytes: body
            )
            submit(message.header, operation, request, connection)
        case FenceCommand.type:
            let message = try body.readRPCWholeMessage(FenceCommand.self)
            core.fence(
                waiting(request, connection),
                context: CommandContext(message.header),
                commands: message.commands,
                now: now
            )
        case OpenNexus.type:
            let message = try body.readRPCWholeMessage(OpenNexus.self)
            core.openNexus(
                waiting(request, connection),
                volume: message.volume,
                ports: message.ports,
                node: message.node,
                now: now
            )
        case ResumeNexus.type:
            let message = try body.readRPCWholeMessage(ResumeNexus.self)
            core.resumeNexus(
                waiting(request, connection),
                volume: message.volume,
                nexus: message.nexus,
                proved: message.stamp,
                now: now
            )
        case CloseNexus.type:
            let message = try body.readRPCWholeMessage(CloseNexus.self)
            core.closeNexus(waiting(request, connection), volume: message.volume, nexus: message.nexus, now: now)
        case Stamps.type:
            let message = try body.readRPCWholeMessage(Stamps.self)
            let stamps = message.volumes.map { id in
                core.currentStamp(of: id, now: now).map {
                    Stamps.Answer.Entry(stamp: $0.0, revision: $0.revision)
                }
            }
            connection.respond(to: request.handle, Stamps.Answer(stamps: stamps))
        case LookUpVolume.type: lookUp(try body.readRPCWholeMessage(LookUpVolume.self), request, connection)
        default: return try dispatchUnit(request, body, on: connection)
        }
        return true
    }

    /// Messages about logical units and target nodes.
    private func dispatchUnit(
        _ request: RPCRequest,
        _ buffer: ByteBuffer,
        on connection: RPCServerConnection
    ) throws(RPCDecodingError) -> Bool {
        var body = buffer
        switch request.type {
        case BeginDirect.type:
            let message = try body.readRPCWholeMessage(BeginDirect.self)
            core.beginDirect(
                waiting(request, connection),
                volume: message.volume,
                epoch: message.epoch,
                count: Int(message.count),
                now: now
            )
        case MapDirect.type: map(try body.readRPCWholeMessage(MapDirect.self), request, connection)
        case WriteThrough.type:
            let message = try WriteThrough(decoding: &body)
            let isSmall = body.readableBytes <= CacheServerLimits.copiedPayloadMaximumBytes
            submit(
                message.write.header,
                .write(
                    offset: message.write.offset,
                    checksums: message.write.checksums,
                    bytes: isSmall ? body.compacted : body
                ),
                through: ThroughPlace(object: message.object, firstSlot: message.firstSlot.rawValue),
                request,
                connection
            )
        case MapThrough.type:
            map(try body.readRPCWholeMessage(MapThrough.self).map, isThrough: true, request, connection)
        case OrWriteCommand.type:
            let message = try OrWriteCommand(decoding: &body).write
            let write = CommandOperation.orWrite(offset: message.offset, checksums: message.checksums, bytes: body)
            submit(message.header, write, request, connection)
        case CopyCommand.type:
            let message = try body.readRPCWholeMessage(CopyCommand.self)
            let copy = CommandOperation.copy(
                source: message.source,
                destination: message.destination,
                count: message.count
            )
            submit(message.header, copy, request, connection)
        case MapStatusCommand.type:
            let message = try body.readRPCWholeMessage(MapStatusCommand.self)
            let runs = min(Int(message.runsMaximum), RPCMessageLimits.mapRunsMaximum)
            submit(message.header, .mapStatus(message.range, runsMaximum: max(runs, 1)), request, connection)
        case CheckUnit.type:
            let message = try body.readRPCWholeMessage(CheckUnit.self)
            let check = CommandOperation.check(message.rules, reservations: message.wantsReservations)
            submit(message.header, check, request, connection)
        case ChangeUnit.type:
            let message = try body.readRPCWholeMessage(ChangeUnit.self)
            submit(message.header, .unit(message.action), request, connection)
        case ManageUnit.type:
            let message = try body.readRPCWholeMessage(ManageUnit.self)
            core.manage(
                waiting(request, connection),
                context: CommandContext(message.header),
                function: message.function,
                deadline: deadline(request),
                now: now
            )
        case NexusStates.type:
            let message = try body.readRPCWholeMessage(NexusStates.self)
            guard core.currentStamp(of: message.volume, now: now) != nil else {
                connection.respond(to: request.handle, error: RPCError(.notOwner(nil), nil))
                return true
            }
            let closed = core.closedNexuses(of: message.volume, among: message.nexuses, now: now)
            connection.respond(to: request.handle, NexusStates(volume: message.volume, nexuses: closed))
        case FindSlots.type:
            let message = try body.readRPCWholeMessage(FindSlots.self)
            respond(to: request, message, on: connection)
        case TargetReport.type:
            let message = try body.readRPCWholeMessage(TargetReport.self)
            store.report(
                message.node,
                completion: reply(to: request, on: connection) { TargetReport.Answer(nodes: $0) }
            )
        default: return try dispatchAgent(request, body, on: connection)
        }
        return true
    }

    /// Where blocks lie: what the image knows, for reading ahead.
    private func respond(to request: RPCRequest, _ message: FindSlots, on connection: RPCServerConnection) {
        let count = min(UInt64(message.count), UInt64(RPCMessageLimits.slotsFoundMaximum))
        guard message.firstBlock.rawValue < Limits.volumeSizeMaximumBytes / UInt64(Limits.blockSizeMinimumBytes) else {
            let error = RPCError(.outOfRange, "no volume has block \(message.firstBlock)")
            return connection.respond(to: request.handle, error: error)
        }
        let blocks = BlockRange(first: message.firstBlock, count: count)
        guard let found = core.slots(of: blocks, in: message.volume) else {
            return connection.respond(to: request.handle, error: RPCError(.notOwner(nil), nil))
        }
        let runs = found.extents.map {
            FindSlots.Run(
                object: $0.object,
                server: $0.server,
                firstSlot: $0.firstSlot,
                origin: $0.origin,
                count: UInt32($0.blocks.count)
            )
        }
        connection.respond(to: request.handle, FindSlots.Answer(known: UInt32(found.known), runs: runs))
    }

    private func submit(
        _ header: CommandHeader,
        _ operation: CommandOperation,
        through place: ThroughPlace? = nil,
        _ request: RPCRequest,
        _ connection: RPCServerConnection
    ) {
        core.submit(
            waiting(request, connection),
            context: CommandContext(header),
            operation: operation,
            through: place,
            deadline: deadline(request),
            now: now
        )
    }

    private func dispatchAgent(
        _ request: RPCRequest,
        _ buffer: ByteBuffer,
        on connection: RPCServerConnection
    ) throws(RPCDecodingError) -> Bool {
        var body = buffer
        switch request.type {
        case MoveWork.type:
            _ = try body.readRPCWholeMessage(MoveWork.self)
            core.requestMoveWork(waiting(request, connection), now: now)
        case MapMove.type:
            let message = try body.readRPCWholeMessage(MapMove.self)
            map(message.objectMap, of: message.volume, request, connection)
        case MapCompaction.type:
            let message = try body.readRPCWholeMessage(MapCompaction.self)
            map(message.objectMap, of: message.volume, request, connection)
        case Evict.type:
            _ = try body.readRPCWholeMessage(Evict.self)
            core.requestEviction(waiting(request, connection), now: now)
        case CompactionWork.type:
            _ = try body.readRPCWholeMessage(CompactionWork.self)
            core.requestCompactionWork(waiting(request, connection), now: now)
        case Collect.type:
            let message = try body.readRPCWholeMessage(Collect.self)
            store.collectObjects(
                intentAgeMilliseconds: message.intentAgeMilliseconds,
                graceMilliseconds: message.graceMilliseconds,
                limit: RPCMessageLimits.objectsMaximum,
                completion: reply(to: request, on: connection) { rows in
                    Collect.Answer(objects: rows.map { Collect.DeadObject(object: $0.object, server: $0.server) })
                }
            )
        case ForgetObjects.type:
            let message = try body.readRPCWholeMessage(ForgetObjects.self)
            store.forgetObjects(
                message.names.objects,
                completion: reply(to: request, on: connection) { _ in CountAnswer(count: 0) }
            )
        case KnownObjects.type:
            let message = try body.readRPCWholeMessage(KnownObjects.self)
            store.knownObjects(
                message.names.objects,
                completion: reply(to: request, on: connection) { KnownObjects($0.sorted()) }
            )
        default: return try dispatchKeeping(request, body, on: connection)
        }
        return true
    }

    /// Maps an object of direct writes, or of writes through: each is a command with a ticket of its own, and they are answered together.
    private func map(
        _ message: MapDirect,
        isThrough: Bool = false,
        _ request: RPCRequest,
        _ connection: RPCServerConnection
    ) {
        guard !message.writes.isEmpty else {
            return connection.respond(to: request.handle, MapDirect.Answer(outcomes: []))
        }
        var outcomes = [MapDirect.Outcome?](repeating: nil, count: message.writes.count)
        var missing = outcomes.count
        let writes = message.writes.enumerated().map { index, write in
            let ticket = self.ticket(
                .then { answer in
                    outcomes[index] = MapDirect.Outcome(answer)
                    missing -= 1
                    guard missing == 0 else { return }
                    connection.respond(to: request.handle, MapDirect.Answer(outcomes: outcomes.compactMap { $0 }))
                }
            )
            let context = CommandContext(
                volume: message.volume,
                nexus: write.nexus,
                command: write.command,
                lowWater: write.lowWater,
                proved: write.proved
            )
            return DirectWrite(ticket: ticket, context: context, blocks: write.blocks)
        }
        if isThrough {
            core.mapThrough(
                volume: message.volume,
                object: message.object,
                server: message.server,
                sizeBytes: message.sizeBytes,
                writes: writes,
                deadline: deadline(request),
                now: now
            )
        } else {
            core.mapDirect(
                volume: message.volume,
                object: message.object,
                server: message.server,
                sizeBytes: message.sizeBytes,
                writes: writes,
                deadline: deadline(request),
                now: now
            )
        }
    }

    private func map(
        _ map: ObjectMap,
        of volume: VolumeID,
        _ request: RPCRequest,
        _ connection: RPCServerConnection
    ) {
        core.map(waiting(request, connection), volume: volume, map: map, deadline: deadline(request), now: now)
    }

    func dispatchAdministration(
        _ request: RPCRequest,
        _ buffer: ByteBuffer,
        on connection: RPCServerConnection
    ) throws(RPCDecodingError) -> Bool {
        var body = buffer
        switch request.type {
        case ListVolumes.type:
            let message = try body.readRPCWholeMessage(ListVolumes.self)
            store.volumes(
                after: message.after.isEmpty ? nil : message.after,
                limit: min(Int(message.limit), RPCMessageLimits.volumesInListMaximum),
                completion: reply(to: request, on: connection) { ListVolumes.Answer(volumes: $0) }
            )
        case TargetHeartbeatMessage.type:
            let message = try body.readRPCWholeMessage(TargetHeartbeatMessage.self)
            let heartbeat = TargetHeartbeat(
                node: message.node,
                portal: message.portal,
                portalGroupTag: message.portalGroupTag,
                release: message.release,
                sessions: message.sessions
            )
            store.heartbeat(heartbeat, completion: reply(to: request, on: connection) { _ in CountAnswer(count: 0) })
        case CacheStatistics.type:
            _ = try body.readRPCWholeMessage(CacheStatistics.self)
            connection.respond(to: request.handle, statistics())
        case MoveNow.type:
            let message = try body.readRPCWholeMessage(MoveNow.self)
            let ticket = waiting(request, connection)
            whenOwned(message.volume, ticket) { $0.core.moveNow(ticket, volume: message.volume, now: $0.now) }
        case ReloadVolume.type:
            let message = try body.readRPCWholeMessage(ReloadVolume.self)
            reload(message.volume, request, connection)
        case DeleteVolumeStep.type:
            let message = try body.readRPCWholeMessage(DeleteVolumeStep.self)
            core.giveUp(message.volume, now: now)
            store.deleteVolumeStep(
                volume: message.volume,
                rowsMaximum: CacheServerLimits.deleteRowsMaximum,
                completion: reply(to: request, on: connection) { CountAnswer(count: 1, left: $0 ? 0 : 1) }
            )
        default: return false
        }
        return true
    }

    // MARK: Steps

    /// Finds the volume in PostgreSQL, then its owner.
    private func lookUp(_ message: LookUpVolume, _ request: RPCRequest, _ connection: RPCServerConnection) {
        let ticket = waiting(request, connection, isLookUp: true)
        let bound = NIOLoopBound(self, eventLoop: loop)
        store.volume(iqn: message.iqn) { [loop] result in
            loop.execute {
                let service = bound.value
                switch result {
                case .success(let volume?):
                    if let other = service.substitute(for: volume.id) {
                        service.fail(ticket, RPCError(.notOwner(other.endpoint), nil))
                        break
                    }
                    service.core.describe(volume, now: service.now)
                    service.core.lookUp(ticket, volume: volume.id, now: service.now)
                case .success(nil): service.fail(ticket, RPCError(.noSuchVolume, "there is no volume \(message.iqn)"))
                case .failure(let failure): service.fail(ticket, RPCError(failure))
                }
                service.endTurn()
            }
        }
    }

    private func whenOwned(_ volume: VolumeID, _ ticket: Ticket, then step: @escaping (CacheService) -> Void) {
        let look = self.ticket(
            .then { [unowned self] answer in
                if case .volume = answer {
                    step(self)
                } else if case .request(let connection, let handle, _)? = waiters.take(ticket) {
                    respond(answer, to: handle, on: connection, isLookUp: false)
                }
            }
        )
        core.lookUp(look, volume: volume, now: now)
    }

    /// Reads a volume's row again, if it is owned here.
    private func reload(_ id: VolumeID, _ request: RPCRequest, _ connection: RPCServerConnection) {
        guard let iqn = core.iqn(of: id) else {
            return connection.respond(to: request.handle, CountAnswer(count: 0))
        }
        let ticket = waiting(request, connection)
        let bound = NIOLoopBound(self, eventLoop: loop)
        store.volume(iqn: iqn) { [loop] result in
            loop.execute {
                let service = bound.value
                switch result {
                case .success(let volume?):
                    service.core.describe(volume, now: service.now)
                    service.succeed(ticket, CountAnswer(count: 1))
                case .success(nil):
                    service.core.giveUp(id, now: service.now)
                    service.succeed(ticket, CountAnswer(count: 1))
                case .failure(let failure): service.fail(ticket, RPCError(failure))
                }
                service.endTurn()
            }
        }
    }

    private func succeed(_ ticket: Ticket, _ message: some RPCMessage) {
        guard case .request(let connection, let handle, _)? = waiters.take(ticket) else { return }
        connection.respond(to: handle, message)
    }

    private func fail(_ ticket: Ticket, _ error: RPCError) {
        guard case .request(let connection, let handle, _)? = waiters.take(ticket) else { return }
        connection.respond(to: handle, error: error)
    }

    /// A completion for the store that answers a request which is none of the core's business.
    func reply<Value: Sendable, Message: RPCMessage>(
        to request: RPCRequest,
        on connection: RPCServerConnection,
        _ message: @escaping @Sendable (Value) -> Message
    ) -> @Sendable (Result<Value, StoreFailure>) -> Void {
        let ticket = waiting(request, connection)
        let bound = NIOLoopBound(self, eventLoop: loop)
        return { [loop] result in
            loop.execute {
                switch result {
                case .success(let value): bound.value.succeed(ticket, message(value))
                case .failure(let failure): bound.value.fail(ticket, RPCError(failure))
                }
            }
        }
    }

    private func statistics() -> CacheStatistics.Answer {
        let volumes = core.numbers().filter { $0.nexuses > 0 || $0.unmovedItems > 0 || $0.cachedBytes > 0 }
        return CacheStatistics.Answer(
            imageBytes: UInt64(core.imageBytes),
            commits: core.commits,
            committedBlocks: core.committedBlocks,
            volumes: volumes.prefix(RPCMessageLimits.volumesInListMaximum).map {
                CacheStatistics.Volume(
                    volume: $0.volume,
                    epoch: $0.epoch,
                    nexuses: UInt32($0.nexuses),
                    unmovedItems: $0.unmovedItems,
                    cachedBytes: $0.cachedBytes,
                    reads: $0.reads,
                    writes: $0.writes
                )
            }
        )
    }

    // MARK: Answers

    func respond(_ answer: OwnerAnswer, to handle: RPCRequestHandle, on connection: RPCServerConnection, isLookUp: Bool)
    {
        switch answer {
        case .done(let stamp): connection.respond(to: handle, CommandAnswer(stamp: stamp))
        case .read(let stamp, let runs, let payload):
            connection.respond(
                to: handle,
                ReadCommand.Answer(stamp: stamp, runs: runs.map(ReadCommand.Run.init)),
                payload: payload
            )
        case .miscompare(let stamp, let offset):
            let detail = ByteBuffer(CommandAnswer(stamp: stamp, detail: offset))
            connection.respond(to: handle, error: RPCError(.miscompare, "the data differ", detail: detail))
        case .nexusOpened(let nexus, let stamp):
            connection.respond(to: handle, OpenNexus.Answer(nexus: nexus, stamp: stamp))
        case .nexusResumed(let done, let aborted, let stamp):
            connection.respond(to: handle, ResumeNexus.Answer(done: done, aborted: aborted, stamp: stamp))
        case .volume(let volume, let stamp):
            connection.respond(to: handle, LookUpVolume.Answer(volume: volume, ownerEndpoint: "", stamp: stamp))
        case .checked(let stamp, let report):
            connection.respond(to: handle, CheckUnit.Answer(stamp: stamp, report: report))
        case .grants(let stamp, let grants):
            let list = grants.map {
                BeginDirect.Grant(object: $0.object, firstVersion: $0.firstVersion, slots: $0.slots)
            }
            connection.respond(to: handle, BeginDirect.Answer(stamp: stamp, grants: list))
        case .mapped(let stamp, let runs):
            connection.respond(to: handle, MapStatusCommand.Answer(stamp: stamp, runs: runs))
        case .moveWork(let work): connection.respond(to: handle, MoveWork.Answer(work), payload: work?.payload ?? [])
        case .compactionWork(let work): connection.respond(to: handle, CompactionWork.Answer(work))
        case .count(let count, let left): connection.respond(to: handle, CountAnswer(count: count, left: left))
        case .refused(let refusal, let stamp): connection.respond(to: handle, error: RPCError(refusal, stamp))
        }
    }
}
