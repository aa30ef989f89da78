import AshlarCore
import Logging
import NIOCore
import Ownership
import PostgresStore
import RPC
import Transport

// What keeps objects whole: none of it is the core's business.
extension CacheService {
    /// Messages about the age of the database, scrubs and object servers.
    func dispatchKeeping(
        _ request: RPCRequest,
        _ buffer: ByteBuffer,
        on connection: RPCServerConnection
    ) throws(RPCDecodingError) -> Bool {
        var body = buffer
        switch request.type {
        case DatabaseAge.type:
            let message = try body.readRPCWholeMessage(DatabaseAge.self)
            let marks = message.marks.map {
                ObjectServerMark(server: $0.server, clock: $0.clock, highestObject: $0.highestObject)
            }
            store.databaseAge(
                marks,
                completion: reply(to: request, on: connection) {
                    DatabaseAge.Answer(isBehind: $0.isBehind, clock: $0.clock, nextObject: $0.nextObject)
                }
            )
        case ScrubWork.type:
            _ = try body.readRPCWholeMessage(ScrubWork.self)
            scrub(reply(to: request, on: connection) { $0 })
        case ReportObjects.type:
            let message = try body.readRPCWholeMessage(ReportObjects.self)
            store.reportObjects(
                token: message.token,
                message.objects.compactMap(ObjectFinding.init),
                completion: reply(to: request, on: connection) { _ in CountAnswer(count: 0) }
            )
        case DrainingServers.type:
            _ = try body.readRPCWholeMessage(DrainingServers.self)
            store.drainingServers(
                completion: reply(to: request, on: connection) { DrainingServers.Answer(servers: $0) }
            )
        default: return try dispatchAdministration(request, body, on: connection)
        }
        return true
    }

    /// Verifies some items here, since who asks has no SQL, and hands objects out.
    private func scrub(_ completion: @escaping @Sendable (Result<ScrubWork.Answer, StoreFailure>) -> Void) {
        store.scrubItems { [store, logger] items in
            guard case .success(let items) = items else {
                if case .failure(let failure) = items { completion(.failure(failure)) }
                return
            }
            for item in items.damaged {
                logger.error(
                    "a scrub found an item that does not match its checksum (I11)",
                    metadata: ["volume": "\(item.volume)", "block": "\(item.block)"]
                )
            }
            store.scrubObjects { result in
                completion(
                    result.map { piece in
                        ScrubWork.Answer(
                            token: piece.token,
                            objects: piece.objects.map {
                                ScrubWork.Object(
                                    object: $0.object,
                                    server: $0.server,
                                    slots: $0.slots,
                                    sizeBytes: $0.sizeBytes
                                )
                            },
                            items: items.count
                        )
                    }
                )
            }
        }
    }
}

extension ObjectFinding {
    /// What the database keeps of a report; nil where nothing is known.
    init?(_ finding: ReportObjects.Finding) {
        let slots = finding.slots.map { Int32(clamping: $0.rawValue) }
        switch finding.state {
        case .sound: self.init(object: finding.object, slots: [], isMissing: false, isWhole: true)
        case .damaged: self.init(object: finding.object, slots: slots, isMissing: false, isWhole: true)
        case .partlyRead: self.init(object: finding.object, slots: slots, isMissing: false, isWhole: false)
        case .unreadable: self.init(object: finding.object, slots: [-1], isMissing: false, isWhole: true)
        case .missing: self.init(object: finding.object, slots: [-1], isMissing: true, isWhole: true)
        case .unknown: return nil
        }
    }
}
