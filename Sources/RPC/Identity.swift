public import AshlarCore

/// The UUID of a cluster.
public struct ClusterID: Hashable, Sendable, CustomStringConvertible {
    /// The first eight bytes.
    public let high: UInt64
    /// The last eight bytes.
    public let low: UInt64

    /// The UUID whose 16 bytes are `high` and `low`, big endian.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in either case; `nil` for anything else.
    public init?(_ text: String) {
        let groups = text.split(separator: "-", omittingEmptySubsequences: false)
        guard groups.map(\.utf8.count) == [8, 4, 4, 4, 12] else { return nil }
        let digits = groups.joined()
        guard digits.utf8.count == 32, digits.allSatisfy({ $0.isHexDigit && $0.isASCII }) else { return nil }
        guard let high = UInt64(digits.prefix(16), radix: 16), let low = UInt64(digits.suffix(16), radix: 16) else {
            return nil
        }
        self.init(high: high, low: low)
    }

    /// The usual five groups, in lower case.
    public var description: String {
        func hex(_ value: UInt64) -> String {
            let digits = String(value, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        let digits = Array(hex(high) + hex(low))
        return [0..<8, 8..<12, 12..<16, 16..<20, 20..<32].map { String(digits[$0]) }.joined(separator: "-")
    }
}

/// Who a certificate speaks for: `ashlar://<cluster>/<role>/<name>`.
public struct NodeIdentity: Hashable, Sendable, CustomStringConvertible {
    /// The cluster.
    public let cluster: ClusterID
    /// The role.
    public let role: Role
    /// The node's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    public let name: String

    /// An identity with each part named; `nil` where the name is not allowed.
    public init?(cluster: ClusterID, role: Role, name: String) {
        guard Self.isValidName(name) else { return nil }
        self.cluster = cluster
        self.role = role
        self.name = name
    }

    /// Reads the URI form; `nil` where it is anything else.
    public init?(uri: String) {
        guard uri.hasPrefix(Self.scheme) else { return nil }
        let parts = uri.dropFirst(Self.scheme.count).split(separator: "/", omittingEmptySubsequences: false)
        guard
            parts.count == 3, let cluster = ClusterID(String(parts[0])), let role = Role(rawValue: String(parts[1]))
        else { return nil }
        self.init(cluster: cluster, role: role, name: String(parts[2]))
    }

    /// The form that stands in certificates, as a subject alternative name.
    public var uri: String { "\(Self.scheme)\(cluster)/\(role.rawValue)/\(name)" }

    /// The URI form.
    public var description: String { uri }

    /// Whether `name` may name a node.
    public static func isValidName(_ name: String) -> Bool {
        (1...RPCLimits.nodeNameMaximumBytes).contains(name.utf8.count)
            && name.unicodeScalars.allSatisfy { scalar in
                switch scalar {
                case "a"..."z", "A"..."Z", "0"..."9", ".", "_", "-": true
                default: false
                }
            }
    }

    private static let scheme = "ashlar://"
}
