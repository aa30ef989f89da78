public import AshlarCore
public import NIOCore

/// Writes bytes of a volume that the sender puts into an object at the same time, under the same versions (`write=through`); the bytes follow
/// as payload.
public struct WriteThrough: RPCMessage {
    /// 0x2D.
    public static let type = RPCMessageType.writeThrough
    /// Nexus, number, evidence; where, and the checksums of the blocks.
    public var write: WriteCommand
    /// The object, which the owner handed out.
    public var object: ObjectID
    /// Where the first block of the write lies in it; the others follow in order.
    public var firstSlot: SlotIndex

    /// A write with its place in an object.
    public init(_ write: WriteCommand, object: ObjectID, firstSlot: SlotIndex) {
        self.write = write
        self.object = object
        self.firstSlot = firstSlot
    }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        write = try WriteCommand(decoding: &buffer)
        object = try buffer.readRPCIdentifier()
        firstSlot = try buffer.readRPCIdentifier()
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) {
        write.encode(into: &buffer)
        buffer.writeRPCIdentifier(object)
        buffer.writeRPCIdentifier(firstSlot)
    }
}

/// Maps an object with writes that were also sent with ``WriteThrough``; answered as ``MapDirect`` is.
public struct MapThrough: RPCMessage {
    /// 0x2E.
    public static let type = RPCMessageType.mapThrough
    /// The object and its writes.
    public var map: MapDirect

    /// A map of writes that are sent to the cache as well.
    public init(_ map: MapDirect) { self.map = map }

    /// Reads the fields in the order of the specification.
    public init(decoding buffer: inout ByteBuffer) throws(RPCDecodingError) {
        map = try MapDirect(decoding: &buffer)
    }

    /// Appends the fields in the order of the specification.
    public func encode(into buffer: inout ByteBuffer) { map.encode(into: &buffer) }
}
