import AshlarCore
import Foundation
import NIOCore
import Testing

@testable import RPC

/// A message vector of `proto/vectors` and the value that it stands for.
struct MessageVector: Sendable, CustomTestStringConvertible {
    /// `message-NAME.hex`.
    let name: String
    /// The type by the specification.
    let type: UInt16
    let expected: any RPCMessage
    let decode: @Sendable (inout ByteBuffer) throws -> any RPCMessage
    /// Decodes a body that must end with the message.
    let decodeWhole: @Sendable (inout ByteBuffer) throws -> any RPCMessage

    init<M: RPCMessage>(_ name: String, _ type: UInt16, _ expected: M) {
        self.name = name
        self.type = type
        self.expected = expected
        decode = { try M(decoding: &$0) }
        decodeWhole = { try $0.readRPCWholeMessage(M.self) }
    }

    var testDescription: String { name }

    /// The bytes of the file.
    func bytes() throws -> ByteBuffer { try vector("message-\(name)") }

    /// Offset and width of every count and length in the bytes, by the comments of the file.
    func lengths() throws -> [(offset: Int, bytes: Int, what: String)] {
        let root = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("proto/vectors/message-\(name).hex")
        var offset = 0
        var found: [(offset: Int, bytes: Int, what: String)] = []
        for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
            let parts = line.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false)
            let count = parts[0].split(separator: " ").count
            let comment = parts.count > 1 ? parts[1].drop { $0 == " " } : ""
            if count > 0, comment.hasPrefix("count of") || comment.hasPrefix("length of") {
                found.append((offset, count, String(comment)))
            }
            offset += count
        }
        return found
    }
}

extension RPCMessage {
    var encoded: ByteBuffer {
        var buffer = ByteBuffer()
        encode(into: &buffer)
        return buffer
    }

    /// Every field, deep: what two equal messages have in common.
    var dumped: String {
        var text = ""
        dump(self, to: &text)
        return text
    }
}

/// SplitMix64: the same seed gives the same numbers on every machine.
struct MessageGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }
}

private let uuid = [UInt8](0xA0...0xAF)

private func volume(_ id: Int64, _ name: String, _ iqn: String, access: AccessRules = AccessRules())
    -> VolumeDescription
{
    guard let geometry = try? Geometry(sizeBytes: 1 << 30) else { preconditionFailure("1 GiB is a size") }
    return VolumeDescription(
        id: VolumeID(id),
        name: name,
        iqn: iqn,
        uuid: uuid,
        geometry: geometry,
        access: access,
        revision: 9
    )
}

extension MessageVector {
    /// All vectors of messages.
    static let all: [MessageVector] = volumesAndNexuses + commands + units + agents + objectServers + administration

    /// The vectors whose files have bytes.
    static let withFields = all.filter { !withoutFields.contains($0.name) }

    static let withoutFields: Set<String> = ["evict", "compaction-work", "object-statistics", "cache-statistics"]

    static let stamp = Stamp(epoch: Epoch(2), time: MonotonicTime(5_000_000_000))
    static let later = Stamp(epoch: Epoch(2), time: MonotonicTime(6_000_000_000))
    static let first = Checksum(0xE306_9283)
    static let second = Checksum(0x8A91_36AA)

    static let header = CommandHeader(
        volume: VolumeID(7),
        nexus: NexusNumber(3),
        command: CommandID(41),
        lowWater: CommandID(40),
        proved: stamp
    )

    private static let demo = "iqn.2026-01.io.ashlar:demo"
    static let initiator = "iqn.1993-08.org.debian:01:a"

