import AshlarTestSupport
import Foundation
import NIOConcurrencyHelpers

/// A PostgreSQL server as an operator would have it elsewhere: reached by TCP with TLS and a password.
final class ExternalPostgres: Sendable {
    let port: Int
    /// Holds the server's certificate authority, the password file, and the data.
    let directory: String
    private let binaries: String
    private let process = NIOLockedValueBox<BackgroundProcess?>(nil)

    static let password = "not-in-any-log-4711"

    var passwordFile: String { directory + "/password" }
    var authority: String { directory + "/authority.pem" }
    private var cluster: String { directory + "/cluster" }

    /// A connection string that needs no password: through the socket, which only the server's user and root can reach.
    func localDSN(user: String = "ashlar") -> String {
        "host=\(cluster) port=\(port) dbname=ashlar user=\(user)"
    }

    /// A connection string that checks the server's certificate and its name; the password is not in it.
    var dsn: String {
        "host=127.0.0.1 port=\(port) dbname=ashlar user=ashlar sslmode=verify-full sslrootcert=\(authority)"
    }

    private init(port: Int, directory: String, binaries: String) {
        self.port = port
        self.directory = directory
        self.binaries = binaries
    }

    /// Creates and starts a server.
    static func start() async throws -> ExternalPostgres {
        let versions = (try? FileManager.default.contentsOfDirectory(atPath: "/usr/lib/postgresql")) ?? []
        let newest = versions.compactMap { Int($0) }.max()
        let server = ExternalPostgres(
            port: try TestEnvironment.freePorts(1),
            directory: try TestEnvironment.temporaryDirectory(),
            binaries: newest.map { "/usr/lib/postgresql/\($0)/bin" } ?? "/usr/local/pgsql/bin"
        )
        do {
            try await server.prepare()
        } catch {
            let log = server.process.withLockedValue { $0?.errors ?? "" }
            await server.stop()
            throw ProcessFailure("\(error)\n\(log)")
        }
        return server
    }

    /// Stops the server and removes its data.
    func stop() async {
        if let postmaster = process.withLockedValue({ $0 }) {
            postmaster.send(SIGINT)
            _ = try? await postmaster.wait(timeout: .seconds(30))
        }
        try? FileManager.default.removeItem(atPath: directory)
    }

    private func prepare() async throws {
        try await create()
        // Not by pg_ctl: what it leaves running would hold on to what tells of its own end.
        let command = asServer(binaries + "/postgres", ["-D", cluster])
        let postmaster = try BackgroundProcess(command.program, command.arguments, directory: "/")
        process.withLockedValue { $0 = postmaster }
        _ = try await ProcessRunner.eventually("PostgreSQL accepts connections") { () -> Bool? in
            guard postmaster.isRunning else { throw ProcessFailure("PostgreSQL ended: \(postmaster.errors)") }
            let answer = try await ProcessRunner.run(
                self.binaries + "/pg_isready",
                ["-q", "-h", self.cluster, "-p", String(self.port)]
            )
            return answer.isSuccess ? true : nil
        }
        try await runAsServer(
            binaries + "/psql",
            [
                "-X", "-q", "-h", cluster, "-p", String(port), "-d", "postgres", "-U", "postgres", "-c",
                "CREATE ROLE ashlar LOGIN CREATEROLE PASSWORD '\(Self.password)'", "-c",
                "CREATE DATABASE ashlar OWNER ashlar",
            ]
        )
    }

    private func create() async throws {
        try Data((Self.password + "\n").utf8).write(to: URL(fileURLWithPath: passwordFile))
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: passwordFile)
        if getuid() == 0 { try FileManager.default.setAttributes([.posixPermissions: 0o777], ofItemAtPath: directory) }
        try await runAsServer(
            binaries + "/initdb",
            ["-D", cluster, "-U", "postgres", "--data-checksums", "-E", "UTF8", "--no-locale", "-A", "peer", "-N"]
        )
        if getuid() == 0 { try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: directory) }
        try await certificates()
        let settings = """

            listen_addresses = '127.0.0.1'
            port = \(port)
            unix_socket_directories = '\(cluster)'
            ssl = on
            ssl_cert_file = 'server.pem'
            ssl_key_file = 'server.key'
            password_encryption = 'scram-sha-256'
            shared_buffers = 32MB
            jit = off

            """
        let rules = """
            local   all all                     trust
            hostssl all all 127.0.0.1/32        scram-sha-256

            """
        try await write(settings, to: "postgresql.conf", appending: true)
        try await write(rules, to: "pg_hba.conf", appending: false)
    }

    /// An authority and a certificate for 127.0.0.1.
    private func certificates() async throws {
        try await ProcessRunner.check(
            "openssl",
            [
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                "/CN=test authority", "-keyout", directory + "/authority.key", "-out", authority,
            ]
        )
        try await ProcessRunner.check(
            "openssl",
            [
                "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                "/CN=127.0.0.1",
                "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", directory + "/server.key", "-out",
                directory + "/server.csr",
            ]
        )
        try await ProcessRunner.check(
            "openssl",
            [
                "x509", "-req", "-in", directory + "/server.csr", "-CA", authority, "-CAkey",
                directory + "/authority.key",
                "-CAcreateserial", "-days", "2", "-copy_extensions", "copy", "-out", directory + "/server.pem",
            ]
        )
        for name in ["server.pem", "server.key"] {
            let text = String(
                decoding: FileManager.default.contents(atPath: "\(directory)/\(name)") ?? Data(),
                as: UTF8.self
            )
            try await write(text, to: name, appending: false)
        }
    }

    private func write(_ text: String, to name: String, appending: Bool) async throws {
        let script = "umask 077; printf '%s' \"$1\" \(appending ? ">>" : ">") \"$2\""
        try await runAsServer("/bin/sh", ["-c", script, "sh", text, "\(cluster)/\(name)"])
    }

    /// PostgreSQL refuses to run as root.
    private func asServer(_ program: String, _ arguments: [String]) -> (program: String, arguments: [String]) {
        guard getuid() == 0 else { return (program, arguments) }
        return (
            "setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", program] + arguments
        )
    }

    private func runAsServer(_ program: String, _ arguments: [String]) async throws {
        let command = asServer(program, arguments)
        try await ProcessRunner.check(command.program, command.arguments, directory: "/")
    }
}
