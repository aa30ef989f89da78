import AshlarCore
import AshlarTestSupport
import BlockObjects
import CLinux
import Failpoints
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import ObjectStore

/// Disks that are full or fail.
@Suite struct FaultTests {
    @Test(arguments: [ENOSPC, EDQUOT], [ModelFileSystem.Call.Kind.createFile, .write, .link])
    func D12_aFullDiskIsACleanError(number: Int32, kind: ModelFileSystem.Call.Kind) throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        let before = disk.files()
        disk.fail(kind, number)
        let error = Fixtures.error { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) }
        #expect(error?.code == .noSpace)
        #expect(error?.systemError == number)
        disk.setFault(nil)
        #expect(disk.files() == before, "the temporary file is gone")
        #expect(files.statistics().roots[0].failure == nil)
        #expect(try files.put(ObjectID(1), bytes: Fixtures.object(1)) == .stored)
    }

    @Test(arguments: [
        ModelFileSystem.Call.Kind.openDirectory, .createFile, .write, .close, .link,
    ])
    func D12_aDiskErrorBeforeTheNameIsACleanError(kind: ModelFileSystem.Call.Kind) throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        disk.fail(kind, EIO)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) } == .inputOutput)
        disk.setFault(nil)
        #expect(Fixtures.code { _ = try files.header(ObjectID(1)) } == .notFound)
        #expect(disk.files().allSatisfy { !$0.hasSuffix(".temporary") })
        #expect(try files.put(ObjectID(1), bytes: Fixtures.object(1)) == .stored)
    }

    @Test(arguments: [EIO, ENOSPC, EDQUOT], [ModelFileSystem.Call.Kind.syncFile, .syncDirectory])
    func D12_aFailedSyncTakesTheRootOutOfService(number: Int32, kind: ModelFileSystem.Call.Kind) throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        disk.forgetCalls()
        disk.fail(kind, number)
        let error = Fixtures.error { _ = try files.put(ObjectID(2), bytes: Fixtures.object(2)) }
        #expect(error?.systemError == number)
        let failed = try #require(disk.calls.last { $0.kind == kind })
        #expect(disk.calls.filter { $0.kind == kind && $0.descriptor == failed.descriptor }.count == 1)
        disk.setFault(nil)
        disk.forgetCalls()
        // The disk says yes again, which is no reason to believe it.
        #expect(Fixtures.code { _ = try files.put(ObjectID(3), bytes: Fixtures.object(3)) } == .rootOutOfService)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) } == .rootOutOfService)
        #expect(Fixtures.code { _ = try files.delete(ObjectID(1)) } == .rootOutOfService)
        #expect(disk.calls.allSatisfy { $0.kind != .syncFile && $0.kind != .syncDirectory && $0.kind != .write })
        #expect(try files.delete(ObjectID(77)) == false)
        #expect(try files.get(ObjectID(1), selection: .all).slots.count == 3)
        #expect(try files.verify(ObjectID(1)).copies == 1)
        #expect(files.statistics().roots[0].failure != nil)
        #expect(files.statistics().freeBytes == 0)
        files.close()
        let again = try Fixtures.files(disk)
        #expect(again.statistics().roots[0].failure == nil, "a restart begins anew")
    }

    @Test func D12_aFailedSyncOfADeleteTakesTheRootOutOfService() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        disk.fail(.syncDirectory, EIO)
        #expect(Fixtures.code { _ = try files.delete(ObjectID(1)) } == .inputOutput)
        disk.setFault(nil)
        #expect(Fixtures.code { _ = try files.put(ObjectID(2), bytes: Fixtures.object(2)) } == .rootOutOfService)
    }

    @Test func D12_aFailedSyncAtTheStartIsAnError() {
        for kind in [ModelFileSystem.Call.Kind.syncFile, .syncDirectory] {
            let disk = ModelFileSystem()
            disk.fail(kind, EIO)
            #expect(Fixtures.code { _ = try Fixtures.files(disk) } == .inputOutput)
            disk.setFault(nil)
            #expect(disk.openCount == 0)
            #expect(Fixtures.code { _ = try Fixtures.files(disk) } == nil)
        }
    }

    /// A sync that succeeds while another one failed may be about what the failed one lost.
    @Test func D12_aPutIsNotAcknowledgedOnARootThatFailedMeanwhile() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        let box = NIOLockedValueBox<ObjectFiles?>(files)
        let isInner = NIOLockedValueBox(false)
        let inner = NIOLockedValueBox<ObjectStoreError.Code?>(nil)
        let slow = HookedFileSystem(disk) { failpoint in
            // Behind the link of the first put a second one fails to sync, before the first syncs its directory.
            guard failpoint == .putTemporaryRemoved, !isInner.withLockedValue({ $0 }) else { return }
            isInner.withLockedValue { $0 = true }
            disk.fail(.syncFile, EIO)
            let code = Fixtures.code {
                _ = try box.withLockedValue { $0 }?.put(ObjectID(2), bytes: Fixtures.object(2))
            }
            inner.withLockedValue { $0 = code }
            disk.setFault(nil)
        }
        files.close()
        let hooked = try Fixtures.files(slow)
        box.withLockedValue { $0 = hooked }
        #expect(Fixtures.code { _ = try hooked.put(ObjectID(1), bytes: Fixtures.object(1)) } == .rootOutOfService)
        #expect(inner.withLockedValue { $0 } == .inputOutput)
    }

    /// Names that an earlier process did not get synced may be in the page cache only: the answer to an identical put rests on
    /// a file and a name that this put has synced.
    @Test func D12_anIdenticalPutSyncsItsOwnFile() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        disk.fail(.syncDirectory, EIO)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) } == .inputOutput)
        disk.restartProcess()
        let again = try Fixtures.files(disk)
        disk.forgetCalls()
        #expect(try again.put(ObjectID(1), bytes: Fixtures.object(1)) == .alreadyStored)
        let steps = disk.calls.map(\.kind).filter { [.createFile, .syncFile, .rename, .syncDirectory].contains($0) }
        #expect(steps == [.createFile, .syncFile, .rename, .syncDirectory])
        disk.restartMachine(seed: 1)
        #expect(try Fixtures.files(disk).verify(ObjectID(1)).slots == 3)
    }

    /// A directory that is gone must not be taken for an object that is gone.
    @Test(arguments: [ENOENT, EEXIST], [ModelFileSystem.Call.Kind.openDirectory, .createFile])
    func aMissingDirectoryIsNoMissingObject(number: Int32, kind: ModelFileSystem.Call.Kind) throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        disk.fail(kind, number)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) } == .inputOutput)
        if kind == .openDirectory { #expect(Fixtures.code { _ = try files.delete(ObjectID(1)) } == .inputOutput) }
    }

    @Test func aReadErrorIsACleanError() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        for kind in [ModelFileSystem.Call.Kind.openFile, .read] {
            disk.fail(kind, EIO)
            #expect(Fixtures.code { _ = try files.get(ObjectID(1), selection: .all) } == .inputOutput)
            #expect(Fixtures.code { _ = try files.verify(ObjectID(1)) } == .inputOutput)
        }
        disk.fail(.openFile, EMFILE)
        #expect(Fixtures.code { _ = try files.get(ObjectID(1), selection: .all) } == .busy)
        disk.fail(.names, EIO)
        #expect(Fixtures.code { _ = try files.list(after: nil, limit: 10) } == .inputOutput)
        disk.setFault(nil)
        #expect(try files.get(ObjectID(1), selection: .all).slots.count == 3)
    }

    /// No operation leaves a descriptor open, whichever call of it fails.
    @Test func I10_descriptorsAreClosedOnEveryPath() throws {
        for number in 0..<40 {
            let disk = ModelFileSystem()
            let files = try Fixtures.files(disk)
            _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
            let open = disk.openCount
            disk.forgetCalls()
            disk.setFault { call, count in count == number && call.kind != .failpoint ? EIO : nil }
            _ = Fixtures.code { _ = try files.put(ObjectID(2), bytes: Fixtures.object(2)) }
            _ = Fixtures.code { _ = try files.get(ObjectID(1), selection: .all) }
            _ = Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1)) }
            _ = Fixtures.code { _ = try files.verify(ObjectID(1)) }
            _ = Fixtures.code { _ = try files.delete(ObjectID(1)) }
            // A close that fails has closed all the same on Linux; the model keeps the descriptor.
            let failedCloses = disk.calls.enumerated().filter { $0.offset == number && $0.element.kind == .close }.count
            #expect(disk.openCount == open + failedCloses, "call \(number)")
        }
    }

    // MARK: Several roots

    @Test func D12_anotherRootTakesOverWhatAFailedOneDoesNot() throws {
        let disk = ModelFileSystem(directories: ["a", "b"])
        let files = try Fixtures.files(disk, Fixtures.configuration(["/a", "/b"]))
        for id in 1...20 as ClosedRange<UInt64> {
            _ = try files.put(ObjectID(id), bytes: Fixtures.object(id))
        }
        disk.setFault { call, _ in call.kind == .syncFile && call.path.hasPrefix("/a/") ? EIO : nil }
        var failures = 0
        for id in 21...60 as ClosedRange<UInt64> {
            // The caller repeats what failed; the second time the other root gets it.
            if Fixtures.code({ _ = try files.put(ObjectID(id), bytes: Fixtures.object(id)) }) != nil {
                failures += 1
                _ = try files.put(ObjectID(id), bytes: Fixtures.object(id))
            }
        }
        #expect(failures == 1)
        for id in 1...60 as ClosedRange<UInt64> {
            #expect(try files.get(ObjectID(id), selection: .all).slots.count == 3)
        }
        let statistics = files.statistics()
        #expect(statistics.roots.map { $0.failure != nil } == [true, false])
        #expect(statistics.objects == 60)
        #expect(Fixtures.code { _ = try files.put(ObjectID(1), bytes: Fixtures.object(1, variant: 1)) } == .exists)
    }

    @Test func aFullRootPassesOnToAnother() throws {
        let disk = ModelFileSystem(directories: ["a", "b"])
        let files = try Fixtures.files(disk, Fixtures.configuration(["/a", "/b"]))
        disk.setFault { call, _ in call.kind == .write && call.path.hasPrefix("/a/") ? ENOSPC : nil }
        for id in 1...20 as ClosedRange<UInt64> {
            #expect(try files.put(ObjectID(id), bytes: Fixtures.object(id)) == .stored)
        }
        disk.fail(.write, ENOSPC)
        #expect(Fixtures.code { _ = try files.put(ObjectID(21), bytes: Fixtures.object(21)) } == .noSpace)
        #expect(files.statistics().roots.map(\.objects) == [0, 20])
    }

    @Test func aCopyInAnotherRootIsServedWhereOneCannotBeRead() throws {
        let disk = ModelFileSystem(directories: ["a", "b"])
        for path in ["/a", "/b"] {
            let single = try Fixtures.files(disk, Fixtures.configuration([path]))
            _ = try single.put(ObjectID(1), bytes: Fixtures.object(1))
            single.close()
        }
        let files = try Fixtures.files(disk, Fixtures.configuration(["/a", "/b"]))
        #expect(try files.verify(ObjectID(1)).copies == 2)
        #expect(try files.list(after: nil, limit: 10).ids == [ObjectID(1)])
        for path in ["/a/", "/b/"] {
            disk.setFault { call, _ in call.kind == .read && call.path.hasPrefix(path) ? EIO : nil }
            #expect(try files.get(ObjectID(1), selection: .all).slots.count == 3)
        }
        disk.setFault(nil)
        #expect(try files.put(ObjectID(1), bytes: Fixtures.object(1)) == .alreadyStored)
        #expect(try files.delete(ObjectID(1)))
        #expect(Fixtures.code { _ = try files.get(ObjectID(1), selection: .all) } == .notFound)
        #expect(files.statistics().objects == 0)
    }
}
