import AshlarCore
import NIOCore
import Ownership
import Testing

@testable import PostgresStore

@Suite(.enabled(if: TestCluster.isAvailable, "PostgreSQL 15 or newer is not installed"))
struct CommitPropertyTests {
    static let blocks: UInt64 = 96
    static let nexuses: UInt64 = 3
    /// Commits between two takeovers, which show the state of the unit.
    static let takeoverInterval = 10

    /// Makes commits at random and keeps what it needs to make sensible ones.
    struct Workload {
        var random: SeededGenerator
        var nextVersion: UInt64 = 1
        var reserved: [ObjectID]
        var model = StoreModel()

        mutating func part(_ base: VolumeCommit) -> VolumeCommit {
            var part = base
            if random.below(4) == 0 { part.zeros = zeros() }
            if random.below(3) == 0 { part.references = references(besides: part.zeros) }
            if random.below(3) != 0 { part.writes = writes(18) }
            for _ in 0..<random.below(4) where !reserved.isEmpty { part.maps.append(map()) }
            if random.below(3) == 0 { part.evictions = evictions() }
            if random.below(3) == 0 { part.fills = writes(8) }
            if random.below(4) == 0 { part.unit = unit() }
            if random.below(3) == 0 { part.attentions = attentions() }
            if random.below(4) == 0 { part.aborts = aborts() }
            return part
        }

        mutating func unit() -> LogicalUnitState {
            var unit = LogicalUnitState()
            unit.reservations.generation = UInt32(truncatingIfNeeded: random.next())
            unit.reservations.registrations = (0..<random.below(20)).map { number in
                Registration(
                    ports: InitiatorTargetNexus(
                        initiatorName: "iqn.\(random.below(100)).\u{f6}",
                        isid: UInt64(number),
                        portalGroupTag: UInt16(random.below(3))
                    ),
                    relativePortIdentifier: UInt16(truncatingIfNeeded: random.next()),
                    key: ReservationKey(random.next() | 1)
                )
            }
            if let holder = unit.reservations.registrations.last {
                let types = ReservationType.allCases
                unit.reservations.type = types[random.below(types.count)]
                if unit.reservations.type?.isOfAllRegistrants == false { unit.reservations.holder = holder.ports }
            }
            if random.below(2) == 0 { unit.reservedBy = NexusNumber(UInt64(random.below(5) + 1)) }
            unit.mode = mode()
            unit.savedMode = mode()
            unit.identifyingInformation = bytes(64)
            unit.identifyingText = bytes(256)
            if let kind = Erasure.Kind(rawValue: UInt8(random.below(6))) {
                unit.erasure = Erasure(kind: kind, pattern: bytes(4_096), position: random.next() >> 1)
            }
            return unit
        }

        mutating func mode() -> ModeParameters {
            ModeParameters(
                isSoftwareWriteProtected: random.below(2) == 0,
                isSenseInDescriptorFormat: random.below(2) == 0,
                isExceptionReportingDisabled: random.below(2) == 0,
                exceptionReportingMethod: UInt8(random.below(7))
            )
        }

