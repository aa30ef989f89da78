import AshlarCore
import BlockObjects
import Failpoints
import Logging
import NIOConcurrencyHelpers
import NIOCore

extension Root {
    /// What other programs leave in an empty file system.
    private static let namesOfEmptyRoots: Set<String> = ["lost+found", RootLayout.identityTemporaryName]

    /// Locks a root, checks or makes its identity and its directories, and clears away what a crash left.
    ///
    /// - Throws: `.refused` where it may not be used (D33), else what the file system says.
    static func open(
        _ root: ObjectStoreConfiguration.Root,
        configuration: ObjectStoreConfiguration,
        fileSystem: any FileSystem,
        logger: Logger
    ) throws(ObjectStoreError) -> Root {
        let directory = try lockedDirectory(root.path, fileSystem: fileSystem)
        do throws(ObjectStoreError) {
            let opening = Opening(
                path: root.path,
                configuration: configuration,
                fileSystem: fileSystem,
                logger: logger,
                directory: directory
            )
            let identity = try opening.identity()
            let layout = RootLayout(root: root.path, bits: identity.directoryBits)
            try opening.createDirectories(layout)
            let opened = Root(
                layout: layout,
                identity: identity,
                weight: root.weight,
                fileSystem: fileSystem,
                isSynchronous: configuration.isSynchronous,
                logger: logger,
                lockedDirectory: directory
            )
            try opened.scan()
            return opened
        } catch {
            fileSystem.discard(directory)
            throw error
        }
    }

    private static func lockedDirectory(
        _ path: String,
        fileSystem: any FileSystem
    ) throws(ObjectStoreError) -> OpenFile {
        let directory: OpenFile
        do throws(ObjectStoreError) {
            directory = try fileSystem.openDirectory(path)
        } catch {
            guard error.code == .notFound else { throw error }
            throw ObjectStoreError(
                .refused,
                "object root \(path) does not exist: mount its disk or create the directory",
                systemError: error.systemError
            )
        }
        do throws(ObjectStoreError) {
            guard try fileSystem.lock(directory) else {
                throw ObjectStoreError(
                    .refused,
                    "object root \(path) is in use by another object service: stop that one or name another directory"
                )
            }
            return directory
        } catch {
            fileSystem.discard(directory)
            throw error
        }
    }

    /// Removes temporary files and counts the objects.
    private func scan() throws(ObjectStoreError) {
        var found = State()
        var leftovers = try fileSystem.unlink(layout.clockTemporary) ? 1 : 0
        var strangers = 0
        for shard in 0..<layout.shardCount {
            let directory = layout.directory(shard: shard)
            for name in try fileSystem.names(in: directory) {
                if name.hasSuffix(RootLayout.temporarySuffix) {
                    _ = try fileSystem.unlink("\(directory)/\(name)")
                    leftovers += 1
                } else if let id = RootLayout.objectID(ofName: name) {
                    let size = try fileSystem.byteCount(at: "\(directory)/\(name)") ?? 0
                    found.objects += 1
                    found.bytes += size
                    found.highest = max(found.highest, id.rawValue)
                    let isPossible =
                        size >= UInt64(BlockObjectsLimits.headerBytes(slotCount: 1))
                        && size <= UInt64(Limits.objectMaximumBytes)
                    if !isPossible {
                        found.damaged += 1
                        logger.error(
                            "object file of a size that no object has",
                            metadata: ["path": "\(directory)/\(name)", "bytes": "\(size)"]
                        )
                    }
                } else {
                    strangers += 1
                }
            }
        }
        state.withLockedValue { $0 = found }
        logger.info(
            "object root opened",
            metadata: [
                "path": "\(layout.root)", "objects": "\(found.objects)", "bytes": "\(found.bytes)",
                "leftovers-removed": "\(leftovers)", "foreign-files": "\(strangers)", "damaged": "\(found.damaged)",
            ]
        )
    }

    /// The steps that come before there is a root.
    private struct Opening {
        let path: String
        let configuration: ObjectStoreConfiguration
        let fileSystem: any FileSystem
        let logger: Logger
        let directory: OpenFile

