/// A volume as `NAME:SIZE[:BLOCKSIZE]` asks for it.
public struct VolumeArgument: Sendable, Hashable {
    /// Why an argument was not understood; a sentence.
    public struct Malformed: Error, Sendable, Hashable, CustomStringConvertible {
        /// The sentence.
        public var description: String
    }

    /// The name.
    public var name: String
    /// The size in bytes.
    public var sizeBytes: UInt64
    /// The data block in bytes; nil for the default.
    public var blockSizeBytes: UInt32?

    /// A volume to be created.
    public init(name: String, sizeBytes: UInt64, blockSizeBytes: UInt32? = nil) {
        self.name = name
        self.sizeBytes = sizeBytes
        self.blockSizeBytes = blockSizeBytes
    }

    /// Reads an argument.
    ///
    /// - Throws: ``Malformed``.
    public init(parsing text: String) throws(Malformed) {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard (2...3).contains(parts.count), !parts[0].isEmpty else {
            throw Malformed(description: "\"\(text)\" is not NAME:SIZE[:BLOCKSIZE], as in demo:1G or data:64G:8192.")
        }
        guard let size = Self.bytes(parts[1]), size > 0 else {
            throw Malformed(
                description: "\"\(parts[1])\" is not a size: digits and one of K, M, G, T, as in 512M or 10G."
            )
        }
        var block: UInt32?
        if parts.count == 3 {
            guard let bytes = Self.bytes(parts[2]), let narrow = UInt32(exactly: bytes),
                (512...65_536).contains(narrow), narrow & (narrow - 1) == 0
            else {
                throw Malformed(
                    description: "\"\(parts[2])\" is not a block size: a power of two from 512 to 65536 (64K)."
                )
            }
            block = narrow
        }
        self.init(name: parts[0], sizeBytes: size, blockSizeBytes: block)
    }

    /// The bytes that digits with an optional suffix K, M, G, T (powers of 1024) stand for; nil where they are none.
    public static func bytes(_ text: String) -> UInt64? {
        var digits = Substring(text)
        var shift: UInt64 = 0
        if let last = digits.last, let power = ["K": 10, "M": 20, "G": 30, "T": 40][last.uppercased()] {
            shift = UInt64(power)
            digits = digits.dropLast()
        }
        guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = UInt64(digits)
        else {
            return nil
        }
        let (result, overflow) = number.multipliedReportingOverflow(by: 1 << shift)
        return overflow ? nil : result
    }
}
