import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// A short run of `ashlar-torture`; `scripts/torture` does long ones.
    @Suite(.serialized) struct TortureRunTests {
        /// What is done in any case, in this order; the rest is drawn.
        private static let first = [
            "reset", "flip", "clear", "fill-wal", "abort", "delay", "fill-objects", "delay-postgres", "fill-postgres",
        ]

        @Test func noSectorIsLostStaleTornOrComesBack_I1_I2_I4_I5_I11_I12_R6() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            let (client, deafen) = (directory + "/client", directory + "/deafen")
            let sources = TestEnvironment.sources + "/Tests/IntegrationTests/Initiator"
            let compile = ["-O2", "-Wall", "-o"]
            try await ProcessRunner.check("gcc", compile + [client, sources + "/torture.c", "-liscsi"])
            try await ProcessRunner.check("gcc", compile + [deafen, sources + "/deafen.c"])
            let program = try TestEnvironment.program()
            let torture = URL(fileURLWithPath: program).deletingLastPathComponent().path + "/ashlar-torture"
            let result = try await ProcessRunner.run(
                torture,
                [
                    "--minutes", "1.5", "--program", program, "--client", client, "--deafen", deafen,
                    "--directory", directory + "/run", "--iscsi-port", String(TestEnvironment.freePorts(3)),
                    "--verbose",
                ] + Self.first.flatMap { ["--begin-with", $0] },
                environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
                timeout: .seconds(900)
            )
            #expect(result.isSuccess, "\(result.summary)")
            #expect(result.output.contains("nothing was found"), "\(result.summary)")
            // What cannot be done on this machine is said, and does not fail the test.
            for line in result.output.split(separator: "\n") where line.contains("NOT DONE") { print(line) }
            try FileManager.default.removeItem(atPath: directory)
        }
    }
}
