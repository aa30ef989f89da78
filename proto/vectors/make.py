#!/usr/bin/env python3
"""Writes message-*.hex: one file for each message of sections 10 to 14 of ../ashlar-rpc-v1.md.

The bytes are put together here from the tables of that page and from nothing else, so that they are a second opinion on the
program's codec. Each line is a field; comments that begin with "count of" or "length of" mark the counts and lengths, which
the tests make lie. Run it after a change of the page: python3 proto/vectors/make.py
"""
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
UUID = bytes(range(0xA0, 0xB0))


class Message:
    """Fields in order."""

    def __init__(self):
        self.lines = []

    def put(self, data, comment):
        # Long fields go over several lines, so that they can be read.
        for start in range(0, max(len(data), 1), 24):
            if data:
                self.lines.append((data[start:start + 24], comment))
            comment = ""
        return self

    def u8(self, value, name): return self.put(struct.pack(">B", value), name)
    def u16(self, value, name): return self.put(struct.pack(">H", value), name)
    def u32(self, value, name): return self.put(struct.pack(">I", value), name)
    def u64(self, value, name): return self.put(struct.pack(">Q", value), name)
    def i32(self, value, name): return self.put(struct.pack(">i", value), name)
    def i64(self, value, name): return self.put(struct.pack(">q", value), name)
    def flag(self, value, name): return self.u8(1 if value else 0, name)

    def string(self, text, name):
        data = text.encode("utf-8")
        self.u16(len(data), "length of " + name)
        return self.put(data, name)

    def count(self, value, name): return self.u32(value, "count of " + name)
    def stamp(self, epoch, time, name="stamp"): return self.u64(epoch, name + ": epoch").u64(time, name + ": time in ns")

    def checksums(self, *values):
        self.count(len(values), "checksums")
        for value in values:
            self.u32(value, "checksum")
        return self

    def ids(self, name, *values):
        self.count(len(values), name)
        for value in values:
            self.u64(value, name)
        return self

    def header(self, volume=7, nexus=3, command=41, low_water=40, epoch=2, time=5_000_000_000):
        self.i64(volume, "volume").u64(nexus, "nexus").u64(command, "command").u64(low_water, "low water")
        return self.stamp(epoch, time, "proved")

    def volume(self, identifier, name, iqn, initiators=(), credentials=(), mutual=None):
        self.i64(identifier, "volume").string(name, "name").string(iqn, "iSCSI name").put(UUID, "UUID")
        self.u64(1 << 30, "size").u32(4096, "data block").u32(512, "logical block").flag(False, "read only")
        self.string("fifo", "move policy").u64(1 << 20, "unmoved items").u64(1 << 30, "unmoved bytes")
        self.u32(300, "unmoved age in s").u64(256 << 20, "cached bytes").string("never", "read-fill policy")
        self.u8(50, "compact below percent").u32(65_536, "direct write").u32(0, "write through").flag(False, "reads both at once")
        self.count(len(initiators), "initiators")
        for text in initiators:
            self.string(text, "initiator")
        self.count(len(credentials), "credentials")
        for user, secret in credentials:
            self.string(user, "user").string(secret, "secret")
        self.flag(mutual is not None, "mutual?")
        if mutual:
            self.string(mutual[0], "mutual user").string(mutual[1], "mutual secret")
        return self.u64(9, "revision")

    def node(self, name, portal, tag, port, sessions, receives, draining):
        self.string(name, "name").string(portal, "portal").u16(tag, "portal group tag").u16(port, "relative port identifier")
        self.string("0.2.0", "release").u32(sessions, "sessions").flag(receives, "receives logins")
        return self.flag(draining, "draining")

    def data(self, value, name): return self.u32(len(value), "length of " + name).put(value, name)

    def rules(self, access, under_reserve, during_erasure, attention):
        self.u8(access, "access").flag(under_reserve, "allowed under RESERVE")
        return self.flag(during_erasure, "allowed during an erasure").u8(attention, "attention")

    def mode(self, swp, d_sense, dexcpt, mrie):
        return self.flag(swp, "SWP").flag(d_sense, "D_SENSE").flag(dexcpt, "DEXCPT").u8(mrie, "MRIE")

    def erasure(self, kind, pattern, position):
        return self.u8(kind, "erasure").data(pattern, "pattern").u64(position, "position")

    def ports(self, name, isid, tag):
        return self.string(name, "initiator name").u64(isid, "ISID").u16(tag, "portal group tag")

    def target_port(self, tag, port): return self.u16(tag, "portal group tag").u16(port, "relative port identifier")

    def initiator_port(self, name, isid=None):
        self.string(name, "initiator name").flag(isid is not None, "ISID?")
        return self if isid is None else self.u64(isid, "ISID")

    def action(self, kind, key):
        return self.header().u8(0, "unit action: reservation").u8(kind, "reservation action").u64(key, "key")

    def counters(self, *values):
        for value, name in zip(values, ["reads", "writes", "bytes read", "bytes written", "mapped bytes"]):
            self.u64(value, name)
        return self

    def work(self, object_id):
        return self.i64(7, "volume").put(UUID, "UUID").u32(4096, "data block").u64(object_id, "object")


