import AshlarCore
import BlockObjects
import NIOCore

extension Root {
    /// Opens an object to be read; nil where it is not here.
    func openIfPresent(_ id: ObjectID) throws(ObjectStoreError) -> OpenFile? {
        do throws(ObjectStoreError) {
            return try fileSystem.openFile(layout.path(of: id))
        } catch {
            guard error.code == .notFound else { throw error }
            return nil
        }
    }

    /// The verified header of an open object. The size of the file is compared, so that a file that was cut off or emptied is
    /// found here (D11).
    func header(_ id: ObjectID, of file: OpenFile) throws(ObjectStoreError) -> BlockObjectHeader {
        let size = try fileSystem.byteCount(of: file)
        guard size >= UInt64(BlockObjectHeader.prefixBytes), size <= UInt64(Limits.objectMaximumBytes) else {
            throw ObjectStoreError(.corrupt, "object \(id) is a file of \(size) bytes, which no object has")
        }
        var bytes = try fileSystem.readAll(file, count: min(Int(size), ObjectStoreLimits.headerReadBytes), at: 0)
        let count: Int
        do throws(BlockObjectError) {
            count = try BlockObjectHeader.headerByteCount(prefix: bytes)
        } catch {
            throw .corrupt(id, error)
        }
        if count > bytes.readableBytes {
            bytes = try fileSystem.readAll(file, count: count, at: 0)
        }
        let header: BlockObjectHeader
        do throws(BlockObjectError) {
            header = try BlockObjectHeader(decoding: bytes)
        } catch {
            throw .corrupt(id, error)
        }
        guard header.objectID == id else {
            throw ObjectStoreError(.corrupt, "under the name of object \(id) lies object \(header.objectID)")
        }
        guard UInt64(header.objectBytes) == size else {
            throw ObjectStoreError(.corrupt, "object \(id) is a file of \(size) bytes instead of \(header.objectBytes)")
        }
        return header
    }

    /// The wanted slots of an open object, and their stored bytes one behind the other in as few pieces as there can be.
    func slots(
        _ id: ObjectID,
        of file: OpenFile,
        header: BlockObjectHeader,
        selection: SlotSelection
    ) throws(ObjectStoreError) -> (slots: [StoredSlot], payload: [ByteBuffer]) {
        let wanted: [SlotIndex]
        switch selection {
        case .all: wanted = (0..<UInt32(header.slots.count)).map { SlotIndex($0) }
        case .slots(let slots): wanted = slots
        }
        for index in wanted where Int(index.rawValue) >= header.slots.count {
            throw ObjectStoreError(.invalid, "object \(id) has \(header.slots.count) slots", slot: index)
        }
        var runs: [(run: StoredRun, bytes: ByteBuffer)] = []
        for run in StoredRun.covering(wanted, of: header) {
            runs.append((run, try fileSystem.readAll(file, count: Int(run.end - run.start), at: UInt64(run.start))))
        }
        var slots: [StoredSlot] = []
        slots.reserveCapacity(wanted.count)
        var payload: [ByteBuffer] = []
        // What lies in a row in the file, and which of the runs it was read with.
        var row: (run: Int, bytes: StoredRun)?
        func endRow() {
            guard let row else { return }
            let (run, bytes) = runs[row.run]
            let start = bytes.readerIndex + Int(row.bytes.start - run.start)
            payload += bytes.getSlice(at: start, length: Int(row.bytes.end - row.bytes.start)).map { [$0] } ?? []
        }
        for index in wanted {
            let slot = header.slots[Int(index.rawValue)]
            // The runs ascend; the one that holds the slot is the last that does not begin behind it.
            let place = runs.lastIndex { $0.run.start <= slot.storedOffset }
            do throws(BlockObjectError) {
                if slot.storedCount > 0, let place {
                    let found = runs[place]
                    slots.append(try header.stored(index, from: found.bytes, startingAt: found.run.start))
                    if let last = row, last.run == place, last.bytes.end == slot.storedOffset {
                        row?.bytes.end = slot.storedEnd
                    } else {
                        endRow()
                        row = (place, StoredRun(start: slot.storedOffset, end: slot.storedEnd))
                    }
                } else {
                    slots.append(try header.stored(index, from: ByteBuffer(), startingAt: slot.storedOffset))
                }
            } catch {
                throw .corrupt(id, error)
            }
        }
        endRow()
        return (slots, payload)
    }

    /// Reads all of an object from the disk and verifies every checksum of it.
    ///
    /// - Returns: Its header, or nil where the object is not here.
    func verify(_ id: ObjectID) throws(ObjectStoreError) -> BlockObjectHeader? {
        guard let file = try openIfPresent(id) else { return nil }
        defer { fileSystem.discard(file) }
        fileSystem.dropCached(file)
        let header = try header(id, of: file)
        let bytes = try fileSystem.readAll(file, count: Int(header.objectBytes), at: 0)
        do throws(BlockObjectError) {
            try BlockObjectReader(decoding: bytes).verify(using: BlockInflater())
        } catch {
            throw .corrupt(id, error)
        }
        return header
    }

    /// Ids of objects that lie here, in the order of their hashes, from behind `after` on: the first `limit` of them.
    func list(afterHash after: UInt64?, limit: Int) throws(ObjectStoreError) -> [ObjectID] {
        var found: [ObjectID] = []
        var shard = after.map { Int($0 >> UInt64(64 - 2 * layout.bits)) } ?? 0
        while shard < layout.shardCount, found.count < limit {
            let names = try fileSystem.names(in: layout.directory(shard: shard))
            var ids = names.compactMap { RootLayout.objectID(ofName: $0) }
            if let after { ids.removeAll { Placement.hash($0) <= after } }
            ids.sort { Placement.hash($0) < Placement.hash($1) }
            found += ids.prefix(limit - found.count)
            shard += 1
        }
        return found
    }
}

/// Bytes of an object that are read in one go.
struct StoredRun: Hashable {
    /// Offset of the first byte.
    var start: UInt32
    /// Offset behind the last byte.
    var end: UInt32

    /// Runs that hold the stored bytes of all `wanted` slots, ascending. Slots lie in the order of their numbers.
    static func covering(_ wanted: [SlotIndex], of header: BlockObjectHeader) -> [StoredRun] {
        var runs: [StoredRun] = []
        for index in wanted.sorted() {
            let slot = header.slots[Int(index.rawValue)]
            guard slot.storedCount > 0 else { continue }
            if let last = runs.last, slot.storedOffset <= last.end + ObjectStoreLimits.readThroughMaximumBytes {
                runs[runs.count - 1].end = max(last.end, slot.storedEnd)
            } else {
                runs.append(StoredRun(start: slot.storedOffset, end: slot.storedEnd))
            }
        }
        return runs
    }
}
