public import AshlarCore
import Failpoints
import NIOCore
public import Ownership

/// What an object server knows of the database (M8).
public struct ObjectServerMark: Sendable, Hashable {
    /// The server.
    public var server: ObjectServerID
    /// The highest clock that it was ever told; 0: none.
    public var clock: UInt64
    /// The highest object id that lay there since it was started; 0: none.
    public var highestObject: ObjectID

    /// A mark with each part named.
    public init(server: ObjectServerID, clock: UInt64, highestObject: ObjectID) {
        self.server = server
        self.clock = clock
        self.highestObject = highestObject
    }
}

/// Whether objects may be deleted, as the database sees it.
public struct DatabaseAgeRow: Sendable, Hashable {
    /// Whether an object server knows more than the database.
    public var isBehind: Bool
    /// The database's clock.
    public var clock: UInt64
    /// The first object id that has never been handed out.
    public var nextObject: ObjectID
}

/// Objects that are handed out to be verified.
public struct ScrubPiece: Sendable, Hashable {
    /// Names the piece.
    public var token: UInt64
    /// The objects.
    public var objects: [ObjectRow]
}

/// How an object was found.
public struct ObjectFinding: Sendable, Hashable {
    /// The object.
    public var object: ObjectID
    /// Damaged slots; -1 for the whole object.
    public var slots: [Int32]
    /// Whether it does not lie on its server.
    public var isMissing: Bool
    /// Whether all of it was looked at, so that what was found earlier and is not named is sound again.
    public var isWhole: Bool

    /// A finding with each part named.
    public init(object: ObjectID, slots: [Int32], isMissing: Bool, isWhole: Bool) {
        self.object = object
        self.slots = slots
        self.isMissing = isMissing
        self.isWhole = isWhole
    }
}

// The age of the database, scrubbing, and object servers that are drained.
extension PostgresBlockStore {
    /// Compares what object servers know with the database, keeps it for the views, and lets the clock tick where the database is
    /// not behind.
    public func databaseAge(
        _ marks: [ObjectServerMark],
        completion: @escaping @Sendable (Result<DatabaseAgeRow, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheClockTicked,
                {
                    Call(
                        Statements.databaseAge,
                        arrays: marks.map { Int64($0.server.rawValue) },
                        marks.map { Int64(clamping: $0.clock) },
                        marks.map { Int64($0.highestObject) }
                    )
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                guard result.count == 1 else { throw StoreFailure.broken("the database does not say how old it is") }
                return DatabaseAgeRow(
                    isBehind: try result.bool(0, 0),
                    clock: try result.unsigned(0, 1),
                    nextObject: ObjectID(try result.unsigned(0, 2))
                )
            }
        )
    }

    /// Verifies the items that are due, a bounded number, and records what it finds (I11); the number of those looked at.
    ///
    /// It may be asked by any number of cache servers: a piece is handed out to one at a time.
    public func scrubItems(completion: @escaping @Sendable (Result<ScrubbedItems, StoreFailure>) -> Void) {
        let bound = Int64(PostgresStoreLimits.scrubItemsMaximum)
        let timeout = Int64(PostgresStoreLimits.scrubTimeoutSeconds)
        backgroundLane.submit(
            .single(
                isChange: true,
                failpoint: Failpoint.cacheScrubItemsTaken,
                { Call(Statements.scrubItems, bound, timeout) },
                completion: { [backgroundLane] (result: Result<ScrubbedItems, StoreFailure>) in
                    guard case .success(let items) = result, items.count > 0 else { return completion(result) }
                    backgroundLane.submit(
                        .transaction(
                            failpoints: JobFailpoints(done: .cacheScrubItemsDone),
                            { _ in items.report },
                            completion: completion
                        ) { _ in items }
                    )
                }
            ) { (result) throws(StoreFailure) in
                var items = ScrubbedItems()
                for row in 0..<result.count {
                    items.token = try result.int(row, 0)
                    let bytes = result.bytes(row, 5)
                    items.count += 1
                    items.bytes += UInt64(bytes.count)
                    guard Int64(Checksum(of: bytes).rawValue) != (try result.int(row, 4)) else { continue }
                    items.damaged.append(
                        ScrubbedItems.Item(
                            volume: VolumeID(try result.int(row, 1)),
                            block: BlockID(try result.unsigned(row, 2)),
                            version: Version(try result.unsigned(row, 3))
                        )
                    )
                }
                return items
            }
        )
    }

