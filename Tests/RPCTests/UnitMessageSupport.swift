import AshlarCore

@testable import RPC

// The vectors of messages about logical units.
extension MessageVector {
    static let units = blockCommands + checks + reservationChanges + otherChanges

    private static let key = ReservationKey(0x8000_0000_0000_0001)
    private static let ports = InitiatorTargetNexus(
        initiatorName: initiator,
        isid: 0x0002_3D00_0001,
        portalGroupTag: 1
    )
    private static let port = TargetPort(portalGroupTag: 1, relativePortIdentifier: 7)
    private static let otherPort = TargetPort(portalGroupTag: 2, relativePortIdentifier: 8)
    private static let otherInitiator = InitiatorPort(name: "iqn.1993-08.org.debian:01:b", isid: 0x0002_3D00_0002)
    private static let pattern = [UInt8](repeating: 0xA5, count: 512)
    private static let text = Array("Ärchiv".utf8)

    private static let blockCommands = [
        MessageVector(
            "or-write",
            0x25,
            OrWriteCommand(WriteCommand(header: header, offset: 8_192, checksums: [first, second]))
        ),
        MessageVector(
            "map-status",
            0x26,
            MapStatusCommand(header: header, range: ByteRange(offset: 1 << 20, count: 8_192), runsMaximum: 256)
        ),
        MessageVector(
            "map-status-answer",
            0x26,
            MapStatusCommand.Answer(
                stamp: stamp,
                runs: [
                    MappedRun(blocks: BlockRange(first: BlockID(256), count: 3), isMapped: true),
                    MappedRun(blocks: BlockRange(first: BlockID(259), count: 1 << 20), isMapped: false),
                ]
            )
        ),
    ]

    private static let checks = [
        MessageVector(
            "check-unit",
            0x27,
            CheckUnit(
                header: header,
                rules: CommandRules(access: .any, isAllowedDuringErasure: true),
                wantsReservations: true
            )
        ),
        MessageVector(
            "check-unit-sense",
            0x27,
            CheckUnit(
                header: header,
                rules: CommandRules(
                    access: .any,
                    isAllowedUnderReserve: true,
                    isAllowedDuringErasure: true,
                    attention: .deliver
                ),
                wantsReservations: false
            )
        ),
        MessageVector(
            "check-unit-answer",
            0x27,
            CheckUnit.Answer(
                stamp: stamp,
                report: UnitReport(
                    revision: 9,
                    state: LogicalUnitState(),
                    attention: nil,
                    counters: UnitCounters()
                )
            )
        ),
        MessageVector("check-unit-answer-all", 0x27, CheckUnit.Answer(stamp: stamp, report: fullReport)),
    ]

    private static var fullReport: UnitReport {
        var state = LogicalUnitState()
        state.reservations.generation = 0xFFFF_FFFE
        state.reservations.registrations = [
            Registration(ports: ports, relativePortIdentifier: 7, key: key),
            Registration(
                ports: InitiatorTargetNexus(
                    initiatorName: "iqn.2026-01.io.ashlar:é",
                    isid: 0xFFFF_FFFF_FFFF,
                    portalGroupTag: 0xFFFF
                ),
                relativePortIdentifier: 8,
                key: ReservationKey(2)
            ),
        ]
        state.reservations.type = .writeExclusiveRegistrantsOnly
        state.reservations.holder = ports
        state.reservedBy = NexusNumber(3)
        state.mode = ModeParameters(
            isSoftwareWriteProtected: true,
            isExceptionReportingDisabled: true,
            exceptionReportingMethod: 6
        )
        state.savedMode = ModeParameters(isSenseInDescriptorFormat: true, exceptionReportingMethod: 3)
        state.identifyingInformation = [UInt8](0xC0...0xC7)
        state.identifyingText = text
        state.erasure = Erasure(kind: .overwrite, pattern: pattern, position: 1 << 20)
        var counters = UnitCounters()
        counters.reads = 70
        counters.writes = 80
        counters.bytesRead = 71_680
        counters.bytesWritten = 81_920
        counters.mappedBytes = 4_096_000
        return UnitReport(revision: 9, state: state, attention: .reservationsReleased, counters: counters)
    }

    private static func change(_ name: String, _ action: UnitAction) -> MessageVector {
        MessageVector("change-unit-\(name)", 0x28, ChangeUnit(header: header, action: action))
    }

    private static let reservationChanges = [
        change(
            "register",
            .reservation(
                .register(
                    ReservationKey(0),
                    new: key,
                    ignoresExisting: false,
                    others: [otherInitiator, InitiatorPort(name: "iqn.1993-08.org.debian:01:c", isid: nil)],
                    targetPorts: [port, otherPort],
                    isForAllPorts: true
                )
            )
        ),
        change(
            "unregister",
            .reservation(
                .register(
                    ReservationKey(5),
                    new: ReservationKey(0),
                    ignoresExisting: true,
                    others: [],
                    targetPorts: [port]
                )
            )
        ),
        change("reserve", .reservation(.reserve(key, .writeExclusiveRegistrantsOnly))),
        change("release", .reservation(.release(key, .exclusiveAccessAllRegistrants))),
        change("clear", .reservation(.clear(key))),
        change("preempt", .reservation(.preempt(key, .writeExclusive, victim: ReservationKey(2), aborts: true))),
        change(
            "move",
            .reservation(
                .move(key, new: ReservationKey(3), unregisters: true, to: otherInitiator, through: otherPort)
            )
        ),
    ]

    private static let otherChanges = [
        change("reserve-6", .reserve),
        change("release-6", .release),
        change(
            "mode-select",
            .modeSelect(
                ModeParameters(
                    isSoftwareWriteProtected: true,
                    isSenseInDescriptorFormat: true,
                    exceptionReportingMethod: 4
                ),
                isSaved: true
            )
        ),
        change("identify", .identify(.peripheral, [UInt8](0..<64))),
        change("identify-text", .identify(.text, text)),
        change("overwrite", .erase(Erasure(kind: .overwrite, pattern: pattern), isImmediate: true)),
        change("format", .erase(Erasure(kind: .format), isImmediate: false)),
        MessageVector("manage-unit", 0x29, ManageUnit(header: header, function: .logicalUnitReset)),
    ]
}
