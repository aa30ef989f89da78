import NIOCore

/// The bytes of a parameter list, with reads that cannot go beyond its end.
struct ParameterList: Sendable {
    /// The bytes, no more of them than PARAMETER LIST LENGTH says.
    let bytes: [UInt8]

    /// Number of bytes.
    var count: Int { bytes.count }

    /// The byte at an offset; 0 beyond the end.
    subscript(offset: Int) -> UInt8 {
        offset >= 0 && offset < bytes.count ? bytes[offset] : 0
    }

    /// Up to eight bytes as one number, most significant first; bytes beyond the end are 0.
    func bigEndian(at offset: Int, count: Int) -> UInt64 {
        (offset..<(offset + count)).reduce(0) { value, index in value << 8 | UInt64(self[index]) }
    }

    /// One bit of a byte.
    func isSet(byte: Int, bit: UInt8) -> Bool {
        self[byte] >> bit & 1 == 1
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
