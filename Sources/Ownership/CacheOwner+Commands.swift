public import AshlarCore
package import NIOCore

// Commands of initiators: checks, order, what they read and write.
extension CacheOwner {
    /// Takes a command of an initiator; answered with `done`, `read`, `miscompare` or `refused`.
    ///
    /// - Parameter place: where a write's bytes lie in an object that its target puts at the same time.
    public mutating func submit(
        _ ticket: Ticket,
        context: CommandContext,
        operation: CommandOperation,
        through place: ThroughPlace? = nil,
        deadline: MonotonicTime,
        now: MonotonicTime
    ) {
        if case .direct = operation { return refuse(ticket, .invalid("a direct write comes with its object")) }
        let accepted = accept(ticket, context: context, operation: operation, deadline: deadline, now: now)
        guard let (command, volume) = accepted else { return }
        if let place { claim(place, for: command, of: volume, now: now) }
        admit(command, of: volume, now: now)
    }

    /// Takes a command that is not known yet; nil: it is answered, or its answer will go to whoever asks.
    mutating func accept(
        _ ticket: Ticket,
        context: CommandContext,
        operation: CommandOperation,
        deadline: MonotonicTime,
        now: MonotonicTime
    ) -> (command: Command, volume: VolumeOwner)? {
        guard let volume = owned(context.volume) else {
            refuse(ticket, .notOwner(nil))
            return nil
        }
        let current = stamp(volume, now)
        guard context.proved.epoch == volume.epoch else {
            refuse(ticket, .wrongEpoch, current)
            return nil
        }
        if let handOver = volume.handOver, handOver.isRefusing {
            refuse(ticket, .notOwner(handOver.endpoint))
            return nil
        }
        guard let nexus = volume.nexuses[context.nexus], nexus.state == .open else {
            refuse(ticket, .nexusClosed, current)
            return nil
        }
        nexus.lastSeen = now
        busyUntil = now.advanced(byNanoseconds: OwnerLimits.busyWindow)
        raiseLowWater(of: nexus, to: context.lowWater, volume)
        let number = context.command
        if answerKnown(number, of: nexus, to: ticket, stamp: current) { return nil }
        nexus.noteArrival(number)
        guard nexus.hasRoom else {
            let refusal = Refusal.busy("too many commands of one session")
            if operation.isChange { nexus.keep(number, .refused(refusal)) }
            refuse(ticket, refusal, current)
            return nil
        }
        let command = Command(
            kind: .client(operation, context),
            ticket: ticket,
            ranges: [],
            isExclusive: operation.isChange,
            deadline: deadline
        )
        nexus.inFlight[number] = command
        return (command, volume)
    }

    /// Lets a command that nothing keeps out begin with its blocks.
    mutating func admitBlocks(
        _ command: Command,
        _ operation: CommandOperation,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        let ranges: [BlockRange]
        do throws(RefusedCommand) {
            // What the owner does by itself was allowed when it was asked for.
            ranges = try check(operation, isOwn: command.context == nil, of: volume)
        } catch {
            return cancel(command, of: volume, refusal: error.refusal, now: now)
        }
        guard !ranges.isEmpty else {
            // The end of an erasure that has no blocks left, as in a volume that shrank, is made durable all the same.
            if case .erase = command.kind { return makeReady(command, of: volume) }
            answer(command, operation.emptyAnswer(stamp(volume, now)))
            return finish(command, of: volume, now: now)
        }
        // What asks for the map keeps no block from others.
        if case .mapStatus = operation {} else { command.place(ranges) }
        if command.context != nil { count(operation, of: volume) }
        // Direct writes make nothing unmoved; and none of an object may wait apart from the others.
        if command.isExclusive, !command.isBulk, command.group == nil, let delay = slowdown() {
            // It keeps no place in the order while it waits: it has not been accepted yet.
            return schedule(.release(volume, command), at: now.advanced(byNanoseconds: delay))
        }
        enter(command, of: volume, now: now)
    }

