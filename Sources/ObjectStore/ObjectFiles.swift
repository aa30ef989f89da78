package import AshlarCore
package import BlockObjects
package import Logging
import NIOConcurrencyHelpers
package import NIOCore

/// The store itself: several roots as one. Every method blocks and may be called from any thread.
///
/// An object goes to the root in service that scores highest for its id. After roots were added, reweighted, filled up or
/// failed it may lie elsewhere, so reads, puts and deletes look at the other roots too.
package final class ObjectFiles: Sendable {
    private let roots: [Root]
    private let headers = HeaderCache(slotsMaximum: ObjectStoreLimits.cachedSlotsMaximum)
    private let fileSystem: any FileSystem
    private let logger: Logger
    /// The highest clock that any root keeps.
    private let clock: NIOLockedValueBox<UInt64>

    package init(
        configuration: ObjectStoreConfiguration,
        fileSystem: any FileSystem,
        logger: Logger
    ) throws(ObjectStoreError) {
        try configuration.check()
        self.fileSystem = fileSystem
        self.logger = logger
        var opened: [Root] = []
        var highestClock: UInt64 = 0
        do throws(ObjectStoreError) {
            for root in configuration.roots {
                let next = try Root.open(root, configuration: configuration, fileSystem: fileSystem, logger: logger)
                opened.append(next)
                try Self.checkLastIsNoCopy(opened)
                highestClock = max(highestClock, try next.readClock())
            }
        } catch {
            for root in opened { root.unlock() }
            throw error
        }
        roots = opened
        clock = NIOLockedValueBox(highestClock)
    }

    private static func checkLastIsNoCopy(_ roots: [Root]) throws(ObjectStoreError) {
        guard let last = roots.last else { return }
        for root in roots.dropLast() where root.identity.uuid == last.identity.uuid {
            throw ObjectStoreError(
                .refused,
                "object root \(last.layout.root) is a copy of \(root.layout.root): leave one of them out of objects.roots"
            )
        }
    }

    /// Lets another service have the roots. Nothing may be called afterwards.
    package func close() {
        for root in roots { root.unlock() }
    }

    /// Indices of the roots, the one where an object belongs first.
    private func order(_ id: ObjectID) -> [Int] {
        guard roots.count > 1 else { return [0] }
        let scores = roots.map { Placement.score(id, rootKey: $0.key, weight: $0.weight) }
        return roots.indices.sorted { (scores[$0], roots[$0].key) > (scores[$1], roots[$1].key) }
    }

    // MARK: Put

    package func put(
        _ id: ObjectID,
        bytes: ByteBuffer,
        isCached: Bool = true
    ) throws(ObjectStoreError) -> PutOutcome {
        let header = try validated(id, bytes)
        let order = order(id)
        var candidates = order.filter { roots[$0].isInService && roots[$0].weight > 0 }
        if let holder = try holderOfIdentical(id, bytes, order: order) {
            candidates.removeAll { $0 == holder }
            candidates.insert(holder, at: 0)
        }
        var failure = ObjectStoreError(
            .rootOutOfService,
            "no object root takes new objects: check the disks of those that failed, then restart the service"
        )
        for index in candidates {
            do throws(ObjectStoreError) {
                let outcome = try roots[index].put(id, bytes, isCached: isCached)
                headers.insert(HeaderCache.Entry(header: header, root: index), for: id)
                return outcome
            } catch {
                failure = error
                // A full disk is no reason to fail while there is another; all else the caller has to see.
                guard error.code == .noSpace else { throw error }
            }
        }
        throw failure
    }

    private func validated(_ id: ObjectID, _ bytes: ByteBuffer) throws(ObjectStoreError) -> BlockObjectHeader {
        let header: BlockObjectHeader
        do throws(BlockObjectError) {
            let reader = try BlockObjectReader(decoding: bytes)
            try reader.verifyStored()
            header = reader.header
        } catch {
            throw ObjectStoreError(.invalid, "put of object \(id): \(error.message)", slot: error.slot)
        }
        guard header.objectID == id else {
            throw ObjectStoreError(.invalid, "put of object \(id): the bytes are object \(header.objectID)")
        }
        return header
    }

    /// The root in service that holds the same bytes under that id already; nil where none does.
    ///
    /// - Throws: `.exists` where any root holds others (M9).
    private func holderOfIdentical(
        _ id: ObjectID,
        _ bytes: ByteBuffer,
        order: [Int]
    ) throws(ObjectStoreError) -> Int? {
        // With a single root the put itself finds out, in one step with its effect.
        guard roots.count > 1 else { return nil }
        var holder: Int?
        for index in order {
            do throws(ObjectStoreError) {
                switch try roots[index].comparison(id, with: bytes) {
                case .absent: continue
                case .different: throw ObjectStoreError(.exists, "object \(id) exists with other bytes")
                case .identical: if holder == nil, roots[index].isInService { holder = index }
                }
            } catch {
                // A root that failed may not be readable either; what it holds is then as good as lost.
                guard error.code != .exists, !roots[index].isInService else { throw error }
            }
        }
        return holder
    }

    // MARK: Read

    package func get(_ id: ObjectID, selection: SlotSelection) throws(ObjectStoreError) -> StoredObject {
        if case .slots(let slots) = selection, slots.count > Int(Limits.objectSlotsMaximum) {
            throw ObjectStoreError(.invalid, "\(slots.count) slots; at most \(Limits.objectSlotsMaximum) are allowed")
        }
        let cached = headers.entry(id)
        return try firstFound(id, preferred: cached?.root) { root, file, index throws(ObjectStoreError) in
            let header: BlockObjectHeader
            if let cached, cached.root == index {
                header = cached.header
            } else {
                header = try root.header(id, of: file)
                self.headers.insert(HeaderCache.Entry(header: header, root: index), for: id)
            }
            let (slots, payload) = try root.slots(id, of: file, header: header, selection: selection)
            return StoredObject(header: header, slots: slots, payload: payload)
        }
    }

    /// Always looks whether the object is still there; the cache only spares parsing.
    package func header(_ id: ObjectID) throws(ObjectStoreError) -> BlockObjectHeader {
        let cached = headers.entry(id)
        return try firstFound(id, preferred: cached?.root) { root, file, index throws(ObjectStoreError) in
            if let cached, cached.root == index,
                try self.fileSystem.byteCount(of: file) == UInt64(cached.header.objectBytes)
            {
                return cached.header
            }
            let header = try root.header(id, of: file)
            self.headers.insert(HeaderCache.Entry(header: header, root: index), for: id)
            return header
        }
    }

    /// Gives `body` the object from the first root that has it, and from the next one where that fails.
    private func firstFound<Value>(
        _ id: ObjectID,
        preferred: Int?,
        _ body: (Root, OpenFile, Int) throws(ObjectStoreError) -> Value
    ) throws(ObjectStoreError) -> Value {
        var order = order(id)
        if let preferred {
            order.removeAll { $0 == preferred }
            order.insert(preferred, at: 0)
        }
        var failure: ObjectStoreError?
        for index in order {
            let root = roots[index]
            do throws(ObjectStoreError) {
                guard let file = try root.openIfPresent(id) else { continue }
                defer { fileSystem.discard(file) }
                return try body(root, file, index)
            } catch {
                // The caller's own mistake is the same everywhere.
                guard error.code != .invalid else { throw error }
                headers.remove(id)
                failure = failure ?? error
            }
        }
        headers.remove(id)
        throw failure ?? ObjectStoreError(.notFound, "there is no object \(id)")
    }

    package func verify(_ id: ObjectID) throws(ObjectStoreError) -> VerifiedObject {
        var found: BlockObjectHeader?
        var copies = 0
        for index in order(id) {
            guard let header = try roots[index].verify(id) else { continue }
            guard found == nil || found == header else {
                throw ObjectStoreError(.corrupt, "the roots hold different objects \(id)")
            }
            found = header
            copies += 1
        }
        guard let found else { throw ObjectStoreError(.notFound, "there is no object \(id)") }
        return VerifiedObject(slots: found.slots.count, bytes: UInt64(found.objectBytes), copies: copies)
    }

    // MARK: Delete, list, count

    /// Removes the object from every root; whether any had it.
    package func delete(_ id: ObjectID) throws(ObjectStoreError) -> Bool {
        headers.remove(id)
        var isRemoved = false
        var failure: ObjectStoreError?
        for root in roots {
            do throws(ObjectStoreError) {
                if try root.delete(id) { isRemoved = true }
            } catch {
                failure = failure ?? error
            }
        }
        // A get that was under way may have put it back.
        headers.remove(id)
        if let failure { throw failure }
        return isRemoved
    }

    package func list(after: ObjectID?, limit: Int) throws(ObjectStoreError) -> ObjectPage {
        guard limit >= 1, limit <= ObjectStoreLimits.listMaximum else {
            throw ObjectStoreError(
                .invalid,
                "a page of \(limit); from 1 to \(ObjectStoreLimits.listMaximum) are allowed"
            )
        }
        let hash = after.map { Placement.hash($0) }
        var all: Set<ObjectID> = []
        for root in roots {
            all.formUnion(try root.list(afterHash: hash, limit: limit))
        }
        let ids = all.sorted { Placement.hash($0) < Placement.hash($1) }.prefix(limit)
        return ObjectPage(ids: Array(ids), next: ids.count == limit ? ids.last : nil)
    }

    /// Keeps a clock where it is higher than the one that is kept. One call at a time.
    ///
    /// - Throws: What the last root said, where none could keep it.
    func raiseClock(_ new: UInt64) throws(ObjectStoreError) -> DatabaseKnowledge {
        if new > clock.withLockedValue({ $0 }) {
            var failure: ObjectStoreError?
            var isKept = false
            for root in roots {
                do throws(ObjectStoreError) {
                    try root.writeClock(new)
                    isKept = true
                } catch {
                    failure = error
                    logger.warning(
                        "a clock was not kept",
                        metadata: ["path": "\(root.layout.root)", "error": "\(error)"]
                    )
                }
            }
            if let failure, !isKept { throw failure }
            clock.withLockedValue { $0 = new }
        }
        return DatabaseKnowledge(
            clock: clock.withLockedValue { $0 },
            highestObject: ObjectID(roots.map { $0.state.withLockedValue { $0.highest } }.max() ?? 0)
        )
    }

    func statistics() -> ObjectStoreStatistics {
        ObjectStoreStatistics(
            roots: roots.map { root in
                let state = root.state.withLockedValue { $0 }
                let space = try? fileSystem.space(at: root.layout.root)
                return ObjectStoreStatistics.Root(
                    path: root.layout.root,
                    weight: root.weight,
                    uuid: Hexadecimal.text(root.identity.uuid),
                    objects: state.objects,
                    bytes: state.bytes,
                    damagedObjects: state.damaged,
                    freeBytes: space?.freeBytes,
                    totalBytes: space?.totalBytes,
                    failure: state.failure
                )
            }
        )
    }
}
