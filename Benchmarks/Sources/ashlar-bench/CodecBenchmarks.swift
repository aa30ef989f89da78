import AshlarCore
import ISCSI
import NIOCore
import SCSI

let checksumBenchmarks = [
    Benchmark("checksum/4k", counted: 8_192) {
        let bytes = block
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                sum &+= UInt64(bytes.withUnsafeReadableBytes { Checksum(of: $0) }.rawValue)
            }
            return sum
        }
    }
]

let iscsiBenchmarks = [
    Benchmark("iscsi/decode-write", counted: 4_096) {
        let bytes = FrameEncoder().frame(writePDU(number: 1).header, data: block)
        var decoder = FrameDecoder(dataSegmentMaximumBytes: 1 << 20)
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                var arrived = bytes
                decoder.feed(&arrived)
                guard let frame = try decoder.next() else { throw BenchmarkFailure("a PDU is not cut") }
                let command = SCSICommandPDU(frame.header)
                sum &+= UInt64(command.expectedDataTransferLength) &+ UInt64(frame.data.readableBytes)
            }
            return sum
        }
    },
    Benchmark("iscsi/encode-data-in", counted: 4_096) {
        let encoder = FrameEncoder()
        var pdu = DataInPDU()
        pdu.hasStatus = true
        return { operations in
            var sum: UInt64 = 0
            for number in 0..<operations {
                pdu.tag = UInt32(truncatingIfNeeded: number)
                sum &+= UInt64(encoder.head(pdu.header, dataBytes: blockBytes).readableBytes)
            }
            return sum
        }
    },
    // A command with its data arrives, is executed, and its response leaves.
    Benchmark("iscsi/exchange-write", counted: 4_096) {
        let session = try ISCSISession()
        return { try session.exchange($0, isWrite: true) }
    },
    Benchmark("iscsi/exchange-read", counted: 4_096) {
        let session = try ISCSISession()
        return { try session.exchange($0, isWrite: false) }
    },
]

/// WRITE (10) of one block of eight logical blocks, with immediate data.
private func writePDU(number: UInt32) -> SCSICommandPDU {
    var pdu = SCSICommandPDU()
    pdu.isWrite = true
    pdu.attribute = 1
    pdu.tag = number
    pdu.commandNumber = number
    pdu.expectedDataTransferLength = UInt32(blockBytes)
    pdu.cdb = writeCDB
    return pdu
}

private let writeCDB: [UInt8] = [0x2A, 0, 0, 0, 0x10, 0, 0, 0, 8, 0] + [UInt8](repeating: 0, count: 6)
private let readCDB: [UInt8] = [0x28] + writeCDB.dropFirst()

/// A connection in full feature phase, and an initiator that has one command in flight.
private final class ISCSISession {
    private var connection: ISCSIConnection
    private let encoder = FrameEncoder()
    private let now = MonotonicTime(1_000_000_000)
    private var number: UInt32 = 1
    private var expectedStatus: UInt32 = 0

    init() throws {
        connection = ISCSIConnection(
            configuration: ISCSIConfiguration(),
            randomBytes: Array(0..<40),
            now: now,
            hash: { _, _ in [] }
        )
        var pdu = LoginRequestPDU()
        pdu.isTransit = true
        pdu.currentStage = 1
        pdu.nextStage = 3
        pdu.isid = 0x4000_0137_0001
        pdu.tag = 0
        pdu.commandNumber = number
        let keys = [
            TextKey("InitiatorName", "iqn.2026-01.test:initiator"), TextKey("SessionType", "Normal"),
            TextKey("TargetName", "iqn.2026-01.test:volume"), TextKey("HeaderDigest", "None"),
            TextKey("DataDigest", "None"), TextKey("InitialR2T", "No"), TextKey("ImmediateData", "Yes"),
            TextKey("MaxRecvDataSegmentLength", "262144"),
        ]
        var bytes = encoder.frame(pdu.header, data: TextKeys.encode(keys))
        connection.received(&bytes, now: now)
        _ = drain(isWrite: true)
        try require(connection.isFullFeature, "the login is refused")
    }

    func exchange(_ operations: Int, isWrite: Bool) throws -> UInt64 {
        var sum: UInt64 = 0
        for _ in 0..<operations {
            var pdu = writePDU(number: number)
            pdu.expectedStatus = expectedStatus
            if !isWrite {
                pdu.isWrite = false
                pdu.isRead = true
                pdu.cdb = readCDB
            }
            number &+= 1
            var bytes = encoder.frame(pdu.header, data: isWrite ? block : nil)
            connection.received(&bytes, now: now)
            let sent = drain(isWrite: isWrite)
            try require(sent > 0, "a command has no answer")
            sum &+= sent
        }
        return sum
    }

    /// Executes what is to be executed; bytes that were sent.
    private func drain(isWrite: Bool) -> UInt64 {
        var sent: UInt64 = 0
        while let action = connection.nextAction() {
            switch action {
            case .send(let bytes):
                sent += UInt64(bytes.readableBytes)
                if let header = BasicHeader(peeking: bytes) { expectedStatus = header.numbers.status &+ 1 }
            case .sendData(let bytes): sent += UInt64(bytes.readableBytes)
            case .resolveTarget: connection.targetResolved(ResolvedTarget(access: AccessRules()))
            case .openSession: connection.sessionOpened(tsih: 7)
            case .execute(let command):
                connection.complete(tag: command.tag, with: .good(dataIn: isWrite ? [] : [block]))
            case .manageTasks, .listTargets, .proved, .sessionEnded, .close, .note: break
            }
        }
        return sent
    }
}

let scsiBenchmarks = [
    Benchmark("scsi/plan-write", counted: 4_096) {
        let unit = try logicalUnit()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                guard
                    case .write(let write) = CommandSet.block.plan(cdb: writeCDB, lun: 0, dataOut: block, unit: unit)
                else { throw BenchmarkFailure("a write has another plan") }
                sum &+= write.range.count
            }
            return sum
        }
    },
    Benchmark("scsi/plan-read", counted: 4_096) {
        let unit = try logicalUnit()
        return { operations in
            var sum: UInt64 = 0
            for _ in 0..<operations {
                guard case .read(let read) = CommandSet.block.plan(cdb: readCDB, lun: 0, dataOut: nil, unit: unit)
                else {
                    throw BenchmarkFailure("a read has another plan")
                }
                sum &+= read.range.count
            }
            return sum
        }
    },
]

private func logicalUnit() throws -> LogicalUnit {
    LogicalUnit(
        volume: try benchVolume(),
        targetName: "iqn.2026-01.test:volume",
        portalGroupTag: 1,
        relativePortIdentifier: 1,
        productRevision: "0001"
    )
}

/// A volume of 1 GiB.
func benchVolume() throws -> VolumeDescription {
    VolumeDescription(
        id: VolumeID(1),
        name: "bench",
        iqn: "iqn.2026-01.test:volume",
        uuid: Array(0..<16),
        geometry: try Geometry(sizeBytes: 1 << 30, blockSizeBytes: UInt32(blockBytes))
    )
}
