import AshlarCore
import NIOCore

/// Data-In and SCSI Response.
extension ISCSIConnection {
    /// The command ended: sends its data and its status.
    ///
    /// A tag that is unknown, or whose task was aborted, is ignored.
    public mutating func complete(tag: UInt32, with completion: CommandCompletion) {
        guard phase == .fullFeature, let task = tasks[tag], task.phase == .executing else { return }
        // First, so that the window in the response already counts it out.
        remove(tag: tag)
        let command = task.command
        let readable = Self.readableLength(command)
        let available = completion.dataIn.reduce(0) { $0 + $1.readableBytes }
        let sent = min(available, Int(readable))
        let residual = Self.residual(command, completion, available: available, sent: sent)
        let isGood = completion.status == 0 && !completion.isTargetFailure && completion.sense == nil
        let isCollapsed = isGood && sent > 0 && !command.isWrite
        var cursor = ScatterCursor(completion.dataIn)
        let count = sendData(command, &cursor, total: sent, residual: isCollapsed ? residual : nil)
        if !isCollapsed { sendResponse(command, completion, residual: residual, dataPDUs: count) }
        resume()
    }

    /// Bytes that may go to the initiator.
    private static func readableLength(_ command: ISCSICommand) -> UInt32 {
        guard command.isRead else { return 0 }
        return command.isWrite ? command.bidirectionalReadLength ?? 0 : command.expectedDataTransferLength
    }

    private static func residual(
        _ command: ISCSICommand,
        _ completion: CommandCompletion,
        available: Int,
        sent: Int
    ) -> Residual {
        guard !completion.isTargetFailure else { return .none }
        let moves = command.isRead || command.isWrite
        let expected = moves ? command.expectedDataTransferLength : 0
        if command.isRead && !command.isWrite {
            let isGood = completion.status == 0
            let implied = completion.impliedLength ?? UInt64(isGood ? available : sent)
            return Residual(expected: expected, implied: implied)
        }
        return Residual(expected: expected, implied: completion.impliedLength ?? UInt64(expected))
    }

    /// Sends `total` bytes as Data-In: segments as large as the initiator takes, the F bit at the end of each burst,
    /// the status in the last where `residual` is given. Returns how many PDUs went out.
    private mutating func sendData(
        _ command: ISCSICommand,
        _ cursor: inout ScatterCursor,
        total: Int,
        residual: Residual?
    ) -> UInt32 {
        guard total > 0, let parameters else { return 0 }
        let segment = Int(parameters.maxSendDataSegmentLength)
        let burst = Int(parameters.maxBurstLength)
        var offset = 0
        var serial: UInt32 = 0
        while offset < total {
            let burstLeft = burst - offset % burst
            let count = min(segment, burstLeft, total - offset)
            let isLast = offset + count == total
            var pdu = DataInPDU()
            pdu.tag = command.tag
            pdu.dataSN = serial
            pdu.bufferOffset = UInt32(offset)
            pdu.isFinal = isLast || count == burstLeft
            let carriesStatus = isLast && residual != nil
            pdu.hasStatus = carriesStatus
            pdu.numbers = numbers(consumingStatus: carriesStatus)
            if carriesStatus, let residual { pdu.residual = residual } else { pdu.numbers.status = 0 }
            let parts = cursor.take(count)
            send(encoder.head(pdu.header, dataBytes: count))
            for part in parts { actions.append(.sendData(part)) }
            if let tail = encoder.tail(parts, dataBytes: count) { send(tail) }
            offset += count
            serial &+= 1
        }
        return serial
    }

    private mutating func sendResponse(
        _ command: ISCSICommand,
        _ completion: CommandCompletion,
        residual: Residual,
        dataPDUs: UInt32
    ) {
        var pdu = SCSIResponsePDU()
        pdu.tag = command.tag
        pdu.response = completion.isTargetFailure ? 1 : 0
        pdu.status = completion.isTargetFailure ? 0 : completion.status
        pdu.residual = residual
        if command.isRead && command.isWrite {
            let sent = completion.dataIn.reduce(0) { $0 + $1.readableBytes }
            pdu.bidirectionalResidual = Residual(
                expected: command.bidirectionalReadLength ?? 0,
                implied: UInt64(sent)
            )
        }
        pdu.expectedDataSN = completion.isTargetFailure ? 0 : dataPDUs
        pdu.numbers = numbers(consumingStatus: true)
        send(encoder.frame(pdu.header, data: completion.sense.map(Self.senseSegment)))
    }
}

/// Walks over a list of buffers by byte counts, giving slices.
struct ScatterCursor {
    private let buffers: [ByteBuffer]
    private var index = 0
    private var offset = 0

    init(_ buffers: [ByteBuffer]) {
        self.buffers = buffers
    }

    /// The next `count` bytes in as few slices as they lie in.
    mutating func take(_ count: Int) -> [ByteBuffer] {
        var parts: [ByteBuffer] = []
        var left = count
        while left > 0, index < buffers.count {
            let buffer = buffers[index]
            let part = min(left, buffer.readableBytes - offset)
            if part > 0, let slice = buffer.getSlice(at: buffer.readerIndex + offset, length: part) {
                parts.append(slice)
            }
            left -= part
            offset += part
            if offset == buffer.readableBytes {
                index += 1
                offset = 0
            }
        }
        return parts
    }
}
