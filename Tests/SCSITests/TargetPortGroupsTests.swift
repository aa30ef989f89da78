import AshlarCore
import NIOCore
import Testing

@testable import SCSI

@Suite struct TargetPortGroupsTests {
    private let groups = [
        TargetPortGroup(tag: 1, state: .activeOptimized, ports: [1, 0x0203]),
        TargetPortGroup(tag: 0xABCD, state: .standby, ports: []),
    ]

    private func query(isExtended: Bool, room: UInt64 = 0xFFFF) -> TargetPortGroupsQuery {
        TargetPortGroupsQuery(isExtended: isExtended, allocationLength: room)
    }

    /// SPC-5, 6.36: PARAMETER DATA FORMAT is bits 7 to 5 of byte 1.
    @Test func plans() throws {
        let unit = try makeUnit()
        let length = "00 00 00 00 01 02 03 04 00 00"
        let expected = query(isExtended: false, room: 0x0102_0304)
        #expect(plan("A3 0A \(length)", unit) == .targetPortGroups(expected))
        #expect(plan("A3 2A \(length)", unit) == .targetPortGroups(query(isExtended: true, room: 0x0102_0304)))
        for format in UInt8(2)...7 {
            #expect(plan("A3 \(hexadecimal([format << 5 | 0x0A])) \(length)", unit) == .field(1, 7))
        }
        #expect(transfer("A3 0A \(length)", unit) == .dataInAtMost(0x0102_0304))
    }

    /// SPC-5, 6.36: both headers, and the descriptors of groups and ports.
    @Test func bothFormats() throws {
        let descriptors = hex(
            "00 87 00 01 00 02 00 02 00 00 00 01 00 00 02 03 02 87 AB CD 00 02 00 00"
        )
        let short = hex("00 00 00 18") + descriptors
        let extended = hex("00 00 00 1C 10 14 00 00") + descriptors
        #expect(try dataIn(query(isExtended: false).response(groups)) == short)
        #expect(try dataIn(query(isExtended: true).response(groups)) == extended)
        for length in 0...extended.count {
            let part = query(isExtended: true, room: UInt64(length)).response(groups)
            #expect(try dataIn(part) == Array(extended.prefix(length)))
        }
        #expect(try dataIn(query(isExtended: false).response([])) == hex("00 00 00 00"))
        #expect(try dataIn(query(isExtended: true).response([])) == hex("00 00 00 04 10 14 00 00"))
    }

    /// SPC-5, table 308. U_SUP is said only where a group is unavailable.
    @Test func states() throws {
        let states: [(AsymmetricAccessState, String)] = [
            (.activeOptimized, "00 87"), (.activeNonOptimized, "01 87"), (.standby, "02 87"),
            (.unavailable, "03 8F"), (.transitioning, "0F 87"),
        ]
        for (state, bytes) in states {
            let group = TargetPortGroup(tag: 3, state: state, ports: [])
            let data = try dataIn(query(isExtended: false).response([group]))
            #expect(data == hex("00 00 00 08 \(bytes) 00 03 00 02 00 00"))
        }
    }

    /// TARGET PORT COUNT has one byte.
    @Test func manyPorts() throws {
        let group = TargetPortGroup(tag: 3, state: .activeOptimized, ports: Array(1...300))
        let data = try dataIn(query(isExtended: false).response([group]))
        #expect(data.count == 4 + 8 + 255 * 4)
        #expect(data[11] == 255)
    }
}
