/// The events of a state change notification (RFC 4171, 6.4.4).
package struct StateChangeEvents: OptionSet, Hashable, Sendable, CustomStringConvertible {
    /// iSCSI SCN Bitmap.
    package var rawValue: UInt32
    /// Wraps the bits.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Of initiators, and of the node itself; only in a registration.
    package static let initiatorsAndSelf = StateChangeEvents(rawValue: 0x80)
    /// Of targets, and of the node itself; only in a registration.
    package static let targetsAndSelf = StateChangeEvents(rawValue: 0x40)
    /// For control nodes.
    package static let management = StateChangeEvents(rawValue: 0x20)
    /// An object was removed.
    package static let removed = StateChangeEvents(rawValue: 0x10)
    /// An object was added.
    package static let added = StateChangeEvents(rawValue: 0x08)
    /// An object was changed.
    package static let updated = StateChangeEvents(rawValue: 0x04)
    /// A member was taken out of a discovery domain.
    package static let memberRemoved = StateChangeEvents(rawValue: 0x02)
    /// A member was put into a discovery domain.
    package static let memberAdded = StateChangeEvents(rawValue: 0x01)

    private static let names: [(StateChangeEvents, String)] = [
        (.removed, "removed"), (.added, "added"), (.updated, "updated"), (.memberRemoved, "member removed"),
        (.memberAdded, "member added"),
    ]

    /// What happened, in words.
    package var description: String {
        let words = Self.names.filter { contains($0.0) }.map(\.1)
        return words.isEmpty ? "nothing" : words.joined(separator: ", ")
    }
}

/// SCNReg (RFC 4171, 5.6.5.5).
package struct StateChangeRegistration: Hashable, Sendable {
    /// Name of the node that wants to be told, which asks, too.
    package var source: String
    /// Of what.
    package var events: StateChangeEvents

    /// A registration of a node.
    package init(source: String, events: StateChangeEvents) {
        self.source = source
        self.events = events
    }

    /// The message.
    package func message(transactionID: UInt16) -> ISNSMessage {
        ISNSMessage(
            function: .stateChangeRegistration,
            transactionID: transactionID,
            attributes: [
                .text(.iscsiName, source), .text(.iscsiName, source), .delimiter,
                .number(.notificationBitmap, events.rawValue),
            ]
        )
    }
}

/// SCN (RFC 4171, 5.6.5.8), which a server sends.
package struct StateChangeNotification: Hashable, Sendable {
    /// A change.
    package struct Change: Hashable, Sendable {
        /// What happened.
        package var events: StateChangeEvents
        /// To which node.
        package var name: String
    }

    /// The node that is told.
    package var destination: ISNSAttribute
    /// What happened; domains that the server names besides are left out.
    package var changes: [Change]

    /// Reads a notification.
    package init(_ message: ISNSMessage) throws(ISNSError) {
        guard let first = message.attributes.first, first.tag == .iscsiName, first.text?.isEmpty == false else {
            throw .invalidAttribute(tag: ISNSTag.iscsiName.rawValue)
        }
        destination = first
        changes = []
        var events: StateChangeEvents?
        for attribute in message.attributes.dropFirst() {
            switch attribute.tag {
            case .notificationBitmap:
                guard let bits = attribute.number else {
                    throw .invalidAttribute(tag: ISNSTag.notificationBitmap.rawValue)
                }
                events = StateChangeEvents(rawValue: bits)
            case .iscsiName:
                guard let happened = events, let name = attribute.text else {
                    throw .invalidAttribute(tag: ISNSTag.iscsiName.rawValue)
                }
                changes.append(Change(events: happened, name: name))
                events = nil
            default: continue
            }
        }
    }
}

/// ESI (RFC 4171, 5.6.5.13), by which a server finds out whether a portal is still there.
package struct EntityStatusInquiry: Hashable, Sendable {
    /// Entity identifier.
    package var entity: String
    /// The portal that is asked.
    package var portal: ISNSPortal

    /// Reads an inquiry.
    package init(_ message: ISNSMessage) throws(ISNSError) {
        func attribute(_ tag: ISNSTag) throws(ISNSError) -> ISNSAttribute {
            guard let found = message.attributes.first(where: { $0.tag == tag }) else {
                throw .invalidAttribute(tag: tag.rawValue)
            }
            return found
        }
        guard let entity = try attribute(.entityIdentifier).text else {
            throw .invalidAttribute(tag: ISNSTag.entityIdentifier.rawValue)
        }
        guard let portal = ISNSPortal(address: try attribute(.portalAddress), port: try attribute(.portalPort)) else {
            throw .invalidAttribute(tag: ISNSTag.portalAddress.rawValue)
        }
        self.entity = entity
        self.portal = portal
    }
}
