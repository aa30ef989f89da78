import AshlarCore
import ISCSI
import NIOCore

// Input:
//
// byte 0  bit 0        the login is part of the input (else a valid one goes first)
//         bit 1        the rest is a stream of bytes (else steps, as `ISCSIFuzzSession.step` reads them)
//         bit 2        InitialR2T=Yes
//         bit 3        digests behind headers and data
//         bit 4        a discovery session
//         bit 5        initiators must prove themselves by CHAP
//         bit 6        the shell completes commands at once
//         bit 7        write data that were asked for may fill 4 KiB only
// byte 1  length of the portions in which a stream comes; 0: one

/// An initiator that may send anything: the connection ends once and in order, keeps its bounds, and what it sends are
/// frames.
func fuzzISCSIConnection(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let options = ISCSIFuzzOptions(rawValue: input.byte())
    let portion = Int(input.byte())
    let session = ISCSIFuzzSession(options)
    if !options.contains(.ownLogin) { try session.logIn() }
    if options.contains(.stream) {
        for part in ByteBuffer(bytes: input.rest()).portions(portion) { try session.receive(part) }
    } else {
        while !input.isEmpty { try session.step(&input) }
    }
    try session.end()
}

struct ISCSIFuzzOptions: OptionSet {
    let rawValue: UInt8

    static let ownLogin = ISCSIFuzzOptions(rawValue: 1 << 0)
    static let stream = ISCSIFuzzOptions(rawValue: 1 << 1)
    static let initialR2T = ISCSIFuzzOptions(rawValue: 1 << 2)
    static let digests = ISCSIFuzzOptions(rawValue: 1 << 3)
    static let discovery = ISCSIFuzzOptions(rawValue: 1 << 4)
    static let authentication = ISCSIFuzzOptions(rawValue: 1 << 5)
    static let completesAtOnce = ISCSIFuzzOptions(rawValue: 1 << 6)
    static let smallBuffer = ISCSIFuzzOptions(rawValue: 1 << 7)
}

/// A connection, an initiator that makes PDUs from few bytes, and a shell that answers what the connection asks.
final class ISCSIFuzzSession {
    private static let firstCommandNumber: UInt32 = 100
    private static let window: UInt32 = 16
    private static let burstBytes: UInt32 = 4_096

    private let options: ISCSIFuzzOptions
    private var target: ISCSIConnection
    private var encoder = FrameEncoder()
    private var decoder = FrameDecoder(dataSegmentMaximumBytes: 1 << 24 - 1)
    private var now = MonotonicTime(1_000_000_000)
    private var token: UInt64 = 0

    /// The last ExpCmdSN that the target sent.
    private var expectedCommand = ISCSIFuzzSession.firstCommandNumber
    /// Whether the target waits for the answer to these actions: steps give it, where the login is part of the input.
    private var isResolving = false
    private var isOpening = false
    private var commands: [ISCSICommand] = []
    private var managements: [TaskManagementRequest] = []
    private var listings: [TargetListRequest] = []
    /// Tags of R2Ts and pings that the target sent last.
    private var transferTags: [UInt32] = []
    private var hasOpened = false
    private var hasEnded = false
    private var hasClosed = false

