import AshlarCore
import AshlarTestSupport
import NIOCore
import Testing

@testable import ObjectStore

/// The clock of the database that the objects belong to (M8).
@Suite struct ClockTests {
    @Test func M8_theHighestClockIsKeptOverARestart() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        #expect(try files.raiseClock(0) == DatabaseKnowledge(clock: 0, highestObject: ObjectID(0)))
        #expect(try files.raiseClock(41).clock == 41)
        #expect(try files.raiseClock(40).clock == 41, "it only grows")
        files.close()
        let again = try Fixtures.files(disk)
        #expect(try again.raiseClock(0).clock == 41)
        again.close()
    }

    @Test func M8_theClockOfAnyRootCounts() throws {
        let scratch = try ScratchDirectory()
        let paths = [try scratch.subdirectory("a"), try scratch.subdirectory("b")]
        let first = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([paths[0]]))
        #expect(try first.raiseClock(7).clock == 7)
        first.close()
        let both = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration(paths))
        #expect(try both.raiseClock(0).clock == 7)
        #expect(try both.raiseClock(9).clock == 9)
        both.close()
        let second = try Fixtures.files(LinuxFileSystem(), Fixtures.configuration([paths[1]]))
        #expect(try second.raiseClock(0).clock == 9)
        second.close()
    }

    @Test func M8_aDamagedClockIsWrittenAnew() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.raiseClock(41)
        files.close()
        _ = try disk.unlink("/disk/clock")
        let file = try disk.createFile("/disk/clock")
        try disk.writeAll(ByteBuffer(repeating: 1, count: 12), to: file)
        try disk.close(file)
        let again = try Fixtures.files(disk)
        #expect(try again.raiseClock(0).clock == 0)
        #expect(try again.raiseClock(5).clock == 5)
        again.close()
    }

    @Test func M8_theHighestObjectIsKnownFromTheFiles() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        for id: UInt64 in [3, 900, 17] { _ = try files.put(ObjectID(id), bytes: Fixtures.object(id)) }
        #expect(try files.raiseClock(0).highestObject == ObjectID(900))
        files.close()
        let again = try Fixtures.files(disk)
        #expect(try again.raiseClock(0).highestObject == ObjectID(900))
        // That it lay here is known even after it has gone.
        _ = try again.delete(ObjectID(900))
        #expect(try again.raiseClock(0).highestObject == ObjectID(900))
        again.close()
    }
}
