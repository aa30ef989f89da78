import NIOCore

extension FileSystem {
    /// `count` bytes from `offset` on, or fewer where the file ends before.
    func readAll(_ file: OpenFile, count: Int, at offset: UInt64) throws(ObjectStoreError) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var done = 0
        var failure: ObjectStoreError?
        buffer.withUnsafeMutableWritableBytes { bytes in
            while done < count {
                do throws(ObjectStoreError) {
                    let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[done..<count])
                    let step = try read(file, into: rest, at: offset + UInt64(done))
                    if step == 0 { return }
                    done += step
                } catch {
                    failure = error
                    return
                }
            }
        }
        if let failure { throw failure }
        buffer.moveWriterIndex(forwardBy: done)
        return buffer
    }

    /// Appends all of `bytes`.
    func writeAll(_ bytes: ByteBuffer, to file: OpenFile, isCached: Bool = true) throws(ObjectStoreError) {
        let failure: ObjectStoreError? = bytes.withUnsafeReadableBytes { bytes in
            var rest = bytes
            while !rest.isEmpty {
                do throws(ObjectStoreError) {
                    let count = try isCached ? write(file, rest) : writeUncached(file, rest)
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                } catch {
                    return error
                }
            }
            return nil
        }
        if let failure { throw failure }
    }
}
