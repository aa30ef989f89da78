import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct LogSenseTests {
    private let unit: LogicalUnit
    private let statistics = UnitStatistics(
        readCommands: 0x11,
        writeCommands: 0x0102_0304_0506_0708,
        blocksRead: 0x33,
        blocksWritten: 0x44,
        mappedBytes: 4_097
    )

    init() throws {
        unit = try makeUnit()
    }

    private func query(_ code: UInt8, pointer: UInt16 = 0, room: UInt64 = 0xFFFF) -> LogPageQuery {
        LogPageQuery(code: code, subpage: 0, parameterPointer: pointer, allocationLength: room)
    }

    /// SPC-5, 7.3: pages 00h and 00h/FFh.
    @Test func supportedPages() throws {
        let pages = hex("00 00 00 03 00 0C 19")
        let subpages = hex("40 FF 00 08 00 00 00 FF 0C 00 19 00")
        #expect(try dataIn(plan("4D 00 40 00 00 00 00 01 00 00", unit)) == pages)
        #expect(try dataIn(plan("4D 00 00 00 00 00 00 01 00 00", unit)) == pages)
        #expect(try dataIn(plan("4D 00 40 FF 00 00 00 01 00 00", unit)) == subpages)
        for length in UInt8(0)...14 {
            let text = hexadecimal([length])
            #expect(try dataIn(plan("4D 00 40 00 00 00 00 00 \(text) 00", unit)) == Array(pages.prefix(Int(length))))
            #expect(
                try dataIn(plan("4D 00 40 FF 00 00 00 00 \(text) 00", unit)) == Array(subpages.prefix(Int(length)))
            )
        }
        #expect(transfer("4D 00 40 00 00 00 00 01 02 00", unit) == .dataInAtMost(0x0102))
    }

    @Test func plans() {
        #expect(plan("4D 00 4C 00 00 00 02 01 02 00", unit) == .logSense(query(0x0C, pointer: 2, room: 0x0102)))
        #expect(plan("4D 00 0C 00 00 00 00 00 04 00", unit) == .logSense(query(0x0C, room: 4)))
        #expect(plan("4D 00 59 00 00 00 01 FF FF 00", unit) == .logSense(query(0x19, pointer: 1)))
    }

    @Test func refusals() {
        #expect(plan("4D 01 40 00 00 00 00 00 FF 00", unit) == .field(1, 0))
        #expect(plan("4D 02 40 00 00 00 00 00 FF 00", unit) == .field(1, 1))
        // Default values.
        #expect(plan("4D 00 80 00 00 00 00 00 FF 00", unit) == .field(2, 7))
        #expect(plan("4D 00 CC 00 00 00 00 00 FF 00", unit) == .field(2, 7))
        for code in UInt8(0)...0x3F where ![0x00, 0x0C, 0x19].contains(code) {
            #expect(plan("4D 00 \(hexadecimal([0x40 | code])) 00 00 00 00 00 FF 00", unit) == .field(2, 5))
        }
        #expect(plan("4D 00 40 01 00 00 00 00 FF 00", unit) == .field(3, 7))
        #expect(plan("4D 00 4C FF 00 00 00 00 FF 00", unit) == .field(3, 7))
        #expect(plan("4D 00 59 01 00 00 00 00 FF 00", unit) == .field(3, 7))
        // A PARAMETER POINTER beyond the last parameter.
        #expect(plan("4D 00 40 00 00 00 01 00 FF 00", unit) == .field(5, 7))
        #expect(plan("4D 00 4C 00 00 00 03 00 FF 00", unit) == .field(5, 7))
        #expect(plan("4D 00 59 00 00 00 04 00 FF 00", unit) == .field(5, 7))
    }

    /// SBC-4, 6.4: 4,096 threshold sets, of which two are used.
    @Test func provisioning() throws {
        let used = hex("0002 23 08 00000002 01 000000")
        let both = hex("8C 00 00 18 0001 23 08 00000FFE 00 000000") + used
        for pointer: UInt16 in [0, 1] {
            #expect(try dataIn(query(0x0C, pointer: pointer).response(statistics, unit: unit)) == both)
        }
        let last = hex("8C 00 00 0C") + used
        #expect(try dataIn(query(0x0C, pointer: 2).response(statistics, unit: unit)) == last)
        for length in 0...both.count {
            let part = query(0x0C, room: UInt64(length)).response(statistics, unit: unit)
            #expect(try dataIn(part) == Array(both.prefix(length)))
        }
    }

    /// More mapped than there is, as after a volume shrank; and counts that have more than 32 bits.
    @Test func provisioningAtItsEdges() throws {
        var other = statistics
        other.mappedBytes = .max
        let full = hex("8C 00 00 18 0001 23 08 00000000 00 000000 0002 23 08 00001000 01 000000")
        #expect(try dataIn(query(0x0C).response(other, unit: unit)) == full)
        other.mappedBytes = 0
        let large = try makeUnit(sizeBytes: 1 << 50, blockSizeBytes: 512)
        let empty = hex("8C 00 00 18 0001 23 08 FFFFFFFF 00 000000 0002 23 08 00000000 01 000000")
        #expect(try dataIn(query(0x0C).response(other, unit: large)) == empty)
    }

    /// Where a data block is a logical block, a threshold set is two of them; one that is used in part is not available.
    @Test func provisioningInSetsOfTwoBlocks() throws {
        let odd = try makeUnit(sizeBytes: 5 * 4_096, logicalBlockSizeBytes: 4_096)
        var other = statistics
        for (mapped, available, used) in [(0, 2, 0), (1, 2, 1), (2, 1, 1), (3, 1, 2), (4, 0, 2), (5, 0, 3), (9, 0, 3)] {
            other.mappedBytes = UInt64(mapped) * 4_096
            let page = hex("8C 00 00 18 0001 23 08 0000000\(available) 00 000000 0002 23 08 0000000\(used) 01 000000")
            #expect(try dataIn(query(0x0C).response(other, unit: odd)) == page, "\(mapped) blocks")
        }
    }

    /// SPC-5, 7.3: received are the blocks that are written; an interval is 1 times ten to the power of minus 3 seconds.
    @Test func generalStatistics() throws {
        let expected =
            hex("99 00 00 5C 0001 23 40 0000000000000011 0102030405060708 0000000000000044 0000000000000033")
            + [UInt8](repeating: 0, count: 32) + hex("0002 23 08 0000000000000000 0003 23 08 00000003 00000001")
        #expect(try dataIn(query(0x19).response(statistics, unit: unit)) == expected)
        #expect(try dataIn(query(0x19, pointer: 1).response(statistics, unit: unit)) == expected)
        let rest = hex("99 00 00 18") + Array(expected.suffix(24))
        #expect(try dataIn(query(0x19, pointer: 2).response(statistics, unit: unit)) == rest)
        #expect(try dataIn(query(0x19, room: 9).response(statistics, unit: unit)) == Array(expected.prefix(9)))
    }
}
