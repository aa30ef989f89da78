import AshlarCore

/// TransportIDs of the iSCSI protocol (SPC-5, 7.6.4.6): how PERSISTENT RESERVE IN and OUT name initiator ports.
///
/// Four bytes of header (TPID FORMAT in bits 7 and 6 and PROTOCOL IDENTIFIER in bits 3 to 0 of byte 0, ADDITIONAL
/// LENGTH in bytes 2 and 3), then text that ends with a zero byte and is filled with zeros: in format 00b the name of
/// an initiator, in format 01b that of one of its ports, `name,i,0x` and the ISID in hexadecimal digits.
enum TransportID {
    /// PROTOCOL IDENTIFIER of iSCSI (SPC-5, 7.6.1).
    static let protocolIdentifier: UInt8 = 0x5
    /// What stands between a name and an ISID.
    static let separator = ",i,0x"
    /// Bytes of the header.
    static let headerBytes = 4
    /// Smallest ADDITIONAL LENGTH.
    static let additionalMinimumBytes = 20
    /// Longest iSCSI name (RFC 7143, 4.2.7.1).
    static let nameMaximumBytes = 223
    /// Hexadecimal digits of an ISID.
    static let isidMaximumDigits = 12

    /// The TPID FORMATs.
    private enum Format: UInt8 {
        /// All ports of an initiator.
        case device = 0
        /// One port.
        case port = 1
    }

    // MARK: Encoding

    /// The TransportID, format 01b, of the initiator port of a nexus.
    static func encode(_ ports: InitiatorTargetNexus) -> [UInt8] {
        let isid = (0..<6).reversed().map { UInt8(truncatingIfNeeded: ports.isid >> (8 * $0)) }
        let name = ports.initiatorName.utf8.prefix(nameMaximumBytes)
        var text = Array(name) + Array((separator + hexadecimal(isid)).utf8)
        let count = max(additionalMinimumBytes, (text.count + 4) / 4 * 4)
        text += [UInt8](repeating: 0, count: count - text.count)
        return [Format.port.rawValue << 6 | protocolIdentifier, 0x00, UInt8(count >> 8), UInt8(count & 0xFF)] + text
    }

    // MARK: Decoding

    /// Reads the TransportID at `offset`, which then is that of the byte behind it.
    ///
    /// - Throws: PARAMETER LIST LENGTH ERROR where it goes beyond `end`, else INVALID FIELD IN PARAMETER LIST.
    static func decode(_ list: ParameterList, at offset: inout Int, end: Int) throws(SCSIError) -> InitiatorPort {
        guard end - offset >= headerBytes else { throw SCSIError(.parameterListLengthError) }
        guard list[offset] & 0x0F == protocolIdentifier else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset, bit: 3))
        }
        guard let format = Format(rawValue: list[offset] >> 6) else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset, bit: 7))
        }
        try list.refuse(0x30, ofByte: offset)
        try list.refuse(0xFF, ofByte: offset + 1)
        let length = Int(list.bigEndian(at: offset + 2, count: 2))
        guard length >= additionalMinimumBytes, length % 4 == 0 else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset + 2, bit: 7))
        }
        let start = offset + headerBytes
        guard length <= end - start else { throw SCSIError(.parameterListLengthError) }
        let port = try initiatorPort(list.bytes[start..<(start + length)], format)
        offset = start + length
        return port
    }

    /// The port that the text names. The first zero byte ends it, whatever follows.
    private static func initiatorPort(_ field: ArraySlice<UInt8>, _ format: Format) throws(SCSIError) -> InitiatorPort {
        let invalidName = SCSIError(.invalidFieldInParameterList(byte: field.startIndex, bit: 7))
        guard
            let terminator = field.firstIndex(of: 0),
            let text = String(validating: field[..<terminator], as: UTF8.self)
        else {
            throw invalidName
        }
        switch format {
        case .device:
            guard isName(text.utf8.count) else { throw invalidName }
            return InitiatorPort(name: text, isid: nil)
        case .port:
            let parts = text.split(separator: separator, maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, isName(parts[0].utf8.count) else { throw invalidName }
            let digits = parts[1]
            guard
                (1...isidMaximumDigits).contains(digits.utf8.count), digits.utf8.allSatisfy(isHexadecimalDigit),
                let isid = UInt64(digits, radix: 16)
            else {
                let place = field.startIndex + parts[0].utf8.count + separator.utf8.count
                throw SCSIError(.invalidFieldInParameterList(byte: place, bit: 7))
            }
            return InitiatorPort(name: String(parts[0]), isid: isid)
        }
    }

    private static func isName(_ count: Int) -> Bool { (1...nameMaximumBytes).contains(count) }

    private static func isHexadecimalDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
            UInt8(ascii: "A")...UInt8(ascii: "F"):
            true
        default: false
        }
    }
}
