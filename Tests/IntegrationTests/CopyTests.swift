import AshlarTestSupport
import Foundation
import ISCSI
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

        /// Two loops: sessions that are opened one after the other are on different ones then.
        private static let twoLoops = ["--target-loops", "2"]

        /// Begins an EXTENDED COPY with a short list identifier; its parameter list goes with it.
        private func begin(
            through session: RawInitiator,
            identifier: UInt8,
            _ devices: [[UInt8]],
            _ segments: [Segment],
            blockLength: UInt64 = 512
        ) -> UInt32 {
            let deviceBytes = devices.flatMap { designator -> [UInt8] in
                // Identification descriptor: binary, NAA, and the logical block's size.
                [0xE4, 0, 0, 0, 0x01, 0x03, 0, UInt8(designator.count)] + designator
                    + [UInt8](repeating: 0, count: 20 - designator.count) + [0]
                    + RawInitiator.bigEndian(blockLength, 3)
            }
            let segmentBytes = segments.flatMap { segment -> [UInt8] in
                [0x02, 0, 0, 0x18, 0, 0, 0, 1, 0, 0] + RawInitiator.bigEndian(UInt64(segment.blocks), 2)
                    + RawInitiator.bigEndian(segment.from, 8) + RawInitiator.bigEndian(segment.to, 8)
            }
            let list =
                [identifier, 0] + RawInitiator.bigEndian(UInt64(deviceBytes.count), 2) + [0, 0, 0, 0]
                + RawInitiator.bigEndian(UInt64(segmentBytes.count), 4) + [0, 0, 0, 0] + deviceBytes + segmentBytes
            let cdb = [0x83] + [UInt8](repeating: 0, count: 9) + RawInitiator.bigEndian(UInt64(list.count), 4) + [0, 0]
            return session.begin(cdb, write: list)
        }

        /// The same, and how it ends.
        private func copy(
            through session: RawInitiator,
            identifier: UInt8,
            _ devices: [[UInt8]],
            _ segments: [Segment],
            keeping others: [RawInitiator] = []
        ) throws -> RawInitiator.Outcome {
            let tag = begin(through: session, identifier: identifier, devices, segments)
            // Sessions whose initiator does not answer are dropped.
            for _ in 0..<300 {
                if let outcome = session.outcome(tag) { return outcome }
                _ = session.receive(milliseconds: 100)
                for other in others { _ = other.receive(milliseconds: 0) }
            }
            throw ProcessFailure("\(session.name): no answer to EXTENDED COPY")
        }

        /// COPY STATUS of RECEIVE COPY RESULTS.
        private func status(_ session: RawInitiator, identifier: UInt8) throws -> RawInitiator.Outcome {
            try session.run([0x84, 0, identifier, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], read: 256)
        }

        /// Bytes of a volume in pieces of 1 MiB.
        private func content(_ session: RawInitiator, from lba: UInt64, mebibytes: Int) throws -> [UInt8] {
            try (0..<UInt64(mebibytes)).flatMap { try session.read(lba + $0 * 2_048, 2_048) }
        }

        @Test func insideAVolumeSlotsAreShared_M11() async throws {
            let first = try await TestCluster.start(volumes: ["demo:64M"])
            do {
                try await share(first)
                try await first.killAll()
            } catch {
                let logs = first.logs()
                try? await first.killAll()
                first.remove()
                throw ProcessFailure("\(error)\n\(logs)")
            }
            // What was shared survives the loss of every process, and of PostgreSQL.
            let second = try await TestCluster.start(volumes: [], data: first.data, port: first.port)
            try await second.end(after: compact)
        }

        private static let mebibyte: UInt64 = 2_048
        private static let shared =
            "SELECT coalesce(sum(block_count), 0) FROM block_extents WHERE origin_block IS NOT NULL"
        private static let objects = "SELECT count(*) FROM block_objects WHERE state = 'live'"

        private func share(_ cluster: TestCluster) async throws {
            let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
            try Images.make(image, mebibytes: 16, seed: 32)
            try await Images.convert(image, to: cluster.url(target: 1))
            try await cluster.drain(cachedBytesMaximum: 0)
            let session = try await cluster.session("copies")
            _ = try session.attentions()
            let own = [[UInt8]](repeating: try session.networkAddressIdentifier(), count: 2)
            let before = try await cluster.sql(Self.objects)
            let all = [Segment(from: 0, to: 32 * Self.mebibyte, blocks: 32_768)]
            let done = try copy(through: session, identifier: 1, own, all)
            #expect(done.isGood, "\(done)")
            #expect(try await cluster.sql(Self.objects) == before)
            #expect(try await cluster.sql("SELECT count(*) FROM block_items") == "0")
            let zeros = try #require(
                Int(
                    try await cluster.sql(
                        "SELECT 4096 - coalesce(sum(block_count), 0) FROM block_extents WHERE origin_block IS NULL"
                    )
                )
            )
            #expect(try await cluster.sql(Self.shared) == "\(4_096 - zeros)")
            let data = [UInt8](FileManager.default.contents(atPath: image) ?? Data())
            let other = try await cluster.session("reads", target: 2)
            _ = try other.attentions()
            #expect(try content(other, from: 32 * Self.mebibyte, mebibytes: 16) == data)
            // Where only a part is made of whole data blocks, that part is shared; of what is shifted nothing is.
            let parts = [
                Segment(from: 3, to: 50 * Self.mebibyte + 3, blocks: 29),
                Segment(from: 1, to: 52 * Self.mebibyte, blocks: 32),
            ]
            let odd = try copy(through: session, identifier: 2, own, parts)
            #expect(odd.isGood, "\(odd)")
            #expect(try other.read(50 * Self.mebibyte + 3, 29) == Array(data[3 * 512..<32 * 512]))
            #expect(try other.read(52 * Self.mebibyte, 32) == Array(data[512..<33 * 512]))
            #expect(try other.read(50 * Self.mebibyte, 3) == [UInt8](repeating: 0, count: 3 * 512))
            // The source changes; the copy does not.
            try other.writeAndRead(0, fill: 7)
            #expect(try session.read(32 * Self.mebibyte, 8) == Array(data[..<4_096]))
            let report = try await cluster.ashlar(["fsck"])
            #expect(report.isSuccess, "\(report.summary)")
        }

        private func compact(_ cluster: TestCluster) async throws {
            let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
            let data = [UInt8](FileManager.default.contents(atPath: image) ?? Data())
            let session = try await cluster.session("after", target: 2)
            _ = try session.attentions()
            #expect(try content(session, from: 32 * Self.mebibyte, mebibytes: 16) == data)
            // All of the source and most of the copy goes, half of whatever object: what is left is rewritten, and its own then.
            func zero(_ lba: UInt64, _ blocks: UInt64) throws {
                let cdb = [0x93, 0x09] + RawInitiator.bigEndian(lba, 8) + RawInitiator.bigEndian(blocks, 4) + [0, 0]
                #expect(try session.run(cdb, read: 0).isGood)
            }
            for (lba, mebibytes) in [(0, 16), (32, 12), (50, 3)] as [(UInt64, UInt64)] {
                for piece in 0..<mebibytes { try zero((lba + piece) * Self.mebibyte, Self.mebibyte) }
            }
            for piece in 44..<48 as Range<UInt64> { try zero(piece * Self.mebibyte, Self.mebibyte / 2) }
            try await cluster.change(#"{"policy":{"compactBelowPercent":95}}"#)
            try await cluster.wait("nothing is shared any more", Self.shared, is: "0", timeout: .seconds(120))
            for piece in 44..<48 {
                let offset = (piece - 32) << 20 + 1 << 19
                let left = try session.read(UInt64(piece) * Self.mebibyte + Self.mebibyte / 2, 1_024)
                #expect(left == Array(data[offset..<offset + 1 << 19]), "MiB \(piece)")
            }
            #expect(try session.read(0, 8) == [UInt8](repeating: 0, count: 4_096))
            let report = try await cluster.ashlar(["fsck"])
            #expect(report.isSuccess, "\(report.summary)")
        }

        /// A name is claimed, not proved: a session of a volume that asks for a secret is not used for one that did not.
        @Test func aCopyNeedsWhatTheOtherVolumeAsksFor() async throws {
            try await TestCluster.with(volumes: ["demo:16M", "other:16M"], extra: Self.twoLoops) { cluster in
                let session = try await cluster.session("copies")
                let other = try await cluster.session("copies", volume: "other")
                for initiator in [session, other] { _ = try initiator.attentions() }
                let devices = [try other.networkAddressIdentifier(), try session.networkAddressIdentifier()]
                let segments = [Segment(from: 0, to: 0, blocks: 8)]
                #expect(try copy(through: session, identifier: 1, devices, segments, keeping: [other]).isGood)
                try await cluster.change(
                    #"{"credentials":[{"name":"host","secret":"asecretofsixteen"}]}"#,
                    volume: "other"
                )
                _ = try await ProcessRunner.eventually("the target knows of it") { () -> Bool? in
                    _ = other.receive(milliseconds: 100)
                    let outcome = try copy(through: session, identifier: 2, devices, segments, keeping: [other])
                    return outcome.sense == Self.notReachable ? true : nil
                }
                // Its own session is there as before.
                #expect(try other.run([0, 0, 0, 0, 0, 0]).sense?.key != 0xA)
            }
        }

        /// I10: as many copies of a session run at once as RECEIVE COPY OPERATING PARAMETERS says; one more gets BUSY, and a reset
        /// ends them all.
        @Test func copiesOfASessionAreBounded_I10() async throws {
            try await TestCluster.with(volumes: ["demo:64M", "other:64M"], extra: Self.twoLoops) { cluster in
                let session = try await cluster.session("copies")
                let other = try await cluster.session("copies", volume: "other")
                for initiator in [session, other] { _ = try initiator.attentions() }
                let parameters = try session.run([0x84, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], read: 256)
                try #require(parameters.isGood && parameters.data.count > 36, "\(parameters)")
                let most = parameters.data[36]
                #expect(most > 0 && RawInitiator.bigEndian(UInt64(most), 2) == Array(parameters.data[34...35]))
                let devices = try [session, other].map { try $0.networkAddressIdentifier() }
                // DISK BLOCK LENGTH of another device.
                let wrong = begin(through: session, identifier: 0, devices, [], blockLength: 4_096)
                #expect(try session.finish([wrong])[0].sense == RawInitiator.Sense(key: 0xA, code: 0x0D03))
                let segments = (0..<3).map { Segment(from: 0, to: $0 * 32_768, blocks: 32_768) }
                let tags = (1...most).map { begin(through: session, identifier: $0, devices, segments) }
                let tooMany = begin(through: session, identifier: most + 1, devices, segments)
                #expect(try session.finish([tooMany])[0].status == 0x08, "BUSY")
                #expect(tags.allSatisfy { session.outcome($0) == nil }, "they had ended")
                #expect(try session.manage(.logicalUnitReset) == .functionComplete)
                _ = try session.attentions()
                for initiator in [session, other] { try initiator.writeAndRead(0, fill: 3) }
                let again = try copy(through: session, identifier: 1, devices, [segments[0]], keeping: [other])
                #expect(again.isGood, "\(again)")
                // A session of which a copy reads or writes ends, and so does the copy, where it has not before.
                let last = begin(through: session, identifier: 1, devices, segments)
                other.close(isReset: true)
                let end = try session.finish([last])[0]
                #expect(end.isGood || end.sense == Self.notReachable, "\(end)")
                try session.writeAndRead(0, fill: 4)
            }
        }

        /// R6: nothing of a copy is done once it was aborted, and it is over for its session.
        @Test(arguments: [TaskManagementFunction.abortTask, .abortTaskSet, .logicalUnitReset])
        func anAbortedCopyEnds_R6(_ function: TaskManagementFunction) async throws {
            try await TestCluster.with(volumes: ["demo:64M", "other:64M"], extra: Self.twoLoops) { cluster in
                let session = try await cluster.session("copies")
                let other = try await cluster.session("copies", volume: "other")
                for initiator in [session, other] { _ = try initiator.attentions() }
                for piece in 0..<16 as Range<UInt64> {
                    let data = [UInt8](repeating: UInt8(piece + 1), count: 1 << 20)
                    #expect(
                        try session.finish([session.begin(RawInitiator.write16(piece * 2_048, 2_048), write: data)])[0]
                            .isGood
                    )
                }
                let own = try session.networkAddressIdentifier()
                let devices = [own, try other.networkAddressIdentifier()]
                let segments = (0..<3).map { Segment(from: 0, to: $0 * 32_768, blocks: 32_768) }
                let tag = begin(through: session, identifier: 9, devices, segments)
                let response = try session.manage(function, of: function == .abortTask ? tag : nil)
                // It may have ended before.
                let isEnded = session.outcome(tag) != nil
                #expect(response == .functionComplete || response == .taskDoesNotExist && isEnded)
                let before = try content(other, from: 0, mebibytes: 48)
                _ = try session.attentions()
                let report = try status(session, identifier: 9)
                try #require(report.isGood && report.data.count >= 5, "\(report)")
                #expect(report.data[4] & 0x7F != 0, "it is said to be in progress")
                #expect(isEnded || report.data[4] & 0x7F == 2, "it was aborted: \(report)")
                try await Task.sleep(for: .seconds(1))
                #expect(try content(other, from: 0, mebibytes: 48) == before, "it goes on")
                // Its identifier is free again.
                let again = try copy(through: session, identifier: 9, devices, [segments[0]], keeping: [other])
                #expect(again.isGood, "\(again)")
            }
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
                let done = try copy(through: source, identifier: 2, designators, all, keeping: [target, somebody])
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
