import AshlarCore
import AshlarTestSupport
import BlockObjects
import Failpoints
import NIOConcurrencyHelpers
import NIOCore
import Testing

@testable import ObjectStore

/// The machine stops at every call and every named point; what a restart finds must be whole.
@Suite struct CrashTests {
    /// What was acknowledged to the caller, and what was only tried.
    private struct Ledger {
        var stored: Set<UInt64> = []
        var deleted: Set<UInt64> = []
        var uncertain: Set<UInt64> = []
        var clock: UInt64 = 0
    }

    private static func storing(_ id: UInt64, _ files: ObjectFiles, _ ledger: inout Ledger) throws {
        let isNew = !ledger.stored.contains(id)
        if isNew { ledger.uncertain.insert(id) }
        ledger.deleted.remove(id)
        _ = try files.put(ObjectID(id), bytes: Fixtures.object(id))
        ledger.uncertain.remove(id)
        ledger.stored.insert(id)
    }

    private static func deleting(_ id: UInt64, _ files: ObjectFiles, _ ledger: inout Ledger) throws {
        ledger.stored.remove(id)
        ledger.uncertain.insert(id)
        _ = try files.delete(ObjectID(id))
        ledger.uncertain.remove(id)
        ledger.deleted.insert(id)
    }

    /// Opens the store and does every kind of durable thing.
    private static func scenario(_ disk: ModelFileSystem, _ ledger: inout Ledger) throws {
        let files = try Fixtures.files(disk)
        try storing(1, files, &ledger)
        try storing(2, files, &ledger)
        try deleting(1, files, &ledger)
        try storing(2, files, &ledger)
        try storing(3, files, &ledger)
        try deleting(9, files, &ledger)
        ledger.clock = try files.raiseClock(7).clock
        files.close()
    }

    private static func check(_ disk: ModelFileSystem, _ ledger: Ledger, _ place: String) throws {
        let files = try Fixtures.files(disk)
        defer { files.close() }
        for id in ledger.stored {
            let found = try files.get(ObjectID(id), selection: .all)
            #expect(found.slots.map(\.bytes) == (0..<3).map { Fixtures.block(id, $0) }, "\(place): object \(id)")
            #expect(try files.verify(ObjectID(id)).slots == 3, "\(place): object \(id)")
        }
        for id in ledger.deleted {
            #expect(Fixtures.code { _ = try files.header(ObjectID(id)) } == .notFound, "\(place): object \(id)")
        }
        for id in ledger.uncertain {
            // Whole or not there at all.
            let code = Fixtures.code { _ = try files.verify(ObjectID(id)) }
            #expect(code == nil || code == .notFound, "\(place): object \(id)")
        }
        let listed = Set(try files.list(after: nil, limit: 100).ids.map(\.rawValue))
        #expect(listed.isSuperset(of: ledger.stored), "\(place)")
        #expect(listed.isSubset(of: ledger.stored.union(ledger.uncertain)), "\(place)")
        let clock = try files.raiseClock(0).clock
        #expect(clock == ledger.clock || clock == 7, "\(place)")
        let statistics = files.statistics()
        #expect(statistics.objects == UInt64(listed.count), "\(place)")
        #expect(statistics.roots[0].damagedObjects == 0, "\(place)")
        #expect(disk.files().allSatisfy { !$0.hasSuffix(".temporary") }, "\(place)")
        // The caller tries again what it has no answer to.
        for id in ledger.uncertain {
            _ = try files.put(ObjectID(id), bytes: Fixtures.object(id))
            #expect(try files.get(ObjectID(id), selection: .all).slots.count == 3, "\(place)")
        }
    }

    @Test(arguments: 1...6 as ClosedRange<UInt64>)
    func D11_aCrashAtAnyCallTearsNothing(seed: UInt64) throws {
        var isDone = false
        var stop = 0
        while !isDone {
            for isMachine in [false, true] {
                let disk = ModelFileSystem()
                let number = stop
                disk.setFault { _, count in count == number ? ModelFileSystem.crash : nil }
                var ledger = Ledger()
                let code = Fixtures.code { try Self.scenario(disk, &ledger) }
                isDone = !disk.isCrashed
                #expect(code == nil || disk.isCrashed)
                if isMachine { disk.restartMachine(seed: seed) } else { disk.restartProcess() }
                try Self.check(disk, ledger, "seed \(seed), call \(stop), machine \(isMachine)")
            }
            stop += 1
        }
        #expect(stop > 60)
    }