def write(name, title, message):
    lines = ["# " + title]
    for data, comment in message.lines:
        text = " ".join("%02x" % byte for byte in data)
        lines.append(text + ("  # " + comment if comment else ""))
    (HERE / ("message-" + name + ".hex")).write_text("\n".join(lines) + "\n", encoding="utf-8")


M = Message

# Section 10: volumes and nexuses.
write("look-up-volume", "0x10 look up volume, request.", M().string("iqn.2026-01.io.ashlar:demo", "iSCSI name"))
write("look-up-volume-answer", "0x10 look up volume, answer of the owner.",
      M().volume(7, "demo", "iqn.2026-01.io.ashlar:demo", ["iqn.1993-08.org.debian:01:a"],
                 [("user", "0123456789ab")], ("target", "ba9876543210"))
      .string("", "owner endpoint").flag(True, "stamp?").stamp(2, 5_000_000_000))
write("look-up-volume-answer-elsewhere", "0x10 look up volume, answer of a server that is not the owner.",
      M().volume(7, "demo", "iqn.2026-01.io.ashlar:demo").string("c2:7401", "owner endpoint").flag(False, "stamp?"))
write("list-volumes", "0x11 list volumes, request.", M().string("a", "after").u32(1000, "limit"))
write("list-volumes-answer", "0x11 list volumes, answer.",
      M().count(2, "volumes").volume(7, "demo", "iqn.2026-01.io.ashlar:demo").volume(8, "é", "iqn.2026-01.io.ashlar:e"))
write("open-nexus", "0x12 open nexus, request.",
      M().i64(7, "volume").string("iqn.1993-08.org.debian:01:a", "initiator name").u64(0x00023D000001, "ISID")
      .u16(1, "portal group tag").string("target-1", "node"))
write("open-nexus-answer", "0x12 open nexus, answer.", M().u64(3, "nexus").stamp(2, 5_000_000_000))
write("resume-nexus", "0x13 resume nexus, request.", M().i64(7, "volume").u64(3, "nexus").stamp(3, 6_000_000_000, "proved"))
write("resume-nexus-answer", "0x13 resume nexus, answer.", M().ids("done", 40, 42).flag(True, "aborted is there").stamp(2, 5_500_000_000, "aborted").stamp(3, 6_000_000_001))
write("close-nexus", "0x14 close nexus, request.", M().i64(7, "volume").u64(3, "nexus"))
write("stamps", "0x15 stamps, request.", M().count(2, "volumes").i64(7, "volume").i64(8, "volume"))
write("stamps-answer", "0x15 stamps, answer: the second volume is not owned here.",
      M().count(2, "entries").flag(True, "entry?").stamp(2, 5_000_000_000).u64(9, "revision").flag(False, "entry?"))
write("target-heartbeat", "0x16 target heartbeat, request.",
      M().string("target-1", "node").string("10.0.0.5:3260", "portal").u16(1, "portal group tag")
      .string("0.1.0", "release").u32(4, "sessions"))
write("target-report", "0x17 target report, request.", M().node("target-1", "10.0.0.5:3260", 1, 7, 4, True, False))
write("target-report-answer", "0x17 target report, answer: the second is being drained, the third is a front door.",
      M().count(3, "nodes").node("target-1", "10.0.0.5:3260", 1, 7, 4, True, False)
      .node("target-2", "[2001:db8::6]:3260", 2, 8, 0, True, True)
      .node("target-3", "10.0.0.7:3260", 3, 9, 1, False, False))
