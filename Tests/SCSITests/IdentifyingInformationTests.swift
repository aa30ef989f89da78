import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct IdentifyingInformationTests {
    private var unit: LogicalUnit

    init() throws {
        unit = try makeUnit()
        unit.identifyingInformation = hex("DE AD BE EF 00")
        unit.identifyingText = Array("Büro".utf8) + [0]
    }

    private func set(_ type: String, _ bytes: [UInt8], length: Int? = nil) -> SCSICommandPlan {
        let cdb = "A4 06 00 00 00 00 00 00 \(hexadecimal(bigEndian(length ?? bytes.count))) \(type) 00"
        return plan(cdb, dataOut: ByteBuffer(bytes: bytes), unit)
    }

    /// SPC-5, 6.32: INFORMATION TYPE is bits 7 to 1 of byte 10.
    @Test func report() throws {
        #expect(try dataIn(plan("A3 05 00 00 00 00 00 00 01 00 00 00", unit)) == hex("00 00 00 05 DE AD BE EF 00"))
        let text = hex("00 00 00 06") + Array("Büro".utf8) + [0]
        #expect(try dataIn(plan("A3 05 00 00 00 00 00 00 01 00 04 00", unit)) == text)
        let none = try makeUnit()
        for type in ["00", "04"] {
            #expect(try dataIn(plan("A3 05 00 00 00 00 00 00 01 00 \(type) 00", none)) == hex("00 00 00 00"))
        }
        for length in UInt8(0)...12 {
            let part = try dataIn(plan("A3 05 00 00 00 00 00 00 00 \(hexadecimal([length])) 04 00", unit))
            #expect(part == Array(text.prefix(Int(length))))
        }
        #expect(transfer("A3 05 00 00 00 00 01 02 03 04 00 00", unit) == .dataInAtMost(0x0102_0304))
    }

    /// Type 7Fh: the types with their largest lengths, ascending.
    @Test func supportedTypes() throws {
        let expected = hex("00 00 00 08 00 00 00 40 04 00 01 00")
        #expect(try dataIn(plan("A3 05 00 00 00 00 00 00 01 00 FE 00", unit)) == expected)
    }

    @Test func otherTypesAreRefused() {
        for type in UInt8(0)...0x7F where type != 0 && type != 2 {
            let code = hexadecimal([type << 1])
            #expect(set(code, []) == .field(10, 7))
            if type != 0x7F {
                #expect(plan("A3 05 00 00 00 00 00 00 01 00 \(code) 00", unit) == .field(10, 7))
            }
        }
    }

    @Test func setInformation() {
        let most = [UInt8](repeating: 0xFF, count: 64)
        #expect(set("00", [1, 2, 0, 3]) == .setIdentifyingInformation(.peripheral, [1, 2, 0, 3]))
        #expect(set("00", []) == .setIdentifyingInformation(.peripheral, []))
        #expect(set("00", most) == .setIdentifyingInformation(.peripheral, most))
        #expect(set("00", most + [0]) == .field(6, 7))
        #expect(set("00", most, length: 2) == .setIdentifyingInformation(.peripheral, [0xFF, 0xFF]))
        #expect(plan("A4 06 00 00 00 00 00 00 00 00 00 00", unit) == .setIdentifyingInformation(.peripheral, []))
        #expect(transfer("A4 06 00 00 00 00 01 02 03 04 00 00", unit) == .dataOut(0x0102_0304))
    }

    @Test func setText() {
        let most = [UInt8](repeating: 0x41, count: 255) + [0]
        let text = Array("Büro".utf8) + [0]
        #expect(set("04", text) == .setIdentifyingInformation(.text, text))
        #expect(set("04", []) == .setIdentifyingInformation(.text, []))
        #expect(set("04", [0]) == .setIdentifyingInformation(.text, [0]))
        #expect(set("04", most) == .setIdentifyingInformation(.text, most))
        #expect(set("04", most + [0]) == .field(6, 7))
        for wrong in [hex("41"), hex("41 00 00"), hex("00 41"), hex("FF FE 00"), hex("C3 00")] {
            #expect(set("04", wrong) == .parameter(0, 7))
        }
    }

    @Test func truncatedLists() {
        for length in 1...64 {
            let part = [UInt8](repeating: 1, count: length - 1)
            #expect(set("00", part, length: length) == .refused(.parameterListLengthError))
        }
        #expect(plan("A4 06 00 00 00 00 00 00 00 01 00 00", unit) == .refused(.parameterListLengthError))
        #expect(plan("A4 06 00 00 00 00 FF FF FF FF 00 00", unit) == .field(6, 7))
    }
}
