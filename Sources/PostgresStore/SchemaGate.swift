/// What a role tests before it works with a database: that the schema is the one it was written for, and that the database
/// belongs to its cluster (D33).
public enum SchemaGate {
    /// A migration that this release cannot do without.
    public struct Requirement: Sendable, Hashable {
        /// Its number.
        public var version: Int
        /// Its name.
        public var name: String
    }

    /// The migrations that this release needs; a test compares them with the files.
    public static let required = [
        Requirement(version: 1, name: "cluster_and_volumes"),
        Requirement(version: 2, name: "blocks"),
        Requirement(version: 3, name: "inspection"),
        Requirement(version: 4, name: "logical_units"),
        Requirement(version: 5, name: "copies"),
        Requirement(version: 6, name: "shrunk_volumes"),
        Requirement(version: 7, name: "hand_over"),
        Requirement(version: 8, name: "recovery_and_scrub"),
        Requirement(version: 9, name: "aborts"),
        Requirement(version: 10, name: "older_databases"),
        Requirement(version: 11, name: "journal"),
        Requirement(version: 12, name: "hot_objects"),
        Requirement(version: 13, name: "both_tiers"),
        Requirement(version: 14, name: "sampled_segments"),
    ]

    /// Tests the ledger and the cluster's UUID.
    ///
    /// A schema that is newer is accepted where its migrations admit this release: so the last release runs on beside the next.
    /// - Parameters:
    ///   - release: the release that wants to start.
    ///   - cluster: the UUID in the role's certificate; case does not matter.
    /// - Throws: ``PostgresError`` that names the missing migration, the one that asks for a newer release, or the other cluster.
    public static func verify(
        _ connection: PostgresConnection,
        release: String,
        cluster: String
    ) throws(PostgresError) {
        guard let own = Release(release) else { throw PostgresError(.migration, "\(release) is no release number") }
        let ledger = try MigrationRunner.ledger(connection)
        for need in required where !ledger.contains(where: { $0.version == need.version && $0.name == need.name }) {
            throw PostgresError(
                .migration,
                "migration \(Migration.title(need.version, need.name)) has not been applied: run ashlar migrate up first"
            )
        }
        for row in ledger {
            guard let text = row.oldestRelease, let oldest = Release(text), own < oldest else { continue }
            throw PostgresError(
                .migration,
                "the schema is too new: migration \(Migration.title(row.version, row.name)) needs release \(oldest), "
                    + "this is \(own)"
            )
        }
        let rows = try connection.query("SELECT uuid::text AS uuid FROM cluster")
        guard rows.count == 1, let uuid = try rows[0].string("uuid") else {
            throw PostgresError(.migration, "the table cluster has no row: run ashlar migrate up first")
        }
        guard uuid.lowercased() == cluster.lowercased() else {
            throw PostgresError(
                .unsuitableServer,
                "the database belongs to cluster \(uuid), the certificate to cluster \(cluster): name the right database, "
                    + "or issue certificates for its cluster"
            )
        }
    }
}
