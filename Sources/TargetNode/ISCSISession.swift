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
    private(set) var unit: LogicalUnit? { didSet { unprotectedUnit = unit?.withoutProtection } }
    /// The unit as commands are planned: whether it may be written is for its owner to say.
    private(set) var unprotectedUnit: LogicalUnit?
    /// What the owner last told of the unit's state.
    private var unitState = LogicalUnitState()
    /// A login whose nexus is open, and which is answered when the unit is known: the epoch in which it was opened, and the answer.
    private var login: (epoch: Epoch, sessionOpened: () -> Void)?
    /// Conditions that the owner does not keep: those of this node's port, and what it has told already.
    private var localAttentions: [UnitAttention] = []
    /// The command that has a tag now.
    private(set) var liveTasks: [UInt32: SessionTask] = [:]
    /// What became of copies.
    var copies = CopyRecords()
    /// Copies of this session, and those of others that read or write through it.
    var runningCopies: [ObjectIdentifier: CopyJob] = [:]
    /// Copies of sessions on other loops that read or write through this one.
    var copiesElsewhere: [ObjectIdentifier: RemoteCopy] = [:]
    /// What the initiator proved itself with; nil where it was not asked.
    private(set) var proof: CHAPCredential?
    /// A request to log out has been sent.
    private var isAskedToLogOut = false
    private(set) var initiator = "unknown"
    /// Where the connection comes from; where a proxy has said so, the initiator's own address.
    private var address: String?
    private(set) var context: ChannelHandlerContext?
    private var timer: RepeatedTask?
    private var isDraining = false
    private var isReading = false
    private var isFlushScheduled = false
    private var hasUnflushed = false
    /// Bytes that have not gone to the channel yet: those of many PDUs leave with one write.
    private var output = ByteBuffer()
    private var isClosing = false

    /// - Parameter address: Where the initiator is, as a proxy has said; nil: where the connection comes from.
    init(service: TargetService, address: String? = nil, randomBytes: [UInt8]) {
        self.service = service
        self.address = address
        var configuration = ISCSIConfiguration()
        configuration.portalGroupTag = service.configuration.portalGroupTag
        configuration.discoveryAccess = service.configuration.discoveryAccess
        configuration.logicalUnit = { CommandSet.isSupported(lun: $0) ? 0 : nil }
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
        login = nil
        leaveCopies()
        if let nexus {
            backend?.closeNexus(nexus.nexus)
            service.nexusClosed()
        }
        nexus?.close()
        nexus = nil
        backend?.remove(self)
        backend = nil
        liveTasks = [:]
    }

    private func tick() {
        let now = service.now
        machine.tick(now: now)
        nexus?.tick(now: now, giveUp: .failed(.deadlinePassed))
        backend?.tickDirect()
        backend?.tickThrough()
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

    /// Small pieces are copied behind one another: that costs less than a piece of its own in the channel, and what they are
    /// slices of is free sooner.
    private func write(_ bytes: ByteBuffer) {
        hasUnflushed = true
        if bytes.readableBytes <= TargetLimits.copiedOutputMaximumBytes {
            if output.capacity == 0 { swap(&output, &service.spareOutput) }
            output.writeImmutableBuffer(bytes)
            if output.readableBytes >= TargetLimits.outputChunkBytes {
                handOverOutput()
                // There is more to come: growing from nothing would copy it all twice.
                output.reserveCapacity(TargetLimits.outputChunkBytes + TargetLimits.copiedOutputMaximumBytes)
            }
        } else {
            handOverOutput()
            context?.write(wrapOutboundOut(bytes), promise: nil)
        }
    }

    private func handOverOutput() {
        guard output.readableBytes > 0 else { return }
        context?.write(wrapOutboundOut(output), promise: nil)
        output = ByteBuffer()
    }

    private func flushNow() {
        guard hasUnflushed else { return }
        hasUnflushed = false
        var handedOver = output
        handOverOutput()
        context?.flush()
        guard handedOver.capacity > service.spareOutput.capacity else { return }
        handedOver.clear()
        service.spareOutput = handedOver
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
        handOverOutput()
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        // Everything written before has to leave first.
        context.writeAndFlush(wrapOutboundOut(ByteBuffer())).whenComplete { _ in bound.value.close(promise: nil) }
    }

    private func resolve(_ identity: LoginIdentity) {
        guard let name = identity.targetName else { return machine.loginRefused(.missingParameter) }
        if let move = service.redirection() {
            service.logger.info(
                "login sent elsewhere",
                metadata: ["initiator": "\(identity.initiatorName)", "portal": "\(move.portal)"]
            )
            return machine.loginRedirected(to: move.portal, permanently: move.isPermanent)
        }
        guard !service.isDraining else { return machine.loginRefused(.serviceUnavailable) }
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
                proof = volume.access.credentials.first { $0.name == parameters.authenticatedName }
                nexus = NexusClient(volume: volume.id, nexus: answer.nexus, opened: answer.stamp)
                service.nexusOpened()
                let sessionOpened = { [self] in
                    machine.sessionOpened(tsih: service.takeTSIH())
                    service.logger.info(
                        "session opened",
                        metadata: [
                            "initiator": "\(identity.initiatorName)", "target": "\(backend.iqn)",
                            "nexus": "\(answer.nexus)", "peer": "\(address ?? "unknown")",
                        ]
                    )
                }
                login = (answer.stamp.epoch, sessionOpened)
                // The first commands are to be answered by the mode parameters that are in force.
                refreshUnit { [self] in endLogin() }
            case .failure(let failure): refuse(identity, backend.iqn, failure)
            }
        }
    }

    private func list(_ request: TargetListRequest) {
        // Also one that is asked for by its name is listed only where it is there and may be seen.
        let name: String? = if case .named(let name) = request.scope { name } else { nil }
        service.listTargets(for: request.initiatorName, named: name) { [self] names in
            machine.targetsListed(
                tag: request.tag,
                names.map { ListedTarget(name: $0, addresses: [service.portal]) }
            )
            drain()
        }
    }

    // MARK: Events from the back end

    func ownerLost() {
        nexus?.ownerLost()
        drain()
    }

    func ownerFound(_ stamp: Stamp) {
        nexus?.ownerFound(stamp)
        // The nexus is resumed in another epoch by a proof of its initiator (R2), which gives none before it is logged in: the login
        // cannot wait for an answer there. The next command that asks brings what was asked for.
        if let login, login.epoch != stamp.epoch { endLogin() }
        drain()
    }

    func stampArrived(_ stamp: Stamp) {
        nexus?.stampArrived(stamp)
        drain()
    }

    func volumeChanged(to volume: VolumeDescription) { describe(volume) }

    /// Answers a login whose nexus is open; once.
    private func endLogin() {
        guard let login else { return }
        self.login = nil
        login.sessionOpened()
    }

    private func describe(_ volume: VolumeDescription) {
        var unit = LogicalUnit(
            volume: volume,
            targetName: volume.iqn,
            portalGroupTag: service.configuration.portalGroupTag,
            relativePortIdentifier: service.configuration.relativePortIdentifier,
            productRevision: Self.productRevision
        )
        unit.targetPorts = service.targetPorts
        unit.mode = unitState.mode
        unit.savedMode = unitState.savedMode
        unit.identifyingInformation = unitState.identifyingInformation
        unit.identifyingText = unitState.identifyingText
        self.unit = unit
    }

    /// Takes in what the owner tells of the unit; a description that has changed is fetched first.
    func takeIn(_ report: UnitReport, then proceed: @escaping () -> Void) {
        unitState = report.state
        guard let backend, let volume = backend.volume else { return proceed() }
        describe(volume)
        guard report.revision != volume.revision else { return proceed() }
        // Where it cannot be had now, what is known of it is the best answer; where it can, `volumeChanged` has come before.
        backend.resolve { [self] _ in
            proceed()
            drain()
        }
    }

    /// Lets the initiator know of something with its next command: of a condition of this node's port, or of one of the owner's
    /// that could not be reported with the command that got it.
    func tell(_ attention: UnitAttention) {
        guard machine.session?.identity.sessionType == .normal, !localAttentions.contains(attention) else { return }
        localAttentions.append(attention)
    }

    func takeLocalAttention() -> UnitAttention? { localAttentions.isEmpty ? nil : localAttentions.removeFirst() }

    /// Asks the initiator to log out, once.
    func requestLogout() {
        guard !isAskedToLogOut else { return }
        isAskedToLogOut = true
        machine.requestLogout(withinSeconds: TargetLimits.logoutSeconds)
        drain()
    }

    /// Lets the initiator stay after all; if it is to go later, it is asked anew.
    func withdrawLogoutRequest() { isAskedToLogOut = false }

    /// Ends the session at once.
    func terminate(_ reason: SessionEndReason) {
        machine.terminate(reason)
        drain()
    }

    // MARK: Tasks

    /// Notes a command that begins.
    func begin(_ command: ISCSICommand, _ unit: LogicalUnit) -> SessionTask {
        let task = SessionTask(
            command: command,
            transfer: CommandSet.block.transfer(cdb: command.cdb, lun: command.lun, unit: unit),
            rules: CommandSet.block.rules(cdb: command.cdb, lun: command.lun)
        )
        liveTasks[command.tag] = task
        return task
    }

    /// Whether a command was neither answered nor aborted.
    func isLive(_ task: SessionTask) -> Bool { liveTasks[task.tag] === task }

    /// Notes that a command ends now; `false` where it was answered or aborted before.
    func end(_ task: SessionTask) -> Bool {
        guard isLive(task) else { return false }
        forget(task: task.tag)
        return true
    }

    func forget(task tag: UInt32) { liveTasks[tag] = nil }

    // MARK: Actions of the nexus

    private func run(_ action: NexusAction<BackEndRequest, BackEndAnswer>) {
        switch action {
        case .send(let id, let attempt, let request, let context): send(request, id, attempt, context)
        case .complete(let request, let outcome):
            if let task = request.task, let id = request.command { task.ended(id) }
            request.command = nil
            switch outcome {
            case .answered(let answer): request.completion(answer)
            case .committedEarlier: request.completion(.done)
            case .aborted: request.completion(.failed(.taskAborted))
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
    ///
    /// - Parameter limit: when its outcome has to be known; nil: as its kind allows.
    func submit(_ request: BackEndRequest, until limit: MonotonicTime? = nil) {
        let milliseconds = UInt64(request.operation.deadlineMilliseconds)
        let deadline = limit ?? service.now.advanced(byNanoseconds: milliseconds * 1_000_000)
        let operation = request.operation
        let id = nexus?.submit(
            request,
            isChange: operation.isChange,
            isManagement: operation.isManagement,
            deadline: deadline
        )
        guard let id else { return request.completion(.failed(.unreachable)) }
        request.command = id
        request.task?.began(id)
    }

    /// - Parameter throughCache: Not straight to an object, also where that could be.
    func send(
        _ request: BackEndRequest,
        _ id: CommandID,
        _ attempt: UInt32,
        _ context: CommandContext,
        throughCache: Bool = false
    ) {
        if !throughCache, backend?.takeDirect(request, id, attempt, context, of: self) == true { return }
        guard let client = backend?.owner?.client else {
            nexus?.answered(id, attempt: attempt, .notSent)
            return
        }
        let header = CommandHeader(context)
        let deadline = request.operation.deadlineMilliseconds
        let completion: (Result<RPCAnswer, RPCFailure>) -> Void = { [self] result in
            if case .failure(let failure) = result, failure.kind == .notSent, client.isConnected {
                // The link has as much on its way as it may; the owner knows nothing of this command.
                return sendLater(request, id, attempt, context)
            }
            if case .success(let answer) = result, answer.status == .stale {
                // It met itself on its way through an object: nothing was done (M4).
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
            let write = WriteCommand(header: header, offset: offset, checksums: checksums)
            if !throughCache, let place = backend?.takeThrough(request, id, attempt, context, of: self) {
                client.send(
                    WriteThrough(write, object: place.object, firstSlot: SlotIndex(place.firstSlot)),
                    payload: [bytes],
                    deadlineMilliseconds: deadline,
                    completion: completion
                )
            } else {
                client.send(write, payload: [bytes], deadlineMilliseconds: deadline, completion: completion)
            }
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
        case .orWrite(let offset, let checksums, let bytes):
            client.send(
                OrWriteCommand(WriteCommand(header: header, offset: offset, checksums: checksums)),
                payload: [bytes],
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .copy(let source, let destination, let count):
            client.send(
                CopyCommand(header: header, source: source, destination: destination, count: count),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .mapStatus(let range, let runs):
            client.send(
                MapStatusCommand(header: header, range: range, runsMaximum: UInt32(runs)),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .check(let rules, let wantsReservations):
            client.send(
                CheckUnit(header: header, rules: rules, wantsReservations: wantsReservations),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .unit(let action):
            client.send(
                ChangeUnit(header: header, action: action),
                deadlineMilliseconds: deadline,
                completion: completion
            )
        case .manage(let function):
            client.send(
                ManageUnit(header: header, function: function),
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
            if session.nexus?.isServing(context.proved.epoch) == true {
                session.send(request, id, attempt, context, throughCache: true)
            } else {
                session.nexus?.answered(id, attempt: attempt, .notSent)
            }
            session.drain()
        }
    }
}
