import AshlarCore
import NIOCore
import Testing

@testable import RPC

/// What messages about logical units must not hold.
struct UnitMessageTests {
    /// Bytes of a command header.
    private static let header = 48

    /// Fields at fixed places behind the command header.
    static let behindHeader: [(vector: String, offset: Int, values: [UInt8], field: String)] = [
        ("check-unit", 0, [3, 0xFF], "access"),
        ("check-unit", 1, [2, 0xFF], "bool"),
        ("check-unit", 2, [2, 0xFF], "bool"),
        ("check-unit", 3, [3, 0xFF], "attention"),
        ("check-unit", 4, [2, 0xFF], "bool"),
        ("change-unit-clear", 0, [6, 0xFF], "unit action"),
        ("change-unit-clear", 1, [6, 0xFF], "reservation action"),
        ("change-unit-register", 18, [2, 0xFF], "bool"),
        ("change-unit-reserve", 10, [0, 2, 4, 9, 0xFF], "reservation type"),
        ("change-unit-release", 10, [0, 2, 4, 9, 0xFF], "reservation type"),
        ("change-unit-preempt", 10, [0, 2, 4, 9, 0xFF], "reservation type"),
        ("change-unit-preempt", 19, [2, 0xFF], "bool"),
        ("change-unit-move", 18, [2, 0xFF], "bool"),
        ("change-unit-mode-select", 1, [2, 0xFF], "bool"),
        ("change-unit-mode-select", 5, [2, 0xFF], "bool"),
        ("change-unit-identify", 1, [1, 3, 0xFF], "identifying information"),
        ("change-unit-overwrite", 1, [0, 5, 0xFF], "erasure"),
        ("change-unit-format", 14, [2, 0xFF], "bool"),
        ("manage-unit", 0, [0, 1, 2, 3, 8, 0xFF], "unit management"),
    ]

    private func bytes(_ name: String) throws -> (MessageVector, ByteBuffer) {
        let vector = try #require(MessageVector.all.first { $0.name == name })
        return (vector, try vector.bytes())
    }

    @Test func valuesWithoutMeaningAreRefused() throws {
        for (name, offset, values, field) in Self.behindHeader {
            for value in values {
                var (vector, bytes) = try bytes(name)
                bytes.setInteger(value, at: bytes.readerIndex + Self.header + offset)
                #expect(throws: RPCDecodingError.invalidValue(field: field), "\(name), \(field) \(value)") {
                    try vector.decode(&bytes)
                }
            }
        }
    }

    /// Offsets in `check-unit-answer`, whose fields before them all have fixed lengths.
    @Test func aReportHasNoOtherFlagsOrConditions() throws {
        for offset in [32, 33, 34, 35, 36, 37, 39, 40, 41, 51, 52] {
            var (vector, bytes) = try bytes("check-unit-answer")
            bytes.setInteger(UInt8(2), at: bytes.readerIndex + offset)
            #expect(throws: RPCDecodingError.invalidValue(field: "bool"), "at \(offset)") { try vector.decode(&bytes) }
        }
        // The condition stands before the five counters.
        for value: UInt8 in [0, 15, 0xFF] {
            var (vector, bytes) = try bytes("check-unit-answer-all")
            bytes.setInteger(value, at: bytes.writerIndex - 5 * 8 - 1)
            #expect(throws: RPCDecodingError.invalidValue(field: "unit attention")) { try vector.decode(&bytes) }
        }
    }

    @Test func everyConditionIsCarried() throws {
        for attention in UnitAttention.allCases {
            let report = UnitReport(
                revision: 1,
                state: LogicalUnitState(),
                attention: attention,
                counters: UnitCounters()
            )
            var bytes = CheckUnit.Answer(stamp: MessageVector.stamp, report: report).encoded
            #expect(try CheckUnit.Answer(decoding: &bytes).report == report)
        }
    }

    @Test func everyReservationTypeIsCarried() throws {
        for type in ReservationType.allCases {
            let change = ChangeUnit(
                header: MessageVector.header,
                action: .reservation(.reserve(ReservationKey(1), type))
            )
            var bytes = change.encoded
            #expect(try ChangeUnit(decoding: &bytes).action == change.action)
        }
    }

    /// Data with a bound of its own: as much as is allowed, and a byte more.
    @Test func dataHaveTheirBounds() throws {
        func erase(_ count: Int) -> UnitAction {
            .erase(Erasure(kind: .overwrite, pattern: [UInt8](repeating: 1, count: count)), isImmediate: true)
        }
        let cases: [(maximum: Int, action: (Int) -> UnitAction)] = [
            (64, { .identify(.peripheral, [UInt8](repeating: 1, count: $0)) }),
            (256, { .identify(.text, [UInt8](repeating: 1, count: $0)) }),
            (4_096, erase),
        ]
        for (maximum, action) in cases {
            var fits = ChangeUnit(header: MessageVector.header, action: action(maximum)).encoded
            #expect(try ChangeUnit(decoding: &fits).action == action(maximum))
            var long = ChangeUnit(header: MessageVector.header, action: action(maximum + 1)).encoded
            #expect(throws: RPCDecodingError.countTooLarge(count: maximum + 1, maximum: maximum)) {
                try ChangeUnit(decoding: &long)
            }
        }
    }

    @Test func aReportHasTheSameBounds() throws {
        let cases: [(maximum: Int, set: (inout LogicalUnitState, [UInt8]) -> Void)] = [
            (64, { $0.identifyingInformation = $1 }),
            (256, { $0.identifyingText = $1 }),
            (4_096, { $0.erasure = Erasure(kind: .overwrite, pattern: $1) }),
        ]
        for (maximum, set) in cases {
            func encoded(_ count: Int) -> ByteBuffer {
                var state = LogicalUnitState()
                set(&state, [UInt8](repeating: 1, count: count))
                let report = UnitReport(revision: 1, state: state, attention: nil, counters: UnitCounters())
                return CheckUnit.Answer(stamp: MessageVector.stamp, report: report).encoded
            }
            var fits = encoded(maximum)
            #expect(throws: Never.self) { try CheckUnit.Answer(decoding: &fits) }
            var long = encoded(maximum + 1)
            #expect(throws: RPCDecodingError.countTooLarge(count: maximum + 1, maximum: maximum)) {
                try CheckUnit.Answer(decoding: &long)
            }
        }
    }

    @Test func initiatorPortsHaveBoundedNames() throws {
        var bytes = ByteBuffer()
        MessageVector.header.encode(into: &bytes)
        bytes.writeBytes([0, 5] + [UInt8](repeating: 0, count: 17))
        bytes.writeRPC(UInt16(256))
        bytes.writeRepeatingByte(0x61, count: 300)
        #expect(throws: RPCDecodingError.stringTooLong(bytes: 256, maximumBytes: 255)) {
            try ChangeUnit(decoding: &bytes)
        }
    }

    /// The numbers of section 6 are those that a refusal carries, and each has its name.
    @Test func statusesHaveTheNumbersOfTheSpecification() {
        let statuses: [(RPCStatus, UInt32, String)] = [
            (.reservationConflict, 7, "reservation conflict"), (.unitAttention, 22, "unit attention"),
            (.erasing, 23, "erasing"), (.taskAborted, 24, "task aborted"),
            (.softwareWriteProtected, 25, "software write protected"), (.invalidRelease, 26, "invalid release"),
            (.noRegistrationRoom, 27, "no registration room"), (.invalidParameter, 28, "invalid parameter"),
        ]
        for (status, number, name) in statuses {
            #expect(status.rawValue == number)
            #expect(status.description == name)
        }
    }
}
