import Foundation
import Testing

@testable import PostgresStore

/// What a process leaves to the next one about the server that it has worked with (D30).
struct ServerMemoryTests {
    private func withDirectory(_ body: (ServerMemoryFile) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "ashlar-memory-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try await body(ServerMemoryFile(directory: directory.path(percentEncoded: false)))
    }

    private func server(_ timeline: UInt32 = 1, at position: UInt64 = 1_000, system: Int64 = 7) -> ServerState {
        ServerState(systemIdentifier: system, timeline: timeline, flushed: WALPosition(position))
    }

    private let memory = ServerMemory(
        systemIdentifier: -7,
        timeline: 3,
        acknowledged: WALPosition(0x16_0000_00FF)
    )

    @Test("a line is read as it was written, and nothing else is")
    func lines() {
        #expect(memory.text == "ashlar-postgresql-1 -7 3 16/FF\n")
        #expect(ServerMemory(text: memory.text) == memory)
        for text in [
            "", "\n", "ashlar-postgresql-1 -7 3 16/FF", "ashlar-postgresql-2 -7 3 16/FF\n",
            "ashlar-postgresql-1 x 3 16/FF\n",
            "ashlar-postgresql-1 -7 -3 16/FF\n", "ashlar-postgresql-1 -7 3 16FF\n", "ashlar-postgresql-1 -7 3 16/FF \n",
            "ashlar-postgresql-1 -7  3 16/FF\n",
        ] {
            #expect(ServerMemory(text: text) == nil, "\(text)")
        }
    }

    @Test("a file is replaced whole, and forgotten")
    func files() async throws {
        try await withDirectory { file in
            #expect(try file.read() == nil && file.remembered() == nil)
            try file.forget()
            try file.write(memory)
            let next = ServerMemory(systemIdentifier: 8, timeline: 4, acknowledged: WALPosition(1))
            try file.write(next)
            #expect(try file.read() == next)
            #expect(try file.remembered() == "database system 8 on timeline 4, with writes up to 0/1")
            try file.forget()
            #expect(try file.read() == nil)
        }
        let nowhere = ServerMemoryFile(directory: "/nonexistent")
        #expect(throws: PostgresError.self) { try nowhere.write(memory) }
        #expect(throws: PostgresError.self) { try nowhere.verify() }
    }

    @Test("I1: what a process has acknowledged binds the next one, until it is forgotten")
    func nextProcess() async throws {
        try await withDirectory { file in
            let first = ServerWatch(memory: file, logger: quiet)
            #expect(first.refusal(of: server(), branches: nil, allowsLoss: false) == nil)
            first.noteAcknowledged(WALPosition(1_000))
            // Also where the process is killed: within a second or so.
            try await until("it is kept") { try file.read()?.acknowledged == WALPosition(1_000) }
            let second = ServerWatch(memory: file, logger: quiet)
            let refusal = second.refusal(of: server(at: 999), branches: nil, allowsLoss: false)
            #expect(refusal?.contains("lost") == true && refusal?.contains(file.path) == true)
            #expect(second.refusal(of: server(2, at: 9_000), branches: [], allowsLoss: false) != nil)
            #expect(second.refusal(of: server(system: 8), branches: nil, allowsLoss: false) != nil)
            let branch = TimelineBranch(timeline: 1, position: WALPosition(1_000))
            #expect(second.refusal(of: server(2), branches: [branch], allowsLoss: false) == nil)
            second.noteAcknowledged(WALPosition(2_000))
            second.shutdown()
            #expect(
                try file.read()
                    == ServerMemory(systemIdentifier: 7, timeline: 2, acknowledged: WALPosition(2_000))
            )
            try file.forget()
            let third = ServerWatch(memory: file, logger: quiet)
            #expect(third.refusal(of: server(at: 999), branches: nil, allowsLoss: false) == nil)
        }
    }

    @Test("where it cannot be read what was worked with, no server is taken")
    func damage() async throws {
        try await withDirectory { file in
            let texts = [
                "", "nonsense\n", String(repeating: "x", count: PostgresStoreLimits.serverMemoryMaximumBytes + 1),
            ]
            for text in texts {
                try file.verify()
                try text.write(toFile: file.path, atomically: false, encoding: .utf8)
                #expect(throws: PostgresError.self) { try file.verify() }
                let watch = ServerWatch(memory: file, logger: quiet)
                #expect(watch.refusal(of: server(), branches: nil, allowsLoss: true)?.contains("remove it") == true)
                watch.shutdown()
                #expect(try String(contentsOfFile: file.path, encoding: .utf8) == text, "it is left as it is")
                try file.forget()
            }
        }
    }
}
