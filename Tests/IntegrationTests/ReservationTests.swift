import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// Reservations and unit attention conditions hold through every target, whoever is killed or stopped.
    @Suite(.serialized) struct ReservationTests {
        private static let registrationsPreempted: UInt16 = 0x2A05
        private static let reservationsReleased: UInt16 = 0x2A04
        private static let capacityChanged: UInt16 = 0x2A09
        private static let modeParametersChanged: UInt16 = 0x2A01

        /// Registrations as SQL shows them: name, key and what it holds, without the prefix of the names.
        private func registrations(_ cluster: TestCluster) async throws -> [String] {
            try await cluster.sql(
                """
                SELECT split_part(initiator_name, ':', 2) || ' ' || reservation_key || ' ' || coalesce(holds, '-')
                FROM ashlar_inspect.reservations WHERE volume = 'demo' ORDER BY 1
                """
            ).split(separator: "\n").map(String.init)
        }

        @Test func whatOneTargetReservesTheOtherKeeps() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let holder = try await cluster.session("holder", target: 1)
                let registrant = try await cluster.session("registrant", target: 2)
                let stranger = try await cluster.session("stranger", target: 2)
                try holder.register(0xA)
                try registrant.register(0xB)
                // Who may read and write under each type: the registrant and the stranger; the holder may always.
                let types: [(RawInitiator.ReservationType, String, registrant: [Bool], stranger: [Bool])] = [
                    (.writeExclusive, "write exclusive", [true, false], [true, false]),
                    (.exclusiveAccess, "exclusive access", [false, false], [false, false]),
                    (
                        .writeExclusiveRegistrantsOnly, "write exclusive, registrants only", [true, true],
                        [true, false]
                    ),
                    (
                        .exclusiveAccessRegistrantsOnly, "exclusive access, registrants only", [true, true],
                        [false, false]
                    ),
                ]
                for (type, text, ofRegistrant, ofStranger) in types {
                    #expect(try holder.reserveOut(.reserve, type, key: 0xA).isGood)
                    for (initiator, expected) in [
                        (holder, [true, true]), (registrant, ofRegistrant), (stranger, ofStranger),
                    ] {
                        let access = try initiator.access()
                        #expect([access.reads, access.writes] == expected, "\(text): \(initiator.name)")
                    }
                    let second = try registrant.reserveOut(.reserve, type, key: 0xB)
                    #expect(second.status == RawInitiator.reservationConflict)
                    #expect(
                        try await registrations(cluster) == [
                            "holder 0x000000000000000a \(text)", "registrant 0x000000000000000b -",
                        ]
                    )
                    #expect(try holder.reserveOut(.release, type, key: 0xA).isGood)
                    let access = try stranger.access()
                    #expect(access.reads && access.writes, "\(text) was released")
                }
                #expect(try holder.reserveOut(.clear, key: 0xA).isGood)
                #expect(try await registrations(cluster).isEmpty)
                try await sixBytes(cluster)
                try await attentions(cluster, holder, registrant, stranger)
                try await portalGroups(cluster)
            }
        }

        /// RESERVE (6) through one target keeps the others out, until it is released or its nexus ends.
        private func sixBytes(_ cluster: TestCluster) async throws {
            let first = try await cluster.session("six-1", target: 1)
            let second = try await cluster.session("six-2", target: 2)
            for initiator in [first, second] { _ = try initiator.attentions() }
            func isFree() throws -> Bool {
                let access = try second.access()
                #expect(access.reads == access.writes)
                return access.reads
            }
            #expect(try first.run(RawInitiator.reserve).isGood)
            #expect(try !isFree())
            #expect(try second.run(RawInitiator.reserve).status == RawInitiator.reservationConflict)
            let holder = "SELECT split_part(reserved_by, ':', 2) FROM ashlar_inspect.logical_units"
            #expect(try await cluster.sql(holder + " WHERE volume = 'demo'") == "six-1")
            #expect(try second.run(RawInitiator.release).isGood, "it does nothing")
            #expect(try !isFree())
            #expect(try first.run(RawInitiator.release).isGood)
            #expect(try isFree())
            #expect(try first.run(RawInitiator.reserve).isGood)
            #expect(try !isFree())
            try first.logOut()
            // The target tells the owner of the logout when it has answered it.
            _ = try await ProcessRunner.eventually("the logout releases", timeout: .seconds(10)) { () -> Bool? in
                try second.runPastAttentions(RawInitiator.read16(0, 1), read: 512).outcome.isGood ? true : nil
            }
        }

        /// Each condition is told once, and only to whom it concerns.
        private func attentions(
            _ cluster: TestCluster,
            _ first: RawInitiator,
            _ second: RawInitiator,
            _ stranger: RawInitiator
        ) async throws {
            let all = [first, second, stranger]
            for initiator in all { _ = try initiator.attentions() }
            func expect(_ expected: [[UInt16]], _ what: String) throws {
                #expect(try all.map { try $0.attentions() } == expected, "\(what)")
                #expect(try all.map { try $0.attentions() } == [[], [], []], "\(what): once")
            }
            let type = RawInitiator.ReservationType.writeExclusiveRegistrantsOnly
            try first.register(0xA)
            try second.register(0xB)
            #expect(try first.reserveOut(.reserve, type, key: 0xA).isGood)
            try expect([[], [], []], "nothing has been taken away")
            #expect(try first.reserveOut(.release, type, key: 0xA).isGood)
            try expect([[], [Self.reservationsReleased], []], "released")
            #expect(try second.reserveOut(.reserve, type, key: 0xB).isGood)
            #expect(try first.reserveOut(.preempt, type, key: 0xA, other: 0xB).isGood)
            try expect([[], [Self.registrationsPreempted], []], "preempted")
            #expect(try first.reserveOut(.clear, key: 0xA).isGood)
            let resized = try await cluster.api("POST", "/v1/volumes/demo/resize", "{\"sizeBytes\":\(24 << 20)}")
            #expect((200..<300).contains(resized.status), "\(resized)")
            _ = try await ProcessRunner.eventually("the new size is seen", timeout: .seconds(10)) { () -> Bool? in
                let data = try stranger.run(RawInitiator.readCapacity, read: 32)
                if let sense = data.sense {
                    #expect(sense == RawInitiator.Sense(key: 6, code: Self.capacityChanged))
                    return true
                }
                return nil
            }
            let blocks = RawInitiator.bigEndian((24 << 20) / 512 - 1, 8)
            for initiator in [first, second] {
                #expect(try initiator.attentions() == [Self.capacityChanged])
                #expect(try initiator.run(RawInitiator.readCapacity, read: 32).data.prefix(8) == blocks[...])
            }
            try expect([[], [], []], "resized")
            for isProtected in [true, false] {
                try second.setWriteProtection(isProtected)
                try expect(
                    [[Self.modeParametersChanged], [], [Self.modeParametersChanged]],
                    "write protection: \(isProtected)"
                )
                let write = try first.run(RawInitiator.write16(0, 1), write: [UInt8](repeating: 7, count: 512))
                #expect(write.sense?.key == (isProtected ? 7 : nil), "\(write)")
            }
        }

        @Test func aKillOfEverythingKeepsReservations_I1() async throws {
            let cluster = try await TestCluster.start(volumes: ["demo:16M"])
            do {
                for (name, target, key) in [("holder", 1, UInt64(0xA)), ("registrant", 2, 0xB)] {
                    try await cluster.session(name, target: target).register(key)
                }
                let type = RawInitiator.ReservationType.writeExclusiveRegistrantsOnly
                let holder = try await cluster.session("holder")
                _ = try holder.attentions()
                #expect(try holder.reserveOut(.reserve, type, key: 0xA).isGood)
                let before = try await registrations(cluster)
                #expect(before.count == 2)
                let pids = try cluster.state().roles.map(\.pid)
                try await cluster.killAll()
                for pid in pids where pid > 0 { kill(pid, SIGKILL) }
            } catch {
                let logs = cluster.logs()
                _ = try? await cluster.stop()
                cluster.remove()
                throw ProcessFailure("\(error)\n\(logs)")
            }
            let second = try await TestCluster.start(volumes: [], data: cluster.data, port: cluster.port)
            try await second.end { again in
                #expect(
                    try await registrations(again) == [
                        "holder 0x000000000000000a write exclusive, registrants only",
                        "registrant 0x000000000000000b -",
                    ]
                )
                let sessions = try await [("stranger", 1), ("stranger", 2), ("registrant", 2), ("holder", 1)]
                    .asyncMap { try await again.session($0.0, target: $0.1) }
                for (initiator, writes) in zip(sessions, [false, false, true, true]) {
                    let access = try initiator.access()
                    #expect(access.reads && access.writes == writes, "\(initiator.name)")
                }
                #expect(try sessions[3].reserveOut(.release, .writeExclusiveRegistrantsOnly, key: 0xA).isGood)
                #expect(try sessions[0].access().writes)
            }
        }

        @Test func whatAStoppedTargetHeldOfAPreemptedNexusIsNeverDone() async throws {
            try await TestCluster.with(volumes: ["demo:16M"]) { cluster in
                let type = RawInitiator.ReservationType.writeExclusiveRegistrantsOnly
                let victim = try await cluster.session("victim", target: 1)
                let admin = try await cluster.session("admin", target: 2)
                let (half, blocks) = (24, UInt64(8))
                for round in 1...3 {
                    try victim.register(0xB)
                    try admin.register(0xA)
                    #expect(try admin.reserveOut(.reserve, type, key: 0xA).isGood)
                    let data = [UInt8](repeating: UInt8(round), count: Int(blocks) * 512)
                    func write(_ index: Int) -> UInt32 {
                        victim.begin(RawInitiator.write16(UInt64(index) * blocks, UInt32(blocks)), write: data)
                    }
                    let pid = try cluster.state().pids("target")[0]
                    var tags = (0..<half).map(write)
                    defer { kill(pid, SIGCONT) }
                    try await ProcessRunner.suspend(pid)
                    tags += (half..<2 * half).map(write)
                    #expect(try admin.reserveOut(.preemptAndAbort, type, key: 0xA, other: 0xB).isGood)
                    let before = try admin.read(0, UInt32(2 * half) * UInt32(blocks))
                    kill(pid, SIGCONT)
                    let outcomes = try victim.finish(tags)
                    let after = try admin.read(0, UInt32(2 * half) * UInt32(blocks))
                    #expect(before == after, "round \(round): something landed after PREEMPT AND ABORT")
                    for (index, outcome) in outcomes.enumerated() {
                        let isThere = after[index * data.count] == UInt8(round)
                        let isRefused =
                            outcome.status == RawInitiator.reservationConflict
                            || outcome.status == RawInitiator.taskAborted || outcome.sense?.key == 6
                        #expect(outcome.isGood ? isThere : isRefused, "round \(round), write \(index): \(outcome)")
                        #expect(index < half || !outcome.isGood && !isThere, "it came when the target was stopped")
                    }
                    let told = outcomes.contains { $0.sense?.code == Self.registrationsPreempted }
                    #expect(try victim.attentions() == (told ? [] : [Self.registrationsPreempted]))
                    #expect(try !victim.access().writes)
                    #expect(try admin.reserveOut(.clear, key: 0xA).isGood)
                }
            }
        }

        @Test func behindOneAddressAPortKeepsItsRegistration() async throws {
            let address = "127.0.0.1:\(try Balancer.freePort())"
            try await TestCluster.with(volumes: ["demo:16M"], extra: ["--balanced-portal", address]) { cluster in
                let type = RawInitiator.ReservationType.exclusiveAccess
                let first = try await cluster.session("mover", target: 1)
                let stranger = try await cluster.session("stranger", target: 1)
                try first.register(0xC)
                #expect(try first.reserveOut(.reserve, type, key: 0xC).isGood)
                try first.logOut()
                #expect(try !stranger.access().reads)
                // The same name, ISID and portal group through the other target are the same port.
                let second = try await cluster.session("mover", target: 2)
                let access = try second.access()
                #expect(access.reads && access.writes)
                // With another ISID it is another port.
                let other = try await cluster.session("mover", target: 2, isid: 0x4000_0137_0002)
                #expect(try !other.access().reads)
                #expect(try second.reserveOut(.release, type, key: 0xC).isGood)
                #expect(try stranger.access().writes && other.access().writes)
            }
        }

        /// Through another portal group an initiator port has another nexus, and both stay.
        private func portalGroups(_ cluster: TestCluster) async throws {
            let first = try await cluster.session("mover", target: 1)
            try first.register(0xC)
            #expect(try first.reserveOut(.reserve, .writeExclusiveRegistrantsOnly, key: 0xC).isGood)
            let second = try await cluster.session("mover", target: 2)
            let access = try second.access()
            #expect(access.reads && !access.writes)
            try second.register(0xD)
            #expect(try second.access().writes)
            let tags = try await cluster.sql(
                """
                SELECT string_agg(portal_group_tag || ':' || relative_port_identifier, ' ' ORDER BY portal_group_tag)
                FROM ashlar_inspect.reservations WHERE volume = 'demo'
                """
            )
            #expect(tags == "1:1 2:2")
            #expect(!first.waitForClose(seconds: 3).isClosed)
            #expect(try first.reserveOut(.clear, key: 0xC).isGood)
        }
    }
}
