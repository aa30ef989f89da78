import AshlarCore
import NIOCore

// Fields of messages about logical units.
extension ByteBuffer {
    mutating func readRPCRules() throws(RPCDecodingError) -> CommandRules {
        guard let access = CommandAccess(rawValue: try readRPC()) else {
            throw RPCDecodingError.invalidValue(field: "access")
        }
        let isAllowedUnderReserve = try readRPCBool()
        let isAllowedDuringErasure = try readRPCBool()
        guard let attention = UnitAttentionRule(rawValue: try readRPC()) else {
            throw RPCDecodingError.invalidValue(field: "attention")
        }
        return CommandRules(
            access: access,
            isAllowedUnderReserve: isAllowedUnderReserve,
            isAllowedDuringErasure: isAllowedDuringErasure,
            attention: attention
        )
    }

    mutating func writeRPCRules(_ rules: CommandRules) {
        writeRPC(rules.access.rawValue)
        writeRPCBool(rules.isAllowedUnderReserve)
        writeRPCBool(rules.isAllowedDuringErasure)
        writeRPC(rules.attention.rawValue)
    }

    mutating func readRPCMode() throws(RPCDecodingError) -> ModeParameters {
        ModeParameters(
            isSoftwareWriteProtected: try readRPCBool(),
            isSenseInDescriptorFormat: try readRPCBool(),
            isExceptionReportingDisabled: try readRPCBool(),
            exceptionReportingMethod: try readRPC()
        )
    }

    mutating func writeRPCMode(_ mode: ModeParameters) {
        writeRPCBool(mode.isSoftwareWriteProtected)
        writeRPCBool(mode.isSenseInDescriptorFormat)
        writeRPCBool(mode.isExceptionReportingDisabled)
        writeRPC(mode.exceptionReportingMethod)
    }

    mutating func readRPCErasure() throws(RPCDecodingError) -> Erasure {
        guard let kind = Erasure.Kind(rawValue: try readRPC()) else {
            throw RPCDecodingError.invalidValue(field: "erasure")
        }
        let pattern = try readRPCData(maximumBytes: RPCMessageLimits.patternMaximumBytes)
        return Erasure(kind: kind, pattern: Array(pattern.readableBytesView), position: try readRPC())
    }

    mutating func writeRPCErasure(_ erasure: Erasure) {
        writeRPC(erasure.kind.rawValue)
        writeRPCData(ByteBuffer(bytes: erasure.pattern))
        writeRPC(erasure.position)
    }

    private mutating func readRPCReservationType() throws(RPCDecodingError) -> ReservationType {
        guard let type = ReservationType(rawValue: try readRPC()) else {
            throw RPCDecodingError.invalidValue(field: "reservation type")
        }
        return type
    }

    // MARK: Reservations

