public import AshlarCore

/// A block of a read that lies in an object: which one, and where in the read it belongs.
public struct SlotPiece: Sendable, Hashable {
    /// The object.
    public var object: ObjectID
    /// Where the object lies.
    public var server: ObjectServerID
    /// The slot.
    public var slot: SlotIndex
    /// The run of the owner's answer that it belongs to.
    public var run: Int
    /// The block's place in that run.
    public var place: Int

    /// A block with each part named.
    public init(object: ObjectID, server: ObjectServerID, slot: SlotIndex, run: Int, place: Int) {
        self.object = object
        self.server = server
        self.slot = slot
        self.run = run
        self.place = place
    }
}

extension SlotPiece {
    /// The block that lies `distance` slots further on, and belongs as much further on in the run.
    public func moved(by distance: Int) -> SlotPiece {
        SlotPiece(
            object: object,
            server: server,
            slot: SlotIndex(slot.rawValue + UInt32(distance)),
            run: run,
            place: place + distance
        )
    }
}

/// Neighbouring slots of an object, to be asked for at once.
public struct SlotRequest: Sendable, Hashable {
    /// The object.
    public var object: ObjectID
    /// Where the object lies.
    public var server: ObjectServerID
    /// The first slot.
    public var firstSlot: SlotIndex
    /// The number of slots; each of them is that of a piece.
    public var count: UInt32
    /// What they are for, ascending by slot; a slot may be wanted in several places, where a block was copied by reference.
    public var pieces: [SlotPiece]

    /// Joins what one read wants into as few requests as there can be without a slot that nobody wants: a damaged one among those
    /// would fail the read.
    public static func joined(_ pieces: [SlotPiece]) -> [SlotRequest] {
        var requests: [SlotRequest] = []
        for piece in isInOrder(pieces) ? pieces : pieces.sorted(by: precedes) {
            if let last = requests.indices.last, requests[last].takes(piece) { continue }
            requests.append(
                SlotRequest(
                    object: piece.object,
                    server: piece.server,
                    firstSlot: piece.slot,
                    count: 1,
                    pieces: [piece]
                )
            )
        }
        return requests
    }

    /// Takes a piece in whose slot is the last one, or the one behind it.
    private mutating func takes(_ piece: SlotPiece) -> Bool {
        guard piece.object == object, piece.server == server else { return false }
        let place = piece.slot.rawValue - firstSlot.rawValue
        guard place + 1 == count || (place == count && count < Limits.objectSlotsMaximum) else { return false }
        count = max(count, place + 1)
        pieces.append(piece)
        return true
    }

    /// What was written in order mostly lies in order.
    private static func isInOrder(_ pieces: [SlotPiece]) -> Bool {
        pieces.indices.dropFirst().allSatisfy { !precedes(pieces[$0], pieces[$0 - 1]) }
    }

    private static func precedes(_ left: SlotPiece, _ right: SlotPiece) -> Bool {
        (left.object, left.server, left.slot, left.run, left.place)
            < (right.object, right.server, right.slot, right.run, right.place)
    }
}
