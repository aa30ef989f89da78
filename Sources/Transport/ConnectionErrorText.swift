import NIOCore
import NIOPosix
import NIOSSL

/// Turns errors of sockets and of TLS into sentences that say what to look at.
package enum ConnectionErrorText {
    /// A sentence, and the error itself.
    package static func text(of error: any Error) -> String {
        if let channelError = error as? ChannelError, case .connectTimeout(let after) = channelError {
            return "no connection within \(after.nanoseconds / 1_000_000) ms"
        }
        if let connection = error as? NIOConnectionError {
            let causes = connection.connectionErrors.map { "\($0.target.text): \($0.error)" }
            let lookups = [connection.dnsAError, connection.dnsAAAAError].compactMap { $0.map { "\($0)" } }
            return "cannot connect: " + (causes + (causes.isEmpty ? lookups : [])).joined(separator: "; ")
        }
        let detail = "\(error)"
        for (mark, sentence) in hints where detail.contains(mark) { return "\(sentence) (\(detail))" }
        return error is NIOSSLError || error is BoringSSLError ? "TLS failed: \(detail)" : detail
    }

    /// What BoringSSL calls it, and what it means here. Order matters: an alert names the same as the local finding.
    private static let hints: [(String, String)] = [
        ("ALERT_CERTIFICATE_EXPIRED", "TLS: the peer says that this node's certificate has expired or is not yet good"),
        ("ALERT_UNKNOWN_CA", "TLS: the peer does not trust this node's authority: another cluster's certificate"),
        ("ALERT_BAD_CERTIFICATE", "TLS: the peer does not accept this node's certificate"),
        ("ALERT_CERTIFICATE_UNKNOWN", "TLS: the peer does not accept this node's certificate"),
        ("ALERT_DECRYPT_ERROR", "TLS: the peer does not accept this node's certificate: another authority's signature"),
        ("ALERT_CERTIFICATE_REQUIRED", "TLS: the peer wants a certificate, this node showed none"),
        ("ALERT_PROTOCOL_VERSION", "TLS: the peer does not speak TLS 1.3"),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "TLS: the peer's certificate is not accepted: expired, not yet good, or not of this cluster's authority"
        ),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "TLS: the peer showed no certificate"),
        ("HTTP_REQUEST", "the peer speaks plain HTTP, not TLS"),
        ("HTTPS_PROXY_REQUEST", "the peer speaks plain HTTP, not TLS"),
        ("WRONG_VERSION_NUMBER", "the peer does not speak TLS"),
        ("UNSUPPORTED_PROTOCOL", "TLS: the peer does not speak TLS 1.3"),
        ("NO_SUPPORTED_VERSIONS", "TLS: the peer does not speak TLS 1.3"),
    ]
}
