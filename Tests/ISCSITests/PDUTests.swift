import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// Headers written out by hand from RFC 7143, section 11.
@Suite struct PDUTests {
    /// Encodes and compares, decodes and encodes again.
    private func check<P: PDU>(_ pdu: P, _ opcode: Opcode, _ golden: String) throws {
        let bytes = hex(golden)
        #expect(bytes.readableBytes == 48)
        var encoded = ByteBuffer()
        pdu.header.write(into: &encoded)
        #expect(encoded == bytes)
        let header = try #require(BasicHeader(peeking: bytes))
        #expect(header.opcode == opcode)
        var again = ByteBuffer()
        P(header).header.write(into: &again)
        #expect(again == bytes)
    }

    private let numbers = TargetNumbers(status: 0x0A0B_0C0D, expectedCommand: 0x11, maximumCommand: 0x90)

    @Test func nopOut() throws {
        var pdu = NopOutPDU()
        pdu.isImmediate = true
        pdu.lun = 0x0001_0000_0000_0000
        pdu.tag = 0x0102_0304
        pdu.commandNumber = 0x55
        pdu.expectedStatus = 0x66
        try check(
            pdu,
            .nopOut,
            """
            40 80 0000 00 000000 0001000000000000 01020304 ffffffff 00000055 00000066
            00000000 00000000 00000000 00000000
            """
        )
    }

    @Test func nopIn() throws {
        var pdu = NopInPDU()
        pdu.transferTag = 7
        pdu.numbers = numbers
        try check(
            pdu,
            .nopIn,
            """
            20 80 0000 00 000000 0000000000000000 ffffffff 00000007 0a0b0c0d 00000011
            00000090 00000000 00000000 00000000
            """
        )
    }

    @Test func scsiCommand() throws {
        var pdu = SCSICommandPDU()
        pdu.isRead = true
        pdu.attribute = 1
        pdu.lun = 0x0002_0000_0000_0000
        pdu.tag = 0x1000_0001
        pdu.expectedDataTransferLength = 4_096
        pdu.commandNumber = 9
        pdu.expectedStatus = 10
        pdu.cdb = [0x28, 0, 0, 0, 0x10, 0, 0, 0, 8, 0]
        try check(
            pdu,
            .scsiCommand,
            """
            01 c1 0000 00 000000 0002000000000000 10000001 00001000 00000009 0000000a
            28000000 10000000 08000000 00000000
            """
        )
        pdu.isRead = false
        pdu.isWrite = true
        pdu.isFinal = false
        pdu.attribute = 2
        pdu.isImmediate = true
        try check(
            pdu,
            .scsiCommand,
            """
            41 22 0000 00 000000 0002000000000000 10000001 00001000 00000009 0000000a
            28000000 10000000 08000000 00000000
            """
        )
    }

    @Test func scsiResponse() throws {
        var pdu = SCSIResponsePDU()
        pdu.tag = 3
        pdu.status = 2
        pdu.numbers = numbers
        pdu.expectedDataSN = 4
        pdu.residual = Residual(isOverflow: false, isUnderflow: true, count: 512)
        try check(
            pdu,
            .scsiResponse,
            """
            21 82 0002 00 000000 0000000000000000 00000003 00000000 0a0b0c0d 00000011
            00000090 00000004 00000000 00000200
            """
        )
        pdu.response = 1
        pdu.status = 0
        pdu.residual = Residual(isOverflow: true, isUnderflow: false, count: 1)
        pdu.bidirectionalResidual = Residual(isOverflow: false, isUnderflow: true, count: 2)
        try check(
            pdu,
            .scsiResponse,
            """
            21 8c 0100 00 000000 0000000000000000 00000003 00000000 0a0b0c0d 00000011
            00000090 00000004 00000002 00000001
            """
        )
    }

    @Test func taskManagement() throws {
        var request = TaskManagementRequestPDU()
        request.isImmediate = true
        request.function = 1
        request.lun = 0x0003_0000_0000_0000
        request.tag = 8
        request.referencedTag = 7
        request.commandNumber = 20
        request.expectedStatus = 21
        request.referencedCommandNumber = 19
        try check(
            request,
            .taskManagementRequest,
            """
            42 81 0000 00 000000 0003000000000000 00000008 00000007 00000014 00000015
            00000013 00000000 00000000 00000000
            """
        )
        var response = TaskManagementResponsePDU()
        response.response = 255
        response.tag = 8
        response.numbers = numbers
        try check(
            response,
            .taskManagementResponse,
            """
            22 80 ff00 00 000000 0000000000000000 00000008 00000000 0a0b0c0d 00000011
            00000090 00000000 00000000 00000000
            """
        )
    }

