import PostgresStore

/// A store whose reads are one transaction with one snapshot, so that the tables agree with each other although they are being written.
protocol SnapshotStore: Sendable {
    /// The connection of the snapshot, which does nothing else for as long as it lasts.
    var worker: DatabaseWorker { get }
}

extension SnapshotStore {
    /// Runs `body` with a snapshot for all that ``worker`` reads meanwhile; one at a time.
    ///
    /// - Throws: What `body` throws, or ``ControlError``.
    func inSnapshot<Value>(_ body: () async throws -> Value) async throws -> Value {
        try await worker.run { connection in
            _ = try connection.query("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", [])
            // Before the snapshot is taken: TRUNCATE would take bytes from under it.
            _ = try connection.query("LOCK TABLE block_journal IN ACCESS SHARE MODE", [])
        }
        let value: Value
        do {
            value = try await body()
        } catch {
            // The first error is the one to tell; the connection's end ends the snapshot as well.
            try? await endSnapshot()
            throw error
        }
        try await endSnapshot()
        return value
    }

    private func endSnapshot() async throws {
        try await worker.run { connection in _ = try connection.query("ROLLBACK", []) }
    }
}
