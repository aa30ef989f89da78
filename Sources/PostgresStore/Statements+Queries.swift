import AshlarCore

extension Statements {
    // MARK: Reads

    private static let itemColumns = """
        i.block_id, (i.item ->> 'Version')::int8, (i.item ->> 'Checksum')::int8, i.item ? 'Moved'
        """

    /// $1 volume, $2 first block, $3 end: items (kind 0) and extents (kind 1) of a run, of one snapshot.
    static let loadRegion = Statement(
        name: "load_region",
        sql: """
            SELECT 0::int8, i.block_id, (i.item ->> 'Version')::int8, (i.item ->> 'Checksum')::int8,
                (i.item ? 'Moved')::int4::int8, 0::int8, 0::int8, 0::int8
            FROM block_items i WHERE i.volume_id = $1::int8 AND i.block_id >= $2::int8 AND i.block_id < $3::int8
            UNION ALL
            SELECT 1::int8, x.first_block, x.block_count::int8, x.object_id, x.first_slot::int8, o.server_id::int8,
                coalesce(x.origin_block, 0), coalesce(x.copy_version, 0)
            FROM block_extents x JOIN block_objects o ON \(isKey("o.object_id", "x.object_id"))
            WHERE \(overlap("x", volume: "$1::int8", first: "$2::int8", end: "$3::int8"))
            ORDER BY 1, 2
            """
    )

    /// $1 volume, $2 first block, $3 end, $4 most rows of items and of extents, $5 most runs of each: runs of blocks that have items
    /// (kind 0) or extents (kind 1), each with its first block, its blocks and its rows, of one snapshot. Neighbours that touch
    /// have the same distance from the number of blocks before them.
    static let surveyMap = Statement(
        name: "survey_map",
        sql: """
            WITH items AS MATERIALIZED (
                SELECT i.block_id FROM block_items i
                WHERE i.volume_id = $1::int8 AND i.block_id >= $2::int8 AND i.block_id < $3::int8
                ORDER BY i.block_id LIMIT $4::int8
            ), extents AS MATERIALIZED (
                SELECT x.first_block, x.block_count FROM block_extents x
                WHERE \(overlap("x", volume: "$1::int8", first: "$2::int8", end: "$3::int8"))
                ORDER BY x.first_block LIMIT $4::int8
            )
            (SELECT 0::int8, min(block_id), count(*), count(*)
            FROM (SELECT block_id, block_id - row_number() OVER (ORDER BY block_id) AS run FROM items) i
            GROUP BY run ORDER BY 2 LIMIT $5::int8)
            UNION ALL
            (SELECT 1::int8, min(first_block), sum(block_count)::int8, count(*)
            FROM (SELECT first_block, block_count,
                    first_block + block_count - sum(block_count) OVER (ORDER BY first_block) AS run FROM extents) x
            GROUP BY run ORDER BY 2 LIMIT $5::int8)
            ORDER BY 1, 2
            """
    )

    /// $1 volume, $2 blocks. The journal is named here and not in a function: so it is locked before the snapshot is taken, and no frame
    /// of the snapshot is truncated meanwhile.
    static let loadBytes = Statement(
        name: "load_bytes",
        sql: """
            SELECT \(itemColumns), substr(j.data, i.frame_offset + 1, i.data_bytes) FROM unnest($2::int8[]) AS k (block)
            JOIN block_items i ON i.volume_id = $1::int8 AND \(isKey("i.block_id", "k.block"))
            CROSS JOIN LATERAL (
                SELECT string_agg(f.data, ''::bytea ORDER BY f.frame) AS data FROM block_journal f
                WHERE f.segment = i.segment AND f.frame >= i.frame
                    AND f.frame <= i.frame + (i.frame_offset + i.data_bytes - 1) / \(JournalLayout.frameBytes)
            ) j
            """
    )

    static let reads: [Statement] = [loadRegion, surveyMap, loadBytes]

