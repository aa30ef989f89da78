import AshlarCore
import NIOCore

extension ISCSIConnection {
    mutating func handleFullFeature(_ frame: Frame) {
        let header = frame.header
        guard let opcode = header.opcode else {
            note(.debug, "unknown opcode \(header.first & 0x3F)")
            reject(header, .commandNotSupported)
            return
        }
        guard frame.additional == nil || opcode == .scsiCommand else {
            return fail(header, "additional header segments with a PDU that has none", reason: .invalidField)
        }
        switch opcode {
        case .scsiCommand, .taskManagementRequest, .textRequest, .logoutRequest:
            acknowledge(header.word28)
            receiveNumbered(frame)
        case .nopOut:
            acknowledge(header.word28)
            receiveNopOut(frame)
        case .dataOut:
            acknowledge(header.word28)
            receiveDataOut(frame)
        case .snack:
            acknowledge(header.word28)
            reject(header, .snackReject)
        case .loginRequest:
            fail(header, "a login request in full feature phase")
        default:
            fail(header, "a PDU that only targets send")
        }
    }

    // MARK: Order of commands

    /// A request with a CmdSN: at once where it is immediate or next, later where others are missing before it, not at
    /// all outside of the window (RFC 7143, 4.2.2.1).
    mutating func receiveNumbered(_ frame: Frame) {
        let number = frame.header.word24
        if frame.header.isImmediate {
            if frame.header.opcode == .scsiCommand {
                receiveCommand(frame, isImmediate: true)
            } else {
                run(frame)
            }
            return
        }
        guard Serial.isLessOrEqual(expectedCommand, number), Serial.isLessOrEqual(number, maximumCommand) else {
            note(.debug, "CmdSN \(number) is outside of the window from \(expectedCommand) to \(maximumCommand)")
            return
        }
        guard waiting[number] == nil else {
            note(.debug, "CmdSN \(number) came twice")
            return
        }
        // The task is known from its arrival on, as its data may follow before its turn comes.
        if frame.header.opcode == .scsiCommand { receiveCommand(frame, isImmediate: false) }
        guard phase == .fullFeature else { return }
        if number != expectedCommand {
            waiting[number] = frame
            return
        }
        expectedCommand &+= 1
        run(frame)
        runWaiting()
    }

    /// A number that will not come any more counts as come.
    mutating func skip(_ number: UInt32) {
        // The opcode stands for nothing: it takes its turn and does nothing.
        waiting[number] = Frame(header: BasicHeader(.snack))
        runWaiting()
    }

    private mutating func runWaiting() {
        while phase == .fullFeature, let next = waiting.removeValue(forKey: expectedCommand) {
            expectedCommand &+= 1
            run(next)
        }
    }

    /// A request whose turn has come.
    private mutating func run(_ frame: Frame) {
        switch frame.header.opcode {
        case .scsiCommand: admit(tag: frame.header.tag, commandNumber: frame.header.word24)
        case .taskManagementRequest: receiveTaskManagement(frame.header)
        case .textRequest: receiveText(frame)
        case .logoutRequest: receiveLogout(frame.header)
        case .nopOut: echo(frame)
        default: break
        }
    }

    // MARK: NOP, logout

    private mutating func receiveNopOut(_ frame: Frame) {
        let pdu = NopOutPDU(frame.header)
        if pdu.tag == reservedTag {
            guard pdu.isImmediate else { return fail(frame.header, "a NOP-Out without a task tag must be immediate") }
            if pdu.transferTag != reservedTag { pingAnswered(pdu.transferTag) }
            return
        }
        guard pdu.transferTag == reservedTag else {
            return fail(frame.header, "a NOP-Out with both tags", reason: .invalidField)
        }
        receiveNumbered(frame)
    }

    /// Answers a ping of the initiator with its own data.
    private mutating func echo(_ frame: Frame) {
        let limit = min(Int(parameters?.maxSendDataSegmentLength ?? 0), ISCSILimits.pingEchoMaximumBytes)
        var pdu = NopInPDU()
        pdu.lun = frame.header.lun
        pdu.tag = frame.header.tag
        pdu.numbers = numbers(consumingStatus: true)
        let data = frame.data.getSlice(at: frame.data.readerIndex, length: min(frame.data.readableBytes, limit))
        send(encoder.frame(pdu.header, data: data))
    }

    private mutating func receiveLogout(_ header: BasicHeader) {
        let request = LogoutRequestPDU(header)
        var response = LogoutResponsePDU()
        response.tag = request.tag
        switch request.reason {
        case 0: response.response = 0
        case 1: response.response = request.connectionID == parameters?.connectionID ? 0 : 1
        case 2: response.response = 2
        default: return fail(header, "unknown reason for a logout", reason: .invalidField)
        }
        response.time2Wait = response.response == 0 ? 0 : parameters?.defaultTime2Wait ?? 0
        response.numbers = numbers(consumingStatus: true)
        send(encoder.frame(response.header))
        if response.response == 0 { finish(.loggedOut) }
    }
}
