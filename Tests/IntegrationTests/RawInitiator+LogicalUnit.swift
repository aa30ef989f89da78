import AshlarTestSupport
import Foundation

/// Commands on what all nexuses of a logical unit share.
extension RawInitiator {
    /// RESERVATION CONFLICT.
    static let reservationConflict: UInt8 = 0x18
    /// TASK ABORTED.
    static let taskAborted: UInt8 = 0x40

    static let testUnitReady = [UInt8](repeating: 0, count: 6)
    /// RESERVE (6).
    static let reserve: [UInt8] = [0x16, 0, 0, 0, 0, 0]
    /// RELEASE (6).
    static let release: [UInt8] = [0x17, 0, 0, 0, 0, 0]

    /// Service actions of PERSISTENT RESERVE OUT.
    enum ReservationAction: UInt8 {
        case register = 0
        case reserve = 1
        case release = 2
        case clear = 3
        case preempt = 4
        case preemptAndAbort = 5
    }

    /// TYPE of a persistent reservation.
    enum ReservationType: UInt8 {
        case writeExclusive = 1
        case exclusiveAccess = 3
        case writeExclusiveRegistrantsOnly = 5
        case exclusiveAccessRegistrantsOnly = 6
    }

    /// The conditions that wait for this nexus, which are cleared thereby: additional sense codes with their qualifiers.
    func attentions() throws -> [UInt16] {
        let (outcome, attentions) = try runPastAttentions(Self.testUnitReady)
        guard outcome.isGood || outcome.status == Self.reservationConflict else {
            throw ProcessFailure("\(name): \(outcome)")
        }
        return attentions.map(\.code)
    }

    /// PERSISTENT RESERVE OUT.
    func reserveOut(
        _ action: ReservationAction,
        _ type: ReservationType = .writeExclusive,
        key: UInt64 = 0,
        other: UInt64 = 0
    ) throws -> Outcome {
        let list = Self.bigEndian(key, 8) + Self.bigEndian(other, 8) + [UInt8](repeating: 0, count: 8)
        return try run([0x5F, action.rawValue, type.rawValue, 0, 0, 0, 0, 0, 24, 0], write: list)
    }

    /// Registers a key; what waited for this nexus is cleared first.
    func register(_ key: UInt64) throws {
        _ = try attentions()
        let outcome = try reserveOut(.register, other: key)
        guard outcome.isGood else { throw ProcessFailure("\(name): registering: \(outcome)") }
    }

    /// Whether this nexus may read and write one block.
    func access(_ address: UInt64 = 0) throws -> (reads: Bool, writes: Bool) {
        let outcomes = [
            try runPastAttentions(Self.read16(address, 1), read: 512).outcome,
            try runPastAttentions(Self.write16(address, 1), write: [UInt8](repeating: 1, count: 512)).outcome,
        ]
        for outcome in outcomes where !outcome.isGood && outcome.status != Self.reservationConflict {
            throw ProcessFailure("\(name): \(outcome)")
        }
        return (outcomes[0].isGood, outcomes[1].isGood)
    }

    /// Reads logical blocks of 512 bytes.
    func read(_ address: UInt64, _ blocks: UInt32) throws -> [UInt8] {
        let outcome = try runPastAttentions(Self.read16(address, blocks), read: blocks * 512).outcome
        guard outcome.isGood else { throw ProcessFailure("\(name): reading \(blocks) at \(address): \(outcome)") }
        return outcome.data
    }

    /// REQUEST SENSE: what is told, and how far an operation is, in 65536ths.
    func requestSense(lun: UInt64 = 0) throws -> (sense: Sense, progress: UInt16?) {
        let data = try run([0x03, 0, 0, 0, 252, 0], lun: lun, read: 252).data
        guard data.count >= 18 else { throw ProcessFailure("\(name): \(data.count) bytes of sense data") }
        let sense = Sense(key: data[2] & 0x0F, code: UInt16(data[12]) << 8 | UInt16(data[13]))
        return (sense, data[15] & 0x80 == 0 ? nil : UInt16(data[16]) << 8 | UInt16(data[17]))
    }

    /// SWP of the control mode page, by MODE SENSE and MODE SELECT.
    func setWriteProtection(_ isProtected: Bool) throws {
        try setControlBit(8, 0x08, isProtected)
    }

    /// D_SENSE of the control mode page, by MODE SENSE and MODE SELECT; not saved.
    func setDescriptorFormat(_ isInDescriptorFormat: Bool) throws {
        try setControlBit(6, 0x04, isInDescriptorFormat)
    }

    /// Sets or clears a bit of the control mode page behind the header of four bytes.
    private func setControlBit(_ offset: Int, _ mask: UInt8, _ isSet: Bool) throws {
        var list = try run([0x1A, 0x08, 0x0A, 0, 252, 0], read: 252).data
        guard list.count >= 16 else { throw ProcessFailure("\(name): \(list.count) bytes of mode parameters") }
        list[0] = 0
        list[4] &= 0x7F
        list[offset] = list[offset] & ~mask | (isSet ? mask : 0)
        let outcome = try run([0x15, 0x10, 0, 0, UInt8(list.count), 0], write: list)
        guard outcome.isGood else { throw ProcessFailure("\(name): MODE SELECT: \(outcome)") }
    }

    /// REPORT TARGET PORT GROUPS: the states of the groups by their tags, and the conditions that came before.
    func targetPortGroups() throws -> (states: [UInt16: UInt8], attentions: [UInt16]) {
        let command: [UInt8] = [0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]
        let (outcome, attentions) = try runPastAttentions(command, read: 512)
        guard outcome.isGood, outcome.data.count >= 4 else { throw ProcessFailure("\(name): \(outcome)") }
        var groups: [UInt16: UInt8] = [:]
        var rest = outcome.data[4...]
        while rest.count >= 8 {
            let start = rest.startIndex
            groups[UInt16(rest[start + 2]) << 8 | UInt16(rest[start + 3])] = rest[start] & 0x0F
            rest = rest.dropFirst(8 + 4 * Int(rest[start + 7]))
        }
        return (groups, attentions.map(\.code))
    }

    /// The NAA designator of the logical unit, of VPD page 83h.
    func networkAddressIdentifier() throws -> [UInt8] {
        let data = try run([0x12, 1, 0x83, 4, 0, 0], read: 1_024).data
        var rest = data.dropFirst(4)
        while rest.count >= 4 {
            let start = rest.startIndex
            let count = Int(rest[start + 3])
            let designator = rest.dropFirst(4).prefix(count)
            // ASSOCIATION 0 and DESIGNATOR TYPE 3.
            if rest[start + 1] & 0x3F == 3 { return Array(designator) }
            rest = rest.dropFirst(4 + count)
        }
        throw ProcessFailure("\(name): no NAA designator")
    }
}
