import AshlarCore
import AshlarTestSupport
import Foundation
import Testing

/// What a peer sends that breaks the protocol.
private struct Malformation: Sendable {
    var name: String
    /// Whether a session is opened first; then the log knows the initiator by its name.
    var logsIn = true
    /// How it misbehaves; what is left to the target is to close the connection.
    var misbehave: @Sendable (RawInitiator) -> Void
    /// Whether the initiator closes by itself.
    var closes = false
    var seconds = 10

    static let all: [Malformation] = [
        Malformation(name: "garbage", logsIn: false) { peer in
            var state: UInt32 = 7
            peer.send(
                (0..<4_096).map { _ in
                    state = state &* 1_664_525 &+ 1_013_904_223
                    return UInt8(truncatingIfNeeded: state >> 24)
                }
            )
        },
        Malformation(name: "a data segment of 16 MiB in a login", logsIn: false) { peer in
            peer.send(login(dataLength: (1 << 24) - 1) + [UInt8](repeating: 0x41, count: 4_096))
        },
        Malformation(name: "a key with a long name", logsIn: false) { peer in
            peer.send(login(text: identity(peer.name) + ["X-\(String(repeating: "k", count: 62))=1"]))
        },
        Malformation(name: "an initiator with a long name", logsIn: false) { peer in
            peer.send(login(text: identity("iqn.2026-01.org.example:\(String(repeating: "x", count: 300))")))
        },
        Malformation(name: "text without an equals sign", logsIn: false) { peer in
            peer.send(login(text: identity(peer.name) + [String(repeating: "y", count: 2_000)]))
        },
        Malformation(name: "more immediate data than agreed") { peer in
            peer.send(command(peer, announced: 128 << 10) + [UInt8](repeating: 1, count: 128 << 10))
        },
        Malformation(name: "a data segment above the declared maximum") { peer in
            peer.send(command(peer, announced: 1 << 20) + [UInt8](repeating: 2, count: 64 << 10))
        },
        Malformation(
            name: "a connection cut in the middle of a PDU",
            misbehave: { peer in
                peer.send(command(peer, announced: 8 << 10) + [UInt8](repeating: 3, count: 5_000))
                peer.close()
            },
            closes: true
        ),
        Malformation(
            name: "a connection reset in the middle of a header",
            misbehave: { peer in
                peer.send(Array(command(peer, announced: 0).prefix(20)))
                peer.close(isReset: true)
            },
            closes: true
        ),
        // Once: it takes as long as a login may.
        Malformation(name: "a login that stalls", logsIn: false, misbehave: { _ in }, seconds: 25),
    ]

    private static func identity(_ name: String) -> [String] {
        ["InitiatorName=\(name)", "SessionType=Discovery"]
    }

    /// A login request from operational negotiation to the full feature phase (RFC 7143, 11.12).
    private static func login(dataLength: Int) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 48)
        header[0] = 0x43
        header[1] = 0x87
        header.replaceSubrange(5..<8, with: RawInitiator.bigEndian(UInt64(dataLength), 3))
        header[8] = 0x40
        return header
    }

    private static func login(text: [String]) -> [UInt8] {
        var data: [UInt8] = []
        for pair in text { data += Array(pair.utf8) + [0] }
        let header = login(dataLength: data.count)
        while data.count % 4 != 0 { data.append(0) }
        return header + data
    }

    /// The header of a WRITE (16) to the first blocks (RFC 7143, 11.3).
    private static func command(_ peer: RawInitiator, announced: Int) -> [UInt8] {
        let blocks = UInt32(announced / 512)
        var header = [UInt8](repeating: 0, count: 32)
        header[0] = 0x01
        header[1] = 0xA1
        header.replaceSubrange(5..<8, with: RawInitiator.bigEndian(UInt64(announced), 3))
        header.replaceSubrange(16..<20, with: RawInitiator.bigEndian(0x77, 4))
        header.replaceSubrange(20..<24, with: RawInitiator.bigEndian(UInt64(announced), 4))
        header.replaceSubrange(24..<28, with: RawInitiator.bigEndian(UInt64(peer.machine.commandNumber), 4))
        header.replaceSubrange(28..<32, with: RawInitiator.bigEndian(UInt64(peer.machine.expectedStatus), 4))
        return header + RawInitiator.write16(0, blocks)
    }
}

