/// DevDereg (RFC 4171, 5.6.5.4). What does not exist is no error.
package struct DeviceDeregistration: Hashable, Sendable {
    /// What is taken out of the server's database.
    package enum Object: Hashable, Sendable {
        /// The network entity with all that is in it.
        case entity(String)
        /// A portal.
        case portal(ISNSPortal)
        /// A storage node.
        case node(String)
    }

    /// Name of a node of the entity.
    package var source: String
    /// What to take out.
    package var objects: [Object]

    /// A deregistration of some objects.
    package init(source: String, objects: [Object]) {
        self.source = source
        self.objects = objects
    }

    /// The message.
    package func message(transactionID: UInt16) -> ISNSMessage {
        var attributes: [ISNSAttribute] = [.text(.iscsiName, source), .delimiter]
        for object in objects {
            switch object {
            case .entity(let identifier): attributes.append(.text(.entityIdentifier, identifier))
            case .portal(let portal):
                attributes.append(.address(.portalAddress, portal))
                attributes.append(.port(.portalPort, portal.port))
            case .node(let name): attributes.append(.text(.iscsiName, name))
            }
        }
        return ISNSMessage(function: .deviceDeregistration, transactionID: transactionID, attributes: attributes)
    }
}
