import AshlarCore
import NIOConcurrencyHelpers
import NIOCore
import Ownership
import PostgresStore
import Testing

/// Every kind of request with every fault (D30, D31): what is said of it is true, and what it did was done once or not at all.
@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct FaultTests {
    /// Gives one fault to the next job that has a statement.
    final class Planter: Sendable {
        private let next = NIOLockedValueBox<(statement: String, fault: InjectedFault)?>(nil)

        func plant(_ fault: InjectedFault, at statement: String) {
            next.withLockedValue { $0 = (statement, fault) }
        }

        var isTaken: Bool { next.withLockedValue { $0 == nil } }

        var plan: FaultPlan {
            FaultPlan { [next] _, statements in
                next.withLockedValue { planted in
                    guard let (statement, fault) = planted, statements.contains(statement) else { return nil }
                    planted = nil
                    return fault
                }
            }
        }
    }

    /// A database with a store whose connections can be broken. One task at a time asks the observer.
    final class Bench: @unchecked Sendable {
        let fixture: Fixture
        let planter = Planter()
        let store: PostgresBlockStore
        let observer: PostgresConnection
        /// A volume that is being deleted.
        let doomed: VolumeID

        init() async throws {
            fixture = try await Fixture()
            observer = try fixture.connect()
            try observer.script(FaultPlan.schema)
            doomed = try Fixture.makeVolume(observer, "doomed")
            var configuration = fixture.configuration
            configuration.faults = planter.plan
            configuration.commitConnections = 1
            store = PostgresBlockStore(configuration, logger: quiet)
        }

        deinit { store.shutdown() }

        func result<Value: Sendable>(
            _ body: (@escaping @Sendable (Result<Value, StoreFailure>) -> Void) -> Void
        ) async -> Result<Value, StoreFailure> {
            await withCheckedContinuation { continuation in body { continuation.resume(returning: $0) } }
        }

        /// Everything that requests change, but for times.
        func state() throws -> String {
            let rows = try observer.query(
                """
                SELECT jsonb_build_array(
                    (SELECT jsonb_agg(jsonb_build_array(block_id, item - '{WrittenAt,MovedAt}'::text[], md5(i.data)) ORDER BY block_id)
                        FROM block_items i),
                    (SELECT jsonb_agg(to_jsonb(x) ORDER BY first_block) FROM block_extents x),
                    (SELECT jsonb_agg(jsonb_build_array(object_id, state, slots, live_slots) ORDER BY object_id)
                        FROM block_objects),
                    (SELECT jsonb_agg(to_jsonb(n) - 'opened_at' ORDER BY nexus) FROM nexuses n),
                    (SELECT jsonb_agg(to_jsonb(m) ORDER BY nexus, lane) FROM nexus_marks m),
                    (SELECT jsonb_agg(to_jsonb(e) - 'taken_at' ORDER BY volume_id) FROM volume_epochs e),
                    (SELECT jsonb_agg(to_jsonb(u) ORDER BY volume_id) FROM logical_units u),
                    (SELECT jsonb_agg(to_jsonb(r) ORDER BY volume_id, place) FROM registrations r),
                    (SELECT jsonb_agg(jsonb_build_array(id, name, lease_end) ORDER BY id) FROM cache_servers),
                    (SELECT jsonb_agg(jsonb_build_array(node, sessions, portal) ORDER BY node) FROM target_nodes),
                    (SELECT jsonb_agg(id ORDER BY id) FROM volumes))::text AS state
                """
            )
            return try #require(try rows.first?.string("state"))
        }
    }

    /// What is said, and whether it was done.
    struct Expectation: Equatable {
        enum Answer { case done, refused, broken, unknown }
        var answer: Answer
        var isApplied: Bool
    }

    static func expectation(_ fault: InjectedFault, isChange: Bool) -> Expectation {
        func failure(_ state: String) -> Expectation {
            Expectation(answer: state.hasPrefix("XX") ? .broken : .refused, isApplied: false)
        }
        switch fault {
        // A lost deadlock is tried again at once, by the store.
        case .error("40001", _), .error("40P01", _): return Expectation(answer: .done, isApplied: isChange)
        // A read has no COMMIT that could matter.
        case .errorAtCommit("40001") where !isChange, .errorAtCommit("40P01") where !isChange:
            return Expectation(answer: .done, isApplied: false)
        case .endedAfterEffect(let state) where !isChange: return failure(state)
        case .error(let state, _), .errorAtCommit(let state): return failure(state)
        case .ended: return Expectation(answer: .refused, isApplied: false)
        case .lost: return Expectation(answer: isChange ? .unknown : .refused, isApplied: false)
        case .lostAfterEffect, .endedAfterEffect:
            return Expectation(answer: isChange ? .unknown : .refused, isApplied: isChange)
        case .warned: return Expectation(answer: isChange ? .unknown : .done, isApplied: isChange)
        }
    }

    static func answer<Value>(_ result: Result<Value, StoreFailure>) -> Expectation.Answer {
        switch result {
        case .success: .done
        case .failure(.refused): .refused
        case .failure(.broken): .broken
        case .failure(.unknownOutcome): .unknown
        }
    }

    static let states = [
        "57P01", "57P02", "57P03", "40001", "40P01", "53100", "53200", "08006", "25006", "XX000",
    ]

    static func faults(places: [Int]) -> [InjectedFault] {
        places.flatMap { place in
            [.lost(before: place), .ended(before: place)] + states.map { .error($0, before: place) }
        } + states.map { .errorAtCommit($0) } + ["57P01", "57P02", "XX000"].map { .endedAfterEffect($0) }
            + [.lostAfterEffect, .warned]
    }

    // MARK: Commits

    /// A commit with all its parts, on top of blocks and objects that are there.
    private func rich(_ bench: Bench) async throws -> VolumeCommit {
        let fixture = bench.fixture
        let objects = try await fixture.reserve(3)
        let row = NexusRow(
            number: NexusNumber(1),
            ports: InitiatorTargetNexus(initiatorName: "iqn.host", isid: 1, portalGroupTag: 1),
            node: "t1",
            mark: NexusMark(nexus: NexusNumber(1), lowWater: CommandID(0), done: [])
        )
        _ = try await ask {
            fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
        }
        try await fixture.commit { $0.writes = (0..<20).map { write($0, $0 + 1) } }
        try await fixture.commit {
            $0.maps = [map(objects[0], (0..<20).map { ($0, $0 + 1) }, .itemHasVersion)]
        }
        var part = fixture.part()
        part.zeros = [BlockRange(first: BlockID(0), count: 3)]
        let source = Extent(
            blocks: BlockRange(first: BlockID(4), count: 3),
            object: objects[0],
            server: ObjectServerID(1),
            firstSlot: SlotIndex(4)
        )
        part.references = [Reference(source: source, destination: BlockID(40), version: Version(100))]
        part.writes = [write(10, 101), write(50, 102)]
        part.maps = [map(objects[1], [(8, 103)], .always)]
        part.evictions = [Eviction(block: BlockID(12), version: Version(13))]
        part.fills = [write(60, 104)]
        part.marks = [NexusMark(nexus: NexusNumber(1), lowWater: CommandID(1), done: [CommandID(2), CommandID(3)])]
        part.versionCeiling = Version(1_000)
        var unit = LogicalUnitState()
        unit.identifyingText = [65]
        part.unit = unit
        part.attentions = [NexusAttentions(nexus: NexusNumber(1), attentions: [.capacityChanged])]
        part.aborts = [NexusAbort(nexus: NexusNumber(1), time: MonotonicTime(5))]
        part.told = ToldDescription(sizeBytes: 512, isReadOnly: false)
        part.isRidOfRemains = true
        return part
    }

    @Test("I1 I12: a commit is whole or nothing, and what is said of it is true, wherever it is broken")
    func commits() async throws {
        let bench = try await Bench()
        let part = try await rich(bench)
        try bench.observer.script("UPDATE volume_epochs SET zero_from = 512")
        // The state is put back after each commit that was made.
        try bench.observer.script("CREATE SCHEMA kept")
        let tables = [
            "block_items", "block_extents", "block_objects", "nexuses", "nexus_marks", "volume_epochs", "logical_units",
            "registrations",
        ]
        for table in tables { try bench.observer.script("CREATE TABLE kept.\(table) AS TABLE public.\(table)") }
        // PostgreSQL makes it.
        try bench.observer.script("ALTER TABLE kept.block_objects DROP COLUMN is_empty")
        let restore =
            "BEGIN;"
            + tables.map { table in
                let system = table == "block_objects" ? " OVERRIDING SYSTEM VALUE" : ""
                return "DELETE FROM \(table); INSERT INTO \(table)\(system) SELECT * FROM kept.\(table);"
            }.joined() + "COMMIT"
        let before = try bench.state()
        _ = try await ask { bench.store.commit([part], completion: $0) }
        let after = try bench.state()
        #expect(before != after)
        // Behind BEGIN, each statement, and the COMMIT itself.
        let count = 24
        for fault in Self.faults(places: Array(1...count)) {
            try bench.observer.script(restore)
            bench.planter.plant(fault, at: "write_items")
            let result = await bench.result { bench.store.commit([part], completion: $0) }
            try #require(bench.planter.isTaken)
            let state = try await settled(bench, before)
            let found = Expectation(answer: Self.answer(result), isApplied: state == after)
            #expect(found == Self.expectation(fault, isChange: true), "\(fault): \(result)")
            #expect(state == before || state == after, "\(fault) left a part")
        }
    }

    /// The state once the server has noticed that a connection broke: what it had open is then rolled back.
    private func settled(_ bench: Bench, _ before: String) async throws -> String {
        for _ in 0..<600 {
            let busy = try bench.observer.query(
                """
                SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND (state LIKE 'idle in transaction%' OR state = 'active')
                """
            )
            if busy.isEmpty { break }
            try await Task.sleep(for: .milliseconds(5))
        }
        return try bench.state()
    }

    // MARK: Everything else

    /// One kind of request: a statement that its job has, whether it changes something, and how it is made.
    struct Kind: Sendable {
        var statement: String
        var isChange: Bool
        /// Places before its statements, or before its COMMIT.
        var places: [Int]
        var run: @Sendable (Bench, UInt64) async -> Expectation.Answer
    }

    static let kinds: [Kind] = [
        Kind(statement: "register_server", isChange: true, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.registerServer(name: "x", endpoint: "x:1", leaseMilliseconds: 60_000, completion: $0)
                }
            )
        },
        Kind(statement: "renew_lease", isChange: true, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.renewLease(server: bench.fixture.server, leaseMilliseconds: 900_000, completion: $0)
                }
            )
        },
        Kind(statement: "release_leases", isChange: true, places: [0, 1]) { bench, number in
            answer(await bench.result { bench.store.releaseLeases(name: "s\(number)", except: nil, completion: $0) })
        },
        Kind(statement: "bump_epoch", isChange: true, places: [1, 4, 10]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.takeOver(volume: bench.fixture.volume, server: bench.fixture.server, completion: $0)
                }
            )
        },
        Kind(statement: "owner_status", isChange: false, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.takeOver(volume: VolumeID(99), server: bench.fixture.server, completion: $0)
                }
            )
        },
        Kind(statement: "insert_nexus", isChange: true, places: [1, 3, 6]) { bench, number in
            let row = NexusRow(
                number: NexusNumber(number),
                ports: InitiatorTargetNexus(initiatorName: "iqn.host", isid: number, portalGroupTag: 1),
                node: "t1",
                mark: NexusMark(nexus: NexusNumber(number), lowWater: CommandID(0), done: [])
            )
            return answer(
                await bench.result {
                    bench.store.openNexus(volume: bench.fixture.volume, epoch: bench.epoch, nexus: row, completion: $0)
                }
            )
        },
        Kind(statement: "close_nexus", isChange: true, places: [1, 3, 4]) { bench, number in
            answer(
                await bench.result {
                    bench.store.closeNexus(
                        volume: bench.fixture.volume,
                        epoch: bench.epoch,
                        nexus: NexusNumber(1_000 + number),
                        completion: $0
                    )
                }
            )
        },
        Kind(statement: "reserve_objects", isChange: true, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.reserveObjects(volume: bench.fixture.volume, count: 2, completion: $0)
                }
            )
        },
        Kind(statement: "report_target", isChange: true, places: [0, 1]) { bench, number in
            let node = TargetNodeState(
                name: "t",
                portal: "p",
                port: TargetPort(portalGroupTag: 1, relativePortIdentifier: 1),
                release: "1",
                sessions: UInt32(number),
                receivesLogins: true,
                isDraining: false
            )
            return answer(await bench.result { bench.store.report(node, completion: $0) })
        },
        Kind(statement: "heartbeat", isChange: true, places: [0, 1]) { bench, number in
            let heartbeat = TargetHeartbeat(
                node: "h",
                portal: "p",
                portalGroupTag: 1,
                release: "1",
                sessions: UInt32(number)
            )
            return answer(await bench.result { bench.store.heartbeat(heartbeat, completion: $0) })
        },
        Kind(statement: "sweep_intents", isChange: true, places: [1, 3, 5]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.collectObjects(
                        intentAgeMilliseconds: 0,
                        graceMilliseconds: 600_000,
                        limit: 1,
                        completion: $0
                    )
                }
            )
        },
        Kind(statement: "forget_objects", isChange: true, places: [0, 1]) { bench, number in
            answer(await bench.result { bench.store.forgetObjects([ObjectID(5_000 + number)], completion: $0) })
        },
        Kind(statement: "load_region", isChange: false, places: [0, 1]) { bench, _ in
            let range = BlockRange(first: BlockID(0), count: 64)
            return answer(
                await bench.result {
                    bench.store.loadRegion(volume: bench.fixture.volume, range: range, completion: $0)
                }
            )
        },
        Kind(statement: "load_bytes", isChange: false, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.loadBytes(volume: bench.fixture.volume, blocks: [BlockID(1)], completion: $0)
                }
            )
        },
        Kind(statement: "survey_map", isChange: false, places: [0]) { bench, _ in
            let range = BlockRange(first: BlockID(0), count: 64)
            return answer(
                await bench.result {
                    bench.store.surveyMap(
                        volume: bench.fixture.volume,
                        range: range,
                        rowsMaximum: 10,
                        runsMaximum: 10,
                        completion: $0
                    )
                }
            )
        },
        Kind(statement: "move_candidates", isChange: false, places: [0]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.fetchMoveCandidates(
                        volume: bench.fixture.volume,
                        from: nil,
                        limit: 5,
                        completion: $0
                    )
                }
            )
        },
        Kind(statement: "eviction_candidates", isChange: false, places: [0]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.fetchEvictionCandidates(volume: bench.fixture.volume, limit: 5, completion: $0)
                }
            )
        },
        Kind(statement: "compaction_candidates", isChange: false, places: [0]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.fetchCompactionCandidates(
                        volume: bench.fixture.volume,
                        belowPercent: 50,
                        limit: 5,
                        completion: $0
                    )
                }
            )
        },
        Kind(statement: "known_objects", isChange: false, places: [0]) { bench, _ in
            answer(await bench.result { bench.store.knownObjects([ObjectID(1)], completion: $0) })
        },
        Kind(statement: "volumes_after", isChange: false, places: [0]) { bench, _ in
            answer(await bench.result { bench.store.volumes(after: nil, limit: 5, completion: $0) })
        },
        Kind(statement: "volume_by_iqn", isChange: false, places: [0]) { bench, _ in
            answer(await bench.result { bench.store.volume(iqn: "iqn.2026-01.test:v1", completion: $0) })
        },
        Kind(statement: "delete_volume", isChange: true, places: [0, 1]) { bench, _ in
            answer(
                await bench.result {
                    bench.store.deleteVolumeStep(volume: bench.doomed, rowsMaximum: 1, completion: $0)
                }
            )
        },
    ]

    /// What the requests of all kinds find: something to do for each of them, as often as it is asked.
    private func prepare(_ bench: Bench) throws {
        try bench.observer.script(
            """
            INSERT INTO cache_servers (name, endpoint, lease_end)
                SELECT 's' || n, 'x', now() + interval '1 hour' FROM generate_series(1, 100) n;
            INSERT INTO nexuses (volume_id, nexus, initiator_name, isid, portal_group_tag, node)
                SELECT \(bench.fixture.volume), 1000 + n, 'iqn.other', n, 1, 't' FROM generate_series(1, 100) n;
            INSERT INTO block_objects (volume_id, intended_at)
                SELECT \(bench.fixture.volume), now() - interval '1 day' FROM generate_series(1, 100) n;
            INSERT INTO block_objects (object_id, volume_id, state, dead_at) OVERRIDING SYSTEM VALUE
                SELECT 5000 + n, \(bench.fixture.volume), 'dead', now() FROM generate_series(1, 100) n;
            INSERT INTO block_items (volume_id, block_id, unmoved_since, item, segment, frame, frame_offset, data_bytes)
                SELECT \(bench.doomed), n, now(), '{"Version": 1, "Checksum": 1}', 0, 0, 0, 0 FROM generate_series(1, 100) n;
            UPDATE volumes SET state = 'deleting' WHERE id = \(bench.doomed);
            """
        )
    }

    @Test("D30 D31: every kind of request with every fault")
    func everything() async throws {
        let bench = try await Bench()
        try prepare(bench)
        var number: UInt64 = 0
        for kind in Self.kinds {
            number = 0
            for fault in Self.faults(places: kind.places) {
                number += 1
                let before = try bench.state()
                bench.planter.plant(fault, at: kind.statement)
                let answer = await kind.run(bench, number)
                try #require(bench.planter.isTaken, "\(kind.statement)")
                let after = try await settled(bench, before)
                let found = Expectation(answer: answer, isApplied: before != after)
                #expect(found == Self.expectation(fault, isChange: kind.isChange), "\(kind.statement) with \(fault)")
            }
            #expect(number < 100, "there has to be enough to do for each request")
        }
    }
}

extension FaultTests.Bench {
    /// The epoch that the volume has by now.
    var epoch: Epoch {
        let row = try? observer.query("SELECT epoch FROM volume_epochs WHERE volume_id = \(fixture.volume)").first
        return Epoch(UInt64((try? row?.int64("epoch")) ?? 0))
    }
}