write("nexus-states", "0x18 nexus states, request and answer.", M().i64(7, "volume").ids("nexuses", 3, 5))
write("find-slots", "0x19 find slots, request.", M().i64(7, "volume").u64(1024, "first block").u32(256, "blocks"))
write("find-slots-answer", "0x19 find slots, answer.",
      M().u32(200, "known").count(2, "runs")
      .u64(99, "object").i32(1, "object server").u32(5, "first slot").u64(1030, "origin").u32(100, "slots")
      .u64(100, "object").i32(2, "object server").u32(0, "first slot").u64(8, "origin").u32(3, "slots"))

# Section 11: commands.
write("read", "0x20 read, request: 8 KiB at 1 MiB.", M().header().u64(1 << 20, "offset").u64(8192, "count"))
write("read-answer", "0x20 read, answer: two blocks of bytes, three in an object, two shared ones, one of zeros; the payload is not part of it.",
      M().stamp(2, 5_000_000_000).count(4, "runs").u8(1, "kind: bytes").checksums(0xE3069283, 0x8A9136AA)
      .u8(2, "kind: object").u64(99, "object").i32(1, "object server").u32(5, "first slot").u32(3, "blocks")
      .u8(3, "kind: object, shared").u64(98, "object").i32(2, "object server").u32(6, "first slot").u64(4660, "first block")
      .u32(2, "blocks").u8(0, "kind: zeros").u32(1, "blocks"))
write("write", "0x21 write, request: two pieces; the payload is not part of it.",
      M().header().u64(4096, "offset").checksums(0x01020304, 0xE3069283))
write("zero", "0x22 zero, request.",
      M().header().count(2, "ranges").u64(0, "offset").u64(512, "count").u64(1 << 20, "offset").u64(1 << 20, "count"))
write("compare-and-write", "0x23 compare and write, request; the payload is not part of it.",
      M().header().u64(512, "offset").u32(0xE3069283, "checksum"))
write("fence", "0x24 fence, request: two commands.", M().header().ids("commands", 39, 40))
write("or-write", "0x25 OR write, request: two pieces; the payload is not part of it.",
      M().header().u64(8192, "offset").checksums(0xE3069283, 0x8A9136AA))
write("map-status", "0x26 map status, request.", M().header().u64(1 << 20, "offset").u64(8192, "count").u32(256, "most runs"))
write("map-status-answer", "0x26 map status, answer.",
      M().stamp(2, 5_000_000_000).count(2, "runs").u64(256, "first block").u64(3, "blocks").flag(True, "mapped")
      .u64(259, "first block").u64(1 << 20, "blocks").flag(False, "mapped"))

KEY = 0x8000_0000_0000_0001
INITIATOR = "iqn.1993-08.org.debian:01:a"
write("check-unit", "0x27 check unit, request: PERSISTENT RESERVE IN.",
      M().header().rules(0, False, True, 0).flag(True, "reservations"))
write("check-unit-sense", "0x27 check unit, request: REQUEST SENSE.",
      M().header().rules(0, True, True, 2).flag(False, "reservations"))
write("check-unit-answer", "0x27 check unit, answer: a fresh unit.",
      M().stamp(2, 5_000_000_000).u64(9, "revision").u32(0, "generation").count(0, "registrations").flag(False, "type?")
      .flag(False, "holder?").flag(False, "reserved by?").mode(False, False, False, 0).mode(False, False, False, 0)
      .data(b"", "identifying information").data(b"", "identifying text").flag(False, "erasure?").flag(False, "attention?")
      .counters(0, 0, 0, 0, 0))
