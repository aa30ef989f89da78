import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// The volume that the golden bytes are written for.
let goldenUUID: [UInt8] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0x0F, 0x1E, 0x2D, 0x3C, 0x4B, 0x5A, 0x69, 0x78,
]

/// A logical unit of 16 MiB with 512-byte logical blocks and 4 KiB data blocks, where nothing else is named.
func makeUnit(
    sizeBytes: UInt64 = 16 << 20,
    blockSizeBytes: UInt32 = 4_096,
    logicalBlockSizeBytes: UInt32 = 512,
    isReadOnly: Bool = false,
    mode: ModeParameters = ModeParameters(),
    savedMode: ModeParameters = ModeParameters(),
    targetPorts: [TargetPort]? = nil
) throws -> LogicalUnit {
    let geometry = try Geometry(
        sizeBytes: sizeBytes,
        blockSizeBytes: blockSizeBytes,
        logicalBlockSizeBytes: logicalBlockSizeBytes
    )
    let volume = VolumeDescription(
        id: VolumeID(1),
        name: "v1",
        iqn: "iqn.2026-01.org.ashlar:v1",
        uuid: goldenUUID,
        geometry: geometry,
        isReadOnly: isReadOnly
    )
    return LogicalUnit(
        volume: volume,
        targetName: volume.iqn,
        portalGroupTag: 1,
        relativePortIdentifier: 0x0203,
        productRevision: "0001",
        mode: mode,
        savedMode: savedMode,
        targetPorts: targetPorts
    )
}

/// Bytes from hexadecimal text; anything but digits is ignored.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap { $0.hexDigitValue.map { UInt8($0) } }
    return stride(from: 0, to: digits.count - 1, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

/// A number of two bytes.
func bigEndian(_ value: Int) -> [UInt8] {
    [UInt8(value >> 8), UInt8(value & 0xFF)]
}

/// A number of eight bytes.
func bigEndian(_ value: UInt64) -> [UInt8] {
    (0..<8).reversed().map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
}

/// A buffer of `count` equal bytes.
func filled(_ byte: UInt8, _ count: Int) -> ByteBuffer {
    ByteBuffer(repeating: byte, count: count)
}

/// Plans a command on LUN 0, with the CDB padded to 16 bytes as iSCSI does.
func plan(_ cdb: String, dataOut: ByteBuffer? = nil, lun: UInt64 = 0, _ unit: LogicalUnit) -> SCSICommandPlan {
    var bytes = hex(cdb)
    bytes += [UInt8](repeating: 0, count: max(0, 16 - bytes.count))
    return CommandSet.block.plan(cdb: bytes, lun: lun, dataOut: dataOut, unit: unit)
}

/// The transfer that a CDB implies.
func transfer(_ cdb: String, _ unit: LogicalUnit) -> DataTransfer {
    CommandSet.block.transfer(cdb: hex(cdb), lun: 0, unit: unit)
}

/// The data-in of a command that completes with GOOD.
func dataIn(
    _ plan: SCSICommandPlan,
    sourceLocation: SourceLocation = #_sourceLocation
) throws -> [UInt8] {
    guard case .complete(let response) = plan, response.status == .good else {
        Issue.record("not GOOD: \(plan)", sourceLocation: sourceLocation)
        return []
    }
    return response.dataIn.map { Array($0.readableBytesView) } ?? []
}

/// The data-in of a response with GOOD.
func dataIn(_ response: SCSIResponse, sourceLocation: SourceLocation = #_sourceLocation) throws -> [UInt8] {
    try dataIn(.complete(response), sourceLocation: sourceLocation)
}

extension SCSICommandPlan {
    static let good = SCSICommandPlan.complete(.good)

    static func refused(_ sense: SenseData) -> SCSICommandPlan {
        .complete(.checkCondition(sense))
    }

    static func field(_ byte: Int, _ bit: UInt8) -> SCSICommandPlan {
        refused(.invalidFieldInCDB(byte: byte, bit: bit))
    }

    static func parameter(_ byte: Int, _ bit: UInt8) -> SCSICommandPlan {
        refused(.invalidFieldInParameterList(byte: byte, bit: bit))
    }

    static func outOfRange(_ address: UInt64) -> SCSICommandPlan {
        refused(.addressOutOfRange(LBA(address)))
    }

    static func read(_ offset: UInt64, _ count: UInt64, fua: Bool = false, dpo: Bool = false) -> SCSICommandPlan {
        .read(
            ReadPlan(range: ByteRange(offset: offset, count: count), isForceUnitAccess: fua, isPageOutDisabled: dpo)
        )
    }

    static func write(_ offset: UInt64, _ data: ByteBuffer, fua: Bool = false, dpo: Bool = false) -> SCSICommandPlan {
        .write(
            WritePlan(
                range: ByteRange(offset: offset, count: UInt64(data.readableBytes)),
                data: data,
                isForceUnitAccess: fua,
                isPageOutDisabled: dpo
            )
        )
    }
}