    // MARK: Leases

    /// $1 name, $2 endpoint, $3 lease in milliseconds. Registrations of the past that own nothing are forgotten.
    static let registerServer = Statement(
        name: "register_server",
        sql: """
            WITH old AS (
                DELETE FROM cache_servers s WHERE s.lease_end < now() - interval '1 day'
                    AND NOT EXISTS (SELECT FROM volume_epochs e WHERE e.owner = s.id)
            )
            INSERT INTO cache_servers (name, endpoint, lease_end)
            VALUES ($1::text, $2::text, clock_timestamp() + $3::int8 * interval '1 ms') RETURNING id
            """
    )

    /// $1 server, $2 lease in milliseconds.
    static let renewLease = Statement(
        name: "renew_lease",
        sql: """
            UPDATE cache_servers SET lease_end = clock_timestamp() + $2::int8 * interval '1 ms'
            WHERE id = $1::int8 AND lease_end > clock_timestamp()
            """
    )

    /// $1 name, $2 server that stays.
    static let releaseLeases = Statement(
        name: "release_leases",
        sql: """
            UPDATE cache_servers SET lease_end = clock_timestamp()
            WHERE name = $1::text AND id <> $2::int8 AND lease_end > clock_timestamp()
            """
    )

    /// $1 server: it is about to end.
    static let markStopping = Statement(
        name: "mark_stopping",
        sql: "UPDATE cache_servers SET stopping = true WHERE id = $1::int8"
    )

    /// $1 milliseconds in which starts count: cache servers that live, with what they own or are to own.
    static let surveyServers = Statement(
        name: "survey_servers",
        sql: """
            WITH owned AS (
                SELECT coalesce(e.owner, e.handed_to) AS server,
                    EXISTS (SELECT FROM nexuses x WHERE x.volume_id = e.volume_id) AS used
                FROM volume_epochs e WHERE e.owner IS NOT NULL OR e.handed_to IS NOT NULL
            ), counts AS (
                SELECT server, count(*) FILTER (WHERE used) AS used, count(*) FILTER (WHERE NOT used) AS idle
                FROM owned GROUP BY server
            )
            SELECT s.id, s.name, s.endpoint, (s.stopping OR coalesce(n.draining, false)),
                coalesce(c.used, 0), coalesce(c.idle, 0),
                ceil(extract(epoch FROM clock_timestamp() - s.started_at) * 1000)::int8,
                (SELECT count(*) FROM cache_servers p WHERE p.name = s.name
                    AND p.started_at > clock_timestamp() - $1::int8 * interval '1 ms')
            FROM cache_servers s LEFT JOIN cache_nodes n ON n.name = s.name LEFT JOIN counts c ON c.server = s.id
            WHERE s.lease_end > clock_timestamp() ORDER BY s.id
            """
    )

    /// $1 server: volumes that were given up for it.
    static let handedOver = Statement(
        name: "handed_over",
        sql: """
            SELECT e.volume_id FROM volume_epochs e WHERE e.handed_to = $1::int8 AND e.owner IS NULL
            ORDER BY e.volume_id LIMIT 1024
            """
    )

    static let leases: [Statement] = [registerServer, renewLease, releaseLeases, markStopping]

    // MARK: Takeover

    /// $1 volume, $2 server: another owner with a living lease or NULL, its endpoint, milliseconds it has left, whether the
    /// lease of the server itself lives.
    static let ownerStatus = Statement(
        name: "owner_status",
        sql: """
            SELECT o.id, o.endpoint, ceil(extract(epoch FROM o.lease_end - clock_timestamp()) * 1000)::int8,
                EXISTS (SELECT FROM cache_servers m WHERE m.id = $2::int8 AND m.lease_end > clock_timestamp())
            FROM volumes v JOIN volume_epochs e ON e.volume_id = v.id
            LEFT JOIN cache_servers o ON o.id <> $2::int8 AND o.lease_end > clock_timestamp() AND (o.id = e.owner
                OR (e.owner IS NULL AND o.id = e.handed_to AND e.handed_at > clock_timestamp() - interval '5 s'))
            WHERE v.id = $1::int8 AND v.state = 'active'
            """
    )

