/// An IP address without a port.
///
/// IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2) are IPv4 addresses here: a socket that takes both families shows IPv4 peers
/// by them, and an address has to compare equal however it arrived.
public struct NetworkAddress: Sendable, Hashable, CustomStringConvertible {
    /// Which protocol the address belongs to.
    public enum Family: Sendable, Hashable {
        /// 32 bits.
        case ipv4
        /// 128 bits.
        case ipv6

        /// Length of an address in bits.
        public var bitCount: Int {
            switch self {
            case .ipv4: 32
            case .ipv6: 128
            }
        }
    }

    /// Which protocol the address belongs to.
    public let family: Family
    /// The upper 64 bits of an IPv6 address; 0 for IPv4.
    let high: UInt64
    /// The lower 64 bits of an IPv6 address; the 32 bits of an IPv4 address.
    let low: UInt64

    /// An IPv4 address by its number: 127.0.0.1 is 7F000001h.
    public init(ipv4 value: UInt32) {
        family = .ipv4
        high = 0
        low = UInt64(value)
    }

    /// An IPv6 address by its upper and lower half; one that is IPv4-mapped becomes the IPv4 address.
    public init(ipv6 high: UInt64, _ low: UInt64) {
        let isMapped = high == 0 && low >> 32 == 0xFFFF
        family = isMapped ? .ipv4 : .ipv6
        self.high = high
        self.low = isMapped ? low & 0xFFFF_FFFF : low
    }

    /// An address as text: `192.0.2.1`, `2001:db8::1`, `::ffff:192.0.2.1`; no brackets, no zone. `nil` for anything else.
    public init?(_ text: String) {
        if let value = Self.ipv4(text) {
            self.init(ipv4: value)
        } else if let (high, low) = Self.ipv6(text) {
            self.init(ipv6: high, low)
        } else {
            return nil
        }
    }

    // MARK: Reading text

    /// Four decimal numbers without leading zeros, which some read as octal.
    private static func ipv4(_ text: String) -> UInt32? {
        let parts = text.split(separator: "." as Character, omittingEmptySubsequences: false)
        guard parts.count == 4 else { return nil }
        var value: UInt32 = 0
        for part in parts {
            guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                part.utf8.count == 1 || !part.hasPrefix("0"), let byte = UInt8(part)
            else { return nil }
            value = value << 8 | UInt32(byte)
        }
        return value
    }

    /// Eight groups of hexadecimal digits, of which one run of zeros may be `::` and the last two an IPv4 address (RFC 4291,
    /// 2.2).
    private static func ipv6(_ text: String) -> (high: UInt64, low: UInt64)? {
        let pieces = text.split(separator: ":" as Character, omittingEmptySubsequences: false).map(String.init)
        guard (3...9).contains(pieces.count) else { return nil }
        let gaps = pieces.indices.filter { pieces[$0].isEmpty }
        var before = pieces[...]
        var after = pieces[...].prefix(0)
        if let first = gaps.first {
            // "::" is one empty piece in the middle, two at an end, and three where it stands alone.
            let isAtStart = first == 0
            let isAtEnd = pieces.last?.isEmpty == true
            let expected = 1 + (isAtStart ? 1 : 0) + (isAtEnd ? 1 : 0)
            guard gaps.count == expected, !isAtStart || gaps.contains(1), !isAtEnd || gaps.contains(pieces.count - 2)
            else { return nil }
            before = pieces[..<first]
            after = pieces[first...].drop { $0.isEmpty }.filter { !$0.isEmpty }[...]
        }
        guard let head = groups(before, isEnd: gaps.isEmpty), let tail = groups(after, isEnd: true) else { return nil }
        let count = head.count + tail.count
        guard gaps.isEmpty ? count == 8 : count < 8 else { return nil }
        let all = head + [UInt16](repeating: 0, count: 8 - count) + tail
        let half = { (part: ArraySlice<UInt16>) in part.reduce(UInt64(0)) { $0 << 16 | UInt64($1) } }
        return (half(all[..<4]), half(all[4...]))
    }

    private static func groups(_ pieces: ArraySlice<String>, isEnd: Bool) -> [UInt16]? {
        var result: [UInt16] = []
        for (index, piece) in zip(pieces.indices, pieces) {
            if isEnd, index == pieces.endIndex - 1, piece.contains(".") {
                guard let value = ipv4(piece) else { return nil }
                result += [UInt16(value >> 16), UInt16(truncatingIfNeeded: value)]
            } else {
                guard (1...4).contains(piece.utf8.count), !piece.hasPrefix("+"), !piece.hasPrefix("-"),
                    let group = UInt16(piece, radix: 16)
                else { return nil }
                result.append(group)
            }
        }
        return result
    }

    // MARK: Writing text

    /// The canonical text (RFC 5952).
    public var description: String {
        guard family == .ipv6 else {
            return (0..<4).map { String(low >> UInt64(24 - 8 * $0) & 0xFF) }.joined(separator: ".")
        }
        let groups = [high, low].flatMap { half in
            (0..<4).map { UInt16(truncatingIfNeeded: half >> UInt64(48 - 16 * $0)) }
        }
        // The longest run of at least two zeros, the first of several.
        var longest = 0..<0
        var start = 0
        while start < groups.count {
            let end = groups[start...].firstIndex { $0 != 0 } ?? groups.count
            if end - start > max(1, longest.count) { longest = start..<end }
            start = max(end, start + 1)
        }
        let text = { (part: ArraySlice<UInt16>) in part.map { String($0, radix: 16) }.joined(separator: ":") }
        guard !longest.isEmpty else { return text(groups[...]) }
        return text(groups[..<longest.lowerBound]) + "::" + text(groups[longest.upperBound...])
    }
}
