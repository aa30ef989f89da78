import AshlarCore
import BlockObjects
import Failpoints
import Logging
import NIOConcurrencyHelpers
import NIOCore

/// One directory of objects: its files, its lock and its state of service.
///
/// An object is written in these steps, each after the one before it has succeeded; ``Failpoint`` names the points between:
///
/// | step | after a crash here |
/// | --- | --- |
/// | open the directory | nothing |
/// | temporary file in the object's directory: create, write, fdatasync, close | a leftover, which the start removes |
/// | link to the object's name, which fails if there is one | complete object or none; perhaps a leftover |
/// | remove the temporary name | complete object or none |
/// | fsync of the directory | complete object |
/// | acknowledge | complete object |
///
/// So a name never leads to bytes that were not synced before it (D11). The directory is opened *before* the link: the kernel
/// reports a failed write-back to descriptors that were open when it happened, even if another thread has been told already.
///
/// A failed sync takes the root out of service for as long as the process runs (D12): the kernel may have dropped what it
/// could not write, so that a second sync would say yes to nothing. Objects there are still read; nothing is written.
///
/// All methods block and may be called from any thread.
final class Root: Sendable {
    struct State: Sendable {
        var objects: UInt64 = 0
        var bytes: UInt64 = 0
        var damaged: UInt64 = 0
        var temporaryNumber: UInt64 = 0
        /// The highest id that lay here since the start.
        var highest: UInt64 = 0
        var failure: String?
    }

    let layout: RootLayout
    let identity: RootIdentity
    let key: UInt64
    let weight: UInt32
    let fileSystem: any FileSystem
    let isSynchronous: Bool
    let logger: Logger
    let state: NIOLockedValueBox<State>
    private let lockedDirectory: OpenFile

    init(
        layout: RootLayout,
        identity: RootIdentity,
        weight: UInt32,
        fileSystem: any FileSystem,
        isSynchronous: Bool,
        logger: Logger,
        lockedDirectory: OpenFile
    ) {
        self.layout = layout
        self.identity = identity
        key = Placement.rootKey(uuid: identity.uuid)
        self.weight = weight
        self.fileSystem = fileSystem
        self.isSynchronous = isSynchronous
        self.logger = logger
        self.lockedDirectory = lockedDirectory
        state = NIOLockedValueBox(State())
    }

    /// Lets another service have the root.
    func unlock() {
        fileSystem.discard(lockedDirectory)
    }

    // MARK: Service

    var isInService: Bool { state.withLockedValue { $0.failure == nil } }

    func requireInService() throws(ObjectStoreError) {
        if let failure = state.withLockedValue({ $0.failure }) {
            throw ObjectStoreError(
                .rootOutOfService,
                "object root \(layout.root) is out of service (\(failure)): check its disk, then restart the service"
            )
        }
    }

    private func takeOutOfService(_ error: ObjectStoreError) {
        let isFirst = state.withLockedValue { state in
            guard state.failure == nil else { return false }
            state.failure = error.message
            return true
        }
        guard isFirst else { return }
        logger.critical(
            "object root taken out of service: a sync failed, so nothing more is written there until a restart",
            metadata: ["path": "\(layout.root)", "error": "\(error)"]
        )
    }

    /// fdatasync of a written file; a failure takes the root out of service (D12).
    func syncFile(_ file: OpenFile) throws(ObjectStoreError) {
        guard isSynchronous else { return }
        do throws(ObjectStoreError) {
            try fileSystem.syncFile(file)
        } catch {
            takeOutOfService(error)
            throw error
        }
    }

    /// fsync of a directory; a failure takes the root out of service (D12).
    func syncDirectory(_ directory: OpenFile) throws(ObjectStoreError) {
        guard isSynchronous else { return }
        do throws(ObjectStoreError) {
            try fileSystem.syncDirectory(directory)
        } catch {
            takeOutOfService(error)
            throw error
        }
    }

    // MARK: Put

    /// Stores an object durably, or finds the very same one and makes it durable.
    ///
    /// - Parameter isCached: Whether it is to stay in the page cache.
    /// - Throws: `.exists` where another object has that id.
    func put(_ id: ObjectID, _ bytes: ByteBuffer, isCached: Bool) throws(ObjectStoreError) -> PutOutcome {
        try requireInService()
        let directory = try openShard(of: id)
        defer { fileSystem.discard(directory) }
        let number = state.withLockedValue { state in
            state.temporaryNumber += 1
            return state.temporaryNumber
        }
        let temporary = layout.temporaryPath(of: id, number: number)
        let outcome: PutOutcome
        do throws(ObjectStoreError) {
            try writeTemporary(temporary, bytes, isCached: isCached)
            outcome = try publish(temporary, id, bytes)
        } catch {
            removeTemporary(temporary)
            throw error
        }
        try syncDirectory(directory)
        // A sync that failed in another thread may have been about this object's name too.
        try requireInService()
        try fileSystem.reached(.putDirectorySynced)
        return outcome
    }

