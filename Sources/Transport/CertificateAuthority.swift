import AshlarCore
import Crypto
import Failpoints
public import Foundation
public import RPC
import SwiftASN1
import X509

/// The cluster's own authority: a self-signed P-256 certificate and its key.
public struct CertificateAuthority: Sendable {
    /// The certificate, which every node trusts.
    public let certificatePEM: String
    /// The key, which only the administration holds.
    public let keyPEM: String
    /// The cluster that the authority speaks for.
    public let cluster: ClusterID

    private let certificate: Certificate
    private let key: Certificate.PrivateKey

    /// Makes a new authority with a fresh key.
    ///
    /// - Parameters:
    ///   - cluster: stands in the certificate, and in all that it issues.
    ///   - now: the present; the certificate begins a little earlier, for nodes whose clocks are behind.
    ///   - validityDays: 1 to `TransportLimits.validityMaximumDays`.
    public static func create(
        cluster: ClusterID,
        now: Date,
        validityDays: Int = 3_650
    ) throws(TransportError) -> CertificateAuthority {
        let dates = try validity(now: now, days: validityDays)
        do {
            let key = Certificate.PrivateKey(P256.Signing.PrivateKey())
            let name = try DistinguishedName {
                CommonName("Ashlar authority \(cluster)")
            }
            let certificate = try Certificate(
                version: .v3,
                serialNumber: Certificate.SerialNumber(),
                publicKey: key.publicKey,
                notValidBefore: dates.notBefore,
                notValidAfter: dates.notAfter,
                issuer: name,
                subject: name,
                signatureAlgorithm: .ecdsaWithSHA256,
                extensions: try Certificate.Extensions {
                    Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
                    Critical(KeyUsage(keyCertSign: true, cRLSign: true))
                    SubjectKeyIdentifier(hash: key.publicKey)
                    SubjectAlternativeNames([
                        .uniformResourceIdentifier("\(CertificateDescription.authorityScheme)\(cluster)")
                    ])
                },
                issuerPrivateKey: key
            )
            return CertificateAuthority(
                certificatePEM: try certificate.serializeAsPEM().pemString + "\n",
                keyPEM: try key.serializeAsPEM().pemString + "\n",
                cluster: cluster,
                certificate: certificate,
                key: key
            )
        } catch {
            throw TransportError(.certificate, "authority cannot be made", underlying: error)
        }
    }

    private init(
        certificatePEM: String,
        keyPEM: String,
        cluster: ClusterID,
        certificate: Certificate,
        key: Certificate.PrivateKey
    ) {
        self.certificatePEM = certificatePEM
        self.keyPEM = keyPEM
        self.cluster = cluster
        self.certificate = certificate
        self.key = key
    }

    /// An authority from its PEM texts.
    ///
    /// - Throws: ``TransportError`` where they cannot be decoded, do not belong together, or are no authority.
    public init(certificatePEM: String, keyPEM: String) throws(TransportError) {
        let description: CertificateDescription
        do {
            certificate = try Certificate(pemEncoded: PEMText.first(certificatePEM, type: "CERTIFICATE"))
            key = try Certificate.PrivateKey(pemEncoded: keyPEM)
            description = try CertificateDescription(certificate)
        } catch let error as TransportError {
            throw error
        } catch {
            throw TransportError(.certificate, "authority cannot be decoded", underlying: error)
        }
        guard certificate.publicKey == key.publicKey else {
            throw TransportError(.certificate, "the authority's key does not belong to its certificate")
        }
        guard let cluster = description.authorityCluster else {
            throw TransportError(.identity, "the certificate is not a cluster's authority")
        }
        self.certificatePEM = certificatePEM
        self.keyPEM = keyPEM
        self.cluster = cluster
    }

    /// An authority from its PEM files.
    public static func load(certificatePath: String, keyPath: String) throws(TransportError) -> CertificateAuthority {
        try CertificateAuthority(
            certificatePEM: PEMFiles.read(certificatePath),
            keyPEM: PEMFiles.read(keyPath)
        )
    }

    /// What the authority's certificate says.
    public func describe() throws(TransportError) -> CertificateDescription {
        try CertificateDescription(certificatePEM: certificatePEM)
    }

    /// Issues a certificate with a fresh key.
    ///
    /// - Throws: ``TransportError`` where the request is of another cluster, names an address that is none, or a
    ///   validity out of its bounds.
    public func issue(_ request: CertificateRequest, now: Date) throws(TransportError) -> IssuedCertificate {
        guard request.node.cluster == cluster else {
            throw TransportError(
                .identity,
                "authority of cluster \(cluster) issues nothing for cluster \(request.node.cluster)"
            )
        }
        var names: [GeneralName] = [.uniformResourceIdentifier(request.node.uri)]
        names += request.dnsNames.map { .dnsName($0) }
        for address in request.ipAddresses {
            guard let octets = IPAddressText.octets(address) else {
                throw TransportError(.configuration, "\(address) is not an IP address")
            }
            names.append(.ipAddress(ASN1OctetString(contentBytes: octets[...])))
        }
        let dates = try Self.validity(now: now, days: request.validityDays)
        do {
            let leafKey = Certificate.PrivateKey(P256.Signing.PrivateKey())
            let leaf = try makeLeaf(request.node, names: names, key: leafKey.publicKey, dates: dates)
            return IssuedCertificate(
                certificatePEM: try leaf.serializeAsPEM().pemString + "\n",
                keyPEM: try leafKey.serializeAsPEM().pemString + "\n",
                description: try CertificateDescription(leaf)
            )
        } catch {
            throw TransportError(.certificate, "certificate cannot be issued", underlying: error)
        }
    }

