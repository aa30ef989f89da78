public import AshlarCore
public import NIOCore

/// Everything that the decision on one command may look at.
struct CommandContext: Sendable {
    /// The command; at least as long as its table entry says, reserved bits zero.
    let command: CommandDescriptorBlock
    /// The LUN as it came.
    let lun: UInt64
    /// All data-out that the initiator sent.
    let dataOut: ByteBuffer?
    /// The logical unit that LUN 0 is.
    let unit: LogicalUnit
    /// What REQUEST SENSE has to report.
    let pendingSense: SenseData?
    /// The table.
    let commandSet: CommandSet

    /// Whether the LUN is that of the logical unit.
    var isUnitSelected: Bool { CommandSet.isSupported(lun: lun) }
}

extension CommandRules {
    /// INQUIRY, REPORT LUNS: done whatever is the matter (SPC-5, 5.14.1; SAM-6, 5.14.5).
    public static let information = CommandRules(
        access: .any,
        isAllowedUnderReserve: true,
        isAllowedDuringErasure: true,
        attention: .bypass
    )
    /// REQUEST SENSE.
    static let sense = CommandRules(
        access: .any,
        isAllowedUnderReserve: true,
        isAllowedDuringErasure: true,
        attention: .deliver
    )
    /// REPORT SUPPORTED OPERATION CODES, REPORT TARGET PORT GROUPS: they tell of the device, whatever its state.
    static let discovery = CommandRules(access: .any, isAllowedUnderReserve: true, isAllowedDuringErasure: true)
    /// Commands that a RESERVE of another nexus does not keep out.
    static let underReserve = CommandRules(access: .any, isAllowedUnderReserve: true)
    /// LOG SENSE, PERSISTENT RESERVE IN: they look at no block.
    static let duringErasure = CommandRules(access: .any, isAllowedDuringErasure: true)
    /// Commands that no persistent reservation keeps out.
    static let any = CommandRules(access: .any)
    /// Commands that a persistent reservation for exclusive access keeps out.
    static let read = CommandRules(access: .read)
    /// Commands that every persistent reservation keeps out.
    static let write = CommandRules(access: .write)
}

/// One entry of the table of commands.
///
/// It drives the check of reserved bits, REPORT SUPPORTED OPERATION CODES, residual counts and the decision itself: a command
/// is added to the device server by an entry in a list, and nowhere else. A class, since each command of an initiator finds its
/// entry anew.
final class SupportedCommand: Sendable {
    typealias Plan = @Sendable (CommandContext) throws(SCSIError) -> SCSICommandPlan
    typealias Transfer = @Sendable (CommandDescriptorBlock, LogicalUnit) -> DataTransfer
    typealias Ruling = @Sendable (CommandDescriptorBlock) -> CommandRules

    /// CDB USAGE DATA (SPC-5, 6.35.3): the operation code, then a one for each bit that is looked at, with the service action
    /// in its field. As long as the CDB.
    let usage: [UInt8]
    /// `nil` where the operation code alone names the command.
    let serviceAction: UInt16?
    /// Whether LUNs without a logical unit answer it too.
    let isForAnyLUN: Bool
    /// What reservations, erasures and unit attention conditions do to it.
    let rules: CommandRules
    /// The rules where they depend on the CDB; `nil` where they do not.
    let ruling: Ruling?
    /// Whether its time does not grow with the volume or the list it gets, so that command timeouts can be told.
    let isTimeBounded: Bool
    /// The bytes that the CDB implies.
    let transfer: Transfer
    /// The decision.
    let plan: Plan
    /// The bits that may be ones.
    let permitted: [UInt8]

    init(
        _ usage: [UInt8],
        serviceAction: UInt16? = nil,
        isForAnyLUN: Bool = false,
        rules: CommandRules,
        ruling: Ruling? = nil,
        isTimeBounded: Bool = true,
        transfer: @escaping Transfer = { _, _ in .none },
        plan: @escaping Plan
    ) {
        self.usage = usage
        self.serviceAction = serviceAction
        self.isForAnyLUN = isForAnyLUN
        self.rules = rules
        self.ruling = ruling
        self.isTimeBounded = isTimeBounded
        self.transfer = transfer
        self.plan = plan
        var permitted = usage
        permitted[0] = 0xFF
        if serviceAction != nil {
            if usage[0] == 0x7F {
                permitted[8] = 0xFF
                permitted[9] = 0xFF
            } else {
                permitted[1] |= 0x1F
            }
        }
        self.permitted = permitted
    }

    var operationCode: UInt8 { usage[0] }

    /// Refuses a CDB that is too short or has a one where the standard has a reserved, obsolete or unsupported bit.
    func check(_ command: CommandDescriptorBlock) throws(SCSIError) {
        guard command.bytes.count >= usage.count else {
            throw SCSIError(.invalidFieldInCDB(byte: command.bytes.count))
        }
        for (offset, mask) in permitted.enumerated() {
            let wrong = command[offset] & ~mask
            if wrong != 0 {
                throw SCSIError(.invalidFieldInCDB(byte: offset, bit: UInt8(7 - wrong.leadingZeroBitCount)))
            }
        }
    }
}

