import NIOCore

/// Which blocks are worth the attempt to compress them: all but most of those that look like noise, once others of these were tried in vain.
///
/// The attempt costs the more the less it brings: encrypted data, or such as are compressed already, would take most of an agent's time.
struct CompressionTrials: Sendable {
    /// Blocks that looked like noise since one of these became smaller.
    private var noiseInVain = 0

    /// Has a block tried where that is worthwhile; whether it became smaller.
    mutating func compress(_ block: ByteBuffer, _ attempt: () -> Bool) -> Bool {
        guard Self.looksLikeNoise(block) else { return attempt() }
        noiseInVain += 1
        guard
            noiseInVain <= BlockObjectsLimits.noiseTrialsMaximum
                || noiseInVain.isMultiple(of: BlockObjectsLimits.noiseTrialsDivisor), attempt()
        else { return false }
        noiseInVain = 0
        return true
    }

    /// Whether bytes from all over the block have nearly as many values as random ones would have. The distance between them is odd, since
    /// records often have the size of a power of two.
    static func looksLikeNoise(_ block: ByteBuffer) -> Bool {
        block.withUnsafeReadableBytes { bytes in
            let distance = (bytes.count / BlockObjectsLimits.noiseSampleBytes) | 1
            var seen: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
            var position = 0
            for _ in 0..<min(BlockObjectsLimits.noiseSampleBytes, bytes.count) {
                let byte = bytes[position]
                let bit: UInt64 = 1 << UInt64(byte & 63)
                switch byte >> 6 {
                case 0: seen.0 |= bit
                case 1: seen.1 |= bit
                case 2: seen.2 |= bit
                default: seen.3 |= bit
                }
                position += distance
                if position >= bytes.count { position -= bytes.count }
            }
            let values =
                seen.0.nonzeroBitCount + seen.1.nonzeroBitCount + seen.2.nonzeroBitCount + seen.3.nonzeroBitCount
            return values >= BlockObjectsLimits.noiseValuesMinimum
        }
    }
}