write("check-unit-answer-all", "0x27 check unit, answer: a unit with everything that one can have.",
      M().stamp(2, 5_000_000_000).u64(9, "revision").u32(0xFFFFFFFE, "generation").count(2, "registrations")
      .ports(INITIATOR, 0x00023D000001, 1).u16(7, "relative port identifier").u64(KEY, "key")
      .ports("iqn.2026-01.io.ashlar:é", 0xFFFFFFFFFFFF, 0xFFFF).u16(8, "relative port identifier").u64(2, "key")
      .flag(True, "type?").u8(5, "reservation type").flag(True, "holder?").ports(INITIATOR, 0x00023D000001, 1)
      .flag(True, "reserved by?").u64(3, "nexus").mode(True, False, True, 6).mode(False, True, False, 3)
      .data(bytes(range(0xC0, 0xC8)), "identifying information").data("Ärchiv".encode("utf-8"), "identifying text")
      .flag(True, "erasure?").erasure(3, bytes([0xA5]) * 512, 1 << 20).flag(True, "attention?").u8(7, "attention")
      .counters(70, 80, 71_680, 81_920, 4_096_000))
write("change-unit-register", "0x28 change unit, request: REGISTER with SPEC_I_PT and ALL_TG_PT.",
      M().action(0, 0).u64(KEY, "new key").flag(False, "ignores existing").flag(True, "all ports").count(2, "others")
      .initiator_port("iqn.1993-08.org.debian:01:b", 0x00023D000002).initiator_port("iqn.1993-08.org.debian:01:c")
      .count(2, "target ports").target_port(1, 7).target_port(2, 8))
write("change-unit-unregister", "0x28 change unit, request: REGISTER AND IGNORE EXISTING KEY with key 0.",
      M().action(0, 5).u64(0, "new key").flag(True, "ignores existing").flag(False, "all ports").count(0, "others")
      .count(1, "target ports").target_port(1, 7))
write("change-unit-reserve", "0x28 change unit, request: PERSISTENT RESERVE OUT, RESERVE.",
      M().action(1, KEY).u8(5, "reservation type"))
write("change-unit-release", "0x28 change unit, request: PERSISTENT RESERVE OUT, RELEASE.",
      M().action(2, KEY).u8(8, "reservation type"))
write("change-unit-clear", "0x28 change unit, request: CLEAR.", M().action(3, KEY))
write("change-unit-preempt", "0x28 change unit, request: PREEMPT AND ABORT.",
      M().action(4, KEY).u8(1, "reservation type").u64(2, "victim").flag(True, "aborts"))
write("change-unit-move", "0x28 change unit, request: REGISTER AND MOVE.",
      M().action(5, KEY).u64(3, "new key").flag(True, "unregisters")
      .initiator_port("iqn.1993-08.org.debian:01:b", 0x00023D000002).target_port(2, 8))
write("change-unit-reserve-6", "0x28 change unit, request: RESERVE (6).", M().header().u8(1, "unit action: reserve"))
write("change-unit-release-6", "0x28 change unit, request: RELEASE (6).", M().header().u8(2, "unit action: release"))
write("change-unit-mode-select", "0x28 change unit, request: MODE SELECT with SP.",
      M().header().u8(3, "unit action: mode").mode(True, True, False, 4).flag(True, "saved"))
write("change-unit-identify", "0x28 change unit, request: SET IDENTIFYING INFORMATION, for programs.",
      M().header().u8(4, "unit action: identify").u8(0, "identifying information").data(bytes(range(64)), "information"))
write("change-unit-identify-text", "0x28 change unit, request: SET IDENTIFYING INFORMATION, for people.",
      M().header().u8(4, "unit action: identify").u8(2, "identifying information").data("Ärchiv".encode("utf-8"), "text"))
write("change-unit-overwrite", "0x28 change unit, request: SANITIZE, OVERWRITE.",
      M().header().u8(5, "unit action: erase").erasure(3, bytes([0xA5]) * 512, 0).flag(True, "immediate"))
write("change-unit-format", "0x28 change unit, request: FORMAT UNIT.",
      M().header().u8(5, "unit action: erase").erasure(4, b"", 0).flag(False, "immediate"))
write("manage-unit", "0x29 manage unit, request: LOGICAL UNIT RESET.", M().header().u8(5, "function"))
write("copy", "0x2A copy, request.", M().header().u64(4096, "source").u64(1 << 20, "destination").u64(8192, "bytes"))
write("begin-direct", "0x2B begin direct, request.", M().i64(7, "volume").u64(2, "epoch").u32(4, "objects wanted"))
write("begin-direct-answer", "0x2B begin direct, answer.",
      M().stamp(2, 5_000_000_000).count(2, "grants")
      .u64(99, "object").u64(1001, "first version").u32(1024, "slots")
      .u64(100, "object").u64(2025, "first version").u32(1024, "slots"))
