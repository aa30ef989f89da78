extension Statements {
    // MARK: Parts of a commit

    /// $1 volumes, $2 epochs, $3 generations, $4 types (0: none), $5 nexuses that reserved (0: none), $6 modes, $7 saved modes,
    /// $8 identifying information, $9 identifying text, $10 kinds of erasures (0: none), $11 their positions, $12 patterns.
    static let writeUnits = Statement(
        name: "write_units",
        sql: """
            INSERT INTO logical_units (volume_id, generation, reservation_type, reserved_by, mode, saved_mode,
                identifying_information, identifying_text, erasure_kind, erasure_position, erasure_pattern)
            SELECT k.v, k.generation, nullif(k.type, 0)::int2, nullif(k.reserved_by, 0), convert_from(k.mode, 'UTF8')::jsonb,
                convert_from(k.saved, 'UTF8')::jsonb, k.information, k.text, nullif(k.kind, 0)::int2, k.position, k.pattern
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::bytea[], $7::bytea[], $8::bytea[],
                    $9::bytea[], $10::int8[], $11::int8[], $12::bytea[])
                AS k (v, e, generation, type, reserved_by, mode, saved, information, text, kind, position, pattern)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            ON CONFLICT (volume_id) DO UPDATE SET generation = excluded.generation,
                reservation_type = excluded.reservation_type, reserved_by = excluded.reserved_by, mode = excluded.mode,
                saved_mode = excluded.saved_mode, identifying_information = excluded.identifying_information,
                identifying_text = excluded.identifying_text, erasure_kind = excluded.erasure_kind,
                erasure_position = excluded.erasure_position, erasure_pattern = excluded.erasure_pattern
            """
    )

    /// $1 volumes, $2 epochs: all registrations go, before those that are left are written.
    static let dropRegistrations = Statement(
        name: "drop_registrations",
        sql: """
            DELETE FROM registrations r USING unnest($1::int8[], $2::int8[]) AS k (v, e), volume_epochs g
            WHERE g.volume_id = k.v AND g.epoch = k.e AND r.volume_id = k.v
            """
    )

    /// $1 volumes, $2 epochs, $3 initiators, $4 ISIDs, $5 portal group tags, $6 relative port identifiers, $7 keys, $8 holders
    /// (0 or 1), $9 places.
    static let writeRegistrations = Statement(
        name: "write_registrations",
        sql: """
            INSERT INTO registrations (volume_id, initiator_name, isid, portal_group_tag, relative_port_identifier,
                reservation_key, holder, place)
            SELECT k.v, convert_from(k.initiator, 'UTF8'), k.isid, k.tag::int4, k.port::int4, k.key, k.holder = 1, k.place::int4
            FROM unnest($1::int8[], $2::int8[], $3::bytea[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::int8[],
                    $9::int8[])
                AS k (v, e, initiator, isid, tag, port, key, holder, place)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            """
    )

    /// $1 volumes, $2 epochs, $3 nexuses, $4 first and $5 last positions in $6 of their unit attention conditions, $6 conditions.
    static let setAttentions = Statement(
        name: "set_attentions",
        sql: """
            UPDATE nexuses x SET attentions = ($6::int8[])[k.first:k.last]::int2[]
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[]) AS k (v, e, nexus, first, last),
                volume_epochs g
            WHERE g.volume_id = k.v AND g.epoch = k.e AND x.volume_id = k.v AND x.nexus = k.nexus
            """
    )

    /// $1 volumes, $2 epochs, $3 sizes, $4 read-only (0 or 1).
    static let setTold = Statement(
        name: "set_told",
        sql: """
            INSERT INTO logical_units (volume_id, told_size_bytes, told_read_only)
            SELECT k.v, k.size, k.read_only = 1
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) AS k (v, e, size, read_only)
            JOIN volume_epochs g ON g.volume_id = k.v AND g.epoch = k.e
            ON CONFLICT (volume_id) DO UPDATE SET told_size_bytes = excluded.told_size_bytes,
                told_read_only = excluded.told_read_only
            """
    )

    /// $1 volumes, $2 epochs, $3 nexuses, $4 until when their changes are aborted, on the clock of the epoch. Two commits of an epoch
    /// may come in either order.
    static let setAborts = Statement(
        name: "set_aborts",
        sql: """
            UPDATE nexuses x SET aborted_epoch = k.e, aborted_ns = k.ns
            FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[]) AS k (v, e, nexus, ns), volume_epochs g
            WHERE g.volume_id = k.v AND g.epoch = k.e AND x.volume_id = k.v AND x.nexus = k.nexus
                AND (x.aborted_epoch IS NULL OR (x.aborted_epoch, x.aborted_ns) < (k.e, k.ns))
            """
    )

    static let units: [Statement] = [
        writeUnits, dropRegistrations, writeRegistrations, setAttentions, setAborts, setTold,
    ]

    // MARK: Takeover

    /// $1 volume.
    static let logicalUnit = Statement(
        name: "logical_unit",
        sql: """
            SELECT u.generation, coalesce(u.reservation_type, 0)::int8, coalesce(u.reserved_by, 0),
                \(mode("u.mode")), \(mode("u.saved_mode")), u.identifying_information, u.identifying_text,
                coalesce(u.erasure_kind, 0)::int8, u.erasure_position, u.erasure_pattern, u.told_size_bytes,
                coalesce(u.told_read_only, false)
            FROM logical_units u WHERE u.volume_id = $1::int8
            """
    )

    /// SWP, DSense, DExcpt and MRIE of a document.
    private static func mode(_ column: String) -> String {
        let flags = ["SWP", "DSense", "DExcpt"].map { "coalesce((\(column) ->> '\($0)')::boolean, false)" }
        return (flags + ["coalesce((\(column) ->> 'MRIE')::int8, 0)"]).joined(separator: ", ")
    }

    /// $1 volume.
    static let registrations = Statement(
        name: "registrations",
        sql: """
            SELECT r.initiator_name, r.isid, r.portal_group_tag::int8, r.relative_port_identifier::int8, r.reservation_key,
                r.holder
            FROM registrations r WHERE r.volume_id = $1::int8 ORDER BY r.place
            """
    )
}
