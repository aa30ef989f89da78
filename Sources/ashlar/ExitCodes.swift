import ArgumentParser
import Foundation
import Glibc

/// What the program tells its caller; the numbers from 64 on are those of sysexits.h.
enum ExitCodes {
    /// Refused or failed.
    static let failed = ExitCode(1)
    /// A check found damage.
    static let damaged = ExitCode(3)
    /// Wrong arguments.
    static let usage = ExitCode(64)
    /// The control role cannot be reached.
    static let unreachable = ExitCode(69)
    /// The token is refused.
    static let token = ExitCode(77)
    /// The configuration is refused.
    static let configuration = ExitCode(78)
}

/// A failure with the code to exit with; a sentence with the remedy.
struct CommandFailure: Error, Sendable, CustomStringConvertible {
    var description: String
    var exitCode: ExitCode

    init(_ description: String, exitCode: ExitCode = ExitCodes.failed) {
        self.description = description
        self.exitCode = exitCode
    }

    init(_ error: SettingsError) {
        self.init(error.description, exitCode: ExitCodes.configuration)
    }
}

/// Where messages for people go, so that standard output stays the answer alone.
enum StandardError {
    static func write(_ text: String) {
        FileHandle.standardError.write(Data(text.utf8))
    }

    /// Whether a person looks at it.
    static var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }
}

/// Runs a command, and turns its errors into one line on standard error and an exit code.
func reportingFailures(_ command: String, _ body: () async throws -> Void) async throws {
    do {
        try await body()
    } catch let error as ExitCode {
        throw error
    } catch let error as CommandFailure {
        StandardError.write("ashlar \(command): \(error)\n")
        throw error.exitCode
    } catch let error as SettingsError {
        StandardError.write("ashlar \(command): \(error)\n")
        throw ExitCodes.configuration
    } catch let error as ValidationError {
        StandardError.write("ashlar \(command): \(error.message)\n")
        throw ExitCodes.usage
    } catch {
        StandardError.write("ashlar \(command): \(error)\n")
        throw ExitCodes.failed
    }
}