write("map-direct", "0x2C map direct, request.",
      M().i64(7, "volume").u64(99, "object").i32(1, "object server").u64(135_000, "size").count(2, "writes")
      .u64(3, "nexus").u64(41, "command").u64(40, "low water").stamp(2, 5_000_000_000, "proved")
      .u64(16, "first block").u64(16, "blocks")
      .u64(5, "nexus").u64(9, "command").u64(9, "low water").stamp(2, 4_000_000_000, "proved")
      .u64(64, "first block").u64(17, "blocks"))
write("map-direct-answer", "0x2C map direct, answer.",
      M().count(2, "outcomes").u32(0, "status: ok").stamp(2, 6_000_000_000).u64(0, "detail")
      .u32(29, "status: stale").stamp(2, 6_000_000_000).u64(0, "detail"))
write("write-through", "0x2D write through, request; the payload is not part of it.",
      M().header().u64(65_536, "offset").checksums(0xE3069283, 0x8A9136AA)
      .u64(99, "object").u32(16, "first slot"))
write("map-through", "0x2E map through, request.",
      M().i64(7, "volume").u64(99, "object").i32(1, "object server").u64(10_000, "size").count(1, "writes")
      .u64(3, "nexus").u64(41, "command").u64(40, "low water").stamp(2, 5_000_000_000, "proved")
      .u64(16, "first block").u64(2, "blocks"))
write("command-answer", "Answer to 0x14, 0x21 to 0x25, 0x28 to 0x2A; also the detail of their refusals.",
      M().stamp(2, 5_000_000_000).u64(1024, "detail"))

# Section 12: agents.
write("move-work", "0x30 move work, request.", M().string("agent-1", "agent"))
write("move-work-answer", "0x30 move work, answer: two blocks; the payload is not part of it.",
      M().work(99).count(2, "blocks").u64(16, "block").u64(1001, "version").u32(0xE3069283, "checksum")
      .u64(17, "block").u64(1002, "version").u32(0x8A9136AA, "checksum"))
write("map-move", "0x31 map move, request.",
      M().i64(7, "volume").u64(99, "object").i32(1, "object server").u64(8400, "size").count(2, "slots")
      .u64(16, "block").u64(1001, "version").u64(17, "block").u64(1002, "version"))
write("count-answer", "Answer to 0x16, 0x31, 0x32, 0x34, 0x36, 0x50, 0x52, 0x53.", M().u64(2, "done").u64(5, "left"))
write("evict", "0x32 evict, request: no fields.", M())
write("compaction-work", "0x33 compaction work, request: no fields.", M())
write("compaction-work-answer", "0x33 compaction work, answer.",
      M().work(120).count(2, "runs").u64(16, "first block").u64(2, "blocks").u64(99, "source").i32(1, "object server")
      .u32(0, "first slot").flag(False, "copy?").u64(64, "first block").u64(1, "blocks").u64(98, "source")
      .i32(2, "object server").u32(7, "first slot").flag(True, "copy?").u64(32, "written as block").u64(1003, "version"))
write("map-compaction", "0x34 map compaction, request.",
      M().i64(7, "volume").u64(120, "object").i32(1, "object server").u64(12_600, "size").count(1, "slots")
      .u64(16, "block").u64(1001, "version").u64(99, "source").u32(0, "source slot"))
write("collect", "0x35 collect, request.", M().u64(600_000, "intent age in ms").u64(60_000, "grace in ms"))
write("collect-answer", "0x35 collect, answer: the second was never mapped.",
      M().count(2, "objects").u64(99, "object").i32(1, "object server").u64(97, "object").i32(0, "object server"))
write("forget-objects", "0x36 forget objects, request.", M().ids("objects", 99, 97))
write("known-objects", "0x37 known objects, request and answer.", M().ids("objects", 98, 99))
write("database-age", "0x38 database age, request.",
      M().count(2, "marks").i32(1, "object server").u64(41, "clock").u64(99, "highest object")
      .i32(2, "object server").u64(0, "clock").u64(0, "highest object"))
