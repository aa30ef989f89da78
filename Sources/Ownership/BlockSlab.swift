import NIOCore

/// The bytes of cached blocks of one size, in places of a few large pieces of memory.
///
/// A buffer of its own for each block costs as much again in the headers of its storage as the index does; a place costs nothing but
/// the block. Bytes are copied in and out, so that a place can be used again at once whoever still sends what was read from it.
///
/// Pieces whose last block has gone are given back, but for one. Owned by one thread, like the core.
final class BlockSlab {
    /// Where a block is: the number of its piece, and that of its place in the piece.
    typealias Place = UInt32

    /// What stands for no place.
    static let nowhere = Place.max

    private struct Piece {
        /// nil: it has been given back.
        var base: UnsafeMutableRawPointer?
        var used: UInt32 = 0
        /// Places from this one on have never been used: their memory has not been touched.
        var untouched: UInt32 = 0
        /// A place that is free again; each such place begins with the number of the next one.
        var firstFree = BlockSlab.nowhere
        /// Whether it is among `open`.
        var isOpen = false
    }

    /// Bytes of a block.
    let blockBytes: Int
    private let placesPerPiece: UInt32
    private let pieceShift: UInt32
    private var pieces: [Piece] = []
    /// Pieces that may have room; those that have been given back leave it when they are come upon.
    private var open: [Int] = []
    /// Numbers of pieces that were given back.
    private var vacant: [Int] = []
    /// The piece that is kept though it is empty.
    private var spare: Int?
    /// Blocks that are in it.
    private(set) var count = 0

    /// Places for blocks of a size that is a power of two, of at least four bytes.
    init(blockBytes: Int) {
        precondition(blockBytes >= 4 && blockBytes & (blockBytes - 1) == 0, "a block's size is a power of two")
        self.blockBytes = blockBytes
        placesPerPiece = UInt32(max(OwnerLimits.slabPieceBytes / blockBytes, 1))
        pieceShift = UInt32(placesPerPiece.trailingZeroBitCount)
    }

    deinit {
        for piece in pieces { piece.base?.deallocate() }
    }

    /// Bytes of the pieces that it has.
    var allocatedBytes: Int { (pieces.count - vacant.count) * Int(placesPerPiece) * blockBytes }

    /// Puts a block down; returns where.
    func store(_ bytes: ByteBuffer) -> Place {
        let number = pieceWithRoom()
        let index: UInt32
        if pieces[number].firstFree != Self.nowhere {
            index = pieces[number].firstFree
            pieces[number].firstFree = address(number, index).load(as: UInt32.self)
        } else {
            index = pieces[number].untouched
            pieces[number].untouched += 1
        }
        pieces[number].used += 1
        if spare == number { spare = nil }
        count += 1
        let place = UInt32(number) << pieceShift | index
        replace(place, bytes)
        return place
    }

    /// Overwrites the block at a place.
    func replace(_ place: Place, _ bytes: ByteBuffer) {
        precondition(bytes.readableBytes == blockBytes, "a block is whole")
        bytes.withUnsafeReadableBytes { source in
            guard let from = source.baseAddress else { return }
            address(Int(place >> pieceShift), place & (placesPerPiece - 1)).copyMemory(
                from: from,
                byteCount: blockBytes
            )
        }
    }

    /// Adds the block at a place to a buffer.
    func append(_ place: Place, to buffer: inout ByteBuffer) {
        let start = address(Int(place >> pieceShift), place & (placesPerPiece - 1))
        buffer.writeBytes(UnsafeRawBufferPointer(start: start, count: blockBytes))
    }

    /// A copy of the block at a place.
    func bytes(at place: Place) -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: blockBytes)
        append(place, to: &buffer)
        return buffer
    }

    /// Gives a place back.
    func free(_ place: Place) {
        let number = Int(place >> pieceShift)
        let index = place & (placesPerPiece - 1)
        address(number, index).storeBytes(of: pieces[number].firstFree, as: UInt32.self)
        pieces[number].firstFree = index
        pieces[number].used -= 1
        count -= 1
        if !pieces[number].isOpen {
            pieces[number].isOpen = true
            open.append(number)
        }
        guard pieces[number].used == 0 else { return }
        guard spare != nil else {
            spare = number
            return
        }
        pieces[number].base?.deallocate()
        let isOpen = pieces[number].isOpen
        pieces[number] = Piece()
        pieces[number].isOpen = isOpen
        vacant.append(number)
    }

    private func pieceWithRoom() -> Int {
        while let number = open.last {
            let piece = pieces[number]
            if piece.base != nil, piece.firstFree != Self.nowhere || piece.untouched < placesPerPiece { return number }
            pieces[number].isOpen = false
            open.removeLast()
        }
        let number = vacant.popLast() ?? pieces.count
        if number == pieces.count { pieces.append(Piece()) }
        precondition(number < 1 << (32 - Int(pieceShift)) - 1, "all of a machine's memory has fewer places")
        // It may still be among the open ones, from before it was given back.
        if !pieces[number].isOpen { open.append(number) }
        pieces[number] = Piece()
        pieces[number].base = .allocate(byteCount: Int(placesPerPiece) * blockBytes, alignment: 64)
        pieces[number].isOpen = true
        return number
    }

    private func address(_ number: Int, _ index: UInt32) -> UnsafeMutableRawPointer {
        guard let base = pieces[number].base else { preconditionFailure("a place is in a piece that is there") }
        return base + Int(index) * blockBytes
    }
}
