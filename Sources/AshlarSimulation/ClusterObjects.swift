import AshlarCore
import AshlarTestSupport
import BlockObjects
import Logging
import NIOCore
import ObjectStore
import Ownership

/// An object server: production's files, on a disk that forgets what was not synced, fails and fills up.
final class ObjectNode {
    let number: ObjectServerID
    let disk = ModelFileSystem()
    /// nil while the process is down.
    var files: ObjectFiles?
    var pausedUntil: UInt64 = 0
    /// Whether it was started before.
    var isMade = false
    /// What it has acknowledged, or holds without having said so: the slots of each object.
    var holdings: [ObjectID: [BlockObjectHeader.Slot]] = [:]

    init(number: ObjectServerID) { self.number = number }
}

/// Why an object server did not do what it was asked.
enum ObjectFailure: Error {
    /// There is no answer: it may have been done.
    case lost
    case refused(ObjectStoreError)
}

// The tier of objects: puts, reads and deletions, disks that fail, fill up, and lose what was not synced.
extension Cluster {
    /// The errno of a disk that cannot read or write.
    private static let inputOutputError: Int32 = 5
    private static let silent = Logger(label: "simulation", factory: { _ in SwiftLogNoOpLogHandler() })

    func node(_ number: ObjectServerID) -> ObjectNode? { nodes.first { $0.number == number } }

    func open(_ node: ObjectNode) {
        var configuration = ObjectStoreConfiguration(
            roots: [ObjectStoreConfiguration.Root(path: "/disk")],
            clusterID: "8f14e45f-ceea-467f-9a5c-111111111111",
            serverID: node.number
        )
        configuration.directoryBits = 1
        // The root itself is made as always.
        configuration.isSynchronous = defect != .putsUnsynced || !node.isMade
        node.isMade = true
        do throws(ObjectStoreError) {
            node.files = try ObjectFiles(configuration: configuration, fileSystem: node.disk, logger: Self.silent)
        } catch {
            problems.append("object server \(node.number) does not start again: \(error)")
        }
        node.disk.forgetCalls()
    }

    /// Ends a process, or the machine with what it had not synced, and starts it again a little later.
    func stop(_ node: ObjectNode, isMachine: Bool) {
        guard node.files != nil else { return }
        count(isMachine ? "object server: power cut" : "object server: restart")
        node.files = nil
        after(UInt64(100 + generator.below(3_000)) * 1_000_000) { [self] in
            if isMachine { node.disk.restartMachine(seed: generator.next()) } else { node.disk.restartProcess() }
            open(node)
            for object in node.holdings.keys.sorted() where (try? node.files?.verify(object)) == nil {
                node.holdings[object] = nil
            }
            node.disk.forgetCalls()
            checkMap("restart of object server \(node.number)")
        }
    }

    /// Asks an object server; the answer comes a little later, or is lost.
    func ask<Value>(
        _ number: ObjectServerID,
        slowedBy extra: UInt64 = 0,
        _ run: @escaping (ObjectNode, ObjectFiles) throws(ObjectStoreError) -> Value,
        answer: @escaping (Result<Value, ObjectFailure>) -> Void
    ) {
        after(delay() + extra) { [self] in arrive(number, run, answer) }
    }

    private func arrive<Value>(
        _ number: ObjectServerID,
        _ run: @escaping (ObjectNode, ObjectFiles) throws(ObjectStoreError) -> Value,
        _ answer: @escaping (Result<Value, ObjectFailure>) -> Void
    ) {
        guard let node = node(number), let files = node.files else {
            return after(delay()) { answer(.failure(.lost)) }
        }
        // It pauses with requests left in its sockets.
        if node.pausedUntil > now {
            return after(node.pausedUntil - now + 1) { [self] in arrive(number, run, answer) }
        }
        let result: Result<Value, ObjectFailure>
        do throws(ObjectStoreError) {
            result = .success(try run(node, files))
        } catch {
            result = .failure(.refused(error))
        }
        node.disk.setFault(nil)
        node.disk.forgetCalls()
        if node.disk.isCrashed {
            stop(node, isMachine: true)
            return after(500_000_000) { answer(.failure(.lost)) }
        }
        after(delay()) { answer(result) }
    }

    // MARK: Requests

    func put(
        _ object: ObjectID,
        _ bytes: ByteBuffer,
        on number: ObjectServerID,
        answer: @escaping (Result<PutOutcome, ObjectFailure>) -> Void
    ) {
        let dice = isQuiet ? .max : generator.below(120)
        let call = generator.below(14)
        ask(number) { [self] (node, files) throws(ObjectStoreError) -> PutOutcome in
            plant(dice, at: call, on: node)
            let outcome = try files.put(object, bytes: bytes)
            hold(object, bytes, on: node)
            return outcome
        } answer: {
            answer($0)
        }
    }