    /// $1 milliseconds as text, until the end of the transaction.
    static let setLockTimeout = Statement(
        name: "set_lock_timeout",
        sql: "SELECT set_config('lock_timeout', $1::text, true)"
    )

    /// $1 volume: waits for its transactions and keeps new ones out.
    static let lockExclusive = Statement(
        name: "lock_exclusive",
        sql: "SELECT pg_advisory_xact_lock($1::int8 * 2)"
    )

    /// $1 volume, $2 server: waits for a renewal of the old owner that is under way, and keeps new ones out.
    static let lockOwnerLease = Statement(
        name: "lock_owner_lease",
        sql: """
            SELECT 1 FROM cache_servers WHERE id = (SELECT owner FROM volume_epochs WHERE volume_id = $1::int8)
                AND id <> $2::int8 FOR SHARE
            """
    )

    /// $1 volume, $2 server: begins an epoch, unless another owner's lease lives, or that of a server for which the volume was given
    /// up just now, or the server's own has ended.
    static let bumpEpoch = Statement(
        name: "bump_epoch",
        sql: """
            UPDATE volume_epochs e SET epoch = e.epoch + 1, owner = $2::int8, taken_at = clock_timestamp(),
                handed_to = NULL, handed_at = NULL
            WHERE e.volume_id = $1::int8
                AND EXISTS (SELECT FROM volumes v WHERE v.id = $1::int8 AND v.state = 'active')
                AND EXISTS (SELECT FROM cache_servers m WHERE m.id = $2::int8 AND m.lease_end > clock_timestamp())
                AND NOT EXISTS (SELECT FROM cache_servers o WHERE o.id <> $2::int8 AND o.lease_end > clock_timestamp()
                    AND (o.id = e.owner OR (e.owner IS NULL AND o.id = e.handed_to
                        AND e.handed_at > clock_timestamp() - interval '5 s')))
            RETURNING e.epoch, e.first_version, e.first_nexus
            """
    )

    /// $1 volume, $2 epoch, $3 server, $4 successor: gives a volume up for another server.
    static let relinquish = Statement(
        name: "relinquish",
        sql: """
            UPDATE volume_epochs e SET owner = NULL, handed_to = $4::int8, handed_at = clock_timestamp()
            WHERE e.volume_id = $1::int8 AND e.epoch = $2::int8
                AND (e.owner = $3::int8 OR (e.owner IS NULL AND e.handed_to = $4::int8))
            """
    )

    /// $1 volume: marks that a commit left behind when their nexus had been closed.
    static let dropOrphanMarks = Statement(
        name: "drop_orphan_marks",
        sql: """
            DELETE FROM nexus_marks m WHERE m.volume_id = $1::int8 AND NOT EXISTS (
                SELECT FROM nexuses x WHERE x.volume_id = m.volume_id AND x.nexus = m.nexus)
            """
    )

    /// $1 volume: its nexuses, one row for each lane that marked.
    static let nexuses = Statement(
        name: "nexuses",
        sql: """
            SELECT x.nexus, x.initiator_name, x.isid, x.portal_group_tag::int8, x.node, coalesce(m.low_water, 0), m.done,
                x.attentions::int8[], x.aborted_epoch, x.aborted_ns
            FROM nexuses x LEFT JOIN nexus_marks m ON m.volume_id = x.volume_id AND m.nexus = x.nexus
            WHERE x.volume_id = $1::int8 ORDER BY x.nexus, m.lane
            """
    )