    private static let volumesAndNexuses = [
        MessageVector("look-up-volume", 0x10, LookUpVolume(iqn: demo)),
        MessageVector(
            "look-up-volume-answer",
            0x10,
            LookUpVolume.Answer(
                volume: volume(
                    7,
                    "demo",
                    demo,
                    access: AccessRules(
                        initiators: [initiator],
                        credentials: [CHAPCredential(name: "user", secret: "0123456789ab")],
                        mutual: CHAPCredential(name: "target", secret: "ba9876543210")
                    )
                ),
                ownerEndpoint: "",
                stamp: stamp
            )
        ),
        MessageVector(
            "look-up-volume-answer-elsewhere",
            0x10,
            LookUpVolume.Answer(volume: volume(7, "demo", demo), ownerEndpoint: "c2:7401", stamp: nil)
        ),
        MessageVector("list-volumes", 0x11, ListVolumes(after: "a", limit: 1_000)),
        MessageVector(
            "list-volumes-answer",
            0x11,
            ListVolumes.Answer(volumes: [volume(7, "demo", demo), volume(8, "é", "iqn.2026-01.io.ashlar:e")])
        ),
        MessageVector(
            "open-nexus",
            0x12,
            OpenNexus(
                volume: VolumeID(7),
                ports: InitiatorTargetNexus(initiatorName: initiator, isid: 0x0002_3D00_0001, portalGroupTag: 1),
                node: "target-1"
            )
        ),
        MessageVector("open-nexus-answer", 0x12, OpenNexus.Answer(nexus: NexusNumber(3), stamp: stamp)),
        MessageVector(
            "resume-nexus",
            0x13,
            ResumeNexus(
                volume: VolumeID(7),
                nexus: NexusNumber(3),
                stamp: Stamp(epoch: Epoch(3), time: MonotonicTime(6_000_000_000))
            )
        ),
        MessageVector(
            "resume-nexus-answer",
            0x13,
            ResumeNexus.Answer(
                done: [CommandID(40), CommandID(42)],
                aborted: Stamp(epoch: Epoch(2), time: MonotonicTime(5_500_000_000)),
                stamp: Stamp(epoch: Epoch(3), time: MonotonicTime(6_000_000_001))
            )
        ),
        MessageVector("close-nexus", 0x14, CloseNexus(volume: VolumeID(7), nexus: NexusNumber(3))),
        MessageVector("stamps", 0x15, Stamps(volumes: [VolumeID(7), VolumeID(8)])),
        MessageVector(
            "stamps-answer",
            0x15,
            Stamps.Answer(stamps: [Stamps.Answer.Entry(stamp: stamp, revision: 9), nil])
        ),
        MessageVector(
            "target-heartbeat",
            0x16,
            TargetHeartbeatMessage(
                node: "target-1",
                portal: "10.0.0.5:3260",
                portalGroupTag: 1,
                release: "0.1.0",
                sessions: 4
            )
        ),
        MessageVector("target-report", 0x17, TargetReport(node: node)),
        MessageVector(
            "target-report-answer",
            0x17,
            TargetReport.Answer(nodes: [
                node,
                TargetNodeState(
                    name: "target-2",
                    portal: "[2001:db8::6]:3260",
                    port: TargetPort(portalGroupTag: 2, relativePortIdentifier: 8),
                    release: "0.2.0",
                    sessions: 0,
                    isDraining: true
                ),
                TargetNodeState(
                    name: "target-3",
                    portal: "10.0.0.7:3260",
                    port: TargetPort(portalGroupTag: 3, relativePortIdentifier: 9),
                    release: "0.2.0",
                    sessions: 1,
                    receivesLogins: false
                ),
            ])
        ),
        MessageVector(
            "nexus-states",
            0x18,
            NexusStates(volume: VolumeID(7), nexuses: [NexusNumber(3), NexusNumber(5)])
        ),
        MessageVector(
            "find-slots",
            0x19,
            FindSlots(volume: VolumeID(7), firstBlock: BlockID(1_024), count: 256)
        ),
        MessageVector(
            "find-slots-answer",
            0x19,
            FindSlots.Answer(
                known: 200,
                runs: [
                    FindSlots.Run(
                        object: ObjectID(99),
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(5),
                        origin: BlockID(1_030),
                        count: 100
                    ),
                    FindSlots.Run(
                        object: ObjectID(100),
                        server: ObjectServerID(2),
                        firstSlot: SlotIndex(0),
                        origin: BlockID(8),
                        count: 3
                    ),
                ]
            )
        ),
    ]

    private static let node = TargetNodeState(
        name: "target-1",
        portal: "10.0.0.5:3260",
        port: TargetPort(portalGroupTag: 1, relativePortIdentifier: 7),
        release: "0.2.0",
        sessions: 4
    )