write("database-age-answer", "0x38 database age, answer.", M().flag(True, "behind").u64(7, "clock").u64(64, "next object"))
write("scrub-work", "0x39 scrub work, request: no fields.", M())
write("scrub-work-answer", "0x39 scrub work, answer.",
      M().u64(12, "token").count(1, "objects").u64(99, "object").i32(1, "object server").u32(2, "slots").u64(8400, "size")
      .u64(128, "items verified"))
write("report-objects", "0x3A report objects, request: two slots are damaged, a sound object, a missing one.",
      M().u64(12, "token").count(3, "objects").u64(99, "object").u8(1, "state: damaged").count(2, "slots").u32(0, "slot").u32(5, "slot")
      .u64(100, "object").u8(0, "state: sound").count(0, "slots").u64(101, "object").u8(4, "state: missing").count(0, "slots"))
write("draining-servers", "0x3B draining servers, request: no fields.", M())
write("draining-servers-answer", "0x3B draining servers, answer.", M().count(2, "servers").i32(1, "server").i32(3, "server"))

# Section 13: object servers.
write("put-object", "0x40 put object, request; the object's bytes are the payload.", M().u64(99, "object"))
write("get-slots", "0x41 get slots, request.", M().u64(99, "object").u32(5, "first slot").u32(3, "count"))
write("get-slots-answer", "0x41 get slots, answer: plain, zlib, zeros; the payload is not part of it.",
      M().u32(4096, "data block").count(3, "slots")
      .u64(16, "block").u64(1001, "version").u32(0xE3069283, "checksum").u8(0, "encoding: plain").u32(4096, "stored bytes")
      .u64(17, "block").u64(1002, "version").u32(0x8A9136AA, "checksum").u8(1, "encoding: zlib").u32(700, "stored bytes")
      .u64(18, "block").u64(1003, "version").u32(0x98F94189, "checksum").u8(2, "encoding: zeros").u32(0, "stored bytes"))
write("delete-object", "0x42 delete object, request.", M().u64(99, "object"))
write("list-objects", "0x43 list objects, request for the first page.", M().flag(False, "after?").u32(10_000, "limit"))
write("list-objects-next", "0x43 list objects, request for a further page.",
      M().flag(True, "after?").u64(98, "after").u32(10_000, "limit"))
write("list-objects-answer", "0x43 list objects, answer.", M().ids("objects", 300, 98).flag(True, "next?").u64(98, "next"))
write("list-objects-answer-last", "0x43 list objects, last answer.", M().ids("objects").flag(False, "next?"))
write("verify-object", "0x44 verify object, request.", M().u64(99, "object"))
write("object-statistics", "0x45 object statistics, request: no fields.", M())
write("object-statistics-answer", "0x45 object statistics, answer.",
      M().i32(1, "object server").u64(12, "objects").u64(50_331_648, "bytes").u64(1 << 40, "free bytes").u32(1, "roots out of service"))
write("object-header", "0x46 object header, request.", M().u64(99, "object"))
write("object-header-answer", "0x46 object header, answer.",
      M().i64(7, "volume").put(UUID, "UUID").u32(4096, "data block").u64(8400, "size").count(2, "slots")
      .u64(16, "block").u64(1001, "version").u64(17, "block").u64(1002, "version"))
write("raise-clock", "0x47 raise clock, request.", M().u64(41, "clock"))
write("raise-clock-answer", "0x47 raise clock, answer.", M().u64(41, "clock").u64(99, "highest object"))

# Section 14: administration.
write("reload-volume", "0x50 reload volume, request.", M().i64(7, "volume"))
write("cache-statistics", "0x51 cache statistics, request: no fields.", M())
write("cache-statistics-answer", "0x51 cache statistics, answer.",
      M().u64(268_435_456, "bytes of the memory image").u64(1000, "commits").u64(64_000, "blocks committed").count(1, "volumes")
      .i64(7, "volume").u64(2, "epoch").u32(4, "nexuses").u64(500, "unmoved items").u64(4_096_000, "cached bytes")
      .u64(70, "reads").u64(80, "writes"))
write("move-now", "0x52 move now, request.", M().i64(7, "volume"))
write("delete-volume-step", "0x53 delete volume step, request.", M().i64(7, "volume"))