    /// $1 volume: unmoved items, all items, blocks in extents; without what a shrink has left. The sum keeps the query for the few
    /// unmoved items from being answered by the index of all.
    static let countItems = Statement(
        name: "count_items",
        sql: """
            WITH served AS MATERIALIZED (
                SELECT least(v.size_bytes, e.zero_from) / v.block_size_bytes AS stop
                FROM volumes v JOIN volume_epochs e ON e.volume_id = v.id WHERE v.id = $1::int8
            )
            SELECT (SELECT count(*) FROM block_items i WHERE i.volume_id = $1::int8 AND i.unmoved_since IS NOT NULL
                    AND i.block_id + 0 < (SELECT stop FROM served)),
                (SELECT count(*) FROM block_items i WHERE i.volume_id = $1::int8 AND i.block_id < (SELECT stop FROM served)),
                (SELECT coalesce(sum(least(x.block_count, s.stop - x.first_block)), 0) FROM block_extents x, served s
                    WHERE x.volume_id = $1::int8 AND x.first_block < s.stop)::int8
            """
    )

    /// $1 volume, $2 server: ends the sessions that keep a takeover waiting, unless they belong to a living owner.
    static let endHolders = Statement(
        name: "end_holders",
        sql: """
            SELECT pg_terminate_backend(l.pid) FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
                AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND l.classid::int8 = ($1::int8 * 2) >> 32 AND l.objid::int8 = ($1::int8 * 2) & 4294967295
                AND NOT EXISTS (
                    SELECT FROM volume_epochs e JOIN cache_servers o ON o.id = e.owner
                    WHERE e.volume_id = $1::int8 AND o.id <> $2::int8 AND o.lease_end > clock_timestamp())
            """
    )

    static let takeovers: [Statement] =
        blocks + [
            ownerStatus, setLockTimeout, lockExclusive, lockOwnerLease, bumpEpoch, relinquish, dropOrphanMarks, nexuses,
            endHolders,
            describeVolume, logicalUnit, registrations,
        ]

    // MARK: Nexuses

    /// $1 volume, $2 epoch, $3 nexus, $4 initiator, $5 ISID, $6 portal group tag: older nexuses of the same ports go.
    static let closeOlderNexuses = Statement(
        name: "close_older_nexuses",
        sql: """
            WITH old AS (
                DELETE FROM nexuses x USING volume_epochs g
                WHERE g.volume_id = $1::int8 AND g.epoch = $2::int8 AND x.volume_id = $1::int8 AND x.nexus < $3::int8
                    AND x.initiator_name = $4::text AND x.isid = $5::int8 AND x.portal_group_tag = $6::int8
                RETURNING x.volume_id, x.nexus
            )
            DELETE FROM nexus_marks m USING old WHERE m.volume_id = old.volume_id AND m.nexus = old.nexus
            """
    )

    /// As above, $7 node.
    static let insertNexus = Statement(
        name: "insert_nexus",
        sql: """
            INSERT INTO nexuses (volume_id, nexus, initiator_name, isid, portal_group_tag, node)
            SELECT $1::int8, $3::int8, $4::text, $5::int8, $6::int8::int4, $7::text
            FROM volume_epochs g WHERE g.volume_id = $1::int8 AND g.epoch = $2::int8
            ON CONFLICT (volume_id, nexus) DO NOTHING
            """
    )

    /// $1 volume, $2 epoch, $3 nexus.
    static let raiseNexuses = Statement(
        name: "raise_nexuses",
        sql: """
            UPDATE volume_epochs SET first_nexus = $3::int8 + 1
            WHERE volume_id = $1::int8 AND epoch = $2::int8 AND first_nexus <= $3::int8
            """
    )

    /// $1 volume, $2 epoch, $3 nexus.
    static let closeNexus = Statement(
        name: "close_nexus",
        sql: """
            WITH old AS (
                DELETE FROM nexuses x USING volume_epochs g
                WHERE g.volume_id = $1::int8 AND g.epoch = $2::int8 AND x.volume_id = $1::int8 AND x.nexus = $3::int8
                RETURNING x.volume_id, x.nexus
            )
            DELETE FROM nexus_marks m USING old WHERE m.volume_id = old.volume_id AND m.nexus = old.nexus
            """
    )

