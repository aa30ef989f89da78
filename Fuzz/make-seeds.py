#!/usr/bin/env python3
"""Writes the first files of the corpus: valid PDUs, commands, frames, messages and objects.

    Fuzz/make-seeds.py FOLDER

Each file begins with the bytes of options that the head of its target's source explains. The bytes behind them are written
from the standards and from the vectors in proto/vectors, not by the code that reads them.
"""
import pathlib
import struct
import sys
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "proto" / "vectors"

# The places of the messages in `messageTypes` of RPCMessagesFuzzing.swift.
MESSAGES = """
look-up-volume look-up-volume-answer list-volumes list-volumes-answer open-nexus open-nexus-answer resume-nexus
resume-nexus-answer close-nexus stamps stamps-answer target-heartbeat read read-answer write zero compare-and-write fence
command-answer move-work move-work-answer map-move map-compaction count-answer evict compaction-work
compaction-work-answer collect collect-answer forget-objects known-objects put-object get-slots get-slots-answer
delete-object list-objects list-objects-answer verify-object object-statistics object-statistics-answer reload-volume
cache-statistics cache-statistics-answer move-now delete-volume-step target-report target-report-answer nexus-states
or-write map-status map-status-answer check-unit check-unit-answer change-unit manage-unit copy
database-age database-age-answer scrub-work scrub-work-answer report-objects draining-servers draining-servers-answer
object-header object-header-answer raise-clock raise-clock-answer begin-direct begin-direct-answer map-direct
map-direct-answer find-slots find-slots-answer hello hello-answer goaway error
""".split()
SAME_MESSAGE = {
    "look-up-volume-answer-elsewhere": "look-up-volume-answer",
    "list-objects-next": "list-objects",
    "list-objects-answer-last": "list-objects-answer",
    "check-unit-sense": "check-unit",
    "check-unit-answer-all": "check-unit-answer",
}


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def vector(name):
    data = b""
    for line in (VECTORS / f"{name}.hex").read_text().splitlines():
        data += bytes.fromhex(line.split("#")[0])
    return data


# --- iSCSI -----------------------------------------------------------------------------------------------------------