    private func count(_ operation: CommandOperation, of volume: VolumeOwner) {
        switch operation {
        case .read(let range):
            volume.counters.reads += 1
            volume.counters.bytesRead += range.count
        case .write(_, _, let bytes), .orWrite(_, _, let bytes):
            volume.counters.writes += 1
            volume.counters.bytesWritten += UInt64(bytes.readableBytes)
        case .compareAndWrite(_, _, let bytes):
            volume.counters.writes += 1
            volume.counters.bytesWritten += UInt64(bytes.readableBytes / 2)
        case .zero, .copy: volume.counters.writes += 1
        // A direct write that is let through is counted there: else it comes again as a write.
        case .direct, .mapStatus, .check, .unit: break
        }
    }

    /// Answers a command that came before, is in flight, or must not be executed any more (R4); `false` for a new one.
    mutating func answerKnown(
        _ number: CommandID,
        of nexus: Nexus,
        to ticket: Ticket,
        stamp: Stamp
    ) -> Bool {
        let known = nexus.inFlight[number]
        if number < nexus.lowWater {
            refuse(ticket, .belowLowWater, stamp)
        } else if known == nil, nexus.done.contains(number) {
            actions.append(.answer(ticket, .done(stamp)))
        } else if let answer = nexus.kept[number]?.answer(stamp) {
            actions.append(.answer(ticket, answer))
        } else if let known {
            // Sent again after its connection broke. Copies may overtake one another: all get the answer.
            if let old = known.ticket { known.earlierTickets.append(old) }
            if known.earlierTickets.count >= OwnerLimits.ticketsPerCommandMaximum {
                refuse(known.earlierTickets.removeFirst(), .superseded, stamp)
            }
            known.ticket = ticket
        } else if number < nexus.fencedBelow || nexus.fenced.contains(number) {
            refuse(ticket, .aborted, stamp)
        } else {
            return false
        }
        return true
    }

    /// A command that was slowed down enters the order, if its proof has not grown too old meanwhile (R1).
    mutating func release(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .waiting, !volume.isLost else { return }
        if let context = command.context, !isFresh(context.proved, now: now) {
            volume.nexuses[context.nexus]?.noteUnproved(context.command)
            answer(command, .refused(.unproved, stamp(volume, now)))
            return finish(command, of: volume, now: now)
        }
        if command.context != nil, let rules = command.operation?.rules,
            let refusal = erasure(of: volume, against: rules)
        {
            // The erasure began meanwhile, and may be past its blocks.
            return cancel(command, of: volume, refusal: refusal, now: now)
        }
        enter(command, of: volume, now: now)
    }

    struct RefusedCommand: Error { var refusal: Refusal }

