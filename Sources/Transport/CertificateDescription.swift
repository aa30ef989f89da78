import AshlarCore
public import Foundation
public import RPC
import SwiftASN1
import X509

/// What a certificate says, for people and for decisions.
public struct CertificateDescription: Sendable, CustomStringConvertible {
    /// Whom it speaks for; `nil` where no subject alternative name is an identity.
    public let node: NodeIdentity?
    /// The distinguished name of its subject.
    public let subject: String
    /// The distinguished name of its issuer.
    public let issuer: String
    /// The serial number in hexadecimal.
    public let serial: String
    /// The first moment at which it is good.
    public let notBefore: Date
    /// The last moment at which it is good.
    public let notAfter: Date
    /// DNS names among its subject alternative names.
    public let dnsNames: [String]
    /// Addresses among its subject alternative names.
    public let ipAddresses: [String]
    /// Whether it may issue certificates.
    public let isAuthority: Bool
    /// The cluster of an authority; `nil` for another certificate.
    public let authorityCluster: ClusterID?

    /// Describes the first certificate of a PEM text.
    ///
    /// - Throws: ``TransportError`` where there is none or it cannot be decoded.
    public init(certificatePEM: String) throws(TransportError) {
        do {
            try self.init(Certificate(pemEncoded: PEMText.first(certificatePEM, type: "CERTIFICATE")))
        } catch let error as TransportError {
            throw error
        } catch {
            throw TransportError(.certificate, "certificate cannot be decoded", underlying: error)
        }
    }

    init(derBytes: [UInt8]) throws {
        try self.init(Certificate(derEncoded: derBytes))
    }

    init(_ certificate: Certificate) throws {
        var nodes: [NodeIdentity] = []
        var dnsNames: [String] = []
        var ipAddresses: [String] = []
        var authorityCluster: ClusterID?
        for name in try certificate.extensions.subjectAlternativeNames ?? SubjectAlternativeNames() {
            switch name {
            case .uniformResourceIdentifier(let uri):
                if let node = NodeIdentity(uri: uri) { nodes.append(node) }
                if uri.hasPrefix(Self.authorityScheme) {
                    authorityCluster = ClusterID(String(uri.dropFirst(Self.authorityScheme.count)))
                }
            case .dnsName(let name): dnsNames.append(name)
            case .ipAddress(let octets): ipAddresses.append(IPAddressText.text(Array(octets.bytes)))
            default: continue
            }
        }
        if case .isCertificateAuthority = try certificate.extensions.basicConstraints {
            isAuthority = true
        } else {
            isAuthority = false
        }
        // Two identities in one certificate would be a choice for whoever shows it: none is taken.
        node = nodes.count == 1 ? nodes[0] : nil
        self.authorityCluster = isAuthority ? authorityCluster : nil
        subject = certificate.subject.description
        issuer = certificate.issuer.description
        serial = certificate.serialNumber.bytes.map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
        notBefore = certificate.notValidBefore
        notAfter = certificate.notValidAfter
        self.dnsNames = dnsNames
        self.ipAddresses = ipAddresses
    }

    /// Whole days until the certificate ends; negative where it has ended.
    public func daysLeft(now: Date) -> Int {
        Int((notAfter.timeIntervalSince(now) / 86_400).rounded(.down))
    }

    /// Whether the certificate is good at `now`, as far as its dates go.
    public func isValid(now: Date) -> Bool { notBefore <= now && now <= notAfter }

    /// Identity or subject, serial and the two dates.
    public var description: String {
        let format = Date.ISO8601FormatStyle()
        return "\(node?.uri ?? subject), serial \(serial), from \(notBefore.formatted(format)) "
            + "to \(notAfter.formatted(format)), issued by \(issuer)"
    }

    /// Before the cluster's UUID in the subject alternative name of an authority.
    static let authorityScheme = "ashlar-authority://"
}

/// Addresses as text and as the octets of a certificate (RFC 5280, 4.2.1.6).
enum IPAddressText {
    static func text(_ octets: [UInt8]) -> String {
        switch octets.count {
        case 4:
            return octets.map(String.init).joined(separator: ".")
        case 16:
            var address = in6_addr()
            withUnsafeMutableBytes(of: &address) { $0.copyBytes(from: octets) }
            var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
            guard inet_ntop(AF_INET6, &address, &text, socklen_t(INET6_ADDRSTRLEN)) != nil else { return "invalid" }
            return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        default:
            return "invalid"
        }
    }

    static func octets(_ text: String) -> [UInt8]? {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 { return withUnsafeBytes(of: &four) { Array($0) } }
        var six = in6_addr()
        if inet_pton(AF_INET6, text, &six) == 1 { return withUnsafeBytes(of: &six) { Array($0) } }
        return nil
    }
}

/// Sections of PEM texts.
enum PEMText {
    static func first(_ text: String, type: String) throws(TransportError) -> String {
        let begin = "-----BEGIN \(type)-----"
        let end = "-----END \(type)-----"
        guard
            let start = text.range(of: begin), let stop = text.range(of: end, range: start.upperBound..<text.endIndex)
        else { throw TransportError(.certificate, "PEM text holds no \(type)") }
        return String(text[start.lowerBound..<stop.upperBound])
    }
}