    mutating func readRPCReservations() throws(RPCDecodingError) -> PersistentReservations {
        var reservations = PersistentReservations()
        reservations.generation = try readRPC()
        reservations.registrations = try readRPCArray(
            minimumElementBytes: 22,
            maximumCount: Limits.registrationsMaximum
        ) { (b: inout ByteBuffer) throws(RPCDecodingError) in
            Registration(
                ports: try b.readRPCNexusPorts(),
                relativePortIdentifier: try b.readRPC(),
                key: try b.readRPCIdentifier()
            )
        }
        reservations.type = try readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
            try b.readRPCReservationType()
        }
        reservations.holder = try readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
            try b.readRPCNexusPorts()
        }
        return reservations
    }

    mutating func writeRPCReservations(_ reservations: PersistentReservations) {
        writeRPC(reservations.generation)
        writeRPCArray(reservations.registrations) {
            $0.writeRPCNexusPorts($1.ports)
            $0.writeRPC($1.relativePortIdentifier)
            $0.writeRPCIdentifier($1.key)
        }
        writeRPCOptional(reservations.type) { $0.writeRPC($1.rawValue) }
        writeRPCOptional(reservations.holder) { $0.writeRPCNexusPorts($1) }
    }

    private mutating func readRPCInitiatorPort() throws(RPCDecodingError) -> InitiatorPort {
        InitiatorPort(
            name: try readRPCString(maximumBytes: 255),
            isid: try readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCISID() }
        )
    }

    private mutating func writeRPCInitiatorPort(_ port: InitiatorPort) {
        writeRPCString(port.name, maximumBytes: 255)
        writeRPCOptional(port.isid) { $0.writeRPC($1) }
    }

    private mutating func readRPCTargetPort() throws(RPCDecodingError) -> TargetPort {
        TargetPort(portalGroupTag: try readRPC(), relativePortIdentifier: try readRPC())
    }

    private mutating func writeRPCTargetPort(_ port: TargetPort) {
        writeRPC(port.portalGroupTag)
        writeRPC(port.relativePortIdentifier)
    }

    private mutating func readRPCReservationAction() throws(RPCDecodingError) -> ReservationAction {
        let kind = try readRPC(UInt8.self)
        let key = try readRPCIdentifier(ReservationKey.self)
        switch kind {
        case 0:
            let new = try readRPCIdentifier(ReservationKey.self)
            let ignoresExisting = try readRPCBool()
            let isForAllPorts = try readRPCBool()
            return .register(
                key,
                new: new,
                ignoresExisting: ignoresExisting,
                others: try readRPCArray(
                    minimumElementBytes: 3,
                    maximumCount: RPCMessageLimits.registrationPortsMaximum
                ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCInitiatorPort() },
                targetPorts: try readRPCArray(
                    minimumElementBytes: 4,
                    maximumCount: RPCMessageLimits.registrationPortsMaximum
                ) { (b: inout ByteBuffer) throws(RPCDecodingError) in try b.readRPCTargetPort() },
                isForAllPorts: isForAllPorts
            )
        case 1: return .reserve(key, try readRPCReservationType())
        case 2: return .release(key, try readRPCReservationType())
        case 3: return .clear(key)
        case 4:
            return .preempt(
                key,
                try readRPCReservationType(),
                victim: try readRPCIdentifier(),
                aborts: try readRPCBool()
            )
        case 5:
            return .move(
                key,
                new: try readRPCIdentifier(),
                unregisters: try readRPCBool(),
                to: try readRPCInitiatorPort(),
                through: try readRPCTargetPort()
            )
        default: throw RPCDecodingError.invalidValue(field: "reservation action")
        }
    }

    private mutating func writeRPCReservationAction(_ action: ReservationAction) {
        func begin(_ kind: UInt8, _ key: ReservationKey) {
            writeRPC(kind)
            writeRPCIdentifier(key)
        }
        switch action {
        case .register(let key, let new, let ignoresExisting, let others, let targetPorts, let isForAllPorts):
            begin(0, key)
            writeRPCIdentifier(new)
            writeRPCBool(ignoresExisting)
            writeRPCBool(isForAllPorts)
            writeRPCArray(others) { $0.writeRPCInitiatorPort($1) }
            writeRPCArray(targetPorts) { $0.writeRPCTargetPort($1) }
        case .reserve(let key, let type):
            begin(1, key)
            writeRPC(type.rawValue)
        case .release(let key, let type):
            begin(2, key)
            writeRPC(type.rawValue)
        case .clear(let key): begin(3, key)
        case .preempt(let key, let type, let victim, let aborts):
            begin(4, key)
            writeRPC(type.rawValue)
            writeRPCIdentifier(victim)
            writeRPCBool(aborts)
        case .move(let key, let new, let unregisters, let initiator, let target):
            begin(5, key)
            writeRPCIdentifier(new)
            writeRPCBool(unregisters)
            writeRPCInitiatorPort(initiator)
            writeRPCTargetPort(target)
        }
    }

    // MARK: Actions and reports

    mutating func readRPCUnitAction() throws(RPCDecodingError) -> UnitAction {
        switch try readRPC(UInt8.self) {
        case 0: return .reservation(try readRPCReservationAction())
        case 1: return .reserve
        case 2: return .release
        case 3: return .modeSelect(try readRPCMode(), isSaved: try readRPCBool())
        case 4:
            guard let kind = IdentifyingInformationKind(rawValue: try readRPC()) else {
                throw RPCDecodingError.invalidValue(field: "identifying information")
            }
            let maximum =
                kind == .text ? Limits.identifyingTextMaximumBytes : Limits.identifyingInformationMaximumBytes
            return .identify(kind, Array(try readRPCData(maximumBytes: maximum).readableBytesView))
        case 5: return .erase(try readRPCErasure(), isImmediate: try readRPCBool())
        default: throw RPCDecodingError.invalidValue(field: "unit action")
        }
    }

    mutating func writeRPCUnitAction(_ action: UnitAction) {
        switch action {
        case .reservation(let action):
            writeRPC(UInt8(0))
            writeRPCReservationAction(action)
        case .reserve: writeRPC(UInt8(1))
        case .release: writeRPC(UInt8(2))
        case .modeSelect(let mode, let isSaved):
            writeRPC(UInt8(3))
            writeRPCMode(mode)
            writeRPCBool(isSaved)
        case .identify(let kind, let bytes):
            writeRPC(UInt8(4))
            writeRPC(kind.rawValue)
            writeRPCData(ByteBuffer(bytes: bytes))
        case .erase(let erasure, let isImmediate):
            writeRPC(UInt8(5))
            writeRPCErasure(erasure)
            writeRPCBool(isImmediate)
        }
    }

    private mutating func readRPCUnitState() throws(RPCDecodingError) -> LogicalUnitState {
        var state = LogicalUnitState()
        state.reservations = try readRPCReservations()
        state.reservedBy = try readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
            try b.readRPCIdentifier()
        }
        state.mode = try readRPCMode()
        state.savedMode = try readRPCMode()
        let information = try readRPCData(maximumBytes: Limits.identifyingInformationMaximumBytes)
        state.identifyingInformation = Array(information.readableBytesView)
        let text = try readRPCData(maximumBytes: Limits.identifyingTextMaximumBytes)
        state.identifyingText = Array(text.readableBytesView)
        state.erasure = try readRPCOptional { (b: inout ByteBuffer) throws(RPCDecodingError) in
            try b.readRPCErasure()
        }
        return state
    }

    private mutating func writeRPCUnitState(_ state: LogicalUnitState) {
        writeRPCReservations(state.reservations)
        writeRPCOptional(state.reservedBy) { $0.writeRPCIdentifier($1) }
        writeRPCMode(state.mode)
        writeRPCMode(state.savedMode)
        writeRPCData(ByteBuffer(bytes: state.identifyingInformation))
        writeRPCData(ByteBuffer(bytes: state.identifyingText))
        writeRPCOptional(state.erasure) { $0.writeRPCErasure($1) }
    }

    mutating func readRPCUnitReport() throws(RPCDecodingError) -> UnitReport {
        let revision = try readRPC(UInt64.self)
        let state = try readRPCUnitState()
        let attention = try readRPCOptional {
            (b: inout ByteBuffer) throws(RPCDecodingError) -> UnitAttention in
            guard let attention = UnitAttention(rawValue: try b.readRPC()) else {
                throw RPCDecodingError.invalidValue(field: "unit attention")
            }
            return attention
        }
        var counters = UnitCounters()
        counters.reads = try readRPC()
        counters.writes = try readRPC()
        counters.bytesRead = try readRPC()
        counters.bytesWritten = try readRPC()
        counters.mappedBytes = try readRPC()
        return UnitReport(revision: revision, state: state, attention: attention, counters: counters)
    }

    mutating func writeRPCUnitReport(_ report: UnitReport) {
        writeRPC(report.revision)
        writeRPCUnitState(report.state)
        writeRPCOptional(report.attention) { $0.writeRPC($1.rawValue) }
        writeRPC(report.counters.reads)
        writeRPC(report.counters.writes)
        writeRPC(report.counters.bytesRead)
        writeRPC(report.counters.bytesWritten)
        writeRPC(report.counters.mappedBytes)
    }
}
