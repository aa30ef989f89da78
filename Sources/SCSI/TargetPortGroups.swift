import AshlarCore
import NIOCore

extension CommandSet {
    /// REPORT TARGET PORT GROUPS (SPC-5, 6.36). There is no SET TARGET PORT GROUPS: states change by themselves.
    static let targetPortGroupCommands: [SupportedCommand] = [
        SupportedCommand(
            [0xA3, 0xEA, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0x00, 0x00],
            serviceAction: 0x0A,
            rules: .discovery,
            transfer: ReportCommands.transfer,
            plan: TargetPortGroups.plan
        )
    ]
}

/// REPORT TARGET PORT GROUPS: both formats of its parameter data.
enum TargetPortGroups {
    /// STATUS CODE: altered by implicit asymmetric logical unit access (SPC-5, 6.36).
    static let implicitStatus: UInt8 = 0x02
    /// T_SUP, S_SUP, AN_SUP and AO_SUP: transitioning, standby, active/non-optimized and active/optimized.
    static let supportedStates: UInt8 = 0x87
    /// U_SUP.
    static let unavailableSupported: UInt8 = 0x08

    static func plan(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let format = context.command[1] >> 5
        guard format <= 0b001 else { throw SCSIError(.invalidFieldInCDB(byte: 1, bit: 7)) }
        return .targetPortGroups(
            TargetPortGroupsQuery(
                isExtended: format == 0b001,
                allocationLength: context.command.bigEndian(at: 6, count: 4)
            )
        )
    }
}

extension TargetPortGroupsQuery {
    /// The answer, from the groups and their states. No group is preferred (PREF).
    ///
    /// A state that is told is supported: U_SUP is one where a group is unavailable.
    public func response(_ groups: [TargetPortGroup]) -> SCSIResponse {
        let hasUnavailable = groups.contains { $0.state == .unavailable }
        let supported =
            TargetPortGroups.supportedStates | (hasUnavailable ? TargetPortGroups.unavailableSupported : 0)
        var body = ByteBuffer()
        if isExtended {
            body.writeBytes([0x10, SCSILimits.implicitTransitionSeconds, 0x00, 0x00])
        }
        for group in groups {
            let ports = group.ports.prefix(Int(UInt8.max))
            body.writeBytes([group.state.rawValue, supported])
            body.writeInteger(group.tag)
            body.writeBytes([0x00, TargetPortGroups.implicitStatus, 0x00, UInt8(ports.count)])
            for port in ports {
                body.writeInteger(UInt16(0))
                body.writeInteger(port)
            }
        }
        var data = ByteBuffer()
        data.writeInteger(UInt32(clamping: body.readableBytes))
        data.writeImmutableBuffer(body)
        return .good(data.cut(toAllocationLength: allocationLength))
    }
}