/// The device server of a block volume: decodes commands and decides everything that needs no back end.
///
/// A value without state; it may be used from any thread.
public struct CommandSet: Sendable {
    /// All entries, by operation code and service action.
    let commands: [SupportedCommand]
    /// For each operation code, where its entries stand in `commands`.
    private let positions: [Range<Int>]

    /// A device server that knows these commands.
    init(_ list: [SupportedCommand]) {
        let sorted = list.sorted {
            ($0.operationCode, $0.serviceAction ?? 0) < ($1.operationCode, $1.serviceAction ?? 0)
        }
        var positions = [Range<Int>](repeating: 0..<0, count: 256)
        for (index, command) in sorted.enumerated() {
            let known = positions[Int(command.operationCode)]
            positions[Int(command.operationCode)] = known.isEmpty ? index..<(index + 1) : known.lowerBound..<(index + 1)
        }
        self.commands = sorted
        self.positions = positions
    }

    /// All commands of a direct access block device (SBC-4) that are supported.
    public static let block = CommandSet(
        [
            primaryCommands, reportCommands, mediumCommands, provisioningCommands, compoundWriteCommands,
            lbaStatusCommands,
            mediumStateCommands, erasureCommands, extendedCopyCommands, copyResultCommands, reservationCommands,
            modeSelectCommands, logCommands, targetPortGroupCommands, identifyingInformationCommands,
        ].flatMap(\.self)
    )

    /// The entries of an operation code.
    func entries(operationCode: UInt8) -> ArraySlice<SupportedCommand> {
        commands[positions[Int(operationCode)]]
    }

    /// Whether a LUN, eight bytes as they came, names the one logical unit of a target: LUN 0 in the peripheral or the flat
    /// addressing method (SAM-6, 4.7.7).
    public static func isSupported(lun: UInt64) -> Bool {
        lun == 0 || lun == 0x4000_0000_0000_0000
    }

    /// Decides what is to be done for a command, after all of its data-out has arrived.
    ///
    /// - Parameters:
    ///   - cdb: the bytes of the CDB; bytes beyond its length are ignored.
    ///   - lun: the LUN, eight bytes as they came.
    ///   - dataOut: what the initiator sent; it may be shorter or longer than what the CDB implies.
    ///   - unit: the logical unit that LUN 0 is.
    ///   - pendingSense: what REQUEST SENSE is to report.
    public func plan(
        cdb: [UInt8],
        lun: UInt64,
        dataOut: ByteBuffer?,
        unit: LogicalUnit,
        pendingSense: SenseData? = nil
    ) -> SCSICommandPlan {
        let command = CommandDescriptorBlock(cdb)
        do throws(SCSIError) {
            let entry = try entry(for: command, lun: lun)
            try entry.check(command)
            let context = CommandContext(
                command: command,
                lun: lun,
                dataOut: dataOut,
                unit: unit,
                pendingSense: pendingSense,
                commandSet: self
            )
            return try entry.plan(context)
        } catch {
            return .complete(.checkCondition(error.sense))
        }
    }

    /// The bytes that a CDB implies, and their direction; `.none` where the command is refused anyway.
    public func transfer(cdb: [UInt8], lun: UInt64, unit: LogicalUnit) -> DataTransfer {
        let command = CommandDescriptorBlock(cdb)
        guard let entry = try? entry(for: command, lun: lun), command.bytes.count >= entry.usage.count else {
            return .none
        }
        return entry.transfer(command, unit)
    }

    /// What reservations, erasures and unit attention conditions do to a command; those of a command that is kept out by
    /// nothing where it is refused anyway, or names a LUN that the logical unit's state has nothing to do with.
    public func rules(cdb: [UInt8], lun: UInt64) -> CommandRules {
        let command = CommandDescriptorBlock(cdb)
        guard CommandSet.isSupported(lun: lun), let entry = try? entry(for: command, lun: lun) else {
            return .information
        }
        return entry.ruling?(command) ?? entry.rules
    }

    private func entry(for command: CommandDescriptorBlock, lun: UInt64) throws(SCSIError) -> SupportedCommand {
        let isUnitSelected = CommandSet.isSupported(lun: lun)
        let known = entries(operationCode: command.operationCode)
        guard let first = known.first, !command.bytes.isEmpty else {
            throw SCSIError(isUnitSelected ? .invalidOperationCode : .logicalUnitNotSupported)
        }
        let match = first.serviceAction == nil ? first : known.first { $0.serviceAction == command.serviceAction }
        guard isUnitSelected || match?.isForAnyLUN == true else {
            throw SCSIError(.logicalUnitNotSupported)
        }
        guard let match else {
            throw SCSIError(
                command.isVariableLength ? .invalidFieldInCDB(byte: 8, bit: 7) : .invalidFieldInCDB(byte: 1, bit: 4)
            )
        }
        return match
    }
}