def pdu(opcode, flags=0x80, specific=0, lun=0, tag=1, words=(), data=b"", additional=b"", digests=False):
    words = list(words) + [0] * (7 - len(words))
    header = struct.pack(
        ">BBHIQI7I", opcode, flags, specific, (len(additional) // 4) << 24 | len(data), lun, tag, *words
    )
    header += additional
    if digests:
        header += struct.pack("<I", crc32c(header))
    data += bytes(-len(data) % 4)
    if digests and data:
        data += struct.pack("<I", crc32c(data))
    return header + data


def text(**keys):
    return b"".join(f"{name}={value}".encode() + b"\0" for name, value in keys.items())


IDENTITY = {
    "InitiatorName": "iqn.2026-01.test:initiator",
    "SessionType": "Normal",
    "TargetName": "iqn.2026-01.test:volume",
}
OPERATIONAL = {
    "HeaderDigest": "CRC32C,None",
    "DataDigest": "None",
    "MaxRecvDataSegmentLength": "262144",
    "InitialR2T": "No",
    "ImmediateData": "Yes",
    "MaxBurstLength": "16776192",
    "FirstBurstLength": "262144",
    "MaxOutstandingR2T": "1",
    "MaxConnections": "1",
    "ErrorRecoveryLevel": "0",
    "DefaultTime2Wait": "2",
    "DefaultTime2Retain": "0",
    "IFMarker": "No",
    "OFMarker": "No",
    "DataPDUInOrder": "Yes",
    "DataSequenceInOrder": "Yes",
    "X-com.example.key": "value",
}
ISID = 0x400001370001 << 16
NONE = 0xFFFFFFFF


def login(flags, keys, status=0):
    return pdu(0x43, flags, lun=ISID, tag=0, words=(1 << 16, 100, status), data=text(**keys))


def command(number, cdb, flags=0x81, expected=0, tag=1, data=b"", additional=b"", digests=False, opcode=1):
    cdb = cdb + bytes(16 - len(cdb))
    words = (expected, number, 1) + struct.unpack(">4I", cdb[:16])
    return pdu(opcode, flags, tag=tag, words=words, data=data, additional=additional, digests=digests)


READ_10 = bytes.fromhex("28000000000000000100")
WRITE_10 = bytes.fromhex("2a000000000000000100")
INQUIRY = bytes.fromhex("120000006000")


def iscsi_pdus(digests=False):
    extended = struct.pack(">HBB", 17, 1, 0) + bytes(16)
    bidirectional = struct.pack(">HBBI", 5, 2, 0, 512)
    return {
        "inquiry": command(100, INQUIRY, 0xC1, 96, digests=digests),
        "read": command(101, READ_10, 0xC1, 512, 2, digests=digests),
        "write-immediate": command(102, WRITE_10, 0xA1, 512, 3, bytes(range(256)) * 2, digests=digests),
        "write-solicited": command(103, WRITE_10, 0xA1, 2048, 4, bytes(100), digests=digests),
        "write-unsolicited": command(104, WRITE_10, 0x21, 1024, 5, bytes(512), digests=digests)
        + pdu(0x05, 0x80, tag=5, words=(NONE, 0, 1, 0, 0, 512), data=bytes(512), digests=digests),
        "data-out": pdu(0x05, 0x80, tag=4, words=(1, 0, 2, 0, 0, 100), data=bytes(1948), digests=digests),
        "extended-cdb": command(105, b"\x7f" + bytes(6) + b"\x18", 0xC1, 512, 6, b"", extended, digests),
        "bidirectional": command(105, b"\x53", 0xE1, 512, 6, bytes(512), bidirectional, digests),
        "nop-out": pdu(0x40, 0x80, tag=7, words=(NONE, 100, 1), data=b"ping", digests=digests),
        "nop-answer": pdu(0x40, 0x80, tag=NONE, words=(1, 100, 1), digests=digests),
        "abort-task": pdu(0x42, 0x81, tag=8, words=(2, 100, 1, 101), digests=digests),
        "logical-unit-reset": pdu(0x42, 0x85, tag=8, words=(NONE, 100, 1), digests=digests),
        "text": pdu(0x44, 0x80, tag=9, words=(NONE, 100, 1), data=text(SendTargets=""), digests=digests),
        "logout": pdu(0x46, 0x80, tag=10, words=(1 << 16, 100, 1), digests=digests),
        "snack": pdu(0x10, 0x81, tag=2, words=(NONE, 0, 1, 0, 0, 1), digests=digests),
        "ordered": command(100, INQUIRY, 0xC2, 96, 11, digests=digests),
        "head-of-queue": command(100, INQUIRY, 0xC3, 96, 12, digests=digests, opcode=0x41),
    }


def iscsi_frame():
    for digests in (False, True):
        pdus = iscsi_pdus(digests)
        for name, data in pdus.items():
            yield f"{name}-{digests:d}", bytes([3 * digests, 7]) + data
        yield f"all-{digests:d}", bytes([3 * digests, 61]) + b"".join(pdus.values())
    yield "all-encoded", bytes([7, 33]) + b"".join(iscsi_pdus().values())
    yield "login", bytes([0, 5]) + login(0x87, IDENTITY | OPERATIONAL)


# Steps of ISCSIFuzzSession: command, data, ...
def step(kind, flags, tags, word=0, numbers=0, status=0, rest=bytes(2), data=b""):
    return bytes([kind, flags, tags]) + struct.pack(">HBB", word, numbers, status) + rest + struct.pack(
        ">H", len(data)
    ) + data


def iscsi_connection():
    pdus = iscsi_pdus()
    for options in (0x02, 0x42, 0x12, 0x82):
        yield f"stream-{options:02x}", bytes([options, 0]) + b"".join(pdus.values())
        yield f"portions-{options:02x}", bytes([options, 100]) + b"".join(pdus.values())
    yield "stream-digests", bytes([0x0A, 50]) + b"".join(iscsi_pdus(True).values())
    yield "discovery", bytes([0x12, 0]) + pdu(0x44, 0x80, tag=9, words=(NONE, 100, 1), data=text(SendTargets="All"))
    direct = login(0x87, IDENTITY | OPERATIONAL)
    yield "login-direct", bytes([0x03, 0]) + direct + pdus["inquiry"]
    staged = login(0x81, IDENTITY | {"AuthMethod": "None"}) + login(0x87, OPERATIONAL, 2)
    yield "login-staged", bytes([0x03, 9]) + staged + pdus["read"]
    parts = login(0x44, IDENTITY) + login(0x87, OPERATIONAL, 2)
    yield "login-continued", bytes([0x03, 0]) + parts
    chap = (
        login(0x00, IDENTITY | {"AuthMethod": "CHAP,None"})
        + login(0x00, {"CHAP_A": "7,5"}, 2)
        + login(0x81, {"CHAP_N": "user", "CHAP_R": "0x" + "00" * 32, "CHAP_I": "17", "CHAP_C": "0b" + "AAAA" * 8}, 3)
    )
    yield "login-chap", bytes([0x23, 0]) + chap
    for name, data in pdus.items():
        yield f"one-{name}", bytes([0x02, 0]) + data
    inquiry = step(0x00, 0xC1, 0xF1, 96)
    write = step(0x00, 0xA1, 0xF2, 2048, data=bytes(256))
    unsolicited = step(0x00, 0x21, 0xF3, 1024, data=bytes(128)) + step(0x02, 0x80, 0xF3, data=bytes(896))
    answer = step(0x02, 0x80, 0x02, rest=bytes([0, 4]), data=bytes(1024)) + b"\x12\x80"
    manage = step(0x04, 0x82, 0xF4) + bytes([10, 0, 0])
    late = step(0x01, 0xC1, 0xF5, 512, numbers=2) + step(0x01, 0xC2, 0xF6, 512, numbers=0)
    search = step(0x05, 0x80, 0xF7, data=text(SendTargets="")) + bytes([11, 3])
    live = bytes([12, 14]) + step(0x43, 0x80, 0x0F, status=3) + bytes([13, 11, 13, 250])
    done = bytes([9, 0, 0x40, 9, 0, 0x45, 9, 0, 7])
    for options in (0x00, 0x04, 0x08, 0x40, 0x80):
        yield f"steps-{options:02x}", bytes([options, 0]) + inquiry + write + answer + manage + late + live + done
        yield f"unsolicited-{options:02x}", bytes([options, 0]) + unsolicited + search + done + step(0x06, 0x80, 0xF8)
    yield "steps-login", bytes([0x01, 0]) + step(0x48, 0x87, 0x00, data=text(**IDENTITY)) + bytes([15, 16, 15, 16])
    yield "steps-refused", bytes([0x01, 0]) + step(0x48, 0x87, 0x00, data=text(**IDENTITY)) + bytes([15, 30])
    yield "steps-discovery", bytes([0x10, 0]) + step(0x05, 0x80, 0xF7, data=text(SendTargets="All")) + bytes([11, 40])


def text_keys():
    yield "identity", b"\0" + text(**IDENTITY)
    yield "operational", b"\x20" + text(**OPERATIONAL)
    yield "send-targets", b"\0" + text(SendTargets="All")
    yield "chap", b"\x10" + text(CHAP_N="user", CHAP_R="0x0123456789abcdef", CHAP_C="0bAAECAwQFBgc=", CHAP_I="255")
    yield "numbers", b"\0" + text(A="0x1F", B="65535", C="0", D="18446744073709551615", E="0XaB", F="0B", G="0b")
    yield "answers", b"\0" + text(A="NotUnderstood", B="Reject", C="Irrelevant", D="None,CRC32C", E="")
    yield "utf8", b"\0" + "InitiatorAlias=\u00e4\u4e2d\U0001f600\0".encode()
    yield "double", b"\0" + b"A=1\0A=2\0"
    yield "open", b"\0" + b"A=1"


# --- PROXY protocol --------------------------------------------------------------------------------------------------

def proxy_header():
    signature = b"\r\n\r\n\0\r\nQUIT\n"

    def header(first, family, block, length=None):
        return signature + struct.pack(">BBH", first, family, len(block) if length is None else length) + block

    ipv4 = bytes([192, 0, 2, 1, 192, 0, 2, 100]) + struct.pack(">HH", 49153, 3260)
    ipv6 = bytes.fromhex("20010db8000000000000000000000001" * 2) + struct.pack(">HH", 49153, 3260)
    tlv = b"\x04" + struct.pack(">H", 8) + bytes(8)
    yield "ipv4", b"\0" + header(0x21, 0x11, ipv4) + b"login"
    yield "ipv6", b"\5" + header(0x21, 0x21, ipv6) + b"login"
    yield "unix", b"\x20" + header(0x21, 0x31, b"/run/proxy.sock".ljust(108, b"\0") * 2)
    yield "unspecified", b"\1" + header(0x21, 0, b"")
    yield "local", b"\0" + header(0x20, 0, b"") + b"login"
    yield "tlvs", b"\x10" + header(0x21, 0x11, ipv4 + 3 * tlv) + b"login"
    yield "longest", b"\xff" + header(0x21, 0x11, ipv4.ljust(520, b"\xee")) + b"login"
    yield "too-long", b"\0" + header(0x21, 0x11, ipv4.ljust(521, b"\xee"))
    yield "too-short", b"\0" + header(0x21, 0x11, ipv4, 11)
    yield "datagram", b"\0" + header(0x21, 0x12, ipv4)
    yield "version-1", b"\0PROXY TCP4 192.0.2.1 192.0.2.100 49153 3260\r\n"


# --- iSNS ------------------------------------------------------------------------------------------------------------


def isns_pdu(function, attributes=(), status=None, flags=0x4C00, transaction=1, sequence=0):
    payload = b"" if status is None else struct.pack(">I", status)
    for tag, value in attributes:
        payload += struct.pack(">II", tag, len(value)) + value
    return struct.pack(">6H", 1, function, len(payload), flags, transaction, sequence) + payload


def isns():
    name, entity = (32, b"iqn.a\0\0\0"), (1, b"e1\0\0")
    portal = [(16, bytes(10) + b"\xff\xff\x0a\0\0\1"), (17, struct.pack(">I", 3260))]
    delimiter, time = (0, b""), (4, struct.pack(">Q", 1))
    inquiry = isns_pdu(13, [time, entity, *portal])
    notification = isns_pdu(8, [name, time, (35, struct.pack(">I", 8)), (32, b"iqn.b\0\0\0"), (2065, bytes(4))])
    asked = isns_pdu(0x8002, [entity, delimiter, *portal, name], 0, transaction=1)
    nothing = isns_pdu(0x8002, status=9, transaction=1)
    registered = isns_pdu(0x8001, [entity, delimiter, (6, struct.pack(">I", 60))], 0, transaction=2)
    refused = isns_pdu(0x8001, status=3, transaction=2)
    no_inquiries = isns_pdu(0x8001, status=21, transaction=2)
    subscribed = isns_pdu(0x8005, status=0, transaction=3)
    for options in (0, 1, 3):
        yield f"inquiry-{options}", bytes([options, 0]) + inquiry
        yield f"registration-{options}", bytes([options, 0]) + asked + registered + subscribed + notification
        yield f"portions-{options}", bytes([options, 20]) + nothing + registered + subscribed
        yield f"refusals-{options}", bytes([options, 0]) + nothing + refused + isns_pdu(0x8001, status=3, transaction=3)
        yield f"no-inquiries-{options}", bytes([options, 0]) + nothing + no_inquiries
    yield "several", bytes([1, 7]) + inquiry + notification + isns_pdu(14) + isns_pdu(13) + isns_pdu(8)
    first = isns_pdu(0x8002, [entity, delimiter], 0, flags=0x4400)
    rest = isns_pdu(0x8002, portal, flags=0x4800, sequence=1)
    yield "joined", bytes([1, 0]) + first + rest
    yield "not-joined", bytes([1, 0]) + first + first
    yield "signed", bytes([1, 0]) + isns_pdu(13, [time, entity, *portal], flags=0x6C00)
    yield "long-attribute", bytes([1, 0]) + inquiry[:12] + b"\0\0\0\1\xff\xff\xff\xfc" + inquiry[20:]


# --- SCSI ------------------------------------------------------------------------------------------------------------

CDBS = """
test-unit-ready 000000000000
request-sense 03000000fc00
request-sense-descriptor 03010000fc00
inquiry 12000000ff00
vpd-00 12010000ff00
vpd-80 12018000ff00
vpd-83 12018300ff00
vpd-86 12018600ff00
vpd-8f 12018f00ff00
vpd-b0 1201b000ff00
vpd-b1 1201b100ff00
vpd-b2 1201b200ff00
mode-sense-6 1a003f00ff00
mode-sense-10 5a003f00000000010000
start-stop 1b0000000100
read-capacity-10 25000000000000000000
read-capacity-16 9e100000000000000000000000200000
get-lba-status 9e120000000000000000000000400000
read-6 080000000100
read-10 28000000000000000100
read-12 a80000000000000000010000
read-16 88000000000000000000000000080000
write-6 0a0000000100
write-10 2a000000000000000100
write-12 aa0000000000000000020000
write-16 8a000000000000000000000000080000
write-and-verify 2e000000000000000100
or-write 8b000000000000000000000000010000
write-atomic 9c000000000000000000000000010000
verify-10 2f000000000000000100
verify-compare 2f020000000000000100
verify-one 2f060000000000000400
verify-16 8f000000000000000000000000010000
compare-and-write 89000000000000000000000000010000
write-same-10 41000000000000000800
write-same-unmap 93080000000000000000000000080000
write-same-16 93000000000000000000000000080000
unmap 42000000000000001800
synchronize-10 35000000000000000000
synchronize-16 91000000000000000000000000000000
report-luns a0000000000000000100 0000
report-opcodes a30c00000000000020000000
report-opcode a30c01280000000020000000
report-timestamp a30f00000000000020000000
persistent-reserve-in 5e000000000000002000
reserve-6 160000000000
prevent-removal 1e0000000000
prefetch 34000000000000000100
read-defect-data 37001800000000002000
sanitize-block-erase 48820000000000000000
format-unit 040000000000
copy-status 84000100000000000000000000200000
copy-status-long 84050000000100000000000000400000
copy-parameters 84030000000000000000000000400000
log-sense 4d000000000000002000
variable 7f00000000000018000b000000000000
""".strip()


def cdb():
    unmap = struct.pack(">HHIQII", 22, 16, 0, 8, 16, 0)
    for line in CDBS.splitlines():
        name, digits = line.split(" ", 1)
        data = bytes.fromhex(digits)
        rest = unmap if name == "unmap" else b"\1" * 512 if name == "write-same-16" else bytes(range(64))
        mode = 1 if name in ("unmap", "write-same-16", "write-same-unmap") else 2
        yield name, bytes([0, mode, len(data)]) + data + rest
    for unit in range(1, 5):
        data = bytes.fromhex("2a000000000000000100")
        yield f"write-unit-{unit}", bytes([unit, 2, len(data)]) + data + b"\1"
    data = bytes.fromhex("89000000000000000000000000010000")
    yield "compare-and-write-whole", bytes([0, 1, 16]) + data + bytes(1024)
    # Lists of SANITIZE, FORMAT UNIT and EXTENDED COPY (LID1) and (LID4).
    pattern = bytes.fromhex("82000004") + b"abcd"
    yield "sanitize-overwrite", bytes([0, 1, 10]) + bytes.fromhex("48010000000000000800") + pattern
    yield "format-unit-list", bytes([0, 1, 6]) + bytes.fromhex("041800000000" "00820000")
    device = struct.pack(">BBHBBBB20sI", 0xE4, 0, 0, 1, 3, 0, 8, bytes.fromhex("3808080808080808"), 512)
    segment = struct.pack(">BBHHHHHQQ", 2, 0, 24, 0, 0, 0, 8, 0, 64)
    short = struct.pack(">BBHIII", 1, 0x10, 32, 0, 28, 0) + device + segment
    long = struct.pack(">BBH11xBB3xI18xHHH", 1, 0, 32, 1, 0xFF, 1, 32, 28, 0) + device + segment
    for name, action, copy in [("extended-copy", 0, short), ("extended-copy-long", 1, long)]:
        yield name, bytes([0, 1, 16]) + struct.pack(">BB8xIxx", 0x83, action, len(copy)) + copy
    yield "request-sense-pending", bytes([0, 0x10, 6]) + bytes.fromhex("03000000fc00")
    yield "other-unit", bytes([0, 0x0C, 6]) + bytes.fromhex("12000000ff00")


# --- RPC -------------------------------------------------------------------------------------------------------------


def frame(kind, body=b"", flags=0, number=0, word=0, credit=0):
    return struct.pack(">IHHQII", 24 + len(body), kind, flags, number, word, credit) + body


def rpc_frame():
    names = sorted(path.stem for path in VECTORS.glob("*.hex") if not path.stem.startswith("message-"))
    for name in names:
        data = vector(name)
        for options in (0x04, 0x05, 0x06, 0x07):
            yield f"{name}-{options}", bytes([options, 0]) + data
    several = b"".join(frame(0x10, bytes(100), number=1 << 16 | n) for n in range(1, 9)) + frame(2) + frame(3, credit=64)
    yield "several", bytes([0x04, 13]) + several
    node = struct.pack(">H", 6) + b"target" + bytes.fromhex("00112233445566778899aabbccddeeff") + b"\0\x08target-1"
    hello = frame(1, struct.pack(">IHH", 0x4153484C, 1, 1) + node + struct.pack(">IQ", 8192, 0))
    yield "own-hello", bytes([0x06, 0]) + hello + several
    node = struct.pack(">H", 5) + b"cache" + bytes.fromhex("00112233445566778899aabbccddeeff") + b"\0\x07cache-1"
    answer = struct.pack(">HIHH", 0, 0x4153484C, 1, 1) + node + struct.pack(">IQ", 8192, 0)
    yield "own-hello-answer", bytes([0x07, 0]) + frame(1, answer, flags=1) + several
    request = bytes([0x00, 0, 1, 5, 4]) + struct.pack(">H", 40) + bytes(40)
    ask = bytes([7, 1]) + struct.pack(">HB", 1500, 20)
    reply = bytes([12, 0, 0, 0, 3]) + b"abc"
    respond = bytes([6, 0]) + struct.pack(">H", 1000)
    away = bytes([0x40, 0, 0, 0, 0]) + struct.pack(">H", 12) + bytes(12)
    for side in (0, 1):
        yield f"steps-{side}", bytes([side, 0]) + request * 3 + ask * 2 + respond + reply + bytes([9, 10])
        yield f"flood-{side}", bytes([side, 0]) + ask * 20 + request * 18 + respond * 18
        yield f"drain-{side}", bytes([side, 0]) + ask * 8 + away + bytes([10, 0]) + request + reply + bytes([9, 255])


def rpc_messages():
    for path in sorted(VECTORS.glob("message-*.hex")):
        name = path.stem.removeprefix("message-")
        message = "change-unit" if name.startswith("change-unit-") else SAME_MESSAGE.get(name, name)
        place = MESSAGES.index(message)
        yield name, bytes([place]) + vector(path.stem)
    for name, message in {
        "hello": "hello",
        "hello-answer-accepted": "hello-answer",
        "hello-answer-refused": "hello-answer",
        "goaway": "goaway",
        "answer-wrong-epoch": "error",
    }.items():
        yield name, bytes([MESSAGES.index(message)]) + vector(name)[24:]


# --- Block objects ---------------------------------------------------------------------------------------------------


def block_object(slots, size=512, number=7):
    """An object of (block, version, encoding, plain, stored) slots; see the table in BlockObjectHeader.swift."""
    header_bytes = 64 + 36 * len(slots) + 4
    entries, bodies = b"", b""
    for block, version, encoding, plain, stored in slots:
        offset = header_bytes + len(bodies)
        entries += struct.pack(
            ">QQIIIIB3x", block, version, crc32c(plain), crc32c(stored), offset, len(stored), encoding
        )
        bodies += stored
    prefix = struct.pack(">8sHHIIIQQ", b"ASHLARBO", 1, 0, header_bytes, len(slots), size, number, 42)
    prefix += bytes(range(16)) + struct.pack(">I", header_bytes + len(bodies))
    prefix += struct.pack(">I", crc32c(prefix))
    header = prefix + entries
    return header + struct.pack(">I", crc32c(header)) + bodies


def object_header():
    plain = bytes((7 * index + 3) & 0xFF for index in range(512))
    words = (b"ashlar " * 80)[:512]
    packed = zlib.compress(words, 9)
    zeros = bytes(512)
    whole = {
        "plain": [(5, 100, 0, plain, plain)],
        "zeros": [(6, 101, 2, zeros, b"")],
        "zlib": [(9, 102, 1, words, packed)],
        "all": [(5, 100, 0, plain, plain), (6, 101, 2, zeros, b""), (9, 102, 1, words, packed)],
        "descending": [(9, 1, 2, zeros, b""), (5, 1, 2, zeros, b""), (5, 2, 2, zeros, b"")],
        "double": [(9, 1, 2, zeros, b""), (5, 1, 2, zeros, b""), (5, 1, 2, zeros, b"")],
        "stream-too-long": [(9, 102, 1, words, zlib.compress(words + b"x", 9))],
        "stream-too-short": [(9, 102, 1, words, zlib.compress(words[:-1], 9))],
        "bytes-behind-stream": [(9, 102, 1, words, packed + b"\0")],
    }
    for name, slots in whole.items():
        data = block_object(slots)
        for options in (0, 3):
            yield f"{name}-{options}", bytes([options]) + data
    data = block_object(whole["all"])
    yield "truncated-header", b"\1" + data[:100]
    yield "truncated-body", b"\1" + data[:-10]
    yield "large-blocks", b"\0" + block_object([(0, 1, 2, bytes(65536), b"")], 65536)
    yield "stream-only", b"\0" + packed


TARGETS = {
    "iscsi-frame": iscsi_frame,
    "iscsi-connection": iscsi_connection,
    "text-keys": text_keys,
    "proxy-header": proxy_header,
    "isns": isns,
    "cdb": cdb,
    "rpc-frame": rpc_frame,
    "rpc-messages": rpc_messages,
    "object-header": object_header,
}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for target, seeds in TARGETS.items():
        folder = pathlib.Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in seeds():
            (folder / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
