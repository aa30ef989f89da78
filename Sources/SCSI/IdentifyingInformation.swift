import AshlarCore
import NIOCore

extension CommandSet {
    /// REPORT IDENTIFYING INFORMATION and SET IDENTIFYING INFORMATION (SPC-5, clause 6).
    static let identifyingInformationCommands: [SupportedCommand] = [
        SupportedCommand(
            [0xA3, 0x05, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0x00],
            serviceAction: 0x05,
            rules: .any,
            transfer: ReportCommands.transfer,
            plan: IdentifyingInformation.report
        ),
        SupportedCommand(
            [0xA4, 0x06, 0x00, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0x00],
            serviceAction: 0x06,
            rules: .write,
            transfer: { command, _ in .dataOut(command.bigEndian(at: 6, count: 4)) },
            plan: IdentifyingInformation.set
        ),
    ]
}

/// The decisions of the commands on identifying information: INFORMATION TYPE is bits 7 to 1 of byte 10.
enum IdentifyingInformation {
    /// INFORMATION TYPE that asks which types there are.
    private static let supportedTypes: UInt8 = 0x7F
    /// All types, ascending.
    private static let kinds: [IdentifyingInformationKind] = [.peripheral, .text]

    private static func type(_ context: CommandContext) -> UInt8 { context.command[10] >> 1 }

    private static func kind(_ context: CommandContext) throws(SCSIError) -> IdentifyingInformationKind {
        guard let kind = IdentifyingInformationKind(rawValue: type(context)) else {
            throw SCSIError(.invalidFieldInCDB(byte: 10, bit: 7))
        }
        return kind
    }

    /// REPORT IDENTIFYING INFORMATION: two reserved bytes, a length, and the information or the list of types.
    static func report(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        var body = ByteBuffer()
        if type(context) == supportedTypes {
            for kind in kinds {
                body.writeBytes([kind.rawValue << 1, 0x00])
                body.writeInteger(UInt16(kind.maximumBytes))
            }
        } else {
            let kind = try kind(context)
            body.writeBytes(context.unit.identifyingInformation(kind).prefix(kind.maximumBytes))
        }
        var data = ByteBuffer()
        data.writeInteger(UInt16(0))
        data.writeInteger(UInt16(body.readableBytes))
        data.writeImmutableBuffer(body)
        return .complete(.good(data.cut(toAllocationLength: context.command.bigEndian(at: 6, count: 4))))
    }

    /// SET IDENTIFYING INFORMATION: an empty list removes the information. Text is UTF-8 and ends with its only zero
    /// byte.
    static func set(_ context: CommandContext) throws(SCSIError) -> SCSICommandPlan {
        let kind = try kind(context)
        let length = context.command.bigEndian(at: 6, count: 4)
        guard length <= kind.maximumBytes else { throw SCSIError(.invalidFieldInCDB(byte: 6, bit: 7)) }
        let bytes = try context.parameterList(count: length).bytes
        if kind == .text, !bytes.isEmpty {
            let isTerminated = bytes.firstIndex(of: 0) == bytes.count - 1
            guard isTerminated, String(validating: bytes, as: UTF8.self) != nil else {
                throw SCSIError(.invalidFieldInParameterList(byte: 0, bit: 7))
            }
        }
        return .setIdentifyingInformation(kind, bytes)
    }
}

extension IdentifyingInformationKind {
    /// Most bytes of the information.
    var maximumBytes: Int {
        switch self {
        case .peripheral: Limits.identifyingInformationMaximumBytes
        case .text: Limits.identifyingTextMaximumBytes
        }
    }
}

extension LogicalUnit {
    /// The information of a kind.
    fileprivate func identifyingInformation(_ kind: IdentifyingInformationKind) -> [UInt8] {
        switch kind {
        case .peripheral: identifyingInformation
        case .text: identifyingText
        }
    }
}
