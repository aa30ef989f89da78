public import AshlarCore

/// What an object store has to know.
public struct ObjectStoreConfiguration: Sendable, Hashable {
    /// A directory in which objects lie, usually one a disk.
    public struct Root: Sendable, Hashable {
        /// The directory; it must exist.
        public var path: String
        /// Its share of the objects, relative to the other roots; 0: no new objects.
        public var weight: UInt32

        /// A directory and its weight.
        public init(path: String, weight: UInt32 = ObjectStoreLimits.weightDefault) {
            self.path = path
            self.weight = weight
        }

        /// A root from the form that the configuration key `objects.roots` has: `path` or `path=weight`.
        ///
        /// - Throws: `.invalid` for an empty path or a weight that is no number.
        public init(parsing text: String) throws(ObjectStoreError) {
            guard let mark = text.lastIndex(of: "=") else {
                self.init(path: text)
                try check()
                return
            }
            guard let weight = UInt32(text[text.index(after: mark)...]) else {
                throw ObjectStoreError(.invalid, "the weight of root '\(text)' is no number")
            }
            self.init(path: String(text[..<mark]), weight: weight)
            try check()
        }

        func check() throws(ObjectStoreError) {
            guard !path.isEmpty, !path.utf8.contains(0) else {
                throw ObjectStoreError(.invalid, "a root has no path")
            }
            guard weight <= ObjectStoreLimits.weightMaximum else {
                throw ObjectStoreError(
                    .invalid,
                    "the weight of root '\(path)' is above \(ObjectStoreLimits.weightMaximum)"
                )
            }
        }
    }

    /// The roots, in any order.
    public var roots: [Root]
    /// The cluster's uuid as text.
    public var clusterID: String
    /// The configured number of this object server.
    public var serverID: ObjectServerID
    /// False: nothing is synced, and what was put can be lost. For measurements only.
    public var isSynchronous = true
    /// False: a directory without an identity file is refused instead of being made a root. A disk that is not mounted then
    /// cannot be taken for a new one.
    public var initializesEmptyRoots = true
    /// Bits of the hash for each of the two levels of directories in a *new* root; others keep what they were made with.
    public var directoryBits = ObjectStoreLimits.directoryBitsDefault
    /// Threads for gets and headers.
    public var readThreads = 4
    /// Threads for puts and deletes, most of which wait for the disk to sync.
    public var writeThreads = 8

    /// Roots of an object server; everything else as by default.
    public init(roots: [Root], clusterID: String, serverID: ObjectServerID) {
        self.roots = roots
        self.clusterID = clusterID
        self.serverID = serverID
    }

    func check() throws(ObjectStoreError) {
        guard !roots.isEmpty, roots.count <= ObjectStoreLimits.rootsMaximum else {
            throw ObjectStoreError(
                .invalid,
                "\(roots.count) roots; from 1 to \(ObjectStoreLimits.rootsMaximum) are allowed"
            )
        }
        for root in roots {
            try root.check()
        }
        guard roots.contains(where: { $0.weight > 0 }) else {
            throw ObjectStoreError(.invalid, "every root has weight 0: give at least one of them a weight")
        }
        let isText = clusterID.utf8.allSatisfy { byte in
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x2D
        }
        guard !clusterID.isEmpty, clusterID.utf8.count <= ObjectStoreLimits.clusterIDMaximumBytes, isText else {
            throw ObjectStoreError(.invalid, "the cluster id is not a uuid")
        }
        let bits = ObjectStoreLimits.directoryBitsMinimum...ObjectStoreLimits.directoryBitsMaximum
        guard bits.contains(directoryBits) else {
            throw ObjectStoreError(.invalid, "\(directoryBits) directory bits; allowed are \(bits)")
        }
        let threads = 1...ObjectStoreLimits.threadsMaximum
        guard threads.contains(readThreads), threads.contains(writeThreads) else {
            throw ObjectStoreError(.invalid, "\(readThreads) and \(writeThreads) threads; allowed are \(threads) each")
        }
    }
}
