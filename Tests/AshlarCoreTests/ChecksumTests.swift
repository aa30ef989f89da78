import AshlarCore
import CChecksum
import Testing

@Suite("CRC-32C")
struct ChecksumTests {
    /// RFC 7143, appendix A.4 of RFC 3720: the test vectors of the digest.
    @Test(
        "vectors of RFC 3720, appendix B.4",
        arguments: [
            ([UInt8](repeating: 0, count: 32), 0x8A91_36AA),
            ([UInt8](repeating: 0xFF, count: 32), 0x62A8_AB43),
            ((0..<32).map { UInt8($0) }, 0x46DD_794E),
            ((0..<32).reversed().map { UInt8($0) }, 0x113F_DB5C),
            (Array("123456789".utf8), 0xE306_9283),
        ] as [([UInt8], UInt32)]
    )
    func vectors(bytes: [UInt8], expected: UInt32) {
        #expect(bytes.withUnsafeBytes { Checksum(of: $0) }.rawValue == expected)
        #expect(ashlar_crc32c_portable(0, bytes, bytes.count) == expected)
    }

    @Test("the accelerated version agrees with the portable one at every length up to four rounds of lanes")
    func accelerated() {
        var state: UInt64 = 0x9E37_79B9_7F4A_7C15
        let bytes = (0..<17_000).map { _ -> UInt8 in
            state = state &* 6_364_136_223_846_793_005 &+ 1
            return UInt8(truncatingIfNeeded: state >> 33)
        }
        for count in [0, 1, 7, 8, 9, 4_079, 4_080, 4_081, 4_096, 8_160, 8_161, 16_384, 17_000] {
            #expect(ashlar_crc32c(0, bytes, count) == ashlar_crc32c_portable(0, bytes, count), "\(count) bytes")
        }
    }

    @Test("a checksum can be continued, and two can be combined")
    func combining() {
        let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let whole = bytes.withUnsafeBytes { Checksum(of: $0) }
        for cut in [0, 1, 511, 4_096, 9_999, 10_000] {
            let first = bytes[..<cut].withUnsafeBytes { Checksum(of: $0) }
            let second = bytes[cut...].withUnsafeBytes { Checksum(of: $0) }
            #expect(Checksum.combined(first, second, secondCount: bytes.count - cut) == whole)
            #expect(bytes[cut...].withUnsafeBytes { first.continued(by: $0) } == whole)
        }
        #expect([UInt8](repeating: 0, count: 70_000).withUnsafeBytes { Checksum(of: $0) } == .zeros(count: 70_000))
    }
}
