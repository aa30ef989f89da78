public import AshlarCore
public import BlockObjects
public import Logging
import NIOConcurrencyHelpers
public import NIOCore

/// Block objects in files, sharded over directories and roots, written durably and once (I6, M9).
///
/// Operations may be asked for from any thread, never block the caller, and answer exactly once through their completion.
/// They run on threads of the store's own: some for reads, some for writes, one for listing and verifying, so that neither
/// waits for the others. Completions are gathered and handed to the `executor` many at once, so that a burst of answers
/// costs an event loop one wake-up.
public final class ObjectStore: Sendable {
    /// Called with the outcome, on the `executor`.
    public typealias Completion<Value> = @Sendable (Result<Value, ObjectStoreError>) -> Void
    /// Runs a piece of work at once or a little later: `{ eventLoop.execute($0) }`.
    public typealias Executor = @Sendable (@escaping @Sendable () -> Void) -> Void

    private let files: ObjectFiles
    private let readers: WorkerPool
    private let writers: WorkerPool
    private let keepers: WorkerPool
    private let outbox: Outbox
    private let putBytesWaiting = NIOLockedValueBox(0)
    private let isClosed = NIOLockedValueBox(false)

    /// Opens the roots: locks them, removes leftovers of a crash, counts what is there. Blocks meanwhile.
    ///
    /// - Parameters:
    ///   - configuration: Roots, which must exist as directories, and to whom they belong.
    ///   - fileSystem: The file system of the machine, or that of a test.
    ///   - logger: For what operators have to know.
    ///   - executor: Where completions run; without one, on the store's threads.
    /// - Throws: `.invalid` for a configuration that cannot be, `.refused` for a root that may not be used (D33), or what the
    ///   file system says.
    public init(
        configuration: ObjectStoreConfiguration,
        fileSystem: any FileSystem = LinuxFileSystem(),
        logger: Logger,
        executor: @escaping Executor = { $0() }
    ) throws(ObjectStoreError) {
        let files = try ObjectFiles(configuration: configuration, fileSystem: fileSystem, logger: logger)
        var pools: [WorkerPool] = []
        do throws(ObjectStoreError) {
            for count in [configuration.readThreads, configuration.writeThreads, 1] {
                let waiting = ObjectStoreLimits.requestsWaitingMaximum
                pools.append(try WorkerPool(threads: count, waitingMaximum: waiting))
            }
        } catch {
            for pool in pools { pool.shutdown() }
            files.close()
            throw error
        }
        self.files = files
        readers = pools[0]
        writers = pools[1]
        keepers = pools[2]
        outbox = Outbox(executor: executor)
    }

    /// Stores an object durably: when it succeeds, file and name are synced (M9).
    ///
    /// - Parameters:
    ///   - id: The object's id; that in its header must be the same.
    ///   - bytes: The whole object, as ``BlockObjects/BlockObjectBuilder/finish()`` makes it.
    ///   - isCached: Whether it is to stay in the page cache, since it may soon be read.
    ///   - completion: Fails with `.invalid` for bytes that are no sound object of that id, `.exists` where another object has the
    ///     id, `.noSpace`, `.inputOutput`, `.rootOutOfService`, `.busy`, `.closed`. After any failure the object may be there or
    ///     not; to repeat the same put is safe.
    public func put(
        _ id: ObjectID,
        bytes: ByteBuffer,
        isCached: Bool = true,
        completion: @escaping Completion<PutOutcome>
    ) {
        let count = bytes.readableBytes
        let isTaken = putBytesWaiting.withLockedValue { waiting in
            guard waiting + count <= ObjectStoreLimits.putBytesWaitingMaximum else { return false }
            waiting += count
            return true
        }
        guard isTaken else {
            outbox.post { completion(.failure(Self.busy)) }
            return
        }
        run(on: writers) { files throws(ObjectStoreError) in
            try files.put(id, bytes: bytes, isCached: isCached)
        } completion: { [putBytesWaiting] result in
            putBytesWaiting.withLockedValue { $0 -= count }
            completion(result)
        }
    }

    /// Reads slots of an object, as they are stored; their stored checksums are verified (I11).
    ///
    /// - Parameters:
    ///   - id: The object.
    ///   - slots: Which slots.
    ///   - completion: Fails with `.notFound`, `.invalid` for a slot that the object has not, `.corrupt`, `.inputOutput`, `.busy`,
    ///     `.closed`.
    public func get(_ id: ObjectID, slots: SlotSelection, completion: @escaping Completion<StoredObject>) {
        run(on: readers) { files throws(ObjectStoreError) in
            try files.get(id, selection: slots)
        } completion: {
            completion($0)
        }
    }

    /// Reads and verifies the header of an object.
    ///
    /// - Parameters:
    ///   - id: The object.
    ///   - completion: Fails as that of ``get(_:slots:completion:)``.
    public func header(_ id: ObjectID, completion: @escaping Completion<BlockObjectHeader>) {
        run(on: readers) { files throws(ObjectStoreError) in
            try files.header(id)
        } completion: {
            completion($0)
        }
    }