    private static let commands = [
        MessageVector("read", 0x20, ReadCommand(header: header, range: ByteRange(offset: 1 << 20, count: 8_192))),
        MessageVector(
            "read-answer",
            0x20,
            ReadCommand.Answer(
                stamp: stamp,
                runs: [
                    .bytes(checksums: [first, second]),
                    .object(ObjectID(99), server: ObjectServerID(1), firstSlot: SlotIndex(5), origin: nil, count: 3),
                    .object(
                        ObjectID(98),
                        server: ObjectServerID(2),
                        firstSlot: SlotIndex(6),
                        origin: BlockID(4_660),
                        count: 2
                    ),
                    .zeros(count: 1),
                ]
            )
        ),
        MessageVector(
            "write",
            0x21,
            WriteCommand(header: header, offset: 4_096, checksums: [Checksum(0x0102_0304), first])
        ),
        MessageVector(
            "zero",
            0x22,
            ZeroCommand(
                header: header,
                ranges: [ByteRange(offset: 0, count: 512), ByteRange(offset: 1 << 20, count: 1 << 20)]
            )
        ),
        MessageVector(
            "copy",
            0x2A,
            CopyCommand(header: header, source: 4_096, destination: 1 << 20, count: 8_192)
        ),
        MessageVector(
            "compare-and-write",
            0x23,
            CompareAndWriteCommand(header: header, offset: 512, checksum: first)
        ),
        MessageVector("begin-direct", 0x2B, BeginDirect(volume: VolumeID(7), epoch: Epoch(2), count: 4)),
        MessageVector(
            "begin-direct-answer",
            0x2B,
            BeginDirect.Answer(
                stamp: stamp,
                grants: [
                    BeginDirect.Grant(object: ObjectID(99), firstVersion: Version(1_001), slots: 1_024),
                    BeginDirect.Grant(object: ObjectID(100), firstVersion: Version(2_025), slots: 1_024),
                ]
            )
        ),
        MessageVector(
            "map-direct",
            0x2C,
            MapDirect(
                volume: VolumeID(7),
                object: ObjectID(99),
                server: ObjectServerID(1),
                sizeBytes: 135_000,
                writes: [
                    MapDirect.Write(
                        nexus: NexusNumber(3),
                        command: CommandID(41),
                        lowWater: CommandID(40),
                        proved: stamp,
                        blocks: BlockRange(first: BlockID(16), count: 16)
                    ),
                    MapDirect.Write(
                        nexus: NexusNumber(5),
                        command: CommandID(9),
                        lowWater: CommandID(9),
                        proved: Stamp(epoch: Epoch(2), time: MonotonicTime(4_000_000_000)),
                        blocks: BlockRange(first: BlockID(64), count: 17)
                    ),
                ]
            )
        ),
        MessageVector(
            "map-direct-answer",
            0x2C,
            MapDirect.Answer(outcomes: [
                MapDirect.Outcome(status: .ok, stamp: later, detail: 0),
                MapDirect.Outcome(status: .stale, stamp: later, detail: 0),
            ])
        ),
        MessageVector(
            "write-through",
            0x2D,
            WriteThrough(
                WriteCommand(
                    header: header,
                    offset: 65_536,
                    checksums: [Checksum(0xE306_9283), Checksum(0x8A91_36AA)]
                ),
                object: ObjectID(99),
                firstSlot: SlotIndex(16)
            )
        ),
        MessageVector(
            "map-through",
            0x2E,
            MapThrough(
                MapDirect(
                    volume: VolumeID(7),
                    object: ObjectID(99),
                    server: ObjectServerID(1),
                    sizeBytes: 10_000,
                    writes: [
                        MapDirect.Write(
                            nexus: NexusNumber(3),
                            command: CommandID(41),
                            lowWater: CommandID(40),
                            proved: stamp,
                            blocks: BlockRange(first: BlockID(16), count: 2)
                        )
                    ]
                )
            )
        ),
        MessageVector("fence", 0x24, FenceCommand(header: header, commands: [CommandID(39), CommandID(40)])),
        MessageVector("command-answer", 0x21, CommandAnswer(stamp: stamp, detail: 1_024)),
    ]