        mutating func bytes(_ most: Int) -> [UInt8] {
            (0..<random.below(most + 1)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
        }

        /// Of nexuses that are open, and now and then of one that is not.
        mutating func attentions() -> [NexusAttentions] {
            (1...CommitPropertyTests.nexuses + 1).compactMap { number in
                guard random.below(2) == 0 else { return nil }
                let list = UnitAttention.allCases.shuffled(using: &random).prefix(random.below(6))
                return NexusAttentions(nexus: NexusNumber(number), attentions: Array(list))
            }
        }

        /// Of commits that may come in any order.
        mutating func aborts() -> [NexusAbort] {
            (1...CommitPropertyTests.nexuses + 1).compactMap { number in
                guard random.below(2) == 0 else { return nil }
                return NexusAbort(nexus: NexusNumber(number), time: MonotonicTime(UInt64(random.below(1_000))))
            }
        }

        mutating func block() -> UInt64 { random.next() % CommitPropertyTests.blocks }

        mutating func zeros() -> [BlockRange] {
            var runs: [BlockRange] = []
            var position: UInt64 = 0
            for _ in 0..<3 {
                let first = position + UInt64(random.below(30))
                let count = UInt64(random.below(12))
                if first + count > CommitPropertyTests.blocks { break }
                runs.append(BlockRange(first: BlockID(first), count: count))
                position = first + count
            }
            return runs
        }

        /// Copies whose ends touch neither each other's nor what becomes zeros, as the owner sees to it.
        mutating func references(besides zeros: [BlockRange]) -> [Reference] {
            var free = Set(
                (0..<CommitPropertyTests.blocks).filter { block in
                    !zeros.contains { $0.contains(BlockID(block)) }
                }
            )
            var result: [Reference] = []
            for _ in 0..<3 {
                let first = block()
                guard let place = model.places[BlockID(first)] else { continue }
                var run: [UInt64] = []
                for (offset, block) in (first..<min(first + 8, CommitPropertyTests.blocks)).enumerated() {
                    guard free.contains(block), let next = model.places[BlockID(block)], next.object == place.object,
                        next.slot == place.slot + UInt32(offset),
                        (next.copy?.origin ?? BlockID(block)) == (place.copy?.origin ?? BlockID(first)) + UInt64(offset)
                    else { break }
                    run.append(block)
                }
                let destination = block()
                let target = destination..<destination + UInt64(run.count)
                guard !run.isEmpty, free.subtracting(run).isSuperset(of: target) else { continue }
                free.subtract(run)
                free.subtract(target)
                nextVersion += 1
                let source = Extent(
                    blocks: BlockRange(first: BlockID(first), count: UInt64(run.count)),
                    object: place.object,
                    server: ObjectServerID(2),
                    firstSlot: SlotIndex(place.slot),
                    copy: place.copy
                )
                result.append(
                    Reference(source: source, destination: BlockID(destination), version: Version(nextVersion))
                )
            }
            return result
        }

        mutating func writes(_ most: Int) -> [ItemWrite] {
            let chosen = Set((0..<random.below(most)).map { _ in block() }).sorted()
            return chosen.map { block in
                nextVersion += 1
                return write(block, nextVersion)
            }
        }

        mutating func map() -> ObjectMap {
            // Now and then an object that was mapped already, which must be refused.
            let isAgain = random.below(10) == 0
            let known = model.objects.keys.sorted()
            let object = isAgain ? known[random.below(known.count)] : reserved.removeLast()
            let first = block()
            let span = UInt64(random.below(24) + 1)
            var slots: [ObjectMap.Slot] = []
            let kind = random.below(3)
            for block in first..<min(first + span, CommitPropertyTests.blocks) where random.below(5) != 0 {
                let id = BlockID(block)
                switch kind {
                case 0:
                    let version = model.items[id]?.version ?? Version(1)
                    let stale = random.below(6) == 0
                    slots.append(
                        .init(
                            block: id,
                            version: Version(version.rawValue + (stale ? 1_000_000 : 0)),
                            condition: .itemHasVersion
                        )
                    )
                case 1:
                    let place = model.places[id] ?? .init(object: ObjectID(1), slot: 3)
                    slots.append(
                        .init(
                            block: id,
                            version: Version(1),
                            condition: .extentNames(
                                place.object,
                                SlotIndex(place.slot + (random.below(6) == 0 ? 1 : 0))
                            )
                        )
                    )
                default:
                    nextVersion += 1
                    let isDone = random.below(6) != 0
                    slots.append(
                        .init(block: id, version: Version(nextVersion), condition: isDone ? .always : .never)
                    )
                }
            }
            return ObjectMap(object: object, server: ObjectServerID(2), sizeBytes: 4_096, slots: slots)
        }

        /// What a scrub finds now and then: a slot, or all of an object, is damaged. Most of them have items yet.
        mutating func damage() -> ObjectFinding? {
            guard random.below(3) == 0 else { return nil }
            let held = model.places.filter { model.items[$0.key]?.isMoved == true }
            let objects = Set((held.isEmpty ? model.places : held).values.map(\.object)).sorted()
            guard !objects.isEmpty else { return nil }
            let object = objects[random.below(objects.count)]
            let slot = random.below(3) == 0 ? -1 : Int32(random.below(Int(model.objects[object]?.slots ?? 1)))
            model.damage[object, default: []].insert(slot)
            return ObjectFinding(object: object, slots: [slot], isMissing: false, isWhole: false)
        }

        mutating func evictions() -> [Eviction] {
            Set((0..<random.below(30)).map { _ in block() }).sorted().map { block in
                let version = model.items[BlockID(block)]?.version.rawValue ?? 1
                return Eviction(block: BlockID(block), version: Version(version + (random.below(8) == 0 ? 1 : 0)))
            }
        }
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func everyCommitDoesWhatTheModelDoes(seed: UInt64) async throws {
        let fixture = try await Fixture()
        let objects = try await fixture.reserve(200)
        var load = Workload(random: SeededGenerator(seed: seed), reserved: objects)
        load.model.reserve(objects)
        try await openNexuses(fixture, &load.model)
        var simulated = try SimulatedStore(volume: fixture.volume, epoch: fixture.epoch, objects: objects)
        for number in 1...Self.nexuses { try simulated.openNexus(Self.nexus(number)) }
        var epoch = fixture.epoch
        var returned = 0
        for step in 0..<120 {
            let part = load.part(VolumeCommit(volume: fixture.volume, epoch: epoch))
            if let finding = load.damage() {
                try await ask { fixture.store.reportObjects(token: 0, [finding], completion: $0) }
                simulated.report(finding)
            }
            let expected = load.model.apply(part)
            let found = try await fixture.commit { $0 = part }
            #expect(found.mapped == expected.mapped, "seed \(seed) step \(step)")
            #expect(found.evicted == expected.evicted, "seed \(seed) step \(step)")
            #expect(found.returned == expected.returned, "I11: seed \(seed) step \(step)")
            returned += expected.returned.count { $0 }
            #expect(found.filled == expected.filled, "seed \(seed) step \(step)")
            try await compare(fixture, load.model, "seed \(seed) step \(step)")
            let region = try await fixture.region(0, Self.blocks)
            try simulated.commit(part, as: found, region, "simulated: seed \(seed) step \(step)")
            guard step % Self.takeoverInterval == 0 else { continue }
            let ownership = try await Fixture.own(fixture.store, fixture.volume, fixture.server)
            epoch = ownership.epoch
            try #require(ownership.unit == load.model.unit, "seed \(seed) step \(step)")
            let attentions = ownership.nexuses.map { ($0.number, $0.attentions) }
            try #require(Dictionary(uniqueKeysWithValues: attentions) == load.model.attentions)
            let aborted = ownership.nexuses.compactMap { row in row.aborted.map { (row.number, $0) } }
            try #require(Dictionary(uniqueKeysWithValues: aborted) == load.model.aborted)
            let known = try simulated.takeOver()
            try #require(known.epoch == epoch && known.unit == ownership.unit && known.nexuses == ownership.nexuses)
            let counts = try await fixture.counts()
            #expect(simulated.counts == counts)
        }
        #expect(returned > 0, "no seed may leave out what becomes unmoved again")
        try await compareBytes(fixture, load.model)
        try compareObjects(fixture, load.model)
    }

    @Test(
        "I1 I12 D30: with faults everywhere, what was acknowledged is there, and everything is done once or not at all"
    )
    func everyCommitIsDoneOnceWhateverBreaks() async throws {
        let fixture = try await Fixture()
        try fixture.connect().script(FaultPlan.schema)
        let planter = FaultTests.Planter()
        var configuration = fixture.configuration
        configuration.faults = planter.plan
        let store = PostgresBlockStore(configuration, logger: quiet)
        defer { store.shutdown() }
        let objects = try await fixture.reserve(200)
        var load = Workload(random: SeededGenerator(seed: 9), reserved: objects)
        load.model.reserve(objects)
        try await openNexuses(fixture, &load.model)
        var epoch = fixture.epoch
        let faults = FaultTests.faults(places: Array(1...12))
        var outcomes: [String: Int] = [:]
        for step in 0..<120 {
            let part = load.part(VolumeCommit(volume: fixture.volume, epoch: epoch))
            var done = load.model
            _ = done.apply(part)
            if step % 3 != 0 {
                planter.plant(faults[load.random.below(faults.count)], at: Statements.guardEpochs.name)
            }
            let result = await withCheckedContinuation { continuation in
                store.commit([part]) { continuation.resume(returning: $0) }
            }
            switch result {
            case .success:
                load.model = done
                outcomes["done", default: 0] += 1
            case .failure(.refused), .failure(.broken):
                outcomes["refused", default: 0] += 1
            case .failure(.unknownOutcome):
                // As the owner does: taking over ends what is still under way, and what is read then holds.
                epoch = try await Fixture.own(fixture.store, fixture.volume, fixture.server).epoch
                let isDone = try await !isLike(fixture, load.model)
                outcomes[isDone ? "unknown, done" : "unknown, not done", default: 0] += 1
                if isDone { load.model = done }
            }
            try await compare(fixture, load.model, "step \(step): \(result)")
        }
        try await compareBytes(fixture, load.model)
        try compareObjects(fixture, load.model)
        #expect(outcomes.count == 4, "\(outcomes)")
    }

    /// Whether items, extents and unit are as the model has them.
    private func isLike(_ fixture: Fixture, _ model: StoreModel) async throws -> Bool {
        let region = try await fixture.region(0, Self.blocks)
        var places: [BlockID: StoreModel.Place] = [:]
        for extent in region.extents {
            for offset in 0..<extent.blocks.count {
                places[extent.blocks.first + offset] = .init(
                    object: extent.object,
                    slot: extent.firstSlot.rawValue + UInt32(offset),
                    copy: extent.copy?.dropped(offset)
                )
            }
        }
        let items = model.items.sorted { $0.key < $1.key }.map {
            ItemRow(block: $0.key, version: $0.value.version, checksum: $0.value.checksum, isMoved: $0.value.isMoved)
        }
        let live = try fixture.number("SELECT count(*) FROM block_objects WHERE state = 'live'")
        return region.items == items && places == model.places && live == model.objects.values.count(where: \.isLive)
    }

    private func openNexuses(_ fixture: Fixture, _ model: inout StoreModel) async throws {
        for number in 1...Self.nexuses {
            let row = Self.nexus(number)
            _ = try await ask {
                fixture.store.openNexus(volume: fixture.volume, epoch: fixture.epoch, nexus: row, completion: $0)
            }
            model.attentions[row.number] = []
        }
    }

    private static func nexus(_ number: UInt64) -> NexusRow {
        let nexus = NexusNumber(number)
        return NexusRow(
            number: nexus,
            ports: InitiatorTargetNexus(initiatorName: "iqn.host", isid: number, portalGroupTag: 1),
            node: "t1",
            mark: NexusMark(nexus: nexus, lowWater: CommandID(0), done: [])
        )
    }

    private func compare(_ fixture: Fixture, _ model: StoreModel, _ place: Comment) async throws {
        let region = try await fixture.region(0, Self.blocks)
        let items = model.items.sorted { $0.key < $1.key }.map {
            ItemRow(block: $0.key, version: $0.value.version, checksum: $0.value.checksum, isMoved: $0.value.isMoved)
        }
        try #require(region.items == items, place)
        var places: [BlockID: StoreModel.Place] = [:]
        var end = BlockID(0)
        for extent in region.extents {
            try #require(extent.blocks.first >= end, "extents overlap or are out of order")
            end = extent.blocks.end
            for offset in 0..<extent.blocks.count {
                places[extent.blocks.first + offset] = .init(
                    object: extent.object,
                    slot: extent.firstSlot.rawValue + UInt32(offset),
                    copy: extent.copy?.dropped(offset)
                )
            }
        }
        try #require(places == model.places, place)
        try await compareMap(fixture, model, place)
        let queue = try await ask {
            fixture.store.fetchMoveCandidates(volume: fixture.volume, from: nil, limit: 1_000, completion: $0)
        }
        try #require(queue.items.map(\.block) == model.queue, place)
    }

    /// The map, from several blocks on, whole and in pieces that bounds make.
    private func compareMap(_ fixture: Fixture, _ model: StoreModel, _ place: Comment) async throws {
        for (first, rows, runs) in [(0, 1_000, 1_000), (5, 1_000, 1_000), (0, 3, 1_000), (7, 1_000, 2), (1, 1, 1)] {
            var position = UInt64(first)
            var mapped: [BlockID] = []
            while position < Self.blocks {
                let range = BlockRange(from: BlockID(position), to: BlockID(Self.blocks))
                let survey = try await ask {
                    fixture.store.surveyMap(
                        volume: fixture.volume,
                        range: range,
                        rowsMaximum: rows,
                        runsMaximum: runs,
                        completion: $0
                    )
                }
                try #require(survey.blocks.first == range.first && !survey.blocks.isEmpty, place)
                for run in survey.mapped { mapped += (0..<run.count).map { run.first + $0 } }
                position = survey.blocks.end.rawValue
                if rows == 1_000, runs == 1_000 { try #require(position == Self.blocks, place) }
            }
            let expected = Set(model.items.keys).union(model.places.keys).filter { $0.rawValue >= first }.sorted()
            try #require(mapped == expected, place)
        }
    }

    private func compareBytes(_ fixture: Fixture, _ model: StoreModel) async throws {
        let blocks = (0..<Self.blocks).map { BlockID($0) }
        let found = try await ask { fixture.store.loadBytes(volume: fixture.volume, blocks: blocks, completion: $0) }
        #expect(found.count == model.items.count)
        for item in found {
            #expect(item.bytes == model.items[item.row.block]?.bytes)
            #expect(item.bytes.withUnsafeReadableBytes { Checksum(of: $0) } == item.row.checksum)
        }
    }

    private func compareObjects(_ fixture: Fixture, _ model: StoreModel) throws {
        let rows = try fixture.connect().query(
            "SELECT object_id, state, slots, live_slots, mapped_in FROM block_objects"
        )
        #expect(rows.count == model.objects.count)
        for row in rows {
            let id = ObjectID(UInt64(try row.int64("object_id") ?? 0))
            let object = try #require(model.objects[id])
            #expect(try row.string("state") == (object.isLive ? "live" : "intended"))
            #expect(try row.int64("slots") == Int64(object.slots))
            #expect(try row.int64("live_slots") == Int64(model.liveSlots(id)), "object \(id)")
        }
    }

    @Test func volumesOfOneCommitAreGuardedAndCountedByThemselves() async throws {
        let fixture = try await Fixture()
        let other = try Fixture.makeVolume(try fixture.connect(), "v2")
        let otherEpoch = try await Fixture.own(fixture.store, other, fixture.server).epoch
        var first = VolumeCommit(volume: fixture.volume, epoch: Epoch(fixture.epoch.rawValue + 1))
        first.writes = [write(1, 1)]
        var second = VolumeCommit(volume: other, epoch: otherEpoch)
        second.writes = [write(1, 1), write(2, 2)]
        second.fills = [write(9, 3)]
        let unowned = VolumeCommit(volume: VolumeID(77), epoch: Epoch(1))
        let commits = [first, second, unowned]
        let results = try await ask { fixture.store.commit(commits, completion: $0) }
        guard case .fenced = results[0], case .committed(let detail) = results[1], case .fenced = results[2] else {
            Issue.record("unexpected \(results)")
            return
        }
        #expect(detail.filled == [true])
        #expect(try fixture.number("SELECT count(*) FROM block_items WHERE volume_id = \(other)") == 3)
        #expect(try fixture.number("SELECT count(*) FROM block_items WHERE volume_id = \(fixture.volume)") == 0)
    }

    @Test func blocksOfEverySizeComeBack() async throws {
        let fixture = try await Fixture()
        let sizes = [512, 4_096, 8_192, 65_536]
        let items = sizes.enumerated().map { write(UInt64($0.offset), 1, bytes: $0.element) }
        try await fixture.commit { $0.writes = items }
        let found = try await ask {
            fixture.store.loadBytes(volume: fixture.volume, blocks: items.map(\.block) + [BlockID(99)], completion: $0)
        }
        #expect(found.map(\.bytes) == items.map(\.bytes))
    }

    @Test func neighbouringSlotsBecomeOneExtentRow() async throws {
        let fixture = try await Fixture()
        let object = try await fixture.reserve()[0]
        try await fixture.commit { $0.maps = [map(object, (10..<74).map { ($0, 1) }, .always)] }
        #expect(try fixture.number("SELECT count(*) FROM block_extents") == 1)
        try await fixture.commit { $0.zeros = [BlockRange(first: BlockID(20), count: 4)] }
        #expect(try fixture.number("SELECT count(*) FROM block_extents") == 2)
        #expect(try fixture.number("SELECT live_slots FROM block_objects") == 60)
    }
}