    /// Deletes an object durably; one that is not there is no error.
    ///
    /// - Parameters:
    ///   - id: The object.
    ///   - completion: Says whether it was there; fails with `.inputOutput`, `.rootOutOfService`, `.busy`, `.closed`.
    public func delete(_ id: ObjectID, completion: @escaping Completion<Bool>) {
        run(on: writers) { files throws(ObjectStoreError) in
            try files.delete(id)
        } completion: {
            completion($0)
        }
    }

    /// Lists ids of objects in all roots, a page at a time, in an order that never changes (by a hash of the id).
    ///
    /// Objects that are put or deleted meanwhile may be in it or not; every other one is in it exactly once.
    ///
    /// - Parameters:
    ///   - after: ``ObjectPage/next`` of the page before; nil to begin. The object need not exist any more.
    ///   - limit: Most ids, from 1 to ``ObjectStoreLimits/listMaximum``.
    ///   - completion: Fails with `.invalid`, `.inputOutput`, `.busy`, `.closed`.
    public func list(after: ObjectID?, limit: Int, completion: @escaping Completion<ObjectPage>) {
        run(on: keepers) { files throws(ObjectStoreError) in
            try files.list(after: after, limit: limit)
        } completion: {
            completion($0)
        }
    }

    /// Reads all of an object from the disk, in every root that holds it, and verifies every checksum (I11).
    ///
    /// - Parameters:
    ///   - id: The object.
    ///   - completion: Fails with `.notFound`, `.corrupt` with the slot, `.inputOutput`, `.busy`, `.closed`.
    public func verify(_ id: ObjectID, completion: @escaping Completion<VerifiedObject>) {
        run(on: keepers) { files throws(ObjectStoreError) in
            try files.verify(id)
        } completion: {
            completion($0)
        }
    }

    /// Keeps the clock of the database durably where it is higher than the one that is kept, and tells what is known of the
    /// database (M8).
    ///
    /// - Parameters:
    ///   - clock: 0 to ask only.
    ///   - completion: Fails with `.inputOutput`, `.noSpace`, `.rootOutOfService` where no root could keep it, `.busy`, `.closed`.
    public func raiseClock(_ clock: UInt64, completion: @escaping Completion<DatabaseKnowledge>) {
        // The one thread of this pool sees to it that clocks are written one after the other.
        run(on: keepers) { files throws(ObjectStoreError) in
            try files.raiseClock(clock)
        } completion: {
            completion($0)
        }
    }

    /// Counts objects, bytes and free space of each root, and tells which are out of service (D12).
    ///
    /// - Parameter completion: Fails with `.busy` or `.closed` only.
    public func statistics(completion: @escaping Completion<ObjectStoreStatistics>) {
        run(on: keepers) { files throws(ObjectStoreError) in
            files.statistics()
        } completion: {
            completion($0)
        }
    }

    /// Ends the store: runs what waits, ends the threads, unlocks the roots. Operations asked for later fail with `.closed`.
    ///
    /// Must be called before the store is let go; a second call does nothing.
    ///
    /// - Warning: Blocks; not to be called from a completion that runs on one of the store's threads.
    public func shutdown() {
        let isFirst = isClosed.withLockedValue { isClosed in
            defer { isClosed = true }
            return !isClosed
        }
        guard isFirst else { return }
        for pool in [readers, writers, keepers] {
            pool.shutdown()
        }
        files.close()
    }

    private static let busy = ObjectStoreError(.busy, "too many requests wait for the object store: try again later")
    private static let closed = ObjectStoreError(.closed, "the object store was shut down")

    private func run<Value: Sendable>(
        on pool: WorkerPool,
        _ operation: @escaping @Sendable (ObjectFiles) throws(ObjectStoreError) -> Value,
        completion: @escaping Completion<Value>
    ) {
        let refusal = pool.submit { [files, outbox] in
            let result: Result<Value, ObjectStoreError>
            do throws(ObjectStoreError) {
                result = .success(try operation(files))
            } catch {
                result = .failure(error)
            }
            outbox.post { completion(result) }
        }
        switch refusal {
        case nil: return
        case .full: outbox.post { completion(.failure(Self.busy)) }
        case .closed: outbox.post { completion(.failure(Self.closed)) }
        }
    }
}

/// Completions on their way to the executor. Only the first of a burst wakes it; the others ride along.
private final class Outbox: Sendable {
    private let executor: ObjectStore.Executor
    private let waiting = NIOLockedValueBox<[@Sendable () -> Void]>([])

    init(executor: @escaping ObjectStore.Executor) {
        self.executor = executor
    }

    func post(_ completion: @escaping @Sendable () -> Void) {
        let isFirst = waiting.withLockedValue { waiting in
            waiting.append(completion)
            return waiting.count == 1
        }
        guard isFirst else { return }
        executor { [self] in deliver() }
    }

    private func deliver() {
        let completions = waiting.withLockedValue { waiting in
            defer { waiting = [] }
            return waiting
        }
        for completion in completions { completion() }
    }
}
