/// The bytes of a command, with reads that cannot go beyond its end (SPC-5, 4.2).
///
/// The transport may hand over more bytes than the operation code calls for (iSCSI pads to 16): those are ignored.
struct CommandDescriptorBlock: FieldReading, Sendable, Hashable {
    /// The bytes as they came.
    let bytes: [UInt8]

    /// Wraps bytes as they came; any number is accepted, and judged when the command is planned.
    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// OPERATION CODE; 0 where there is no byte at all.
    var operationCode: UInt8 { self[0] }

    /// Whether the CDB has the variable length format (SPC-5, 4.2.3).
    var isVariableLength: Bool { operationCode == 0x7F }

    /// SERVICE ACTION: byte 1, bits 4 to 0, or bytes 8 and 9 of a variable length CDB.
    var serviceAction: UInt16 {
        isVariableLength ? UInt16(truncatingIfNeeded: bigEndian(at: 8, count: 2)) : UInt16(self[1] & 0x1F)
    }

    /// The length that the CDB claims: from the group of its operation code, or from its own field; `nil` for vendor
    /// specific and reserved groups.
    var nominalLength: Int? {
        switch operationCode >> 5 {
        case 0: 6
        case 1, 2: 10
        case 3: isVariableLength ? Int(self[7]) + 8 : nil
        case 4: 16
        case 5: 12
        default: nil
        }
    }
}
