import AshlarCore
import NIOCore
import Testing

@testable import SCSI

private let host = InitiatorTargetNexus(
    initiatorName: "iqn.1994-05.com.redhat:abc",
    isid: 0x0002_3D00_0001,
    portalGroupTag: 1
)
private let other = InitiatorTargetNexus(initiatorName: "a", isid: 0x8000_0000_00FF, portalGroupTag: 2)

/// Two registrations, and a reservation of the first one where a type is named.
private func registrations(_ type: ReservationType? = nil) -> PersistentReservations {
    var reservations = PersistentReservations()
    reservations.generation = 0x0102_0304
    reservations.registrations = [
        Registration(ports: host, relativePortIdentifier: 0x0203, key: ReservationKey(0x1122_3344_5566_7788)),
        Registration(ports: other, relativePortIdentifier: 9, key: ReservationKey(0xAB)),
    ]
    reservations.type = type
    if let type, !type.isOfAllRegistrants { reservations.holder = host }
    return reservations
}

@Suite struct PersistentReserveInTests {
    private func query(_ action: ReservationQuery.ServiceAction, room: UInt64 = 0xFFFF) -> ReservationQuery {
        ReservationQuery(action: action, allocationLength: room)
    }

    /// SPC-5, 6.16.
    @Test func plans() throws {
        let unit = try makeUnit()
        let actions: [ReservationQuery.ServiceAction] = [
            .readKeys, .readReservation, .reportCapabilities, .readFullStatus,
        ]
        for (code, action) in actions.enumerated() {
            let cdb = "5E 0\(code) 00 00 00 00 00 01 02 00"
            #expect(plan(cdb, unit) == .reservationIn(query(action, room: 0x0102)))
            #expect(transfer(cdb, unit) == .dataInAtMost(0x0102))
        }
    }

    /// SPC-5, 6.16.2.
    @Test func readKeys() throws {
        #expect(try dataIn(query(.readKeys).response(PersistentReservations())) == hex("00000000 00000000"))
        let two = hex("01020304 00000010 1122334455667788 00000000000000AB")
        #expect(try dataIn(query(.readKeys).response(registrations())) == two)
    }

    /// SPC-5, 6.16.3: all registrants hold under no key.
    @Test func readReservation() throws {
        #expect(try dataIn(query(.readReservation).response(registrations())) == hex("01020304 00000000"))
        for type in ReservationType.allCases {
            let key = type.isOfAllRegistrants ? "0000000000000000" : "1122334455667788"
            let expected = hex("01020304 00000010 \(key) 00000000 00 0\(type.rawValue) 0000")
            #expect(try dataIn(query(.readReservation).response(registrations(type))) == expected)
        }
    }

    /// SPC-5, 6.16.4: SIP_C, ATP_C and PTPL_C; TMV, ALLOW COMMANDS 011b and PTPL_A; six types.
    @Test func reportCapabilities() throws {
        let data = try dataIn(query(.reportCapabilities).response(PersistentReservations()))
        #expect(data == hex("0008 0D B1 EA 01 0000"))
    }

    /// What ALLOW COMMANDS 011b claims, by the rules of the table.
    @Test func allowCommandsIsTrue() {
        func access(_ cdb: String) -> CommandAccess { CommandSet.block.rules(cdb: hex(cdb), lun: 0).access }
        #expect(access("00 00 00 00 00 00") == .any)
        for cdb in ["1A 00 00 00 00 00", "5A", "A3 0C", "A3 0D"] {
            #expect(access(cdb) != .write)
        }
        #expect(access("1A 00 00 00 00 00") == .read)
    }

    /// SPC-5, 6.16.5, with TransportIDs by 7.6.4.6.
    @Test func readFullStatus() throws {
        let first = hex("45 00 00 2C") + Array("iqn.1994-05.com.redhat:abc,i,0x00023d000001".utf8) + [0]
        let second = hex("45 00 00 14") + Array("a,i,0x8000000000ff".utf8) + [0, 0]
        func expected(_ flags: String, _ otherFlags: String) -> [UInt8] {
            hex("01020304 00000078 1122334455667788 00000000 \(flags) 00000000 0203 00000030") + first
                + hex("00000000000000AB 00000000 \(otherFlags) 00000000 0009 00000018") + second
        }
        #expect(try dataIn(query(.readFullStatus).response(registrations())) == expected("00 00", "00 00"))
        for type in ReservationType.allCases {
            let held = "01 0\(type.rawValue)"
            let data = try dataIn(query(.readFullStatus).response(registrations(type)))
            #expect(data == expected(held, type.isOfAllRegistrants ? held : "00 00"))
        }
        #expect(try dataIn(query(.readFullStatus).response(PersistentReservations())) == hex("00000000 00000000"))
    }

