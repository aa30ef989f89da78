import AshlarCore
import NIOCore
import SCSI

// Input:
//
// byte 0  the logical unit, of five
// byte 1  bits 0 and 1  data-out: 0 none; 1 the rest of the input; 2 the rest, repeated or cut to the length that the
//                       CDB implies; 3 that length of zeros
//         bits 2 and 3  LUN: 0 and 1 the logical unit; 2 the logical unit by flat addressing; 3 another one
//         bit 4         a sense is pending
// byte 2  bytes of the CDB; then the CDB, then the rest

/// Any CDB with any data: the plan's ranges lie inside the volume, and its buffers are as long as its ranges.
func fuzzCDB(_ bytes: [UInt8]) throws(FuzzFailure) {
    var input = FuzzInput(bytes)
    let units = cdbUnits
    guard !units.isEmpty else { throw FuzzFailure("no geometry for the logical units is valid") }
    let unit = units[Int(input.byte()) % units.count]
    let mode = input.byte()
    let cdb = input.take(Int(input.byte()))
    let lun: UInt64 =
        switch mode >> 2 & 3 {
        case 0, 1: 0
        case 2: 0x4000_0000_0000_0000
        default: 0x0001_0000_0000_0000
        }
    let transfer = CommandSet.block.transfer(cdb: cdb, lun: lun, unit: unit)
    let data = dataOut(mode & 3, input.rest(), transfer)
    let pending: SenseData? = mode & 0x10 != 0 ? .writeProtected : nil
    _ = CommandSet.block.rules(cdb: cdb, lun: lun)
    let plan = CommandSet.block.plan(cdb: cdb, lun: lun, dataOut: data, unit: unit, pendingSense: pending)
    try check(plan, transfer, unit)
    try require(
        plan == CommandSet.block.plan(cdb: cdb, lun: lun, dataOut: data, unit: unit, pendingSense: pending),
        "the same command has another plan"
    )
}

/// Most bytes of data-out that are made up.
private let dataOutMaximumBytes: UInt64 = 256 << 10

private func dataOut(_ mode: UInt8, _ rest: [UInt8], _ transfer: DataTransfer) -> ByteBuffer? {
    guard mode > 1 else { return mode == 0 ? nil : ByteBuffer(bytes: rest) }
    guard case .dataOut(let implied) = transfer else { return ByteBuffer(bytes: rest) }
    let count = Int(min(implied, dataOutMaximumBytes))
    guard mode == 2, !rest.isEmpty else { return ByteBuffer(repeating: 0, count: count) }
    var buffer = ByteBuffer()
    buffer.reserveCapacity(count + rest.count)
    while buffer.readableBytes < count { buffer.writeBytes(rest) }
    return buffer.getSlice(at: 0, length: count)
}

private let cdbUnits: [LogicalUnit] = {
    let dimensions: [(size: UInt64, block: UInt32, logical: UInt32, isReadOnly: Bool)] = [
        (16 << 20, 4_096, 512, false), (4_096, 4_096, 512, false), (1 << 30, 4_096, 4_096, false),
        (Limits.volumeSizeMaximumBytes, 65_536, 512, false), (16 << 20, 4_096, 512, true),
    ]
    return dimensions.compactMap { size, block, logical, isReadOnly in
        guard
            let geometry = try? Geometry(sizeBytes: size, blockSizeBytes: block, logicalBlockSizeBytes: logical)
        else { return nil }
        let volume = VolumeDescription(
            id: VolumeID(1),
            name: "v1",
            iqn: "iqn.2026-01.org.ashlar:v1",
            uuid: Array(0..<16),
            geometry: geometry,
            isReadOnly: isReadOnly
        )
        return LogicalUnit(
            volume: volume,
            targetName: volume.iqn,
            portalGroupTag: 1,
            relativePortIdentifier: 1,
            productRevision: "0001"
        )
    }
}()

