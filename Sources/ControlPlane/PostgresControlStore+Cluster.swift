import PostgresStore

// The cluster's settings, and object servers.
extension PostgresControlStore {
    private static let clusterColumns = """
        SELECT c.uuid::text AS uuid, c.backup_window_seconds, c.scrub_bytes_per_second, c.scrub_interval_seconds,
            (SELECT bool_and(d.allowed) FROM ashlar_inspect.deletion d) AS allowed,
            (SELECT count(*) FROM (SELECT FROM ashlar_inspect.damage LIMIT \(ControlLimits.damagedBlocksCounted)) d) AS damaged
        FROM cluster c
        """

    func cluster() async throws -> ClusterDocument { try await worker.run { try Self.cluster($0) } }

    func changeCluster(_ change: ChangeClusterRequest) async throws -> ClusterDocument {
        func parameter(_ value: Int64?) -> PostgresParameter { value.map { .int($0) } ?? .null }
        let values = [
            parameter(change.backupWindowSeconds), parameter(change.scrubBytesPerSecond),
            parameter(change.scrubIntervalSeconds),
        ]
        let isOfScrub = change.scrubBytesPerSecond != nil || change.scrubIntervalSeconds != nil
        return try await worker.run { connection in
            try connection.transaction { connection in
                _ = try connection.query(
                    """
                    UPDATE cluster SET backup_window_seconds = coalesce($1::bigint, backup_window_seconds),
                        scrub_bytes_per_second = coalesce($2::bigint, scrub_bytes_per_second),
                        scrub_interval_seconds = coalesce($3::bigint, scrub_interval_seconds)
                    """,
                    values
                )
                if isOfScrub {
                    // What is set holds from now on, not after the rest that the old value prescribed.
                    _ = try connection.query("UPDATE scrub_progress SET next_at = clock_timestamp()", [])
                }
                return try Self.cluster(connection)
            }
        }
    }

    private static func cluster(_ connection: PostgresConnection) throws -> ClusterDocument {
        let rows = try connection.query(clusterColumns, [])
        guard rows.count == 1 else { throw ControlError(.internalError, "The table cluster has no row.") }
        return ClusterDocument(
            uuid: try required(rows[0].string("uuid"), "uuid"),
            backupWindowSeconds: try required(rows[0].int64("backup_window_seconds"), "backup_window_seconds"),
            scrubBytesPerSecond: try required(rows[0].int64("scrub_bytes_per_second"), "scrub_bytes_per_second"),
            scrubIntervalSeconds: try required(rows[0].int64("scrub_interval_seconds"), "scrub_interval_seconds"),
            deletionAllowed: try rows[0].bool("allowed"),
            damagedBlocks: try required(rows[0].int64("damaged"), "damaged")
        )
    }

    private static let serverColumns = "SELECT server_id, draining, objects, bytes FROM ashlar_inspect.object_servers"

    func objectServers() async throws -> [ObjectServerRecord] {
        try await worker.run { connection in
            let rows = try connection.query("\(Self.serverColumns) ORDER BY server_id", [])
            return try (0..<rows.count).map { try Self.objectServer(rows[$0]) }
        }
    }

    func setDraining(objectServer id: Int32, _ isDraining: Bool) async throws -> ObjectServerRecord? {
        try await worker.run { connection in
            let changed = try connection.query(
                "UPDATE object_servers SET draining = $2 WHERE id = $1",
                [.int(Int64(id)), .bool(isDraining)]
            )
            guard changed.affected == 1 else { return nil }
            let rows = try connection.query("\(Self.serverColumns) WHERE server_id = $1", [.int(Int64(id))])
            return rows.count == 0 ? nil : try Self.objectServer(rows[0])
        }
    }

    private static func objectServer(_ row: PostgresRow) throws -> ObjectServerRecord {
        ObjectServerRecord(
            id: try number(row.int64("server_id"), "server_id"),
            isDraining: try required(row.bool("draining"), "draining"),
            objects: try number(row.int64("objects"), "objects"),
            bytes: try number(row.int64("bytes"), "bytes")
        )
    }
}
