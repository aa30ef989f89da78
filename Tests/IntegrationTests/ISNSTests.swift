import AshlarTestSupport
import Foundation
import ISNS
import NIOCore
import Testing

/// A real iSNS server (Open-iSNS) with a database in memory: what it knew is gone when it is started again.
private final class ISNSServer {
    let directory: String
    let port: Int
    private var process: BackgroundProcess?

    init() throws {
        directory = try TestEnvironment.temporaryDirectory()
        port = try TestEnvironment.freePorts(1)
        let common = """
            HostName = localhost
            ServerAddress = 127.0.0.1:\(port)
            Security = 0
            ControlSocket = \(directory)/control

            """
        let server = """
            SourceName = iqn.2026-01.org.ashlar.test:isnsd
            BindAddress = 127.0.0.1:\(port)
            PIDFile = \(directory)/pid
            DefaultDiscoveryDomain = 1
            SLPRegister = 0
            RegistrationPeriod = 60s
            ESIMinInterval = 1s
            ESIMaxInterval = 2s
            ESIRetries = 3

            """
        try Data((common + server).utf8).write(to: URL(fileURLWithPath: directory + "/isnsd.conf"))
        try Data((common + "SourceName = iqn.2026-01.org.ashlar.test:admin\n").utf8)
            .write(to: URL(fileURLWithPath: directory + "/isnsadm.conf"))
    }

    func start() async throws {
        process = try BackgroundProcess("isnsd", ["--foreground", "--config", directory + "/isnsd.conf"])
        _ = try await ProcessRunner.eventually("isnsd answers") { () -> Bool? in
            (try? RawISNS(port: self.port)) != nil ? true : nil
        }
    }

    func stop() async throws {
        process?.send(SIGTERM)
        _ = try await process?.wait(timeout: .seconds(10))
        process = nil
    }

    /// What `isnsadm --list` prints: nodes, portals, portal-groups.
    func list(_ objects: String) async throws -> String {
        let arguments = ["--config", directory + "/isnsadm.conf", "--list", objects]
        return try await ProcessRunner.run("isnsadm", arguments).output
    }

    func remove() {
        process?.send(SIGKILL)
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Waits until a list holds all of some texts, and none of some others.
    func waitFor(_ objects: String, with: [String] = [], without: [String] = []) async throws {
        var last = ""
        do {
            _ = try await ProcessRunner.eventually("", timeout: .seconds(60)) { () -> Bool? in
                last = try await self.list(objects)
                return with.allSatisfy(last.contains) && !without.contains(where: last.contains) ? true : nil
            }
        } catch {
            throw ProcessFailure("isnsadm --list \(objects) without \(with) or with \(without):\n\(last)")
        }
    }
}

/// iSNSP on a blocking socket.
private final class RawISNS {
    private let descriptor: Int32
    private var decoder = ISNSMessageDecoder()

    private static func loopback(_ port: Int) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
        return address
    }

    private static func call(
        _ port: Int,
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) -> Int32 {
        var address = loopback(port)
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }

    init(descriptor: Int32) { self.descriptor = descriptor }

    /// Connects to a port of this machine.
    init(port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let own = descriptor
        guard own >= 0, Self.call(port, { connect(own, $0, $1) }) == 0 else {
            close(own)
            throw ProcessFailure("no connection to port \(port)")
        }
    }

    /// Listens on a port of this machine, and returns the descriptor.
    static func listen(port: Int) throws -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0, call(port, { bind(descriptor, $0, $1) }) == 0, Foundation.listen(descriptor, 8) == 0
        else { throw ProcessFailure("cannot listen on port \(port)") }
        return descriptor
    }

    deinit { close(descriptor) }

    func send(_ bytes: ByteBuffer) {
        let array = Array(bytes.readableBytesView)
        _ = array.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    }

    static func isReadable(_ descriptor: Int32, milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    /// The next message; nil where none comes in time, or where the peer has closed.
    func receive(milliseconds: Int32) throws -> ISNSMessage? {
        while true {
            if let message = try decoder.next() { return message }
            guard Self.isReadable(descriptor, milliseconds: milliseconds) else { return nil }
            var bytes = [UInt8](repeating: 0, count: 1 << 16)
            let count = recv(descriptor, &bytes, bytes.count, 0)
            guard count > 0 else { return nil }
            var buffer = ByteBuffer(bytes: bytes[..<count])
            decoder.feed(&buffer)
        }
    }

    /// Sends a request that must succeed.
    func request(_ message: ISNSMessage) throws {
        send(message.encoded())
        guard let response = try receive(milliseconds: 10_000), response.status == .successful else {
            throw ProcessFailure("request \(message.function.rawValue) was not answered or refused")
        }
    }
}

