import AshlarCore
import ISNS
import NIOCore

/// Bytes written as hexadecimal digits; what is none is passed over.
func hex(_ text: String) -> ByteBuffer {
    var buffer = ByteBuffer()
    var high: Int?
    for character in text {
        guard let digit = character.hexDigitValue else { continue }
        if let first = high {
            buffer.writeInteger(UInt8(first << 4 | digit))
            high = nil
        } else {
            high = digit
        }
    }
    return buffer
}

func target(_ name: String, alias: String? = nil) throws -> ISNSTarget {
    guard let target = ISNSTarget(name: "iqn.2026-01.io.ashlar:\(name)", alias: alias ?? name) else {
        throw ISNSError.invalidAttribute(tag: ISNSTag.iscsiName.rawValue)
    }
    return target
}

func portal(_ last: UInt8, _ port: UInt16 = 3_260) throws -> ISNSPortal {
    guard let portal = ISNSPortal(address: [10, 0, 0, last], port: port) else {
        throw ISNSError.invalidAttribute(tag: ISNSTag.portalAddress.rawValue)
    }
    return portal
}

/// Everything in a stream of bytes.
func messages(_ bytes: ByteBuffer) throws -> [ISNSMessage] {
    var bytes = bytes
    var decoder = ISNSMessageDecoder()
    decoder.feed(&bytes)
    var result: [ISNSMessage] = []
    while let message = try decoder.next() { result.append(message) }
    return result
}

/// An iSNS server in memory: it has what it was told, and refuses what RFC 4171 says it must.
final class ModelServer {
    struct Entity {
        var portals: [ISNSPortal: (inquiryPort: UInt16?, notificationPort: UInt16?)] = [:]
        var nodes: [String: String?] = [:]
        /// Tags by node and portal.
        var groups: [String: [ISNSPortal: UInt32]] = [:]
    }

    var entities: [String: Entity] = [:]
    var subscribers: [String: UInt32] = [:]
    var periodSeconds: UInt32? = 60
    var inquires = true
    /// Names that are refused in a registration.
    var refusedNames: Set<String> = []
    /// Answers nothing.
    var isSilent = false
    private(set) var requests: [ISNSFunction] = []

    func entity(_ name: String) -> Entity { entities[name] ?? Entity() }
    func clearRequests() { requests = [] }

    func answer(_ request: ISNSMessage) -> ISNSMessage? {
        requests.append(request.function)
        guard !isSilent else { return nil }
        var attributes: [ISNSAttribute] = []
        let status: ISNSStatus =
            switch request.function {
            case .deviceAttributeRegistration: register(request, &attributes)
            case .deviceAttributeQuery: query(request, &attributes)
            case .deviceDeregistration: deregister(request)
            case .stateChangeRegistration: subscribe(request)
            default: .messageNotSupported
            }
        return ISNSMessage(
            function: request.function.response,
            flags: .server,
            transactionID: request.transactionID,
            status: status,
            attributes: attributes
        )
    }

    private func owner(of name: String) -> String? { entities.first { $0.value.nodes[name] != nil }?.key }

    private func register(_ request: ISNSMessage, _ answer: inout [ISNSAttribute]) -> ISNSStatus {
        guard request.attributes.count > 1, let source = request.attributes[0].text,
            let name = request.attributes[1].text, request.attributes[1].tag == .entityIdentifier
        else { return .messageFormatError }
        var entity = entities[name] ?? Entity()
        var address: ISNSAttribute?
        var current: ISNSPortal?
        var node: String?
        var group: (name: String, address: ISNSAttribute?, portal: ISNSPortal?)?
        for attribute in request.operatingAttributes {
            switch attribute.tag {
            case .portalAddress, .portalGroupAddress: address = attribute
            case .portalPort:
                guard let portal = address.flatMap({ ISNSPortal(address: $0, port: attribute) }) else {
                    return .messageFormatError
                }
                current = portal
                entity.portals[portal] = (nil, nil)
            case .inquiryPort:
                guard inquires else { return .inquiryNotAvailable }
                current.map { entity.portals[$0]?.inquiryPort = UInt16(truncatingIfNeeded: attribute.number ?? 0) }
            case .notificationPort:
                current.map { entity.portals[$0]?.notificationPort = UInt16(truncatingIfNeeded: attribute.number ?? 0) }
            case .iscsiName:
                guard let text = attribute.text, !refusedNames.contains(text) else { return .invalidRegistration }
                guard (owner(of: text) ?? name) == name else { return .invalidRegistration }
                node = text
                entity.nodes[text] = .some(nil)
            case .iscsiAlias: node.map { entity.nodes[$0] = .some(attribute.text) }
            case .portalGroupName: group = (attribute.text ?? "", nil, nil)
            case .portalGroupPort: group?.portal = address.flatMap { ISNSPortal(address: $0, port: attribute) }
            case .portalGroupTag:
                guard let group, let portal = group.portal, entity.portals[portal] != nil,
                    entity.nodes[group.name] != nil, let tag = attribute.number
                else { return .invalidRegistration }
                entity.groups[group.name, default: [:]][portal] = tag
            default: continue
            }
        }
        guard entity.nodes[source] != nil else { return .sourceUnknown }
        entities[name] = entity
        answer = [.text(.entityIdentifier, name), .delimiter]
        periodSeconds.map { answer.append(.number(.registrationPeriod, $0)) }
        return .successful
    }

