import AshlarCore
import NIOCore
import Testing

@testable import SCSI

/// An UNMAP parameter list (SBC-4, tables 99 and 100).
private func unmapList(_ descriptors: [(UInt64, UInt32)]) -> ByteBuffer {
    var list = ByteBuffer()
    list.writeInteger(UInt16(descriptors.count * 16 + 6))
    list.writeInteger(UInt16(descriptors.count * 16))
    list.writeInteger(UInt32(0))
    for (address, blocks) in descriptors {
        list.writeInteger(address)
        list.writeInteger(blocks)
        list.writeInteger(UInt32(0))
    }
    return list
}

private func unmap(_ list: ByteBuffer?, length: Int? = nil, _ unit: LogicalUnit) -> SCSICommandPlan {
    let count = UInt16(length ?? list?.readableBytes ?? 0)
    return plan("42 00 00 00 00 00 00 \(hexadecimal([UInt8(count >> 8), UInt8(count & 0xFF)])) 00", dataOut: list, unit)
}

@Suite struct UnmapTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    @Test func ranges() throws {
        #expect(
            unmap(unmapList([(0, 8), (0x7FFF, 1), (4, 8)]), unit)
                == .zero([
                    ByteRange(offset: 0, count: 4_096), ByteRange(offset: 0x7FFF * 512, count: 512),
                    ByteRange(offset: 2_048, count: 4_096),
                ])
        )
        let large = try makeUnit(sizeBytes: 1 << 43, logicalBlockSizeBytes: 4_096)
        #expect(
            unmap(unmapList([(0x7FFF_FFF0, 16)]), large)
                == .zero([ByteRange(offset: 0x7FFF_FFF0 * 4_096, count: 65_536)])
        )
        #expect(transfer("42 00 00 00 00 00 00 01 18 00", unit) == .dataOut(0x118))
    }

    /// SBC-4, 5.35: none of these is an error.
    @Test func nothingToDo() {
        #expect(unmap(nil, unit) == .good)
        #expect(unmap(unmapList([]), unit) == .good)
        #expect(unmap(unmapList([(0, 0), (0x8000, 0)]), unit) == .good)
        #expect(unmap(unmapList([(0, 8)]), length: 0, unit) == .good)
        #expect(unmap(unmapList((0..<256).map { (UInt64($0), 0) }), unit) == .good)
    }

    @Test func addressesOutOfRange() {
        #expect(unmap(unmapList([(0x7FFF, 2)]), unit) == .outOfRange(0x8000))
        #expect(unmap(unmapList([(0x8001, 0)]), unit) == .outOfRange(0x8001))
        #expect(unmap(unmapList([(0, 1), (.max, .max)]), unit) == .outOfRange(.max))
    }

    /// VPD page B0h: MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT and MAXIMUM UNMAP LBA COUNT, at their edge.
    @Test func limits() throws {
        let one = ByteRange(offset: 0, count: 512)
        let most = unmapList([(UInt64, UInt32)](repeating: (0, 1), count: 256))
        #expect(unmap(most, unit) == .zero([ByteRange](repeating: one, count: 256)))
        let tooMany = unmapList([(UInt64, UInt32)](repeating: (0, 1), count: 257))
        #expect(unmap(tooMany, unit) == .refused(.invalidFieldInParameterList(byte: 2, bit: 7)))

        let large = try makeUnit(sizeBytes: 1 << 40)
        #expect(unmap(unmapList([(0, 1 << 20)]), large) == .zero([ByteRange(offset: 0, count: 512 << 20)]))
        let beyond = SCSICommandPlan.refused(.invalidFieldInParameterList(byte: 16, bit: 7))
        #expect(unmap(unmapList([(0, 1 << 20 + 1)]), large) == beyond)
        let inSum = SCSICommandPlan.refused(.invalidFieldInParameterList(byte: 32, bit: 7))
        #expect(unmap(unmapList([(0, 1 << 20), (0, 1)]), large) == inSum)
        let large4K = try makeUnit(sizeBytes: 1 << 40, logicalBlockSizeBytes: 4_096)
        #expect(unmap(unmapList([(0, 1 << 18)]), large4K) == .zero([ByteRange(offset: 0, count: 1 << 30)]))
        #expect(unmap(unmapList([(0, 1 << 18 + 1)]), large4K) == beyond)
    }

    @Test func truncatedListsAtEveryLength() {
        let list = unmapList([(0, 8), (8, 8)])
        for length in 1..<list.readableBytes {
            let part = list.getSlice(at: 0, length: length)
            #expect(unmap(part, unit) == .refused(.parameterListLengthError), "\(length) of the data-out")
            #expect(unmap(list, length: length, unit) == .refused(.parameterListLengthError), "\(length) of the list")
        }
        #expect(unmap(nil, length: 24, unit) == .refused(.parameterListLengthError))
    }

    @Test func lyingLengths() {
        // UNMAP DATA LENGTH smaller than its descriptors need.
        var list = unmapList([(0, 8)])
        list.setInteger(UInt16(21), at: 0)
        #expect(unmap(list, unit) == .refused(.invalidFieldInParameterList(byte: 0, bit: 7)))
        // UNMAP BLOCK DESCRIPTOR DATA LENGTH beyond the list.
        list = unmapList([(0, 8)])
        list.setInteger(UInt16.max, at: 0)
        list.setInteger(UInt16(32), at: 2)
        #expect(unmap(list, unit) == .refused(.parameterListLengthError))
        // SBC-4, 5.35.2: a last descriptor that is not whole is ignored.
        list = unmapList([(0, 8), (8, 8)])
        list.setInteger(UInt16(31), at: 2)
        #expect(unmap(list, unit) == .zero([ByteRange(offset: 0, count: 4_096)]))
        // What follows the descriptors is ignored.
        list = unmapList([(0, 8), (8, 8)])
        list.setInteger(UInt16(16), at: 2)
        #expect(unmap(list, unit) == .zero([ByteRange(offset: 0, count: 4_096)]))
    }

    @Test func anchorIsRefused() {
        #expect(plan("42 01 00 00 00 00 00 00 18 00", dataOut: unmapList([(0, 8)]), unit) == .field(1, 0))
    }
}