    /// Checks a command's bytes against the volume; returns its data blocks, ascending and without overlap.
    private func check(
        _ operation: CommandOperation,
        isOwn: Bool,
        of volume: VolumeOwner
    ) throws(RefusedCommand) -> [BlockRange] {
        let geometry = volume.geometry
        let unit = UInt64(geometry.logicalBlockSizeBytes)
        func blocks(
            _ range: ByteRange,
            limit: UInt64,
            granularity: UInt64? = nil
        ) throws(RefusedCommand) -> BlockRange {
            guard geometry.contains(range) else { throw RefusedCommand(refusal: .outOfRange) }
            guard range.offset % unit == 0, range.count % (granularity ?? unit) == 0, range.count <= limit else {
                throw RefusedCommand(refusal: .invalid("range is not made of logical blocks, or too long"))
            }
            return geometry.blocks(touching: range)
        }
        if case .read(let range) = operation {
            let blocks = try blocks(range, limit: UInt64(Limits.transferMaximumBytes))
            return blocks.isEmpty ? [] : [blocks]
        }
        if case .mapStatus(let range, _) = operation {
            guard geometry.contains(range) else { throw RefusedCommand(refusal: .outOfRange) }
            let blocks = geometry.blocks(touching: range)
            return blocks.isEmpty ? [] : [blocks]
        }
        if !isOwn { try checkWritable(volume) }
        switch operation {
        case .read, .mapStatus, .check, .unit: return []
        case .direct(let blocks):
            guard blocks.end.rawValue <= geometry.blockCount else { throw RefusedCommand(refusal: .outOfRange) }
            return [blocks]
        case .write(let offset, let checksums, let bytes), .orWrite(let offset, let checksums, let bytes):
            let range = ByteRange(offset: offset, count: UInt64(bytes.readableBytes))
            let blocks = try blocks(
                range,
                limit: UInt64(Limits.transferMaximumBytes),
                granularity: operation.writeGranularity
            )
            guard checksums.count == Int(blocks.count) else {
                throw RefusedCommand(refusal: .invalid("\(checksums.count) checksums for \(blocks.count) blocks"))
            }
            return blocks.isEmpty ? [] : [blocks]
        case .compareAndWrite(let offset, let checksum, let bytes):
            guard bytes.readableBytes % 2 == 0 else {
                throw RefusedCommand(refusal: .invalid("compare and write of an odd number of bytes"))
            }
            let range = ByteRange(offset: offset, count: UInt64(bytes.readableBytes / 2))
            let blocks = try blocks(range, limit: UInt64(Limits.compareAndWriteMaximumBytes))
            guard checksum == bytes.checksum else {
                throw RefusedCommand(refusal: .invalid("the payload does not agree with its checksum"))
            }
            return blocks.isEmpty ? [] : [blocks]
        case .copy(let source, let destination, let count):
            let unit = UInt64(geometry.blockSizeBytes)
            let ranges = [source, destination].map { ByteRange(offset: $0, count: count) }
            let list = [
                try blocks(ranges[0], limit: UInt64(Limits.transferMaximumBytes)),
                try blocks(ranges[1], limit: UInt64(Limits.transferMaximumBytes)),
            ]
            guard source % unit == 0, destination % unit == 0, count % unit == 0, !list[0].overlaps(list[1]) else {
                throw RefusedCommand(refusal: .invalid("a copy overlaps itself, or is not made of data blocks"))
            }
            return count == 0 ? [] : Self.normalized(list)
        case .zero(let ranges):
            var list: [BlockRange] = []
            var total: UInt64 = 0
            for range in ranges where range.count > 0 {
                list.append(try blocks(range, limit: Limits.zeroStepMaximumBytes))
                total += range.count
            }
            guard total <= Limits.zeroStepMaximumBytes else {
                throw RefusedCommand(refusal: .invalid("more than one step's bytes to zero"))
            }
            return Self.normalized(list)
        }
    }

    /// Refuses to change what is read-only, by its description or by SWP.
    func checkWritable(_ volume: VolumeOwner) throws(RefusedCommand) {
        guard !volume.description.isReadOnly else { throw RefusedCommand(refusal: .readOnly) }
        guard !volume.unit.mode.isSoftwareWriteProtected else { throw RefusedCommand(refusal: .softwareWriteProtected) }
    }

    /// Sorts runs and joins those that touch.
    static func normalized(_ ranges: [BlockRange]) -> [BlockRange] {
        guard ranges.count > 1 else { return ranges }
        var result: [BlockRange] = []
        for range in ranges.sorted(by: { $0.first < $1.first }) {
            if let last = result.last, last.end >= range.first {
                if range.end > last.end { result[result.count - 1] = BlockRange(from: last.first, to: range.end) }
            } else {
                result.append(range)
            }
        }
        return result
    }

    mutating func enter(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        if volume.isRefusing, !command.isManagement { return refuseForHandOver(command, of: volume, now: now) }
        if volume.order.enter(command) { begin(command, of: volume, now: now) }
    }

    /// A command's turn has come.
    mutating func begin(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .waiting else { return }
        if volume.isRefusing, !command.isManagement { return refuseForHandOver(command, of: volume, now: now) }
        command.phase = .loading
        load(command, of: volume, now: now)
    }