    /// The disk of a put stops, cannot sync, is full, or errs.
    private func plant(_ dice: Int, at call: Int, on node: ObjectNode) {
        switch dice {
        case 0, 1: node.disk.setFault { _, number in number == call ? ModelFileSystem.crash : nil }
        case 2:
            count("disk: sync failed")
            node.disk.fail(.syncFile, Self.inputOutputError)
            // The root takes nothing more; somebody looks after it.
            after(UInt64(500 + generator.below(4_000)) * 1_000_000) { [self] in stop(node, isMachine: false) }
        case 3, 4:
            count("disk: full")
            node.disk.fail(.write, ModelFileSystem.noSpace)
        case 5:
            count("disk: write failed")
            node.disk.fail(.write, Self.inputOutputError)
        default: break
        }
    }

    private func hold(_ object: ObjectID, _ bytes: ByteBuffer, on node: ObjectNode) {
        guard let header = try? BlockObjectReader(decoding: bytes).header else {
            return problems.append("object \(object) was stored and cannot be read")
        }
        if let former = node.holdings[object], former != header.slots {
            problems.append("I6: object \(object) was stored twice with other bytes")
        }
        node.holdings[object] = header.slots
    }

    func delete(
        _ object: ObjectID,
        on number: ObjectServerID,
        answer: @escaping (Bool) -> Void
    ) {
        let dice = isQuiet ? .max : generator.below(200)
        let call = generator.below(5)
        ask(number) { [self] (node, files) throws(ObjectStoreError) -> Bool in
            if dice == 0 { node.disk.setFault { _, number in number == call ? ModelFileSystem.crash : nil } }
            let wasThere = node.holdings.removeValue(forKey: object) != nil
            _ = try files.delete(object)
            if wasThere { checkMap("deletion of object \(object)") }
            return true
        } answer: {
            if case .success = $0 { answer(true) } else { answer(false) }
        }
    }

    /// Reads slots of an object: the header's entries and the slots as they are stored.
    func read(
        _ object: ObjectID,
        _ first: SlotIndex,
        _ slots: UInt32,
        on number: ObjectServerID,
        slowedBy extra: UInt64 = 0,
        answer: @escaping (Result<[(entry: BlockObjectHeader.Slot, stored: StoredSlot)], ObjectFailure>) -> Void
    ) {
        let fails = !isQuiet && generator.below(500) == 0
        ask(number, slowedBy: extra) { (node, files) throws(ObjectStoreError) -> StoredObject in
            if fails { node.disk.fail(.read, Self.inputOutputError) }
            let wanted = (0..<slots).map { SlotIndex(first.rawValue + $0) }
            return try files.get(object, selection: .slots(wanted))
        } answer: { result in
            answer(
                result.map { found in
                    found.slots.enumerated().map { (found.header.slots[Int(first.rawValue) + $0], $1) }
                }
            )
        }
    }

    /// The plain bytes of a slot that must have been written as `origin`; nil where it was not, or is damaged (I11).
    func plain(_ slot: (entry: BlockObjectHeader.Slot, stored: StoredSlot), origin: BlockID) -> ByteBuffer? {
        guard slot.entry.block == origin else { return nil }
        return try? slot.stored.decoded(blockSizeBytes: UInt32(blockBytes), slot: SlotIndex(0), using: inflater)
    }

    // MARK: The owner's reads

    func fetch(_ id: OperationID, _ extent: Extent, at index: Int, _ generation: Int) {
        let isUnavailable = !isQuiet && generator.below(50) == 0
        read(extent.object, extent.firstSlot, 1, on: extent.server) { [self] found in
            toServerNow(index, generation) { [self] server in
                let result: Result<ByteBuffer, SlotFailure>
                switch found {
                case _ where isUnavailable: result = .failure(.unavailable("planted"))
                case .success(let slots):
                    if let slot = slots.first, let bytes = plain(slot, origin: extent.origin) {
                        result = .success(bytes)
                    } else {
                        count("damaged read")
                        result = .failure(.damaged("another block"))
                    }
                case .failure(.refused(let error)) where error.code == .notFound:
                    result = .failure(.damaged("gone"))
                case .failure: result = .failure(.unavailable("no answer"))
                }
                server.core.slotFetched(id, result, now: MonotonicTime(now))
            }
        }
    }
}
