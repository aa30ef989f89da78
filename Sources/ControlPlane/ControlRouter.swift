import Foundation
import Hummingbird
import Logging
import NIOCore
import RPC

/// The paths of the API, version 1.
enum ControlRouter {
    typealias Context = BasicRequestContext

    /// A router that answers with what `service` does, to those who have the token.
    static func make(_ service: ControlService, token: BearerToken) -> Router<Context> {
        let router = Router(context: Context.self)
        router.add(middleware: ErrorMiddleware(logger: service.logger))
        router.add(middleware: TokenMiddleware(token: token))
        let api = router.group("v1")
        addVolumes(api, service)
        addInspection(api, service)
        addJobs(api, service)
        return router
    }

    private static func addVolumes(_ api: RouterGroup<Context>, _ service: ControlService) {
        api.post("volumes") { request, _ in
            let body = try await decoded(CreateVolumeRequest.self, request)
            return try json(try await service.createVolume(body), status: .created)
        }
        api.get("volumes") { request, _ in
            let after = request.uri.queryParameters.get("after")
            return try json(try await service.volumes(after: after, limit: try limit(request)))
        }
        api.get("volumes/:name") { request, context in
            try json(try await service.volume(try name(context)))
        }
        api.patch("volumes/:name") { request, context in
            let body = try await decoded(ChangeVolumeRequest.self, request)
            return try json(try await service.changeVolume(try name(context), body))
        }
        api.delete("volumes/:name") { request, context in
            let job = try await service.deleteVolume(try name(context), force: try flag("force", request))
            return try json(job, status: .accepted)
        }
        api.post("volumes/:name/resize") { request, context in
            let body = try await decoded(ResizeVolumeRequest.self, request)
            return try json(try await service.resizeVolume(try name(context), body))
        }
        api.post("volumes/:name/move") { _, context in
            try json(try await service.moveNow(try name(context)))
        }
        api.get("volumes/:name/statistics") { _, context in
            try json(try await service.space(try name(context)))
        }
    }

    private static func addInspection(_ api: RouterGroup<Context>, _ service: ControlService) {
        api.get("statistics") { request, _ in
            let after = request.uri.queryParameters.get("after")
            return try json(try await service.space(after: after, limit: try limit(request)))
        }
        api.get("targets") { _, _ in try json(try await service.targets()) }
        api.patch("targets/:name") { request, context in
            let body = try await decoded(ChangeTargetRequest.self, request)
            return try json(try await service.changeTarget(try node(context, ControlError.noSuchTarget), body))
        }
        api.get("sessions") { request, _ in
            let volume = request.uri.queryParameters.get("volume")
            return try json(try await service.sessions(volume: volume, limit: try limit(request)))
        }
        api.get("caches") { _, _ in try json(try await service.caches()) }
        api.patch("caches/:name") { request, context in
            let body = try await decoded(ChangeCacheRequest.self, request)
            return try json(try await service.changeCache(try node(context, ControlError.noSuchCache), body))
        }
        api.get("objects") { _, _ in try json(try await service.objectServers()) }
        api.patch("objects/:id") { request, context in
            let body = try await decoded(ChangeObjectServerRequest.self, request)
            let text = context.parameters.get("id") ?? ""
            guard let id = Int32(text) else { throw ControlError.noSuchObjectServer(String(text.prefix(64))) }
            return try json(try await service.changeObjectServer(id, body))
        }
        api.get("cluster") { _, _ in try json(try await service.cluster()) }
        api.patch("cluster") { request, _ in
            let body = try await decoded(ChangeClusterRequest.self, request)
            return try json(try await service.changeCluster(body))
        }
    }

    private static func addJobs(_ api: RouterGroup<Context>, _ service: ControlService) {
        api.post("fsck") { request, _ in
            let body = try await decoded(FsckRequest.self, request, emptyIs: FsckRequest())
            return try json(try await service.fsck(body), status: .accepted)
        }
        api.post("recover") { request, _ in
            let body = try await decoded(RecoverRequest.self, request, emptyIs: RecoverRequest())
            return try json(try await service.recover(body), status: .accepted)
        }
        api.get("jobs") { _, _ in try json(await service.jobs.all()) }
        api.get("jobs/:id") { _, context in
            try json(try await service.job(context.parameters.get("id") ?? ""))
        }
    }

    // MARK: Reading requests

    private static func name(_ context: Context) throws -> String {
        let name = context.parameters.get("name") ?? ""
        let plain = name.removingPercentEncoding ?? name
        // A name that no volume can have is one that does not exist.
        guard (try? VolumeRules.checkName(plain)) != nil else {
            throw ControlError.noSuchVolume(String(plain.prefix(64)))
        }
        return plain
    }

    private static func node(_ context: Context, _ missing: (String) -> ControlError) throws -> String {
        let name = context.parameters.get("name") ?? ""
        let plain = name.removingPercentEncoding ?? name
        // A name that no node can have is one that does not exist.
        guard NodeIdentity.isValidName(plain) else { throw missing(String(plain.prefix(64))) }
        return plain
    }

    private static func limit(_ request: Request) throws -> Int? {
        guard let text = request.uri.queryParameters.get("limit") else { return nil }
        guard let limit = Int(text) else {
            throw ControlError(.badRequest, "limit is not a number.", remedy: "Give a whole number.")
        }
        return limit
    }

