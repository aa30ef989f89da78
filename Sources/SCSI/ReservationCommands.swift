public import AshlarCore
import NIOCore

extension CommandSet {
    /// PERSISTENT RESERVE IN and OUT (SPC-5, 6.16 and 6.17), RESERVE and RELEASE (SPC-2, clause 7).
    ///
    /// All are for the owner to judge, which knows registrations and reservations; hence no persistent reservation
    /// keeps them out. PERSISTENT RESERVE IN and OUT meet RESERVATION CONFLICT while a RESERVE is in force: the table
    /// of SPC-2, 5.5.1 has both as conflicting, and later standards, SPC-3 the first, make an exception only with CRH.
    /// (The descriptions of the two in SPC-2 say so even of the nexus that holds the unit, which is for the owner to
    /// see.) RESERVE and RELEASE are let through to the owner: the first conflicts there, the second does nothing where
    /// another nexus holds the unit. In their CDBs third-party reservations, extents and what goes with them are
    /// reserved bits here: only whole logical units are reserved, and for who asks.
    static let reservationCommands: [SupportedCommand] =
        (UInt8(0)...3).map { action in
            SupportedCommand(
                [0x5E, action, 0x00, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00],
                serviceAction: UInt16(action),
                rules: .duringErasure,
                transfer: { command, _ in .dataInAtMost(command.bigEndian(at: 7, count: 2)) },
                plan: ReservationCommands.query
            )
        }
        + (UInt8(0)...7).map { action in
            SupportedCommand(
                [0x5F, action, 0xFF, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00],
                serviceAction: UInt16(action),
                rules: .any,
                transfer: { command, _ in .dataOut(command.bigEndian(at: 5, count: 4)) },
                plan: ReservationCommands.change
            )
        }
        + [
            SupportedCommand([0x16, 0x00, 0x00, 0x00, 0x00, 0x00], rules: .underReserve) {
                _ throws(SCSIError) in .reserveUnit
            },
            SupportedCommand([0x17, 0x00, 0x00, 0x00, 0x00, 0x00], rules: .underReserve) {
                _ throws(SCSIError) in .releaseUnit
            },
            SupportedCommand([0x56, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], rules: .underReserve) {
                _ throws(SCSIError) in .reserveUnit
            },
            SupportedCommand([0x57, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], rules: .underReserve) {
                _ throws(SCSIError) in .releaseUnit
            },
        ]
}

/// The decisions of the commands on reservations.
enum ReservationCommands {
    /// Service actions of PERSISTENT RESERVE OUT (SPC-5, 6.17.2).
    private enum OutAction: UInt8 {
        case register = 0
        case reserve = 1
        case release = 2
        case clear = 3
        case preempt = 4
        case preemptAndAbort = 5
        case registerAndIgnoreExistingKey = 6
        case registerAndMove = 7
    }

    /// Bytes of the basic parameter list, and of that of REGISTER AND MOVE without its TransportID (SPC-5, 6.17.3 and
    /// 6.17.4).
    static let listBytes = 24
    /// Offset of the first TransportID of SPEC_I_PT, behind TRANSPORTID PARAMETER DATA LENGTH.
    static let transportIDsOffset = 28

