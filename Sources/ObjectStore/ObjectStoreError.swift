public import AshlarCore
import BlockObjects
import CLinux
import Glibc

/// Why an operation of the object store failed, or a root may not be used.
public struct ObjectStoreError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of error.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Base: String {
            case noSpace, inputOutput, notFound, exists, corrupt, rootOutOfService, invalid, refused, busy, closed
        }

        private let base: Base
        private init(_ base: Base) { self.base = base }

        /// No space or quota is left (ENOSPC, EDQUOT).
        public static let noSpace = Code(.noSpace)
        /// The file system failed (EIO and everything that has no code of its own).
        public static let inputOutput = Code(.inputOutput)
        /// There is no object of that id.
        public static let notFound = Code(.notFound)
        /// Another object lies under that id (M9).
        public static let exists = Code(.exists)
        /// What is stored is not what was put (I11); the slot is named where it is known.
        public static let corrupt = Code(.corrupt)
        /// The root's disk failed to sync, so that nothing more is written there (D12).
        public static let rootOutOfService = Code(.rootOutOfService)
        /// The caller gave something that is not allowed.
        public static let invalid = Code(.invalid)
        /// A root may not be used as configured (D33); the message names the remedy.
        public static let refused = Code(.refused)
        /// Too much is waiting; to be tried again later.
        public static let busy = Code(.busy)
        /// The store was shut down.
        public static let closed = Code(.closed)

        /// The name of the code.
        public var description: String { base.rawValue }
    }

    /// The kind of error.
    public let code: Code
    /// One sentence for people; it may hold paths and ids, never bytes of a block.
    public let message: String
    /// The errno behind it, where there is one.
    public let systemError: Int32?
    /// The slot that is corrupt, where it is known.
    public let slot: SlotIndex?

    /// An error with its sentence.
    public init(_ code: Code, _ message: String, systemError: Int32? = nil, slot: SlotIndex? = nil) {
        self.code = code
        self.message = message
        self.systemError = systemError
        self.slot = slot
    }

    /// The error for an `errno` of a failed call on `path`.
    public static func system(_ number: Int32, _ operation: String, _ path: String) -> ObjectStoreError {
        let code: Code =
            switch number {
            case ENOSPC, EDQUOT: .noSpace
            case ENOENT: .notFound
            case EEXIST: .exists
            case EMFILE, ENFILE: .busy
            default: .inputOutput
            }
        return ObjectStoreError(code, "\(operation) of \(path): \(name(of: number))", systemError: number)
    }

    /// The error for stored bytes of object `id` that are not as they should be.
    static func corrupt(_ id: ObjectID, _ error: BlockObjectError) -> ObjectStoreError {
        ObjectStoreError(.corrupt, "object \(id): \(error.message)", slot: error.slot)
    }

    private static func name(of number: Int32) -> String {
        switch number {
        case EACCES: "permission denied (EACCES)"
        case EDQUOT: "the quota is used up (EDQUOT)"
        case EEXIST: "exists already (EEXIST)"
        case EIO: "input/output error (EIO)"
        case EMFILE, ENFILE: "too many open files"
        case ENOENT: "no such file or directory (ENOENT)"
        case ENOSPC: "no space left (ENOSPC)"
        case ENOTDIR: "not a directory (ENOTDIR)"
        case EPERM: "not permitted (EPERM)"
        case EROFS: "the file system is read-only (EROFS)"
        default: "errno \(number)"
        }
    }

    /// The code, the slot and the sentence.
    public var description: String {
        guard let slot else { return "\(code): \(message)" }
        return "\(code) in slot \(slot): \(message)"
    }
}