    init(_ options: ISCSIFuzzOptions) {
        self.options = options
        var configuration = ISCSIConfiguration()
        configuration.commandWindow = Self.window
        configuration.maxRecvDataSegmentLength = 8_192
        configuration.maxBurstLength = Self.burstBytes
        configuration.firstBurstLength = Self.burstBytes
        if options.contains(.smallBuffer) { configuration.bufferedBytesMaximum = 4_096 }
        target = ISCSIConnection(
            configuration: configuration,
            randomBytes: Array(0..<40),
            now: now,
            hash: { algorithm, bytes in
                var state: UInt64 = 0xCBF2_9CE4_8422_2325 ^ UInt64(algorithm.rawValue)
                for byte in bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 }
                return (0..<algorithm.digestLength).map { UInt8(truncatingIfNeeded: state >> UInt64($0 % 8 * 8)) }
            }
        )
    }

    /// A login that goes straight to full feature phase; one that is refused where initiators must prove themselves.
    func logIn() throws(FuzzFailure) {
        var keys = [
            TextKey("InitiatorName", "iqn.2026-01.test:initiator"),
            TextKey("SessionType", options.contains(.discovery) ? "Discovery" : "Normal"),
            TextKey("HeaderDigest", options.contains(.digests) ? "CRC32C" : "None"),
            TextKey("DataDigest", options.contains(.digests) ? "CRC32C" : "None"),
            TextKey("MaxRecvDataSegmentLength", "1024"),
        ]
        if !options.contains(.discovery) {
            keys += [
                TextKey("TargetName", "iqn.2026-01.test:volume"),
                TextKey("InitialR2T", options.contains(.initialR2T) ? "Yes" : "No"),
                TextKey("ImmediateData", "Yes"),
                TextKey("MaxBurstLength", "\(Self.burstBytes)"),
                TextKey("FirstBurstLength", "1024"),
                TextKey("MaxOutstandingR2T", "2"),
            ]
        }
        var pdu = LoginRequestPDU()
        pdu.isTransit = true
        pdu.currentStage = 1
        pdu.nextStage = 3
        pdu.isid = 0x4000_0137_0001
        pdu.tag = 0
        pdu.commandNumber = Self.firstCommandNumber
        try receive(encoder.frame(pdu.header, data: TextKeys.encode(keys)))
        if options.contains(.authentication), !options.contains(.discovery) {
            try require(hasClosed, "a login without the proof that is asked for")
            return
        }
        try require(target.isFullFeature, "a valid login is refused")
        encoder.headerDigest = options.contains(.digests)
        encoder.dataDigest = options.contains(.digests)
        decoder.headerDigest = options.contains(.digests)
        decoder.dataDigest = options.contains(.digests)
    }

    func receive(_ bytes: ByteBuffer) throws(FuzzFailure) {
        var bytes = bytes
        target.received(&bytes, now: now)
        try require(bytes.readableBytes == 0, "bytes are left")
        try run()
    }

    // MARK: Steps

    /// One step: a byte that says what, and what goes with it.
    func step(_ input: inout FuzzInput) throws(FuzzFailure) {
        let kind = input.byte()
        switch kind & 0x0F {
        case 0...8: try receive(frame(&input, kind))
        case 9: complete(at: input.byte(), outcome: input.byte())
        case 10: finishManagement(at: input.byte(), outcome: input.byte())
        case 11: list(input.byte())
        case 12:
            token += 1
            target.stampArrived(token)
        case 13:
            now = now.advanced(byNanoseconds: UInt64(input.byte()) * 100_000_000)
            target.tick(now: now)
        case 14: target.ping(now: now)
        default: shellEvent(input.byte())
        }
        try run()
    }

    /// The peer is gone.
    func end() throws(FuzzFailure) {
        target.inputClosed()
        try run()
        try require(target.isClosed && hasClosed, "a connection without its peer is not closed")
        if isOpening {
            open()
            try run()
        }
        try require(hasEnded == hasOpened, "a session that was opened has not ended")
        var left = ByteBuffer(repeating: 0, count: 64)
        target.received(&left, now: now)
        try require(target.nextAction() == nil && left.readableBytes == 0, "a closed connection does something")
        try require(target.bufferedBytes == 0 && target.outstandingCommands == 0, "a closed connection keeps something")
    }

    /// A PDU whose numbers are near those that are expected.
    private func frame(_ input: inout FuzzInput, _ kind: UInt8) -> ByteBuffer {
        let opcodes: [Opcode] = [
            .scsiCommand, .scsiCommand, .dataOut, .nopOut, .taskManagementRequest, .textRequest, .logoutRequest, .snack,
            .loginRequest,
        ]
        let opcode = opcodes[Int(kind & 0x0F)]
        var header = BasicHeader(opcode, isImmediate: kind & 0x40 != 0, flags: input.byte())
        if kind & 0x20 != 0 { header.specific = input.word() }
        let tags = input.byte()
        header.tag = tags & 0x0F == 0x0F ? reservedTag : UInt32(tags & 0x0F)
        let transfer = Int(tags >> 4)
        let isKnown = transfer < transferTags.count
        header.word20 = isKnown ? transferTags[transfer] : transfer == 0x0F ? reservedTag : UInt32(input.word())
        if !isKnown, kind & 0x80 != 0 { header.word20 <<= 8 }
        if kind & 0x10 != 0 { header.lun = UInt64(input.byte()) << 48 }
        let numbers = input.byte()
        if opcode != .dataOut {
            header.word24 = expectedCommand &+ UInt32(numbers & 0x0F) &- (numbers & 0x08 == 0 ? 0 : 16)
        }
        header.word28 = UInt32(input.byte())
        if kind & 0x80 != 0 {
            header.word32 = input.long()
            header.word36 = input.long()
            header.word40 = input.long()
            header.word44 = input.long()
        } else {
            header.word36 = UInt32(input.byte() & 7)
            header.word40 = UInt32(input.byte()) << 6
        }
        let length = input.word()
        let additional = length & 0x8000 != 0 ? ByteBuffer(bytes: input.take(Int(input.byte()))) : nil
        // What the input does not hold is made up: most of the data have no meaning.
        let wanted = Int(length & 0x1FFF)
        var data = ByteBuffer(bytes: input.take(min(wanted, 1_024)))
        if length & 0x2000 != 0 { data.writeRepeatingByte(0x61, count: wanted - data.readableBytes) }
        return encoder.frame(header, additional: additional, data: data)
    }

    private func complete(at index: UInt8, outcome: UInt8) {
        guard !commands.isEmpty else { return }
        let command = commands.remove(at: Int(index) % commands.count)
        target.complete(tag: command.tag, with: Self.completion(outcome))
    }

    private static func completion(_ outcome: UInt8) -> CommandCompletion {
        let data = ByteBuffer(repeating: outcome, count: Int(outcome >> 3) * 100)
        switch outcome & 7 {
        case 0...3: return .good(dataIn: outcome & 1 == 0 ? [data] : [data, ByteBuffer(), data])
        case 4: return .good(dataIn: [data], impliedLength: UInt64(outcome) << 8)
        case 5: return CommandCompletion(status: 2, sense: ByteBuffer(repeating: 0x70, count: Int(outcome)))
        case 6: return CommandCompletion(status: 8)
        default: return .targetFailure
        }
    }

    private func finishManagement(at index: UInt8, outcome: UInt8) {
        guard !managements.isEmpty else { return }
        let request = managements.remove(at: Int(index) % managements.count)
        let response = TaskManagementResponse(rawValue: outcome & 7) ?? .functionRejected
        target.taskManagementCompleted(tag: request.tag, response)
        // Where the function was done, the shell will not complete what it hit.
        if response == .functionComplete { commands.removeAll { request.tasks.contains($0.tag) } }
    }

    private func list(_ count: UInt8) {
        guard let request = listings.popLast() else { return }
        let targets = (0..<Int(count)).map { index in
            ListedTarget(
                name: "iqn.2026-01.test:volume-\(index)",
                addresses: ["192.0.2.1:3260,1", "[2001:db8::1]:3260,1"]
            )
        }
        target.targetsListed(tag: request.tag, targets)
    }

    private func shellEvent(_ event: UInt8) {
        switch event {
        case 0: target.terminate(.reset)
        case 1...3: target.requestLogout(withinSeconds: 3)
        case 4: target.terminate(.shutdown)
        case 8: target.inputClosed()
        case 16...31: answerLogin(isGood: event < 28)
        default: break
        }
    }

    private func answerLogin(isGood: Bool) {
        guard isGood || !(isResolving || isOpening) else {
            isResolving = false
            isOpening = false
            return target.loginRefused(.notFound)
        }
        if isResolving { resolve() }
        if isOpening { open() }
    }

    // MARK: The shell

    /// Takes all actions.
    private func run() throws(FuzzFailure) {
        while let action = target.nextAction() {
            switch action {
            case .note: break
            case .sessionEnded:
                try require(hasOpened && !hasEnded, "a session ends that is not open")
                hasEnded = true
                forget()
            case .close where hasClosed: throw FuzzFailure("a connection is closed twice")
            case .close:
                hasClosed = true
                forget()
            default:
                try require(!hasClosed && !hasEnded, "something is done after the end")
                try handle(action)
            }
        }
        try checkBounds()
    }

    private func handle(_ action: ISCSIAction) throws(FuzzFailure) {
        switch action {
        case .send(let bytes), .sendData(let bytes): try take(bytes)
        case .resolveTarget:
            try require(!isResolving && !isOpening, "a target is looked up twice at once")
            isResolving = true
            if !isLoginStepwise { resolve() }
        case .openSession:
            try require(!hasOpened && !isOpening, "a session is opened twice")
            isOpening = true
            if !isLoginStepwise { open() }
        case .execute(let command):
            try check(command)
            if options.contains(.completesAtOnce) {
                target.complete(tag: command.tag, with: .good(dataIn: [ByteBuffer(repeating: 0, count: 600)]))
            } else {
                commands.append(command)
            }
        case .manageTasks(let request):
            try require(request.tasks == request.tasks.sorted(), "tasks of a request are not sorted")
            managements.append(request)
        case .listTargets(let request): listings.append(request)
        case .proved(let proved): try require(proved <= token, "a proof of what never arrived")
        case .sessionEnded, .close, .note: break
        }
    }

    private var isLoginStepwise: Bool { options.contains(.ownLogin) && !options.contains(.stream) }

    private func open() {
        isOpening = false
        hasOpened = true
        target.sessionOpened(tsih: 7)
    }

    private func resolve() {
        isResolving = false
        var rules = AccessRules()
        if options.contains(.authentication) {
            rules.credentials = [CHAPCredential(name: "user", secret: "a secret of 16 b")]
            rules.mutual = CHAPCredential(name: "target", secret: "another of 16 by")
        }
        target.targetResolved(ResolvedTarget(access: rules))
    }

    private func check(_ command: ISCSICommand) throws(FuzzFailure) {
        try require(!commands.contains { $0.tag == command.tag }, "a task tag is given out twice")
        try require((16...ISCSILimits.cdbMaximumBytes).contains(command.cdb.count), "a CDB's length")
        guard let data = command.dataOut else { return }
        try require(command.isWrite && !command.dataOutTooLong, "data of a command that has none")
        try require(data.readableBytes == Int(command.expectedDataTransferLength), "data of another length")
    }

    /// What the target sends are frames. Where the input negotiated digests, it is not known from where on they are
    /// used, so that nothing is cut then.
    private func take(_ bytes: ByteBuffer) throws(FuzzFailure) {
        let isDigested = target.session.map { $0.headerDigest || $0.dataDigest } ?? false
        guard !isDigested || !options.contains(.ownLogin) else { return }
        var bytes = bytes
        decoder.feed(&bytes)
        do throws(FrameDecoder.Failure) {
            while let frame = try decoder.next() { note(frame.header) }
        } catch {
            throw FuzzFailure("what is sent is no frame: \(error)")
        }
    }

    private func note(_ header: BasicHeader) {
        expectedCommand = header.numbers.expectedCommand
        let isAsking = header.opcode == .r2t || header.opcode == .nopIn
        guard isAsking, header.word20 != reservedTag else { return }
        transferTags.insert(header.word20, at: 0)
        if transferTags.count > 8 { transferTags.removeLast() }
    }

    private func forget() {
        commands = []
        managements = []
        listings = []
    }

    private func checkBounds() throws(FuzzFailure) {
        let tasks = Int(Self.window) + ISCSILimits.immediateCommandsMaximum
        try require(target.outstandingCommands <= tasks, "too many tasks")
        try require(managements.count <= ISCSILimits.taskManagementMaximum, "too many task management requests")
        let unsolicited = tasks * Int(Self.burstBytes)
        let transfer = Int(Limits.transferMaximumBytes + ISCSILimits.transferSlackBytes)
        // The first transfer and that of the oldest task get their room even where there is none.
        let solicited = options.contains(.smallBuffer) ? 2 * transfer : ISCSILimits.solicitedMaximumBytes + transfer
        try require(target.bufferedBytes <= unsolicited + solicited, "too many bytes are buffered")
        try require(target.bufferedBytes >= 0, "fewer bytes than none are buffered")
    }
}