    @Test func transportIDsAreFilled() {
        for count in 1...400 {
            let name = String(repeating: "n", count: count)
            let bytes = TransportID.encode(InitiatorTargetNexus(initiatorName: name, isid: 1, portalGroupTag: 1))
            #expect(bytes.count % 4 == 0 && bytes.count >= 24 && bytes.last == 0)
            #expect(Int(bytes[2]) << 8 | Int(bytes[3]) == bytes.count - 4)
            #expect(bytes.count <= 4 + 244)
        }
    }

    /// SPC-5, 4.2.5.6: ADDITIONAL LENGTH is not cut with the data.
    @Test func allocationLengthCuts() throws {
        for code in UInt8(0)...3 {
            let action = try #require(ReservationQuery.ServiceAction(rawValue: code))
            let whole = try dataIn(query(action).response(registrations(.exclusiveAccess)))
            for length in 0...whole.count {
                let part = query(action, room: UInt64(length)).response(registrations(.exclusiveAccess))
                #expect(try dataIn(part) == Array(whole.prefix(length)))
            }
        }
    }
}

@Suite struct PersistentReserveOutTests {
    private let key = ReservationKey(0x0102_0304_0506_0708)
    private let new = ReservationKey(0x1112_1314_1516_1718)
    private let unit: LogicalUnit
    private let second = TargetPort(portalGroupTag: 2, relativePortIdentifier: 9)

    init() throws {
        let first = try makeUnit().targetPort
        unit = try makeUnit(targetPorts: [first, TargetPort(portalGroupTag: 2, relativePortIdentifier: 9)])
    }

    private func list(flags: UInt8 = 0, _ more: [UInt8] = []) -> [UInt8] {
        bigEndian(key.rawValue) + bigEndian(new.rawValue) + [0, 0, 0, 0, flags, 0, 0, 0] + more
    }

    private func out(_ action: UInt8, _ list: [UInt8], length: Int? = nil) -> SCSICommandPlan {
        out(action, 0, list, length: length)
    }

    private func out(
        _ action: UInt8,
        _ scopeAndType: UInt8,
        _ list: [UInt8],
        length: Int? = nil
    ) -> SCSICommandPlan {
        let cdb = [0x5F, action, scopeAndType, 0, 0, 0, 0] + bigEndian(length ?? list.count) + [0]
        return plan(hexadecimal(cdb), dataOut: ByteBuffer(bytes: list), unit)
    }

    private func register(
        ignoresExisting: Bool = false,
        others: [InitiatorPort] = [],
        ports: [TargetPort]? = nil
    ) -> SCSICommandPlan {
        .reservationOut(
            .register(
                key,
                new: new,
                ignoresExisting: ignoresExisting,
                others: others,
                targetPorts: ports ?? [unit.targetPort],
                isForAllPorts: ports != nil
            )
        )
    }

    /// SPC-5, 6.17.2: every service action, and every type where there is one.
    @Test func serviceActions() {
        #expect(out(0, list()) == register())
        #expect(out(6, list()) == register(ignoresExisting: true))
        #expect(out(3, list()) == .reservationOut(.clear(key)))
        for type in ReservationType.allCases {
            let code = type.rawValue
            #expect(out(1, code, list()) == .reservationOut(.reserve(key, type)))
            #expect(out(2, code, list()) == .reservationOut(.release(key, type)))
            #expect(out(4, code, list()) == .reservationOut(.preempt(key, type, victim: new, aborts: false)))
            #expect(out(5, code, list()) == .reservationOut(.preempt(key, type, victim: new, aborts: true)))
        }
        #expect(transfer("5F 01 01 00 00 00 00 00 18 00", unit) == .dataOut(24))
        #expect(transfer("5F 01 01 00 00 01 02 03 04 00", unit) == .dataOut(0x0102_0304))
    }

