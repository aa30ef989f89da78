public import AshlarCore
public import Ownership

extension PostgresBlockStore {
    /// See ``BlockStore/loadRegion(volume:range:completion:)``. Items and extents are of one snapshot.
    public func loadRegion(
        volume: VolumeID,
        range: BlockRange,
        completion: @escaping @Sendable (Result<RegionRows, StoreFailure>) -> Void
    ) {
        idlest(readLanes).submit(
            .single(
                isChange: false,
                { Call(Statements.loadRegion, Int64(volume), Int64(range.first), Int64(range.end)) },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var region = RegionRows(items: [], extents: [])
                for row in 0..<result.count {
                    if try result.int(row, 0) == 0 {
                        region.items.append(
                            ItemRow(
                                block: BlockID(try result.unsigned(row, 1)),
                                version: Version(try result.unsigned(row, 2)),
                                checksum: Checksum(try result.exactly(row, 3, as: UInt32.self)),
                                isMoved: try result.int(row, 4) == 1
                            )
                        )
                    } else {
                        let extent = Extent(
                            blocks: BlockRange(
                                first: BlockID(try result.unsigned(row, 1)),
                                count: try result.unsigned(row, 2)
                            ),
                            object: ObjectID(try result.unsigned(row, 3)),
                            server: ObjectServerID(try result.exactly(row, 5, as: Int32.self)),
                            firstSlot: SlotIndex(try result.exactly(row, 4, as: UInt32.self)),
                            copy: try result.copy(row, 6)
                        )
                        region.extents.append(extent.clipped(to: range))
                    }
                }
                return region
            }
        )
    }

    /// See ``BlockStore/surveyMap(volume:range:rowsMaximum:runsMaximum:completion:)``.
    public func surveyMap(
        volume: VolumeID,
        range: BlockRange,
        rowsMaximum: Int,
        runsMaximum: Int,
        completion: @escaping @Sendable (Result<MapSurvey, StoreFailure>) -> Void
    ) {
        idlest(readLanes).submit(
            .single(
                isChange: false,
                {
                    Call(
                        Statements.surveyMap,
                        Int64(volume),
                        Int64(range.first),
                        Int64(range.end),
                        Int64(rowsMaximum),
                        Int64(runsMaximum)
                    )
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var runs: [[BlockRange]] = [[], []]
                var rows = [0, 0]
                for row in 0..<result.count {
                    let kind = try result.int(row, 0) == 0 ? 0 : 1
                    let first = BlockID(try result.unsigned(row, 1))
                    runs[kind].append(BlockRange(first: first, count: try result.unsigned(row, 2)))
                    rows[kind] += try result.exactly(row, 3, as: Int.self)
                }
                let parts = zip(runs, rows).map { runs, rows in
                    MapSurvey.Part(runs: runs, isComplete: rows < rowsMaximum && runs.count < runsMaximum)
                }
                return MapSurvey(of: range, items: parts[0], extents: parts[1])
            }
        )
    }

    /// See ``BlockStore/loadBytes(volume:blocks:completion:)``. The checksums are for the caller to verify.
    public func loadBytes(
        volume: VolumeID,
        blocks: [BlockID],
        completion: @escaping @Sendable (Result<[ItemBytes], StoreFailure>) -> Void
    ) {
        idlest(readLanes).submit(
            .single(
                isChange: false,
                {
                    var call = Call(Statements.loadBytes, Int64(volume))
                    call.add(array: blocks.map { Int64($0) })
                    return call
                },
                completion: completion
            ) { (result) throws(StoreFailure) in
                var items: [ItemBytes] = []
                items.reserveCapacity(result.count)
                for row in 0..<result.count {
                    items.append(ItemBytes(row: try result.item(row), bytes: result.buffer(row, 4)))
                }
                return items
            }
        )
    }
}

extension QueryResult {
    /// What made an extent, from its origin and, in the next column, the version of the copy; 0 where it is no copy.
    func copy(_ row: Int, _ column: Int) throws(StoreFailure) -> BlockCopy? {
        let version = Version(try unsigned(row, column + 1))
        guard version != Version(0) else { return nil }
        return BlockCopy(origin: BlockID(try unsigned(row, column)), version: version)
    }

    /// An item from the first four columns: block, version, checksum, whether it is moved.
    func item(_ row: Int) throws(StoreFailure) -> ItemRow {
        ItemRow(
            block: BlockID(try unsigned(row, 0)),
            version: Version(try unsigned(row, 1)),
            checksum: Checksum(try exactly(row, 2, as: UInt32.self)),
            isMoved: try bool(row, 3)
        )
    }

    /// Items, one a row.
    func items() throws(StoreFailure) -> [ItemRow] {
        var items: [ItemRow] = []
        items.reserveCapacity(count)
        for row in 0..<count { items.append(try item(row)) }
        return items
    }

    /// An object from the first six columns: id, volume, server, slots, live slots, size.
    func object(_ row: Int) throws(StoreFailure) -> ObjectRow {
        ObjectRow(
            object: ObjectID(try unsigned(row, 0)),
            volume: VolumeID(try int(row, 1)),
            server: ObjectServerID(try exactly(row, 2, as: Int32.self)),
            slots: try exactly(row, 3, as: UInt32.self),
            liveSlots: try exactly(row, 4, as: UInt32.self),
            sizeBytes: try unsigned(row, 5)
        )
    }
}