    /// Goes on with a command that has all the regions it needs.
    mutating func proceed(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .loading, command.outstanding == 0, !volume.isLost else { return }
        switch command.kind {
        case .client(let operation, _), .erase(let operation): proceed(command, operation, of: volume, now: now)
        case .manage, .map, .evict, .forget: makeReady(command, of: volume)
        case .direct: preconditionFailure("an object is mapped outside of the order, its commands are in it")
        case .fill(let extent, _):
            // A command before it may have zeroed, written or mapped the block anew since its bytes were fetched.
            guard stillLies(extent, in: volume) else { return finish(command, of: volume, now: now) }
            makeReady(command, of: volume)
        }
    }

    private mutating func proceed(
        _ command: Command,
        _ operation: CommandOperation,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        switch operation {
        case .read: finishRead(command, of: volume, now: now)
        case .mapStatus(_, let runs): finishMapStatus(command, runsMaximum: runs, of: volume, now: now)
        case .write(let offset, let checksums, let bytes):
            prepareWrite(command, offset: offset, checksums: checksums, bytes: bytes, of: volume, now: now)
        case .orWrite(let offset, let checksums, let bytes):
            prepareOrWrite(command, offset: offset, checksums: checksums, bytes: bytes, of: volume, now: now)
        case .compareAndWrite(let offset, _, let bytes):
            prepareCompareAndWrite(command, offset: offset, bytes: bytes, of: volume, now: now)
        case .direct(let blocks): prepareDirect(command, blocks, of: volume, now: now)
        case .zero(let ranges): prepareZero(command, ranges: ranges, of: volume, now: now)
        case .copy(let source, let destination, let count):
            prepareCopy(command, from: source, to: destination, count: count, of: volume)
        case .check, .unit: preconditionFailure("what touches no block is not loaded")
        }
    }

    mutating func makeReady(_ command: Command, of volume: VolumeOwner) {
        command.phase = .ready
        command.fetched = [:]
        ready.append((volume, command))
    }

    // MARK: Reads

    mutating func finishRead(_ command: Command, of volume: VolumeOwner, now: MonotonicTime) {
        guard command.phase == .loading, case .client(.read(let range), _) = command.kind else { return }
        // R8: the lease is tested no earlier than the image is read.
        guard holdsLease(now: now) else { return park(command, of: volume) }
        let blocks = volume.geometry.blocks(touching: range)
        var runs: [ReadRun] = []
        var payload = ReadPayload()
        var missing: [BlockID] = []
        var checksums: [Checksum] = []
        var fromObjects: [Extent] = []
        func endBytes() {
            if !checksums.isEmpty { runs.append(.bytes(checksums)) }
            checksums = []
        }
        var block = blocks.first
        while block < blocks.end {
            switch volume.image.content(of: block) {
            case .bytes(let place, let checksum):
                payload.append(place, of: volume.image.slab, blocksLeft: Int(blocks.end - block))
                checksums.append(checksum)
            case .notInMemory:
                if let bytes = command.fetched[block], let item = volume.image.item(block) {
                    payload.append(bytes)
                    checksums.append(item.checksum)
                } else {
                    missing.append(block)
                }
            case .object(let extent):
                endBytes()
                Self.append(extent, to: &runs)
                fromObjects.append(extent)
            case .zeros:
                endBytes()
                if case .zeros(let count)? = runs.last {
                    runs[runs.count - 1] = .zeros(count + 1)
                } else {
                    runs.append(.zeros(1))
                }
            }
            block = block + 1
        }
        guard missing.isEmpty else {
            command.outstanding += 1
            actions.append(.loadBytes(operation(.bytes(volume, command, missing)), volume.id, missing))
            return
        }
        endBytes()
        answer(command, .read(stamp(volume, now), runs, payload: payload.buffers))
        if volume.description.policy.readFill != .never {
            for extent in fromObjects { noteObjectRead(extent, of: volume) }
        }
        finish(command, of: volume, now: now)
    }

