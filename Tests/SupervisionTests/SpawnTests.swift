import CLinux
import Foundation
import Testing

/// What a child process gets of its parent.
@Suite struct SpawnTests {
    /// A socket that a child keeps open is not closed when its parent closes it: the peer waits for ever.
    @Test func aChildHasNoDescriptorButTheThreeThatItIsGiven() throws {
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        var pipes: [Int32] = [-1, -1]
        try #require(pipe(&pipes) == 0)
        defer { for descriptor in ends + [pipes[0]] { close(descriptor) } }
        let arguments: [UnsafeMutablePointer<CChar>?] = [strdup("sleep"), strdup("600"), nil]
        defer { for argument in arguments { free(argument) } }
        let pid = ashlar_spawn("/bin/sleep", arguments, [nil], nil, pipes[1], -1, -1, -1, SIGKILL)
        close(pipes[1])
        #expect(pid > 0)
        defer {
            kill(pid, SIGKILL)
            var status: Int32 = 0
            waitpid(pid, &status, 0)
        }
        let open = try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").sorted()
        #expect(open == ["0", "1", "2"])
    }
}
