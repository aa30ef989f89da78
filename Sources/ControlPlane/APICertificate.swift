import Foundation
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOSSL

/// The certificate with which the API serves, renewed without a restart: each handshake takes what was read last.
final class APICertificate: Sendable {
    private struct Loaded: Sendable {
        var chain: [NIOSSLCertificate]
        var key: NIOSSLPrivateKey
        var mark: [String]
    }

    private let certificatePath: String
    private let keyPath: String
    private let loaded: NIOLockedValueBox<Loaded>

    /// - Throws: ``ControlError`` where a file cannot be read or is no PEM.
    init(certificatePath: String, keyPath: String) throws(ControlError) {
        self.certificatePath = certificatePath
        self.keyPath = keyPath
        loaded = NIOLockedValueBox(try Self.load(certificatePath, keyPath))
    }

    /// TLS 1.3 for the server; clients prove themselves with the token, not with a certificate.
    func tlsConfiguration() -> TLSConfiguration {
        let first = loaded.withLockedValue { $0 }
        var tls = TLSConfiguration.makeServerConfiguration(
            certificateChain: first.chain.map { .certificate($0) },
            privateKey: .privateKey(first.key)
        )
        tls.minimumTLSVersion = .tlsv13
        tls.applicationProtocols = ["http/1.1"]
        tls.sslContextCallback = { [loaded] _, promise in
            let now = loaded.withLockedValue { $0 }
            var override = NIOSSLContextConfigurationOverride()
            override.certificateChain = now.chain.map { .certificate($0) }
            override.privateKey = .privateKey(now.key)
            promise.succeed(override)
        }
        return tls
    }

    /// Reads the files again where they have changed; where that fails, what was in use stays in use. Blocks.
    func reloadIfChanged(logger: Logger) {
        let mark = Self.mark(certificatePath, keyPath)
        guard mark != loaded.withLockedValue({ $0.mark }) else { return }
        do {
            let fresh = try Self.load(certificatePath, keyPath)
            loaded.withLockedValue { $0 = fresh }
            logger.info("certificate of the API renewed")
        } catch {
            logger.error("certificate of the API not renewed, the old one stays", metadata: ["reason": "\(error)"])
        }
    }

    private static func load(_ certificatePath: String, _ keyPath: String) throws(ControlError) -> Loaded {
        // The mark comes first: a change in the middle is then seen as one the next time.
        let mark = mark(certificatePath, keyPath)
        do {
            return Loaded(
                chain: try NIOSSLCertificate.fromPEMFile(certificatePath),
                key: try NIOSSLPrivateKey(file: keyPath, format: .pem),
                mark: mark
            )
        } catch {
            throw ControlError(
                .invalid,
                "tls.certificate \(certificatePath) or tls.key \(keyPath) cannot be used (\(error)).",
                remedy: "Issue them with: ashlar certs issue."
            )
        }
    }

    private static func mark(_ paths: String...) -> [String] {
        paths.map { path in
            let attributes = try? FileManager.default.attributesOfItem(atPath: path)
            let parts: [FileAttributeKey] = [.modificationDate, .size, .systemFileNumber]
            return parts.map { "\(attributes?[$0] ?? "none")" }.joined(separator: " ")
        }
    }
}
