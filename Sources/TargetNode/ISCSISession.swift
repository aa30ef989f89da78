import AshlarCore
import Crypto
import ISCSI
import Logging
import NIOCore
import Observability
import Ownership
import RPC
import SCSI
import Transport

/// One iSCSI connection, and with it one session: runs the actions of the connection's machine and of the nexus's client.
///
/// The only place that writes to the socket. Bytes are written as they come and flushed once: at the end of a read, or at the
/// end of the loop's turn where answers came from elsewhere.
final class ISCSISession: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    typealias Nexus = NexusClient<BackEndRequest, BackEndAnswer>

    /// Major and minor number of the release: the field has four characters.
    static let productRevision = ProgramRelease.current.split(separator: ".").prefix(2).joined(separator: ".")

    let service: TargetService
    var machine: ISCSIConnection
    var nexus: Nexus?
    private(set) var backend: VolumeBackend?
    private(set) var unit: LogicalUnit?
    /// The conditions that the initiator learns of with its next command.
    private var attentions: [UnitAttention] = []
    /// Owner's command ids of each initiator task, for task management.
    private var commandsOfTask: [UInt32: [CommandID]] = [:]
    private var initiator = "unknown"
    /// Where the connection comes from; where a proxy has said so, the initiator's own address.
    private var address: String?
    private var context: ChannelHandlerContext?
    private var timer: RepeatedTask?
    private var isDraining = false
    private var isReading = false
    private var isFlushScheduled = false
    private var hasUnflushed = false
    private var isClosing = false

    /// - Parameter address: Where the initiator is, as a proxy has said; nil: where the connection comes from.
    init(service: TargetService, address: String? = nil, randomBytes: [UInt8]) {
        self.service = service
        self.address = address
        var configuration = ISCSIConfiguration()
        configuration.portalGroupTag = service.configuration.portalGroupTag
        configuration.discoveryAccess = service.configuration.discoveryAccess
        machine = ISCSIConnection(
            configuration: configuration,
            randomBytes: randomBytes,
            now: service.now,
            hash: { algorithm, bytes in
                switch algorithm {
                case .md5: Array(Insecure.MD5.hash(data: bytes))
                case .sha1: Array(Insecure.SHA1.hash(data: bytes))
                case .sha256: Array(SHA256.hash(data: bytes))
                case .sha3_256: Array(SHA3_256.hash(data: bytes))
                }
            }
        )
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if address == nil { address = context.remoteAddress.map { "\($0)" } }
        initiator = address ?? "unknown"
        service.register(self)
        let bound = NIOLoopBound(self, eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleRepeatedTask(
            initialDelay: TargetLimits.sessionTick,
            delay: TargetLimits.sessionTick
        ) { _ in bound.value.tick() }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        isReading = true
        machine.received(&bytes, now: service.now)
        drain()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        isReading = false
        flushNow()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        // An initiator that does not take its answers gives no new commands either: memory stays bounded (I10).
        let isWritable = context.channel.isWritable
        context.channel.setOption(.autoRead, value: isWritable).whenFailure { [logger = service.logger] error in
            logger.debug("reading could not be switched", metadata: ["error": "\(error)"])
        }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        machine.inputClosed()
        drain()
        end()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        service.logger.info("connection failed", metadata: ["initiator": "\(initiator)", "error": "\(error)"])
        context.close(promise: nil)
    }

    private func end() {
        timer?.cancel()
        timer = nil
        service.unregister(self)
        leaveVolume()
        context = nil
    }

    private func leaveVolume() {
        if let nexus { backend?.closeNexus(nexus.nexus) }
        nexus?.close()
        nexus = nil
        backend?.remove(self)
        backend = nil
        commandsOfTask = [:]
    }

    private func tick() {
        let now = service.now
        machine.tick(now: now)
        nexus?.tick(now: now, giveUp: .failed(.deadlinePassed))
        drain()
    }

    /// Runs whatever the two machines want, until neither wants anything.
    func drain() {
        guard !isDraining else { return }
        isDraining = true
        var isBusy = true
        while isBusy {
            isBusy = false
            while let action = machine.nextAction() {
                isBusy = true
                run(action)
            }
            while let action = nexus?.nextAction() {
                isBusy = true
                run(action)
            }
        }
        isDraining = false
        if hasUnflushed, !isReading { scheduleFlush() }
    }

    private func write(_ bytes: ByteBuffer) {
        hasUnflushed = true
        context?.write(wrapOutboundOut(bytes), promise: nil)
    }

    private func flushNow() {
        guard hasUnflushed else { return }
        hasUnflushed = false
        context?.flush()
    }

    private func scheduleFlush() {
        guard !isFlushScheduled, let loop = context?.eventLoop else { return }
        isFlushScheduled = true
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.execute {
            bound.value.isFlushScheduled = false
            bound.value.flushNow()
        }
    }

    // MARK: Actions of the connection

    private func run(_ action: ISCSIAction) {
        switch action {
        case .send(let bytes), .sendData(let bytes): write(bytes)
        case .resolveTarget(let identity): resolve(identity)
        case .openSession(let parameters): open(parameters)
        case .execute(let command): execute(command)
        case .manageTasks(let request): manage(request)
        case .listTargets(let request): list(request)
        case .proved(let token): nexus?.proved(token: token)
        case .sessionEnded(let reason):
            service.logger.info(
                "session ended",
                metadata: [
                    "initiator": "\(initiator)", "target": "\(backend?.iqn ?? "discovery")", "reason": "\(reason)",
                ]
            )
            leaveVolume()
        case .close: close()
        case .note(let note): log(note)
        }
    }

    private func log(_ note: ISCSINote) {
        let level: Logger.Level =
            switch note.severity {
            case .debug: .debug
            case .info: .info
            case .warning: .warning
            case .error: .error
            }
        service.logger.log(level: level, "\(note.message)", metadata: ["peer": "\(initiator)"])
    }

    private func close() {
        guard !isClosing, let context else { return }
        isClosing = true
        hasUnflushed = false
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        // Everything written before has to leave first.
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).whenComplete { _ in bound.value.close(promise: nil) }
    }

    private func resolve(_ identity: LoginIdentity) {
        guard let name = identity.targetName else { return machine.loginRefused(.missingParameter) }
        let backend = service.backend(iqn: name)
        // From here on the session holds the volume, so that its owner is still known when authentication has ended.
        self.backend = backend
        backend.add(self)
        backend.resolve { [self] result in
            defer { drain() }
            guard self.backend === backend else { return }
            switch result {
            case .success(let volume):
                machine.targetResolved(
                    ResolvedTarget(
                        access: volume.access,
                        portalGroupTag: service.configuration.portalGroupTag,
                        alias: volume.name
                    )
                )
            case .failure(let failure): refuse(identity, name, failure)
            }
        }
    }

    private func refuse(_ identity: LoginIdentity, _ target: String, _ failure: VolumeBackend.LookUpFailure) {
        let metadata: Logger.Metadata = [
            "initiator": "\(identity.initiatorName)", "target": "\(target)", "peer": "\(initiator)",
        ]
        switch failure {
        case .noSuchVolume:
            service.logger.warning("login to a target that does not exist", metadata: metadata)
            machine.loginRefused(.notFound)
        case .unavailable(let why):
            service.logger.warning("login cannot be served now: \(why)", metadata: metadata)
            machine.loginRefused(.serviceUnavailable)
        }
        leaveVolume()
    }

    private func open(_ parameters: SessionParameters) {
        let identity = parameters.identity
        initiator = identity.initiatorName
        guard identity.sessionType == .normal, let backend else {
            return machine.sessionOpened(tsih: service.takeTSIH())
        }
        let ports = InitiatorTargetNexus(
            initiatorName: identity.initiatorName,
            isid: identity.isid,
            portalGroupTag: parameters.portalGroupTag
        )
        backend.openNexus(ports) { [self] result in
            defer { drain() }
            guard context != nil, self.backend === backend else {
                // The initiator has gone meanwhile: so has its nexus.
                if case .success(let answer) = result { backend.closeNexus(answer.nexus) }
                return
            }
            switch result {
            case .success(let answer):
                guard let volume = backend.volume else {
                    return refuse(identity, backend.iqn, .unavailable("the volume is not known any more"))
                }
                describe(volume)
                nexus = NexusClient(volume: volume.id, nexus: answer.nexus, opened: answer.stamp)
                machine.sessionOpened(tsih: service.takeTSIH())
                service.logger.info(
                    "session opened",
                    metadata: [
                        "initiator": "\(identity.initiatorName)", "target": "\(backend.iqn)",
                        "nexus": "\(answer.nexus)", "peer": "\(address ?? "unknown")",
                    ]
                )
            case .failure(let failure): refuse(identity, backend.iqn, failure)
            }
        }
    }

    private func list(_ request: TargetListRequest) {
        switch request.scope {
        case .named(let name):
            machine.targetsListed(
                tag: request.tag,
                [ListedTarget(name: name, addresses: [service.portal])]
            )
        case .all:
            service.listTargets(for: request.initiatorName) { [self] names in
                machine.targetsListed(
                    tag: request.tag,
                    names.map { ListedTarget(name: $0, addresses: [service.portal]) }
                )
                drain()
            }
        }
    }

    // MARK: Events from the back end

    func ownerLost() {
        nexus?.ownerLost()
        drain()
    }

    func ownerFound(_ stamp: Stamp) {
        nexus?.ownerFound(stamp)
        drain()
    }

    func stampArrived(_ stamp: Stamp) {
        nexus?.stampArrived(stamp)
        drain()
    }

    func volumeChanged(from old: VolumeDescription, to new: VolumeDescription) {
        describe(new)
        if old.geometry != new.geometry { attentions.append(.capacityChanged) }
        if old.isReadOnly != new.isReadOnly { attentions.append(.inquiryDataChanged) }
    }

    private func describe(_ volume: VolumeDescription) {
        unit = LogicalUnit(
            volume: volume,
            targetName: volume.iqn,
            portalGroupTag: service.configuration.portalGroupTag,
            relativePortIdentifier: service.configuration.relativePortIdentifier,
            productRevision: Self.productRevision
        )
    }

    /// Ends the session at once.
    func terminate(_ reason: SessionEndReason) {
        machine.terminate(reason)
        drain()
    }

    /// The condition to report with the next command that reports one.
    func takeAttention() -> UnitAttention? { attentions.isEmpty ? nil : attentions.removeFirst() }
    var hasAttention: Bool { !attentions.isEmpty }

    // MARK: Actions of the nexus

    private func run(_ action: NexusAction<BackEndRequest, BackEndAnswer>) {
        switch action {
        case .send(let id, let attempt, let request, let context): send(request, id, attempt, context)
        case .complete(let request, let outcome):
            switch outcome {
            case .answered(let answer): request.completion(answer)
            case .committedEarlier: request.completion(.done)
            case .aborted: request.completion(.failed(.aborted))
            }
        case .stampArrived(let token): machine.stampArrived(token)
        case .ping: machine.ping(now: service.now)
        case .resume(let number, let stamp): resume(number, stamp)
        case .locate: backend?.locate()
        case .drop(let reason):
            service.logger.warning("session dropped", metadata: ["initiator": "\(initiator)", "reason": "\(reason)"])
            machine.terminate(.reset)
        }
    }

    /// Hands a command to the nexus's client.
    func submit(_ request: BackEndRequest) {
        let deadline = service.now.advanced(byNanoseconds: UInt64(Limits.commandDeadlineMilliseconds) * 1_000_000)
        guard let id = nexus?.submit(request, isChange: request.operation.isChange, deadline: deadline) else {
            return request.completion(.failed(.unreachable))
        }
        commandsOfTask[request.task, default: []].append(id)
    }

    private func send(_ request: BackEndRequest, _ id: CommandID, _ attempt: UInt32, _ context: CommandContext) {
        guard let client = backend?.owner?.client else {
            nexus?.ownerLost()
            return
        }
        let header = CommandHeader(context)
        let deadline = Limits.commandDeadlineMilliseconds
        let completion: (Result<RPCAnswer, RPCFailure>) -> Void = { [self] result in
            if case .failure(let failure) = result, failure.kind == .notSent, client.isConnected {
                // The link has as much on its way as it may; the owner knows nothing of this command.
                return sendLater(request, id, attempt, context)
            }
            nexus?.answered(id, attempt: attempt, disposition(of: result, for: request))
            drain()
        }
        switch request.operation {
        case .read(let range):
            client.send(
                ReadCommand(header: header, range: range),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .write(let offset, let checksums, let bytes):
            client.send(
                WriteCommand(header: header, offset: offset, checksums: checksums),
                payload: [bytes],
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .zero(let ranges):
            client.send(
                ZeroCommand(header: header, ranges: ranges),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .compareAndWrite(let offset, let checksum, let compare, let write):
            client.send(
                CompareAndWriteCommand(header: header, offset: offset, checksum: checksum),
                payload: [compare, write],
                deadlineMilliseconds: deadline,
                completion: completion
            )
        }
    }

    private func sendLater(
        _ request: BackEndRequest,
        _ id: CommandID,
        _ attempt: UInt32,
        _ context: CommandContext
    ) {
        let bound = NIOLoopBound((self, request), eventLoop: service.loop)
        service.loop.scheduleTask(in: TargetLimits.busyLinkInterval) {
            let (session, request) = bound.value
            session.send(request, id, attempt, context)
            session.drain()
        }
    }

    private func disposition(
        of result: Result<RPCAnswer, RPCFailure>,
        for request: BackEndRequest
    ) -> NexusDisposition<BackEndAnswer> {
        switch result {
        case .failure:
            // Whether it was executed shows once the owner is found again (R4).
            return .ownerLost
        case .success(var answer):
            do throws(RPCError) {
                if case .read = request.operation {
                    let read = try answer.decode(ReadCommand.Answer.self)
                    return .final(.read(read, payload: answer.body), read.stamp)
                }
                let done = try answer.decode(CommandAnswer.self)
                return .final(.done, done.stamp)
            } catch {
                return disposition(of: error)
            }
        }
    }

    private func disposition(of error: RPCError) -> NexusDisposition<BackEndAnswer> {
        var detail = error.detail
        switch error.status {
        case .unproved: return .unproved((try? CommandAnswer(decoding: &detail))?.stamp)
        case .wrongEpoch, .notOwner: return .ownerLost
        case .nexusClosed: return .nexusClosed
        default:
            guard let geometry = unit?.volume.geometry else { return .final(.failed(.internalError), nil) }
            return .final(.failed(BackEndFailure(error, geometry: geometry)), nil)
        }
    }

    private func resume(_ number: NexusNumber, _ stamp: Stamp) {
        guard let client = backend?.owner?.client, let volume = backend?.volume else {
            nexus?.ownerLost()
            return
        }
        client.send(
            ResumeNexus(volume: volume.id, nexus: number, stamp: stamp),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            defer { drain() }
            guard case .success(var answer) = result else {
                nexus?.ownerLost()
                return
            }
            do throws(RPCError) {
                let resumed = try answer.decode(ResumeNexus.Answer.self)
                nexus?.resumed(done: resumed.done, resumed.stamp)
            } catch {
                var detail = error.detail
                switch error.status {
                case .unproved: nexus?.resumeRefused(unproved: (try? CommandAnswer(decoding: &detail))?.stamp)
                case .nexusClosed: nexus?.resumeRefused(unproved: nil)
                default: nexus?.ownerLost()
                }
            }
        }
    }

    // MARK: Task management (R6)

    private func manage(_ request: TaskManagementRequest) {
        let ids = request.tasks.flatMap { commandsOfTask[$0] ?? [] }
        let isReset =
            request.function == .logicalUnitReset || request.function == .targetWarmReset
            || request.function == .targetColdReset
        guard nexus != nil, isReset || !ids.isEmpty else {
            return machine.taskManagementCompleted(tag: request.tag, .functionComplete)
        }
        let deadline = service.now.advanced(byNanoseconds: UInt64(Limits.commandDeadlineMilliseconds) * 1_000_000)
        fence(request, ids: isReset ? [] : ids, deadline: deadline)
    }

    /// Has the owner take commands back; asked again until the owner has answered or the deadline has passed.
    private func fence(_ request: TaskManagementRequest, ids: [CommandID], deadline: MonotonicTime) {
        guard service.now < deadline else { return terminate(.reset) }
        guard let context = nexus?.context() else { return }
        guard let owner = backend?.owner?.client else { return fenceLater(request, ids: ids, deadline: deadline) }
        owner.send(
            FenceCommand(header: CommandHeader(context), commands: ids),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            defer { drain() }
            guard case .success(let answer) = result, answer.isOK else {
                if case .success(let answer) = result, answer.status == .nexusClosed { return terminate(.reset) }
                return fenceLater(request, ids: ids, deadline: deadline)
            }
            let bound = context.command
            for (task, commands) in commandsOfTask where request.tasks.contains(task) || ids.isEmpty {
                for id in commands where ids.isEmpty ? id < bound : ids.contains(id) { nexus?.forget(id) }
                commandsOfTask[task] = nil
            }
            machine.taskManagementCompleted(tag: request.tag, .functionComplete)
        }
    }

    private func fenceLater(_ request: TaskManagementRequest, ids: [CommandID], deadline: MonotonicTime) {
        guard let loop = context?.eventLoop else { return }
        let bound = NIOLoopBound(self, eventLoop: loop)
        loop.scheduleTask(in: TargetLimits.locateInterval) {
            bound.value.fence(request, ids: ids, deadline: deadline)
            bound.value.drain()
        }
    }

    /// A task has been answered: it cannot be named any more.
    func taskEnded(_ task: UInt32) { commandsOfTask[task] = nil }
}
