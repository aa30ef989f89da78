/// Values of keys (RFC 7143, 6.1).
package enum TextValue {
    /// A numerical value in decimal or, behind `0x`, in hexadecimal; `nil` where it is neither or above 64 bits.
    package static func number(_ text: String) -> UInt64? {
        let bytes = Array(text.utf8)
        if isPrefixed(bytes, by: "x") {
            guard bytes.count > 2, bytes[2...].allSatisfy({ hexDigit($0) != nil }) else { return nil }
            return UInt64(text.dropFirst(2), radix: 16)
        }
        guard !bytes.isEmpty, bytes.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
        return UInt64(text)
    }

    /// `Yes` or `No`.
    package static func boolean(_ text: String) -> Bool? {
        switch text {
        case "Yes": true
        case "No": false
        default: nil
        }
    }

    /// A list of values.
    package static func list(_ text: String) -> [String] {
        text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    }

    /// A binary value in hexadecimal (`0x`), Base64 (`0b`) or decimal; `nil` where it is none, empty, or longer than
    /// `maximumBytes`.
    package static func binary(_ text: String, maximumBytes: Int) -> [UInt8]? {
        let bytes = Array(text.utf8)
        let result: [UInt8]?
        if isPrefixed(bytes, by: "x") {
            result = hexadecimal(bytes[2...])
        } else if isPrefixed(bytes, by: "b") {
            result = base64(bytes[2...])
        } else if let value = number(text) {
            let count = max(1, (64 - value.leadingZeroBitCount + 7) / 8)
            result = (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
        } else {
            result = nil
        }
        guard let result, !result.isEmpty, result.count <= maximumBytes else { return nil }
        return result
    }

    /// `0x` and hexadecimal digits.
    package static func hexadecimal(encoding bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = Array("0x".utf8)
        text.reserveCapacity(2 + 2 * bytes.count)
        for byte in bytes {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static func isPrefixed(_ bytes: [UInt8], by letter: Unicode.Scalar) -> Bool {
        bytes.count >= 2 && bytes[0] == UInt8(ascii: "0") && bytes[1] | 0x20 == UInt8(ascii: letter)
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }

    private static func hexadecimal(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
        var result: [UInt8] = []
        var isSecond = digits.count % 2 != 0
        if isSecond { result.append(0) }
        for digit in digits {
            guard let value = hexDigit(digit) else { return nil }
            if isSecond {
                result[result.count - 1] = result[result.count - 1] << 4 | value
            } else {
                result.append(value)
            }
            isSecond.toggle()
        }
        return result
    }

    private static func base64(_ digits: ArraySlice<UInt8>) -> [UInt8]? {
        guard digits.count % 4 == 0 else { return nil }
        let padding = digits.reversed().prefix(while: { $0 == UInt8(ascii: "=") }).count
        guard padding <= 2 else { return nil }
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var held = 0
        for digit in digits.dropLast(padding) {
            guard let value = base64Digit(digit) else { return nil }
            bits = bits << 6 | UInt32(value)
            held += 6
            if held >= 8 {
                held -= 8
                result.append(UInt8(truncatingIfNeeded: bits >> UInt32(held)))
            }
        }
        guard bits & ((1 << UInt32(held)) - 1) == 0 else { return nil }
        return result
    }

    private static func base64Digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - UInt8(ascii: "a") + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0") + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}