    /// SPC-5, 6.16.3.3 and 6.16.3.4: LU_SCOPE is the only scope; the types between are obsolete or reserved.
    @Test func scopesAndTypes() {
        let known = Set(ReservationType.allCases.map(\.rawValue))
        for value in UInt8.min...UInt8.max {
            for action: UInt8 in [1, 2, 4, 5] {
                let plan = out(action, value, list())
                if value > 0x0F {
                    #expect(plan == .field(2, 7))
                } else if !known.contains(value) {
                    #expect(plan == .field(2, 3))
                }
            }
            #expect(out(0, value, list()) == register())
            #expect(out(3, value, list()) == .reservationOut(.clear(key)))
            #expect(out(6, value, list()) == register(ignoresExisting: true))
        }
    }

    /// SPC-5, 6.17.1: 24 bytes, no more and no less.
    @Test func parameterListLength() {
        let long = list(flags: 0, [0, 0, 0, 0])
        for action in UInt8(0)...7 {
            for length in 0..<24 {
                let short = Array(list().prefix(length))
                #expect(out(action, 1, short) == .refused(.parameterListLengthError))
                #expect(out(action, 1, list(), length: length) == .refused(.parameterListLengthError))
                #expect(out(action, 1, short, length: 24) == .refused(.parameterListLengthError))
            }
        }
        for action in UInt8(0)...6 {
            #expect(out(action, 1, long) == .refused(.parameterListLengthError))
        }
        #expect(out(0, long, length: 24) == register())
        let huge = plan("5F 00 00 00 00 FF FF FF FF 00", dataOut: ByteBuffer(bytes: list()), unit)
        #expect(huge == .refused(.parameterListLengthError))
        #expect(plan("5F 00 00 00 00 00 00 00 18 00", unit) == .refused(.parameterListLengthError))
    }

    /// APTPL is bit 0, ALL_TG_PT bit 2 of byte 20; both are ignored where they mean nothing.
    @Test func flags() {
        let both = [unit.targetPort, second]
        #expect(out(0, list(flags: 0x01)) == register())
        #expect(out(0, list(flags: 0x04)) == register(ports: both))
        #expect(out(6, list(flags: 0x05)) == register(ignoresExisting: true, ports: both))
        #expect(out(3, list(flags: 0x05)) == .reservationOut(.clear(key)))
    }

