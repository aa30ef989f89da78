import Foundation
public import Logging
import NIOConcurrencyHelpers
public import NIOCore
import NIOPosix
import NIOSSL
public import RPC

/// Certificate, key and authority of this node, and the TLS contexts made of them.
///
/// Safe from any thread. New connections use what was loaded last; connections that stand keep what they began with.
public final class TLSIdentity: Sendable {
    private struct Paths: Sendable {
        let certificate: String
        let key: String
        let authority: String
    }

    private struct Loaded: Sendable {
        let description: CertificateDescription
        let node: NodeIdentity
        let server: NIOSSLContext
        let client: NIOSSLContext
        let marks: [PEMFiles.Mark]
    }

    private let paths: Paths?
    private let loaded: NIOLockedValueBox<Loaded>
    private let watch = NIOLockedValueBox<RepeatedTask?>(nil)

    /// Loads three PEM files; `reload()` reads them again.
    ///
    /// - Throws: ``TransportError`` where a file cannot be read, the key does not fit, or the certificate names no
    ///   node.
    public init(certificatePath: String, keyPath: String, authorityPath: String) throws(TransportError) {
        let paths = Paths(certificate: certificatePath, key: keyPath, authority: authorityPath)
        self.paths = paths
        loaded = NIOLockedValueBox(try Self.load(paths))
    }

    /// Uses PEM texts, which never change.
    public init(certificatePEM: String, keyPEM: String, authorityPEM: String) throws(TransportError) {
        paths = nil
        loaded = NIOLockedValueBox(
            try Self.make(certificatePEM: certificatePEM, keyPEM: keyPEM, authorityPEM: authorityPEM, marks: [])
        )
    }

    /// Cluster, role and name of this node, from its own certificate.
    public var node: NodeIdentity { loaded.withLockedValue { $0.node } }

    /// What the certificate in use says.
    public var description: CertificateDescription { loaded.withLockedValue { $0.description } }

    var serverContext: NIOSSLContext { loaded.withLockedValue { $0.server } }
    var clientContext: NIOSSLContext { loaded.withLockedValue { $0.client } }

    /// Reads the files again. Where that fails, what was in use stays in use.
    ///
    /// - Throws: ``TransportError``, also where the new certificate is of another node.
    public func reload() throws(TransportError) {
        guard let paths else { return }
        let fresh = try Self.load(paths)
        let current = node
        guard fresh.node == current else {
            throw TransportError(.identity, "new certificate is of \(fresh.node), this is \(current)")
        }
        loaded.withLockedValue { $0 = fresh }
    }

    /// Reads the files again where time, size or inode of one has changed.
    ///
    /// - Returns: whether they were read.
    @discardableResult
    public func reloadIfChanged() throws(TransportError) -> Bool {
        guard let paths else { return false }
        let marks = try Self.marks(paths)
        guard marks != loaded.withLockedValue({ $0.marks }) else { return false }
        try reload()
        return true
    }

    /// Looks at the files again and again, off the event loop, until ``stopWatching()``.
    public func startWatching(on eventLoop: any EventLoop, every interval: TimeAmount = .seconds(5), logger: Logger) {
        let task = eventLoop.scheduleRepeatedAsyncTask(initialDelay: interval, delay: interval) { [weak self] _ in
            guard let self else { return eventLoop.makeSucceededVoidFuture() }
            return NIOThreadPool.singleton.runIfActive(eventLoop: eventLoop) { self.watchOnce(logger) }
        }
        let previous = watch.withLockedValue { current in
            defer { current = task }
            return current
        }
        previous?.cancel()
    }

    /// Ends what ``startWatching(on:every:logger:)`` began.
    public func stopWatching() {
        let task = watch.withLockedValue { current in
            defer { current = nil }
            return current
        }
        task?.cancel()
    }

    private func watchOnce(_ logger: Logger) {
        do {
            if try reloadIfChanged() {
                logger.info("certificate reloaded", metadata: ["certificate": "\(description)"])
            }
        } catch {
            logger.error("certificate not reloaded, the old one stays in use", metadata: ["reason": "\(error)"])
        }
    }

    // MARK: - Loading

    private static func marks(_ paths: Paths) throws(TransportError) -> [PEMFiles.Mark] {
        [
            try PEMFiles.mark(paths.certificate), try PEMFiles.mark(paths.key), try PEMFiles.mark(paths.authority),
        ]
    }

    private static func load(_ paths: Paths) throws(TransportError) -> Loaded {
        // The marks come first: a change in the middle is then seen as one the next time.
        let marks = try marks(paths)
        return try make(
            certificatePEM: PEMFiles.read(paths.certificate),
            keyPEM: PEMFiles.read(paths.key),
            authorityPEM: PEMFiles.read(paths.authority),
            marks: marks
        )
    }

    private static func make(
        certificatePEM: String,
        keyPEM: String,
        authorityPEM: String,
        marks: [PEMFiles.Mark]
    ) throws(TransportError) -> Loaded {
        let description = try CertificateDescription(certificatePEM: certificatePEM)
        guard let node = description.node else {
            throw TransportError(.identity, "certificate \(description.subject) names no node")
        }
        do {
            let chain = try NIOSSLCertificate.fromPEMBytes(Array(certificatePEM.utf8))
            let key = try NIOSSLPrivateKey(bytes: Array(keyPEM.utf8), format: .pem)
            let roots = try NIOSSLCertificate.fromPEMBytes(Array(authorityPEM.utf8))
            guard !roots.isEmpty else {
                throw TransportError(.certificate, "the authority's file holds no certificate")
            }
            var server = TLSConfiguration.makeServerConfiguration(
                certificateChain: chain.map { .certificate($0) },
                privateKey: .privateKey(key)
            )
            var client = TLSConfiguration.makeClientConfiguration()
            client.certificateChain = chain.map { .certificate($0) }
            client.privateKey = .privateKey(key)
            restrict(&server, roots: roots)
            restrict(&client, roots: roots)
            return Loaded(
                description: description,
                node: node,
                server: try NIOSSLContext(configuration: server),
                client: try NIOSSLContext(configuration: client),
                marks: marks
            )
        } catch let error as TransportError {
            throw error
        } catch {
            throw TransportError(.certificate, "certificate and key of \(node) cannot be used", underlying: error)
        }
    }

    /// TLS 1.3 and the cluster's authority, nothing else. Names are verified by identity, after the handshake: nodes
    /// move between addresses, identities do not.
    private static func restrict(_ configuration: inout TLSConfiguration, roots: [NIOSSLCertificate]) {
        configuration.minimumTLSVersion = .tlsv13
        configuration.maximumTLSVersion = .tlsv13
        configuration.trustRoots = .certificates(roots)
        configuration.certificateVerification = .noHostnameVerification
        configuration.renegotiationSupport = .none
    }
}
