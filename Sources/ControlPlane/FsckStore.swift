import PostgresStore

/// The rows that a check reads in a snapshot, page by page, and the repairs that it makes.
protocol FsckStore: SnapshotStore {
    /// The key of a volume; nil where there is none.
    func volumeKey(named name: String) async throws -> Int64?
    /// Volumes behind `after`, of one volume where it is named.
    func volumes(after: Int64, only: Int64?) async throws -> [FsckPlanner.Volume]
    /// Objects behind `after`.
    func objects(after: Int64, only: Int64?) async throws -> [FsckPlanner.Object]
    /// Extents behind a volume and first block.
    func extents(after: (volume: Int64, block: Int64), only: Int64?) async throws -> [FsckPlanner.Extent]
    /// Items behind a volume and block.
    func items(after: (volume: Int64, block: Int64), only: Int64?) async throws -> [FsckPlanner.Item]
    /// How many items and extents there are about, for a progress bar.
    func estimate() async throws -> UInt64
    /// Which of these objects have a row now, and which of those are live; outside the snapshot.
    func states(of objects: [Int64]) async throws -> [Int64: String]
    /// Makes a repair in a transaction of its own; what was done, nil where it was not needed any more.
    func repair(_ repair: FsckPlanner.Repair) async throws -> String?
}

/// A check's rows in PostgreSQL, through a connection of its own for as long as it runs.
struct PostgresFsckStore: FsckStore {
    let worker: DatabaseWorker
    /// For questions outside the snapshot.
    private let present: DatabaseWorker

    init(snapshot worker: DatabaseWorker, present: DatabaseWorker) {
        self.worker = worker
        self.present = present
    }

    func volumeKey(named name: String) async throws -> Int64? {
        try await worker.run { connection in
            let rows = try connection.query("SELECT id FROM volumes WHERE name = $1", [.text(name)])
            return rows.count == 0 ? nil : try rows[0].int64("id")
        }
    }

