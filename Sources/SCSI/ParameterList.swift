import NIOCore

/// Bytes with reads of fields that cannot go beyond their end.
protocol FieldReading {
    /// The bytes.
    var bytes: [UInt8] { get }
}

extension FieldReading {
    /// The byte at an offset; 0 beyond the end.
    subscript(offset: Int) -> UInt8 {
        offset >= 0 && offset < bytes.count ? bytes[offset] : 0
    }

    /// Up to eight bytes as one number, most significant first; bytes beyond the end are 0.
    func bigEndian(at offset: Int, count: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in offset..<(offset + count) {
            value = value << 8 | UInt64(self[index])
        }
        return value
    }

    /// One bit of a byte.
    func isSet(byte: Int, bit: UInt8) -> Bool {
        self[byte] >> bit & 1 == 1
    }
}

/// The bytes of a parameter list.
struct ParameterList: FieldReading, Sendable {
    /// The bytes, no more of them than PARAMETER LIST LENGTH says.
    let bytes: [UInt8]

    /// Number of bytes.
    var count: Int { bytes.count }

    /// Refuses ones in bits that are reserved or not supported.
    ///
    /// - Throws: INVALID FIELD IN PARAMETER LIST with the most significant of them.
    func refuse(_ mask: UInt8, ofByte offset: Int) throws(SCSIError) {
        let wrong = self[offset] & mask
        guard wrong == 0 else {
            throw SCSIError(.invalidFieldInParameterList(byte: offset, bit: UInt8(7 - wrong.leadingZeroBitCount)))
        }
    }
}

extension CommandContext {
    /// The parameter list: as many bytes of the data-out as PARAMETER LIST LENGTH says; what follows them is ignored.
    ///
    /// - Throws: PARAMETER LIST LENGTH ERROR where the initiator sent fewer.
    func parameterList(count: UInt64) throws(SCSIError) -> ParameterList {
        guard count <= UInt64(dataOutCount) else { throw SCSIError(.parameterListLengthError) }
        let list = dataOut.flatMap { $0.getBytes(at: $0.readerIndex, length: Int(count)) }
        return ParameterList(bytes: list ?? [])
    }
}
