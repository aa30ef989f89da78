/// Sizes as people write them: digits and one of K, M, G, T (powers of 1,024).
public enum ByteSize {
    /// Reads a size; nil where the text is none, or more than 2^63 - 1.
    ///
    /// `iB` and `B` may follow the letter, which may be small: `64M`, `64m`, `64MiB` and `67108864` are the same.
    public static func parse(_ text: String) -> UInt64? {
        let digits = text.prefix { ("0"..."9").contains($0) }
        guard !digits.isEmpty, let number = UInt64(digits) else { return nil }
        let suffix = text[digits.endIndex...].uppercased()
        let shift: UInt64
        switch suffix {
        case "", "B": shift = 0
        case "K", "KB", "KIB": shift = 10
        case "M", "MB", "MIB": shift = 20
        case "G", "GB", "GIB": shift = 30
        case "T", "TB", "TIB": shift = 40
        case "P", "PB", "PIB": shift = 50
        default: return nil
        }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow || bytes > UInt64(Int64.max) ? nil : bytes
    }

    /// The shortest text that says a size: exact where it is a whole number of units, else with one decimal.
    public static func text(_ bytes: UInt64) -> String {
        let units = ["B", "K", "M", "G", "T", "P"]
        var unit = 0
        var whole = bytes
        while whole >= 1_024, unit < units.count - 1, whole % 1_024 == 0 {
            whole /= 1_024
            unit += 1
        }
        if whole < 10_000 { return "\(whole)\(unit == 0 ? " B" : units[unit])" }
        var value = Double(whole)
        while value >= 1_024, unit < units.count - 1 {
            value /= 1_024
            unit += 1
        }
        let tenths = (value * 10).rounded()
        return "\(Int(tenths) / 10).\(Int(tenths) % 10)\(units[unit])"
    }
}
