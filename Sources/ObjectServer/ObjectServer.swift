import AshlarCore
public import Logging

/// Runs an object server until its task is cancelled; then answers what is due, closes everything in order, and
/// returns.
///
/// - Throws: ``ObjectServerError`` for a configuration that cannot be used, `TransportError` for certificate and
///   address, `ObjectStoreError` for the object roots.
public func runObjectServer(_ configuration: ObjectServerConfiguration, logger: Logger) async throws {
    let server = try await ObjectServerService.start(configuration, logger: logger)
    logger.info(
        "ready",
        metadata: [
            "node": "\(configuration.node.name)", "endpoint": "\(server.endpoint)",
            "server": "\(configuration.serverID)",
        ]
    )
    await cancellation()
    logger.info("stopping", metadata: ["node": "\(configuration.node.name)"])
    // A task of its own: the stop must not be cut short by the cancellation that asked for it.
    await Task { await server.stop() }.value
}

/// Waits until the task is cancelled.
private func cancellation() async {
    let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
    for await _ in stream {}
    continuation.finish()
}
