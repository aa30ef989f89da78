import AshlarCore
import Failpoints
import Foundation
import Logging
import Observability
import ServiceLifecycle
import UnixSignals

/// Starts a role from its settings and stops it in order.
enum RoleRunner {
    /// Loads the settings of a role, begins logging and metrics, and runs `body` until SIGTERM or SIGINT.
    static func run(
        _ role: Role,
        config: String?,
        flags: [any SettingFlags],
        _ body: @escaping @Sendable (Settings, Logger) async throws -> Void
    ) async throws {
        try await reportingFailures(role.rawValue) {
            let settings = try await load(role, config: config, flags: flags)
            LogBootstrap.start(level: settings.logLevel)
            MetricsRegistry.install()
            var logger = Logger(label: "ashlar.\(role.rawValue)")
            logger[metadataKey: "node"] = "\(settings.text("node.name"))"
            logger.info("starting", metadata: ["release": "\(AshlarRelease.version)"])
            if let armed = try ArmedFailpoint.ofThisProcess() {
                logger.critical(
                    "a failpoint is armed: this process kills itself there",
                    metadata: ["failpoint": "\(armed.point.rawValue)", "count": "\(armed.count)"]
                )
            }
            let service = RoleService { [logger] in try await body(settings, logger) }
            // The group's own messages would repeat what the role says itself.
            var quiet = logger
            quiet.logLevel = max(settings.logLevel, .warning)
            let group = ServiceGroup(
                configuration: ServiceGroupConfiguration(
                    services: [
                        ServiceGroupConfiguration.ServiceConfiguration(
                            service: service,
                            successTerminationBehavior: .gracefullyShutdownGroup,
                            serviceName: role.rawValue
                        )
                    ],
                    gracefulShutdownSignals: [.sigterm, .sigint],
                    logger: quiet
                )
            )
            try await group.run()
            logger.info("stopped")
        }
    }

    /// The settings that a role would start with.
    static func load(_ role: Role, config: String?, flags: [any SettingFlags]) async throws -> Settings {
        var given: [String: [String]] = [:]
        for group in flags { given.merge(group.flags) { first, _ in first } }
        return try await Settings.load(
            role: role,
            file: config,
            flags: given,
            environment: ProcessInfo.processInfo.environment
        )
    }
}

/// A role as a service: an orderly stop cancels it, and it then returns when everything is closed.
private struct RoleService: Service {
    let body: @Sendable () async throws -> Void

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown { try await body() }
        } catch is CancellationError {
            // Told to stop, and stopped.
        }
    }
}
