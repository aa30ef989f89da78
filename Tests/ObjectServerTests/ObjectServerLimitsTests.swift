import AshlarCore
import ObjectStore
import RPC
import Testing

@testable import ObjectServer

@Suite("I10: limits of the object server")
struct ObjectServerLimitsTests {
    @Test("The answer with all slots of the largest object fits a frame")
    func slotsFitFrame() {
        // 25 bytes an entry, 4 each for the block size and the count of entries.
        let entries = 25 * Int(Limits.objectSlotsMaximum) + 8
        #expect(entries <= ObjectServerLimits.slotsAnswerOverheadBytes)
        #expect(
            Limits.objectMaximumBytes + ObjectServerLimits.slotsAnswerOverheadBytes + 24 <= Limits.frameMaximumBytes
        )
    }

    @Test("A put of the largest object fits a frame")
    func objectFitsFrame() {
        #expect(Limits.objectMaximumBytes + 8 + 24 <= Limits.frameMaximumBytes)
    }

    @Test("The longest page of a list fits a frame")
    func listFitsFrame() {
        let objects = min(RPCMessageLimits.objectsMaximum, ObjectStoreLimits.listMaximum)
        #expect(8 * objects + 4 + 9 + 24 <= Limits.frameMaximumBytes)
    }
}