    private static let agents = [
        MessageVector("move-work", 0x30, MoveWork(agent: "agent-1")),
        MessageVector(
            "move-work-answer",
            0x30,
            MoveWork.Answer(
                volume: VolumeID(7),
                uuid: uuid,
                blockSizeBytes: 4_096,
                object: ObjectID(99),
                blocks: [
                    MoveWork.Block(block: BlockID(16), version: Version(1_001), checksum: first),
                    MoveWork.Block(block: BlockID(17), version: Version(1_002), checksum: second),
                ]
            )
        ),
        MessageVector(
            "map-move",
            0x31,
            MapMove(
                volume: VolumeID(7),
                object: ObjectID(99),
                server: ObjectServerID(1),
                sizeBytes: 8_400,
                slots: [
                    MapMove.Slot(block: BlockID(16), version: Version(1_001)),
                    MapMove.Slot(block: BlockID(17), version: Version(1_002)),
                ]
            )
        ),
        MessageVector("count-answer", 0x31, CountAnswer(count: 2, left: 5)),
        MessageVector("evict", 0x32, Evict()),
        MessageVector("compaction-work", 0x33, CompactionWork()),
        MessageVector(
            "compaction-work-answer",
            0x33,
            CompactionWork.Answer(
                volume: VolumeID(7),
                uuid: uuid,
                blockSizeBytes: 4_096,
                object: ObjectID(120),
                runs: [
                    CompactionWork.LiveRun(
                        blocks: BlockRange(first: BlockID(16), count: 2),
                        source: ObjectID(99),
                        server: ObjectServerID(1),
                        firstSlot: SlotIndex(0)
                    ),
                    CompactionWork.LiveRun(
                        blocks: BlockRange(first: BlockID(64), count: 1),
                        source: ObjectID(98),
                        server: ObjectServerID(2),
                        firstSlot: SlotIndex(7),
                        copy: BlockCopy(origin: BlockID(32), version: Version(1_003))
                    ),
                ]
            )
        ),
        MessageVector(
            "map-compaction",
            0x34,
            MapCompaction(
                volume: VolumeID(7),
                object: ObjectID(120),
                server: ObjectServerID(1),
                sizeBytes: 12_600,
                slots: [
                    MapCompaction.Slot(
                        block: BlockID(16),
                        version: Version(1_001),
                        source: ObjectID(99),
                        sourceSlot: SlotIndex(0)
                    )
                ]
            )
        ),
        MessageVector("collect", 0x35, Collect(intentAgeMilliseconds: 600_000, graceMilliseconds: 60_000)),
        MessageVector(
            "collect-answer",
            0x35,
            Collect.Answer(objects: [
                Collect.DeadObject(object: ObjectID(99), server: ObjectServerID(1)),
                Collect.DeadObject(object: ObjectID(97), server: ObjectServerID(0)),
            ])
        ),
        MessageVector("forget-objects", 0x36, ForgetObjects([ObjectID(99), ObjectID(97)])),
        MessageVector("known-objects", 0x37, KnownObjects([ObjectID(98), ObjectID(99)])),
        MessageVector(
            "database-age",
            0x38,
            DatabaseAge(marks: [
                DatabaseAge.Mark(server: ObjectServerID(1), clock: 41, highestObject: ObjectID(99)),
                DatabaseAge.Mark(server: ObjectServerID(2), clock: 0, highestObject: ObjectID(0)),
            ])
        ),
        MessageVector(
            "database-age-answer",
            0x38,
            DatabaseAge.Answer(isBehind: true, clock: 7, nextObject: ObjectID(64))
        ),
        MessageVector("scrub-work", 0x39, ScrubWork()),
        MessageVector(
            "scrub-work-answer",
            0x39,
            ScrubWork.Answer(
                token: 12,
                objects: [
                    ScrubWork.Object(object: ObjectID(99), server: ObjectServerID(1), slots: 2, sizeBytes: 8_400)
                ],
                items: 128
            )
        ),
        MessageVector(
            "report-objects",
            0x3A,
            ReportObjects(
                token: 12,
                objects: [
                    ReportObjects.Finding(object: ObjectID(99), state: .damaged, slots: [SlotIndex(0), SlotIndex(5)]),
                    ReportObjects.Finding(object: ObjectID(100), state: .sound),
                    ReportObjects.Finding(object: ObjectID(101), state: .missing),
                ]
            )
        ),
        MessageVector("draining-servers", 0x3B, DrainingServers()),
        MessageVector(
            "draining-servers-answer",
            0x3B,
            DrainingServers.Answer(servers: [ObjectServerID(1), ObjectServerID(3)])
        ),
    ]

