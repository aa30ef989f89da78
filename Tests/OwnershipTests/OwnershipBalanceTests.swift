import AshlarCore
import AshlarTestSupport
import Testing

@testable import Ownership

@Suite("Spreading volumes over cache servers")
struct OwnershipBalanceTests {
    typealias Volume = OwnershipBalance.OwnedVolume

    /// Servers with volumes, whose plans are carried out round by round.
    private struct World {
        var servers: [CacheServerState] = []
        var volumes: [CacheServerID: [Volume]] = [:]

        mutating func add(used: Int, idle: Int, isLeaving: Bool = false, age: UInt64 = 3_600_000, starts: Int = 1) {
            let id = CacheServerID(Int64(servers.count + 1))
            servers.append(
                CacheServerState(
                    id: id,
                    name: "c\(id)",
                    endpoint: "c\(id):1",
                    isLeaving: isLeaving,
                    usedVolumes: 0,
                    idleVolumes: 0,
                    ageMilliseconds: age,
                    recentStarts: starts
                )
            )
            let first = Int64(servers.count * 100_000)
            volumes[id] = (0..<used + idle).map { Volume(id: VolumeID(first + Int64($0)), isUsed: $0 < used) }
        }

        private mutating func count() {
            for index in servers.indices {
                let own = volumes[servers[index].id] ?? []
                servers[index].usedVolumes = own.filter(\.isUsed).count
                servers[index].idleVolumes = own.count - servers[index].usedVolumes
            }
        }

        /// Every server carries its part of one plan out; returns how many volumes moved.
        mutating func round(room: Int = 16) -> Int {
            count()
            let transfers = servers.map { server in
                (
                    server.id,
                    OwnershipBalance(servers).transfers(from: server.id, volumes[server.id] ?? [], room: room)
                )
            }
            var moved = 0
            for (giver, list) in transfers {
                #expect(list.count <= room)
                for transfer in list {
                    guard let index = volumes[giver]?.firstIndex(where: { $0.id == transfer.volume }),
                        let volume = volumes[giver]?.remove(at: index)
                    else {
                        Issue.record("a volume is given by who does not have it, or twice")
                        continue
                    }
                    volumes[transfer.successor, default: []].append(volume)
                    moved += 1
                }
            }
            count()
            return moved
        }

        /// Rounds until nothing moves; returns how many volumes moved.
        mutating func settle() -> Int {
            var moved = 0
            for _ in 0..<10_000 {
                let now = round()
                guard now > 0 else { return moved }
                moved += now
            }
            Issue.record("the plans do not come to an end")
            return moved
        }

        func counts(_ kind: KeyPath<CacheServerState, Int>) -> [Int] { servers.map { $0[keyPath: kind] } }
    }

    @Test("a server that is added gets its share of what is in use and of what is idle, and no volume moves twice")
    func added() {
        var world = World()
        world.add(used: 10, idle: 100)
        world.add(used: 9, idle: 101)
        world.add(used: 0, idle: 0, age: 0)
        let moved = world.settle()
        #expect(moved == 6 + 67)
        #expect(world.counts(\.usedVolumes) == [7, 6, 6])
        #expect(world.counts(\.idleVolumes).sorted() == [67, 67, 67])
    }

    @Test("a difference that does not divide is left alone")
    func settled() {
        var world = World()
        world.add(used: 1, idle: 4)
        world.add(used: 0, idle: 3)
        world.add(used: 0, idle: 4)
        let moved = world.settle()
        #expect(moved == 0)
        var alone = World()
        alone.add(used: 5, idle: 5)
        let movedAlone = alone.settle()
        #expect(movedAlone == 0)
    }

    @Test("a server that leaves gives everything to those that stay; where none does it keeps it")
    func leaving() {
        var world = World()
        world.add(used: 20, idle: 200, isLeaving: true)
        world.add(used: 1, idle: 1)
        world.add(used: 5, idle: 0)
        let moved = world.settle()
        #expect(moved >= 220)
        #expect(world.counts(\.usedVolumes) == [0, 13, 13])
        #expect(
            world.servers[0].idleVolumes == 0 && abs(world.servers[1].idleVolumes - world.servers[2].idleVolumes) <= 1
        )
        var all = World()
        all.add(used: 3, idle: 3, isLeaving: true)
        all.add(used: 0, idle: 0, isLeaving: true)
        let movedOfAll = all.settle()
        #expect(movedOfAll == 0)
    }

    @Test("a server that comes and goes gets nothing before it has lived for a while, unless there is no other")
    func flapping() {
        let starts = OwnershipBalanceLimits.flappingStarts
        let age = OwnershipBalanceLimits.quarantineMilliseconds
        for (isSound, starts, age) in [(false, starts, age - 1), (true, starts, age), (true, starts - 1, 0)] {
            var world = World()
            world.add(used: 10, idle: 10)
            world.add(used: 0, idle: 2, age: age, starts: starts)
            #expect(world.servers[1].isQuarantined == !isSound)
            let moved = world.settle()
            #expect((moved > 0) == isSound)
            // What it has it keeps.
            #expect(world.servers[1].idleVolumes >= 2)
            world.servers[0].isLeaving = true
            _ = world.settle()
            #expect(world.servers[0].usedVolumes + world.servers[0].idleVolumes == 0)
        }
    }

    @Test("I10: no more hand-overs at once than there is room for, those in use first")
    func bounded() {
        var world = World()
        world.add(used: 3, idle: 1_000, isLeaving: true)
        world.add(used: 0, idle: 0)
        let moved = world.round(room: 4)
        #expect(moved == 4)
        #expect(world.servers[1].usedVolumes == 3 && world.servers[1].idleVolumes == 1)
        let movedWithoutRoom = world.round(room: 0)
        #expect(movedWithoutRoom == 0)
        #expect(OwnershipBalanceLimits.handOversAtOnce > 0)
    }

    @Test("many servers with anything settle evenly, and stay so", arguments: 1...40 as ClosedRange<UInt64>)
    func many(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var world = World()
        for _ in 0..<1 + generator.below(24) {
            let age = UInt64(generator.below(120_000))
            world.add(
                used: generator.below(40),
                idle: generator.below(400),
                isLeaving: generator.chance(15),
                age: age,
                starts: 1 + generator.below(5)
            )
        }
        _ = world.settle()
        let staying = world.servers.filter { !$0.isLeaving }
        let sound = staying.filter { !$0.isQuarantined }
        let takers = sound.isEmpty ? staying : sound
        for kind in [\CacheServerState.usedVolumes, \.idleVolumes] {
            let counts = takers.map { $0[keyPath: kind] }
            #expect((counts.max() ?? 0) - (counts.min() ?? 0) <= 1, "seed \(seed)")
        }
        if !takers.isEmpty {
            let left = world.servers.filter(\.isLeaving).reduce(0) { $0 + $1.usedVolumes + $1.idleVolumes }
            #expect(left == 0, "seed \(seed)")
        }
        let moved = world.settle()
        #expect(moved == 0)
    }
}