private func check(_ plan: SCSICommandPlan, _ transfer: DataTransfer, _ unit: LogicalUnit) throws(FuzzFailure) {
    switch plan {
    case .complete(let response):
        try check(response, transfer, unit)
    case .read(let read):
        try check([read.range], unit)
        try require(read.range.count <= UInt64(Limits.transferMaximumBytes), "a read above the limit")
    case .write(let write):
        var blocks = write.range
        let size = UInt64(unit.volume.geometry.logicalBlockSizeBytes)
        blocks.count += (size - blocks.count % size) % size
        try checkChange([blocks], unit)
        try require(write.range.count % Limits.writeGranularityBytes == 0, "a write's end")
        try require(UInt64(write.data.readableBytes) == write.range.count, "a write of another length")
        try require(write.range.count <= UInt64(Limits.transferMaximumBytes), "a write above the limit")
    case .compareAndWrite(let range, let compare, let write):
        try checkChange([range], unit)
        try require(UInt64(compare.readableBytes) == range.count, "bytes to compare of another length")
        try require(UInt64(write.readableBytes) == range.count, "bytes to write of another length")
        try require(range.count <= UInt64(Limits.compareAndWriteMaximumBytes), "a compare and write above the limit")
    case .zero(let ranges):
        try require(!ranges.isEmpty && ranges.count <= Limits.unmapDescriptorsMaximum, "a number of ranges")
        try checkChange(ranges, unit)
    case .writeSame(let range, let pattern):
        try checkChange([range], unit)
        try require(range.count <= SCSILimits.writeSameMaximumBytes, "a write same above the limit")
        try require(pattern.readableBytes == Int(unit.volume.geometry.logicalBlockSizeBytes), "a pattern's length")
        try require(pattern.readableBytesView.contains { $0 != 0 }, "a pattern of zeros")
    case .verify(let range, .mediumOnly), .synchronizeCache(let range):
        try check([range], unit)
    case .verify(let range, .compareData(let data)):
        try check([range], unit)
        try require(UInt64(data.readableBytes) == range.count, "bytes to compare of another length")
    case .verify(let range, .compareOneBlock(let data)):
        try check([range], unit)
        try require(data.readableBytes == Int(unit.volume.geometry.logicalBlockSizeBytes), "a block's length")
    case .orWrite(let range, let data):
        try checkChange([range], unit)
        try require(UInt64(data.readableBytes) == range.count, "bytes to OR of another length")
        try require(range.count <= UInt64(Limits.transferMaximumBytes), "an ORWRITE above the limit")
    case .writeAndVerify(let write, _):
        try checkChange([write.range], unit)
        try require(UInt64(write.data.readableBytes) == write.range.count, "a write of another length")
    case .lbaStatus(let query):
        try check([query.range], unit)
        try check(query.response([MapRun(range: query.range, isMapped: true)], unit: unit), transfer, unit)
    case .erase(let erasure, _):
        try require(!unit.isWriteProtected, "an erasure of a volume that is read-only")
        let count = erasure.kind == .overwrite ? Int(unit.volume.geometry.logicalBlockSizeBytes) : 0
        try require(erasure.pattern.count == count && erasure.position == 0, "an erasure's pattern")
    case .extendedCopy(let copy):
        for segment in copy.segments {
            let isKnown = copy.devices.indices.contains(segment.source)
            try require(isKnown && copy.devices.indices.contains(segment.destination), "a segment's devices")
        }
    case .copyResults(let query):
        let record = CopyRecord(
            listIdentifier: query.listIdentifier,
            progress: .failed(.copyAborted),
            segmentsDone: 1,
            bytesWritten: .max
        )
        try check(query.response(record), transfer, unit)
        try check(query.response(nil), transfer, unit)
    case .reservationIn, .reservationOut, .reserveUnit, .releaseUnit, .modeSelect, .setIdentifyingInformation,
        .targetPortGroups, .logSense:
        break
    }
}

private func check(
    _ response: SCSIResponse,
    _ transfer: DataTransfer,
    _ unit: LogicalUnit
) throws(FuzzFailure) {
    let room: UInt64 =
        switch transfer {
        case .dataInAtMost(let count), .dataIn(let count): count
        case .none, .dataOut: 0
        }
    try require(UInt64(response.dataIn?.readableBytes ?? 0) <= room, "more data-in than allocated")
    try require((response.sense != nil) == (response.status == .checkCondition), "sense and status do not agree")
    if response.sense != nil {
        try require((8...252).contains(response.encodedSense(for: unit)?.readableBytes ?? 0), "a sense's length")
    }
}

private func checkChange(_ ranges: [ByteRange], _ unit: LogicalUnit) throws(FuzzFailure) {
    try require(!unit.isWriteProtected, "a change of a volume that is read-only")
    try check(ranges, unit)
}

private func check(_ ranges: [ByteRange], _ unit: LogicalUnit) throws(FuzzFailure) {
    let geometry = unit.volume.geometry
    let logical = UInt64(geometry.logicalBlockSizeBytes)
    for range in ranges {
        try require(range.count > 0, "an empty range")
        try require(geometry.contains(range), "a range outside of the volume")
        try require(range.offset % logical == 0 && range.count % logical == 0, "a range that splits a logical block")
    }
}
