public import AshlarCore

/// What is wrong with a block object, one of its slots, or a call.
///
/// Holds numbers of blocks and slots, never bytes of them.
public struct BlockObjectError: Error, Hashable, CustomStringConvertible {
    /// The kind of error.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Base: String {
            case truncated, notAnObject, unsupportedVersion, badHeader, headerChecksum, badSlot, blockChecksum
            case badCompression, tooLarge, badArgument, duplicateBlock, outOfMemory
        }

        private let base: Base
        private init(_ base: Base) { self.base = base }

        /// Fewer bytes than the header says.
        public static let truncated = Code(.truncated)
        /// The bytes do not begin as an object does.
        public static let notAnObject = Code(.notAnObject)
        /// A format version that this build does not know.
        public static let unsupportedVersion = Code(.unsupportedVersion)
        /// A field of the header is out of its bounds or contradicts another.
        public static let badHeader = Code(.badHeader)
        /// The prefix or the header does not match its checksum.
        public static let headerChecksum = Code(.headerChecksum)
        /// The entry of a slot is out of its bounds, or there is no such slot.
        public static let badSlot = Code(.badSlot)
        /// The bytes of a block do not match their checksum (I11).
        public static let blockChecksum = Code(.blockChecksum)
        /// A compressed block cannot be inflated, or not to exactly one block.
        public static let badCompression = Code(.badCompression)
        /// The object would exceed its limits of slots or bytes.
        public static let tooLarge = Code(.tooLarge)
        /// The caller gave a value that is out of its bounds.
        public static let badArgument = Code(.badArgument)
        /// The same block with the same version twice in one object.
        public static let duplicateBlock = Code(.duplicateBlock)
        /// zlib could not allocate its state.
        public static let outOfMemory = Code(.outOfMemory)

        /// The name of the code.
        public var description: String { base.rawValue }
    }

    /// The kind of error.
    public let code: Code
    /// The slot that the error is about, where it is about one.
    public let slot: SlotIndex?
    /// One sentence for people.
    public let message: String

    package init(_ code: Code, _ message: String, slot: SlotIndex? = nil) {
        self.code = code
        self.slot = slot
        self.message = message
    }

    /// The code, the slot and the sentence.
    public var description: String {
        guard let slot else { return "\(code): \(message)" }
        return "\(code) in slot \(slot): \(message)"
    }
}
