public import AshlarCore
import RPC

extension TLSIdentity {
    /// Tests that the certificate is the one that a role's configuration speaks of, before anything is opened.
    ///
    /// - Throws: ``TransportError`` that names both, and the remedy.
    public func require(_ role: Role, _ configuration: NodeConfiguration) throws(TransportError) {
        let own = node
        guard
            own.role == role, own.name == configuration.name,
            own.cluster.description == configuration.clusterID.lowercased()
        else {
            throw TransportError(
                .identity,
                "the certificate \(configuration.certificatePath) is of \(own), not of \(role.rawValue) "
                    + "\(configuration.name) in cluster \(configuration.clusterID): name the right one with "
                    + "tls.certificate, or issue it with ashlar certs issue"
            )
        }
    }
}
