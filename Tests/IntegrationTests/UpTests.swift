import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// What `ashlar up` refuses, and that it leaves nothing half made.
    @Suite(.serialized) struct UpTests {
        private func up(_ arguments: [String]) async throws -> ProcessResult {
            try await ProcessRunner.run(
                TestEnvironment.program(),
                ["up"] + arguments,
                environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
                timeout: .seconds(60)
            )
        }

        @Test func aSecondOneOnTheSameDirectoryIsRefused() async throws {
            try await TestCluster.with { cluster in
                let second = try await up([
                    "--data", cluster.data, "--iscsi-port", String(TestEnvironment.freePorts(2)),
                ])
                #expect(second.status == 1)
                #expect(second.errors.contains("Another ashlar up"), "\(second.summary)")
                #expect(try cluster.state().ready)
            }
        }

        @Test func aTakenPortIsNamedAndNothingIsMade() async throws {
            try await TestCluster.with { cluster in
                let directory = try TestEnvironment.temporaryDirectory()
                defer { try? FileManager.default.removeItem(atPath: directory) }
                let result = try await up(["--data", directory + "/new", "--iscsi-port", String(cluster.port)])
                #expect(result.status == 1)
                #expect(result.errors.contains("Port \(cluster.port)"), "\(result.summary)")
                #expect(result.errors.contains("--iscsi-port"), "the remedy is missing: \(result.errors)")
                #expect(!FileManager.default.fileExists(atPath: directory + "/new"))
            }
        }

        @Test(.enabled(if: getuid() == 0, "only root lets PostgreSQL run as another user"))
        func aDirectoryThatPostgresCannotReachIsRefused() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            defer { try? FileManager.default.removeItem(atPath: directory) }
            let closed = directory + "/closed"
            try FileManager.default.createDirectory(
                atPath: closed,
                withIntermediateDirectories: false,
                attributes: [.posixPermissions: 0o700]
            )
            let result = try await up([
                "--data", closed + "/data", "--iscsi-port", String(TestEnvironment.freePorts(2)),
            ])
            #expect(result.status == 1)
            #expect(result.errors.contains("chmod o+x \(closed)"), "\(result.summary)")
            #expect(!FileManager.default.fileExists(atPath: closed + "/data"))
        }

        @Test func aForeignDirectoryAndNonsenseAreRefused() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            defer { try? FileManager.default.removeItem(atPath: directory) }
            try Data("mine".utf8).write(to: URL(fileURLWithPath: directory + "/file"))
            let port = String(try TestEnvironment.freePorts(2))
            let cases = [
                ["--data", directory, "--iscsi-port", port],
                ["--data", directory + "/file", "--iscsi-port", port],
                ["--data", directory + "/new", "--iscsi-port", port, "--volume", "demo"],
                ["--data", directory + "/new", "--iscsi-port", port, "--volume", "demo:1G:1000"],
                ["--data", directory + "/new", "--iscsi-port", port, "--targets", "0"],
                ["--data", directory + "/new", "--iscsi-port", "70000"],
            ]
            for arguments in cases {
                let result = try await up(arguments)
                #expect(result.status != 0, "\(arguments)")
                #expect(!result.errors.isEmpty, "\(arguments)")
            }
            #expect(try FileManager.default.contentsOfDirectory(atPath: directory) == ["file"])
        }

        @Test func aRestartKeepsPortsTokenAndVolumes() async throws {
            let cluster = try await TestCluster.start(volumes: ["demo:64M", "other:8M:8K"])
            let before = try cluster.state()
            let token = FileManager.default.contents(atPath: before.token)
            #expect(try await cluster.stop().isSuccess)
            #expect(try cluster.state().ready == false)
            let again = try await TestCluster.start(volumes: [], data: cluster.data, port: cluster.port)
            let after = try again.state()
            #expect(after.api == before.api)
            #expect(after.postgres == before.postgres)
            #expect(Set(after.portals.map(\.iqn)) == Set(before.portals.map(\.iqn)))
            #expect(Set(after.portals.map(\.volume)) == ["demo", "other"])
            #expect(FileManager.default.contents(atPath: after.token) == token)
            let roles = Set(after.roles.map(\.role))
            #expect(roles == ["target", "cache", "objects", "agent", "control", "postgres"])
            #expect(try await again.stop().isSuccess)
            again.remove()
        }
    }
}
