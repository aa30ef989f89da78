import Crypto
import Foundation

/// The secret that clients of the API prove themselves with. Only its digest is kept.
public struct BearerToken: Sendable, CustomStringConvertible {
    private let digest: SHA256Digest

    /// A token.
    ///
    /// - Throws: ``ControlError`` where it is too short to be a secret, or too long.
    public init(_ token: String) throws(ControlError) {
        let allowed = ControlLimits.tokenMinimumBytes...ControlLimits.tokenMaximumBytes
        guard allowed.contains(token.utf8.count), token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw ControlError(
                .invalid,
                "The token is not \(allowed.lowerBound) to \(allowed.upperBound) printable characters.",
                remedy: "Make one with: openssl rand -hex 32."
            )
        }
        digest = SHA256.hash(data: Data(token.utf8))
    }

    /// Reads a token from a file, which only its owner may be able to read; space around it is left out.
    ///
    /// - Throws: ``ControlError``.
    public init(file path: String) throws(ControlError) {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw ControlError(
                .invalid,
                "control.token-file \(path) cannot be read.",
                remedy: "Make it with: (umask 077; openssl rand -hex 32 > \(path))."
            )
        }
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        if let mode = (attributes?[.posixPermissions] as? NSNumber)?.intValue, mode & 0o007 != 0 {
            throw ControlError(
                .invalid,
                "control.token-file \(path) can be read by everyone.",
                remedy: "Run: chmod 600 \(path)."
            )
        }
        try self.init(String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines))
    }

    /// Whether the value of an Authorization header carries this token (RFC 6750, 2.1). Takes the same time wherever a wrong
    /// one differs.
    public func matches(authorization: String?) -> Bool {
        guard let authorization, authorization.utf8.count <= ControlLimits.tokenMaximumBytes + 16,
            let space = authorization.firstIndex(of: " "),
            authorization[..<space].lowercased() == "bearer"
        else { return false }
        let token = authorization[space...].drop { $0 == " " }
        // Digests of swift-crypto compare in constant time.
        return SHA256.hash(data: Data(token.utf8)) == digest
    }

    /// Says nothing of the token.
    public var description: String { "token" }
}