    /// $1 volume, $2 number: object ids, each with its row (I6).
    static let reserveObjects = Statement(
        name: "reserve_objects",
        sql: """
            INSERT INTO block_objects (volume_id) SELECT $1::int8 FROM generate_series(1, $2::int8) RETURNING object_id
            """
    )

    // MARK: Registry

    private static let volumeColumns = """
        v.id, v.name, v.iqn, v.uuid, v.size_bytes, v.block_size_bytes::int8, v.logical_block_size_bytes::int8, v.read_only,
            v.revision, v.config ->> 'move', v.config ->> 'readFill',
            (v.config ->> 'unmovedItemsMaximum')::int8, (v.config ->> 'unmovedBytesMaximum')::int8,
            (v.config ->> 'unmovedAgeMaximumSeconds')::int8, (v.config ->> 'cachedBytesMaximum')::int8,
            (v.config ->> 'compactBelowPercent')::int8, (v.config ->> 'directWriteMinimumBytes')::int8,
            ARRAY(SELECT a.initiator_name FROM access_initiators a WHERE a.volume_id = v.id ORDER BY 1),
            ARRAY(SELECT c.name FROM chap_credentials c WHERE c.volume_id = v.id AND NOT c.mutual ORDER BY c.name),
            ARRAY(SELECT c.secret FROM chap_credentials c WHERE c.volume_id = v.id AND NOT c.mutual ORDER BY c.name),
            ARRAY(SELECT c.name FROM chap_credentials c WHERE c.volume_id = v.id AND c.mutual),
            ARRAY(SELECT c.secret FROM chap_credentials c WHERE c.volume_id = v.id AND c.mutual),
            (SELECT z.zero_from FROM volume_epochs z WHERE z.volume_id = v.id),
            (v.config ->> 'writeThroughMinimumBytes')::int8, (v.config ->> 'readsBothAtOnce')::boolean
        """

    /// $1 volume.
    static let describeVolume = Statement(
        name: "describe_volume",
        sql: "SELECT \(volumeColumns) FROM volumes v WHERE v.id = $1::int8 AND v.state = 'active'"
    )

    /// $1 iSCSI name.
    static let volumeByIQN = Statement(
        name: "volume_by_iqn",
        sql: "SELECT \(volumeColumns) FROM volumes v WHERE v.iqn = $1::text AND v.state = 'active'"
    )

    /// $1 name, $2 number of volumes.
    static let volumesAfter = Statement(
        name: "volumes_after",
        sql: """
            SELECT \(volumeColumns) FROM volumes v WHERE v.name > $1::text AND v.state = 'active'
            ORDER BY v.name LIMIT $2::int8
            """
    )

    /// $1 node, $2 portal, $3 portal group tag, $4 release, $5 sessions.
    static let heartbeat = Statement(
        name: "heartbeat",
        sql: """
            INSERT INTO target_nodes AS t (node, portal, portal_group_tag, release, sessions)
            VALUES ($1::text, $2::text, $3::int8::int4, $4::text, $5::int8)
            ON CONFLICT (node) DO UPDATE SET portal = excluded.portal, portal_group_tag = excluded.portal_group_tag,
                release = excluded.release, sessions = excluded.sessions, last_seen = now()
            """
    )

