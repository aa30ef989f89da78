import AshlarCore
import NIOCore
import Testing

@testable import RPC

/// What a refusal says of the slot that is damaged.
struct DamageDetailTests {
    private func received(_ error: RPCError) -> RPCError {
        var body = ByteBuffer()
        error.encode(into: &body)
        return RPCError(status: error.status, decoding: body)
    }

    @Test func aDamagedSlotIsNamed_I11() {
        #expect(received(.damaged(SlotIndex(7), "bad")).damagedSlot == SlotIndex(7))
        #expect(received(.damaged(nil, "bad")).damagedSlot == nil)
        #expect(received(.damaged(nil, "bad")).status == .mediumError)
    }

    @Test func otherDetailsAreNoSlots() {
        var detail = ByteBuffer()
        CommandAnswer(stamp: Stamp(epoch: Epoch(1), time: MonotonicTime(2)), detail: 3).encode(into: &detail)
        #expect(received(RPCError(.mediumError, "of an owner", detail: detail)).damagedSlot == nil)
        var four = ByteBuffer()
        four.writeInteger(UInt32(7))
        #expect(received(RPCError(.exists, "of another status", detail: four)).damagedSlot == nil)
    }
}
