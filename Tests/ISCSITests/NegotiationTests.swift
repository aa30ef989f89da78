import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

/// What both sides of a session offer.
struct NegotiationCase: Sendable, CustomTestStringConvertible {
    var errorRecoveryLevel: UInt8
    var maxConnections: UInt16
    var times: (wait: UInt16, retain: UInt16)

    /// Keys that do not change how data move: each combination is a test of its own.
    static let all: [NegotiationCase] = {
        var cases: [NegotiationCase] = []
        for level: UInt8 in 0...2 {
            for connections: UInt16 in [1, 4] {
                for times: (UInt16, UInt16) in [(0, 0), (2, 20), (3_600, 3_600)] {
                    cases.append(
                        NegotiationCase(errorRecoveryLevel: level, maxConnections: connections, times: times)
                    )
                }
            }
        }
        return cases
    }()

    var testDescription: String { "level \(errorRecoveryLevel), \(maxConnections) connections, times \(times)" }

    /// Keys by which data move: all combinations of a small and a large value of each.
    func variants() -> [Variant] {
        (0..<1 << 9).map { bits in
            let has = { (bit: Int) in bits >> bit & 1 == 1 }
            var options = ISCSIInitiatorOptions()
            options.errorRecoveryLevel = errorRecoveryLevel
            options.maxConnections = maxConnections
            options.times = times
            options.initialR2T = has(0)
            options.immediateData = has(1)
            options.headerDigest = has(2) ? ["CRC32C", "None"] : ["None"]
            options.dataDigest = has(3) ? ["CRC32C"] : ["None", "CRC32C"]
            options.maxBurstLength = has(4) ? 16_777_215 : 1_024
            options.firstBurstLength = has(5) ? 16_777_215 : 700
            options.maxOutstandingR2T = has(6) ? 65_535 : 1
            options.maxRecvDataSegmentLength = has(7) ? 262_144 : 512
            var configuration = ISCSIConfiguration()
            configuration.maxRecvDataSegmentLength = has(8) ? 262_144 : 512
            return Variant(options: options, configuration: configuration)
        }
    }

    struct Variant {
        var options: ISCSIInitiatorOptions
        var configuration: ISCSIConfiguration

        var description: String {
            """
            R2T \(options.initialR2T) immediate \(options.immediateData) digests \(options.headerDigest) \
            \(options.dataDigest) bursts \(options.firstBurstLength) of \(options.maxBurstLength) \
            R2Ts \(options.maxOutstandingR2T) segments \(options.maxRecvDataSegmentLength) and \
            \(configuration.maxRecvDataSegmentLength)
            """
        }
    }
}

@Suite struct NegotiationTests {
    /// Less than anything, a segment, and some bursts.
    private static let sizes = [1, 512, 2_600]

    @Test(arguments: NegotiationCase.all)
    func everyCombinationMovesDataByItsRules(_ test: NegotiationCase) {
        let data = Self.sizes.map { pattern($0, seed: UInt8(truncatingIfNeeded: $0)) }
        for variant in test.variants() {
            let harness = Harness.loggedIn(variant.options, configuration: variant.configuration)
            guard let session = harness.target.session else {
                Issue.record("no session: \(variant.description)")
                continue
            }
            let faults =
                settlementFaults(harness, session, test, variant)
                + data.flatMap { writeFaults(harness, session, $0) + readFaults(harness, session, $0) }
            if !faults.isEmpty { Issue.record("\(variant.description): \(Set(faults).sorted())") }
            #expect(!harness.isClosed && harness.outstandingCommands == 0 && harness.bufferedBytes == 0)
        }
    }

    // Faults are collected rather than expected one by one: there are some hundred thousand checks.

    /// What was agreed on, against the functions of RFC 7143, section 13, and whether both sides think the same.
    private func settlementFaults(
        _ harness: Harness,
        _ session: SessionParameters,
        _ test: NegotiationCase,
        _ variant: NegotiationCase.Variant
    ) -> [String] {
        let (ours, theirs) = (variant.configuration, variant.options)
        let answers = Dictionary(harness.initiator.targetKeys.map { ($0.name, $0.value) }) { _, last in last }
        let burst = min(ours.maxBurstLength, theirs.maxBurstLength)
        let first = min(ours.firstBurstLength, theirs.firstBurstLength, burst)
        let expected = [
            "InitialR2T": theirs.initialR2T || ours.initialR2T ? "Yes" : "No",
            "ImmediateData": theirs.immediateData && ours.immediateData ? "Yes" : "No",
            "HeaderDigest": theirs.headerDigest[0], "DataDigest": theirs.dataDigest[0],
            "MaxBurstLength": String(burst), "FirstBurstLength": String(first),
            "MaxOutstandingR2T": String(min(ours.maxOutstandingR2T, theirs.maxOutstandingR2T)),
            "MaxRecvDataSegmentLength": String(ours.maxRecvDataSegmentLength),
            "MaxConnections": "1", "ErrorRecoveryLevel": "0",
            "DefaultTime2Wait": String(max(2, test.times.wait)), "DefaultTime2Retain": "0",
        ]
        var faults = expected.filter { answers[$0.key] != $0.value }.map { "\($0.key)=\(answers[$0.key] ?? "none")" }
        let isAgreed =
            session.initialR2T == harness.initiator.parameters.initialR2T
            && session.immediateData == harness.initiator.parameters.immediateData
            && session.headerDigest == harness.initiator.encoder.headerDigest
            && session.dataDigest == harness.initiator.encoder.dataDigest
            && session.maxBurstLength == harness.initiator.parameters.maxBurstLength
            && session.firstBurstLength == harness.initiator.parameters.firstBurstLength
            && session.maxOutstandingR2T == harness.initiator.parameters.maxOutstandingR2T
            && session.maxSendDataSegmentLength == theirs.maxRecvDataSegmentLength
        if !isAgreed { faults.append("the sides agreed on different things") }
        return faults
    }