    /// $1 node, $2 portal, $3 portal group tag, $4 relative port identifier, $5 release, $6 sessions, $7 1: it receives
    /// logins; the nodes that live.
    static let reportTarget = Statement(
        name: "report_target",
        sql: """
            WITH own AS (
                INSERT INTO target_nodes AS t
                    (node, portal, portal_group_tag, relative_port_identifier, release, sessions, receives_logins)
                VALUES ($1::text, $2::text, $3::int8::int4, $4::int8::int4, $5::text, $6::int8, $7::int8 = 1)
                ON CONFLICT (node) DO UPDATE SET portal = excluded.portal, portal_group_tag = excluded.portal_group_tag,
                    relative_port_identifier = excluded.relative_port_identifier, release = excluded.release,
                    sessions = excluded.sessions, receives_logins = excluded.receives_logins, last_seen = now()
                RETURNING t.*
            ), living AS (
                SELECT * FROM own
                UNION ALL
                SELECT * FROM target_nodes t WHERE t.node <> $1::text
                    AND t.last_seen > now() - \(Limits.targetLifeSeconds) * interval '1 s'
            )
            SELECT n.node, n.portal, n.portal_group_tag::int8, n.relative_port_identifier::int8, n.release, n.sessions,
                n.receives_logins, n.draining
            FROM living n ORDER BY n.node LIMIT \(Limits.targetNodesMaximum)
            """
    )

    /// Bytes of the write-ahead log.
    static let logBytes = Statement(
        name: "log_bytes",
        sql: "SELECT coalesce(sum(size), 0)::int8 FROM pg_ls_waldir()"
    )

    static let sessions: [Statement] =
        blocks + [
            lockShared, guardEpochs, closeOlderNexuses, insertNexus, raiseNexuses, closeNexus, markNexuses,
            reserveObjects,
            volumeByIQN, volumesAfter, heartbeat, reportTarget, logBytes, surveyServers, handedOver,
        ]

    // MARK: Background

    /// $1 volume, $2 number: the queue.
    static let moveCandidates = Statement(
        name: "move_candidates",
        sql: """
            SELECT \(itemColumns), \(ageMilliseconds) FROM block_items i
            WHERE i.volume_id = $1::int8 AND i.unmoved_since IS NOT NULL
            ORDER BY i.unmoved_since, i.block_id LIMIT $2::int8
            """
    )

    /// $1 volume, $2 number, $3 first block.
    static let moveNeighbours = Statement(
        name: "move_neighbours",
        sql: """
            SELECT \(itemColumns), \(ageMilliseconds) FROM block_items i
            WHERE i.volume_id = $1::int8 AND i.unmoved_since IS NOT NULL AND i.block_id >= $3::int8
            ORDER BY i.volume_id, i.block_id LIMIT $2::int8
            """
    )

    private static let ageMilliseconds = """
        greatest(0, (extract(epoch FROM clock_timestamp() - i.unmoved_since) * 1000)::int8)
        """

    /// $1 volume, $2 number.
    static let evictionCandidates = Statement(
        name: "eviction_candidates",
        sql: """
            SELECT \(itemColumns) FROM block_items i WHERE i.volume_id = $1::int8 AND i.moved_version IS NOT NULL
            ORDER BY i.moved_version, i.block_id LIMIT $2::int8
            """
    )

    /// $1 blocks that a step looks at, $2 percent below which a segment is emptied, $3 frames that may be put into one, $4 bytes of a
    /// frame: whether nothing is left to do, blocks that were relocated, segments that became free.
    static let cleanJournal = Statement(
        name: "clean_journal",
        sql: "SELECT c.is_done, c.relocated, c.emptied FROM journal_clean($1::int8, $2::int8, $3::int8, $4::int8) c"
    )

    private static let objectColumns = """
        o.object_id, o.volume_id, coalesce(o.server_id, 0)::int8, o.slots::int8, o.live_slots::int8, o.size_bytes
        """

