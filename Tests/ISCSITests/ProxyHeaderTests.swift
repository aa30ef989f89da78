import AshlarCore
import ISCSI
import NIOCore
import Testing

/// Headers written by hand from `proxy-protocol.txt` of haproxy.org, 2.2.
@Suite struct ProxyHeaderTests {
    private static let signature = "0d0a0d0a000d0a515549540a"
    private static let ipv4 = signature + "21 11 000c c0000201 c0000264 c001 0cbc"
    private static let ipv6 =
        signature + "21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000002 c001 0cbc"
    private static let mapped =
        signature + "21 21 0024 00000000000000000000ffffc0000201 00000000000000000000ffffc0000264 c001 0cbc"
    private static let unix = signature + "21 31 00d8" + String(repeating: "2f", count: 216)
    private static let tlvs = signature + "21 11 0017 c0000201 c0000264 c001 0cbc 04 0008 0102030405060708"

    static let golden: [(text: String, header: ProxyHeader)] = [
        (ipv4, .proxied(NetworkAddress(ipv4: 0xC000_0201), port: 0xC001)),
        (ipv6, .proxied(NetworkAddress(ipv6: 0x2001_0DB8_0000_0000, 1), port: 0xC001)),
        (mapped, .proxied(NetworkAddress(ipv4: 0xC000_0201), port: 0xC001)),
        (unix, .unknown),
        (signature + "21 00 0000", .unknown),
        (signature + "21 00 0003 010203", .unknown),
        (signature + "20 00 0000", .local),
        // The family of a LOCAL header does not count, nor do its addresses.
        (signature + "20 11 000c c0000201 c0000264 c001 0cbc", .local),
        (signature + "20 ff 0002 aaaa", .local),
        (tlvs, .proxied(NetworkAddress(ipv4: 0xC000_0201), port: 0xC001)),
    ]

    @Test(arguments: golden)
    func headersAreReadAndWhatFollowsIsLeft(_ text: String, _ header: ProxyHeader) throws {
        for rest in ["", "43", "0d0a0d0a000d0a515549540a"] {
            var bytes = hex(text + rest)
            var decoder = ProxyHeaderDecoder()
            #expect(try decoder.decode(&bytes) == header)
            #expect(bytes == hex(rest))
        }
    }

    @Test(arguments: golden)
    func headersAreReadHoweverTheyAreCut(_ text: String, _ header: ProxyHeader) throws {
        let whole = hex(text)
        for cut in 0..<whole.readableBytes {
            var decoder = ProxyHeaderDecoder()
            var first = try #require(whole.getSlice(at: 0, length: cut))
            #expect(try decoder.decode(&first) == nil)
            #expect(first.readableBytes == 0)
            var second = try #require(whole.getSlice(at: cut, length: whole.readableBytes - cut))
            second.writeString("login")
            #expect(try decoder.decode(&second) == header)
            #expect(second == ByteBuffer(string: "login"))
        }
        var drip = ProxyHeaderDecoder()
        for (index, byte) in whole.readableBytesView.enumerated() {
            var one = ByteBuffer(bytes: [byte])
            #expect(try drip.decode(&one) == (index == whole.readableBytes - 1 ? header : nil))
        }
    }

    @Test(arguments: [
        (ipv4.replacing("21 11", with: "11 11"), ProxyHeaderDecoder.Failure.unknownVersion),
        (ipv4.replacing("21 11", with: "31 11"), .unknownVersion),
        (ipv4.replacing("21 11", with: "22 11"), .unknownCommand),
        (ipv4.replacing("21 11", with: "2f 11"), .unknownCommand),
        (ipv4.replacing("21 11", with: "21 12"), .unknownFamily),
        (ipv4.replacing("21 11", with: "21 10"), .unknownFamily),
        (ipv4.replacing("21 11", with: "21 41"), .unknownFamily),
        (ipv6.replacing("21 21", with: "21 22"), .unknownFamily),
        (unix.replacing("21 31", with: "21 32"), .unknownFamily),
        // Lengths that lie.
        (ipv4.replacing("000c", with: "000b"), .tooShort), (ipv4.replacing("000c", with: "0000"), .tooShort),
        (ipv6.replacing("0024", with: "0023"), .tooShort), (unix.replacing("00d8", with: "00d7"), .tooShort),
        (signature + "21 11 0209", .tooLong), (signature + "21 11 ffff", .tooLong),
        (signature + "20 00 ffff", .tooLong),
        // Something else.
        (signature.dropLast(2) + "0b", .missing), ("43 87", .missing), ("00", .missing), ("0d0a0d0b", .missing),
        ("50 52 4f 58 59 20 54 43 50 34", .versionOne), ("50 52 4f 58 59", .versionOne), ("50 52 4f 58 58", .missing),
    ])
    func whatIsNoHeaderIsRefusedAtOnce(_ text: String, _ failure: ProxyHeaderDecoder.Failure) {
        var bytes = hex(text)
        var decoder = ProxyHeaderDecoder()
        #expect(throws: failure) { try decoder.decode(&bytes) }
    }

    @Test func theTextFormatIsNamedAlsoWhereItDrips() throws {
        var decoder = ProxyHeaderDecoder()
        for byte in "PROX".utf8 {
            var one = ByteBuffer(bytes: [byte])
            #expect(try decoder.decode(&one) == nil)
        }
        var last = ByteBuffer(string: "Y")
        #expect(throws: ProxyHeaderDecoder.Failure.versionOne) { try decoder.decode(&last) }
    }

    @Test func theBoundIsTheSmallestSegment() throws {
        let most = ISCSILimits.proxyHeaderMaximumBytes
        #expect(most == 536)
        var header = hex(Self.signature + "21 11 0208 c0000201 c0000264 c001 0cbc")
        header.writeRepeatingByte(0xEE, count: most - header.readableBytes)
        header.writeString("rest")
        var decoder = ProxyHeaderDecoder()
        #expect(try decoder.decode(&header) == Self.golden[0].header)
        #expect(header == ByteBuffer(string: "rest"))
    }

    @Test func randomBytesEndWithinTheBound() {
        var random = SplitMix(state: 7)
        for round in 0..<2_000 {
            var decoder = ProxyHeaderDecoder()
            var bytes = hex(Self.golden[round % Self.golden.count].text)
            for _ in 0..<Int.random(in: 0...3, using: &random) {
                let place = Int.random(in: 0..<bytes.readableBytes, using: &random)
                bytes.setInteger(UInt8.random(in: 0...255, using: &random), at: place)
            }
            var fed = 0
            var isOver = false
            while fed <= ISCSILimits.proxyHeaderMaximumBytes, !isOver {
                fed += bytes.readableBytes
                do {
                    isOver = try decoder.decode(&bytes) != nil
                } catch {
                    isOver = true
                }
                bytes = ByteBuffer(repeating: UInt8.random(in: 0...255, using: &random), count: 16)
            }
            #expect(isOver)
        }
    }
}