@Suite struct WriteSameTests {
    private let unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
    }

    /// SBC-4, tables 119 and 122.
    @Test func patterns() {
        let range = ByteRange(offset: 0x102 * 512, count: 1_024)
        let pattern = filled(0xA6, 512)
        for unmapBit in ["00", "08"] {
            let short = "41 \(unmapBit) 00 00 01 02 00 00 02 00"
            let long = "93 \(unmapBit) 00 00 00 00 00 00 01 02 00 00 00 02 00 00"
            for cdb in [short, long] {
                let written = SCSICommandPlan.writeSame(range: range, pattern: pattern)
                #expect(plan(cdb, dataOut: pattern, unit) == (unmapBit == "08" ? .zero([range]) : written))
                #expect(plan(cdb, dataOut: filled(0, 512), unit) == .zero([range]))
                #expect(transfer(cdb, unit) == .dataOut(512))
            }
        }
        var last = filled(0, 511)
        last.writeInteger(UInt8(1))
        #expect(
            plan("41 00 00 00 01 02 00 00 02 00", dataOut: last, unit) == .writeSame(range: range, pattern: last)
        )
    }

    /// SBC-4, 5.51: NDOB, no data-out buffer.
    @Test func withoutDataOut() {
        let zero = SCSICommandPlan.zero([ByteRange(offset: 512, count: 1_024)])
        #expect(plan("93 01 00 00 00 00 00 00 00 01 00 00 00 02 00 00", unit) == zero)
        #expect(plan("93 09 00 00 00 00 00 00 00 01 00 00 00 02 00 00", dataOut: filled(1, 512), unit) == zero)
        #expect(transfer("93 01 00 00 00 00 00 00 00 01 00 00 00 02 00 00", unit) == .none)
        #expect(plan("41 01 00 00 00 01 00 00 02 00", unit) == .field(1, 0))
    }

    @Test func theDataOutIsOneBlock() {
        for count in [0, 256, 511, 513, 1_024] {
            #expect(
                plan("41 08 00 00 00 00 00 00 01 00", dataOut: filled(0, count), unit) == .refused(.wrongDataOutLength)
            )
        }
        #expect(
            plan("93 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00", dataOut: nil, unit)
                == .refused(.wrongDataOutLength)
        )
    }

    /// WSNZ is zero: no blocks means all to the end, up to MAXIMUM WRITE SAME LENGTH.
    @Test func toTheEnd() throws {
        #expect(
            plan("93 08 00 00 00 00 00 00 7F 00 00 00 00 00 00 00", dataOut: filled(0, 512), unit)
                == .zero([ByteRange(offset: 0x7F00 * 512, count: 256 * 512)])
        )
        #expect(plan("41 00 00 00 80 00 00 00 00 00", dataOut: filled(0, 512), unit) == .good)
        #expect(plan("41 00 00 00 80 01 00 00 00 00", dataOut: filled(0, 512), unit) == .outOfRange(0x8001))
        let large = try makeUnit(sizeBytes: 1 << 42)
        #expect(
            plan("93 00 00 00 00 01 FF FF C0 00 00 00 00 00 00 00", dataOut: filled(0, 512), large)
                == .zero([ByteRange(offset: 0x1_FFFF_C000 * 512, count: 8 << 20)])
        )
        #expect(
            plan("93 00 00 00 00 01 FF FF BF FF 00 00 00 00 00 00", dataOut: filled(0, 512), large) == .field(10, 7)
        )
    }

    @Test func limits() throws {
        let large = try makeUnit(sizeBytes: 1 << 40)
        let pattern = filled(1, 512)
        #expect(
            plan("93 00 00 00 00 00 00 00 00 00 00 00 40 00 00 00", dataOut: pattern, large)
                == .writeSame(range: ByteRange(offset: 0, count: 8 << 20), pattern: pattern)
        )
        #expect(plan("93 00 00 00 00 00 00 00 00 00 00 00 40 01 00 00", dataOut: pattern, large) == .field(10, 7))
        let large4K = try makeUnit(sizeBytes: 1 << 40, logicalBlockSizeBytes: 4_096)
        #expect(plan("41 00 00 00 00 00 00 08 01 00", dataOut: filled(1, 4_096), large4K) == .field(7, 7))
    }

    @Test func refusals() {
        let pattern = filled(0, 512)
        #expect(plan("41 20 00 00 00 00 00 00 01 00", dataOut: pattern, unit) == .field(1, 7))
        #expect(plan("93 E0 00 00 00 00 00 00 00 00 00 00 00 01 00 00", dataOut: pattern, unit) == .field(1, 7))
        #expect(plan("41 18 00 00 00 00 00 00 01 00", dataOut: pattern, unit) == .field(1, 4))
        #expect(plan("93 10 00 00 00 00 00 00 00 00 00 00 00 01 00 00", dataOut: pattern, unit) == .field(1, 4))
        #expect(plan("41 00 00 00 7F FF 00 00 02 00", dataOut: pattern, unit) == .outOfRange(0x8000))
    }
}