    func volumes(after: Int64, only: Int64?) async throws -> [FsckPlanner.Volume] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT v.id, v.size_bytes, v.block_size_bytes, e.zero_from FROM volumes v
                LEFT JOIN volume_epochs e ON e.volume_id = v.id
                WHERE v.id > $1 AND ($2::bigint IS NULL OR v.id = $2) ORDER BY v.id LIMIT $3
                """,
                [.int(after), Self.optional(only), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                FsckPlanner.Volume(
                    id: try Self.required(rows[$0].int64("id"), "id"),
                    sizeBytes: try Self.number(rows[$0].int64("size_bytes"), "size_bytes"),
                    blockSizeBytes: try Self.number(rows[$0].int64("block_size_bytes"), "block_size_bytes"),
                    isShrinking: try rows[$0].int64("zero_from") != nil
                )
            }
        }
    }

    func objects(after: Int64, only: Int64?) async throws -> [FsckPlanner.Object] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT object_id, volume_id, server_id, slots, live_slots, state,
                    floor(extract(epoch FROM clock_timestamp() - intended_at))::bigint AS age
                FROM block_objects WHERE object_id > $1 AND ($2::bigint IS NULL OR volume_id = $2)
                ORDER BY object_id LIMIT $3
                """,
                [.int(after), Self.optional(only), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                FsckPlanner.Object(
                    id: try Self.required(rows[$0].int64("object_id"), "object_id"),
                    volume: try Self.required(rows[$0].int64("volume_id"), "volume_id"),
                    server: try rows[$0].int64("server_id").flatMap { Int32(exactly: $0) },
                    slots: try Self.required(rows[$0].int64("slots"), "slots"),
                    liveSlots: try Self.required(rows[$0].int64("live_slots"), "live_slots"),
                    state: try Self.required(rows[$0].string("state"), "state"),
                    ageSeconds: try Self.required(rows[$0].int64("age"), "age")
                )
            }
        }
    }

    func extents(after: (volume: Int64, block: Int64), only: Int64?) async throws -> [FsckPlanner.Extent] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT volume_id, first_block, block_count, object_id, first_slot FROM block_extents
                WHERE (volume_id, first_block) > ($1, $2) AND ($3::bigint IS NULL OR volume_id = $3)
                ORDER BY volume_id, first_block LIMIT $4
                """,
                [.int(after.volume), .int(after.block), Self.optional(only), .int(ControlLimits.fsckPageRows)]
            )
            return try (0..<rows.count).map {
                FsckPlanner.Extent(
                    volume: try Self.required(rows[$0].int64("volume_id"), "volume_id"),
                    firstBlock: try Self.required(rows[$0].int64("first_block"), "first_block"),
                    blockCount: try Self.required(rows[$0].int64("block_count"), "block_count"),
                    object: try Self.required(rows[$0].int64("object_id"), "object_id"),
                    firstSlot: try Self.required(rows[$0].int64("first_slot"), "first_slot")
                )
            }
        }
    }

    func items(after: (volume: Int64, block: Int64), only: Int64?) async throws -> [FsckPlanner.Item] {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT i.volume_id, i.block_id, (i.item ->> 'Version')::bigint AS version,
                    (i.item ->> 'Length')::bigint AS length, (i.item ->> 'Checksum')::bigint AS checksum,
                    i.item ? 'Moved' AS moved, encode(i.data, 'hex') AS data,
                    EXISTS (SELECT FROM block_extents e WHERE e.volume_id = i.volume_id
                        AND e.first_block <= i.block_id AND e.first_block > i.block_id - 4096
                        AND e.first_block + e.block_count > i.block_id) AS mapped
                FROM block_items i
                WHERE (i.volume_id, i.block_id) > ($1, $2) AND ($3::bigint IS NULL OR i.volume_id = $3)
                ORDER BY i.volume_id, i.block_id LIMIT $4
                """,
                [.int(after.volume), .int(after.block), Self.optional(only), .int(ControlLimits.fsckItemPageRows)]
            )
            return try (0..<rows.count).map {
                FsckPlanner.Item(
                    volume: try Self.required(rows[$0].int64("volume_id"), "volume_id"),
                    block: try Self.required(rows[$0].int64("block_id"), "block_id"),
                    version: try rows[$0].int64("version"),
                    length: try rows[$0].int64("length"),
                    checksum: try rows[$0].int64("checksum"),
                    isMoved: try Self.required(rows[$0].bool("moved"), "moved"),
                    isMapped: try Self.required(rows[$0].bool("mapped"), "mapped"),
                    bytes: try Self.bytes(hexadecimal: Self.required(rows[$0].string("data"), "data"))
                )
            }
        }
    }

    func estimate() async throws -> UInt64 {
        try await worker.run { connection in
            let rows = try connection.query(
                """
                SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint AS rows FROM pg_class
                WHERE oid IN ('block_items'::regclass, 'block_extents'::regclass, 'block_objects'::regclass)
                """,
                []
            )
            return UInt64(max(0, try Self.required(rows[0].int64("rows"), "rows")))
        }
    }

    func states(of objects: [Int64]) async throws -> [Int64: String] {
        guard !objects.isEmpty else { return [:] }
        let list = "{" + objects.map(String.init).joined(separator: ",") + "}"
        return try await present.run { connection in
            let rows = try connection.query(
                "SELECT object_id, state FROM block_objects WHERE object_id = ANY ($1::bigint[])",
                [.text(list)]
            )
            var states: [Int64: String] = [:]
            for index in 0..<rows.count {
                let id = try Self.required(rows[index].int64("object_id"), "object_id")
                states[id] = try Self.required(rows[index].string("state"), "state")
            }
            return states
        }
    }

    func repair(_ repair: FsckPlanner.Repair) async throws -> String? {
        try await present.run { connection in
            try connection.transaction { connection in
                switch repair {
                case .recountLiveSlots(let object, let volume):
                    return try Self.recount(object, volume, connection)
                case .giveUpIntent(let object):
                    let rows = try connection.query(
                        """
                        UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = $1
                            AND state = 'intended' AND intended_at < now() - make_interval(secs => $2)
                        """,
                        [.int(object), .int(ControlLimits.orphanIntentSeconds)]
                    )
                    return rows.affected > 0 ? "object \(object): old intent given up" : nil
                }
            }
        }
    }

    /// Under the lock that everything takes which changes extents of the volume, in statements of its own (I3).
    private static func recount(_ object: Int64, _ volume: Int64, _ connection: PostgresConnection) throws -> String? {
        _ = try connection.query("SELECT pg_advisory_xact_lock_shared($1)", [.int(volume * 2)])
        _ = try connection.query("SELECT pg_advisory_xact_lock($1)", [.int(volume * 2 + 1)])
        let rows = try connection.query(
            """
            UPDATE block_objects o SET live_slots = c.blocks
            FROM (SELECT coalesce(sum(block_count), 0)::bigint AS blocks FROM block_extents WHERE object_id = $1) c
            WHERE o.object_id = $1 AND o.state = 'live' AND o.live_slots <> c.blocks
            RETURNING o.live_slots
            """,
            [.int(object)]
        )
        guard rows.count == 1 else { return nil }
        return "object \(object): live slots set to \(try required(rows[0].int64("live_slots"), "live_slots"))"
    }

    private static func optional(_ value: Int64?) -> PostgresParameter { value.map { .int($0) } ?? .null }

    private static func required<Value>(_ value: Value?, _ column: String) throws -> Value {
        try PostgresControlStore.required(value, column)
    }

    private static func number<Number: FixedWidthInteger>(_ value: Int64?, _ column: String) throws -> Number {
        try PostgresControlStore.number(value, column)
    }

    /// The bytes that pairs of hexadecimal digits stand for.
    static func bytes(hexadecimal text: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(text.utf8.count / 2)
        var high: UInt8?
        for digit in text.utf8 {
            let value: UInt8
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): value = digit - UInt8(ascii: "a") + 10
            default: throw ControlError(.internalError, "PostgreSQL answers bytes that are not hexadecimal.")
            }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return bytes
    }
}