    private static func append(_ extent: Extent, to runs: inout [ReadRun]) {
        if case .object(let object, let server, let first, let origin, let count)? = runs.last,
            object == extent.object, first.rawValue + count == extent.firstSlot.rawValue,
            origin.map({ $0 + UInt64(count) }) == extent.copy?.origin
        {
            runs[runs.count - 1] = .object(object, server: server, firstSlot: first, origin: origin, count: count + 1)
        } else {
            runs.append(
                .object(
                    extent.object,
                    server: extent.server,
                    firstSlot: extent.firstSlot,
                    origin: extent.copy?.origin,
                    count: 1
                )
            )
        }
    }

    // MARK: Writes

    private mutating func prepareWrite(
        _ command: Command,
        offset: UInt64,
        checksums: [Checksum],
        bytes: ByteBuffer,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        let size = Int(volume.geometry.blockSizeBytes)
        let range = ByteRange(offset: offset, count: UInt64(bytes.readableBytes))
        let blocks = volume.geometry.blocks(touching: range)
        // Its object came while it was slowed down: there are no items.
        if command.group != nil { return prepareDirect(command, blocks, of: volume, now: now) }
        let whole = volume.geometry.blocks(inside: range)
        var partial: [BlockID] = []
        if !whole.contains(blocks.first) { partial.append(blocks.first) }
        let last = BlockID(blocks.end.rawValue - 1)
        if last != blocks.first, !whole.contains(last) { partial.append(last) }
        guard gather(partial, for: command, of: volume) else { return }

        var writes: [ItemWrite] = []
        writes.reserveCapacity(Int(blocks.count))
        let through = throughVersion(of: command, blocks, in: volume)
        for (piece, checksum) in zip(pieces(of: bytes, at: offset, in: volume), checksums) {
            guard piece.bytes.checksum == checksum else {
                cancel(command, of: volume, refusal: .invalid("a block does not agree with its checksum"), now: now)
                return
            }
            guard piece.bytes.readableBytes == size else {
                writes.append(overlay(piece.bytes, at: piece.inBlock, on: piece.block, for: command, of: volume))
                continue
            }
            writes.append(
                ItemWrite(
                    block: piece.block,
                    version: through.map { Version($0.rawValue + UInt64(writes.count)) } ?? volume.takeVersion(),
                    checksum: checksum,
                    bytes: piece.bytes
                )
            )
        }
        command.writes = writes
        makeReady(command, of: volume)
    }

    /// The pieces of a command's bytes between the borders of data blocks, each with its block and its offset in it.
    private func pieces(
        of bytes: ByteBuffer,
        at offset: UInt64,
        in volume: VolumeOwner
    ) -> [(block: BlockID, inBlock: Int, bytes: ByteBuffer)] {
        let size = volume.blockBytes
        let end = offset + UInt64(bytes.readableBytes)
        var rest = bytes
        return (offset / size..<(end + size - 1) / size).map { number in
            let start = number * size
            let inBlock = max(offset, start) - start
            let count = min(end, start + size) - start - inBlock
            guard let piece = rest.readSlice(length: Int(count)) else {
                preconditionFailure("a command's pieces add up to its bytes")
            }
            return (BlockID(number), Int(inBlock), piece)
        }
    }

    private mutating func prepareOrWrite(
        _ command: Command,
        offset: UInt64,
        checksums: [Checksum],
        bytes: ByteBuffer,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        let pieces = pieces(of: bytes, at: offset, in: volume)
        guard gather(pieces.map(\.block), for: command, of: volume) else { return }
        guard zip(pieces, checksums).allSatisfy({ $0.bytes.checksum == $1 }) else {
            return cancel(command, of: volume, refusal: .invalid("a block does not agree with its checksum"), now: now)
        }
        command.writes = pieces.map { piece in
            guard let old = command.fetched[piece.block] else { preconditionFailure("a block is gathered first") }
            var merged = old.compacted
            merged.withUnsafeMutableReadableBytes { target in
                piece.bytes.withUnsafeReadableBytes { source in
                    for index in source.indices { target[piece.inBlock + index] |= source[index] }
                }
            }
            return ItemWrite(
                block: piece.block,
                version: volume.takeVersion(),
                checksum: merged.checksum,
                bytes: merged
            )
        }
        makeReady(command, of: volume)
    }

