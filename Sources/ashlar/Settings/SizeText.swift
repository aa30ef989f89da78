import ControlPlane

/// Sizes as people write and read them.
enum SizeText {
    static func text(_ bytes: UInt64) -> String { ByteSize.text(bytes) }

    /// Reads a size of the command line.
    ///
    /// - Throws: ``CommandFailure`` that names the option.
    static func parse(_ text: String, option: String) throws -> UInt64 {
        guard let bytes = ByteSize.parse(text) else {
            throw CommandFailure(
                "\(option) \"\(text)\" is not a size: give digits and one of K, M, G, T, as in 512M or 10G.",
                exitCode: ExitCodes.usage
            )
        }
        return bytes
    }
}

extension SizeText {
    /// A size that the API holds in 32 bits.
    ///
    /// - Throws: ``CommandFailure`` that names the option.
    static func narrow(_ bytes: UInt64, option: String) throws -> UInt32 {
        guard let narrow = UInt32(exactly: bytes) else {
            throw CommandFailure("\(option) \(bytes) is too large; give less than 4G.", exitCode: ExitCodes.usage)
        }
        return narrow
    }
}
