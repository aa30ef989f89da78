/// Addresses that share their first bits (RFC 4632, RFC 4291, 2.3): `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
public struct AddressPrefix: Sendable, Hashable, CustomStringConvertible {
    /// The lowest address; its bits behind the prefix are zero.
    public let address: NetworkAddress
    /// Length of the prefix in bits.
    public let length: Int

    /// A prefix of a length; `nil` where the address has not so many bits, or has bits behind the prefix.
    public init?(_ address: NetworkAddress, length: Int) {
        guard (0...address.family.bitCount).contains(length) else { return nil }
        self.address = address
        self.length = length
        let (high, low) = mask
        guard address.high & ~high == 0, address.low & ~low & (address.family == .ipv4 ? 0xFFFF_FFFF : .max) == 0
        else { return nil }
    }

    /// `ADDRESS/LENGTH`, or an address alone; `nil` for anything else, also where bits behind the prefix are not zero: that is
    /// mostly a slip.
    public init?(_ text: String) {
        guard let slash = text.firstIndex(of: "/") else {
            guard let address = NetworkAddress(text) else { return nil }
            self.init(address, length: address.family.bitCount)
            return
        }
        let digits = text[text.index(after: slash)...]
        guard (1...3).contains(digits.utf8.count), digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
            digits.utf8.count == 1 || !digits.hasPrefix("0"), let length = Int(digits),
            let address = NetworkAddress(String(text[..<slash]))
        else { return nil }
        // An IPv4-mapped prefix counts the 96 bits before the IPv4 address.
        let isMapped = address.family == .ipv4 && text.contains(":")
        self.init(address, length: isMapped ? length - 96 : length)
    }

    /// Whether an address begins with the prefix. Addresses of the other family never do.
    public func contains(_ other: NetworkAddress) -> Bool {
        let (high, low) = mask
        return other.family == address.family && other.high & high == address.high && other.low & low == address.low
    }

    /// Ones where the prefix is, in the two halves of an address.
    private var mask: (high: UInt64, low: UInt64) {
        let ones = { (count: Int) -> UInt64 in count <= 0 ? 0 : UInt64.max << UInt64(64 - min(count, 64)) }
        switch address.family {
        case .ipv4: return (.max, ones(32 + length) & 0xFFFF_FFFF)
        case .ipv6: return (ones(length), ones(length - 64))
        }
    }

    /// `ADDRESS/LENGTH`, or the address alone where the prefix is all of it.
    public var description: String {
        length == address.family.bitCount ? "\(address)" : "\(address)/\(length)"
    }
}