    /// A block with some of its bytes replaced; its old content has been gathered.
    private func overlay(
        _ piece: ByteBuffer,
        at offset: Int,
        on block: BlockID,
        for command: Command,
        of volume: VolumeOwner
    ) -> ItemWrite {
        guard let old = command.fetched[block] else { preconditionFailure("a partial block is gathered first") }
        var merged = old.compacted
        merged.setBuffer(piece, at: merged.readerIndex + offset)
        return ItemWrite(block: block, version: volume.takeVersion(), checksum: merged.checksum, bytes: merged)
    }

    private mutating func prepareCompareAndWrite(
        _ command: Command,
        offset: UInt64,
        bytes: ByteBuffer,
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        var replacement = bytes
        guard let expected = replacement.readSlice(length: bytes.readableBytes / 2) else {
            preconditionFailure("half of an even number")
        }
        let compared = pieces(of: expected, at: offset, in: volume)
        guard gather(compared.map(\.block), for: command, of: volume) else { return }
        var position = 0
        for piece in compared {
            let count = piece.bytes.readableBytes
            guard
                let old = command.fetched[piece.block],
                let found = old.getSlice(at: old.readerIndex + piece.inBlock, length: count)
            else { preconditionFailure("a block is gathered first") }
            if let difference = found.firstDifference(from: piece.bytes) {
                // What the block holds is told, as by a read (R8).
                guard holdsLease(now: now) else { return park(command, of: volume) }
                let at = UInt64(position + difference)
                keepAnswer(to: command, .miscompare(offset: at), of: volume)
                answer(command, .miscompare(stamp(volume, now), offset: at))
                return finish(command, of: volume, now: now)
            }
            position += count
        }
        command.writes = pieces(of: replacement, at: offset, in: volume).map {
            overlay($0.bytes, at: $0.inBlock, on: $0.block, for: command, of: volume)
        }
        makeReady(command, of: volume)
    }

    /// Makes the effects of a copy (M11): what lies in an object is referred to, an unmoved item becomes a new one, zeros are
    /// zeros.
    private mutating func prepareCopy(
        _ command: Command,
        from source: UInt64,
        to destination: UInt64,
        count: UInt64,
        of volume: VolumeOwner
    ) {
        let blocks = volume.geometry.blocks(touching: ByteRange(offset: source, count: count))
        let target = volume.geometry.blocks(touching: ByteRange(offset: destination, count: count)).first
        // The extent of a moved item holds the same bytes; that under an unmoved one is older.
        let sources = (0..<blocks.count).map { blocks.first + $0 }
        let unmoved = sources.filter { volume.image.item($0).map { !$0.isMoved } ?? false }
        guard gather(unmoved, for: command, of: volume) else { return }
        var version: Version?
        for block in sources {
            let copy = target + (block - blocks.first)
            if let bytes = command.fetched[block], let item = volume.image.item(block) {
                command.writes.append(
                    ItemWrite(block: copy, version: volume.takeVersion(), checksum: item.checksum, bytes: bytes)
                )
            } else if let extent = volume.image.extent(block) {
                let taken = version ?? volume.takeVersion()
                version = taken
                let reference = Reference(source: extent, destination: copy, version: taken)
                if let last = command.references.last, let joined = last.joined(with: reference) {
                    command.references[command.references.count - 1] = joined
                } else {
                    command.references.append(reference)
                }
            } else {
                command.zeros.append(BlockRange(first: copy, count: 1))
            }
        }
        command.zeros = Self.normalized(command.zeros)
        makeReady(command, of: volume)
    }

