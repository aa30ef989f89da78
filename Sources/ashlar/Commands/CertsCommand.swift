import ArgumentParser
import AshlarCore
import Foundation
import RPC
import Transport

/// `ashlar certs`.
struct CertsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "certs",
        abstract: "Create the cluster's authority; issue, renew and show certificates.",
        discussion: """
            The key of the authority needs to lie on no host that runs a role: issue the certificates elsewhere and copy \
            certificate, key and the authority's certificate. A role takes renewed files without a restart.
            """,
        subcommands: [CertsInitCommand.self, CertsIssueCommand.self, CertsRenewCommand.self, CertsShowCommand.self]
    )
}

/// Where the authority lies.
struct AuthorityOptions: ParsableArguments {
    @Option(help: "Directory of the authority: certificate.pem and key.pem.") var authority: String = "authority"

    var certificatePath: String { authority + "/certificate.pem" }
    var keyPath: String { authority + "/key.pem" }

    func load() throws -> CertificateAuthority {
        do {
            return try CertificateAuthority.load(certificatePath: certificatePath, keyPath: keyPath)
        } catch {
            throw CommandFailure(
                "The authority in \(authority) cannot be used (\(error.message)); create it with: ashlar certs init."
            )
        }
    }
}

/// `ashlar certs init`.
struct CertsInitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "init", abstract: "Create the authority of a cluster.")

    @OptionGroup var authority: AuthorityOptions
    @Option(help: "UUID of the cluster (a new one).") var cluster: String?
    @Option(help: "Days until it ends.") var days: Int = 3_650

    func validate() throws {
        guard (1...36_500).contains(days) else { throw ValidationError("--days is not from 1 to 36500; correct it.") }
    }

    func run() async throws {
        try await reportingFailures("certs init") {
            guard let id = ClusterID(cluster ?? UUID().uuidString) else {
                throw CommandFailure(
                    "--cluster \"\(cluster ?? "")\" is not a UUID; correct it.",
                    exitCode: ExitCodes.usage
                )
            }
            let manager = FileManager.default
            // The key is written last.
            if manager.fileExists(atPath: authority.certificatePath), !manager.fileExists(atPath: authority.keyPath) {
                throw CommandFailure(
                    "\(authority.certificatePath) exists without its key; remove it if it was left by a certs init that was "
                        + "interrupted, or name another directory with --authority."
                )
            }
            for path in [authority.certificatePath, authority.keyPath] where manager.fileExists(atPath: path) {
                throw CommandFailure("\(path) exists; name another directory with --authority, or keep what is there.")
            }
            try manager.createDirectory(
                atPath: authority.authority,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
            let made = try CertificateAuthority.create(cluster: id, now: Date(), validityDays: days)
            try made.write(certificatePath: authority.certificatePath, keyPath: authority.keyPath)
            print("cluster.id \(id)")
            print("tls.authority \(authority.certificatePath)")
        }
    }
}

