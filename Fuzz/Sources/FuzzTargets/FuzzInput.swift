import NIOCore

/// The bytes of an input, taken from the front. Behind the end there are zeros, so that every input means something.
struct FuzzInput {
    private var bytes: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) {
        self.bytes = bytes[...]
    }

    var isEmpty: Bool { bytes.isEmpty }

    mutating func byte() -> UInt8 {
        bytes.popFirst() ?? 0
    }

    mutating func word() -> UInt16 {
        UInt16(byte()) << 8 | UInt16(byte())
    }

    mutating func long() -> UInt32 {
        UInt32(word()) << 16 | UInt32(word())
    }

    /// At most `count` bytes.
    mutating func take(_ count: Int) -> [UInt8] {
        let part = bytes.prefix(count)
        bytes = bytes.dropFirst(count)
        return Array(part)
    }

    mutating func rest() -> [UInt8] {
        take(bytes.count)
    }
}

extension ByteBuffer {
    /// Its readable bytes in storages of their own, at most `count` bytes each: as a socket may deliver them.
    func portions(_ count: Int) -> [ByteBuffer] {
        guard count > 0 else { return [self] }
        let bytes = readableBytesView
        return stride(from: bytes.startIndex, to: bytes.endIndex, by: count).map { start in
            ByteBuffer(bytes: bytes[start..<Swift.min(start + count, bytes.endIndex)])
        }
    }
}
