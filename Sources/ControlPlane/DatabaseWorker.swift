import NIOConcurrencyHelpers
import NIOPosix
import PostgresStore

/// A connection to PostgreSQL with a thread of its own, so that no event loop ever waits for the database.
///
/// The connection is opened when it is first needed, and again after it broke.
final class DatabaseWorker: Sendable {
    /// The connection, which only the worker's thread touches.
    private final class Slot: @unchecked Sendable {
        var connection: PostgresConnection?
    }

    private let configuration: PostgresConfiguration
    private let settings: [String]
    private let pool: NIOThreadPool
    private let slot = Slot()

    /// Starts the thread.
    ///
    /// - Parameter settings: statements that are run on every new connection.
    init(_ configuration: PostgresConfiguration, settings: [String] = []) {
        self.configuration = configuration
        self.settings = settings
        pool = NIOThreadPool(numberOfThreads: 1)
        pool.start()
    }

    /// Runs `body` on the worker's thread; one after the other.
    ///
    /// - Throws: ``ControlError``.
    func run<Value: Sendable>(
        _ body: @escaping @Sendable (PostgresConnection) throws -> Value
    ) async throws -> Value {
        do {
            return try await pool.runIfActive { [self] in
                let connection = try connected()
                do {
                    return try body(connection)
                } catch let error as PostgresError where error.code == .connection {
                    drop()
                    throw error
                }
            }
        } catch let error as ControlError {
            throw error
        } catch let error as PostgresError {
            throw Self.controlError(error)
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw ControlError(.internalError, "The database was not asked: \(error).")
        }
    }

    /// Closes the connection and ends the thread.
    func shutdown() async {
        // Neither fails but for a worker that has ended already.
        try? await pool.runIfActive { [self] in drop() }
        try? await pool.shutdownGracefully()
    }

    private func drop() {
        slot.connection?.close()
        slot.connection = nil
    }

    private func connected() throws -> PostgresConnection {
        if let connection = slot.connection {
            do {
                _ = try connection.query("SELECT 1", [])
                return connection
            } catch {
                drop()
            }
        }
        let connection = try PostgresConnection(configuration)
        do {
            for setting in settings { _ = try connection.query(setting, []) }
        } catch {
            connection.close()
            throw error
        }
        slot.connection = connection
        return connection
    }

    static func controlError(_ error: PostgresError) -> ControlError {
        switch (error.sqlState, error.constraint) {
        case ("23505", "volumes_name_key"):
            return ControlError(.volumeExists, "A volume of this name exists.", remedy: "Choose another name.")
        case ("23505", "volumes_iqn_key"):
            return ControlError(.iqnExists, "A volume with this iqn exists.", remedy: "Choose another iqn.")
        case ("23514", _):
            return ControlError(
                .invalid,
                "PostgreSQL refuses a value: \(error.message).",
                remedy: "Correct the request."
            )
        case ("42P01", _), ("3F000", _):
            return ControlError(
                .databaseUnavailable,
                "The tables of Ashlar are not in this database.",
                remedy: "Create them with: ashlar migrate up."
            )
        case ("57014", _):
            return ControlError(
                .busy,
                "PostgreSQL took too long to answer.",
                remedy: "Ask for a smaller page, or try again later."
            )
        default:
            break
        }
        switch error.code {
        case .connection, .configuration, .unsuitableServer:
            return ControlError(
                .databaseUnavailable,
                "PostgreSQL cannot be used: \(error.message).",
                remedy: "See that it runs and that postgres.dsn names it."
            )
        case .statement, .result, .migration:
            return ControlError(.internalError, "PostgreSQL refuses a statement: \(error).")
        }
    }
}
