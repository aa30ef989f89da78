import AshlarCore
import AshlarTestSupport
import BlockObjects
import Foundation
import NIOCore
import Testing

@testable import ObjectStore

/// Roots that belong to somebody else.
@Suite struct IdentityTests {
    private func refusal(_ disk: ModelFileSystem, _ configuration: ObjectStoreConfiguration) -> String? {
        let before = disk.files()
        let open = disk.openCount
        let error = Fixtures.error { _ = try Fixtures.files(disk, configuration) }
        #expect(error == nil || error?.code == .refused)
        if error != nil {
            #expect(disk.files() == before, "a root that is refused is not changed")
            #expect(disk.openCount == open)
        }
        return error?.message
    }

    private func usedDisk() throws -> ModelFileSystem {
        let disk = ModelFileSystem()
        try Fixtures.files(disk).close()
        return disk
    }

    @Test func D33_aRootOfAnotherClusterIsRefused() throws {
        let disk = try usedDisk()
        let message = refusal(disk, Fixtures.configuration(cluster: "another"))
        #expect(
            message == "object root /disk belongs to cluster \(Fixtures.clusterID), not to another: "
                + "name a directory of this cluster or an empty one in objects.roots"
        )
        #expect(refusal(disk, Fixtures.configuration()) == nil)
    }

    @Test func D33_aRootOfAnotherServerIsRefused() throws {
        let message = refusal(try usedDisk(), Fixtures.configuration(server: 4))
        #expect(
            message == "object root /disk belongs to object server 3, not to 4: "
                + "set objects.id to 3, or name another directory in objects.roots"
        )
    }

    @Test func D33_aRootInUseIsRefused() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        #expect(refusal(disk, Fixtures.configuration())?.contains("in use by another object service") == true)
        files.close()
        #expect(refusal(disk, Fixtures.configuration()) == nil)
    }

    @Test func D33_aSecondServiceOnTheSameDirectoryIsRefused() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.subdirectory("root")
        let files = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path]))
        let again = Fixtures.error { _ = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path])) }
        #expect(again?.code == .refused)
        let twice = Fixtures.error { _ = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path, path])) }
        #expect(twice?.code == .refused)
        files.close()
        try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path])).close()
        let doubled = Fixtures.error {
            _ = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path, path]))
        }
        #expect(doubled?.message.contains("in use") == true)
        try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([path])).close()
    }

    @Test func D33_aRootIsTakenOnceWhoHadItHasGone() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.subdirectory("root")
        let disk = LinuxFileSystem()
        let first = try disk.openDirectory(path)
        #expect(try disk.lock(first))
        let second = try disk.openDirectory(path)
        #expect(try !disk.lock(second), "as often as it may be tried")
        // Whoever comes to try is let in by then, or a little later.
        let leaving = Thread { disk.discard(first) }
        leaving.start()
        #expect(try disk.lock(second))
        disk.discard(second)
    }

    @Test func D33_aDirectoryWithOtherThingsIsRefused() throws {
        let disk = ModelFileSystem()
        let file = try disk.createFile("/disk/letter.txt")
        disk.discard(file)
        let message = refusal(disk, Fixtures.configuration())
        #expect(message?.contains("is not empty and has no identity file") == true)
        _ = try disk.unlink("/disk/letter.txt")
        _ = try disk.createDirectory("/disk/lost+found")
        #expect(refusal(disk, Fixtures.configuration()) == nil)
    }

    @Test func D33_aRootThatLostItsIdentityIsRefused() throws {
        let disk = try usedDisk()
        _ = try disk.unlink("/disk/identity")
        #expect(refusal(disk, Fixtures.configuration())?.contains("restore the file 'identity'") == true)
    }

    @Test func D33_aDiskThatIsNotMountedIsNotTakenForANewOne() throws {
        let disk = ModelFileSystem()
        var configuration = Fixtures.configuration()
        configuration.initializesEmptyRoots = false
        #expect(refusal(disk, configuration)?.contains("mount its disk") == true)
        #expect(refusal(disk, Fixtures.configuration(["/missing"]))?.contains("does not exist") == true)
    }

    @Test func D33_aCopyOfARootIsRefused() throws {
        let disk = ModelFileSystem(directories: ["a", "b"])
        try Fixtures.files(disk, Fixtures.configuration(["/a"])).close()
        try Fixtures.files(disk, Fixtures.configuration(["/b"])).close()
        var identity: [UInt8] = []
        disk.change("/a/identity") { identity = $0 }
        disk.change("/b/identity") { $0 = identity }
        let message = refusal(disk, Fixtures.configuration(["/a", "/b"]))
        #expect(message == "object root /b is a copy of /a: leave one of them out of objects.roots")
    }

    @Test func everyDamageToAnIdentityIsDetected() throws {
        let disk = try usedDisk()
        var original: [UInt8] = []
        disk.change("/disk/identity") { original = $0 }
        for index in original.indices {
            disk.change("/disk/identity") { $0[index] ^= 0x10 }
            #expect(refusal(disk, Fixtures.configuration()) != nil, "byte \(index)")
            disk.change("/disk/identity") { $0 = Array(original[..<index]) }
            #expect(refusal(disk, Fixtures.configuration())?.contains("damaged") == true, "length \(index)")
            disk.change("/disk/identity") { $0 = original }
        }
        #expect(refusal(disk, Fixtures.configuration()) == nil)
    }

    @Test func theIdentityFileIsAsDocumented() throws {
        let identity = RootIdentity(
            clusterID: "c-1",
            serverID: ObjectServerID(7),
            uuid: Array(0..<16),
            directoryBits: 5
        )
        let text = String(buffer: identity.encoded())
        let lines = text.split(separator: "\n").map(String.init)
        #expect(
            lines.dropLast() == [
                "ashlar object root", "format: 1", "cluster: c-1", "server: 7",
                "root: 000102030405060708090a0b0c0d0e0f", "directory-bits: 5",
            ]
        )
        #expect(lines.last?.hasPrefix("checksum: ") == true)
        #expect(try RootIdentity(decoding: identity.encoded(), path: "/x") == identity)
    }

    @Test func anotherFormatIsRefused() throws {
        let head = "ashlar object root\nformat: 2\n"
        var copy = head
        let checksum = copy.withUTF8 { Checksum(of: UnsafeRawBufferPointer($0)) }
        let text = head + "checksum: \(Hexadecimal.text(UInt64(checksum.rawValue), digits: 8))\n"
        let error = Fixtures.error { _ = try RootIdentity(decoding: ByteBuffer(string: text), path: "/x") }
        #expect(error?.message.contains("format 2") == true)
    }

    @Test func rootsKeepTheirDirectoriesWhenTheDefaultChanges() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        files.close()
        var configuration = Fixtures.configuration()
        configuration.directoryBits = 3
        let again = try Fixtures.files(disk, configuration)
        #expect(try again.verify(ObjectID(1)).copies == 1)
    }

    @Test func configurationsThatCannotBeAreRefused() throws {
        func code(_ change: (inout ObjectStoreConfiguration) -> Void) -> ObjectStoreError.Code? {
            var configuration = Fixtures.configuration()
            change(&configuration)
            return Fixtures.code { _ = try Fixtures.files(ModelFileSystem(), configuration) }
        }
        #expect(code { _ in } == nil)
        #expect(code { $0.roots = [] } == .invalid)
        #expect(code { $0.roots[0].weight = 0 } == .invalid)
        #expect(code { $0.roots[0].weight = 1_000_001 } == .invalid)
        #expect(code { $0.roots[0].path = "" } == .invalid)
        #expect(code { $0.clusterID = "" } == .invalid)
        #expect(code { $0.clusterID = "a\nserver: 4" } == .invalid)
        #expect(code { $0.directoryBits = 0 } == .invalid)
        #expect(code { $0.directoryBits = 9 } == .invalid)
        #expect(code { $0.readThreads = 0 } == .invalid)
        #expect(code { $0.writeThreads = 257 } == .invalid)
        #expect(try ObjectStoreConfiguration.Root(parsing: "/srv/a") == .init(path: "/srv/a", weight: 100))
        #expect(try ObjectStoreConfiguration.Root(parsing: "/srv/a=7") == .init(path: "/srv/a", weight: 7))
        #expect(Fixtures.code { _ = try ObjectStoreConfiguration.Root(parsing: "/srv/a=x") } == .invalid)
        #expect(Fixtures.code { _ = try ObjectStoreConfiguration.Root(parsing: "=4") } == .invalid)
    }
}
