import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

@Suite struct TextTests {
    @Test func pairsAreClosedByZeroBytes() throws {
        let bytes = hex("496e69746961746f724e616d653d69716e2e3100 41 3d 00")
        let keys = [TextKey("InitiatorName", "iqn.1"), TextKey("A", "")]
        #expect(try TextKeys.decode(bytes) == keys)
        #expect(TextKeys.encode(keys) == bytes)
        #expect(try TextKeys.decode(ByteBuffer()) == [])
        #expect(try TextKeys.decode(hex("0000")) == [])
        #expect(try TextKeys.decode(ByteBuffer(string: "A=b=c\0")) == [TextKey("A", "b=c")])
    }

    @Test(arguments: ["A\0", "=b\0", "A=b", "A b=c\0", "A=\u{7}\0", "\u{1}=b\0"])
    func malformedTextIsRefused(_ text: String) {
        #expect(throws: TextFailure.malformed) { try TextKeys.decode(ByteBuffer(string: text)) }
    }

    @Test func invalidUTF8IsRefused() {
        #expect(throws: TextFailure.malformed) { try TextKeys.decode(hex("41 3d ff fe 00")) }
    }

    @Test func limitsHold() throws {
        let name = String(repeating: "k", count: ISCSILimits.keyNameMaximumBytes)
        #expect(try TextKeys.decode(ByteBuffer(string: "\(name)=1\0")).count == 1)
        #expect(throws: TextFailure.tooLong) { try TextKeys.decode(ByteBuffer(string: "\(name)k=1\0")) }
        let value = String(repeating: "v", count: ISCSILimits.valueMaximumBytes)
        #expect(try TextKeys.decode(ByteBuffer(string: "K=\(value)\0")).count == 1)
        #expect(throws: TextFailure.tooLong) { try TextKeys.decode(ByteBuffer(string: "K=\(value)v\0")) }
        let many = (0...ISCSILimits.keysMaximum).map { "K\($0)=1\0" }.joined()
        #expect(throws: TextFailure.tooLong) { try TextKeys.decode(ByteBuffer(string: many)) }
        #expect(throws: TextFailure.duplicate("A")) { try TextKeys.decode(ByteBuffer(string: "A=1\0A=1\0")) }
    }

    @Test func textIsGatheredOverPDUs() throws {
        var gatherer = TextGatherer()
        #expect(try gatherer.add(ByteBuffer(string: "Initia"), continues: true) == nil)
        #expect(
            try gatherer.add(ByteBuffer(string: "torName=x\0"), continues: false)
                == ByteBuffer(string: "InitiatorName=x\0")
        )
        #expect(try gatherer.add(ByteBuffer(string: "B=1\0"), continues: false) == ByteBuffer(string: "B=1\0"))
        for _ in 0..<8 { #expect(try gatherer.add(ByteBuffer(repeating: 65, count: 8_192), continues: true) == nil) }
        #expect(throws: TextFailure.tooLong) { try gatherer.add(ByteBuffer(repeating: 65, count: 1), continues: true) }
    }

    @Test func numbers() {
        #expect(TextValue.number("0") == 0)
        #expect(TextValue.number("262144") == 262_144)
        #expect(TextValue.number("0x1F") == 31)
        #expect(TextValue.number("0XfF") == 255)
        #expect(TextValue.number("18446744073709551615") == .max)
        for wrong in ["", "-1", "+1", "0x", "0x1g", "0x+1", "1e3", " 1", "18446744073709551616", "0x10000000000000000"]
        {
            #expect(TextValue.number(wrong) == nil)
        }
    }

    @Test func binaries() {
        #expect(TextValue.binary("0x0102fF", maximumBytes: 8) == [1, 2, 255])
        #expect(TextValue.binary("0x102", maximumBytes: 8) == [1, 2])
        #expect(TextValue.binary("0bAQL/", maximumBytes: 8) == [1, 2, 255])
        #expect(TextValue.binary("0BAQI=", maximumBytes: 8) == [1, 2])
        #expect(TextValue.binary("0bAQ==", maximumBytes: 8) == [1])
        #expect(TextValue.binary("258", maximumBytes: 8) == [1, 2])
        #expect(TextValue.binary("0", maximumBytes: 8) == [0])
        for wrong in ["", "0x", "0b", "0xzz", "0bAQI", "0bA===", "0b====", "0bAR==", "0b A==", "x"] {
            #expect(TextValue.binary(wrong, maximumBytes: 8) == nil)
        }
        #expect(TextValue.binary("0x010203", maximumBytes: 2) == nil)
        #expect(TextValue.hexadecimal(encoding: [0, 0xAB]) == "0x00ab")
    }
}

@Suite struct KeyNegotiationTests {
    private func settle(
        _ name: String,
        _ value: String,
        type: SessionType = .normal,
        change: (inout ISCSIConfiguration) -> Void = { _ in }
    ) -> (KeyNegotiation.Outcome, SessionParameters) {
        var configuration = ISCSIConfiguration()
        change(&configuration)
        var negotiation = KeyNegotiation(
            configuration: configuration,
            identity: LoginIdentity(initiatorName: "i", isid: 1, targetName: "t", sessionType: type)
        )
        let outcome = negotiation.settle(TextKey(name, value))
        return (outcome, negotiation.parameters)
    }

