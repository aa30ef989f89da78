import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// SplitMix64: the same numbers from the same seed everywhere.
private struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }

    mutating func below(_ bound: UInt64) -> UInt64 { next() % bound }
    mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next()) }
}

@Suite struct FuzzTests {
    private static let rounds = 8_000

    private static func cdb(_ generator: inout SeededGenerator) -> [UInt8] {
        let count = Int(generator.below(20))
        var bytes = (0..<count).map { _ in generator.byte() }
        guard generator.below(8) > 0 else { return bytes }
        let layout = CommandLayout.all[Int(generator.below(UInt64(CommandLayout.all.count)))]
        bytes = layout.usage.map { mask in mask & (generator.below(2) == 0 ? generator.byte() & generator.byte() : 0) }
        bytes[0] = layout.usage[0]
        if layout.hasServiceAction { bytes[1] = layout.usage[1] & (0x1F | generator.byte()) }
        if generator.below(2) == 0, bytes.count > 1 { bytes[1] &= 0x1F }
        return bytes
    }

    private static func dataOut(_ generator: inout SeededGenerator) -> ByteBuffer? {
        switch generator.below(6) {
        case 0: return nil
        case 4: return copyList(&generator)
        case 5:
            // SANITIZE, OVERWRITE; FORMAT UNIT.
            var list = ByteBuffer(bytes: [generator.byte() & 0x9F, 0, 0, UInt8(generator.below(8))])
            list.writeBytes((0..<Int(generator.below(600))).map { _ in generator.byte() })
            return list
        case 1: return filled(0, Int(generator.below(3)) * 512)
        case 2:
            var list = ByteBuffer(bytes: [0, generator.byte(), 0, generator.byte() & 0xF0])
            let count = Int(generator.below(300))
            list.writeBytes((0..<count).map { _ in generator.byte() & generator.byte() & generator.byte() })
            return list
        default: return filled(generator.byte(), Int(generator.below(70_000)))
        }
    }

    /// A parameter list of EXTENDED COPY that is right, but for a byte here and there.
    private static func copyList(_ generator: inout SeededGenerator) -> ByteBuffer {
        let devices = Int(generator.below(4))
        let segments = Int(generator.below(4))
        var bytes: [UInt8] =
            generator.below(2) == 0
            ? [generator.byte(), 0x10, 0, UInt8(devices * 32), 0, 0, 0, 0, 0, 0, 0, UInt8(segments * 28), 0, 0, 0, 0]
            : [0x01, 0x00, 0x00, 0x20] + [UInt8](repeating: 0, count: 12) + [0xFF] + [UInt8](repeating: 0, count: 26)
                + [UInt8(devices * 32), 0, UInt8(segments * 28), 0, 0]
        for _ in 0..<devices {
            bytes += [0xE4, 0, 0, 0, 1, 3, 0, 8] + (0..<20).map { _ in generator.byte() } + [0, 0, 2, 0]
        }
        for _ in 0..<segments {
            bytes += [2, generator.byte() & 0x03, 0, 0x18, 0, UInt8(generator.below(4)), 0, UInt8(generator.below(4))]
            bytes += (0..<20).map { _ in generator.byte() }
        }
        if generator.below(4) == 0, !bytes.isEmpty {
            bytes[Int(generator.below(UInt64(bytes.count)))] = generator.byte()
        }
        return ByteBuffer(bytes: bytes)
    }

    private static func fits(_ response: SCSIResponse, _ allocationLength: UInt64) -> Bool {
        UInt64(response.dataIn?.readableBytes ?? 0) <= allocationLength
            && (response.sense != nil) == (response.status == .checkCondition)
    }

    private static func check(_ ranges: [ByteRange], _ unit: LogicalUnit) -> Bool {
        ranges.allSatisfy { range in
            range.count > 0 && unit.volume.geometry.contains(range)
                && range.offset % unit.logicalBlockBytes == 0 && range.count % unit.logicalBlockBytes == 0
        }
    }