    @Test func login() throws {
        var request = LoginRequestPDU()
        request.isTransit = true
        request.currentStage = 1
        request.nextStage = 3
        request.isid = 0x8012_3456_789A
        request.tsih = 0x0102
        request.tag = 5
        request.connectionID = 0xABCD
        request.commandNumber = 1
        request.expectedStatus = 2
        try check(
            request,
            .loginRequest,
            """
            43 87 0000 00 000000 80123456789a0102 00000005 abcd0000 00000001 00000002
            00000000 00000000 00000000 00000000
            """
        )
        var response = LoginResponsePDU()
        response.continues = true
        response.isid = 0x8012_3456_789A
        response.tsih = 0x0102
        response.tag = 5
        response.numbers = numbers
        response.status = 0x0201
        try check(
            response,
            .loginResponse,
            """
            23 40 0000 00 000000 80123456789a0102 00000005 00000000 0a0b0c0d 00000011
            00000090 02010000 00000000 00000000
            """
        )
    }

    @Test func text() throws {
        var request = TextRequestPDU()
        request.tag = 6
        request.commandNumber = 1
        request.expectedStatus = 2
        try check(
            request,
            .textRequest,
            """
            04 80 0000 00 000000 0000000000000000 00000006 ffffffff 00000001 00000002
            00000000 00000000 00000000 00000000
            """
        )
        var response = TextResponsePDU()
        response.isFinal = false
        response.continues = true
        response.tag = 6
        response.transferTag = 0x77
        response.numbers = numbers
        try check(
            response,
            .textResponse,
            """
            24 40 0000 00 000000 0000000000000000 00000006 00000077 0a0b0c0d 00000011
            00000090 00000000 00000000 00000000
            """
        )
    }

    @Test func dataTransfer() throws {
        var out = DataOutPDU()
        out.isFinal = false
        out.lun = 0x0001_0000_0000_0000
        out.tag = 2
        out.transferTag = 3
        out.expectedStatus = 4
        out.dataSN = 5
        out.bufferOffset = 0x2000
        try check(
            out,
            .dataOut,
            """
            05 00 0000 00 000000 0001000000000000 00000002 00000003 00000000 00000004
            00000000 00000005 00002000 00000000
            """
        )
        var into = DataInPDU()
        into.hasStatus = true
        into.tag = 2
        into.numbers = numbers
        into.dataSN = 1
        into.bufferOffset = 0x2000
        into.residual = Residual(isOverflow: true, isUnderflow: false, count: 9)
        try check(
            into,
            .dataIn,
            """
            25 85 0000 00 000000 0000000000000000 00000002 ffffffff 0a0b0c0d 00000011
            00000090 00000001 00002000 00000009
            """
        )
        var ready = ReadyToTransferPDU()
        ready.lun = 0x0001_0000_0000_0000
        ready.tag = 2
        ready.transferTag = 3
        ready.numbers = numbers
        ready.r2tSN = 1
        ready.bufferOffset = 0x1000
        ready.desiredLength = 0x4000
        try check(
            ready,
            .r2t,
            """
            31 80 0000 00 000000 0001000000000000 00000002 00000003 0a0b0c0d 00000011
            00000090 00000001 00001000 00004000
            """
        )
    }

    @Test func asyncMessage() throws {
        var pdu = AsyncMessagePDU()
        pdu.numbers = numbers
        pdu.event = 1
        pdu.vendorCode = 2
        pdu.parameter1 = 3
        pdu.parameter2 = 4
        pdu.parameter3 = 5
        try check(
            pdu,
            .asyncMessage,
            """
            32 80 0000 00 000000 0000000000000000 ffffffff 00000000 0a0b0c0d 00000011
            00000090 01020003 00040005 00000000
            """
        )
    }

    @Test func logout() throws {
        var request = LogoutRequestPDU()
        request.reason = 1
        request.tag = 1
        request.connectionID = 2
        request.commandNumber = 3
        request.expectedStatus = 4
        try check(
            request,
            .logoutRequest,
            """
            06 81 0000 00 000000 0000000000000000 00000001 00020000 00000003 00000004
            00000000 00000000 00000000 00000000
            """
        )
        var response = LogoutResponsePDU()
        response.response = 2
        response.tag = 1
        response.numbers = numbers
        response.time2Wait = 2
        response.time2Retain = 20
        try check(
            response,
            .logoutResponse,
            """
            26 80 0200 00 000000 0000000000000000 00000001 00000000 0a0b0c0d 00000011
            00000090 00000000 00020014 00000000
            """
        )
    }

