import Foundation
import PostgresStore
import Testing

@Suite("Schema gate")
struct SchemaGateTests {
    @Test("the required migrations are those in the folder")
    func requirements() throws {
        let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "migrations").path(percentEncoded: false)
        let files = try Migrations(directory: folder).all.map { "\($0.version) \($0.name)" }
        #expect(files == SchemaGate.required.map { "\($0.version) \($0.name)" })
    }
}
