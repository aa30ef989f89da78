/// Why an object server cannot start.
public struct ObjectServerError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The sorts of error; more may be added.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Base: String {
            case configuration, root
        }

        private let base: Base
        private init(_ base: Base) { self.base = base }

        /// A value that was configured is not allowed.
        public static let configuration = Code(.configuration)
        /// An object root cannot be created.
        public static let root = Code(.root)

        /// The name of the code.
        public var description: String { base.rawValue }
    }

    /// The sort of error.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// An error with its sentence.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The code and the sentence.
    public var description: String { "\(code): \(message)" }
}