    /// Writes, answering one R2T after the other, so that those that are out can be counted.
    private func writeFaults(_ harness: Harness, _ session: SessionParameters, _ data: ByteBuffer) -> [String] {
        var faults: [String] = []
        harness.execute = { _ in .good() }
        harness.initiator.options.answersReadyToTransfer = false
        let start = harness.events.count
        harness.command([0x2A], write: data)
        var asked: [ReadyToTransferPDU] {
            harness.events[start...].compactMap { if case .readyToTransfer(let pdu) = $0 { pdu } else { nil } }
        }
        let size = UInt32(data.readableBytes)
        let segment = session.maxRecvDataSegmentLength
        let unsolicited =
            session.initialR2T
            ? (session.immediateData ? min(size, session.firstBurstLength, segment) : 0)
            : min(size, session.firstBurstLength)
        var offset = unsolicited
        var answered = 0
        while answered < asked.count {
            let all = asked
            let pdu = all[answered]
            let bytesAsked = all.reduce(0) { $0 + $1.desiredLength }
            let outstanding = all.count - answered
            if outstanding > Int(session.maxOutstandingR2T) { faults.append("too many R2Ts") }
            if outstanding < Int(session.maxOutstandingR2T), unsolicited + bytesAsked < size {
                faults.append("fewer R2Ts than agreed")
            }
            if pdu.bufferOffset != offset || pdu.r2tSN != UInt32(answered) { faults.append("R2T out of order") }
            if pdu.desiredLength == 0 || pdu.desiredLength > session.maxBurstLength {
                faults.append("R2T for \(pdu.desiredLength) bytes")
            }
            offset += pdu.desiredLength
            answered += 1
            harness.send(harness.initiator.dataOut(for: pdu))
        }
        if offset != size { faults.append("\(offset) of \(size) bytes asked for") }
        if harness.commands.last?.dataOut != data { faults.append("other data arrived") }
        if harness.results.last?.status != 0 || harness.results.last?.residual != Residual.none {
            faults.append("the write failed")
        }
        return faults
    }

    private func readFaults(_ harness: Harness, _ session: SessionParameters, _ data: ByteBuffer) -> [String] {
        var faults: [String] = []
        // In two pieces that meet within a segment.
        let half = data.readableBytes / 3
        let parts = [data.getSlice(at: 0, length: half), data.getSlice(at: half, length: data.readableBytes - half)]
        harness.execute = { _ in .good(dataIn: parts.compactMap(\.self)) }
        harness.command([0x28], read: UInt32(data.readableBytes))
        guard let result = harness.results.last else { return ["no answer to a read"] }
        if result.data != data || result.status != 0 { faults.append("other data came back") }
        var burst = 0
        for (index, (pdu, count)) in zip(result.dataIn, result.dataLengths).enumerated() {
            burst += count
            let isLast = index == result.dataIn.count - 1
            if count > Int(session.maxSendDataSegmentLength) { faults.append("a segment of \(count) bytes") }
            if burst > Int(session.maxBurstLength) { faults.append("a burst of \(burst) bytes") }
            if pdu.isFinal != (isLast || burst == Int(session.maxBurstLength)) { faults.append("F bit misplaced") }
            if pdu.isFinal { burst = 0 }
            if pdu.hasStatus != isLast { faults.append("S bit misplaced") }
        }
        return faults
    }

    /// Whichever of the two comes first, and where only one of them is offered.
    @Test func theFirstBurstIsNeverLargerThanABurst() {
        let cases: [(keys: [TextKey], first: String?, burst: UInt32)] = [
            ([TextKey("MaxBurstLength", "4096"), TextKey("FirstBurstLength", "65536")], "4096", 4_096),
            ([TextKey("FirstBurstLength", "65536"), TextKey("MaxBurstLength", "4096")], "4096", 4_096),
            ([TextKey("FirstBurstLength", "4096"), TextKey("MaxBurstLength", "65536")], "4096", 4_096),
            ([TextKey("MaxBurstLength", "4096")], nil, 4_096),
            ([TextKey("FirstBurstLength", "16777215")], "262144", 262_144),
            ([TextKey("FirstBurstLength", "0"), TextKey("MaxBurstLength", "512")], "Reject", 512),
            ([], nil, 65_536),
        ]
        let names = [
            TextKey("InitiatorName", "iqn.2026-01.test:initiator"), TextKey("TargetName", "iqn.2026-01.test:volume"),
        ]
        for (keys, first, burst) in cases {
            let harness = Harness()
            harness.send(harness.initiator.loginRequest(names + keys, current: 1, next: 3))
            #expect(harness.initiator.targetKeys.last { $0.name == "FirstBurstLength" }?.value == first, "\(keys)")
            #expect(harness.target.session?.firstBurstLength == burst, "\(keys)")
        }
    }
}
