import AshlarTestSupport
import Failpoints
import Foundation
import NIOConcurrencyHelpers
import Testing

/// What initiators do while a process of a ``FailpointCluster`` is killed, and what must be there afterwards.
///
/// Blocks are written, read, zeroed, moved, evicted, filled and compacted all the while, and the objects of old ones die.
final class FailpointLoad: Sendable {
    let cluster: FailpointCluster
    let url: String

    private struct State: Sendable {
        var round = 0
        var journals: [Initiator.Writes] = []
        var isDirect = false
    }
    private let state = NIOLockedValueBox(State())

    /// What a volume's region of one run of writes has, in sectors of 512 bytes.
    private static let regionSectors: UInt64 = 64
    /// How long an agent is waited for before it is started anew, which makes all of its jobs due; each one is waited for half as long
    /// again as the one before, so that a slow machine comes there as well.
    private static let agentPatience: Duration = .milliseconds(1_300)
    private static let agentPatienceMaximum: Duration = .seconds(6)
    /// What a killed process may leave behind: it is collected.
    private static let leftovers: Set<String> = ["object-unknown", "orphan-intent"]

    init(cluster: FailpointCluster, url: String) {
        self.cluster = cluster
        self.url = url
    }

    /// Starts a process so that it ends at a point, waits for that while initiators work and `trigger` is done again and again,
    /// starts it again, and checks that nothing is lost.
    ///
    /// - Parameter restartingAgent: Whether the agent is started anew now and then, so that it collects and compacts at once.
    func crash(
        _ node: FailpointCluster.Node,
        at point: Failpoint,
        restartingAgent: Bool = false,
        _ trigger: () async throws -> Void = {}
    ) async throws {
        try await setDirect(point == .cacheDirectSent || point == .cacheDirectMapped)
        try await cluster.kill(node)
        if point.rawValue.contains("scrub") { try await makeScrubDue() }
        try await cluster.start(node, at: point)
        let isOver = NIOLockedValueBox(false)
        let writes = nextWrites()
        let writer = try await Initiator.shared.start(writes)
        let rounds = Task {
            while !isOver.withLockedValue({ $0 }) {
                try await round(at: point)
                try await Task.sleep(for: .milliseconds(50))
            }
        }
        do {
            let clock = ContinuousClock()
            var began = clock.now
            var patience = Self.agentPatience
            try await cluster.death(of: node, at: point) {
                try await trigger()
                guard node == .agent || restartingAgent, clock.now - began > patience else { return }
                patience = min(patience * 3 / 2, Self.agentPatienceMaximum)
                if point.rawValue.contains("scrub") { try await self.makeScrubDue() }
                try await self.cluster.restartAgent(at: node == .agent ? point : nil)
                began = clock.now
            }
            try await cluster.start(node)
        } catch {
            isOver.withLockedValue { $0 = true }
            rounds.cancel()
            writer.send(SIGKILL)
            throw ProcessFailure("\(point.rawValue): \(error)")
        }
        isOver.withLockedValue { $0 = true }
        try await rounds.value
        let report = try await Initiator.shared.finish(writer)
        #expect(report.acknowledged > 0, "\(point.rawValue)")
        try await check(after: point.rawValue)
    }

    /// A piece of a scrub that an agent was killed with is handed out again only after two minutes.
    private func makeScrubDue() async throws {
        _ = try await cluster.sql("UPDATE scrub_progress SET handed_until = NULL, next_at = clock_timestamp()")
    }

    private func nextWrites() -> Initiator.Writes {
        state.withLockedValue { state in
            let index = UInt64(state.journals.count)
            let writes = Initiator.Writes(
                url: url,
                journal: "\(cluster.directory)/journal-\(index)",
                milliseconds: 100,
                firstSector: index * Self.regionSectors,
                sectors: Self.regionSectors,
                length: 8
            )
            state.journals.append(writes)
            return writes
        }
    }

    /// Has large writes go straight to objects, or not.
    private func setDirect(_ isDirect: Bool) async throws {
        let isChanged = state.withLockedValue { state in
            defer { state.isDirect = isDirect }
            return state.isDirect != isDirect
        }
        guard isChanged else { return }
        let minimum = isDirect ? 64 << 10 : 0
        try await cluster.granted("PATCH", "/v1/volumes/demo", #"{"policy":{"directWriteMinimumBytes":\#(minimum)}}"#)
    }

    /// Writes one region anew and a block of another for the first time, so that each object is sparse when the next one comes.
    private func round(at point: Failpoint) async throws {
        let number = state.withLockedValue { state in
            state.round += 1
            return state.round
        }
        let pattern = number % 255 + 1
        var commands = [
            "write -P \(pattern) 32M 256k", "write -P \(pattern) \(40 << 20 + number * 4_096) 4k",
            "read -P \(pattern) 32M 256k", "discard 33M 64k", "read -P 0 33M 64k",
        ]
        if number > 1 { commands.append("read -P 2 \(40 << 20 + 4_096) 4k") }
        try await cluster.io(url, commands)
        // The control role may be the one that dies.
        _ = try? await cluster.api("POST", "/v1/volumes/demo/move")
        if point == .agentScanCompared {
            // What is left of an object whose row is gone is garbage.
            _ = try await cluster.sql("DELETE FROM block_objects WHERE state = 'dead'")
        }
    }

    /// Every acknowledged write reads back, and a check finds nothing that is damage or must not be.
    func check(after place: String = "") async throws {
        let journals = state.withLockedValue { $0.journals }
        if var all = journals.first {
            all.sectors = UInt64(journals.count) * Self.regionSectors
            try await Initiator.shared.verify([all] + journals.dropFirst(), through: url)
        }
        let found = try await cluster.findings()
        #expect(Self.leftovers.isSuperset(of: found.keys), "after \(place): \(found)")
    }

    /// Waits until everything is moved, and what was left over is collected.
    func settle() async throws {
        try await check(after: "all")
        try await cluster.moveAll("demo")
        _ = try await ProcessRunner.eventually("what was left over is collected", timeout: .seconds(60)) {
            () -> Bool? in
            try await self.cluster.findings(#"{"verify":true}"#).isEmpty ? true : nil
        }
        try await check(after: "all was moved")
    }
}

extension RawInitiator {
    /// Begins a command unless one is under way: the first may report what happened to the nexus while its owner was away.
    func again(_ begin: (RawInitiator) -> UInt32) {
        if let tag = pending {
            guard outcome(tag) != nil else { return _ = receive(milliseconds: 10) }
        }
        pending = begin(self)
    }

    /// Begins an EXTENDED COPY inside a device of 512-byte logical blocks; see ``begin(_:lun:read:write:)``.
    func beginCopy(of device: [UInt8], from: UInt64, to: UInt64, blocks: UInt16) -> UInt32 {
        let target =
            [0xE4, 0, 0, 0, 0x01, 0x03, 0, UInt8(device.count)] + device
            + [UInt8](repeating: 0, count: 20 - device.count) + [0] + Self.bigEndian(512, 3)
        let segment =
            [0x02, 0, 0, 0x18, 0, 0, 0, 0, 0, 0] + Self.bigEndian(UInt64(blocks), 2) + Self.bigEndian(from, 8)
            + Self.bigEndian(to, 8)
        let list =
            [1, 0] + Self.bigEndian(UInt64(target.count), 2) + [0, 0, 0, 0]
            + Self.bigEndian(UInt64(segment.count), 4) + [0, 0, 0, 0] + target + segment
        return begin(
            [0x83] + [UInt8](repeating: 0, count: 9) + Self.bigEndian(UInt64(list.count), 4) + [0, 0],
            write: list
        )
    }
}
