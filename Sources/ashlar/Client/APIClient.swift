import AsyncHTTPClient
import ControlPlane
import Foundation
import NIOCore
import NIOHTTP1
import NIOSSL

/// The API of the control role, for the commands.
struct APIClient: Sendable {
    private static let answerMaximumBytes = 64 << 20
    private static let connectSeconds: Int64 = 5
    private static let requestSeconds: Int64 = 60

    private let client: HTTPClient
    private let url: String
    private let token: String

    /// - Throws: ``CommandFailure`` where the authority cannot be read.
    init(_ access: APIAccess) throws {
        var tls = TLSConfiguration.makeClientConfiguration()
        do {
            tls.trustRoots = .certificates(try NIOSSLCertificate.fromPEMFile(access.authority))
        } catch {
            throw CommandFailure(
                "The authority \(access.authority) cannot be read (\(error)); name it with --authority."
            )
        }
        var configuration = HTTPClient.Configuration(tlsConfiguration: tls)
        configuration.timeout.connect = .seconds(Self.connectSeconds)
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        url = access.url
        token = access.token
    }

    func shutdown() async {
        // The answers are here already; nothing is left to lose.
        try? await client.shutdown()
    }

    // MARK: Volumes

    func createVolume(_ request: CreateVolumeRequest) async throws -> VolumeDocument {
        try await send(.POST, "/v1/volumes", body: request)
    }

    func volume(_ name: String) async throws -> VolumeDocument {
        try await send(.GET, "/v1/volumes/\(Self.escaped(name))")
    }

    func volumes(after: String?, limit: Int = 1_000) async throws -> VolumePage {
        try await send(.GET, "/v1/volumes?limit=\(limit)" + (after.map { "&after=\(Self.escaped($0))" } ?? ""))
    }

    func changeVolume(_ name: String, _ request: ChangeVolumeRequest) async throws -> VolumeDocument {
        try await send(.PATCH, "/v1/volumes/\(Self.escaped(name))", body: request)
    }

    func resizeVolume(_ name: String, _ request: ResizeVolumeRequest) async throws -> VolumeDocument {
        try await send(.POST, "/v1/volumes/\(Self.escaped(name))/resize", body: request)
    }

    func deleteVolume(_ name: String, force: Bool) async throws -> JobReference {
        try await send(.DELETE, "/v1/volumes/\(Self.escaped(name))?force=\(force)")
    }

    func move(_ name: String) async throws -> MoveDocument {
        try await send(.POST, "/v1/volumes/\(Self.escaped(name))/move")
    }

    // MARK: Everything else

    func space(_ name: String) async throws -> SpaceDocument {
        try await send(.GET, "/v1/volumes/\(Self.escaped(name))/statistics")
    }

    func targets() async throws -> TargetList { try await send(.GET, "/v1/targets") }

    func changeTarget(_ name: String, _ request: ChangeTargetRequest) async throws -> TargetDocument {
        try await send(.PATCH, "/v1/targets/\(Self.escaped(name))", body: request)
    }

    func sessions() async throws -> SessionList { try await send(.GET, "/v1/sessions") }

    func changeCache(_ name: String, _ request: ChangeCacheRequest) async throws -> CacheNodeDocument {
        try await send(.PATCH, "/v1/caches/\(Self.escaped(name))", body: request)
    }

    func caches() async throws -> CacheList { try await send(.GET, "/v1/caches") }

    func objectServers() async throws -> ObjectServerList { try await send(.GET, "/v1/objects") }

    func changeObjectServer(_ id: Int32, _ request: ChangeObjectServerRequest) async throws -> ObjectServerDocument {
        try await send(.PATCH, "/v1/objects/\(id)", body: request)
    }

    func cluster() async throws -> ClusterDocument { try await send(.GET, "/v1/cluster") }

    func changeCluster(_ request: ChangeClusterRequest) async throws -> ClusterDocument {
        try await send(.PATCH, "/v1/cluster", body: request)
    }

    func recover(_ request: RecoverRequest) async throws -> JobReference {
        try await send(.POST, "/v1/recover", body: request)
    }

    func fsck(_ request: FsckRequest) async throws -> JobReference { try await send(.POST, "/v1/fsck", body: request) }

    func job(_ id: String) async throws -> JobDocument { try await send(.GET, "/v1/jobs/\(Self.escaped(id))") }

    // MARK: Requests

    private func send<Answer: Decodable>(_ method: HTTPMethod, _ path: String) async throws -> Answer {
        try await answer(method, path, body: nil)
    }

    private func send<Answer: Decodable>(
        _ method: HTTPMethod,
        _ path: String,
        body: some Encodable
    ) async throws -> Answer {
        try await answer(method, path, body: try JSONEncoder().encode(body))
    }

    private func answer<Answer: Decodable>(_ method: HTTPMethod, _ path: String, body: Data?) async throws -> Answer {
        var request = HTTPClientRequest(url: url + path)
        request.method = method
        request.headers.add(name: "Authorization", value: "Bearer \(token)")
        if let body {
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: body))
        }
        let status: Int
        let data: Data
        do {
            let response = try await client.execute(request, timeout: .seconds(Self.requestSeconds))
            status = Int(response.status.code)
            data = Data(try await response.body.collect(upTo: Self.answerMaximumBytes).readableBytesView)
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw CommandFailure(
                "The control role at \(url) cannot be reached (\(error)); see that it runs, or name it with --api.",
                exitCode: ExitCodes.unreachable
            )
        }
        guard (200..<300).contains(status) else { throw Self.refusal(status, data) }
        do {
            return try JSONDecoder().decode(Answer.self, from: data)
        } catch {
            throw CommandFailure("The control role at \(url) answered \(path) with something that is not understood.")
        }
    }

    private static func refusal(_ status: Int, _ data: Data) -> CommandFailure {
        guard let document = try? JSONDecoder().decode(ErrorDocument.self, from: data) else {
            return CommandFailure("The control role answered with status \(status).")
        }
        let exitCode =
            switch document.error.code {
            case .unauthorized: ExitCodes.token
            case .databaseUnavailable, .cacheUnavailable, .objectsUnavailable: ExitCodes.unreachable
            default: ExitCodes.failed
            }
        return CommandFailure(document.error.description, exitCode: exitCode)
    }

    private static func escaped(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics.union(CharacterSet(charactersIn: "-._")))
            ?? text
    }
}

/// Where the API is, and what to prove oneself with.
struct APIAccess: Sendable, Hashable {
    var url: String
    var authority: String
    var token: String
}