/// A node of another entity that wants to be told of targets, as a management station is.
private final class Watcher {
    private static let name = "iqn.2026-01.org.ashlar.test:watcher"
    private let listener: Int32
    private let connection: RawISNS
    private var notifiers: [RawISNS] = []
    private(set) var changes: [StateChangeNotification.Change] = []

    init(server: Int) throws {
        let port = try TestEnvironment.freePorts(1)
        listener = try RawISNS.listen(port: port)
        connection = try RawISNS(port: server)
        guard let portal = ISNSPortal(address: [127, 0, 0, 1], port: UInt16(port)) else {
            throw ProcessFailure("no portal")
        }
        // Node type control and initiator (RFC 4171, 6.4.2).
        let attributes: [ISNSAttribute] = [
            .text(.iscsiName, Self.name), .text(.entityIdentifier, "watcher"), .delimiter,
            .text(.entityIdentifier, "watcher"), .number(.entityProtocol, 2), .address(.portalAddress, portal),
            .port(.portalPort, portal.port), .port(.notificationPort, portal.port), .text(.iscsiName, Self.name),
            .number(.iscsiNodeType, 6),
        ]
        try connection.request(
            ISNSMessage(function: .deviceAttributeRegistration, transactionID: 1, attributes: attributes)
        )
        try connection.request(
            StateChangeRegistration(source: Self.name, events: [.targetsAndSelf, .added, .removed])
                .message(transactionID: 2)
        )
    }

    deinit { close(listener) }

    /// Waits for a notification of a name.
    func waitFor(_ events: StateChangeEvents, of name: String) async throws {
        _ = try await ProcessRunner.eventually("a notification: \(name) \(events)") { () -> Bool? in
            if RawISNS.isReadable(listener, milliseconds: 0) {
                let descriptor = accept(listener, nil, nil)
                if descriptor >= 0 { notifiers.append(RawISNS(descriptor: descriptor)) }
            }
            for notifier in notifiers {
                guard let message = try notifier.receive(milliseconds: 0) else { continue }
                let notification = try StateChangeNotification(message)
                changes += notification.changes
                let response = ISNSMessage(
                    function: message.function.response,
                    transactionID: message.transactionID,
                    status: .successful,
                    attributes: [notification.destination]
                )
                notifier.send(response.encoded())
            }
            return changes.contains { $0.name == name && !$0.events.isDisjoint(with: events) } ? true : nil
        }
    }
}

extension IntegrationTests {
    @Suite(.serialized) struct ISNSTests {
        @Test func targetsAreRegisteredWithARealServer() async throws {
            let server = try ISNSServer()
            defer { server.remove() }
            try await server.start()
            let cluster = try await TestCluster.start(extra: ["--isns-server", "127.0.0.1:\(server.port)"])
            // Both targets end in order: neither portals nor nodes are left.
            try await cluster.end { try await run($0, server) }
            try await server.waitFor("nodes", without: ["io.ashlar"])
            try await server.waitFor("portals", without: ["\(cluster.port)/tcp", "\(cluster.port + 1)/tcp"])
            try await server.stop()
        }

        private func run(_ cluster: TestCluster, _ server: ISNSServer) async throws {
            let demo = try #require(cluster.state().portals.first).iqn
            let portals = [cluster.port, cluster.port + 1].map { "\($0)/tcp" }
            try await server.waitFor("nodes", with: [demo, "node type = Target", "alias = \"demo\""])
            try await server.waitFor("portals", with: portals + ["ESI port", "SCN port"])
            try await server.waitFor("portal-groups", with: portals + ["tag = 1\n", "tag = 2\n"])

            let watcher = try Watcher(server: server.port)
            let created = try await cluster.api("POST", "/v1/volumes", "{\"name\":\"extra\",\"sizeBytes\":16777216}")
            #expect(created.status == 201, "\(created)")
            struct Volume: Decodable { var iqn: String }
            let extra = try JSONDecoder().decode(Volume.self, from: Data(created.body.utf8)).iqn
            try await server.waitFor("nodes", with: [demo, extra])
            try await watcher.waitFor(.added, of: extra)

            let deleted = try await cluster.api("DELETE", "/v1/volumes/extra")
            #expect(deleted.status == 202, "\(deleted)")
            try await server.waitFor("nodes", with: [demo], without: [extra])
            try await watcher.waitFor(.removed, of: extra)
            // By now each portal has been inquired after more often than the server waits for an answer.
            try await server.waitFor("portals", with: portals)

            // A server that has lost everything is told again.
            try await server.stop()
            try await server.start()
            try await server.waitFor("nodes", with: [demo])
            try await server.waitFor("portals", with: portals)
        }
    }
}
