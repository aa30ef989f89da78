import ArgumentParser
import ControlPlane
import Foundation

/// How a command reaches the control role.
struct ClientOptions: ParsableArguments {
    @Option(help: "Data directory of ashlar up (ASHLAR_DATA; default: ./data or /var/lib/ashlar, where it runs).")
    var data: String?

    @Option(help: "URL of the API (ASHLAR_API), as in https://10.0.0.4:7443.")
    var api: String?

    @Option(help: "PEM file with the certificate of the cluster's authority (ASHLAR_AUTHORITY).")
    var authority: String?

    @Option(help: "File with the token of the API (ASHLAR_TOKEN_FILE).")
    var tokenFile: String?

    @Flag(help: "Print JSON.")
    var json = false

    /// The parts of `state.json` that a client needs.
    private struct State: Decodable {
        var api: String?
        var token: String?
        var authority: String?
    }

    /// Flags before environment before data directory.
    ///
    /// - Throws: ``CommandFailure`` that says what is missing.
    func access(environment: [String: String] = ProcessInfo.processInfo.environment) throws -> APIAccess {
        let directory = dataDirectory(environment)
        var state = State()
        if let directory, let data = FileManager.default.contents(atPath: directory + "/state.json") {
            state = (try? JSONDecoder().decode(State.self, from: data)) ?? State()
        }
        guard let url = api ?? environment["ASHLAR_API"] ?? state.api else {
            throw CommandFailure(
                "Where the control role is, is not known; name its URL with --api, or the directory of ashlar up with --data.",
                exitCode: ExitCodes.usage
            )
        }
        guard url.hasPrefix("https://") else {
            throw CommandFailure(
                "\"\(url)\" is not a URL of the API; it begins with https://.",
                exitCode: ExitCodes.usage
            )
        }
        let authorityPath =
            authority ?? environment["ASHLAR_AUTHORITY"] ?? state.authority
            ?? directory.map { $0 + "/authority/certificate.pem" }
        guard let authorityPath else {
            throw CommandFailure(
                "The cluster's authority is not known; name it with --authority.",
                exitCode: ExitCodes.usage
            )
        }
        let candidates =
            [tokenFile ?? environment["ASHLAR_TOKEN_FILE"]].compactMap { $0 }.isEmpty
            ? [state.token, directory.map { $0 + "/token" }, directory.map { $0 + "/control/token" }].compactMap { $0 }
            : [tokenFile ?? environment["ASHLAR_TOKEN_FILE"]].compactMap { $0 }
        guard !candidates.isEmpty else {
            throw CommandFailure("The token is not known; name its file with --token-file.", exitCode: ExitCodes.usage)
        }
        for path in candidates {
            guard let data = FileManager.default.contents(atPath: path) else { continue }
            let token = String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            guard !token.isEmpty, token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else { break }
            return APIAccess(
                url: url.hasSuffix("/") ? String(url.dropLast()) : url,
                authority: authorityPath,
                token: token
            )
        }
        throw CommandFailure(
            "The token file \(candidates[0]) cannot be read or holds no token; name another with --token-file.",
            exitCode: ExitCodes.token
        )
    }

    private func dataDirectory(_ environment: [String: String]) -> String? {
        if let named = data ?? environment["ASHLAR_DATA"] { return named }
        return ["data", "/var/lib/ashlar"].first { FileManager.default.fileExists(atPath: $0 + "/state.json") }
    }

    /// Runs `body` with a client, and reports its failures.
    func run(_ command: String, _ body: (APIClient) async throws -> Void) async throws {
        try await reportingFailures(command) {
            let client = try APIClient(access())
            let result: Result<Void, any Error>
            do {
                try await body(client)
                result = .success(())
            } catch {
                result = .failure(error)
            }
            await client.shutdown()
            try result.get()
        }
    }

    /// Waits for a job, with a progress bar.
    ///
    /// - Throws: ``CommandFailure`` where the job failed.
    func wait(for job: String, title: String, _ client: APIClient) async throws -> JobDocument {
        var bar = ProgressBar(title)
        defer { bar.end() }
        while true {
            let document = try await client.job(job)
            switch document.state {
            case .running: bar.show(done: document.done, total: document.total, document.message)
            case .done: return document
            case .failed: throw CommandFailure("\(title) failed: \(document.message)")
            }
            try await Task.sleep(for: .milliseconds(200))
        }
    }
}
