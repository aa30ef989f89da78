/// DevAttrQry (RFC 4171, 5.6.5.2), for the portals and nodes of a network entity.
package struct DeviceAttributeQuery: Hashable, Sendable {
    /// Name of the node that asks.
    package var source: String
    /// Entity identifier.
    package var entity: String
    /// Whether the names of the nodes are wanted beside the portals.
    package var includesNames: Bool

    /// A query for what is in an entity.
    package init(source: String, entity: String, includesNames: Bool) {
        self.source = source
        self.entity = entity
        self.includesNames = includesNames
    }

    /// The message.
    package func message(transactionID: UInt16) -> ISNSMessage {
        var attributes: [ISNSAttribute] = [
            .text(.iscsiName, source), .text(.entityIdentifier, entity), .delimiter, .asked(.portalAddress),
            .asked(.portalPort),
        ]
        if includesNames { attributes.append(.asked(.iscsiName)) }
        return ISNSMessage(function: .deviceAttributeQuery, transactionID: transactionID, attributes: attributes)
    }

    /// What the server has of the entity, as far as the source may see it.
    package struct Answer: Hashable, Sendable {
        /// Portals.
        package var portals: Set<ISNSPortal> = []
        /// iSCSI names.
        package var names: Set<String> = []

        /// Nothing.
        package init() {}

        /// Reads a response; what is none of these is passed over.
        package init(_ response: ISNSMessage) {
            var address: ISNSAttribute?
            for attribute in response.operatingAttributes {
                switch attribute.tag {
                case .portalAddress: address = attribute
                case .portalPort:
                    if let found = address.flatMap({ ISNSPortal(address: $0, port: attribute) }) {
                        portals.insert(found)
                    }
                    address = nil
                case .iscsiName:
                    if let name = attribute.text, !name.isEmpty { names.insert(name) }
                default: continue
                }
            }
        }
    }
}