    static func query(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        guard let action = ReservationQuery.ServiceAction(rawValue: context.command[1] & 0x1F) else {
            throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 4))
        }
        return .reservationIn(
            ReservationQuery(action: action, allocationLength: context.command.bigEndian(at: 7, count: 2))
        )
    }

    /// PERSISTENT RESERVE OUT. Keys are compared by the owner. APTPL is accepted both ways, since registrations are
    /// never lost.
    static func change(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let command = context.command
        guard let action = OutAction(rawValue: command[1] & 0x1F) else {
            throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 4))
        }
        let type = try reservationType(command, of: action)
        let length = command.bigEndian(at: 5, count: 4)
        guard length >= listBytes else { throw SCSIError(.parameterListLengthError) }
        let list = try context.parameterList(count: length)
        guard action != .registerAndMove else { return .reservationOut(try move(list, context.unit)) }
        // Reserved; the bytes on both sides are obsolete, and ignored.
        try list.refuse(0xF2, ofByte: 20)
        try list.refuse(0xFF, ofByte: 21)

        let key = ReservationKey(list.bigEndian(at: 0, count: 8))
        let serviceActionKey = ReservationKey(list.bigEndian(at: 8, count: 8))
        let others = try specifiedPorts(list, of: action)
        switch (action, type) {
        case (.reserve, let type?): return .reservationOut(.reserve(key, type))
        case (.release, let type?): return .reservationOut(.release(key, type))
        case (.clear, _): return .reservationOut(.clear(key))
        case (.preempt, let type?), (.preemptAndAbort, let type?):
            let aborts = action == .preemptAndAbort
            return .reservationOut(.preempt(key, type, victim: serviceActionKey, aborts: aborts))
        default:
            let isForAllPorts = list.isSet(byte: 20, bit: 2)
            return .reservationOut(
                .register(
                    key,
                    new: serviceActionKey,
                    ignoresExisting: action == .registerAndIgnoreExistingKey,
                    others: others,
                    targetPorts: isForAllPorts ? context.unit.targetPorts : [context.unit.targetPort],
                    isForAllPorts: isForAllPorts
                )
            )
        }
    }

    /// TYPE, of the service actions that have one; SCOPE must then be LU_SCOPE (SPC-5, 6.16.3.3). The others ignore
    /// both.
    private static func reservationType(
        _ command: CommandDescriptorBlock,
        of action: OutAction
    ) throws(SCSIError) -> ReservationType? {
        switch action {
        case .register, .registerAndIgnoreExistingKey, .registerAndMove, .clear: return nil
        case .reserve, .release, .preempt, .preemptAndAbort:
            guard command[2] >> 4 == 0 else { throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 7)) }
            guard let type = ReservationType(rawValue: command[2] & 0x0F) else {
                throw SCSIError(.invalidFieldInCDB(byte: 2, bit: 3))
            }
            return type
        }
    }

    /// The initiator ports that SPEC_I_PT adds. Without it the list has its basic length, no more.
    private static func specifiedPorts(
        _ list: ParameterList,
        of action: OutAction
    ) throws(SCSIError) -> [InitiatorPort] {
        guard list.isSet(byte: 20, bit: 3) else {
            guard list.count == listBytes else { throw SCSIError(.parameterListLengthError) }
            return []
        }
        guard action == .register else { throw SCSIError(.invalidFieldInParameterList(byte: 20, bit: 3)) }
        let length = list.bigEndian(at: listBytes, count: 4)
        guard list.count >= transportIDsOffset, length <= list.count - transportIDsOffset else {
            throw SCSIError(.parameterListLengthError)
        }
        var ports: [InitiatorPort] = []
        var offset = transportIDsOffset
        let end = transportIDsOffset + Int(length)
        while offset < end {
            guard ports.count < SCSILimits.transportIDsMaximum else {
                throw SCSIError(.insufficientRegistrationResources)
            }
            ports.append(try TransportID.decode(list, at: &offset, end: end))
        }
        return ports
    }

    /// REGISTER AND MOVE. A reservation is moved to one port, which an initiator's name alone (TPID FORMAT 00b) does
    /// not say.
    private static func move(_ list: ParameterList, _ unit: LogicalUnit) throws(SCSIError) -> ReservationAction {
        try list.refuse(0xFF, ofByte: 16)
        try list.refuse(0xFC, ofByte: 17)
        let serviceActionKey = ReservationKey(list.bigEndian(at: 8, count: 8))
        guard serviceActionKey.rawValue != 0 else {
            throw SCSIError(.invalidFieldInParameterList(byte: 8, bit: 7))
        }
        let identifier = UInt16(truncatingIfNeeded: list.bigEndian(at: 18, count: 2))
        guard let port = unit.targetPorts.first(where: { $0.relativePortIdentifier == identifier }) else {
            throw SCSIError(.invalidFieldInParameterList(byte: 18, bit: 7))
        }
        let length = list.bigEndian(at: 20, count: 4)
        guard length <= list.count - listBytes else { throw SCSIError(.parameterListLengthError) }
        var offset = listBytes
        let end = listBytes + Int(length)
        let initiator = try TransportID.decode(list, at: &offset, end: end)
        guard offset == end else { throw SCSIError(.invalidFieldInParameterList(byte: 20, bit: 7)) }
        guard initiator.isid != nil else { throw SCSIError(.invalidFieldInParameterList(byte: listBytes, bit: 7)) }
        return .move(
            ReservationKey(list.bigEndian(at: 0, count: 8)),
            new: serviceActionKey,
            unregisters: list.isSet(byte: 17, bit: 1),
            to: initiator,
            through: port
        )
    }
}