    @Test func rejectAndSnack() throws {
        var reject = RejectPDU()
        reject.reason = RejectReason.protocolError.rawValue
        reject.numbers = numbers
        try check(
            reject,
            .reject,
            """
            3f 80 0400 00 000000 0000000000000000 ffffffff 00000000 0a0b0c0d 00000011
            00000090 00000000 00000000 00000000
            """
        )
        var snack = SnackPDU()
        snack.type = 1
        snack.expectedStatus = 4
        snack.beginRun = 5
        snack.runLength = 6
        try check(
            snack,
            .snack,
            """
            10 81 0000 00 000000 0000000000000000 ffffffff ffffffff 00000000 00000004
            00000000 00000000 00000005 00000006
            """
        )
    }

    @Test func additionalHeaders() throws {
        // Extended CDB of 20 bytes: length 5 counts a reserved byte and the four that follow the 16.
        let bytes = hex("0005 01 00 aabbccdd 0005 02 00 00001000")
        let decoded = try #require(AdditionalHeaders(bytes))
        #expect(decoded.cdbTail == [0xAA, 0xBB, 0xCC, 0xDD])
        #expect(decoded.bidirectionalReadLength == 4_096)
        #expect(decoded.bytes == bytes)
        #expect(AdditionalHeaders(hex("0003 01 00 aabb 0000"))?.cdbTail == [0xAA, 0xBB])
        for lie in [
            "0000 01 00", "0009 01 00 aabbccdd", "ffff 01 00 aabbccdd", "0005 03 00 aabbccdd",
            "0005 02 00 00001000 0005 02 00 00001000",
            "0001 01 00 0001 01 00", "0003 02 00 00100000", "0005",
        ] {
            #expect(AdditionalHeaders(hex(lie)) == nil)
        }
        #expect(AdditionalHeaders(ByteBuffer(bytes: [1, 0, 1, 0] + [UInt8](repeating: 0, count: 256))) == nil)
    }

    @Test func residuals() {
        #expect(Residual(expected: 512, implied: 512) == .none)
        #expect(Residual(expected: 512, implied: 0) == Residual(isOverflow: false, isUnderflow: true, count: 512))
        #expect(Residual(expected: 0, implied: 512) == Residual(isOverflow: true, isUnderflow: false, count: 512))
        #expect(Residual(expected: 0, implied: .max).count == .max)
    }

    @Test func serialNumbersWrap() {
        #expect(Serial.isLess(0xFFFF_FFFF, 0))
        #expect(!Serial.isLess(0, 0xFFFF_FFFF))
        #expect(Serial.isLessOrEqual(5, 5))
    }
}

@Suite struct FrameTests {
    private func frames(digests: Bool) -> (decoder: FrameDecoder, encoder: FrameEncoder) {
        var decoder = FrameDecoder(dataSegmentMaximumBytes: 4_096)
        var encoder = FrameEncoder()
        decoder.headerDigest = digests
        decoder.dataDigest = digests
        encoder.headerDigest = digests
        encoder.dataDigest = digests
        return (decoder, encoder)
    }

    private func stream(_ encoder: FrameEncoder) -> (bytes: ByteBuffer, lengths: [Int]) {
        var bytes = ByteBuffer()
        let lengths = [0, 1, 2, 3, 4, 5, 4_095, 4_096, 0, 17]
        for (index, length) in lengths.enumerated() {
            var header = BasicHeader(.nopOut, tag: UInt32(index))
            header.word24 = UInt32(index)
            let additional = index % 3 == 1 ? hex("0005 01 00 aabbccdd") : nil
            bytes.writeImmutableBuffer(
                encoder.frame(header, additional: additional, data: pattern(length, seed: UInt8(index)))
            )
        }
        return (bytes, lengths)
    }

