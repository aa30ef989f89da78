public import AshlarCore
public import NIOCore

extension ByteBuffer {
    /// The CRC-32C of the readable bytes.
    public var testChecksum: Checksum { withUnsafeReadableBytes { Checksum(of: $0) } }
}