        func identity() throws(ObjectStoreError) -> RootIdentity {
            let layout = RootLayout(root: path, bits: configuration.directoryBits)
            let names = try fileSystem.names(in: path)
            if names.contains(RootLayout.identityTemporaryName) {
                _ = try fileSystem.unlink(layout.identityTemporary)
            }
            guard names.contains(RootLayout.identityName) else {
                return try create(layout, names: names)
            }
            let identity = try RootIdentity(decoding: try read(layout.identity), path: path)
            try identity.check(against: configuration, path: path)
            return identity
        }

        private func read(_ path: String) throws(ObjectStoreError) -> ByteBuffer {
            let file = try fileSystem.openFile(path)
            defer { fileSystem.discard(file) }
            return try fileSystem.readAll(file, count: ObjectStoreLimits.identityMaximumBytes, at: 0)
        }

        /// Makes an empty directory a root.
        private func create(_ layout: RootLayout, names: [String]) throws(ObjectStoreError) -> RootIdentity {
            guard configuration.initializesEmptyRoots else {
                throw ObjectStoreError(
                    .refused,
                    "object root \(path) has no identity file: mount its disk, or allow new roots to be initialized"
                )
            }
            guard names.allSatisfy({ Root.namesOfEmptyRoots.contains($0) }) else {
                throw ObjectStoreError(
                    .refused,
                    "object root \(path) is not empty and has no identity file: name an empty directory, "
                        + "or restore the file '\(RootLayout.identityName)' if objects lie there"
                )
            }
            let identity = RootIdentity(
                clusterID: configuration.clusterID,
                serverID: configuration.serverID,
                uuid: fileSystem.randomBytes(count: 16),
                directoryBits: configuration.directoryBits
            )
            try write(identity, layout)
            return identity
        }

        private func write(_ identity: RootIdentity, _ layout: RootLayout) throws(ObjectStoreError) {
            let file = try fileSystem.createFile(layout.identityTemporary)
            do throws(ObjectStoreError) {
                try fileSystem.writeAll(identity.encoded(), to: file)
                try fileSystem.reached(.identityWritten)
                if configuration.isSynchronous { try fileSystem.syncFile(file) }
                try fileSystem.reached(.identitySynced)
            } catch {
                fileSystem.discard(file)
                throw error
            }
            try fileSystem.close(file)
            guard try fileSystem.link(layout.identityTemporary, as: layout.identity) else {
                throw ObjectStoreError(.refused, "object root \(path) was initialized by another service: start again")
            }
            try fileSystem.reached(.identityLinked)
            _ = try fileSystem.unlink(layout.identityTemporary)
        }

        /// Creates what is missing of the directories, and syncs their names.
        ///
        /// They are synced at every start: the process may have ended between creating and syncing them.
        /// The identity is synced before the first of them exists: else a crash could leave a directory that is neither empty
        /// nor a root.
        func createDirectories(_ layout: RootLayout) throws(ObjectStoreError) {
            if configuration.isSynchronous { try fileSystem.syncDirectory(directory) }
            try fileSystem.reached(.identityDirectorySynced)
            _ = try fileSystem.createDirectory(layout.objects)
            for outer in 0..<layout.fanout {
                _ = try fileSystem.createDirectory(layout.outerDirectory(outer))
                for inner in 0..<layout.fanout {
                    _ = try fileSystem.createDirectory(layout.directory(shard: outer << layout.bits | inner))
                }
            }
            try fileSystem.reached(.layoutCreated)
            guard configuration.isSynchronous else { return }
            for outer in 0..<layout.fanout {
                try sync(layout.outerDirectory(outer))
            }
            try sync(layout.objects)
            try fileSystem.syncDirectory(directory)
            try fileSystem.reached(.layoutSynced)
            syncParent()
        }

        private func sync(_ path: String) throws(ObjectStoreError) {
            let directory = try fileSystem.openDirectory(path)
            defer { fileSystem.discard(directory) }
            try fileSystem.syncDirectory(directory)
        }

        /// The root's own name; whoever created it may not have synced it. The parent may belong to somebody else.
        private func syncParent() {
            do throws(ObjectStoreError) {
                try sync("\(path)/..")
            } catch {
                logger.warning("the directory above an object root cannot be synced", metadata: ["error": "\(error)"])
            }
        }
    }
}
