public import NIOCore

/// Answers what an iSNS server asks on one connection: inquiries (ESI) and notifications (SCN).
///
/// A target does nothing about a notification but tell the log: who may log in is a matter of the volume's own rules.
public struct ISNSResponder: Sendable {
    private var decoder = ISNSMessageDecoder()
    private let entity: String
    private let portal: ISNSPortal
    private var isFailed = false

    /// A responder for an entity and the portal of this target.
    public init(entity: String, portal: ISNSPortal) {
        self.entity = entity
        self.portal = portal
    }

    /// Bytes have come from the server.
    public mutating func received(_ bytes: inout ByteBuffer) -> [ISNSAnswer] {
        guard !isFailed else {
            bytes.moveReaderIndex(to: bytes.writerIndex)
            return []
        }
        var answers: [ISNSAnswer] = []
        decoder.feed(&bytes)
        do {
            while let message = try decoder.next() {
                // A response belongs to no request here.
                guard !message.function.isResponse else { continue }
                let (answer, note) = Self.answer(to: message, entity: entity, portal: portal)
                answers += [.note(note), .send(answer.encoded())]
            }
        } catch {
            isFailed = true
            answers += [.note(ISNSNote(severity: .warning, message: "iSNS request not understood: \(error)")), .close]
        }
        return answers
    }

    /// The response to a server's request, and what to log.
    static func answer(
        to request: ISNSMessage,
        entity: String,
        portal: ISNSPortal
    ) -> (ISNSMessage, ISNSNote) {
        var response = ISNSMessage(
            function: request.function.response,
            transactionID: request.transactionID,
            status: .successful,
            attributes: []
        )
        do {
            switch request.function {
            case .entityStatusInquiry:
                let inquiry = try EntityStatusInquiry(request)
                // Another process may have had this port before: what it registered is not to be kept alive.
                guard inquiry.entity == entity, inquiry.portal == portal else {
                    response.status = .noSuchEntry
                    return (response, ISNSNote(severity: .debug, message: "iSNS inquiry for another portal"))
                }
                response.attributes = request.attributes
                return (response, ISNSNote(severity: .debug, message: "iSNS inquiry answered"))
            case .stateChangeNotification:
                let notification = try StateChangeNotification(request)
                response.attributes = [notification.destination]
                return (response, ISNSNote(severity: .info, message: text(of: notification)))
            default:
                response.status = .messageNotSupported
                let function = String(request.function.rawValue, radix: 16)
                return (response, ISNSNote(severity: .debug, message: "iSNS function 0x\(function) is not supported"))
            }
        } catch {
            response.status =
                request.function == .stateChangeNotification ? .notificationRejected : .messageFormatError
            return (response, ISNSNote(severity: .warning, message: "iSNS request refused: \(error)"))
        }
    }

    private static func text(of notification: StateChangeNotification) -> String {
        let shown = notification.changes.prefix(ISNSLimits.notedObjectsMaximum)
        let more = notification.changes.count - shown.count
        let texts = shown.map { "\($0.name) (\($0.events))" } + (more > 0 ? ["and \(more) more"] : [])
        return "iSNS state change: \(texts.joined(separator: "; "))"
    }
}