    @Test(arguments: Failpoint.allCases.filter { $0.process == "objects" })
    func D11_aCrashAtAFailpointTearsNothing(failpoint: Failpoint) throws {
        for seed in 0..<20 as Range<UInt64> {
            let disk = ModelFileSystem()
            disk.setFault { call, _ in call.failpoint == failpoint ? ModelFileSystem.crash : nil }
            var ledger = Ledger()
            _ = Fixtures.code { try Self.scenario(disk, &ledger) }
            #expect(disk.isCrashed, "no step reaches \(failpoint)")
            disk.restartMachine(seed: seed)
            try Self.check(disk, ledger, "seed \(seed), \(failpoint)")
        }
    }

    @Test(arguments: 1...40 as ClosedRange<UInt64>)
    func D11_crashesInARowTearNothing(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let disk = ModelFileSystem()
        var ledger = Ledger()
        for round in 0..<12 {
            let number = Int.random(in: 0..<90, using: &generator)
            disk.setFault { _, count in count == number ? ModelFileSystem.crash : nil }
            _ = Fixtures.code {
                let files = try Fixtures.files(disk)
                for _ in 0..<6 {
                    let id = UInt64.random(in: 1...5, using: &generator)
                    if Bool.random(using: &generator) {
                        try Self.storing(id, files, &ledger)
                    } else {
                        try Self.deleting(id, files, &ledger)
                    }
                }
            }
            if Bool.random(using: &generator) {
                disk.restartMachine(seed: generator.next())
            } else {
                disk.restartProcess()
            }
            try Self.check(disk, ledger, "seed \(seed), round \(round)")
            ledger.stored.formUnion(ledger.uncertain)
            ledger.deleted.subtract(ledger.uncertain)
            ledger.uncertain = []
        }
    }

    /// A model that could not tear would prove nothing: a store that does not sync must be caught.
    @Test func theModelTearsWhatIsNotSynced() throws {
        var torn = 0
        for seed in 0..<30 as Range<UInt64> {
            let disk = ModelFileSystem()
            var configuration = Fixtures.configuration()
            configuration.isSynchronous = false
            // The identity and the directories are synced by an honest start.
            try Fixtures.files(disk).close()
            disk.restartMachine(seed: seed)
            let files = try Fixtures.files(disk, configuration)
            _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
            disk.restartMachine(seed: seed)
            let code = Fixtures.code { _ = try Fixtures.files(disk).verify(ObjectID(1)) }
            if code != nil { torn += 1 }
        }
        #expect(torn > 10)
    }

    @Test func D11_anEmptiedFileIsReportedAndNeverServed() throws {
        let disk = ModelFileSystem()
        let files = try Fixtures.files(disk)
        _ = try files.put(ObjectID(1), bytes: Fixtures.object(1))
        _ = try files.put(ObjectID(2), bytes: Fixtures.object(2))
        files.close()
        let paths = disk.files().filter { $0.hasSuffix(".object") }
        #expect(paths.count == 2)
        let first = try #require(paths.first { $0.contains("0000000000000001") })
        disk.change(first) { $0 = [] }
        let second = try #require(paths.first { $0.contains("0000000000000002") })
        disk.change(second) { $0.removeLast() }
        let again = try Fixtures.files(disk)
        #expect(again.statistics().roots[0].damagedObjects == 1)
        for id in [1, 2] as [UInt64] {
            #expect(Fixtures.code { _ = try again.get(ObjectID(id), selection: .all) } == .corrupt)
            #expect(Fixtures.code { _ = try again.header(ObjectID(id)) } == .corrupt)
            #expect(Fixtures.code { _ = try again.verify(ObjectID(id)) } == .corrupt)
            #expect(Fixtures.code { _ = try again.put(ObjectID(id), bytes: Fixtures.object(id)) } == .exists)
        }
    }
}
