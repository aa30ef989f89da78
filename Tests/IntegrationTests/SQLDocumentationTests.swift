import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    @Suite(.serialized) struct SQLDocumentationTests {
        /// A statement of the documentation and the columns that it promises.
        private struct Example {
            var statement: String
            var columns: [String]
        }

        private static func examples() throws -> [Example] {
            let text = try String(contentsOfFile: TestEnvironment.sources + "/docs/sql.md", encoding: .utf8)
            let mark = "-- columns: "
            return text.components(separatedBy: "```sql\n").dropFirst().map { part in
                let statement = part.components(separatedBy: "```")[0]
                let head = statement.split(separator: "\n").first ?? ""
                let columns = head.hasPrefix(mark) ? head.dropFirst(mark.count).components(separatedBy: ", ") : []
                return Example(statement: statement, columns: columns)
            }
        }

        /// Runs statements in one session; the heads are part of the answer.
        private func psql(_ cluster: TestCluster, _ statements: [String]) async throws -> ProcessResult {
            try await ProcessRunner.run(
                "psql",
                [
                    "-X", "-q", "-A", "-F", ",", "-P", "footer=off", "-v", "ON_ERROR_STOP=1", "-d",
                    cluster.state().postgres,
                ]
                    + statements.flatMap { ["-c", $0] }
            )
        }

        @Test func everyExampleRunsAndReturnsTheColumnsThatItPromises() async throws {
            let examples = try Self.examples()
            #expect(examples.count >= 15)
            try await TestCluster.with(targets: 1) { cluster in
                try await prepare(cluster)
                let session = try await cluster.session("looker")
                try session.writeAndRead(0, fill: 1)
                try await cluster.wait("the target has told of itself", "SELECT count(*) FROM target_nodes", is: "1")
                // An agent that asks before its object servers are connected asks again ten seconds later.
                try await cluster.wait("an agent has asked", "SELECT count(*) FROM object_server_marks", is: "1")
                for example in examples {
                    #expect(!example.columns.isEmpty, "no columns are named: \(example.statement)")
                    let isForOwnerOnly = example.statement.contains("schema_migrations")
                    for role in ["", "ashlar_reader"] {
                        let result = try await psql(
                            cluster,
                            (role.isEmpty ? [] : ["SET ROLE \(role)"]) + [example.statement]
                        )
                        guard role.isEmpty || !isForOwnerOnly else {
                            #expect(!result.isSuccess && result.errors.contains("permission denied"))
                            continue
                        }
                        #expect(result.isSuccess, "\(role): \(example.statement)\n\(result.summary)")
                        let lines = result.output.split(separator: "\n")
                        let columns = lines.first?.split(separator: ",").map(String.init) ?? []
                        #expect(columns == example.columns, "\(example.statement)")
                        #expect(lines.count > 1, "no rows: \(example.statement)\n\(result.output)")
                    }
                }
                try await refusals(cluster)
            }
        }

        /// A volume that is partly in objects, partly in both places, partly in the cache alone.
        private func prepare(_ cluster: TestCluster) async throws {
            let first = try await Images.io(cluster.url(), ["write -P 1 0 128k", "write -P 2 1M 64k"])
            #expect(first.isSuccess, "\(first.summary)")
            try await cluster.moveByAge(cachedBytesMaximum: 32 << 10)
            let second = try await Images.io(cluster.url(), ["write -P 3 0 16k", "write -P 4 2M 16k"])
            #expect(second.isSuccess, "\(second.summary)")
            let places = try await cluster.sql(
                "SELECT string_agg(DISTINCT place, ' ' ORDER BY place) FROM ashlar_inspect.blocks WHERE volume = 'demo'"
            )
            #expect(places == "both cache object")
            try await registerOnAVolumeThatNobodyOwns(cluster)
            // Who created the role may give it to himself.
            _ = try await cluster.sql("GRANT ashlar_reader TO CURRENT_USER")
            let secret = #"{"credentials":[{"name":"alice","secret":"correct-horse-9"}]}"#
            let made = try await cluster.api("POST", "/v1/volumes", #"{"name":"guarded","sizeBytes":1048576}"#)
            #expect(made.status == 201, "\(made)")
            try await cluster.change(secret, volume: "guarded")
        }

        /// A registration for the examples to find. No cache server owns the volume, so that none is surprised by it.
        private func registerOnAVolumeThatNobodyOwns(_ cluster: TestCluster) async throws {
            let made = try await cluster.api("POST", "/v1/volumes", #"{"name":"reserved","sizeBytes":1048576}"#)
            #expect(made.status == 201, "\(made)")
            _ = try await cluster.sql(
                """
                INSERT INTO logical_units (volume_id, generation, reservation_type)
                SELECT id, 1, 5 FROM volumes WHERE name = 'reserved'
                """
            )
            _ = try await cluster.sql(
                """
                INSERT INTO registrations SELECT id, 'iqn.1993-08.org.debian:01:a', 1, 1, 1, 161, true, 0
                FROM volumes WHERE name = 'reserved'
                """
            )
        }

        private func refusals(_ cluster: TestCluster) async throws {
            let names = try await psql(cluster, ["SET ROLE ashlar_reader", "SELECT name FROM chap_credentials"])
            #expect(names.isSuccess && names.output.contains("alice"), "\(names.summary)")
            for statement in [
                "SELECT secret FROM chap_credentials", "SELECT * FROM chap_credentials",
                "UPDATE volumes SET name = 'mine'", "DELETE FROM block_items", "CREATE TABLE public.mine (a integer)",
                "CREATE TABLE ashlar_inspect.mine (a integer)",
            ] {
                let refused = try await psql(cluster, ["SET ROLE ashlar_reader", statement])
                #expect(
                    !refused.isSuccess && refused.errors.contains("permission denied"),
                    "\(statement): \(refused.summary)"
                )
                #expect(!refused.output.contains("correct-horse-9"))
            }
        }
    }
}
