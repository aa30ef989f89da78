/// A target as a storage node: what a client registers for each volume.
public struct ISNSTarget: Hashable, Sendable {
    /// iSCSI name.
    public let name: String
    /// Name for people; `nil` for none.
    public let alias: String?

    /// A target; `nil` where the name is empty or too long to be one. An alias that is too long is left out.
    public init?(name: String, alias: String?) {
        guard (1...ISNSLimits.nameMaximumBytes).contains(name.utf8.count), !name.utf8.contains(0) else { return nil }
        self.name = name
        self.alias = alias.flatMap { text in
            (1...ISNSLimits.aliasMaximumBytes).contains(text.utf8.count) && !text.utf8.contains(0) ? text : nil
        }
    }
}

/// DevAttrReg (RFC 4171, 5.6.5.1): adds to a network entity, or changes what is there.
package struct DeviceAttributeRegistration: Hashable, Sendable {
    /// A portal, and where the server's inquiries and notifications are answered.
    package struct Portal: Hashable, Sendable {
        /// Address and port.
        package var portal: ISNSPortal
        /// TCP port for inquiries; `nil`: the server shall not inquire.
        package var inquiryPort: UInt16?
        /// TCP port for notifications; `nil`: none can come.
        package var notificationPort: UInt16?

        /// A portal with each part named.
        package init(portal: ISNSPortal, inquiryPort: UInt16? = nil, notificationPort: UInt16? = nil) {
            self.portal = portal
            self.inquiryPort = inquiryPort
            self.notificationPort = notificationPort
        }
    }

    /// Entity protocol iSCSI (RFC 4171, 6.2.2).
    package static let entityProtocolISCSI: UInt32 = 2
    /// Node type target (RFC 4171, 6.4.2): bit 31, the lowest.
    package static let nodeTypeTarget: UInt32 = 1

    /// Name of a node of the entity, registered already or by this message.
    package var source: String
    /// Entity identifier.
    package var entity: String
    /// The portal, where it is registered, too.
    package var portal: Portal?
    /// Storage nodes.
    package var targets: [ISNSTarget]
    /// The portal of the portal group that each target is put into.
    package var groupPortal: ISNSPortal
    /// Portal group tag.
    package var groupTag: UInt16

    /// A registration with each part named.
    package init(
        source: String,
        entity: String,
        portal: Portal?,
        targets: [ISNSTarget],
        groupPortal: ISNSPortal,
        groupTag: UInt16
    ) {
        self.source = source
        self.entity = entity
        self.portal = portal
        self.targets = targets
        self.groupPortal = groupPortal
        self.groupTag = groupTag
    }

    /// The message.
    package func message(transactionID: UInt16) -> ISNSMessage {
        var attributes: [ISNSAttribute] = [
            .text(.iscsiName, source),
            .text(.entityIdentifier, entity),
            .delimiter,
            .text(.entityIdentifier, entity),
            .number(.entityProtocol, Self.entityProtocolISCSI),
        ]
        if let portal {
            attributes.append(.address(.portalAddress, portal.portal))
            attributes.append(.port(.portalPort, portal.portal.port))
            portal.inquiryPort.map { attributes.append(.port(.inquiryPort, $0)) }
            portal.notificationPort.map { attributes.append(.port(.notificationPort, $0)) }
        }
        for target in targets {
            attributes.append(.text(.iscsiName, target.name))
            attributes.append(.number(.iscsiNodeType, Self.nodeTypeTarget))
            target.alias.map { attributes.append(.text(.iscsiAlias, $0)) }
            attributes.append(.text(.portalGroupName, target.name))
            attributes.append(.address(.portalGroupAddress, groupPortal))
            attributes.append(.port(.portalGroupPort, groupPortal.port))
            attributes.append(.number(.portalGroupTag, UInt32(groupTag)))
        }
        return ISNSMessage(
            function: .deviceAttributeRegistration,
            transactionID: transactionID,
            attributes: attributes
        )
    }

    /// The registration period in seconds that the server sets with its response (RFC 4171, 6.2.6).
    package static func registrationPeriodSeconds(_ response: ISNSMessage) -> UInt32? {
        response.attributes.last { $0.tag == .registrationPeriod }?.number
    }
}
