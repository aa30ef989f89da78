import CChecksum

extension Checksum {
    /// The CRC-32C of `bytes` (RFC 7143, 13.1; the same polynomial serves iSCSI digests and blocks).
    @inlinable
    public init(of bytes: UnsafeRawBufferPointer) {
        self.init(crc32c(0, bytes))
    }

    /// The CRC-32C of a run that continues one whose CRC-32C this is.
    public func continued(by bytes: UnsafeRawBufferPointer) -> Checksum {
        Checksum(crc32c(rawValue, bytes))
    }

    /// The CRC-32C of a concatenation, from those of its parts and the length of the second in bytes.
    public static func combined(_ first: Checksum, _ second: Checksum, secondCount: Int) -> Checksum {
        Checksum(ashlar_crc32c_combine(first.rawValue, second.rawValue, UInt64(secondCount)))
    }

    /// The CRC-32C of `count` zero bytes.
    public static func zeros(count: Int) -> Checksum {
        let page = [UInt8](repeating: 0, count: min(count, 4_096))
        var result: UInt32 = 0
        var left = count
        page.withUnsafeBytes { bytes in
            while left > 0 {
                let part = min(left, bytes.count)
                result = crc32c(result, UnsafeRawBufferPointer(rebasing: bytes[..<part]))
                left -= part
            }
        }
        return Checksum(result)
    }
}

@usableFromInline
func crc32c(_ crc: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    guard let base = bytes.baseAddress else { return crc }
    return ashlar_crc32c(crc, base, bytes.count)
}
