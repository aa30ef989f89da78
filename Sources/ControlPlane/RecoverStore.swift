import PostgresStore

/// The rows that rebuilding the map reads in a snapshot, and writes.
protocol RecoverStore: SnapshotStore {
    /// How far the database has come.
    func age() async throws -> RecoverAge
    /// Volumes behind `after`.
    func volumes(after: Int64) async throws -> [RecoverVolumeRow]
    /// Objects of any volume behind `after`.
    func objects(after: Int64) async throws -> [FsckPlanner.Object]
    /// Extents of a volume behind a block.
    func extents(volume: Int64, after: Int64) async throws -> [RecoverPlanner.Extent]
    /// Items of a volume behind a block, without their bytes.
    func items(volume: Int64, after: Int64) async throws -> [RecoverPlanner.Item]

    /// Takes a volume from its owner and keeps it, so that no cache server can own it: its epoch is none that was ever handed out,
    /// and its nexuses are forgotten.
    func fence(volume: Int64) async throws
    /// Milliseconds that the lease of the cache server which owned a volume before it was fenced may still last.
    func leaseLeftMilliseconds(server: Int64?) async throws -> UInt64
    /// Makes a volume that is known from headers alone, fenced, read-only.
    func create(_ volume: RecoverPlanner.Volume, name: String, iqn: String) async throws
    /// Carries a part of a plan out in one transaction.
    func apply(volume: Int64, _ part: RecoverPart) async throws
    /// Lets cache servers own a volume again; versions from `nextVersion` on are handed out.
    ///
    /// `isRidOfRemains`: Nothing that a shrink has left lies behind its end any more.
    func finish(volume: Int64, nextVersion: UInt64, isRidOfRemains: Bool) async throws
    /// Has nothing deleted from now on until ``raiseClock(above:)``, however far the database goes on meanwhile.
    func noteBehind() async throws
    /// Has no object id up to `object` handed out any more.
    func raiseObjects(above object: UInt64) async throws
    /// Sets the clock of the database above all that object servers know: it is not behind any more.
    func raiseClock(above clock: UInt64) async throws
}

/// How far a database has come.
struct RecoverAge: Sendable, Hashable {
    /// Its clock.
    var clock: UInt64
    /// The highest object id that it has handed out; 0: none.
    var highestObject: UInt64
    /// Whether it was found to be older than the objects, and not put right since.
    var isBehind: Bool
}

/// A row of `volumes` as rebuilding the map needs it.
struct RecoverVolumeRow: Sendable, Hashable {
    var id: Int64
    var name: String
    var uuid: [UInt8]
    var blockSizeBytes: UInt32
    var sizeBytes: UInt64
    var state: String
    /// The cache server that owns it, whether its lease lives or not.
    var owner: Int64?
    /// What its last shrink has taken away.
    var shrink: RecoverPlanner.Shrink?
}

/// What one transaction does to a volume.
struct RecoverPart: Sendable, Hashable {
    /// Objects that become live, if they are not.
    var objects: [RecoverPlanner.Header] = []
    var runs: [RecoverPlanner.Run] = []
    var staleItems: [RecoverPlanner.Item] = []
    var keptItems: [RecoverPlanner.Item] = []
}

/// The rows in PostgreSQL, through a connection of its own for as long as it runs.
struct PostgresRecoverStore: RecoverStore {
    let worker: DatabaseWorker
    /// For what is changed.
    private let present: DatabaseWorker

    init(snapshot worker: DatabaseWorker, present: DatabaseWorker) {
        self.worker = worker
        self.present = present
    }

    func age() async throws -> RecoverAge {
        try await present.run { connection in
            let rows = try connection.query(
                "SELECT clock, highest_object, behind_since IS NOT NULL AS behind FROM database_age",
                []
            )
            guard rows.count == 1 else { throw ControlError(.internalError, "The table database_age has no row.") }
            return RecoverAge(
                clock: try Self.number(rows[0].int64("clock"), "clock"),
                highestObject: try Self.number(rows[0].int64("highest_object"), "highest_object"),
                isBehind: try Self.required(rows[0].bool("behind"), "behind")
            )
        }
    }

