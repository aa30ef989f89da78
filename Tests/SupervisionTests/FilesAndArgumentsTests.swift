import Supervision
import Testing

@Suite struct PostmasterFileTests {
    private let text = """
        1234
        /data/postgres
        1700000000
        5432
        /data/run

          5432001     98309
        ready   

        """

    @Test func readsAFullFile() throws {
        let file = try #require(PostmasterFile(text))
        #expect(file.pid == 1_234)
        #expect(file.sharedMemoryID == 98_309)
        #expect(file.isReady)
    }

    @Test func readsAFileThatIsStillBeingWritten() throws {
        for count in 1..<text.utf8.count {
            guard let file = PostmasterFile(String(decoding: Array(text.utf8.prefix(count)), as: UTF8.self)) else {
                Issue.record("\(count) bytes were refused")
                continue
            }
            #expect(!file.isReady || text.utf8.count - count < 6)
        }
        #expect(PostmasterFile("") == nil)
        #expect(PostmasterFile("postgres\n") == nil)
        #expect(PostmasterFile("0\n") == nil)
        #expect(PostmasterFile("-17\n")?.pid == 17)
        #expect(PostmasterFile("17\n")?.isReady == false)
    }

    @Test func aStartingPostmasterIsNotReady() throws {
        let starting = String(text.split(separator: "ready")[0]) + "starting\n"
        #expect(try #require(PostmasterFile(starting)).isReady == false)
    }

    @Test func countsAttachments() {
        let table = """
                   key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime
               5432001      98309   600                    56  1234  1240      6   101   104   101   104 1700000000
                     0         32  1600                524288   900   900      2     0     0     0     0 1700000000
            """
        #expect(PostmasterFile.attachments(sharedMemoryID: 98_309, table: table) == 6)
        #expect(PostmasterFile.attachments(sharedMemoryID: 5_432_001, table: table) == 0)
        #expect(PostmasterFile.attachments(sharedMemoryID: 32, table: table) == 2)
        #expect(PostmasterFile.attachments(sharedMemoryID: 32, table: "") == 0)
    }

    @Test func decidesWhatToDo() throws {
        let file = try #require(PostmasterFile(text))
        #expect(file.verdict(isPostmasterAlive: true, attachments: 0) == .running)
        #expect(file.verdict(isPostmasterAlive: false, attachments: 3) == .lingering)
        #expect(file.verdict(isPostmasterAlive: false, attachments: 0) == .stale)
    }
}

@Suite struct PathAccessTests {
    private let way = [
        PathAccess.Directory(path: "/", uid: 0, gid: 0, mode: 0o755),
        PathAccess.Directory(path: "/root", uid: 0, gid: 0, mode: 0o700),
        PathAccess.Directory(path: "/root/data", uid: 0, gid: 0, mode: 0o755),
    ]

    @Test func findsTheClosedParent() {
        #expect(PathAccess.firstClosed(way, uid: 101, gid: 104)?.path == "/root")
        #expect(PathAccess.firstClosed(way, uid: 0, gid: 0) == nil)
        #expect(PathAccess.firstClosed([way[0], way[2]], uid: 101, gid: 104) == nil)
    }

    @Test func theMostParticularClassDecides() {
        let owner = PathAccess.Directory(path: "/a", uid: 101, gid: 0, mode: 0o077)
        #expect(PathAccess.firstClosed([owner], uid: 101, gid: 0) == owner)
        let group = PathAccess.Directory(path: "/a", uid: 0, gid: 104, mode: 0o701)
        #expect(PathAccess.firstClosed([group], uid: 101, gid: 104) == group)
        #expect(PathAccess.firstClosed([group], uid: 101, gid: 105) == nil)
    }

    @Test func splitsPaths() {
        #expect(PathAccess.components(of: "/") == ["/"])
        #expect(PathAccess.components(of: "/var/lib/ashlar") == ["/", "/var", "/var/lib", "/var/lib/ashlar"])
    }
}

@Suite struct VolumeArgumentTests {
    @Test func readsNamesSizesAndBlockSizes() throws {
        #expect(try VolumeArgument(parsing: "demo:1G") == VolumeArgument(name: "demo", sizeBytes: 1 << 30))
        #expect(try VolumeArgument(parsing: "a:4096") == VolumeArgument(name: "a", sizeBytes: 4_096))
        #expect(try VolumeArgument(parsing: "a:64t").sizeBytes == 64 << 40)
        #expect(try VolumeArgument(parsing: "a:1M:8192").blockSizeBytes == 8_192)
        #expect(try VolumeArgument(parsing: "a:1M:64K").blockSizeBytes == 65_536)
    }

    @Test(arguments: [
        "", "demo", ":1G", "demo:", "demo:G", "demo:0", "demo:-1", "demo:1X", "demo:1GB", "demo:1G:", "demo:1G:1000",
        "demo:1G:256", "demo:1G:128K", "demo:1G:4096:1", "demo:99999999999999999999", "demo:18446744073709551615T",
        "demo:+1G", "demo:１G",
    ])
    func refuses(_ text: String) {
        #expect(throws: VolumeArgument.Malformed.self) { try VolumeArgument(parsing: text) }
    }
}