    /// SPC-5, 6.17.3 and 6.17.4: what is reserved is refused, what is obsolete is not looked at.
    @Test func reservedBits() {
        for bit in [7, 6, 5, 4, 1] as [UInt8] {
            for action in UInt8(0)...6 { #expect(out(action, 1, list(flags: 1 << bit)) == .parameter(20, bit)) }
        }
        var bytes = list()
        bytes[21] = 0x10
        #expect(out(0, bytes) == .parameter(21, 4))
        bytes[21] = 0
        for offset in [16, 17, 18, 19, 22, 23] { bytes[offset] = 0xFF }
        #expect(out(0, bytes) == register())
        for bit in UInt8(2)...7 { #expect(out(7, moveList(flags: 1 << bit, destination)) == .parameter(17, bit)) }
        var move = moveList(destination)
        move[16] = 0x01
        #expect(out(7, move) == .parameter(16, 0))
    }

    // MARK: SPEC_I_PT

    private let device = hex("05 00 00 14") + Array("iqn.1994-05.com.a:x".utf8) + [0]
    private let port = hex("45 00 00 24") + Array("iqn.1994-05.com.a:y,i,0x00023D00000f".utf8.prefix(35)) + [0]

    private func withTransportIDs(_ bytes: [UInt8], length: Int? = nil) -> [UInt8] {
        list(flags: 0x08, [0, 0] + bigEndian(length ?? bytes.count) + bytes)
    }

    @Test func specifiedInitiatorPorts() {
        let long = hex("45 00 00 28") + Array("iqn.1994-05.com.a:y,i,0x00023D00000f".utf8) + [0, 0, 0, 0]
        let ports = [
            InitiatorPort(name: "iqn.1994-05.com.a:x", isid: nil),
            InitiatorPort(name: "iqn.1994-05.com.a:y", isid: 0x0002_3D00_000F),
        ]
        #expect(out(0, withTransportIDs(device + long)) == register(others: ports))
        #expect(out(0, withTransportIDs([])) == register())
        // Digits may be left out; what follows the list or a name's zero byte is ignored.
        let shortDigits = InitiatorPort(name: "iqn.1994-05.com.a:y", isid: 0x0002_3D00_000)
        #expect(out(0, withTransportIDs(port)) == register(others: [shortDigits]))
        #expect(out(0, withTransportIDs(device) + [1, 2, 3]) == register(others: [ports[0]]))
        let followed = hex("05 00 00 18") + Array("iqn.1994-05.com.a:x".utf8) + hex("00 41 42 43 44")
        #expect(out(0, withTransportIDs(followed)) == register(others: [ports[0]]))
    }

    /// SPC-5, 6.17.3: for REGISTER alone.
    @Test func specifiedInitiatorPortsOfOtherActions() {
        for action in UInt8(1)...6 {
            #expect(out(action, 1, withTransportIDs(device)) == .parameter(20, 3))
        }
    }

    @Test func truncatedTransportIDs() {
        let whole = withTransportIDs(device + port)
        for length in 24..<whole.count {
            #expect(out(0, whole, length: length) == .refused(.parameterListLengthError))
            #expect(out(0, Array(whole.prefix(length))) == .refused(.parameterListLengthError))
        }
        for length in 1..<(device + port).count where length != device.count {
            let cut = withTransportIDs(device + port, length: length)
            #expect(out(0, cut) == .refused(.parameterListLengthError))
        }
        #expect(out(0, withTransportIDs(device, length: 0xFFFF)) == .refused(.parameterListLengthError))
        var lying = device
        lying[3] = 0x18
        #expect(out(0, withTransportIDs(lying)) == .refused(.parameterListLengthError))
    }

    @Test func malformedTransportIDs() {
        func refusal(_ start: String, _ text: String, at byte: Int, _ bit: UInt8) {
            let bytes = Array(text.utf8)
            let padding = [UInt8](repeating: 0, count: max(20 - bytes.count, 4 - bytes.count % 4))
            let field = bytes + padding
            let list = withTransportIDs(device + hex(start) + bigEndian(field.count) + field)
            #expect(out(0, list) == .parameter(28 + device.count + byte, bit), "\(start) \(text)")
        }
        for identifier in UInt8(0)...15 where identifier != 5 {
            refusal(hexadecimal([identifier, 0]), "iqn.a", at: 0, 3)
        }
        refusal("85 00", "iqn.a", at: 0, 7)
        refusal("C5 00", "iqn.a", at: 0, 7)
        refusal("25 00", "iqn.a", at: 0, 5)
        refusal("55 00", "iqn.a,i,0x1", at: 0, 4)
        refusal("05 01", "iqn.a", at: 1, 0)
        refusal("05 00", "", at: 4, 7)
        refusal("05 00", String(repeating: "n", count: 224), at: 4, 7)
        refusal("45 00", "iqn.a", at: 4, 7)
        refusal("45 00", ",i,0x1", at: 4, 7)
        refusal("45 00", String(repeating: "n", count: 224) + ",i,0x1", at: 4, 7)
        refusal("45 00", "iqn.a,i,0x", at: 14, 7)
        refusal("45 00", "iqn.a,i,0x0123456789abc", at: 14, 7)
        refusal("45 00", "iqn.a,i,0x+1", at: 14, 7)
        refusal("45 00", "iqn.a,i,0x12g", at: 14, 7)
        refusal("45 00", "iqn.a,i,0x1,i,0x2", at: 14, 7)

        let place = 28
        for length in [0, 4, 16, 21, 22, 23] {
            let bytes = hex("05 00") + bigEndian(length) + [UInt8](repeating: 0, count: 40)
            #expect(out(0, withTransportIDs(bytes)) == .parameter(place + 2, 7))
        }
        let unterminated = hex("05 00 00 14") + [UInt8](repeating: 0x6E, count: 20)
        #expect(out(0, withTransportIDs(unterminated)) == .parameter(place + 4, 7))
        let notText = hex("05 00 00 14 FF FE") + [UInt8](repeating: 0, count: 18)
        #expect(out(0, withTransportIDs(notText)) == .parameter(place + 4, 7))
    }

    @Test func transportIDsAtTheirLimit() {
        let name = InitiatorPort(name: "iqn.1994-05.com.a:x", isid: nil)
        let most = (0..<SCSILimits.transportIDsMaximum).flatMap { _ in device }
        let expected = register(others: [InitiatorPort](repeating: name, count: SCSILimits.transportIDsMaximum))
        #expect(out(0, withTransportIDs(most)) == expected)
        #expect(out(0, withTransportIDs(most + device)) == .refused(.insufficientRegistrationResources))
    }

    // MARK: REGISTER AND MOVE

    private let destination = hex("45 00 00 18") + Array("iqn.a,i,0x00023d000001".utf8) + [0, 0]

    private func moveList(
        flags: UInt8 = 0,
        new: UInt64? = nil,
        port: Int = 9,
        length: Int? = nil,
        _ transportID: [UInt8]
    ) -> [UInt8] {
        bigEndian(key.rawValue) + bigEndian(new ?? self.new.rawValue) + [0, flags] + bigEndian(port)
            + [0, 0] + bigEndian(length ?? transportID.count) + transportID
    }

    /// SPC-5, 6.17.4.
    @Test func registerAndMove() {
        let port = InitiatorPort(name: "iqn.a", isid: 0x0002_3D00_0001)
        func moved(_ unregisters: Bool, _ through: TargetPort) -> SCSICommandPlan {
            .reservationOut(.move(key, new: new, unregisters: unregisters, to: port, through: through))
        }
        #expect(out(7, moveList(destination)) == moved(false, second))
        #expect(out(7, 0xFF, moveList(flags: 0x02, destination)) == moved(true, second))
        #expect(out(7, moveList(flags: 0x01, destination)) == moved(false, second))
        #expect(out(7, moveList(flags: 0x03, port: 0x0203, destination)) == moved(true, unit.targetPort))
        #expect(out(7, moveList(destination) + [1, 2, 3]) == moved(false, second))
    }

    @Test func refusedMoves() {
        #expect(out(7, moveList(new: 0, destination)) == .parameter(8, 7))
        #expect(out(7, moveList(port: 0, destination)) == .parameter(18, 7))
        #expect(out(7, moveList(port: 8, destination)) == .parameter(18, 7))
        #expect(out(7, moveList(destination + destination)) == .parameter(20, 7))
        #expect(out(7, moveList(device)) == .parameter(24, 7))
        #expect(out(7, moveList(hex("40 00 00 14") + [UInt8](repeating: 0, count: 20))) == .parameter(24, 3))
    }

    @Test func truncatedMoves() {
        let whole = moveList(destination)
        for length in 0..<whole.count {
            #expect(out(7, whole, length: length) == .refused(.parameterListLengthError))
            #expect(out(7, Array(whole.prefix(length))) == .refused(.parameterListLengthError))
        }
        for length in 0..<destination.count {
            #expect(out(7, moveList(length: length, destination)) == .refused(.parameterListLengthError))
        }
        #expect(out(7, moveList(length: 0xFFFC, destination)) == .refused(.parameterListLengthError))
    }
}

@Suite struct ReserveAndReleaseTests {
    /// SPC-2, clause 7: with and without the bytes that iSCSI adds.
    @Test func wholeUnits() throws {
        let unit = try makeUnit()
        #expect(plan("16 00 00 00 00 00", unit) == .reserveUnit)
        #expect(plan("17 00 00 00 00 00", unit) == .releaseUnit)
        #expect(plan("56 00 00 00 00 00 00 00 00 00", unit) == .reserveUnit)
        #expect(plan("57 00 00 00 00 00 00 00 00 00", unit) == .releaseUnit)
        for cdb in ["16 00 00 00 00 00", "17 00 00 00 00 00"] {
            #expect(transfer(cdb, unit) == .none)
        }
    }

    /// 3RDPTY is bit 4, LONGID bit 1 and EXTENT bit 0 of byte 1; then a reservation's identification and lengths.
    @Test func thirdPartiesAndExtentsAreRefused() throws {
        let unit = try makeUnit()
        for code in ["16", "17", "56", "57"] {
            #expect(plan("\(code) 10", unit) == .field(1, 4))
            #expect(plan("\(code) 02", unit) == .field(1, 1))
            #expect(plan("\(code) 01", unit) == .field(1, 0))
            #expect(plan("\(code) 00 01", unit) == .field(2, 0))
            #expect(plan("\(code) 00 00 80", unit) == .field(3, 7))
        }
        for code in ["56", "57"] {
            #expect(plan("\(code) 00 00 00 00 00 00 00 08 00", unit) == .field(8, 3))
        }
    }
}