    private func openShard(of id: ObjectID) throws(ObjectStoreError) -> OpenFile {
        do throws(ObjectStoreError) {
            return try fileSystem.openDirectory(layout.directory(of: id))
        } catch {
            throw error.aboutDirectories
        }
    }

    private func writeTemporary(_ path: String, _ bytes: ByteBuffer, isCached: Bool) throws(ObjectStoreError) {
        let file: OpenFile
        do throws(ObjectStoreError) {
            file = try fileSystem.createFile(path)
        } catch {
            throw error.aboutDirectories
        }
        do throws(ObjectStoreError) {
            try fileSystem.reached(.putTemporaryCreated)
            try fileSystem.writeAll(bytes, to: file, isCached: isCached)
            try fileSystem.reached(.putTemporaryWritten)
            try syncFile(file)
            try fileSystem.reached(.putTemporarySynced)
        } catch {
            fileSystem.discard(file)
            throw error
        }
        try fileSystem.close(file)
    }

    /// Gives the synced temporary file the object's name.
    private func publish(
        _ temporary: String,
        _ id: ObjectID,
        _ bytes: ByteBuffer
    ) throws(ObjectStoreError) -> PutOutcome {
        let path = layout.path(of: id)
        for _ in 0..<ObjectStoreLimits.linkAttemptsMaximum {
            if try fileSystem.link(temporary, as: path) {
                state.withLockedValue { state in
                    state.objects += 1
                    state.bytes += UInt64(bytes.readableBytes)
                    state.highest = max(state.highest, id.rawValue)
                }
                try fileSystem.reached(.putLinked)
                removeTemporary(temporary)
                try fileSystem.reached(.putTemporaryRemoved)
                return .stored
            }
            switch try comparison(id, with: bytes) {
            case .absent:
                continue  // It was deleted in between.
            case .different:
                throw ObjectStoreError(.exists, "object \(id) exists with other bytes")
            case .identical:
                // What lies there may owe its sync to a disk that lost it (D12). The acknowledgement rests on what this put
                // has synced itself, so its own file takes the name over.
                try fileSystem.rename(temporary, over: path)
                try fileSystem.reached(.putReplaced)
                return .alreadyStored
            }
        }
        throw ObjectStoreError(.exists, "object \(id) comes and goes")
    }

    private func removeTemporary(_ path: String) {
        do throws(ObjectStoreError) {
            _ = try fileSystem.unlink(path)
        } catch {
            logger.warning("temporary file left behind; the next start removes it", metadata: ["error": "\(error)"])
        }
    }

    enum Comparison {
        case absent, identical, different
    }

    /// Compares the object of that id, if there is one, byte by byte.
    func comparison(_ id: ObjectID, with bytes: ByteBuffer) throws(ObjectStoreError) -> Comparison {
        guard let file = try openIfPresent(id) else { return .absent }
        defer { fileSystem.discard(file) }
        guard try fileSystem.byteCount(of: file) == UInt64(bytes.readableBytes) else { return .different }
        return try fileSystem.readAll(file, count: bytes.readableBytes, at: 0) == bytes ? .identical : .different
    }

    // MARK: Delete

    /// Removes the object's name durably.
    ///
    /// - Returns: Whether there was one. If not, the directory is synced all the same: an earlier delete may not have come
    ///   so far.
    func delete(_ id: ObjectID) throws(ObjectStoreError) -> Bool {
        let path = layout.path(of: id)
        guard isInService else {
            guard try fileSystem.byteCount(at: path) != nil else { return false }
            try requireInService()
            return false
        }
        let directory = try openShard(of: id)
        defer { fileSystem.discard(directory) }
        let count = try fileSystem.byteCount(at: path)
        let isRemoved = try fileSystem.unlink(path)
        if isRemoved {
            state.withLockedValue { state in
                state.objects -= min(state.objects, 1)
                state.bytes -= min(state.bytes, count ?? 0)
            }
            try fileSystem.reached(.deleteUnlinked)
        }
        try syncDirectory(directory)
        try requireInService()
        try fileSystem.reached(.deleteDirectorySynced)
        return isRemoved
    }
}

extension ObjectStoreError {
    /// The same error of a directory or temporary file: that one is missing or in the way says nothing of the object.
    fileprivate var aboutDirectories: ObjectStoreError {
        guard code == .notFound || code == .exists else { return self }
        return ObjectStoreError(.inputOutput, message, systemError: systemError)
    }
}
