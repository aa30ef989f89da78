import Foundation
import Hummingbird
import HummingbirdTesting
import Logging
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import ControlPlane

@Suite struct ControlRouterTests {
    private static let secret = "0123456789abcdef0123456789abcdef"
    private let store = ModelControlStore()
    private let peers = ModelPeers()

    private func application() throws -> some ApplicationProtocol {
        let logger = Logger(label: "tests") { _ in SwiftLogNoOpLogHandler() }
        let service = ControlService(
            store: store,
            peers: peers,
            jobs: Jobs(),
            logger: logger,
            check: { _, progress in
                await progress.report(done: 1, total: 2, "half")
                return FsckReport()
            },
            recovery: { request, _ in
                var report = RecoverReport()
                report.isRepaired = request.repair ?? false
                return report
            }
        )
        return Application(router: ControlRouter.make(service, token: try BearerToken(Self.secret)), logger: logger)
    }

    private func send(
        _ client: any TestClientProtocol,
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil,
        token: String? = secret
    ) async throws -> (Int, [String: Any]) {
        var headers = HTTPFields()
        if let token { headers[.authorization] = "Bearer \(token)" }
        let response = try await client.execute(
            uri: path,
            method: method,
            headers: headers,
            body: body.map { ByteBuffer(string: $0) }
        )
        let object = try? JSONSerialization.jsonObject(with: Data(response.body.readableBytesView)) as? [String: Any]
        return (response.status.code, object ?? [:])
    }

    private func code(_ answer: [String: Any]) -> String? { (answer["error"] as? [String: Any])?["code"] as? String }
    private func message(_ answer: [String: Any]) -> String {
        (answer["error"] as? [String: Any])?["message"] as? String ?? ""
    }

    @Test(
        arguments: [nil, "", "wrong", "0123456789abcdef0123456789abcdeF", "0123456789abcdef0123456789abcdef0"]
            as [String?]
    )
    func wrongTokensAreRefused(token: String?) async throws {
        try await application().test(.router) { client in
            for path in ["/v1/volumes", "/v1/nothing"] {
                let (status, answer) = try await send(client, .get, path, token: token)
                #expect(status == 401)
                #expect(code(answer) == "unauthorized")
            }
        }
        #expect(store.state.withLockedValue { $0.volumes.isEmpty })
    }

