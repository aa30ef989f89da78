import AshlarCore
import Foundation
import PostgresStore

/// The control role's rows in PostgreSQL.
struct PostgresControlStore: ControlStore {
    let worker: DatabaseWorker

    /// A store that asks through `worker`.
    init(worker: DatabaseWorker) { self.worker = worker }

    /// Statements for the connection of an API: nothing may take long.
    static let settings = [
        "SET statement_timeout = \(ControlLimits.statementMilliseconds)",
        "SET lock_timeout = \(ControlLimits.statementMilliseconds / 2)",
    ]

    // MARK: Volumes

    func createVolume(_ draft: VolumeDraft) async throws -> VolumeDocument {
        let config = try Self.json(draft.policy)
        return try await worker.run { connection in
            try connection.transaction { connection in
                let rows = try connection.query(
                    """
                    INSERT INTO volumes (name, iqn, size_bytes, block_size_bytes, logical_block_size_bytes, read_only, config)
                    VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb) RETURNING id
                    """,
                    [
                        .text(draft.name), .text(draft.iqn), .int(Int64(draft.sizeBytes)),
                        .int(Int64(draft.blockSizeBytes)), .int(Int64(draft.logicalBlockSizeBytes)),
                        .bool(draft.readOnly), .text(config),
                    ]
                )
                let id = try Self.required(rows[0].int64("id"), "id")
                try Self.setInitiators(draft.initiators, of: id, connection)
                try Self.setCredentials(draft.credentials, mutual: false, of: id, connection)
                if let mutual = draft.mutual { try Self.setCredentials([mutual], mutual: true, of: id, connection) }
                return try Self.volume(draft.name, connection)
            }
        }
    }

    func volume(named name: String) async throws -> VolumeDocument? {
        try await worker.run { connection in
            let rows = try connection.query("\(Self.volumeColumns) WHERE v.name = $1", [.text(name)])
            return rows.count == 0 ? nil : try Self.document(rows[0])
        }
    }

    func volumes(after: String?, limit: Int) async throws -> [VolumeDocument] {
        try await worker.run { connection in
            let rows = try connection.query(
                "\(Self.volumeColumns) WHERE v.name > $1 ORDER BY v.name LIMIT $2",
                [.text(after ?? ""), .int(Int64(limit))]
            )
            return try (0..<rows.count).map { try Self.document(rows[$0]) }
        }
    }

    func changeVolume(named name: String, _ change: ChangeVolumeRequest) async throws -> VolumeDocument {
        let config = try change.policy.map { try Self.json($0) }
        return try await worker.run { connection in
            try connection.transaction { connection in
                let id = try Self.lockActive(name, connection).id
                if let readOnly = change.readOnly {
                    _ = try connection.query(
                        "UPDATE volumes SET read_only = $2 WHERE id = $1",
                        [.int(id), .bool(readOnly)]
                    )
                }
                if let config {
                    _ = try connection.query(
                        "UPDATE volumes SET config = config || $2::jsonb WHERE id = $1",
                        [.int(id), .text(config)]
                    )
                    // What the volume has now is known only here: an error takes the change back.
                    try VolumeRules.checkTogether(try Self.volume(name, connection).policy)
                }
                if let initiators = change.initiators { try Self.setInitiators(initiators, of: id, connection) }
                if let credentials = change.credentials {
                    try Self.setCredentials(credentials, mutual: false, of: id, connection)
                }
                if let mutual = change.mutual {
                    try Self.setCredentials(mutual.name.isEmpty ? [] : [mutual], mutual: true, of: id, connection)
                }
                return try Self.volume(name, connection)
            }
        }
    }

    func resizeVolume(named name: String, sizeBytes: UInt64, force: Bool) async throws -> VolumeDocument {
        try await worker.run { connection in
            try connection.transaction { connection in
                let volume = try Self.lockActive(name, connection)
                try VolumeRules.checkGeometry(
                    sizeBytes: sizeBytes,
                    blockSizeBytes: volume.blockSizeBytes,
                    logicalBlockSizeBytes: volume.logicalBlockSizeBytes
                )
                guard sizeBytes >= volume.sizeBytes || force else {
                    throw ControlError(
                        .wouldShrink,
                        "Volume \"\(name)\" has \(volume.sizeBytes) bytes and would lose what lies behind \(sizeBytes).",
                        remedy: "Shrink the file system first, then say force."
                    )
                }
                _ = try connection.query(
                    "UPDATE volumes SET size_bytes = $2 WHERE id = $1",
                    [.int(volume.id), .int(Int64(sizeBytes))]
                )
                return try Self.volume(name, connection)
            }
        }
    }