    private mutating func prepareZero(
        _ command: Command,
        ranges: [ByteRange],
        of volume: VolumeOwner,
        now: MonotonicTime
    ) {
        let size = UInt64(volume.geometry.blockSizeBytes)
        let edges = partialBlocks(of: ranges, in: volume.geometry)
        guard gather(edges, for: command, of: volume) else { return }
        command.zeros = Self.normalized(
            ranges.map { volume.geometry.blocks(inside: $0) }.filter { !$0.isEmpty }
        )
        // Several ranges of one command may touch the same block at its two ends, or cover what another cuts.
        command.writes = edges.filter { block in !command.zeros.contains { $0.contains(block) } }.map { block in
            guard let old = command.fetched[block] else { preconditionFailure("a partial block is gathered first") }
            var merged = old.compacted
            let start = block.rawValue * size
            for range in ranges where range.count > 0 {
                let low = max(range.offset, start)
                let high = min(range.end, start + size)
                guard high > low else { continue }
                merged.setRepeatingByte(0, count: Int(high - low), at: merged.readerIndex + Int(low - start))
            }
            return ItemWrite(block: block, version: volume.takeVersion(), checksum: merged.checksum, bytes: merged)
        }
        makeReady(command, of: volume)
    }

    /// Blocks that a set of byte ranges touches without covering, ascending.
    func partialBlocks(of ranges: [ByteRange], in geometry: Geometry) -> [BlockID] {
        var result: Set<BlockID> = []
        for range in ranges where range.count > 0 {
            let touched = geometry.blocks(touching: range)
            let inside = geometry.blocks(inside: range)
            if !inside.contains(touched.first) { result.insert(touched.first) }
            let last = BlockID(touched.end.rawValue - 1)
            if !inside.contains(last) { result.insert(last) }
        }
        return result.sorted()
    }
}

extension CommandOperation {
    /// What the number of bytes must be a multiple of, where that is less than a logical block.
    fileprivate var writeGranularity: UInt64? {
        if case .write = self { Limits.writeGranularityBytes } else { nil }
    }

    /// The answer where no block is touched.
    fileprivate func emptyAnswer(_ stamp: Stamp) -> OwnerAnswer {
        switch self {
        case .read: .read(stamp, [], payload: [])
        case .mapStatus: .mapped(stamp, [])
        case .write, .direct, .zero, .compareAndWrite, .orWrite, .copy, .check, .unit: .done(stamp)
        }
    }
}

/// The bytes of a read, in buffers that hold several blocks each.
private struct ReadPayload {
    private(set) var buffers: [ByteBuffer] = []
    /// Whether the last buffer is one of those that are filled here.
    private var isFilling = false

    /// Adds a block that is in memory; `blocksLeft` of the command are to come at most, with this one.
    mutating func append(_ place: BlockSlab.Place, of slab: BlockSlab, blocksLeft: Int) {
        if !isFilling || buffers[buffers.count - 1].writableBytes < slab.blockBytes {
            let bytes = min(blocksLeft * slab.blockBytes, max(OwnerLimits.readBufferBytes, slab.blockBytes))
            buffers.append(ByteBufferAllocator().buffer(capacity: bytes))
            isFilling = true
        }
        slab.append(place, to: &buffers[buffers.count - 1])
    }

    /// Adds a block that was fetched for the command.
    mutating func append(_ bytes: ByteBuffer) {
        buffers.append(bytes)
        isFilling = false
    }
}

extension ByteBuffer {
    /// The CRC-32C of the readable bytes.
    var checksum: Checksum { withUnsafeReadableBytes { Checksum(of: $0) } }

    /// A copy in storage of its own, so that it does not keep a large read buffer alive.
    package var compacted: ByteBuffer { ByteBuffer(bytes: readableBytesView) }

    /// The offset of the first readable byte that differs from the one at the same place in `other`, which is as long; halves
    /// are compared as wholes, which is a matter of one call each.
    package func firstDifference(from other: ByteBuffer) -> Int? {
        guard self != other else { return nil }
        var low = 0
        var high = min(readableBytes, other.readableBytes)
        // All bytes below `low` agree; one below `high` differs, or one of the two ends there.
        while low < high {
            let middle = (low + high) / 2
            let count = middle + 1 - low
            if getSlice(at: readerIndex + low, length: count)
                == other.getSlice(at: other.readerIndex + low, length: count)
            {
                low = middle + 1
            } else {
                high = middle
            }
        }
        return low
    }
}