    private static func flag(_ name: String, _ request: Request) throws -> Bool {
        switch request.uri.queryParameters.get(name) {
        case nil, "false": return false
        case "true", "": return true
        default: throw ControlError(.badRequest, "\(name) is neither true nor false.", remedy: "Give one of them.")
        }
    }

    private static func decoded<Document: RequestDocument>(
        _ type: Document.Type,
        _ request: Request,
        emptyIs empty: Document? = nil
    ) async throws -> Document {
        let body: ByteBuffer
        do {
            body = try await request.body.collect(upTo: ControlLimits.requestMaximumBytes)
        } catch is NIOTooManyBytesError {
            throw ControlError(
                .badRequest,
                "The request is too long.",
                remedy: "Send at most \(ControlLimits.requestMaximumBytes) bytes."
            )
        }
        if body.readableBytes == 0, let empty { return empty }
        return try StrictDecoding.decode(type, from: Data(body.readableBytesView))
    }

    // MARK: Answering

    static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok) throws -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        var headers = HTTPFields()
        headers[.contentType] = "application/json; charset=utf-8"
        headers[.cacheControl] = "no-store"
        let body = ByteBuffer(bytes: try encoder.encode(value))
        return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: body))
    }
}

/// Reads documents, and refuses what it does not know.
enum StrictDecoding {
    static func decode<Document: RequestDocument>(_ type: Document.Type, from data: Data) throws -> Document {
        guard let object = try? JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw ControlError(.badRequest, "The body is not a JSON object.", remedy: "Send one, in UTF-8.")
        }
        try check(object, Document.fields, path: "")
        do {
            return try JSONDecoder().decode(type, from: data)
        } catch let DecodingError.keyNotFound(key, context) {
            throw ControlError(
                .badRequest,
                "\(path(context.codingPath, key)) is missing.",
                remedy: "Add it to the request."
            )
        } catch let DecodingError.typeMismatch(_, context), let DecodingError.valueNotFound(_, context),
            let DecodingError.dataCorrupted(context)
        {
            throw ControlError(
                .badRequest,
                "\(path(context.codingPath, nil)) has a value of the wrong kind.",
                remedy: "See docs/configuration.md for the kinds."
            )
        }
    }

    private static let nested: [String: Set<String>] = [
        "policy": PolicyDocument.fields, "mutual": CredentialDocument.fields, "credentials": CredentialDocument.fields,
    ]

    private static func check(_ object: [String: Any], _ fields: Set<String>, path: String) throws {
        for (key, value) in object.sorted(by: { $0.key < $1.key }) {
            guard fields.contains(key) else {
                throw ControlError(
                    .badRequest,
                    "\(path)\(key.prefix(64)) is not a field of this request.",
                    remedy: "The fields are \(fields.sorted().joined(separator: ", "))."
                )
            }
            guard path.isEmpty, let inner = nested[key] else { continue }
            for part in value as? [[String: Any]] ?? [value as? [String: Any]].compactMap({ $0 }) {
                try check(part, inner, path: key + ".")
            }
        }
    }

    private static func path(_ path: [any CodingKey], _ key: (any CodingKey)?) -> String {
        let names = (path + [key].compactMap { $0 }).map { $0.intValue.map { "[\($0)]" } ?? $0.stringValue }
        return names.isEmpty ? "The body" : names.joined(separator: ".")
    }
}

/// Lets in who has the token.
struct TokenMiddleware: RouterMiddleware {
    let token: BearerToken

    func handle(
        _ request: Request,
        context: BasicRequestContext,
        next: (Request, BasicRequestContext) async throws -> Response
    ) async throws -> Response {
        guard token.matches(authorization: request.headers[.authorization]) else {
            throw ControlError(
                .unauthorized,
                "The token is missing or wrong.",
                remedy: "Send \"Authorization: Bearer TOKEN\" with the content of control.token-file."
            )
        }
        return try await next(request, context)
    }
}

/// Turns every error into the same form of answer; the one place that maps errors to HTTP.
struct ErrorMiddleware: RouterMiddleware {
    let logger: Logger

    func handle(
        _ request: Request,
        context: BasicRequestContext,
        next: (Request, BasicRequestContext) async throws -> Response
    ) async throws -> Response {
        do {
            return try await next(request, context)
        } catch {
            let refusal = Self.controlError(error, path: request.uri.path)
            if refusal.code.httpStatus >= 500 {
                logger.error(
                    "request failed",
                    metadata: [
                        "method": "\(request.method)", "path": "\(request.uri.path)",
                        "code": "\(refusal.code.rawValue)",
                        "reason": "\(refusal.message)",
                    ]
                )
            }
            var response = try ControlRouter.json(
                ErrorDocument(error: refusal),
                status: .init(code: refusal.code.httpStatus)
            )
            if refusal.code == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer realm=\"ashlar\"" }
            return response
        }
    }

    private static func controlError(_ error: any Error, path: String) -> ControlError {
        switch error {
        case let error as ControlError:
            return error
        case let error as any HTTPResponseError where error.status == .notFound:
            return ControlError(
                .notFound,
                "There is nothing at \(path).",
                remedy: "Paths begin with /v1/volumes and so on."
            )
        case let error as any HTTPResponseError:
            return ControlError(.badRequest, "The request is refused: \(error.status).", remedy: "Correct the request.")
        default:
            return ControlError(
                .internalError,
                "The request failed: \(error).",
                remedy: "See the log of the control role."
            )
        }
    }
}