    // MARK: Deletion

    func markDeleting(named name: String, force: Bool) async throws -> VolumeOwnerRecord {
        try await worker.run { connection in
            try connection.transaction { connection in
                guard let record = try Self.owner(name, connection) else { throw ControlError.noSuchVolume(name) }
                if record.state == "deleting" { return record }
                if !force {
                    let rows = try connection.query(
                        "SELECT count(*) AS sessions FROM nexuses WHERE volume_id = $1",
                        [.int(record.volume)]
                    )
                    let sessions = try Self.required(rows[0].int64("sessions"), "sessions")
                    guard sessions == 0 else {
                        throw ControlError(
                            .sessionsOpen,
                            "Volume \"\(name)\" has \(sessions) open sessions.",
                            remedy: "Log the initiators out (see: ashlar target list --sessions), or say force."
                        )
                    }
                }
                _ = try connection.query(
                    "UPDATE volumes SET state = 'deleting' WHERE id = $1",
                    [.int(record.volume)]
                )
                return record
            }
        }
    }

    func deletionStep(volume: Int64) async throws -> Bool {
        try await worker.run { connection in
            let rows = try connection.query(
                "SELECT delete_volume_step($1, $2::integer) AS gone",
                [.int(volume), .int(ControlLimits.deletionStepRows)]
            )
            return try Self.required(rows[0].bool("gone"), "gone")
        }
    }