    @Test func volumeLivesFromCreationToDeletion() async throws {
        try await application().test(.router) { client in
            let body = #"{"name":"demo","sizeBytes":1073741824,"credentials":[{"name":"u","secret":"0123456789ab"}]}"#
            let (created, volume) = try await send(client, .post, "/v1/volumes", body)
            #expect(created == 201)
            #expect(volume["iqn"] as? String == "iqn.2026-01.io.ashlar:demo")
            #expect(volume["credentials"] as? [String] == ["u"])
            #expect(!"\(volume)".contains("0123456789ab"))
            #expect(try await send(client, .post, "/v1/volumes", body).0 == 409)
            #expect(try await send(client, .get, "/v1/volumes/demo").0 == 200)
            let (changed, after) = try await send(client, .patch, "/v1/volumes/demo", #"{"readOnly":true}"#)
            #expect(changed == 200 && after["readOnly"] as? Bool == true)
            #expect(peers.state.withLockedValue { $0.reloaded } == [1])
            let resize = "/v1/volumes/demo/resize"
            #expect(try await send(client, .post, resize, #"{"sizeBytes":4096}"#).0 == 409)
            #expect(try await send(client, .post, resize, #"{"sizeBytes":2147483648}"#).0 == 200)
            store.state.withLockedValue { $0.rows[1] = 25 }
            let (accepted, reference) = try await send(client, .delete, "/v1/volumes/demo")
            #expect(accepted == 202)
            let job = try await ended(client, try #require(reference["job"] as? String))
            #expect(job["state"] as? String == "done")
            #expect(try await send(client, .get, "/v1/volumes/demo").0 == 404)
        }
    }

    private func ended(_ client: any TestClientProtocol, _ id: String) async throws -> [String: Any] {
        for _ in 0..<500 {
            let (_, job) = try await send(client, .get, "/v1/jobs/\(id)")
            if job["state"] as? String != "running" { return job }
            try await Task.sleep(for: .milliseconds(2))
        }
        return [:]
    }

    private func drainingFlags(_ client: any TestClientProtocol) async throws -> [Bool?] {
        let (_, list) = try await send(client, .get, "/v1/targets")
        return (list["targets"] as? [[String: Any]] ?? []).map { $0["draining"] as? Bool }
    }

    @Test func aTargetIsDrainedAndTakenBack() async throws {
        store.state.withLockedValue { $0.targets = ["t-1": target("t-1", sessions: 3), "t-2": target("t-2")] }
        try await application().test(.router) { client in
            #expect(try await drainingFlags(client) == [false, false])
            let (status, answer) = try await send(client, .patch, "/v1/targets/t-1", #"{"draining":true}"#)
            #expect(status == 200 && answer["node"] as? String == "t-1" && answer["draining"] as? Bool == true)
            #expect(answer["sessions"] as? Int == 3)
            #expect(try await drainingFlags(client) == [true, false])
            // Again changes nothing.
            #expect(try await send(client, .patch, "/v1/targets/t-1", #"{"draining":true}"#).0 == 200)
            #expect(try await send(client, .patch, "/v1/targets/t-1", #"{"draining":false}"#).0 == 200)
            #expect(try await drainingFlags(client) == [false, false])
        }
    }

    @Test(
        arguments: [
            ("t-1", #"{}"#, 400, "bad-request"), ("t-1", #"{"draining":"yes"}"#, 400, "bad-request"),
            ("t-1", #"{"draining":null}"#, 400, "bad-request"), ("t-1", "", 400, "bad-request"),
            ("t-1", #"{"draining":true,"sessions":0}"#, 400, "bad-request"),
            ("t-2", #"{"draining":true}"#, 404, "no-such-target"),
            ("a%2Fb", #"{"draining":true}"#, 404, "no-such-target"),
            ("%C3%A9", #"{"draining":true}"#, 404, "no-such-target"),
        ]
    )
    func wrongChangesOfTargetsAreRefused(path: String, body: String, status: Int, code: String) async throws {
        store.state.withLockedValue { $0.targets = ["t-1": target("t-1")] }
        try await application().test(.router) { client in
            let (found, answer) = try await send(client, .patch, "/v1/targets/\(path)", body)
            #expect(found == status && self.code(answer) == code)
        }
        #expect(store.state.withLockedValue { $0.targets["t-1"]?.draining } == false)
    }

    private func haveObjectServers() {
        store.state.withLockedValue { state in
            for id: Int32 in [1, 2] {
                state.objectServers[id] = ObjectServerRecord(id: id, isDraining: false, objects: 7, bytes: 8)
            }
        }
        peers.state.withLockedValue { $0.objects = [1: [], 2: []] }
    }

    @Test func anObjectServerIsDrainedAndTakenBack_butNotTheLastOne() async throws {
        haveObjectServers()
        try await application().test(.router) { client in
            let (status, answer) = try await send(client, .patch, "/v1/objects/1", #"{"draining":true}"#)
            #expect(status == 200 && answer["id"] as? Int == 1 && answer["draining"] as? Bool == true)
            #expect(answer["liveObjects"] as? Int == 7)
            let (last, refusal) = try await send(client, .patch, "/v1/objects/2", #"{"draining":true}"#)
            #expect(last == 409 && code(refusal) == "last-object-server")
            let (_, list) = try await send(client, .get, "/v1/objects")
            let flags = (list["objects"] as? [[String: Any]] ?? []).map { $0["draining"] as? Bool }
            #expect(flags == [true, false])
            #expect(try await send(client, .patch, "/v1/objects/1", #"{"draining":false}"#).0 == 200)
            #expect(store.state.withLockedValue { $0.objectServers[1]?.isDraining } == false)
            for path in ["3", "x", "1e3"] {
                let (found, error) = try await send(client, .patch, "/v1/objects/\(path)", #"{"draining":true}"#)
                #expect(found == 404 && code(error) == "no-such-object-server", "\(path)")
            }
            #expect(try await send(client, .patch, "/v1/objects/1", #"{"drain":true}"#).0 == 400)
        }
    }

    @Test func aCacheServerIsDrainedAndTakenBackByItsName() async throws {
        let node = CacheNodeDocument(
            name: "c-1",
            endpoint: "10.0.0.5:7401",
            alive: true,
            draining: false,
            stopping: false,
            volumes: 3,
            volumesInUse: 2
        )
        store.state.withLockedValue { $0.caches = ["c-1": node] }
        try await application().test(.router) { client in
            let (status, answer) = try await send(client, .patch, "/v1/caches/c-1", #"{"draining":true}"#)
            #expect(status == 200 && answer["name"] as? String == "c-1" && answer["draining"] as? Bool == true)
            #expect(answer["volumes"] as? Int == 3 && answer["volumesInUse"] as? Int == 2)
            let (_, list) = try await send(client, .get, "/v1/caches")
            #expect((list["nodes"] as? [[String: Any]] ?? []).map { $0["draining"] as? Bool } == [true])
            #expect(try await send(client, .patch, "/v1/caches/c-1", #"{"draining":false}"#).0 == 200)
            #expect(store.state.withLockedValue { $0.caches["c-1"]?.draining } == false)
            for path in ["c-2", "a%2Fb", "%C3%A9"] {
                let (found, error) = try await send(client, .patch, "/v1/caches/\(path)", #"{"draining":true}"#)
                #expect(found == 404 && code(error) == "no-such-cache", "\(path)")
            }
            for body in [#"{"drain":true}"#, #"{"draining":1}"#, ""] {
                #expect(try await send(client, .patch, "/v1/caches/c-1", body).0 == 400, "\(body)")
            }
        }
    }

    @Test func settingsOfTheClusterAreShownAndChangedWithinTheirBounds() async throws {
        try await application().test(.router) { client in
            let (status, shown) = try await send(client, .get, "/v1/cluster")
            #expect(status == 200 && shown["scrubIntervalSeconds"] as? Int == 2 && shown["deletionAllowed"] == nil)
            let (_, changed) = try await send(client, .patch, "/v1/cluster", #"{"backupWindowSeconds":31536000}"#)
            #expect(changed["backupWindowSeconds"] as? Int == 31_536_000 && changed["scrubBytesPerSecond"] as? Int == 1)
            for body in [
                #"{"backupWindowSeconds":-1}"#, #"{"backupWindowSeconds":31536001}"#, #"{"scrubBytesPerSecond":-1}"#,
                #"{"scrubBytesPerSecond":1099511627777}"#, #"{"scrubIntervalSeconds":0}"#,
                #"{"scrubIntervalSeconds":31536001}"#,
            ] {
                let (refused, answer) = try await send(client, .patch, "/v1/cluster", body)
                #expect(refused == 422 && code(answer) == "invalid", "\(body)")
            }
            #expect(try await send(client, .patch, "/v1/cluster", #"{"uuid":"x"}"#).0 == 400)
        }
    }

    @Test(arguments: [("", false), (#"{"repair":true}"#, true)])
    func recoveryIsAJob_whichOnlyLooksUnlessItIsTold(body: String, repairs: Bool) async throws {
        try await application().test(.router) { client in
            let (status, reference) = try await send(client, .post, "/v1/recover", body)
            #expect(status == 202)
            let job = try await ended(client, try #require(reference["job"] as? String))
            #expect(job["state"] as? String == "done" && job["kind"] as? String == "recover")
            #expect((job["recovery"] as? [String: Any])?["isRepaired"] as? Bool == repairs)
        }
    }

    @Test func openSessionsKeepAVolumeUnlessForced() async throws {
        try await application().test(.router) { client in
            _ = try await send(client, .post, "/v1/volumes", #"{"name":"a","sizeBytes":4096}"#)
            store.state.withLockedValue { $0.sessions["a"] = 2 }
            let (status, answer) = try await send(client, .delete, "/v1/volumes/a")
            #expect(status == 409 && code(answer) == "sessions-open")
            peers.state.withLockedValue { $0.isReachable = false }
            let (forced, reference) = try await send(client, .delete, "/v1/volumes/a?force=true")
            #expect(forced == 202)
            #expect(try await ended(client, try #require(reference["job"] as? String))["state"] as? String == "done")
        }
    }

    @Test(arguments: [
        ("not json", "badly formed"), ("[]", ""), (#"{"sizeBytes":4096}"#, "name"), (#"{"name":"a"}"#, "sizeBytes"),
        (#"{"name":"a","sizeBytes":"big"}"#, "sizeBytes"), (#"{"name":"a","sizeBytes":4096,"sise":1}"#, "sise"),
        (#"{"name":"a","sizeBytes":4096,"policy":{"mvoe":"lru"}}"#, "policy.mvoe"),
        (#"{"name":"a","sizeBytes":4096,"credentials":[{"name":"x","password":"y"}]}"#, "credentials.password"),
    ])
    func requestsThatCannotBeRead(body: String, named: String) async throws {
        try await application().test(.router) { client in
            let (status, answer) = try await send(client, .post, "/v1/volumes", body)
            #expect(status == 400 && code(answer) == "bad-request")
            if body.hasPrefix("{") { #expect(message(answer).contains(named)) }
        }
    }

    @Test(arguments: [
        (#"{"name":"A","sizeBytes":4096}"#, "\"A\""), (#"{"name":"a","sizeBytes":5000}"#, "5000"),
        (#"{"name":"a","sizeBytes":0}"#, "size 0"), (#"{"name":"a","sizeBytes":4096,"blockSizeBytes":1000}"#, "1000"),
        (#"{"name":"a","sizeBytes":4096,"iqn":"disk"}"#, "disk"),
        (#"{"name":"a","sizeBytes":4096,"policy":{"move":"random"}}"#, "random"),
        (
            #"{"name":"a","sizeBytes":4096,"policy":{"writeThroughMinimumBytes":65536}}"#,
            "writeThroughMinimumBytes 65536"
        ),
        (
            #"{"name":"a","sizeBytes":4096,"policy":{"writeThroughMinimumBytes":8388608,"directWriteMinimumBytes":0}}"#,
            "8388608"
        ),
        (#"{"name":"a","sizeBytes":4096,"initiators":["me"]}"#, "me"),
        (#"{"name":"a","sizeBytes":4096,"credentials":[{"name":"x","secret":"short"}]}"#, "5 bytes"),
    ])
    func valuesOutsideTheirBounds(body: String, named: String) async throws {
        try await application().test(.router) { client in
            let (status, answer) = try await send(client, .post, "/v1/volumes", body)
            #expect(status == 422 && code(answer) == "invalid")
            #expect(message(answer).contains(named))
            #expect(!message(answer).contains("short"))
        }
    }

    @Test func pagesFollowEachOther() async throws {
        try await application().test(.router) { client in
            for name in ["a", "b", "c"] {
                _ = try await send(client, .post, "/v1/volumes", #"{"name":"\#(name)","sizeBytes":4096}"#)
            }
            let (_, first) = try await send(client, .get, "/v1/volumes?limit=2")
            #expect((first["volumes"] as? [Any])?.count == 2)
            #expect(first["next"] as? String == "b")
            let (_, second) = try await send(client, .get, "/v1/volumes?limit=2&after=b")
            #expect((second["volumes"] as? [Any])?.count == 1)
            #expect(second["next"] == nil)
            for limit in ["0", "1001", "x"] {
                #expect([400, 422].contains(try await send(client, .get, "/v1/volumes?limit=\(limit)").0))
            }
        }
    }

    @Test func otherFailuresHaveTheSameForm() async throws {
        try await application().test(.router) { client in
            let codes = [
                ("/v1/nothing", "not-found"), ("/v1/jobs/none", "no-such-job"), ("/v1/volumes/none", "no-such-volume"),
            ]
            for (path, expected) in codes {
                let (status, answer) = try await send(client, .get, path)
                #expect(status == 404 && code(answer) == expected)
            }
            #expect(try await send(client, .post, "/v1/volumes/none/move").0 == 404)
            store.state.withLockedValue { $0.failure = ControlError(.databaseUnavailable, "gone") }
            #expect(try await send(client, .get, "/v1/volumes").0 == 503)
        }
    }

    @Test func moveAndCheckTellTheirProgress() async throws {
        try await application().test(.router) { client in
            _ = try await send(client, .post, "/v1/volumes", #"{"name":"a-b","sizeBytes":4096}"#)
            peers.state.withLockedValue { $0.unmoved = 15 }
            #expect(try await send(client, .post, "/v1/volumes/a%2Db/move").1["unmovedItems"] as? Int == 15)
            #expect(try await send(client, .post, "/v1/volumes/a-b/move").1["unmovedItems"] as? Int == 5)
            let (status, reference) = try await send(client, .post, "/v1/fsck")
            #expect(status == 202)
            let job = try await ended(client, try #require(reference["job"] as? String))
            #expect(job["message"] as? String == "clean")
            #expect(job["report"] != nil)
        }
    }

    @Test func cacheServersThatCouldNotBeToldAreNamed() async throws {
        peers.state.withLockedValue { $0.untold = ["10.0.0.5:7401: connection refused"] }
        try await application().test(.router) { client in
            _ = try await send(client, .post, "/v1/volumes", #"{"name":"a","sizeBytes":4096}"#)
            let (status, volume) = try await send(client, .patch, "/v1/volumes/a", #"{"readOnly":true}"#)
            #expect(status == 200)
            #expect((volume["warning"] as? String)?.contains("10.0.0.5:7401") == true)
        }
    }
}