    /// Key, offer, answer: every key of RFC 7143, section 13, that is settled by a function.
    static let table: [(String, String, String)] = [
        ("HeaderDigest", "CRC32C,None", "CRC32C"), ("HeaderDigest", "None,CRC32C", "None"),
        ("HeaderDigest", "X-foo,CRC32C", "CRC32C"), ("HeaderDigest", "X-foo", "Reject"),
        ("DataDigest", "CRC32C", "CRC32C"), ("DataDigest", "None", "None"), ("DataDigest", "", "Reject"),
        ("MaxConnections", "8", "1"), ("MaxConnections", "1", "1"), ("MaxConnections", "0", "Reject"),
        ("MaxConnections", "65536", "Reject"),
        ("InitialR2T", "Yes", "Yes"), ("InitialR2T", "No", "No"), ("InitialR2T", "Maybe", "Reject"),
        ("ImmediateData", "Yes", "Yes"), ("ImmediateData", "No", "No"), ("ImmediateData", "yes", "Reject"),
        ("MaxBurstLength", "16776192", "1048576"), ("MaxBurstLength", "65536", "65536"),
        ("MaxBurstLength", "511", "Reject"), ("MaxBurstLength", "16777216", "Reject"),
        ("MaxBurstLength", "0x10000", "65536"),
        ("FirstBurstLength", "262144", "262144"), ("FirstBurstLength", "1048576", "262144"),
        ("FirstBurstLength", "many", "Reject"),
        ("DefaultTime2Wait", "0", "2"), ("DefaultTime2Wait", "10", "10"), ("DefaultTime2Wait", "3601", "Reject"),
        ("DefaultTime2Retain", "20", "0"), ("DefaultTime2Retain", "0", "0"), ("DefaultTime2Retain", "-1", "Reject"),
        ("MaxOutstandingR2T", "1", "1"), ("MaxOutstandingR2T", "16", "8"), ("MaxOutstandingR2T", "0", "Reject"),
        ("DataPDUInOrder", "No", "Yes"), ("DataPDUInOrder", "Yes", "Yes"), ("DataSequenceInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "?", "Reject"),
        ("ErrorRecoveryLevel", "2", "0"), ("ErrorRecoveryLevel", "0", "0"), ("ErrorRecoveryLevel", "3", "Reject"),
        ("TaskReporting", "FastAbort,RFC3720", "RFC3720"), ("TaskReporting", "FastAbort", "Reject"),
        ("iSCSIProtocolLevel", "2", "1"), ("iSCSIProtocolLevel", "32", "Reject"),
        ("IFMarker", "Yes", "No"), ("OFMarker", "No", "No"), ("IFMarkInt", "2048~2048", "Reject"),
        ("OFMarkInt", "1", "Reject"),
        ("RDMAExtensions", "Yes", "NotUnderstood"), ("X-com.example.key", "1", "NotUnderstood"),
    ]

    @Test(arguments: table)
    func everyKeyIsSettledByItsFunction(_ row: (key: String, offer: String, answer: String)) {
        #expect(settle(row.key, row.offer).0 == .answer(row.answer))
    }

    @Test func whatIsSettledIsKept() {
        #expect(settle("HeaderDigest", "CRC32C").1.headerDigest)
        #expect(settle("DataDigest", "CRC32C").1.dataDigest)
        #expect(!settle("InitialR2T", "No").1.initialR2T)
        #expect(!settle("ImmediateData", "No").1.immediateData)
        #expect(settle("MaxBurstLength", "1024").1.maxBurstLength == 1_024)
        #expect(settle("FirstBurstLength", "1024").1.firstBurstLength == 1_024)
        #expect(settle("MaxOutstandingR2T", "3").1.maxOutstandingR2T == 3)
        #expect(settle("DefaultTime2Wait", "7").1.defaultTime2Wait == 7)
    }

    @Test func declarationsAreTakenOrRefused() {
        let (outcome, parameters) = settle("MaxRecvDataSegmentLength", "65536")
        #expect(outcome == .declared)
        #expect(parameters.maxSendDataSegmentLength == 65_536)
        for wrong in ["511", "16777216", "none", ""] {
            #expect(settle("MaxRecvDataSegmentLength", wrong).0 == .invalid)
        }
    }

    @Test func ourSideCountsToo() {
        #expect(settle("InitialR2T", "No", change: { $0.initialR2T = true }).0 == .answer("Yes"))
        #expect(settle("ImmediateData", "Yes", change: { $0.immediateData = false }).0 == .answer("No"))
        #expect(settle("HeaderDigest", "CRC32C,None", change: { $0.headerDigest = .never }).0 == .answer("None"))
        #expect(settle("HeaderDigest", "CRC32C", change: { $0.headerDigest = .never }).0 == .answer("Reject"))
        #expect(settle("DataDigest", "None,CRC32C", change: { $0.dataDigest = .required }).0 == .answer("CRC32C"))
        #expect(settle("DataDigest", "None", change: { $0.dataDigest = .required }).0 == .answer("Reject"))
    }

    @Test(arguments: [
        "MaxConnections", "InitialR2T", "ImmediateData", "MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T",
        "DataPDUInOrder", "DataSequenceInOrder",
    ])
    func keysOfNormalSessionsAreIrrelevantInDiscovery(_ key: String) {
        let value = key.hasPrefix("Max") || key.hasPrefix("First") ? "1024" : "No"
        let (outcome, parameters) = settle(key, value, type: .discovery)
        #expect(outcome == .answer("Irrelevant"))
        #expect(parameters.maxBurstLength == 262_144)
        #expect(parameters.initialR2T)
    }
}