    func rowCount(volume: Int64) async throws -> UInt64 {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT (SELECT count(*) FROM block_items WHERE volume_id = $1)
                    + (SELECT count(*) FROM block_extents WHERE volume_id = $1) AS rows
                """,
                [.int(volume)]
            )
            return UInt64(max(0, try Self.required(rows[0].int64("rows"), "rows")))
        }
    }

    func deletingVolumes(limit: Int) async throws -> [String] {
        try await worker.run { connection in
            let rows = try connection.query(
                "SELECT name FROM volumes WHERE state = 'deleting' ORDER BY id LIMIT $1",
                [.int(Int64(limit))]
            )
            return try (0..<rows.count).map { try Self.required(rows[$0].string("name"), "name") }
        }
    }

    func owner(volume name: String) async throws -> VolumeOwnerRecord? {
        try await worker.run { try Self.owner(name, $0) }
    }

    // MARK: Rows

    private static let volumeColumns = """
        SELECT v.id, v.name, v.iqn, v.uuid::text AS uuid, v.size_bytes, v.block_size_bytes, v.logical_block_size_bytes,
            v.read_only, v.state, v.config::text AS config, v.revision, \(timestamp("v.created_at")) AS created_at,
            coalesce((SELECT json_agg(a.initiator_name ORDER BY a.initiator_name) FROM access_initiators a
                WHERE a.volume_id = v.id), '[]')::text AS initiators,
            coalesce((SELECT json_agg(c.name ORDER BY c.name) FROM chap_credentials c
                WHERE c.volume_id = v.id AND NOT c.mutual), '[]')::text AS credentials,
            (SELECT c.name FROM chap_credentials c WHERE c.volume_id = v.id AND c.mutual) AS mutual
        FROM volumes v
        """

    /// A time as RFC 3339 text in UTC.
    static func timestamp(_ column: String) -> String {
        "to_char(\(column) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
    }

    private static func volume(_ name: String, _ connection: PostgresConnection) throws -> VolumeDocument {
        let rows = try connection.query("\(volumeColumns) WHERE v.name = $1", [.text(name)])
        guard rows.count == 1 else { throw ControlError.noSuchVolume(name) }
        return try document(rows[0])
    }

    private static func document(_ row: PostgresRow) throws -> VolumeDocument {
        let decoder = JSONDecoder()
        func decoded<Value: Decodable>(_ type: Value.Type, _ column: String) throws -> Value {
            try decoder.decode(type, from: Data(try required(row.string(column), column).utf8))
        }
        return VolumeDocument(
            id: try required(row.int64("id"), "id"),
            name: try required(row.string("name"), "name"),
            iqn: try required(row.string("iqn"), "iqn"),
            uuid: try required(row.string("uuid"), "uuid"),
            sizeBytes: try number(row.int64("size_bytes"), "size_bytes"),
            blockSizeBytes: try number(row.int64("block_size_bytes"), "block_size_bytes"),
            logicalBlockSizeBytes: try number(row.int64("logical_block_size_bytes"), "logical_block_size_bytes"),
            readOnly: try required(row.bool("read_only"), "read_only"),
            state: try required(row.string("state"), "state"),
            policy: VolumeRules.complete(try decoded(PolicyDocument.self, "config")),
            initiators: try decoded([String].self, "initiators"),
            credentials: try decoded([String].self, "credentials"),
            mutual: try row.string("mutual"),
            revision: try required(row.int64("revision"), "revision"),
            createdAt: try required(row.string("created_at"), "created_at")
        )
    }

    private struct Locked {
        var id: Int64
        var sizeBytes: UInt64
        var blockSizeBytes: UInt32
        var logicalBlockSizeBytes: UInt32
    }

    private static func lockActive(_ name: String, _ connection: PostgresConnection) throws -> Locked {
        let rows = try connection.query(
            """
            SELECT id, size_bytes, block_size_bytes, logical_block_size_bytes, state FROM volumes WHERE name = $1 FOR UPDATE
            """,
            [.text(name)]
        )
        guard rows.count == 1 else { throw ControlError.noSuchVolume(name) }
        guard try rows[0].string("state") == "active" else {
            throw ControlError(
                .volumeDeleting,
                "Volume \"\(name)\" is being deleted.",
                remedy: "Wait until it is gone."
            )
        }
        return Locked(
            id: try required(rows[0].int64("id"), "id"),
            sizeBytes: try number(rows[0].int64("size_bytes"), "size_bytes"),
            blockSizeBytes: try number(rows[0].int64("block_size_bytes"), "block_size_bytes"),
            logicalBlockSizeBytes: try number(rows[0].int64("logical_block_size_bytes"), "logical_block_size_bytes")
        )
    }

    private static func owner(_ name: String, _ connection: PostgresConnection) throws -> VolumeOwnerRecord? {
        let rows = try connection.query(
            """
            SELECT v.id, v.size_bytes, v.block_size_bytes, v.state,
                (SELECT s.endpoint FROM volume_epochs e JOIN cache_servers s ON s.id = e.owner
                    WHERE e.volume_id = v.id AND s.lease_end > clock_timestamp()) AS endpoint
            FROM volumes v WHERE v.name = $1
            """,
            [.text(name)]
        )
        guard rows.count == 1 else { return nil }
        return VolumeOwnerRecord(
            volume: try required(rows[0].int64("id"), "id"),
            sizeBytes: try number(rows[0].int64("size_bytes"), "size_bytes"),
            blockSizeBytes: try number(rows[0].int64("block_size_bytes"), "block_size_bytes"),
            state: try required(rows[0].string("state"), "state"),
            ownerEndpoint: try rows[0].string("endpoint")
        )
    }

    private static func setInitiators(_ names: [String], of volume: Int64, _ connection: PostgresConnection) throws {
        _ = try connection.query("DELETE FROM access_initiators WHERE volume_id = $1", [.int(volume)])
        for name in names {
            _ = try connection.query(
                "INSERT INTO access_initiators (volume_id, initiator_name) VALUES ($1, $2)",
                [.int(volume), .text(name)]
            )
        }
    }

    private static func setCredentials(
        _ credentials: [CredentialDocument],
        mutual: Bool,
        of volume: Int64,
        _ connection: PostgresConnection
    ) throws {
        _ = try connection.query(
            "DELETE FROM chap_credentials WHERE volume_id = $1 AND mutual = $2",
            [.int(volume), .bool(mutual)]
        )
        for credential in credentials {
            _ = try connection.query(
                "INSERT INTO chap_credentials (volume_id, name, mutual, secret) VALUES ($1, $2, $3, $4)",
                [.int(volume), .text(credential.name), .bool(mutual), .text(credential.secret)]
            )
        }
    }

    private static func json(_ value: some Encodable) throws -> String {
        String(decoding: try JSONEncoder().encode(value), as: UTF8.self)
    }

    // MARK: Values

    static func required<Value>(_ value: Value?, _ column: String) throws -> Value {
        guard let value else { throw ControlError(.internalError, "PostgreSQL answers NULL for \(column).") }
        return value
    }

    static func number<Number: FixedWidthInteger>(_ value: Int64?, _ column: String) throws -> Number {
        guard let number = Number(exactly: try required(value, column)) else {
            throw ControlError(.internalError, "PostgreSQL answers a number out of range for \(column).")
        }
        return number
    }
}

// MARK: - Inspection

extension PostgresControlStore {
    private static let spaceColumns = """
        SELECT s.*, (SELECT extract(epoch FROM clock_timestamp() - i.unmoved_since)::float8 FROM block_items i
            JOIN volumes v ON v.id = i.volume_id WHERE v.name = s.volume AND i.unmoved_since IS NOT NULL
            ORDER BY i.unmoved_since, i.block_id LIMIT 1)::text AS oldest
        FROM ashlar_inspect.space s
        """

    func space(after: String?, limit: Int) async throws -> [SpaceDocument] {
        try await worker.run { connection in
            let rows = try connection.query(
                "\(Self.spaceColumns) WHERE s.volume > $1 ORDER BY s.volume LIMIT $2",
                [.text(after ?? ""), .int(Int64(limit))]
            )
            return try (0..<rows.count).map { try Self.space(rows[$0]) }
        }
    }

    func space(volume name: String) async throws -> SpaceDocument? {
        try await worker.run { connection in
            let rows = try connection.query("\(Self.spaceColumns) WHERE s.volume = $1", [.text(name)])
            return rows.count == 0 ? nil : try Self.space(rows[0])
        }
    }

    private static func space(_ row: PostgresRow) throws -> SpaceDocument {
        SpaceDocument(
            volume: try required(row.string("volume"), "volume"),
            sizeBytes: try number(row.int64("size_bytes"), "size_bytes"),
            items: try number(row.int64("items"), "items"),
            cachedBytes: try number(row.int64("cached_bytes"), "cached_bytes"),
            unmovedItems: try number(row.int64("unmoved_items"), "unmoved_items"),
            unmovedBytes: try number(row.int64("unmoved_bytes"), "unmoved_bytes"),
            oldestUnmovedSeconds: try row.string("oldest").flatMap(Double.init),
            extents: try number(row.int64("extents"), "extents"),
            mappedBytes: try number(row.int64("mapped_bytes"), "mapped_bytes"),
            objects: try number(row.int64("objects"), "objects"),
            objectBytes: try number(row.int64("object_bytes"), "object_bytes")
        )
    }

    func targets() async throws -> [TargetDocument] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT \(Self.targetColumns) FROM target_nodes ORDER BY node LIMIT $1
                """,
                [.int(Int64(ControlLimits.pageMaximum))]
            )
            return try (0..<rows.count).map { try Self.target(rows[$0]) }
        }
    }

    func setDraining(target name: String, _ isDraining: Bool) async throws -> TargetDocument? {
        try await worker.run { connection in
            let rows = try connection.query(
                "UPDATE target_nodes SET draining = $2 WHERE node = $1 RETURNING \(Self.targetColumns)",
                [.text(name), .bool(isDraining)]
            )
            return rows.count == 0 ? nil : try Self.target(rows[0])
        }
    }

    private static let targetColumns = """
        node, portal, portal_group_tag, release, sessions, draining,
        extract(epoch FROM clock_timestamp() - last_seen)::float8::text AS age
        """

    private static func target(_ row: PostgresRow) throws -> TargetDocument {
        let age = Double(try required(row.string("age"), "age")) ?? .infinity
        return TargetDocument(
            node: try required(row.string("node"), "node"),
            portal: try required(row.string("portal"), "portal"),
            portalGroupTag: try required(row.int64("portal_group_tag"), "portal_group_tag"),
            release: try required(row.string("release"), "release"),
            sessions: try required(row.int64("sessions"), "sessions"),
            heartbeatAgeSeconds: max(0, age),
            alive: age <= Double(Limits.targetLifeSeconds),
            draining: try required(row.bool("draining"), "draining")
        )
    }

    func cacheServers() async throws -> [CacheNodeDocument] {
        try await worker.run { connection in
            let rows = try connection.query(Self.cacheNodes, [.null, .int(Int64(ControlLimits.pageMaximum))])
            return try (0..<rows.count).map { try Self.cacheNode(rows[$0]) }
        }
    }

    func setDraining(cache name: String, _ isDraining: Bool) async throws -> CacheNodeDocument? {
        try await worker.run { connection in
            try connection.query(
                """
                INSERT INTO cache_nodes (name, draining)
                SELECT $1, $2 WHERE EXISTS (SELECT FROM cache_servers WHERE name = $1)
                ON CONFLICT (name) DO UPDATE SET draining = excluded.draining
                """,
                [.text(name), .bool(isDraining)]
            )
            let rows = try connection.query(Self.cacheNodes, [.text(name), .int(1)])
            return rows.count == 0 ? nil : try Self.cacheNode(rows[0])
        }
    }

    private static let cacheNodes = """
        SELECT DISTINCT ON (name) name, endpoint, lease_valid, draining, stopping, volumes, volumes_in_use
        FROM ashlar_inspect.cache_servers WHERE $1::text IS NULL OR name = $1
        ORDER BY name, lease_end DESC LIMIT $2
        """

    private static func cacheNode(_ row: PostgresRow) throws -> CacheNodeDocument {
        CacheNodeDocument(
            name: try required(row.string("name"), "name"),
            endpoint: try required(row.string("endpoint"), "endpoint"),
            alive: try required(row.bool("lease_valid"), "lease_valid"),
            draining: try required(row.bool("draining"), "draining"),
            stopping: try required(row.bool("stopping"), "stopping"),
            volumes: try required(row.int64("volumes"), "volumes"),
            volumesInUse: try required(row.int64("volumes_in_use"), "volumes_in_use")
        )
    }

    func sessions(volume: String?, limit: Int) async throws -> [SessionDocument] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT volume, nexus, initiator_name, isid, portal_group_tag, node,
                    \(Self.timestamp("opened_at")) AS opened_at
                FROM ashlar_inspect.sessions WHERE $1::text IS NULL OR volume = $1
                ORDER BY volume, nexus LIMIT $2
                """,
                [volume.map { .text($0) } ?? .null, .int(Int64(limit))]
            )
            return try (0..<rows.count).map { index in
                SessionDocument(
                    volume: try Self.required(rows[index].string("volume"), "volume"),
                    nexus: try Self.required(rows[index].int64("nexus"), "nexus"),
                    initiator: try Self.required(rows[index].string("initiator_name"), "initiator_name"),
                    isid: try Self.required(rows[index].string("isid"), "isid"),
                    portalGroupTag: try Self.required(rows[index].int64("portal_group_tag"), "portal_group_tag"),
                    node: try Self.required(rows[index].string("node"), "node"),
                    openedAt: try Self.required(rows[index].string("opened_at"), "opened_at")
                )
            }
        }
    }

    func volumeNames(_ keys: [Int64]) async throws -> [Int64: String] {
        guard !keys.isEmpty else { return [:] }
        let list = "{" + keys.map(String.init).joined(separator: ",") + "}"
        return try await worker.run { connection in
            let rows = try connection.query(
                "SELECT id, name FROM volumes WHERE id = ANY ($1::bigint[])",
                [.text(list)]
            )
            var names: [Int64: String] = [:]
            for index in 0..<rows.count {
                let id = try Self.required(rows[index].int64("id"), "id")
                names[id] = try Self.required(rows[index].string("name"), "name")
            }
            return names
        }
    }

    func recordObjectServer(id: Int32, name: String, endpoint: String, cluster: String) async throws {
        try await worker.run { connection in
            _ = try connection.query(
                """
                INSERT INTO object_servers (id, name, endpoint, cluster_uuid) VALUES ($1, $2, $3, $4::uuid)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, endpoint = excluded.endpoint,
                    last_seen = clock_timestamp()
                """,
                [.int(Int64(id)), .text(name), .text(endpoint), .text(cluster)]
            )
        }
    }
}
