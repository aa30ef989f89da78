import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct BadInputTests {
        private struct Volume: Decodable {
            var name: String
            var iqn: String
        }

        @Test func aWrongSecretIsRefusedAndOthersDoNotNotice() async throws {
            try await TestCluster.with { cluster in
                let made = try await cluster.api(
                    "POST",
                    "/v1/volumes",
                    """
                    {"name":"guarded","sizeBytes":1048576,
                     "credentials":[{"name":"alice","secret":"correct-horse-9"}]}
                    """
                )
                #expect((200..<300).contains(made.status), "\(made)")
                let volume = try JSONDecoder().decode(Volume.self, from: Data(made.body.utf8))
                let url = { (login: String) in "iscsi://\(login)127.0.0.1:\(cluster.port)/\(volume.iqn)/0" }
                let others = Initiator.Writes(
                    url: try cluster.url(target: 1),
                    journal: cluster.data + "/journal",
                    milliseconds: 4_000
                )
                let running = try await Initiator.shared.start(others)

                let right = try await ProcessRunner.run("iscsi-inq", [url("alice%correct-horse-9@")])
                #expect(right.isSuccess, "\(right.summary)")
                for login in ["alice%wrong-horse-99@", "bob%correct-horse-9@", ""] {
                    let refused = try await ProcessRunner.run("iscsi-inq", [url(login)])
                    #expect(!refused.isSuccess, "a login as \"\(login)\" was let in")
                }

                let report = try await Initiator.shared.finish(running)
                #expect(report.logins == 1 && report.repeats == 0, "another session noticed: \(report)")
                try await Initiator.shared.verify([others], through: cluster.url(target: 2))
                let log = FileManager.default.contents(atPath: cluster.data + "/log/target-1.log") ?? Data()
                let text = String(decoding: log, as: UTF8.self)
                #expect(!text.contains("correct-horse-9") && !text.contains("wrong-horse-99"), "a secret is in the log")
            }
        }

        @Test func anUnknownVolumeIsRefused() async throws {
            try await TestCluster.with { cluster in
                for iqn in [
                    "iqn.2026-01.org.example:nothing", "iqn.2026-01.org.example:\(String(repeating: "x", count: 180))",
                ] {
                    let refused = try await ProcessRunner.run(
                        "iscsi-inq",
                        ["iscsi://127.0.0.1:\(cluster.port)/\(iqn)/0"]
                    )
                    #expect(!refused.isSuccess, "\(refused.summary)")
                }
                let lun = try cluster.url(target: 1).dropLast() + "7"
                let read = try await Images.io(String(lun), ["read 0 4k"])
                #expect(!read.isSuccess || read.output.contains("failed"), "LUN 7 was served: \(read.summary)")
                let served = try await Images.io(cluster.url(target: 1), ["read -P 0 0 4k"])
                #expect(served.isSuccess, "\(served.summary)")
            }
        }

        @Test func anInitiatorThatIsNotListedIsRefused() async throws {
            try await TestCluster.with { cluster in
                let changed = try await cluster.api(
                    "PATCH",
                    "/v1/volumes/demo",
                    #"{"initiators":["iqn.2026-01.org.ashlar.test:initiator"]}"#
                )
                #expect((200..<300).contains(changed.status), "\(changed)")
                let url = try cluster.url(target: 1)
                let listed = "iqn.2026-01.org.ashlar.test:initiator"
                let refused = try await ProcessRunner.eventually("the rule is in force") { () -> ProcessResult? in
                    let result = try await ProcessRunner.run(
                        "iscsi-inq",
                        ["-i", "iqn.2026-01.org.example:mallory", url]
                    )
                    return result.isSuccess ? nil : result
                }
                #expect(!refused.isSuccess)
                let admitted = try await ProcessRunner.run("iscsi-inq", ["-i", listed, url])
                #expect(admitted.isSuccess, "\(admitted.summary)")
            }
        }
    }
}