// MARK: PERSISTENT RESERVE IN

extension ReservationQuery {
    /// The answer, from what the owner knows.
    public func response(_ reservations: PersistentReservations) -> SCSIResponse {
        let data =
            switch action {
            case .readKeys: Self.keys(reservations)
            case .readReservation: Self.reservation(reservations)
            case .reportCapabilities: ByteBuffer(bytes: Self.capabilities)
            case .readFullStatus: Self.fullStatus(reservations)
            }
        return .good(data.cut(toAllocationLength: allocationLength))
    }

    /// PRGENERATION, ADDITIONAL LENGTH and what they head.
    private static func list(_ reservations: PersistentReservations, _ body: ByteBuffer) -> ByteBuffer {
        var data = ByteBuffer()
        data.writeInteger(reservations.generation)
        data.writeInteger(UInt32(clamping: body.readableBytes))
        data.writeImmutableBuffer(body)
        return data
    }

    /// READ KEYS (SPC-5, 6.16.2): one key for each registered nexus, though some be equal.
    private static func keys(_ reservations: PersistentReservations) -> ByteBuffer {
        var body = ByteBuffer()
        for registration in reservations.registrations {
            body.writeInteger(registration.key.rawValue)
        }
        return list(reservations, body)
    }

    /// READ RESERVATION (SPC-5, 6.16.3): what all registrants hold is held under no key.
    private static func reservation(_ reservations: PersistentReservations) -> ByteBuffer {
        var body = ByteBuffer()
        if let type = reservations.type {
            let holder = reservations.registrations.first { $0.ports == reservations.holder }
            body.writeInteger(type.isOfAllRegistrants ? 0 : holder?.key.rawValue ?? 0)
            body.writeInteger(UInt32(0))
            body.writeInteger(UInt8(0))
            body.writeInteger(type.rawValue)
            body.writeInteger(UInt16(0))
        }
        return list(reservations, body)
    }

    /// REPORT CAPABILITIES (SPC-5, 6.16.4): no CRH, since RESERVE conflicts with registrations; SPEC_I_PT, ALL_TG_PT
    /// and APTPL can be set (SIP_C, ATP_C, PTPL_C), and registrations persist (PTPL_A); the mask of all six types
    /// (TMV).
    ///
    /// ALLOW COMMANDS is 011b: TEST UNIT READY is allowed through every reservation, and MODE SENSE, READ DEFECT DATA,
    /// the REPORT SUPPORTED commands and the others that the code names through those for exclusive writing. That is
    /// what the rules of the table say: access `any` for the first, `any` or `read` for the others; 100b would claim
    /// that MODE SENSE is allowed through those for exclusive access too.
    private static let capabilities: [UInt8] = [0x00, 0x08, 0x0D, 0x80 | 0b011 << 4 | 0x01, 0xEA, 0x01, 0x00, 0x00]

    /// READ FULL STATUS (SPC-5, 6.16.5). Each registration is told of by itself, with its target port: ALL_TG_PT is
    /// zero. SCOPE and TYPE are said of holders.
    private static func fullStatus(_ reservations: PersistentReservations) -> ByteBuffer {
        var body = ByteBuffer()
        for registration in reservations.registrations {
            let type = reservations.type.flatMap { type in
                type.isOfAllRegistrants || registration.ports == reservations.holder ? type : nil
            }
            let transportID = TransportID.encode(registration.ports)
            body.writeInteger(registration.key.rawValue)
            body.writeInteger(UInt32(0))
            body.writeInteger(UInt8(type == nil ? 0x00 : 0x01))
            body.writeInteger(type?.rawValue ?? 0)
            body.writeInteger(UInt32(0))
            body.writeInteger(registration.relativePortIdentifier)
            body.writeInteger(UInt32(transportID.count))
            body.writeBytes(transportID)
        }
        return list(reservations, body)
    }
}
