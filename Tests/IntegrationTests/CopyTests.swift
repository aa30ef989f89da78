import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// EXTENDED COPY between volumes that one initiator is logged in to.
    @Suite(.serialized) struct CopyTests {
        /// COPY ABORTED, COPY TARGET DEVICE NOT REACHABLE.
        private static let notReachable = RawInitiator.Sense(key: 0xA, code: 0x0804)

        /// A segment: addresses and number of blocks, from the first device to the second.
        private struct Segment {
            var from: UInt64
            var to: UInt64
            var blocks: UInt16
        }

        /// EXTENDED COPY with a short list identifier; its parameter list goes with it.
        private func copy(
            through session: RawInitiator,
            identifier: UInt8,
            _ devices: [[UInt8]],
            _ segments: [Segment]
        ) throws -> RawInitiator.Outcome {
            let deviceBytes = devices.flatMap { designator -> [UInt8] in
                // Identification descriptor: binary, NAA, and the logical block's size.
                [0xE4, 0, 0, 0, 0x01, 0x03, 0, UInt8(designator.count)] + designator
                    + [UInt8](repeating: 0, count: 20 - designator.count) + [0, 0, 0x02, 0]
            }
            let segmentBytes = segments.flatMap { segment -> [UInt8] in
                [0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0] + RawInitiator.bigEndian(UInt64(segment.blocks), 2)
                    + RawInitiator.bigEndian(segment.from, 8) + RawInitiator.bigEndian(segment.to, 8)
            }
            let list =
                [identifier, 0] + RawInitiator.bigEndian(UInt64(deviceBytes.count), 2) + [0, 0, 0, 0]
                + RawInitiator.bigEndian(UInt64(segmentBytes.count), 4) + [0, 0, 0, 0] + deviceBytes + segmentBytes
            let cdb = [0x83] + [UInt8](repeating: 0, count: 9) + RawInitiator.bigEndian(UInt64(list.count), 4) + [0, 0]
            return try session.run(cdb, write: list)
        }

        /// COPY STATUS of RECEIVE COPY RESULTS.
        private func status(_ session: RawInitiator, identifier: UInt8) throws -> RawInitiator.Outcome {
            try session.run([0x84, 0, identifier, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], read: 256)
        }

        @Test func volumesAreCopiedWhereTheInitiatorIsLoggedInToBoth() async throws {
            try await TestCluster.with(volumes: ["demo:16M", "other:16M"]) { cluster in
                let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
                try Images.make(image, mebibytes: 16, seed: 31)
                try await Images.convert(image, to: cluster.url(target: 1))
                let source = try await cluster.session("copies")
                _ = try source.attentions()
                let designators = try await ["demo", "other"].asyncMap { volume in
                    let session = try await cluster.session("asks", volume: volume)
                    return try session.networkAddressIdentifier()
                }
                #expect(Set(designators).count == 2)
                let all = [
                    Segment(from: 0, to: 0, blocks: 20_000), Segment(from: 20_000, to: 20_000, blocks: 12_768),
                ]
                // Not logged in to the other volume, or only through another target, or only as somebody else.
                #expect(try copy(through: source, identifier: 1, designators, all).sense == Self.notReachable)
                let elsewhere = try await cluster.session("copies", volume: "other", target: 2)
                #expect(try copy(through: source, identifier: 1, designators, all).sense == Self.notReachable)
                let somebody = try await cluster.session("somebody", volume: "other")
                #expect(try copy(through: source, identifier: 1, designators, all).sense == Self.notReachable)
                let zeros = [UInt8](repeating: 0, count: 512)
                #expect(try elsewhere.read(4, 1) == zeros && somebody.read(4, 1) == zeros)

                let target = try await cluster.session("copies", volume: "other")
                _ = try target.attentions()
                let done = try copy(through: source, identifier: 2, designators, all)
                #expect(done.isGood, "\(done)")
                try await Images.compare(image, with: cluster.url(target: 2, volume: "other"))
                let report = try status(source, identifier: 2)
                // Done, both segments, 16 MiB in whatever unit it is told.
                try #require(report.isGood && report.data.count >= 12, "\(report)")
                #expect(report.data[4] & 0x7F == 1 && report.data[5...6].elementsEqual([0, 2]), "\(report)")
                #expect(try status(source, identifier: 77).sense == RawInitiator.Sense(key: 5, code: 0x2400))

                // A reservation of the other volume holds for the copy, too.
                try somebody.register(0xE)
                #expect(try somebody.reserveOut(.reserve, .exclusiveAccess, key: 0xE).isGood)
                let refused = try copy(through: source, identifier: 3, designators, all)
                #expect(!refused.isGood, "\(refused)")
                #expect(try somebody.reserveOut(.clear, key: 0xE).isGood)

                // From the middle of one volume to another place of it, in the same command as nothing else.
                let own = [designators[1], designators[1]]
                let moved = try copy(through: target, identifier: 4, own, [Segment(from: 16, to: 8_192, blocks: 8)])
                #expect(moved.isGood, "\(moved)")
                #expect(try target.read(16, 8) == target.read(8_192, 8))
                // Beyond the end.
                let beyond = try copy(through: target, identifier: 5, own, [Segment(from: 32_767, to: 0, blocks: 2)])
                #expect(beyond.sense?.key == 0xA, "\(beyond)")
            }
        }
    }
}
