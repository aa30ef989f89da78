/// Whether a user may pass through directories, by their permission bits (path_resolution(7); access lists are not looked at).
public enum PathAccess {
    /// Owner, group and mode of a directory.
    public struct Directory: Sendable, Hashable {
        /// The path, for the message.
        public var path: String
        /// The owner.
        public var uid: UInt32
        /// The group.
        public var gid: UInt32
        /// The permission bits.
        public var mode: UInt32

        /// A directory with each of its attributes named.
        public init(path: String, uid: UInt32, gid: UInt32, mode: UInt32) {
            self.path = path
            self.uid = uid
            self.gid = gid
            self.mode = mode
        }
    }

    /// The first of `directories`, from the root on, that a user without other groups may not pass through.
    public static func firstClosed(_ directories: [Directory], uid: UInt32, gid: UInt32) -> Directory? {
        directories.first { directory in
            if uid == 0 { return false }
            let shift: UInt32 = directory.uid == uid ? 6 : (directory.gid == gid ? 3 : 0)
            return (directory.mode >> shift) & 1 == 0
        }
    }

    /// The directories on the way to an absolute `path`, from the root on, the path itself last.
    public static func components(of path: String) -> [String] {
        var result = ["/"]
        var current = ""
        for part in path.split(separator: "/") {
            current += "/" + part
            result.append(current)
        }
        return result
    }
}
