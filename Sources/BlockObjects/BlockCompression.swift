import AshlarCore
import CZlib
import NIOCore

/// A zlib stream that compresses blocks one after the other.
///
/// A fresh stream costs more than the compression of a block, so keep one for each event loop or thread.
///
/// - Warning: Not safe to use from two threads at once.
public final class BlockCompressor {
    private let stream: UnsafeMutablePointer<z_stream>

    /// Allocates the stream (about 256 KiB).
    ///
    /// - Throws: `.outOfMemory`.
    public init() throws(BlockObjectError) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard ashlar_deflate_init(stream, BlockObjectsLimits.compressionLevel) == Z_OK else {
            stream.deinitialize(count: 1)
            stream.deallocate()
            throw BlockObjectError(.outOfMemory, "no memory for a compression stream")
        }
    }

    deinit {
        deflateEnd(stream)
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Appends the compressed form of `block` to `output` if it has at most `maximum` bytes; else leaves `output` alone.
    ///
    /// - Returns: Number of bytes appended, or nil.
    func compress(_ block: ByteBuffer, maximum: Int, into output: inout ByteBuffer) -> Int? {
        guard deflateReset(stream) == Z_OK else { return nil }
        var status = Z_STREAM_ERROR
        var count = 0
        output.reserveCapacity(minimumWritableBytes: maximum)
        block.withUnsafeReadableBytes { source in
            output.withUnsafeMutableWritableBytes { target in
                // zlib's type lacks a const; it does not write to its input.
                stream.pointee.next_in = UnsafeMutablePointer(
                    mutating: source.baseAddress?.assumingMemoryBound(to: UInt8.self)
                )
                stream.pointee.avail_in = UInt32(source.count)
                stream.pointee.next_out = target.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.pointee.avail_out = UInt32(maximum)
                status = deflate(stream, Z_FINISH)
                count = maximum - Int(stream.pointee.avail_out)
            }
        }
        // Z_OK means that the room did not suffice: then the saving would be too small.
        guard status == Z_STREAM_END else { return nil }
        output.moveWriterIndex(forwardBy: count)
        return count
    }
}

/// A zlib stream that inflates blocks one after the other; keep one for each event loop or thread.
///
/// - Warning: Not safe to use from two threads at once.
public final class BlockInflater {
    private let stream: UnsafeMutablePointer<z_stream>

    /// Allocates the stream (about 40 KiB).
    ///
    /// - Throws: `.outOfMemory`.
    public init() throws(BlockObjectError) {
        stream = .allocate(capacity: 1)
        stream.initialize(to: z_stream())
        guard ashlar_inflate_init(stream) == Z_OK else {
            stream.deinitialize(count: 1)
            stream.deallocate()
            throw BlockObjectError(.outOfMemory, "no memory for an inflating stream")
        }
    }

    deinit {
        inflateEnd(stream)
        stream.deinitialize(count: 1)
        stream.deallocate()
    }

    /// Inflates `compressed`, all of which must make exactly `count` bytes; nil where it does not.
    func inflateExactly(_ compressed: ByteBuffer, count: Int) -> ByteBuffer? {
        guard inflateReset(stream) == Z_OK else { return nil }
        var output = ByteBufferAllocator().buffer(capacity: count)
        var status = Z_STREAM_ERROR
        compressed.withUnsafeReadableBytes { source in
            output.withUnsafeMutableWritableBytes { target in
                stream.pointee.next_in = UnsafeMutablePointer(
                    mutating: source.baseAddress?.assumingMemoryBound(to: UInt8.self)
                )
                stream.pointee.avail_in = UInt32(source.count)
                stream.pointee.next_out = target.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.pointee.avail_out = UInt32(count)
                status = inflate(stream, Z_FINISH)
            }
        }
        guard status == Z_STREAM_END, stream.pointee.avail_in == 0, stream.pointee.avail_out == 0 else { return nil }
        output.moveWriterIndex(forwardBy: count)
        return output
    }
}
