import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// A target connection and an initiator that are wired to each other, with a shell that answers logins by itself.
final class Harness {
    var target: ISCSIConnection
    var initiator: ISCSIInitiator
    var now = MonotonicTime(1_000_000_000)
    var rules = AccessRules()
    /// Answers login actions by itself.
    var answersLogin = true
    /// Bytes of a portion on the way to the target; 0: all at once.
    var portion = 0
    /// Whether bytes go on the way at all.
    var isConnected = true

    var events: [ISCSIInitiatorEvent] = []
    var commands: [ISCSICommand] = []
    var managements: [TaskManagementRequest] = []
    var listings: [TargetListRequest] = []
    var resolves: [LoginIdentity] = []
    var opens: [SessionParameters] = []
    var proofs: [UInt64] = []
    var ended: [SessionEndReason] = []
    var notes: [ISCSINote] = []
    var isClosed = false
    /// What the target wrote that is not delivered yet.
    var toInitiator = ByteBuffer()
    /// Called for each command; the completion, or `nil` to leave it open.
    var execute: (ISCSICommand) -> CommandCompletion? = { _ in nil }

    static let random: [UInt8] = (0..<40).map { UInt8(truncatingIfNeeded: $0 * 7 + 3) }

    init(
        _ options: ISCSIInitiatorOptions = .init(),
        configuration: ISCSIConfiguration = .init(),
        hash: @escaping @Sendable (CHAPAlgorithm, [UInt8]) -> [UInt8] = ISCSITestHash.digest
    ) {
        initiator = ISCSIInitiator(options)
        target = ISCSIConnection(configuration: configuration, randomBytes: Self.random, now: now, hash: hash)
    }

    /// A session that is open.
    static func loggedIn(
        _ options: ISCSIInitiatorOptions = .init(),
        configuration: ISCSIConfiguration = .init(),
        rules: AccessRules = .init()
    ) -> Harness {
        let harness = Harness(options, configuration: configuration)
        harness.rules = rules
        harness.send(harness.initiator.start())
        #expect(harness.isFullFeature)
        return harness
    }

    /// Delivers bytes to the target, and goes on until both sides are quiet.
    func send(_ bytes: ByteBuffer) {
        var bytes = bytes
        while bytes.readableBytes > 0 {
            let count = portion == 0 ? bytes.readableBytes : min(portion, bytes.readableBytes)
            guard var part = bytes.readSlice(length: count) else { return }
            if portion != 0 { part = ByteBuffer(bytes: part.readableBytesView) }
            target.received(&part, now: now)
            #expect(part.readableBytes == 0)
            drain()
        }
        settle()
    }

    /// Takes the target's actions.
    func drain() {
        while let action = target.nextAction() {
            switch action {
            case .send(let bytes), .sendData(let bytes):
                toInitiator.writeImmutableBuffer(bytes)
            case .resolveTarget(let identity):
                resolves.append(identity)
                if answersLogin { target.targetResolved(ResolvedTarget(access: rules)) }
            case .openSession(let parameters):
                opens.append(parameters)
                if answersLogin { target.sessionOpened(tsih: 7) }
            case .execute(let command):
                commands.append(command)
                if let completion = execute(command) { target.complete(tag: command.tag, with: completion) }
            case .manageTasks(let request): managements.append(request)
            case .listTargets(let request): listings.append(request)
            case .proved(let token): proofs.append(token)
            case .sessionEnded(let reason): ended.append(reason)
            case .close: isClosed = true
            case .note(let note): notes.append(note)
            }
        }
    }

    /// Runs until neither side has anything to say.
    func settle() {
        drain()
        guard isConnected else { return }
        while toInitiator.readableBytes > 0 {
            let bytes = toInitiator
            toInitiator = ByteBuffer()
            let (output, news) = initiator.received(bytes)
            events += news
            for case .violation(let text) in news { Issue.record("\(text)") }
            if output.readableBytes > 0 { send(output) }
        }
    }

    func advance(milliseconds: UInt64) {
        now = now.advanced(byNanoseconds: milliseconds * 1_000_000)
        target.tick(now: now)
        settle()
    }

    @discardableResult
    func command(
        _ cdb: [UInt8] = [0],
        lun: UInt64 = 0,
        read: UInt32? = nil,
        write: ByteBuffer? = nil,
        attribute: UInt8 = 1,
        isImmediate: Bool = false,
        expected: UInt32? = nil
    ) -> UInt32 {
        let (tag, bytes) = initiator.command(
            cdb: cdb,
            lun: lun,
            read: read,
            write: write,
            attribute: attribute,
            isImmediate: isImmediate,
            expected: expected
        )
        send(bytes)
        return tag
    }

    func complete(_ tag: UInt32, _ completion: CommandCompletion = .good()) {
        target.complete(tag: tag, with: completion)
        settle()
    }

    var isFullFeature: Bool { target.isFullFeature }
    var outstandingCommands: Int { target.outstandingCommands }
    var bufferedBytes: Int { target.bufferedBytes }
    var results: [ISCSIInitiatorResult] {
        events.compactMap { if case .completed(let result) = $0 { result } else { nil } }
    }
    var rejects: [UInt8] {
        events.compactMap { if case .reject(let pdu, _) = $0 { pdu.reason } else { nil } }
    }
    var loginStatus: UInt16? {
        events.compactMap { event -> UInt16? in
            switch event {
            case .loggedIn: 0
            case .loginFailed(let status, _): status
            default: nil
            }
        }.last
    }
    var taskResponses: [UInt8] {
        events.compactMap { if case .taskManagement(let pdu) = $0 { pdu.response } else { nil } }
    }
}

/// A small generator with a fixed seed.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

/// `count` bytes, each depending on its place.
func pattern(_ count: Int, seed: UInt8 = 0) -> ByteBuffer {
    var buffer = ByteBuffer()
    buffer.reserveCapacity(count)
    buffer.writeBytes((0..<count).lazy.map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) &+ seed })
    return buffer
}

/// Bytes from hexadecimal digits; blanks do not count.
func hex(_ text: String) -> ByteBuffer {
    let digits = text.filter { !$0.isWhitespace }
    var buffer = ByteBuffer()
    var index = digits.startIndex
    while index < digits.endIndex {
        let next = digits.index(index, offsetBy: 2)
        guard let byte = UInt8(digits[index..<next], radix: 16) else { preconditionFailure("bad digits in a test") }
        buffer.writeInteger(byte)
        index = next
    }
    return buffer
}
