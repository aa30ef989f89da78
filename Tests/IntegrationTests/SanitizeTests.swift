import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// An erasure goes on whoever is killed.
    @Suite(.serialized) struct SanitizeTests {
        /// NOT READY, SANITIZE IN PROGRESS.
        private static let inProgress = RawInitiator.Sense(key: 2, code: 0x041B)

        @Test func anOverwriteGoesOnAfterAKillOfTheOwner_I1() async throws {
            try await TestCluster.with(volumes: ["demo:64M"]) { cluster in
                let filled = try await Images.io(cluster.url(target: 1), ["write -P 0x77 0 64M"])
                #expect(filled.isSuccess, "\(filled.summary)")
                let pattern: [UInt8] = [0xDE, 0xAD, 0xBE, 0xEF]
                let first = try await cluster.session("erases", target: 1)
                let second = try await cluster.session("looks", target: 2)
                for initiator in [first, second] { _ = try initiator.attentions() }
                // One pass, IMMED.
                let list = [0x01, 0, 0, 4] + pattern
                let begun = try first.run([0x48, 0x81, 0, 0, 0, 0, 0, 0, UInt8(list.count), 0], write: list)
                #expect(begun.isGood, "\(begun)")
                for initiator in [first, second] {
                    #expect(try initiator.run(RawInitiator.read16(0, 1), read: 512).sense == Self.inProgress)
                    let write = try initiator.run(RawInitiator.write16(0, 1), write: [UInt8](repeating: 1, count: 512))
                    #expect(write.sense == Self.inProgress)
                }
                let share = "SELECT erasure || ' ' || (erased_share BETWEEN 0.05 AND 0.95) "
                let view = "FROM ashlar_inspect.logical_units WHERE volume = 'demo'"
                try await cluster.wait("it is in the middle", share + view, is: "overwrite true")
                var progress: [UInt16] = []
                let (before, part) = try second.requestSense()
                #expect(before == Self.inProgress)
                progress.append(try #require(part))
                let pid = try cluster.kill("cache")
                #expect(try await cluster.sql("SELECT erasure " + view) == "overwrite", "it had ended before the kill")
                _ = try await ProcessRunner.eventually("the erasure has ended", timeout: .seconds(90)) {
                    () -> Bool? in
                    let (sense, now) = try second.requestSense()
                    guard sense == Self.inProgress else { return sense.key == 0 ? true : nil }
                    progress.append(try #require(now))
                    return nil
                }
                #expect(try !cluster.state().pids("cache").contains(pid))
                #expect(zip(progress, progress.dropFirst()).allSatisfy { $0 <= $1 }, "\(progress)")
                #expect(try await cluster.sql("SELECT erasure IS NULL " + view) == "t")
                for initiator in [first, second] { #expect(try initiator.attentions().isEmpty) }
                let expected = (0..<(1 << 20)).map { pattern[$0 % 4] }
                for part in 0..<64 {
                    let session = part % 2 == 0 ? first : second
                    #expect(try session.read(UInt64(part) * 2_048, 2_048) == expected, "mebibyte \(part)")
                }
                try first.writeAndRead(5, fill: 5)
            }
        }
    }
}
