import AgentPlanning
import AshlarCore
public import Logging

/// Runs an agent until its task is cancelled; then finishes the maps of objects that are being put, and returns.
///
/// - Throws: ``AgentError`` for a configuration that cannot be used, `TransportError` where the certificate cannot be
///   loaded.
public func runAgent(_ configuration: AgentConfiguration, logger: Logger) async throws {
    let agent = try await AgentService.start(configuration, logger: logger)
    logger.info(
        "ready",
        metadata: [
            "node": "\(configuration.node.name)",
            "caches": "\(configuration.cacheEndpoints.joined(separator: " "))",
            "objects": "\(configuration.objectServers.values.sorted().joined(separator: " "))",
        ]
    )
    await cancellation()
    logger.info("stopping", metadata: ["node": "\(configuration.node.name)"])
    // A task of its own: the stop must not be cut short by the cancellation that asked for it.
    await Task { await agent.stop() }.value
}

/// Waits until the task is cancelled.
private func cancellation() async {
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    for await _ in stream {}
    continuation.finish()
}
