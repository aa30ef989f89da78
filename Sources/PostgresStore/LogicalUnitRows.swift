import AshlarCore
import NIOCore
import Ownership

// The state of logical units as rows.

extension CommitPlan {
    /// Parts in the order of their volumes: two commits that are under way lock rows in the same order.
    private static func sorted(_ commits: [VolumeCommit]) -> [VolumeCommit] { commits.sorted { $0.volume < $1.volume } }

    /// The parts of a commit that change a logical unit.
    private static func changed(_ commits: [VolumeCommit]) -> [(part: VolumeCommit, unit: LogicalUnitState)] {
        sorted(commits).compactMap { part in part.unit.map { (part, $0) } }
    }

    static func units(_ commits: [VolumeCommit]) -> Call {
        let changed = changed(commits)
        var call = Call(Statements.writeUnits)
        func numbers(_ value: (VolumeCommit, LogicalUnitState) -> Int64) { call.add(array: changed.map(value)) }
        func documents(_ value: (LogicalUnitState) -> ByteBuffer) { call.add(array: changed.map { value($0.unit) }) }
        numbers { part, _ in Int64(part.volume) }
        numbers { part, _ in Int64(part.epoch) }
        numbers { Int64($1.reservations.generation) }
        numbers { Int64($1.reservations.type?.rawValue ?? 0) }
        numbers { $1.reservedBy.map { Int64($0) } ?? 0 }
        documents { ByteBuffer(string: $0.mode.document) }
        documents { ByteBuffer(string: $0.savedMode.document) }
        documents { ByteBuffer(bytes: $0.identifyingInformation) }
        documents { ByteBuffer(bytes: $0.identifyingText) }
        numbers { Int64($1.erasure?.kind.rawValue ?? 0) }
        numbers { Int64(clamping: $1.erasure?.position ?? 0) }
        documents { ByteBuffer(bytes: $0.erasure?.pattern ?? []) }
        return call
    }

    static func droppedRegistrations(_ commits: [VolumeCommit]) -> Call {
        let changed = changed(commits)
        return Call(
            Statements.dropRegistrations,
            arrays: changed.map { Int64($0.part.volume) },
            changed.map { Int64($0.part.epoch) }
        )
    }

    static func registrations(_ commits: [VolumeCommit]) -> Call {
        var numbers = [[Int64]](repeating: [], count: 8)
        var initiators: [ByteBuffer] = []
        for (part, unit) in changed(commits) {
            for (place, registration) in unit.reservations.registrations.enumerated() {
                let ports = registration.ports
                initiators.append(ByteBuffer(string: ports.initiatorName))
                let row = [
                    Int64(part.volume), Int64(part.epoch), Int64(truncatingIfNeeded: ports.isid),
                    Int64(ports.portalGroupTag), Int64(registration.relativePortIdentifier), Int64(registration.key),
                    ports == unit.reservations.holder ? 1 : 0, Int64(place),
                ]
                for (index, value) in row.enumerated() { numbers[index].append(value) }
            }
        }
        var call = Call(Statements.writeRegistrations)
        call.add(array: numbers[0])
        call.add(array: numbers[1])
        call.add(array: initiators)
        for column in numbers[2...] { call.add(array: column) }
        return call
    }

    static func attentions(_ commits: [VolumeCommit]) -> Call {
        var columns = [[Int64]](repeating: [], count: 5)
        var codes: [Int64] = []
        for part in sorted(commits) {
            for entry in part.attentions {
                let first = Int64(codes.count) + 1
                codes += entry.attentions.map { Int64($0.rawValue) }
                let row = [Int64(part.volume), Int64(part.epoch), Int64(entry.nexus), first, Int64(codes.count)]
                for (index, value) in row.enumerated() { columns[index].append(value) }
            }
        }
        var call = Call(Statements.setAttentions)
        for column in columns { call.add(array: column) }
        call.add(array: codes)
        return call
    }
}

extension CommitPlan {
    static func told(_ commits: [VolumeCommit]) -> Call {
        var columns = Columns(4)
        for part in sorted(commits) {
            guard let told = part.told else { continue }
            columns.add(part, Int64(told.sizeBytes), told.isReadOnly ? 1 : 0)
        }
        return columns.call(Statements.setTold)
    }
}

extension ModeParameters {
    /// The document of `logical_units.mode`.
    fileprivate var document: String {
        var members: [String] = []
        if isSoftwareWriteProtected { members.append("\"SWP\":true") }
        if isSenseInDescriptorFormat { members.append("\"DSense\":true") }
        if isExceptionReportingDisabled { members.append("\"DExcpt\":true") }
        if exceptionReportingMethod != 0 { members.append("\"MRIE\":\(exceptionReportingMethod)") }
        return "{\(members.joined(separator: ","))}"
    }
}

extension QueryResult {
    /// The state of a logical unit, from the row of ``Statements/logicalUnit``, if there is one, and those of
    /// ``Statements/registrations``.
    func logicalUnit(registrations: QueryResult) throws(StoreFailure) -> LogicalUnitState {
        var unit = LogicalUnitState()
        guard count == 1 else { return unit }
        unit.reservations.generation = try exactly(0, 0, as: UInt32.self)
        unit.reservations.type = ReservationType(rawValue: try exactly(0, 1, as: UInt8.self))
        let reservedBy = try unsigned(0, 2)
        unit.reservedBy = reservedBy == 0 ? nil : NexusNumber(reservedBy)
        unit.mode = try mode(at: 3)
        unit.savedMode = try mode(at: 7)
        unit.identifyingInformation = [UInt8](bytes(0, 11))
        unit.identifyingText = [UInt8](bytes(0, 12))
        if let kind = Erasure.Kind(rawValue: try exactly(0, 13, as: UInt8.self)) {
            unit.erasure = Erasure(kind: kind, pattern: [UInt8](bytes(0, 15)), position: try unsigned(0, 14))
        }
        for row in 0..<registrations.count {
            let registration = try registrations.registration(row)
            unit.reservations.registrations.append(registration)
            if try registrations.bool(row, 5) { unit.reservations.holder = registration.ports }
        }
        return unit
    }

    /// What nexuses know of the description, from the row of ``Statements/logicalUnit``.
    func told() throws(StoreFailure) -> ToldDescription? {
        guard count == 1, !isNull(0, 16) else { return nil }
        return ToldDescription(sizeBytes: try unsigned(0, 16), isReadOnly: try bool(0, 17))
    }

    private func mode(at column: Int) throws(StoreFailure) -> ModeParameters {
        ModeParameters(
            isSoftwareWriteProtected: try bool(0, column),
            isSenseInDescriptorFormat: try bool(0, column + 1),
            isExceptionReportingDisabled: try bool(0, column + 2),
            exceptionReportingMethod: try exactly(0, column + 3, as: UInt8.self)
        )
    }

    private func registration(_ row: Int) throws(StoreFailure) -> Registration {
        Registration(
            ports: InitiatorTargetNexus(
                initiatorName: string(row, 0),
                isid: try unsigned(row, 1),
                portalGroupTag: try exactly(row, 2, as: UInt16.self)
            ),
            relativePortIdentifier: try exactly(row, 3, as: UInt16.self),
            key: ReservationKey(UInt64(bitPattern: try int(row, 4)))
        )
    }

    /// The unit attention conditions of a column; numbers of a later release are left out.
    func attentions(_ row: Int, _ column: Int) throws(StoreFailure) -> [UnitAttention] {
        try ints(row, column).compactMap { UInt8(exactly: $0).flatMap(UnitAttention.init) }
    }
}
