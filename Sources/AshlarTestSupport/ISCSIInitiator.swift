import AshlarCore
package import ISCSI
package import NIOCore

/// The initiator's side of a connection, for tests: bytes in, bytes and events out.
package struct ISCSIInitiator: Sendable {
    private struct Write: Sendable {
        var lun: UInt64
        var data: ByteBuffer
    }

    package var options: ISCSIInitiatorOptions
    package private(set) var isLoggedIn = false
    package var decoder = FrameDecoder(dataSegmentMaximumBytes: 1 << 24 - 1)
    package var encoder = FrameEncoder()
    package var commandNumber: UInt32 = 100
    package var expectedStatus: UInt32 = 0
    package var expectedCommand: UInt32 = 0
    package var maximumCommand: UInt32 = 0
    package var nextTag: UInt32 = 1
    package private(set) var tsih: UInt16 = 0
    /// Every key that the target sent during the login.
    package private(set) var targetKeys: [TextKey] = []
    package private(set) var parameters: SessionParameters
    package private(set) var targetSegment = 8_192

    private var stage: UInt8 = 0
    /// Whether the login goes on by itself: after ``start()``.
    private var isStarted = false
    private var writes: [UInt32: Write] = [:]
    private var reads: [UInt32: ISCSIInitiatorResult] = [:]
    private var events: [ISCSIInitiatorEvent] = []
    private var output = ByteBuffer()
    package let challenge: [UInt8] = (0..<16).map { 0xA0 + UInt8($0) }

    package init(_ options: ISCSIInitiatorOptions) {
        self.options = options
        self.parameters = SessionParameters(
            identity: LoginIdentity(
                initiatorName: options.initiatorName,
                isid: options.isid,
                targetName: options.targetName,
                sessionType: options.sessionType
            )
        )
    }

    // MARK: Login

    private var identityKeys: [TextKey] {
        var keys = [
            TextKey("InitiatorName", options.initiatorName), TextKey("SessionType", options.sessionType.rawValue),
        ]
        if let target = options.targetName { keys.append(TextKey("TargetName", target)) }
        return keys
    }

    package var operationalKeys: [TextKey] {
        var keys = [
            TextKey("HeaderDigest", options.headerDigest.joined(separator: ",")),
            TextKey("DataDigest", options.dataDigest.joined(separator: ",")),
            TextKey("MaxRecvDataSegmentLength", String(options.maxRecvDataSegmentLength)),
            TextKey("ErrorRecoveryLevel", String(options.errorRecoveryLevel)),
        ]
        if let times = options.times {
            keys.append(TextKey("DefaultTime2Wait", String(times.wait)))
            keys.append(TextKey("DefaultTime2Retain", String(times.retain)))
        }
        guard options.sessionType == .normal else { return keys }
        keys += [
            TextKey("InitialR2T", options.initialR2T ? "Yes" : "No"),
            TextKey("ImmediateData", options.immediateData ? "Yes" : "No"),
            TextKey("MaxBurstLength", String(options.maxBurstLength)),
            TextKey("FirstBurstLength", String(options.firstBurstLength)),
            TextKey("MaxOutstandingR2T", String(options.maxOutstandingR2T)),
        ]
        if let count = options.maxConnections { keys.append(TextKey("MaxConnections", String(count))) }
        return keys
    }

    /// One login request; the bytes to send.
    package func loginRequest(
        _ keys: [TextKey],
        current: UInt8,
        next: UInt8?,
        continues: Bool = false,
        change: (inout LoginRequestPDU) -> Void = { _ in }
    ) -> ByteBuffer {
        var pdu = LoginRequestPDU()
        pdu.isTransit = next != nil
        pdu.continues = continues
        pdu.currentStage = current
        pdu.nextStage = next ?? 0
        pdu.isid = options.isid
        pdu.tag = 0x1234
        pdu.connectionID = 1
        pdu.commandNumber = commandNumber
        pdu.expectedStatus = expectedStatus
        change(&pdu)
        return encoder.frame(pdu.header, data: TextKeys.encode(keys))
    }

    /// Begins the login: straight to operational negotiation, or by way of CHAP where a credential is set.
    package mutating func start() -> ByteBuffer {
        isStarted = true
        if options.credential != nil {
            stage = 0
            return loginRequest(identityKeys + [TextKey("AuthMethod", "CHAP,None")], current: 0, next: nil)
        }
        stage = 1
        return loginRequest(identityKeys + operationalKeys, current: 1, next: 3)
    }

    private mutating func receiveLogin(_ pdu: LoginResponsePDU, _ data: ByteBuffer) {
        expectedStatus = pdu.numbers.status &+ 1
        expectedCommand = pdu.numbers.expectedCommand
        maximumCommand = pdu.numbers.maximumCommand
        guard let keys = try? TextKeys.decode(data) else { return events.append(.violation("bad text in a login")) }
        targetKeys += keys
        guard pdu.status == 0 else { return events.append(.loginFailed(pdu.status, keys)) }
        if pdu.isTransit, pdu.nextStage == 3 {
            tsih = pdu.tsih
            isLoggedIn = true
            take(targetKeys)
            return events.append(.loggedIn(targetKeys))
        }
        if pdu.isTransit { stage = pdu.nextStage }
        guard isStarted else { return }
        if stage == 1 {
            write(loginRequest(operationalKeys, current: 1, next: 3))
        } else {
            answerChallenge(keys)
        }
    }

    private mutating func answerChallenge(_ keys: [TextKey]) {
        let values = Dictionary(keys.map { ($0.name, $0.value) }, uniquingKeysWith: { first, _ in first })
        if values["AuthMethod"] == "CHAP" {
            return write(loginRequest([TextKey("CHAP_A", options.chapAlgorithms)], current: 0, next: nil))
        }
        if values["AuthMethod"] == "None" { return write(loginRequest([], current: 0, next: 1)) }
        guard let algorithm = values["CHAP_A"].flatMap({ UInt8($0) }).flatMap(CHAPAlgorithm.init(rawValue:)),
            let identifier = values["CHAP_I"].flatMap({ UInt8($0) }),
            let challenge = values["CHAP_C"].flatMap({ TextValue.binary($0, maximumBytes: 1_024) }),
            let credential = options.credential
        else { return events.append(.violation("no challenge where one was due")) }
        let response = options.hash(algorithm, [identifier] + Array(credential.secret.utf8) + challenge)
        var answer = [
            TextKey("CHAP_N", credential.name), TextKey("CHAP_R", TextValue.hexadecimal(encoding: response)),
        ]
        if options.mutual != nil {
            answer += [
                TextKey("CHAP_I", "9"), TextKey("CHAP_C", TextValue.hexadecimal(encoding: self.challenge)),
            ]
        }
        write(loginRequest(answer, current: 0, next: 1))
    }

    /// Takes up what the target answered.
    private mutating func take(_ keys: [TextKey]) {
        let values = Dictionary(keys.map { ($0.name, $0.value) }, uniquingKeysWith: { _, last in last })
        encoder.headerDigest = values["HeaderDigest"] == "CRC32C"
        encoder.dataDigest = values["DataDigest"] == "CRC32C"
        decoder.headerDigest = encoder.headerDigest
        decoder.dataDigest = encoder.dataDigest
        parameters.initialR2T = values["InitialR2T"] != "No"
        parameters.immediateData = values["ImmediateData"] != "No"
        parameters.maxBurstLength = values["MaxBurstLength"].flatMap { UInt32($0) } ?? 262_144
        parameters.firstBurstLength = min(
            values["FirstBurstLength"].flatMap { UInt32($0) } ?? 65_536,
            parameters.maxBurstLength
        )
        parameters.maxOutstandingR2T = values["MaxOutstandingR2T"].flatMap { UInt16($0) } ?? 1
        targetSegment = values["MaxRecvDataSegmentLength"].flatMap { Int($0) } ?? 8_192
    }

    // MARK: Requests

    /// A SCSI command with whatever data may come unasked; its tag, and the bytes to send.
    package mutating func command(
        cdb: [UInt8],
        lun: UInt64 = 0,
        read: UInt32? = nil,
        write data: ByteBuffer? = nil,
        attribute: UInt8 = 1,
        isImmediate: Bool = false,
        expected: UInt32? = nil,
        commandNumber number: UInt32? = nil
    ) -> (tag: UInt32, bytes: ByteBuffer) {
        var pdu = SCSICommandPDU()
        pdu.tag = takeTag()
        pdu.lun = lun
        pdu.cdb = cdb
        pdu.attribute = attribute
        pdu.isImmediate = isImmediate
        pdu.isRead = read != nil
        pdu.isWrite = data != nil
        pdu.expectedDataTransferLength = expected ?? read ?? UInt32(data?.readableBytes ?? 0)
        pdu.commandNumber = number ?? takeCommandNumber(isImmediate: isImmediate)
        pdu.expectedStatus = expectedStatus
        reads[pdu.tag] = ISCSIInitiatorResult(tag: pdu.tag, status: 0, residual: .none)
        guard let data else { return (pdu.tag, encoder.frame(pdu.header)) }
        writes[pdu.tag] = Write(lun: lun, data: data)
        let unsolicited = min(Int(parameters.firstBurstLength), data.readableBytes)
        let immediate = parameters.immediateData ? min(unsolicited, targetSegment) : 0
        let more = parameters.initialR2T ? 0 : unsolicited - immediate
        pdu.isFinal = more == 0
        var bytes = encoder.frame(pdu.header, data: data.getSlice(at: data.readerIndex, length: immediate))
        if more > 0 {
            bytes.writeImmutableBuffer(
                dataOut(tag: pdu.tag, transferTag: reservedTag, from: immediate, count: more)
            )
        }
        return (pdu.tag, bytes)
    }

    /// A sequence of Data-Out.
    package func dataOut(tag: UInt32, transferTag: UInt32, from start: Int, count: Int) -> ByteBuffer {
        var bytes = ByteBuffer()
        guard let write = writes[tag] else { return bytes }
        var offset = start
        var serial: UInt32 = 0
        while offset < start + count {
            let part = min(targetSegment, start + count - offset)
            var pdu = DataOutPDU()
            pdu.lun = write.lun
            pdu.tag = tag
            pdu.transferTag = transferTag
            pdu.expectedStatus = expectedStatus
            pdu.dataSN = serial
            pdu.bufferOffset = UInt32(offset)
            pdu.isFinal = offset + part == start + count
            bytes.writeImmutableBuffer(
                encoder.frame(
                    pdu.header,
                    data: write.data.getSlice(at: write.data.readerIndex + offset, length: part)
                )
            )
            offset += part
            serial += 1
        }
        return bytes
    }

    /// The answer to an R2T.
    package func dataOut(for pdu: ReadyToTransferPDU) -> ByteBuffer {
        dataOut(
            tag: pdu.tag,
            transferTag: pdu.transferTag,
            from: Int(pdu.bufferOffset),
            count: Int(pdu.desiredLength)
        )
    }

    /// Any other request: `change` fills it in; numbers are set.
    package mutating func nopOut(
        _ data: ByteBuffer? = nil,
        isImmediate: Bool = false,
        change: (inout NopOutPDU) -> Void = { _ in }
    ) -> ByteBuffer {
        var pdu = NopOutPDU()
        pdu.isImmediate = isImmediate
        pdu.tag = takeTag()
        pdu.commandNumber = takeCommandNumber(isImmediate: isImmediate)
        pdu.expectedStatus = expectedStatus
        change(&pdu)
        return encoder.frame(pdu.header, data: data)
    }

    package mutating func taskManagement(
        _ function: UInt8,
        isImmediate: Bool = true,
        change: (inout TaskManagementRequestPDU) -> Void = { _ in }
    ) -> (tag: UInt32, bytes: ByteBuffer) {
        var pdu = TaskManagementRequestPDU()
        pdu.isImmediate = isImmediate
        pdu.function = function
        pdu.tag = takeTag()
        pdu.commandNumber = takeCommandNumber(isImmediate: isImmediate)
        pdu.expectedStatus = expectedStatus
        change(&pdu)
        return (pdu.tag, encoder.frame(pdu.header))
    }

    package mutating func text(
        _ data: ByteBuffer,
        change: (inout TextRequestPDU) -> Void = { _ in }
    ) -> (tag: UInt32, bytes: ByteBuffer) {
        var pdu = TextRequestPDU()
        pdu.tag = takeTag()
        pdu.commandNumber = takeCommandNumber(isImmediate: false)
        pdu.expectedStatus = expectedStatus
        change(&pdu)
        return (pdu.tag, encoder.frame(pdu.header, data: data))
    }

    package mutating func logout(reason: UInt8 = 0, connectionID: UInt16 = 1) -> ByteBuffer {
        var pdu = LogoutRequestPDU()
        pdu.reason = reason
        pdu.connectionID = connectionID
        pdu.tag = takeTag()
        pdu.commandNumber = takeCommandNumber(isImmediate: false)
        pdu.expectedStatus = expectedStatus
        return encoder.frame(pdu.header)
    }

    package mutating func takeTag() -> UInt32 {
        defer { nextTag += 1 }
        return nextTag
    }

    package mutating func takeCommandNumber(isImmediate: Bool) -> UInt32 {
        guard !isImmediate else { return commandNumber }
        defer { commandNumber &+= 1 }
        return commandNumber
    }

    // MARK: Receiving

    private mutating func write(_ bytes: ByteBuffer) {
        output.writeImmutableBuffer(bytes)
    }

    /// Takes bytes of the target; what to send back, and what happened.
    package mutating func received(_ bytes: ByteBuffer) -> (output: ByteBuffer, events: [ISCSIInitiatorEvent]) {
        var bytes = bytes
        decoder.feed(&bytes)
        do {
            while let frame = try decoder.next() { handle(frame) }
        } catch {
            events.append(.violation("frame: \(error)"))
        }
        defer {
            output = ByteBuffer()
            events = []
        }
        return (output, events)
    }

    private mutating func takeNumbers(_ header: BasicHeader, hasStatus: Bool) {
        if hasStatus {
            if header.word24 != expectedStatus {
                events.append(.violation("StatSN \(header.word24), expected \(expectedStatus)"))
            }
            expectedStatus = header.word24 &+ 1
        }
        if Int32(bitPattern: header.word32 &- maximumCommand) < 0 { events.append(.violation("MaxCmdSN went back")) }
        expectedCommand = header.word28
        maximumCommand = header.word32
    }

    private mutating func handle(_ frame: Frame) {
        let header = frame.header
        switch header.opcode {
        case .loginResponse:
            receiveLogin(LoginResponsePDU(header), frame.data)
        case .dataIn:
            receiveData(DataInPDU(header), frame)
        case .scsiResponse:
            takeNumbers(header, hasStatus: true)
            receiveResponse(SCSIResponsePDU(header), frame.data)
        case .r2t:
            takeNumbers(header, hasStatus: false)
            let pdu = ReadyToTransferPDU(header)
            if options.answersReadyToTransfer { write(dataOut(for: pdu)) }
            events.append(.readyToTransfer(pdu))
        case .nopIn:
            let pdu = NopInPDU(header)
            takeNumbers(header, hasStatus: pdu.tag != reservedTag)
            if pdu.transferTag != reservedTag, options.answersPings { write(pong(pdu)) }
            events.append(.nopIn(pdu, frame.data))
        case .taskManagementResponse:
            takeNumbers(header, hasStatus: true)
            events.append(.taskManagement(TaskManagementResponsePDU(header)))
        case .textResponse:
            takeNumbers(header, hasStatus: true)
            events.append(.text(TextResponsePDU(header), frame.data))
        case .logoutResponse:
            takeNumbers(header, hasStatus: true)
            events.append(.logout(LogoutResponsePDU(header)))
        case .reject:
            takeNumbers(header, hasStatus: true)
            events.append(.reject(RejectPDU(header), frame.data))
        case .asyncMessage:
            takeNumbers(header, hasStatus: true)
            events.append(.async(AsyncMessagePDU(header), frame.data))
        default:
            events.append(.violation("a PDU that no target sends: \(header.first)"))
        }
    }

    /// The answer to a ping.
    package func pong(_ ping: NopInPDU) -> ByteBuffer {
        var pdu = NopOutPDU()
        pdu.isImmediate = true
        pdu.lun = ping.lun
        pdu.transferTag = ping.transferTag
        pdu.commandNumber = commandNumber
        pdu.expectedStatus = expectedStatus
        return encoder.frame(pdu.header)
    }

    private mutating func receiveData(_ pdu: DataInPDU, _ frame: Frame) {
        if pdu.hasStatus {
            takeNumbers(frame.header, hasStatus: true)
        } else if Int32(bitPattern: frame.header.word32 &- maximumCommand) < 0 {
            events.append(.violation("MaxCmdSN went back"))
        }
        guard var result = reads[pdu.tag] else { return events.append(.violation("Data-In for no command")) }
        if Int(pdu.bufferOffset) != result.data.readableBytes || Int(pdu.dataSN) != result.dataIn.count {
            events.append(.violation("Data-In out of order"))
        }
        if frame.data.readableBytes > Int(options.maxRecvDataSegmentLength) {
            events.append(.violation("Data-In larger than declared"))
        }
        reads[pdu.tag] = nil
        result.data.writeImmutableBuffer(frame.data)
        result.dataIn.append(pdu)
        result.dataLengths.append(frame.data.readableBytes)
        guard pdu.hasStatus else {
            reads[pdu.tag] = result
            return
        }
        result.isCollapsed = true
        result.status = pdu.status
        result.residual = pdu.residual
        events.append(.completed(result))
    }

    private mutating func receiveResponse(_ pdu: SCSIResponsePDU, _ data: ByteBuffer) {
        guard var result = reads.removeValue(forKey: pdu.tag) else {
            return events.append(.violation("a response for no command"))
        }
        if Int(pdu.expectedDataSN) != result.dataIn.count, pdu.response == 0 {
            events.append(.violation("ExpDataSN \(pdu.expectedDataSN)"))
        }
        writes[pdu.tag] = nil
        result.response = pdu.response
        result.status = pdu.status
        result.residual = pdu.residual
        var data = data
        if let count = data.readInteger(as: UInt16.self) {
            result.sense = data.readSlice(length: Int(count)) ?? ByteBuffer()
        }
        events.append(.completed(result))
    }
}