    /// Whether a plan keeps what it promises of itself.
    private static func isSound(_ plan: SCSICommandPlan, allocation: DataTransfer, _ unit: LogicalUnit) -> Bool {
        switch plan {
        case .complete(let response):
            let room: UInt64 =
                switch allocation {
                case .dataInAtMost(let count), .dataIn(let count): count
                case .none, .dataOut: 0
                }
            return UInt64(response.dataIn?.readableBytes ?? 0) <= room
                && (response.sense != nil) == (response.status == .checkCondition)
        case .read(let read):
            return check([read.range], unit) && read.range.count <= UInt64(Limits.transferMaximumBytes)
        case .write(let write):
            var blocks = write.range
            blocks.count += (unit.logicalBlockBytes - blocks.count % unit.logicalBlockBytes) % unit.logicalBlockBytes
            return check([blocks], unit) && write.range.count % Limits.writeGranularityBytes == 0
                && UInt64(write.data.readableBytes) == write.range.count
        case .compareAndWrite(let range, let compare, let write):
            return check([range], unit) && UInt64(compare.readableBytes) == range.count
                && UInt64(write.readableBytes) == range.count
        case .zero(let ranges):
            return !ranges.isEmpty && check(ranges, unit)
        case .writeSame(let range, let pattern):
            return check([range], unit) && UInt64(pattern.readableBytes) == unit.logicalBlockBytes
                && !pattern.isAllZeros
        case .verify(let range, .mediumOnly), .synchronizeCache(let range):
            return check([range], unit)
        case .verify(let range, .compareData(let data)):
            return check([range], unit) && UInt64(data.readableBytes) == range.count
        case .verify(let range, .compareOneBlock(let data)):
            return check([range], unit) && UInt64(data.readableBytes) == unit.logicalBlockBytes
        case .orWrite(let range, let data):
            return check([range], unit) && UInt64(data.readableBytes) == range.count
        case .writeAndVerify(let write, _):
            return check([write.range], unit) && UInt64(write.data.readableBytes) == write.range.count
        case .lbaStatus(let query):
            let runs = [MapRun(range: query.range, isMapped: query.allocationLength % 2 == 0)]
            return check([query.range], unit) && query.range.end == unit.volume.geometry.sizeBytes
                && fits(query.response(runs, unit: unit), query.allocationLength)
        case .erase(let erasure, _):
            return erasure.position == 0
                && erasure.pattern.count == (erasure.kind == .overwrite ? Int(unit.logicalBlockBytes) : 0)
        case .extendedCopy(let copy):
            return copy.segments.count <= SCSILimits.copySegmentsMaximum
                && copy.segments.allSatisfy {
                    copy.devices.indices.contains($0.source) && copy.devices.indices.contains($0.destination)
                }
        case .copyResults(let query):
            let record = CopyRecord(
                listIdentifier: query.listIdentifier,
                progress: .failed(.copyAborted),
                segmentsDone: 1,
                bytesWritten: .max
            )
            return fits(query.response(record), query.allocationLength)
                && fits(query.response(nil), query.allocationLength)
        case .reservationOut(.register(_, _, _, let others, let ports, _)):
            return !ports.isEmpty && others.count <= SCSILimits.transportIDsMaximum
                && others.allSatisfy { !$0.name.isEmpty && $0.isid ?? 0 < 1 << 48 }
        case .reservationOut(.move(_, let key, _, let port, let through)):
            return key.rawValue != 0 && port.isid != nil && unit.targetPorts.contains(through)
        case .modeSelect(let mode, _):
            return mode.exceptionReportingMethod <= 6
        case .setIdentifyingInformation(let kind, let bytes):
            return bytes.count <= kind.maximumBytes && (kind == .peripheral || bytes.isEmpty || bytes.last == 0)
        case .reservationIn, .reservationOut, .reserveUnit, .releaseUnit, .targetPortGroups, .logSense:
            return true
        }
    }