    /// $1 volume, $2 percent, $3 number: an object, and an extent of it, in each row. Objects on a server that is drained are
    /// rewritten whatever their share; those of which only damaged slots are left are set aside.
    static let compactionCandidates = Statement(
        name: "compaction_candidates",
        sql: """
            WITH sparse AS MATERIALIZED (
                SELECT * FROM block_objects o WHERE o.volume_id = $1::int8 AND o.state = 'live' AND o.live_slots > 0
                    AND (o.live_slots::int8 * 100 < o.slots::int8 * $2::int8
                        OR o.server_id IN (SELECT s.id FROM object_servers s WHERE s.draining))
                    AND (NOT EXISTS (SELECT FROM damaged_slots d WHERE d.object_id = o.object_id)
                        OR o.live_slots > \(damagedReferences))
                ORDER BY o.live_slots::float8 / o.slots, o.object_id LIMIT $3::int8
            )
            SELECT \(objectColumns), x.first_block, x.block_count::int8, x.first_slot::int8,
                coalesce(x.origin_block, 0), coalesce(x.copy_version, 0)
            FROM sparse o JOIN block_extents x ON \(isKey("x.object_id", "o.object_id")) AND x.volume_id = o.volume_id
            ORDER BY o.live_slots::float8 / o.slots, o.object_id, x.first_block
            """
    )

    /// $1 age in milliseconds, $2 number: intents that nobody mapped.
    static let sweepIntents = Statement(
        name: "sweep_intents",
        sql: """
            UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = ANY (ARRAY(
                SELECT object_id FROM block_objects
                WHERE state = 'intended' AND intended_at < now() - $1::int8 * interval '1 ms'
                ORDER BY intended_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED)) AND state = 'intended'
            """
    )

    /// $1 number: live objects to which no extent refers (M7).
    static let sweepEmpty = Statement(
        name: "sweep_empty",
        sql: """
            UPDATE block_objects SET state = 'dead', dead_at = now() WHERE object_id = ANY (ARRAY(
                SELECT o.object_id FROM block_objects o
                WHERE o.state = 'live' AND o.is_empty
                    AND NOT EXISTS (SELECT FROM block_extents x WHERE x.object_id = o.object_id)
                ORDER BY o.object_id LIMIT $1::int8 FOR UPDATE SKIP LOCKED)) AND state = 'live' AND is_empty
            """
    )

    /// $1 grace in milliseconds, $2 number: dead intents. No server is known for them: what may have been put lies there
    /// without a row and is found by the server's own scan (M8).
    static let forgetIntents = Statement(
        name: "forget_intents",
        sql: """
            DELETE FROM block_objects WHERE object_id = ANY (ARRAY(
                SELECT object_id FROM block_objects
                WHERE state = 'dead' AND server_id IS NULL AND dead_at < now() - \(deadAge(milliseconds: "$1"))
                ORDER BY dead_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED))
            """
    )

    /// $1 grace in milliseconds, $2 number.
    static let deadObjects = Statement(
        name: "dead_objects",
        sql: """
            SELECT \(objectColumns) FROM block_objects o
            WHERE o.state = 'dead' AND o.server_id IS NOT NULL AND o.dead_at < now() - \(deadAge(milliseconds: "$1"))
            ORDER BY o.dead_at LIMIT $2::int8
            """
    )

    /// $1 objects.
    static let forgetObjects = Statement(
        name: "forget_objects",
        sql: "DELETE FROM block_objects WHERE object_id = ANY ($1::int8[]) AND state = 'dead'"
    )

    /// $1 objects.
    static let knownObjects = Statement(
        name: "known_objects",
        sql: "SELECT object_id FROM block_objects WHERE object_id = ANY ($1::int8[])"
    )

    /// $1 volume, $2 number of rows.
    static let deleteVolume = Statement(
        name: "delete_volume",
        sql: "SELECT delete_volume_step($1::int8, $2::int8::int4)"
    )

    static let background: [Statement] =
        blocks + scrubs + [
            countItems, moveCandidates, moveNeighbours, evictionCandidates, compactionCandidates, sweepIntents,
            sweepEmpty,
            forgetIntents, cleanJournal,
            deadObjects, forgetObjects, knownObjects, deleteVolume,
        ]
}
