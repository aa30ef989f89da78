import AshlarCore
import AshlarTestSupport
import Foundation
import ISCSI
import Testing

extension IntegrationTests {
    /// What a target and the owner of a volume decide together about one command.
    @Suite(.serialized) struct DeviceServerTests {
        /// INVALID FIELD IN CDB.
        private static let invalidField = RawInitiator.Sense(key: 5, code: 0x2400)
        /// LOGICAL BLOCK ADDRESS OUT OF RANGE.
        private static let outOfRange = RawInitiator.Sense(key: 5, code: 0x2100)
        /// LOGICAL UNIT NOT SUPPORTED.
        private static let noSuchUnit = RawInitiator.Sense(key: 5, code: 0x2500)
        /// MISCOMPARE DURING VERIFY OPERATION.
        private static let miscompare = RawInitiator.Sense(key: 0xE, code: 0x1D00)
        /// BUS DEVICE RESET FUNCTION OCCURRED.
        private static let deviceReset = RawInitiator.Sense(key: 6, code: 0x2903)
        /// ASYMMETRIC ACCESS STATE CHANGED.
        private static let accessStateChanged = RawInitiator.Sense(key: 6, code: 0x2A06)

        @Test func requestSenseOfAnotherUnitTakesNothing() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let initiator = try await cluster.session("asks")
                let manager = try await cluster.session("manager", target: 2)
                #expect(try manager.manage(.logicalUnitReset) == .functionComplete)
                #expect(try initiator.requestSense(lun: 5 << 48).sense == Self.noSuchUnit)
                #expect(try initiator.requestSense().sense == Self.deviceReset, "of its own unit")
                #expect(try initiator.attentions().isEmpty, "it was delivered")
            }
        }

        /// WRITE (16) of twice what MAXIMUM TRANSFER LENGTH allows.
        @Test func writesThatAreTooLong() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let initiator = try await cluster.session("writes")
                let other = try await cluster.session("reserves", target: 2)
                let blocks = 2 * Limits.transferMaximumBytes / 512
                let data = [UInt8](repeating: 0xEE, count: Int(blocks) * 512)
                func write(_ address: UInt64, _ blocks: UInt32 = blocks) throws -> RawInitiator.Outcome {
                    try initiator.run(RawInitiator.write16(address, blocks), write: data)
                }
                #expect(try other.manage(.logicalUnitReset) == .functionComplete)
                #expect(try write(0).sense == Self.deviceReset, "a condition comes first")
                let refused = try write(0)
                #expect(refused.sense == Self.invalidField && refused.fieldInCDB == 10, "TRANSFER LENGTH: \(refused)")
                #expect(try write(32_760).sense == Self.outOfRange)
                // More data than the CDB asks for, and than are taken: nothing is written.
                #expect(try write(0, 1).sense?.key == 5)
                #expect(try initiator.read(0, 1) == [UInt8](repeating: 0, count: 512))
                try other.register(1)
                #expect(try other.reserveOut(.reserve, .exclusiveAccess, key: 1).isGood)
                #expect(try write(0).status == RawInitiator.reservationConflict)
            }
        }

        /// D_SENSE decides on the format of sense data: in sessions that come later, and no longer after a reset, since it was
        /// not saved.
        @Test func modeParametersAreTrueAfterALoginAndAReset() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let first = try await cluster.session("first")
                try first.setDescriptorFormat(true)
                #expect(try compare(first).isInDescriptorFormat)
                let late = try await cluster.session("late", target: 2)
                let refused = try compare(late)
                #expect(refused.sense == Self.miscompare && refused.isInDescriptorFormat, "\(refused)")

                #expect(try first.manage(.logicalUnitReset) == .functionComplete)
                for initiator in [first, late] {
                    let reset = try compare(initiator)
                    #expect(reset.sense == Self.deviceReset && !reset.isInDescriptorFormat, "\(reset)")
                    let outcome = try compare(initiator)
                    #expect(outcome.sense == Self.miscompare && !outcome.isInDescriptorFormat, "\(outcome)")
                }
            }
        }

        /// COMPARE AND WRITE of a block that holds other data: a command that the owner alone refuses.
        private func compare(_ initiator: RawInitiator) throws -> RawInitiator.Outcome {
            var command = RawInitiator.write16(0, 1)
            command[0] = 0x89
            return try initiator.run(command, write: [UInt8](repeating: 0xFF, count: 1_024))
        }

        /// A condition of the node's port, of which the owner knows nothing.
        @Test func requestSenseDeliversConditionsOfThePort() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let initiator = try await cluster.session("asks", target: 2)
                _ = try initiator.attentions()
                _ = try initiator.targetPortGroups()
                _ = try await cluster.sql("UPDATE target_nodes SET draining = true WHERE node = 'target-1'")
                _ = try await ProcessRunner.eventually("the condition", timeout: .seconds(30)) { () -> Bool? in
                    try initiator.requestSense().sense == Self.accessStateChanged ? true : nil
                }
                #expect(try initiator.attentions().isEmpty, "it was delivered")
            }
        }
    }
}