    private func query(_ request: ISNSMessage, _ answer: inout [ISNSAttribute]) -> ISNSStatus {
        guard request.attributes.count > 1, let name = request.attributes[1].text, let entity = entities[name] else {
            return .noSuchEntry
        }
        answer = [.text(.entityIdentifier, name), .delimiter]
        for portal in entity.portals.keys {
            answer += [.address(.portalAddress, portal), .port(.portalPort, portal.port)]
        }
        if request.operatingAttributes.contains(where: { $0.tag == .iscsiName }) {
            answer += entity.nodes.keys.map { .text(.iscsiName, $0) }
        }
        return .successful
    }

    private func deregister(_ request: ISNSMessage) -> ISNSStatus {
        guard let source = request.attributes.first?.text, let own = owner(of: source) else { return .sourceUnknown }
        var address: ISNSAttribute?
        for attribute in request.operatingAttributes {
            switch attribute.tag {
            case .entityIdentifier: attribute.text.map { entities[$0] = nil }
            case .portalAddress: address = attribute
            case .portalPort:
                address.flatMap { ISNSPortal(address: $0, port: attribute) }.map { entities[own]?.portals[$0] = nil }
            case .iscsiName:
                attribute.text.map { name in
                    entities[own]?.nodes[name] = nil
                    subscribers[name] = nil
                }
            default: continue
            }
        }
        return .successful
    }

    private func subscribe(_ request: ISNSMessage) -> ISNSStatus {
        guard let name = request.attributes.dropFirst().first?.text, owner(of: name) != nil else {
            return .sourceUnknown
        }
        subscribers[name] = request.operatingAttributes.first?.number
        return .successful
    }
}

/// A client with its shell: a model server, volumes, and a clock that the test moves.
struct Bench {
    static let entity = "ashlar-6f1c9b0e"
    var client: ISNSClient
    let server: ModelServer
    var volumes: [ISNSTarget]?
    var now = MonotonicTime(1_000_000_000)
    var isReachable = true
    private(set) var isConnected = false
    private(set) var isStopped = false
    private(set) var connects = 0
    private(set) var lists = 0
    private(set) var notes: [ISNSNote] = []
    /// Lists are asked for and not yet answered, where a test answers them itself.
    var holdsLists = false
    private(set) var pendingLists = 0

    init(_ server: ModelServer, _ volumes: [ISNSTarget]?, last: UInt8 = 1, tag: UInt16 = 1, isShared: Bool = false)
        throws
    {
        self.server = server
        self.volumes = volumes
        client = ISNSClient(
            configuration: ISNSClientConfiguration(
                entity: Self.entity,
                portal: try portal(last),
                portalGroupTag: tag,
                inquiryPort: isShared ? nil : 3_206,
                isPortalShared: isShared,
                seed: UInt64(last)
            )
        )
    }

    mutating func start() throws { try run(client.start(now: now)) }
    mutating func stop() throws { try run(client.stop(now: now)) }

    /// Lets time pass in steps of a quarter of a second.
    mutating func pass(seconds: Int) throws {
        for _ in 0..<(seconds * 4) {
            now = now.advanced(byNanoseconds: 250_000_000)
            try run(client.timePassed(now: now))
        }
    }

    mutating func lose() throws {
        isConnected = false
        try run(client.connectionClosed(reason: "lost", now: now))
    }

    mutating func answerList() throws {
        pendingLists -= 1
        try run(client.targetsListed(volumes, now: now))
    }

    mutating func receive(_ bytes: ByteBuffer) throws -> [ISNSAction] {
        var bytes = bytes
        return client.received(&bytes, now: now)
    }

    mutating func run(_ first: [ISNSAction]) throws {
        var actions = first[...]
        while let action = actions.popFirst() {
            switch action {
            case .connect:
                connects += 1
                isConnected = isReachable
                actions +=
                    isReachable
                    ? client.connected(now: now) : client.connectionClosed(reason: "refused", now: now)
            case .send(let bytes):
                for request in try messages(bytes) {
                    guard let answer = server.answer(request) else { continue }
                    var bytes = answer.encoded()
                    actions += client.received(&bytes, now: now)
                }
            case .close: isConnected = false
            case .listTargets:
                lists += 1
                if holdsLists {
                    pendingLists += 1
                } else {
                    actions += client.targetsListed(volumes, now: now)
                }
            case .note(let note): notes.append(note)
            case .stopped: isStopped = true
            }
        }
    }
}
