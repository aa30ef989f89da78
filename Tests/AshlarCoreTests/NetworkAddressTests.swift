import AshlarCore
import Testing

@Suite struct NetworkAddressTests {
    /// Text as it may be written, and its canonical form (RFC 5952).
    @Test(arguments: [
        ("0.0.0.0", "0.0.0.0"), ("127.0.0.1", "127.0.0.1"), ("255.255.255.255", "255.255.255.255"), ("::", "::"),
        ("::1", "::1"), ("1::", "1::"), ("0:0:0:0:0:0:0:1", "::1"), ("2001:DB8::1", "2001:db8::1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"), ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"), ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
        ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"), ("fe80::0001:00ff", "fe80::1:ff"),
        ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"), ("1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"),
        ("::ffff:192.0.2.1", "192.0.2.1"), ("::FFFF:7f00:1", "127.0.0.1"),
    ])
    func textIsReadAndWrittenCanonically(_ text: String, _ canonical: String) {
        #expect(NetworkAddress(text)?.description == canonical)
        #expect(NetworkAddress(canonical)?.description == canonical)
    }

    @Test(arguments: [
        "", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.4 ", " 1.2.3.4", "1..3.4", ":",
        ":::",
        "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1::2::3", "12345::", "g::", "+1::", "-1::", "::1%lo", "[::1]", ":1:2::",
        "1:2::3:", "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3", "1:2:3:4::5:6:7:8", "localhost",
    ])
    func anythingElseIsRefused(_ text: String) {
        #expect(NetworkAddress(text) == nil)
    }

    @Test func addressesAreEqualHoweverTheyCame() {
        #expect(NetworkAddress(ipv4: 0x7F00_0001) == NetworkAddress("127.0.0.1"))
        #expect(NetworkAddress(ipv6: 0, 0xFFFF_7F00_0001) == NetworkAddress("127.0.0.1"))
        #expect(NetworkAddress(ipv6: 0x2001_0DB8_0000_0000, 1) == NetworkAddress("2001:db8::1"))
        #expect(NetworkAddress(ipv6: 0, 0x7F00_0001) != NetworkAddress("127.0.0.1"))
        #expect(NetworkAddress("::")?.family == .ipv6)
    }
}

@Suite struct AddressPrefixTests {
    @Test(arguments: [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"), ("0.0.0.0/0", "255.1.2.3", "::1"), ("::/0", "ffff::", "1.2.3.4"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"), ("192.0.2.1", "192.0.2.1", "192.0.2.0"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.2"), ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("2001:db8::/64", "2001:db8::ffff:0:0:1", "2001:db8:0:1::"),
        ("2001:db8::8000/113", "2001:db8::ffff", "2001:db8::7fff"), ("::1", "::1", "::2"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"), ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
    ])
    func aPrefixHoldsItsAddressesAlone(_ text: String, _ inside: String, _ outside: String) throws {
        let prefix = try #require(AddressPrefix(text))
        #expect(prefix.contains(try #require(NetworkAddress(inside))))
        #expect(!prefix.contains(try #require(NetworkAddress(outside))))
        #expect(AddressPrefix(prefix.description) == prefix)
    }

    @Test(arguments: [
        "", "/", "10.0.0.0/", "/8", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08",
        "10.0.0.0/8/8", "::/129", "2001:db8::1/64", "::ffff:10.0.0.0/8", "10.0.0.0/8 ", "10.0.0.0 /8", "host/8",
    ])
    func anythingElseIsRefused(_ text: String) {
        #expect(AddressPrefix(text) == nil)
    }

    @Test func everyLengthSplitsTheAddressesInTwo() throws {
        for length in 1...128 {
            let bit = 128 - length
            let set = NetworkAddress(ipv6: bit >= 64 ? 1 << UInt64(bit - 64) : 0, bit < 64 ? 1 << UInt64(bit) : 0)
            // The IPv4-mapped range has no bit in common with these.
            let prefix = try #require(AddressPrefix(NetworkAddress(ipv6: 0, 0), length: length))
            #expect(!prefix.contains(set), "\(length)")
            #expect(AddressPrefix(NetworkAddress(ipv6: 0, 0), length: length - 1)?.contains(set) == true, "\(length)")
            #expect(AddressPrefix(set, length: length) != nil && AddressPrefix(set, length: length - 1) == nil)
        }
    }
}