    @Test(arguments: [UInt64(1), 20_250_101, 0xDEAD_BEEF])
    func randomCommandsNeverTrapAndPlansAreSound(_ seed: UInt64) throws {
        let units = [
            try makeUnit(), try makeUnit(sizeBytes: 4_096), try makeUnit(logicalBlockSizeBytes: 4_096),
            try makeUnit(sizeBytes: 1 << 50, blockSizeBytes: 65_536), try makeUnit(isReadOnly: true),
        ]
        var generator = SeededGenerator(state: seed)
        var accepted = 0
        for round in 0..<Self.rounds {
            let unit = units[Int(generator.below(UInt64(units.count)))]
            var cdb = Self.cdb(&generator)
            let lun = generator.below(10) == 0 ? generator.next() : 0
            let transfer = CommandSet.block.transfer(cdb: cdb, lun: lun, unit: unit)
            let dataOut = Self.dataOut(&generator)
            if cdb.first == 0x83, cdb.count == 16, generator.below(4) > 0 {
                let length = dataOut?.readableBytes ?? 0
                cdb.replaceSubrange(
                    10..<14,
                    with: [0, UInt8(length >> 16), UInt8(length >> 8 & 0xFF), UInt8(length & 0xFF)]
                )
            }
            let plan = CommandSet.block.plan(cdb: cdb, lun: lun, dataOut: dataOut, unit: unit)
            #expect(Self.isSound(plan, allocation: transfer, unit), "seed \(seed) round \(round): \(hexadecimal(cdb))")
            if case .complete(let response) = plan, response.status != .good { continue }
            accepted += 1
        }
        #expect(accepted > Self.rounds / 20)
    }

    /// Parameter lists that are right, with bytes changed and cut off.
    @Test(arguments: [UInt64(7), 20_260_404])
    func changedParameterListsNeverTrapAndPlansAreSound(_ seed: UInt64) throws {
        let unit = try makeUnit()
        let port = hex("45 00 00 14") + Array("ab,i,0x00023d000001".utf8) + [0]
        let basic = [UInt8](repeating: 1, count: 16) + hex("00 00 00 00 08 00 00 00 00 00 00 30") + port + port
        let move = [UInt8](repeating: 1, count: 16) + hex("00 02 02 03 00 00 00 18") + port
        let control = hex("0A 0A 06 10 08 40 00 00 FF FF 00 00 1C 0A 08 06 00 00 00 00 00 00 00 00")
        let modes = hex("00 00 00 08 00 00 80 00 00 00 02 00") + control
        let longModes = hex("00 00 00 00 01 00 00 10 00 00 00 00 00 00 80 00 00 00 00 00 00 00 02 00") + control
        let seeds: [(String, [UInt8])] = [
            ("5F 00 00 00 00 00 00 00 4C 00", basic), ("5F 07 00 00 00 00 00 00 30 00", move),
            ("15 10 00 00 24 00", modes), ("55 11 00 00 00 00 00 00 30 00", longModes),
            ("A4 06 00 00 00 00 00 00 00 04 04 00", Array("né".utf8) + [0]),
        ]
        var generator = SeededGenerator(state: seed)
        var accepted = [Int](repeating: 0, count: seeds.count)
        for round in 0..<Self.rounds {
            let index = Int(generator.below(UInt64(seeds.count)))
            let (cdb, list) = seeds[index]
            var bytes = list
            for _ in 0..<generator.below(3) {
                bytes[Int(generator.below(UInt64(bytes.count)))] = generator.byte()
            }
            if generator.below(8) == 0 { bytes.removeLast(Int(generator.below(UInt64(bytes.count)))) }
            let plan = plan(cdb, dataOut: ByteBuffer(bytes: bytes), unit)
            #expect(Self.isSound(plan, allocation: .none, unit), "seed \(seed) round \(round)")
            if case .complete = plan { continue }
            accepted[index] += 1
        }
        #expect(accepted.allSatisfy { $0 > Self.rounds / 50 }, "\(accepted)")
    }

    @Test func theSameSeedGivesTheSamePlans() throws {
        let unit = try makeUnit()
        func digest() -> [SCSICommandPlan] {
            var generator = SeededGenerator(state: 42)
            return (0..<500).map { _ in
                CommandSet.block.plan(
                    cdb: Self.cdb(&generator),
                    lun: 0,
                    dataOut: Self.dataOut(&generator),
                    unit: unit
                )
            }
        }
        #expect(digest() == digest())
    }
}