extension IntegrationTests {
    @Suite(.serialized) struct MalformedInputTests {
        @Test func whoBreaksTheProtocolEndsHisOwnSessionAlone_I10() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                let witness = try await cluster.session("witness")
                let pid = try cluster.state().pids("target")
                let before = try TestCluster.residentBytes(pid[0])
                for (index, malformation) in Malformation.all.enumerated() {
                    let peer = try await RawInitiator(port: cluster.port, iqn: cluster.iqn(), name: "mallory-\(index)")
                    if malformation.logsIn { try peer.logIn() }
                    malformation.misbehave(peer)
                    if !malformation.closes {
                        let end = await Self.waitForClose(peer, seconds: malformation.seconds, witness: witness)
                        #expect(end, "\(malformation.name): the connection is still open")
                    }
                    try witness.writeAndRead(4_096 + UInt64(index), fill: UInt8(index + 1))
                    let known = malformation.logsIn ? peer.name : peer.address
                    _ = try await ProcessRunner.eventually("\(malformation.name): a log line with \(known)") {
                        () -> Bool? in
                        let log = FileManager.default.contents(atPath: cluster.data + "/log/target-1.log") ?? Data()
                        let lines = String(decoding: log, as: UTF8.self).split(separator: "\n")
                        return lines.contains { $0.contains(known) && !$0.contains("session opened") } ? true : nil
                    }
                }
                #expect(try cluster.state().pids("target") == pid, "the target was restarted")
                // Nothing of what never came whole was written.
                let first = try witness.run(RawInitiator.read16(0, 256), read: 256 * 512)
                #expect(first.isGood && first.data.allSatisfy { $0 == 0 })
                let growth = try TestCluster.residentBytes(pid[0]) - before
                #expect(growth < 16 << 20, "the target has grown by \(growth) bytes")
            }
        }

        /// Waits for the end of a connection, while the witness goes on as if nothing had happened.
        private static func waitForClose(_ peer: RawInitiator, seconds: Int, witness: RawInitiator) async -> Bool {
            let clock = ContinuousClock()
            let deadline = clock.now + .seconds(seconds)
            while clock.now < deadline {
                if peer.receive(milliseconds: 250) == nil { return true }
                do {
                    try witness.writeAndRead(8_192, fill: 0x33)
                } catch {
                    Issue.record(error)
                    return false
                }
            }
            return false
        }

        @Test func commandsOutsideOfTheirBoundsGetTheRightSense() async throws {
            try await TestCluster.with(targets: 1) { cluster in
                let made = try await cluster.api(
                    "POST",
                    "/v1/volumes",
                    #"{"name":"large","sizeBytes":16777216,"logicalBlockSizeBytes":4096}"#
                )
                #expect(made.status == 201, "\(made)")
                let session = try await cluster.session("bounds")
                let end = UInt64(64 << 20) / 512
                let block = [UInt8](repeating: 9, count: 512)
                let outOfRange = RawInitiator.Sense(key: 5, code: 0x2100)
                for address in [end, end + 1, 1 << 40, .max] {
                    let read = try session.run(RawInitiator.read16(address, 1), read: 512)
                    #expect(read.status == 2 && read.sense == outOfRange, "read at \(address): \(read)")
                    let write = try session.run(RawInitiator.write16(address, 1), write: block)
                    #expect(write.status == 2 && write.sense == outOfRange, "write at \(address): \(write)")
                }
                let across = try session.run(RawInitiator.write16(end - 1, 2), write: block + block)
                #expect(across.sense == outOfRange, "\(across)")
                let last = try session.run(RawInitiator.read16(end - 1, 1), read: 512)
                #expect(last.isGood && last.data.allSatisfy { $0 == 0 }, "half of a refused write is there")

                let nothing = try session.run(RawInitiator.read16(0, 0))
                #expect(nothing.isGood && nothing.data.isEmpty, "\(nothing)")
                #expect(try session.run(RawInitiator.write16(0, 0)).isGood)
                #expect(try session.run(RawInitiator.read16(end + 1, 0)).sense == outOfRange)

                let invalidField = RawInitiator.Sense(key: 5, code: 0x2400)
                let blocks = Limits.transferMaximumBytes / 512 + 1
                let long = try session.run(RawInitiator.read16(0, blocks), read: blocks * 512)
                #expect(long.sense == invalidField, "\(long)")
                let bytes = [UInt8](repeating: 7, count: Int(blocks) * 512)
                let longWrite = try session.run(RawInitiator.write16(0, blocks), write: bytes)
                #expect(longWrite.sense == invalidField, "\(longWrite)")
                let twice = try session.run(RawInitiator.write16(0, 2 * blocks), write: bytes + bytes)
                #expect(twice.sense == invalidField, "\(twice)")
                let untouched = try session.run(RawInitiator.read16(0, 8), read: 4_096)
                #expect(untouched.isGood && untouched.data.allSatisfy { $0 == 0 }, "a refused write was done")

                try await unaligned(cluster)
                try session.writeAndRead(1, fill: 0x44)
            }
        }

        /// 512 bytes are no block of a volume whose logical blocks are of 4,096.
        private func unaligned(_ cluster: TestCluster) async throws {
            let session = try await cluster.session("unaligned", volume: "large")
            let block = [UInt8](repeating: 5, count: 4_096)
            #expect(try session.run(RawInitiator.write16(1, 1), write: block).isGood)
            let short = try session.run(RawInitiator.write16(1, 1), write: [UInt8](repeating: 6, count: 512))
            // What did not arrive is told as a residual, and is as it was.
            #expect(short.isGood && short.overflow == 4_096 - 512, "\(short)")
            let read = try session.run(RawInitiator.read16(1, 1), read: 4_096)
            #expect(read.isGood && read.data == [UInt8](repeating: 6, count: 512) + block.dropFirst(512), "\(read)")
            #expect(try session.run(RawInitiator.write16(1, 1), write: block).isGood)
            let odd = try session.run(RawInitiator.write16(1, 1), write: [UInt8](repeating: 7, count: 100))
            #expect(odd.sense?.key == 5, "\(odd)")
            let url = "iscsi://127.0.0.1:\(cluster.port)/\(try await cluster.iqn("large"))/0"
            let capacity = try session.run(RawInitiator.readCapacity, read: 32)
            #expect(capacity.isGood && Array(capacity.data[8..<12]) == [0, 0, 0x10, 0], "\(capacity)")
            let merged = try await Images.io(url, ["write -P 8 512 512", "read -P 8 512 512", "read -P 5 4096 4096"])
            #expect(merged.isSuccess && !merged.output.contains("verification failed"), "\(merged.summary)")
        }
    }
}