    func volumes(after: Int64) async throws -> [RecoverVolumeRow] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT v.id, v.name, replace(v.uuid::text, '-', '') AS uuid, v.block_size_bytes, v.size_bytes, v.state, e.owner,
                    e.shrunk_to / v.block_size_bytes AS shrunk_to, e.shrunk_version, e.zero_from IS NOT NULL AS zeros_wait
                FROM volumes v JOIN volume_epochs e ON e.volume_id = v.id WHERE v.id > $1 ORDER BY v.id LIMIT $2
                """,
                [.int(after), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                RecoverVolumeRow(
                    id: try Self.required(rows[$0].int64("id"), "id"),
                    name: try Self.required(rows[$0].string("name"), "name"),
                    uuid: try PostgresFsckStore.bytes(hexadecimal: Self.required(rows[$0].string("uuid"), "uuid")),
                    blockSizeBytes: try Self.number(rows[$0].int64("block_size_bytes"), "block_size_bytes"),
                    sizeBytes: try Self.number(rows[$0].int64("size_bytes"), "size_bytes"),
                    state: try Self.required(rows[$0].string("state"), "state"),
                    owner: try rows[$0].int64("owner"),
                    shrink: try Self.shrink(rows[$0])
                )
            }
        }
    }

    func objects(after: Int64) async throws -> [FsckPlanner.Object] {
        try await PostgresFsckStore(snapshot: worker, present: present).objects(after: after, only: nil)
    }

    func extents(volume: Int64, after: Int64) async throws -> [RecoverPlanner.Extent] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT first_block, block_count, object_id, first_slot, copy_version FROM block_extents
                WHERE volume_id = $1 AND first_block > $2 ORDER BY first_block LIMIT $3
                """,
                [.int(volume), .int(after), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                RecoverPlanner.Extent(
                    firstBlock: try Self.number(rows[$0].int64("first_block"), "first_block"),
                    blockCount: try Self.number(rows[$0].int64("block_count"), "block_count"),
                    object: try Self.required(rows[$0].int64("object_id"), "object_id"),
                    firstSlot: try Self.number(rows[$0].int64("first_slot"), "first_slot"),
                    copyVersion: try rows[$0].int64("copy_version").flatMap { UInt64(exactly: $0) }
                )
            }
        }
    }

    func items(volume: Int64, after: Int64) async throws -> [RecoverPlanner.Item] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT block_id, coalesce((item ->> 'Version')::bigint, 0) AS version, item ? 'Moved' AS moved FROM block_items
                WHERE volume_id = $1 AND block_id > $2 ORDER BY block_id LIMIT $3
                """,
                [.int(volume), .int(after), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                RecoverPlanner.Item(
                    block: try Self.number(rows[$0].int64("block_id"), "block_id"),
                    version: try Self.number(rows[$0].int64("version"), "version"),
                    isMoved: try Self.required(rows[$0].bool("moved"), "moved")
                )
            }
        }
    }

    // MARK: Changes

    func fence(volume: Int64) async throws {
        try await present.run { connection in
            try connection.transaction { connection in
                // Statements of their own: what follows sees what ended while they waited (I3).
                _ = try connection.query("SELECT pg_advisory_xact_lock($1)", [.int(volume * 2)])
                _ = try connection.query(
                    "UPDATE volumes SET state = 'recovering' WHERE id = $1 AND state <> 'deleting'",
                    [.int(volume)]
                )
                _ = try connection.query(
                    """
                    UPDATE volume_epochs SET epoch = epoch + $2, owner = NULL, first_nexus = first_nexus + $2
                    WHERE volume_id = $1
                    """,
                    [.int(volume), .int(ControlLimits.recoverNumbersSkipped)]
                )
                _ = try connection.query("DELETE FROM nexus_marks WHERE volume_id = $1", [.int(volume)])
                _ = try connection.query("DELETE FROM nexuses WHERE volume_id = $1", [.int(volume)])
            }
        }
    }

    func leaseLeftMilliseconds(server: Int64?) async throws -> UInt64 {
        guard let server else { return 0 }
        return try await present.run { connection in
            let rows = try connection.query(
                """
                SELECT ceil(greatest(0, extract(epoch FROM lease_end - clock_timestamp())) * 1000)::bigint AS milliseconds
                FROM cache_servers WHERE id = $1
                """,
                [.int(server)]
            )
            return rows.count == 0 ? 0 : try Self.number(rows[0].int64("milliseconds"), "milliseconds")
        }
    }

    func create(_ volume: RecoverPlanner.Volume, name: String, iqn: String) async throws {
        let uuid = volume.uuid.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
        try await present.run { connection in
            try connection.transaction { connection in
                _ = try connection.query(
                    """
                    INSERT INTO volumes (id, name, iqn, uuid, size_bytes, block_size_bytes, read_only, state)
                    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4::uuid, $5, $6::integer, true, 'recovering')
                    """,
                    [
                        .int(volume.id), .text(name), .text(iqn), .text(uuid),
                        .int(Int64(clamping: volume.blockCount * UInt64(volume.blockSizeBytes))),
                        .int(Int64(volume.blockSizeBytes)),
                    ]
                )
                _ = try connection.query(
                    """
                    SELECT setval(pg_get_serial_sequence('volumes', 'id'),
                        greatest($1, (SELECT last_value FROM volumes_id_seq)))
                    """,
                    [.int(volume.id)]
                )
                _ = try connection.query(
                    "UPDATE volume_epochs SET epoch = epoch + $2, first_nexus = first_nexus + $2 WHERE volume_id = $1",
                    [.int(volume.id), .int(ControlLimits.recoverNumbersSkipped)]
                )
            }
        }
    }

    func apply(volume: Int64, _ part: RecoverPart) async throws {
        try await present.run { connection in
            try connection.transaction { connection in
                _ = try connection.query("SELECT pg_advisory_xact_lock($1)", [.int(volume * 2)])
                _ = try connection.query("SELECT pg_advisory_xact_lock($1)", [.int(volume * 2 + 1)])
                let rows = try connection.query(
                    "SELECT id FROM volumes WHERE id = $1 AND state = 'recovering' FOR UPDATE",
                    [.int(volume)]
                )
                guard rows.count == 1 else {
                    throw ControlError(.busy, "Volume \(volume) is not being recovered any more.", remedy: "Try again.")
                }
                try Self.makeLive(part.objects, of: volume, connection)
                _ = try connection.query(
                    "SELECT recover_extents($1, $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])",
                    [
                        .int(volume), Self.list(part.runs.map(\.firstBlock)), Self.list(part.runs.map(\.blockCount)),
                        Self.list(part.runs.map(\.object)), Self.list(part.runs.map(\.firstSlot)),
                    ]
                )
                _ = try connection.query(
                    """
                    DELETE FROM block_items i USING unnest($2::bigint[], $3::bigint[]) AS k (block, version)
                    WHERE i.volume_id = $1 AND i.block_id = k.block AND (i.item ->> 'Version')::bigint = k.version
                    """,
                    [.int(volume), Self.list(part.staleItems.map(\.block)), Self.list(part.staleItems.map(\.version))]
                )
                _ = try connection.query(
                    """
                    UPDATE block_items i SET item = i.item - 'Moved' - 'MovedAt', unmoved_since = now(), moved_version = NULL
                    FROM unnest($2::bigint[], $3::bigint[]) AS k (block, version)
                    WHERE i.volume_id = $1 AND i.block_id = k.block AND (i.item ->> 'Version')::bigint = k.version
                        AND i.item ? 'Moved'
                    """,
                    [.int(volume), Self.list(part.keptItems.map(\.block)), Self.list(part.keptItems.map(\.version))]
                )
            }
        }
    }

    /// An id that was handed out again meanwhile, and not mapped, belongs to the object that lies there.
    private static func makeLive(
        _ objects: [RecoverPlanner.Header],
        of volume: Int64,
        _ connection: PostgresConnection
    ) throws {
        guard !objects.isEmpty else { return }
        let rows = try connection.query(
            """
            INSERT INTO block_objects AS o (object_id, volume_id, server_id, slots, live_slots, size_bytes, state, live_at)
            OVERRIDING SYSTEM VALUE
            SELECT k.object, $1, k.server::integer, k.slots::integer, 0, k.bytes, 'live', now()
            FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[]) AS k (object, server, slots, bytes)
            ON CONFLICT (object_id) DO UPDATE SET volume_id = excluded.volume_id, server_id = excluded.server_id,
                slots = excluded.slots, live_slots = 0, size_bytes = excluded.size_bytes, state = 'live', live_at = now(),
                dead_at = NULL
            WHERE o.state = 'intended' OR (o.state = 'dead' AND o.server_id IS NULL)
            """,
            [
                .int(volume), list(objects.map(\.object)), list(objects.map(\.server)),
                list(objects.map(\.slots.count)),
                list(objects.map(\.sizeBytes)),
            ]
        )
        guard rows.affected == objects.count else {
            throw ControlError(
                .busy,
                "Objects of volume \(volume) were mapped by somebody else.",
                remedy: "Stop the cache servers, and try again."
            )
        }
    }

    func finish(volume: Int64, nextVersion: UInt64, isRidOfRemains: Bool) async throws {
        try await present.run { connection in
            try connection.transaction { connection in
                _ = try connection.query("SELECT pg_advisory_xact_lock($1)", [.int(volume * 2)])
                _ = try connection.query(
                    "UPDATE volume_epochs SET first_version = greatest(first_version, $2) + $3 WHERE volume_id = $1",
                    [.int(volume), .int(Int64(clamping: nextVersion)), .int(ControlLimits.recoverNumbersSkipped)]
                )
                if isRidOfRemains {
                    _ = try connection.query(
                        "UPDATE volume_epochs SET zero_from = NULL WHERE volume_id = $1",
                        [.int(volume)]
                    )
                }
                _ = try connection.query(
                    "UPDATE volumes SET state = 'active' WHERE id = $1 AND state = 'recovering'",
                    [.int(volume)]
                )
            }
        }
    }

    func raiseObjects(above object: UInt64) async throws {
        try await present.run { connection in
            try connection.transaction { connection in
                _ = try connection.query(
                    """
                    SELECT setval('block_objects_object_id_seq', greatest($1, (SELECT last_value FROM block_objects_object_id_seq)))
                    """,
                    [.int(Int64(clamping: object))]
                )
                _ = try connection.query(
                    "UPDATE database_age SET highest_object = $1 WHERE highest_object < $1",
                    [.int(Int64(clamping: object))]
                )
            }
        }
    }

    func noteBehind() async throws {
        try await present.run { connection in
            _ = try connection.query(
                "UPDATE database_age SET behind_since = clock_timestamp() WHERE behind_since IS NULL",
                []
            )
        }
    }

    func raiseClock(above clock: UInt64) async throws {
        try await present.run { connection in
            _ = try connection.query(
                "UPDATE database_age SET clock = greatest($1, clock) + 1, behind_since = NULL",
                [.int(Int64(clamping: clock))]
            )
        }
    }

    private static func shrink(_ row: PostgresRow) throws -> RecoverPlanner.Shrink? {
        guard let first = try row.int64("shrunk_to") else { return nil }
        return RecoverPlanner.Shrink(
            firstBlock: try number(first, "shrunk_to"),
            version: try number(row.int64("shrunk_version"), "shrunk_version"),
            isPending: try required(row.bool("zeros_wait"), "zeros_wait")
        )
    }

    private static func list(_ values: [some BinaryInteger]) -> PostgresParameter {
        .text("{" + values.map { "\($0)" }.joined(separator: ",") + "}")
    }

    private static func required<Value>(_ value: Value?, _ column: String) throws -> Value {
        try PostgresControlStore.required(value, column)
    }

    private static func number<Number: FixedWidthInteger>(_ value: Int64?, _ column: String) throws -> Number {
        try PostgresControlStore.number(value, column)
    }
}
