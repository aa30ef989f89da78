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
        /// ASYMMETRIC ACCESS STATE CHANGED.
        private static let accessStateChanged = RawInitiator.Sense(key: 6, code: 0x2A06)

        @Test func requestSenseOfAnotherUnitTakesNothing() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let initiator = try await cluster.session("asks")
                #expect(try initiator.requestSense(lun: 5 << 48).sense == Self.noSuchUnit)
                #expect(try initiator.attentions().map { $0 >> 8 } == [0x29], "of its own unit")
            }
        }

        /// WRITE (16) of 8 MiB, of which MAXIMUM TRANSFER LENGTH allows half.
        @Test func writesThatAreTooLong() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let initiator = try await cluster.session("writes")
                let other = try await cluster.session("reserves", target: 2)
                let data = [UInt8](repeating: 0xEE, count: 8 << 20)
                func write(_ address: UInt64, _ blocks: UInt32 = 16_384) throws -> RawInitiator.Outcome {
                    try initiator.run(RawInitiator.write16(address, blocks), write: data)
                }
                #expect(try write(0).sense?.key == 6, "a unit attention condition comes first")
                _ = try initiator.attentions()
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
                _ = try first.attentions()
                try first.setDescriptorFormat(true)
                let beyond = RawInitiator.read16(1 << 30, 1)
                #expect(try first.run(beyond, read: 512).isInDescriptorFormat)
                let late = try await cluster.session("late", target: 2)
                let attention = try late.run(beyond, read: 512)
                #expect(attention.sense?.key == 6 && attention.isInDescriptorFormat, "\(attention)")
                _ = try late.attentions()
                #expect(try late.run(beyond, read: 512).isInDescriptorFormat)

                #expect(try first.manage(.logicalUnitReset) == .functionComplete)
                for initiator in [first, late] {
                    let reset = try initiator.run(beyond, read: 512)
                    #expect(reset.sense?.key == 6 && !reset.isInDescriptorFormat, "\(reset)")
                    let outcome = try initiator.run(beyond, read: 512)
                    #expect(outcome.sense == Self.outOfRange && !outcome.isInDescriptorFormat, "\(outcome)")
                }
            }
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