    private static let objectServers = [
        MessageVector("put-object", 0x40, PutObject(object: ObjectID(99))),
        MessageVector("get-slots", 0x41, GetSlots(object: ObjectID(99), firstSlot: SlotIndex(5), count: 3)),
        MessageVector(
            "get-slots-answer",
            0x41,
            GetSlots.Answer(
                blockSizeBytes: 4_096,
                slots: [
                    slot(16, 1_001, first, encoding: 0, storedBytes: 4_096),
                    slot(17, 1_002, second, encoding: 1, storedBytes: 700),
                    slot(18, 1_003, Checksum(0x98F9_4189), encoding: 2, storedBytes: 0),
                ]
            )
        ),
        MessageVector("delete-object", 0x42, DeleteObject(object: ObjectID(99))),
        MessageVector("list-objects", 0x43, ListObjects(after: nil, limit: 10_000)),
        MessageVector("list-objects-next", 0x43, ListObjects(after: ObjectID(98), limit: 10_000)),
        MessageVector(
            "list-objects-answer",
            0x43,
            ListObjects.Answer(objects: [ObjectID(300), ObjectID(98)], next: ObjectID(98))
        ),
        MessageVector("list-objects-answer-last", 0x43, ListObjects.Answer(objects: [], next: nil)),
        MessageVector("verify-object", 0x44, VerifyObject(object: ObjectID(99))),
        MessageVector("object-statistics", 0x45, ObjectStatistics()),
        MessageVector(
            "object-statistics-answer",
            0x45,
            ObjectStatistics.Answer(
                server: ObjectServerID(1),
                objects: 12,
                bytes: 50_331_648,
                freeBytes: 1 << 40,
                rootsOutOfService: 1
            )
        ),
        MessageVector("object-header", 0x46, ObjectHeader(object: ObjectID(99))),
        MessageVector(
            "object-header-answer",
            0x46,
            ObjectHeader.Answer(
                volume: VolumeID(7),
                uuid: Array(0xA0..<0xB0),
                blockSizeBytes: 4_096,
                sizeBytes: 8_400,
                slots: [
                    ObjectHeader.Slot(block: BlockID(16), version: Version(1_001)),
                    ObjectHeader.Slot(block: BlockID(17), version: Version(1_002)),
                ]
            )
        ),
        MessageVector("raise-clock", 0x47, RaiseClock(clock: 41)),
        MessageVector("raise-clock-answer", 0x47, RaiseClock.Answer(clock: 41, highestObject: ObjectID(99))),
    ]

    private static func slot(
        _ block: UInt64,
        _ version: UInt64,
        _ checksum: Checksum,
        encoding: UInt8,
        storedBytes: UInt32
    ) -> GetSlots.Slot {
        GetSlots.Slot(
            block: BlockID(block),
            version: Version(version),
            checksum: checksum,
            encoding: encoding,
            storedBytes: storedBytes
        )
    }

    private static let administration = [
        MessageVector("reload-volume", 0x50, ReloadVolume(volume: VolumeID(7))),
        MessageVector("cache-statistics", 0x51, CacheStatistics()),
        MessageVector(
            "cache-statistics-answer",
            0x51,
            CacheStatistics.Answer(
                imageBytes: 268_435_456,
                commits: 1_000,
                committedBlocks: 64_000,
                volumes: [
                    CacheStatistics.Volume(
                        volume: VolumeID(7),
                        epoch: Epoch(2),
                        nexuses: 4,
                        unmovedItems: 500,
                        cachedBytes: 4_096_000,
                        reads: 70,
                        writes: 80
                    )
                ]
            )
        ),
        MessageVector("move-now", 0x52, MoveNow(volume: VolumeID(7))),
        MessageVector("delete-volume-step", 0x53, DeleteVolumeStep(volume: VolumeID(7))),
    ]
}
