import CLinux
import Foundation
import Glibc
import Supervision

/// The system user that PostgreSQL runs as: it refuses to run as root.
struct SystemUser: Sendable, Hashable {
    var name: String
    var uid: uid_t
    var gid: gid_t
    /// Whether this is another user than the one that runs `ashlar`.
    var isOther: Bool

    /// The user who runs `ashlar`, unless that is root: then `postgres`, else `nobody`.
    static func forPostgres() throws -> SystemUser {
        let own = geteuid()
        guard own == 0 else {
            let name = getpwuid(own).map { String(cString: $0.pointee.pw_name) } ?? "uid \(own)"
            return SystemUser(name: name, uid: own, gid: getegid(), isOther: false)
        }
        for candidate in ["postgres", "nobody"] {
            if let entry = getpwnam(candidate), entry.pointee.pw_uid != 0 {
                return SystemUser(name: candidate, uid: entry.pointee.pw_uid, gid: entry.pointee.pw_gid, isOther: true)
            }
        }
        throw UpError(
            "PostgreSQL does not run as root, and there is neither a system user postgres nor nobody.",
            remedy: "Create one (apt-get install postgresql does), or run ashlar up as another user."
        )
    }

    /// The name of the user that runs `ashlar`, as PostgreSQL's peer authentication will see it.
    static func ownName() -> String {
        getpwuid(geteuid()).map { String(cString: $0.pointee.pw_name) } ?? "root"
    }

    /// The first directory on the way to `path` that this user may not pass through; nil where the way is open.
    func firstClosedDirectory(onTheWayTo path: String) -> String? {
        guard isOther else { return nil }
        let directories = PathAccess.components(of: path).compactMap { component in
            Files.target(component).map {
                PathAccess.Directory(path: component, uid: $0.uid, gid: $0.gid, mode: $0.mode)
            }
        }
        return PathAccess.firstClosed(directories, uid: uid, gid: gid)?.path
    }

    /// Refuses a data directory that this user cannot reach.
    func requireReach(of path: String) throws {
        guard let closed = firstClosedDirectory(onTheWayTo: path) else { return }
        throw UpError(
            "The system user \(name), as whom PostgreSQL runs, cannot reach \(path): \(closed) is closed to it.",
            remedy: "Open it (chmod o+x \(closed)), or name another directory with --data, such as /var/lib/ashlar."
        )
    }
}