    @Test(arguments: [false, true], [0, 1, 3, 47, 48, 49, 1_000])
    func framesComeOutHoweverTheyCameIn(_ digests: Bool, _ portion: Int) throws {
        var (decoder, encoder) = frames(digests: digests)
        var (bytes, lengths) = stream(encoder)
        var found: [Int] = []
        while bytes.readableBytes > 0 {
            let count = portion == 0 ? bytes.readableBytes : min(portion, bytes.readableBytes)
            guard var part = bytes.readSlice(length: count) else { break }
            decoder.feed(&part)
            #expect(part.readableBytes == 0)
            while let frame = try decoder.next() {
                #expect(frame.header.tag == UInt32(found.count))
                #expect(frame.data == pattern(lengths[found.count], seed: UInt8(found.count)))
                #expect((frame.additional != nil) == (found.count % 3 == 1))
                found.append(frame.data.readableBytes)
            }
        }
        #expect(found == lengths)
        #expect(decoder.pendingBytes == 0)
        _ = encoder
    }

    @Test func truncatedFramesAreWaitedForAtEveryLength() throws {
        let (_, encoder) = frames(digests: true)
        let whole = encoder.frame(BasicHeader(.nopOut), data: pattern(13))
        #expect(whole.readableBytes == 48 + 4 + 16 + 4)
        for length in 0..<whole.readableBytes {
            var (decoder, _) = frames(digests: true)
            var part = whole.getSlice(at: 0, length: length) ?? ByteBuffer()
            decoder.feed(&part)
            #expect(try decoder.next() == nil)
        }
    }

    @Test func lengthsThatLieAreRefusedAtTheHeader() {
        var (decoder, _) = frames(digests: false)
        var header = BasicHeader(.nopOut)
        header.dataLength = 4_097
        var bytes = ByteBuffer()
        header.write(into: &bytes)
        decoder.feed(&bytes)
        #expect(throws: FrameDecoder.Failure.tooLong(header)) { try decoder.next() }
        // Failed for good, and nothing is kept.
        var more = pattern(1_000)
        decoder.feed(&more)
        #expect(more.readableBytes == 0)
        #expect(decoder.pendingBytes == 0)
        #expect(throws: FrameDecoder.Failure.self) { try decoder.next() }
    }

    /// RFC 7143, appendix A.4 (from RFC 3720, B.4): the CRC of 32 bytes of zeros goes out as aa 36 91 8a.
    @Test func digestBytesAreInTheOrderOfTheStandard() {
        var encoder = FrameEncoder()
        encoder.dataDigest = true
        let zeros = encoder.frame(BasicHeader(.nopOut), data: ByteBuffer(repeating: 0, count: 32))
        #expect(zeros.getSlice(at: 80, length: 4) == hex("aa36918a"))
        let ones = encoder.frame(BasicHeader(.nopOut), data: ByteBuffer(repeating: 0xFF, count: 32))
        #expect(ones.getSlice(at: 80, length: 4) == hex("43aba862"))
        let rising = encoder.frame(BasicHeader(.nopOut), data: ByteBuffer(bytes: 0..<32))
        #expect(rising.getSlice(at: 80, length: 4) == hex("4e79dd46"))
        encoder.headerDigest = true
        // The same standard's example of a SCSI READ (10) command header.
        let header = hex(
            """
            01c00000 00000000 00000000 00000000 14000000 00000400
            00000014 00000018 28000000 00000000 02000000 00000000
            """
        )
        let framed = BasicHeader(peeking: header).map { encoder.head($0) }
        #expect(framed?.getSlice(at: 48, length: 4) == hex("563a96d9"))
    }

    @Test func aWrongHeaderDigestIsSeenBeforeTheDataCome() throws {
        var (decoder, encoder) = frames(digests: true)
        var bytes = encoder.frame(BasicHeader(.nopOut), data: pattern(4_000))
        bytes.setInteger(UInt8(1), at: 20)
        var part = bytes.getSlice(at: 0, length: 52) ?? ByteBuffer()
        decoder.feed(&part)
        #expect(throws: FrameDecoder.Failure.headerDigest) { try decoder.next() }
        encoder.headerDigest = false
    }

    @Test func everyDamagedBitIsFound() {
        let (_, encoder) = frames(digests: true)
        let whole = encoder.frame(BasicHeader(.nopOut), data: pattern(9))
        for bit in 0..<(whole.readableBytes * 8) where !(32..<64).contains(bit) {
            var damaged = whole
            let byte: UInt8 = damaged.getInteger(at: bit / 8) ?? 0
            damaged.setInteger(byte ^ 1 << UInt8(bit % 8), at: bit / 8)
            var (decoder, _) = frames(digests: true)
            decoder.feed(&damaged)
            #expect(throws: FrameDecoder.Failure.self) { try decoder.next() }
        }
    }
}