    /// Issues a certificate for the same identity, names and addresses, with a fresh key.
    ///
    /// - Parameter certificatePEM: the certificate to renew; it must be one of this authority, but may have ended.
    public func renew(
        certificatePEM: String,
        validityDays: Int = 365,
        now: Date
    ) throws(TransportError) -> IssuedCertificate {
        let old: Certificate
        do {
            old = try Certificate(pemEncoded: PEMText.first(certificatePEM, type: "CERTIFICATE"))
        } catch {
            throw TransportError(.certificate, "certificate cannot be decoded", underlying: error)
        }
        guard certificate.publicKey.isValidSignature(old.signature, for: old) else {
            throw TransportError(.identity, "the certificate was not issued by this authority")
        }
        let description = try CertificateDescription(certificatePEM: certificatePEM)
        guard let node = description.node else {
            throw TransportError(.identity, "the certificate names no node")
        }
        return try issue(
            CertificateRequest(
                node: node,
                dnsNames: description.dnsNames,
                ipAddresses: description.ipAddresses,
                validityDays: validityDays
            ),
            now: now
        )
    }

    /// Writes both files at once each, the key last and readable by its owner alone.
    ///
    /// Where there is a key, there is its certificate: a certificate alone was left by an end in between, and has issued nothing.
    public func write(certificatePath: String, keyPath: String) throws(TransportError) {
        try PEMFiles.write(certificatePEM, to: certificatePath, mode: 0o644)
        Failpoint.certsAuthorityCertificateWritten.reach()
        try PEMFiles.write(keyPEM, to: keyPath, mode: 0o600)
    }

    private func makeLeaf(
        _ node: NodeIdentity,
        names: [GeneralName],
        key leafKey: Certificate.PublicKey,
        dates: (notBefore: Date, notAfter: Date)
    ) throws -> Certificate {
        try Certificate(
            version: .v3,
            serialNumber: Certificate.SerialNumber(),
            publicKey: leafKey,
            notValidBefore: dates.notBefore,
            notValidAfter: dates.notAfter,
            issuer: certificate.subject,
            subject: try DistinguishedName {
                CommonName(node.name)
                OrganizationalUnitName(node.role.rawValue)
            },
            signatureAlgorithm: .ecdsaWithSHA256,
            extensions: try Certificate.Extensions {
                Critical(BasicConstraints.notCertificateAuthority)
                Critical(KeyUsage(digitalSignature: true))
                try ExtendedKeyUsage([.serverAuth, .clientAuth])
                SubjectKeyIdentifier(hash: leafKey)
                AuthorityKeyIdentifier(
                    keyIdentifier: try certificate.extensions.subjectKeyIdentifier?.keyIdentifier
                )
                SubjectAlternativeNames(names)
            },
            issuerPrivateKey: key
        )
    }

    /// From an hour before `now`, for nodes whose clocks are behind, to `days` after it.
    private static func validity(
        now: Date,
        days: Int
    ) throws(TransportError) -> (notBefore: Date, notAfter: Date) {
        guard (1...TransportLimits.validityMaximumDays).contains(days) else {
            throw TransportError(
                .configuration,
                "validity of \(days) days is not within 1 to \(TransportLimits.validityMaximumDays)"
            )
        }
        return (now.addingTimeInterval(-3_600), now.addingTimeInterval(Double(days) * 86_400))
    }
}

/// What a certificate is asked for.
public struct CertificateRequest: Sendable {
    /// Whom it is to speak for.
    public var node: NodeIdentity
    /// DNS names, for programs that check those.
    public var dnsNames: [String]
    /// IPv4 and IPv6 addresses, for programs that check those.
    public var ipAddresses: [String]
    /// Days from now on.
    public var validityDays: Int

    /// A request with each part named.
    public init(node: NodeIdentity, dnsNames: [String] = [], ipAddresses: [String] = [], validityDays: Int = 365) {
        self.node = node
        self.dnsNames = dnsNames
        self.ipAddresses = ipAddresses
        self.validityDays = validityDays
    }
}

/// A certificate and its key, fresh from the authority.
public struct IssuedCertificate: Sendable {
    /// The certificate.
    public let certificatePEM: String
    /// The key.
    public let keyPEM: String
    /// What the certificate says.
    public let description: CertificateDescription

    /// Writes both files at once each, the key first and readable by its owner alone.
    ///
    /// A node that reloads between the two finds a key that does not fit and keeps what it had until both are there.
    public func write(certificatePath: String, keyPath: String) throws(TransportError) {
        try PEMFiles.write(keyPEM, to: keyPath, mode: 0o600)
        Failpoint.certsNodeKeyWritten.reach()
        try PEMFiles.write(certificatePEM, to: certificatePath, mode: 0o644)
    }
}
