import NIOCore

/// A SCSI command in the machine.
///
/// | phase | means | left by |
/// | --- | --- | --- |
/// | `gathering` | its CmdSN has not had its turn, or data are missing | both are there: `held` or `executing` |
/// | `held` | waits for older tasks because of ORDERED | those are done: `executing` |
/// | `executing` | the shell has it | `complete`, task management |
///
/// A class, so that a look at a task copies none of its parts. Only the connection's machine has references to it.
final class ISCSITask {
    enum Phase {
        case gathering
        case held
        case executing
    }

    var command: ISCSICommand
    var commandNumber: UInt32
    var phase = Phase.gathering
    /// Whether its CmdSN has had its turn; immediate commands have it at once.
    var isAdmitted = false
    /// Place among the admitted.
    var order: UInt64 = 0
    /// Data still to come; `nil` where there are none or all are there.
    var gather: DataGather?
    /// Bytes of write data counted as held, apart from those solicited.
    var heldBytes = 0
    /// Bytes of room granted for solicited data.
    var solicitedBytes = 0

    init(command: ISCSICommand, commandNumber: UInt32) {
        self.command = command
        self.commandNumber = commandNumber
    }
}

/// Data-Out of one command on its way in (RFC 7143, 4.2.5 and 11.7): immediate, then unsolicited, then sequences asked
/// for by R2T, all in order (DataPDUInOrder and DataSequenceInOrder are Yes).
struct DataGather: Sendable {
    /// A sequence asked for.
    struct Sequence: Sendable {
        var transferTag: UInt32
        var end: UInt32
        var nextDataSN: UInt32
    }

    /// Expected data transfer length.
    let expected: UInt32
    /// Bytes that may come unasked in all.
    let unsolicitedMaximum: UInt32
    /// Whether unsolicited data are still to come.
    var awaitsUnsolicited: Bool
    var unsolicitedDataSN: UInt32 = 0
    /// What came, in order.
    var buffer = ByteBuffer()
    /// Up to where data were asked for; `nil` before the first time.
    var requested: UInt32?
    var nextR2TSN: UInt32 = 0
    var sequences: [Sequence] = []
    var isQueuedForBuffer = false

    var received: UInt32 { UInt32(buffer.readableBytes) }
    var isComplete: Bool { received == expected && !awaitsUnsolicited }

    /// What may be wrong with a Data-Out.
    enum Fault: Error, Hashable, Sendable {
        /// Its DataSN is not the next one: others may be missing. The command alone is lost (RFC 7143, 7.8).
        case sequence
        /// It breaks what was agreed on.
        case breach(String)
    }

    /// Takes a Data-Out; returns what is wrong with it, or `nil`.
    mutating func take(_ pdu: DataOutPDU, _ data: ByteBuffer) -> Fault? {
        let count = UInt32(data.readableBytes)
        if pdu.transferTag == reservedTag {
            guard awaitsUnsolicited else { return .breach("unsolicited Data-Out after the last") }
            guard pdu.dataSN == unsolicitedDataSN else { return .sequence }
            guard pdu.bufferOffset == received else { return .breach("Data-Out out of order") }
            guard count <= unsolicitedMaximum - received else { return .breach("more unsolicited data than agreed") }
            unsolicitedDataSN &+= 1
            append(data)
            guard pdu.isFinal || received < unsolicitedMaximum else {
                return .breach("F bit missing in unsolicited data")
            }
            if pdu.isFinal { awaitsUnsolicited = false }
            return nil
        }
        guard var sequence = sequences.first, sequence.transferTag == pdu.transferTag else {
            return .breach("Data-Out with a transfer tag that is not the next")
        }
        guard pdu.dataSN == sequence.nextDataSN else { return .sequence }
        guard pdu.bufferOffset == received else { return .breach("Data-Out out of order") }
        guard count <= sequence.end - received else { return .breach("more data than asked for") }
        sequence.nextDataSN &+= 1
        append(data)
        guard pdu.isFinal == (received == sequence.end) else { return .breach("F bit misplaced in solicited data") }
        if pdu.isFinal { sequences.removeFirst() } else { sequences[0] = sequence }
        return nil
    }

    /// The next R2T, without what it has from its task; `nil` where all are out, or as many as may be.
    mutating func nextRequest(_ parameters: SessionParameters, transferTag: UInt32) -> ReadyToTransferPDU? {
        let start = requested ?? received
        guard start < expected, sequences.count < Int(parameters.maxOutstandingR2T) else { return nil }
        var pdu = ReadyToTransferPDU()
        pdu.transferTag = transferTag
        pdu.r2tSN = nextR2TSN
        pdu.bufferOffset = start
        pdu.desiredLength = min(parameters.maxBurstLength, expected - start)
        nextR2TSN &+= 1
        requested = start + pdu.desiredLength
        sequences.append(Sequence(transferTag: transferTag, end: start + pdu.desiredLength, nextDataSN: 0))
        return pdu
    }

    /// Adds bytes; all in one piece stay a slice of what was received.
    mutating func append(_ data: ByteBuffer) {
        if buffer.readableBytes == 0, buffer.capacity == 0, UInt32(data.readableBytes) == expected {
            buffer = data
        } else {
            buffer.writeImmutableBuffer(data)
        }
    }
}