/// `ashlar certs issue`.
struct CertsIssueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "issue", abstract: "Issue a certificate for a node.")

    @OptionGroup var authority: AuthorityOptions
    @Option(help: "target, cache, objects, agent or control.") var role: String
    @Option(help: "Name of the node.") var name: String
    @Option(help: "Host name or address at which others reach it; may be repeated.") var host: [String] = []
    @Option(help: "Days until it ends.") var days: Int = 365
    @Option(help: "Directory for certificate.pem and key.pem.") var out: String

    func validate() throws {
        guard (1...3_650).contains(days) else { throw ValidationError("--days is not from 1 to 3650; correct it.") }
    }

    func run() async throws {
        try await reportingFailures("certs issue") {
            let authority = try authority.load()
            let role = try ConfigArguments.role(role)
            guard let node = NodeIdentity(cluster: authority.cluster, role: role, name: name) else {
                throw CommandFailure(
                    "\"\(name)\" is not a name of a node; give 1 to 64 of letters, digits, dot, hyphen and underscore.",
                    exitCode: ExitCodes.usage
                )
            }
            let files = (certificate: out + "/certificate.pem", key: out + "/key.pem")
            // The certificate is written last: a key alone was left by an end in between, and nobody knows of it.
            if FileManager.default.fileExists(atPath: files.certificate) {
                throw CommandFailure(
                    "\(files.certificate) exists; renew it with: ashlar certs renew, or name another --out."
                )
            }
            let (addresses, names) = Self.sorted(host)
            let request = CertificateRequest(node: node, dnsNames: names, ipAddresses: addresses, validityDays: days)
            let issued = try authority.issue(request, now: Date())
            try FileManager.default.createDirectory(
                atPath: out,
                withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700]
            )
            try issued.write(certificatePath: files.certificate, keyPath: files.key)
            print("tls.certificate \(files.certificate)")
            print("tls.key \(files.key)")
        }
    }

    /// IP addresses apart from names.
    static func sorted(_ hosts: [String]) -> (addresses: [String], names: [String]) {
        let isAddress = { (host: String) in
            host.contains(":") || host.split(separator: ".").count == 4 && host.allSatisfy { $0.isNumber || $0 == "." }
        }
        return (hosts.filter(isAddress), hosts.filter { !isAddress($0) })
    }
}

/// `ashlar certs renew DIRECTORY`.
struct CertsRenewCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew",
        abstract: "Renew certificates with the same names and fresh keys."
    )

    @OptionGroup var authority: AuthorityOptions
    @Argument(help: "Directories with certificate.pem and key.pem.") var directories: [String]
    @Option(help: "Days until they end.") var days: Int = 365
    @Option(help: "Only those that end within this many days.") var within: Int?

    func run() async throws {
        try await reportingFailures("certs renew") {
            let authority = try authority.load()
            for directory in directories {
                let path = directory + "/certificate.pem"
                guard let data = FileManager.default.contents(atPath: path) else {
                    throw CommandFailure("\(path) cannot be read; name a directory that certs issue has made.")
                }
                let pem = String(decoding: data, as: UTF8.self)
                let left = try CertificateDescription(certificatePEM: pem).daysLeft(now: Date())
                if let within, left > within {
                    print("\(path) is good for \(left) days")
                    continue
                }
                let issued = try authority.renew(certificatePEM: pem, validityDays: days, now: Date())
                try issued.write(certificatePath: path, keyPath: directory + "/key.pem")
                print("\(path) renewed for \(days) days")
            }
        }
    }
}

/// `ashlar certs show FILE`.
struct CertsShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Show what certificates say.")

    @Argument(help: "PEM files.") var files: [String]
    @Flag(help: "Print JSON.") var json = false

    private struct Shown: Encodable {
        var file: String
        var node: String?
        var subject: String
        var issuer: String
        var serial: String
        var daysLeft: Int
        var hosts: [String]
        var isAuthority: Bool
    }

    func run() async throws {
        try await reportingFailures("certs show") {
            let shown = try files.map { file in
                guard let data = FileManager.default.contents(atPath: file) else {
                    throw CommandFailure("\(file) cannot be read; name a PEM file.")
                }
                let certificate = try CertificateDescription(certificatePEM: String(decoding: data, as: UTF8.self))
                return Shown(
                    file: file,
                    node: certificate.node?.uri,
                    subject: certificate.subject,
                    issuer: certificate.issuer,
                    serial: certificate.serial,
                    daysLeft: certificate.daysLeft(now: Date()),
                    hosts: certificate.dnsNames + certificate.ipAddresses,
                    isAuthority: certificate.isAuthority
                )
            }
            guard !json else { return print(try JSONText.text(shown)) }
            var table = Table(["FILE", "NODE", "DAYS LEFT", "HOSTS", "ISSUER"], right: [2])
            for row in shown {
                let node = row.node ?? (row.isAuthority ? "authority" : row.subject)
                table.add([row.file, node, "\(row.daysLeft)", row.hosts.joined(separator: ", "), row.issuer])
            }
            print(table.text, terminator: "")
        }
    }
}
