import Glibc

/// Creates the directories of object roots that are not there yet.
enum ObjectRoots {
    /// Creates `root` unless something lies there already; durably, since everything in it hangs on its name. Blocks.
    ///
    /// - Throws: ``ObjectServerError`` where its parent does not exist, or it cannot be created.
    static func createIfMissing(_ root: ObjectServerConfiguration.Root) throws(ObjectServerError) {
        guard mkdir(root.path, mode_t(ObjectServerLimits.rootMode)) == 0 else {
            // Whether that is a directory, and may be used, the object store finds out.
            if errno == EEXIST { return }
            let remedy = errno == ENOENT ? ": create or mount the directory above it first" : ""
            throw failure("create object root \(root.path)", errno, remedy)
        }
        try synchronizeDirectory(parent(of: root.path))
    }

    /// The directory that holds the name `path`.
    static func parent(of path: String) -> String {
        var path = Substring(path)
        while path.count > 1, path.last == "/" { path.removeLast() }
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func synchronizeDirectory(_ path: String) throws(ObjectServerError) {
        let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw failure("open directory \(path)", errno) }
        defer { _ = Glibc.close(descriptor) }
        guard fsync(descriptor) == 0 else { throw failure("sync directory \(path)", errno) }
    }

    private static func failure(_ operation: String, _ number: Int32, _ remedy: String = "") -> ObjectServerError {
        let text = strerror(number).map { String(cString: $0) } ?? "errno \(number)"
        return ObjectServerError(.root, "cannot \(operation) (\(text))\(remedy)")
    }
}
