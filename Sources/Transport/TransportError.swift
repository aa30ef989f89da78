/// What went wrong in this module. Its text holds no key and no user data.
public struct TransportError: Error, Sendable, CustomStringConvertible {
    /// The sorts of error; more may be added.
    public struct Code: Hashable, Sendable, CustomStringConvertible {
        private enum Base: String, Sendable {
            case file
            case certificate
            case identity
            case bind
            case configuration
        }

        private let base: Base

        /// A file cannot be read or written.
        public static let file = Code(base: .file)
        /// A certificate or a key cannot be decoded, made or used.
        public static let certificate = Code(base: .certificate)
        /// A certificate names no node, or another one than it should.
        public static let identity = Code(base: .identity)
        /// An address cannot be listened on.
        public static let bind = Code(base: .bind)
        /// A value that was configured is not allowed.
        public static let configuration = Code(base: .configuration)

        /// The name of the sort.
        public var description: String { base.rawValue }
    }

    /// The sort of error.
    public let code: Code
    /// For people.
    public let message: String
    /// What caused it.
    public let underlying: (any Error)?

    /// An error with each part named.
    public init(_ code: Code, _ message: String, underlying: (any Error)? = nil) {
        self.code = code
        self.message = message
        self.underlying = underlying
    }

    /// Sort, text and cause.
    public var description: String {
        "\(code): \(message)" + (underlying.map { ": \($0)" } ?? "")
    }
}
