import AshlarCore
import RPC
import Testing

@testable import Agent
@testable import AgentPlanning

@Suite("I10: limits of the agent")
struct AgentLimitsTests {
    @Test("Rests and bounds stand in order")
    func order() {
        #expect(AgentLimits.backoffMinimumMilliseconds < AgentLimits.backoffMaximumMilliseconds)
        #expect(AgentLimits.jitterPercent < 100)
        // A drained server is known as such long before its objects could be counted as gone.
        #expect(AgentLimits.drainingMilliseconds < AgentLimits.compactMilliseconds)
        #expect(AgentLimits.complaintMilliseconds > AgentLimits.backoffMaximumMilliseconds)
        // The pace of a scrub may be ahead by a second.
        #expect(AgentLimits.scrubMilliseconds < 1_000)
        #expect(AgentLimits.putAttemptsMaximum >= 1)
        #expect(AgentLimits.deletionsInFlightMaximum < Limits.rpcRequestsInFlightMaximum)
        #expect(Int(AgentLimits.scanPageObjects) <= RPCMessageLimits.objectsMaximum)
        #expect(AgentLimits.scanUnknownMaximum < Int(AgentLimits.scanPageObjects))
    }

    @Test("A put and its map fit into the age at which intents are given up")
    func intentAge() {
        let longest =
            AgentLimits.askDeadlineMilliseconds + AgentLimits.mapDeadlineMilliseconds
            + AgentLimits.putDeadlineMilliseconds * UInt32(AgentLimits.putAttemptsMaximum)
        #expect(longest / 1_000 < 600)
    }

    @Test("Whatever the block size, a plan's blocks fit an object")
    func planFits() {
        var blockSize = Limits.blockSizeMinimumBytes
        while blockSize <= Limits.blockSizeMaximumBytes {
            let slots = CompactionPlan.slotsThatFit(blockSizeBytes: blockSize)
            #expect(slots > 0 && slots <= Int(Limits.objectSlotsMaximum))
            #expect(slots * Int(blockSize) <= Limits.objectMaximumBytes)
            blockSize *= 2
        }
    }
}
