import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// A short run of `ashlar-torture`; `scripts/torture` does long ones.
    @Suite(.serialized) struct TortureRunTests {
        @Test func noSectorIsLostStaleTornOrComesBack_I1_I2_I4_I5_I12() async throws {
            let directory = try TestEnvironment.temporaryDirectory()
            let client = directory + "/client"
            let source = TestEnvironment.sources + "/Tests/IntegrationTests/Initiator/torture.c"
            try await ProcessRunner.check("gcc", ["-O2", "-Wall", "-o", client, source, "-liscsi"])
            let program = try TestEnvironment.program()
            let torture = URL(fileURLWithPath: program).deletingLastPathComponent().path + "/ashlar-torture"
            let result = try await ProcessRunner.run(
                torture,
                [
                    "--minutes", "1.5", "--program", program, "--client", client, "--directory", directory + "/run",
                    "--iscsi-port", String(TestEnvironment.freePorts(3)), "--verbose",
                ],
                environment: ["ASHLAR_MIGRATIONS": TestEnvironment.sources + "/migrations"],
                timeout: .seconds(900)
            )
            #expect(result.isSuccess, "\(result.summary)")
            #expect(result.output.contains("nothing was found"), "\(result.summary)")
            try FileManager.default.removeItem(atPath: directory)
        }
    }
}