    /// Hands out objects to be verified; none where nothing is due.
    public func scrubObjects(completion: @escaping @Sendable (Result<ScrubPiece, StoreFailure>) -> Void) {
        let bound = Int64(PostgresStoreLimits.scrubObjectsMaximum)
        let timeout = Int64(PostgresStoreLimits.scrubTimeoutSeconds)
        backgroundLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheScrubObjectsTaken,
                { Call(Statements.scrubObjects, bound, timeout) },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var piece = ScrubPiece(token: 0, objects: [])
                for row in 0..<result.count {
                    piece.token = try result.unsigned(row, 0)
                    piece.objects.append(
                        ObjectRow(
                            object: ObjectID(try result.unsigned(row, 1)),
                            volume: VolumeID(0),
                            server: ObjectServerID(try result.exactly(row, 2, as: Int32.self)),
                            slots: try result.exactly(row, 3, as: UInt32.self),
                            liveSlots: 0,
                            sizeBytes: try result.unsigned(row, 4)
                        )
                    )
                }
                return piece
            }
        )
    }

    /// Records how objects were found, and ends the piece of a scrub that `token` names (0: none).
    public func reportObjects(
        token: UInt64,
        _ findings: [ObjectFinding],
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    ) {
        var objects: [Int64] = []
        var slots: [Int64] = []
        var missing: [Int64] = []
        for finding in findings {
            for slot in finding.slots {
                objects.append(Int64(finding.object))
                slots.append(Int64(slot))
                missing.append(finding.isMissing ? 1 : 0)
            }
        }
        let whole = findings.filter(\.isWhole).map { Int64($0.object) }
        let all = findings.map { Int64($0.object) }
        let (badObjects, badSlots, areMissing) = (objects, slots, missing)
        backgroundLane.submit(
            .transaction(
                failpoints: JobFailpoints(done: .cacheScrubObjectsDone),
                { _ in
                    var report = Call(Statements.scrubObjectsDone, Int64(clamping: token))
                    report.add(array: all)
                    report.add(Int64(findings.count { !$0.slots.isEmpty }))
                    return [
                        Call(Statements.clearDamagedSlots, arrays: whole, badObjects, badSlots),
                        Call(Statements.addDamagedSlots, arrays: badObjects, badSlots, areMissing), report,
                    ]
                },
                completion: completion
            ) { _ in }
        )
    }

    /// The object servers that are drained.
    public func drainingServers(
        completion: @escaping @Sendable (Result<[ObjectServerID], StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(isChange: false, { Call(Statements.drainingServers) }, completion: completion) {
                (result) throws(StoreFailure) in
                var servers: [ObjectServerID] = []
                for row in 0..<result.count {
                    servers.append(ObjectServerID(try result.exactly(row, 0, as: Int32.self)))
                }
                return servers
            }
        )
    }
}

/// Items that were verified.
public struct ScrubbedItems: Sendable, Hashable {
    /// An item that does not match its checksum.
    public struct Item: Sendable, Hashable {
        /// The volume.
        public var volume: VolumeID
        /// The data block.
        public var block: BlockID
        /// Its version.
        public var version: Version
    }

    /// Items looked at; 0: nothing was due.
    public var count: UInt64 = 0
    /// Their bytes.
    public var bytes: UInt64 = 0
    /// Those that are damaged.
    public var damaged: [Item] = []
    var token: Int64 = 0

    var report: [Call] {
        [
            Call(
                Statements.addDamagedItems,
                arrays: damaged.map { Int64($0.volume) },
                damaged.map { Int64($0.block) },
                damaged.map { Int64($0.version) }
            ),
            Call(
                Statements.scrubItemsDone,
                token,
                Int64(clamping: count),
                Int64(clamping: bytes),
                Int64(damaged.count)
            ),
        ]
    }
}
