import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

@Suite struct LivenessTests {
    @Test func R1_anAcknowledgedStatusSentAfterProves() {
        let harness = Harness.loggedIn()
        let first = harness.command()
        let second = harness.command()
        harness.target.complete(tag: first, with: .good())
        harness.settle()
        harness.target.stampArrived(5)
        // Acknowledges the first response, which was sent before.
        harness.command()
        #expect(harness.proofs.isEmpty)
        harness.complete(second)
        #expect(harness.proofs.isEmpty)
        harness.command()
        #expect(harness.proofs == [5])
    }

    @Test func R1_receivingARequestProvesNothing() {
        let harness = Harness.loggedIn()
        harness.command()
        harness.target.stampArrived(1)
        for _ in 0..<10 { harness.command() }
        harness.send(harness.initiator.nopOut(nil, isImmediate: true) { $0.tag = reservedTag })
        #expect(harness.proofs.isEmpty)
    }

    @Test func R1_anAnswerToAPingSentAfterProves() {
        let harness = Harness.loggedIn()
        harness.command()
        harness.isConnected = false
        harness.target.ping(now: harness.now)
        harness.target.stampArrived(9)
        harness.target.ping(now: harness.now)
        harness.isConnected = true
        // The ping that was under way proves nothing; the one after it does.
        harness.settle()
        let pings = harness.events.filter { if case .nopIn = $0 { true } else { false } }
        #expect(pings.count == 2)
        #expect(harness.proofs == [9])
    }

    @Test func R1_anAnswerToAPingSentBeforeProvesNothing() {
        let harness = Harness.loggedIn()
        harness.command()
        harness.isConnected = false
        harness.target.ping(now: harness.now)
        harness.target.stampArrived(9)
        harness.isConnected = true
        harness.settle()
        #expect(harness.proofs.isEmpty)
    }

    @Test func R1_anAnswerToAnR2TSentAfterProves() {
        var options = ISCSIInitiatorOptions()
        options.immediateData = false
        options.answersReadyToTransfer = false
        options.maxBurstLength = 512
        let harness = Harness.loggedIn(options)
        harness.command([0x2A], write: pattern(1_024))
        harness.target.stampArrived(3)
        var asked: [ReadyToTransferPDU] {
            harness.events.compactMap { if case .readyToTransfer(let pdu) = $0 { pdu } else { nil } }
        }
        harness.send(harness.initiator.dataOut(for: asked[0]))
        #expect(harness.proofs.isEmpty)
        harness.send(harness.initiator.dataOut(for: asked[1]))
        #expect(harness.proofs == [3])
    }

    @Test func R1_anExpStatSNAheadOfWhatWasSentProvesNothing() {
        let harness = Harness.loggedIn()
        harness.command()
        harness.target.stampArrived(4)
        harness.send(
            harness.initiator.nopOut(nil, isImmediate: true) {
                $0.tag = reservedTag
                $0.expectedStatus &+= 1_000
            }
        )
        harness.send(
            harness.initiator.nopOut(nil, isImmediate: true) {
                $0.tag = reservedTag
                $0.transferTag = 0x4000_0000
            }
        )
        #expect(harness.proofs.isEmpty)
    }

    @Test func R1_laterEvidenceIsMarkedWhenTheEarlierIsProved() {
        let harness = Harness.loggedIn()
        harness.execute = { _ in .good() }
        harness.command()
        harness.target.stampArrived(1)
        harness.target.stampArrived(2)
        harness.target.stampArrived(3)
        harness.command()
        #expect(harness.proofs.isEmpty)
        harness.command()
        #expect(harness.proofs == [1])
        // Token 3 was marked then: only what is sent after counts.
        harness.command()
        #expect(harness.proofs == [1, 3])
        harness.target.stampArrived(2)
        harness.command()
        harness.command()
        #expect(harness.proofs == [1, 3])
    }

    @Test func R1_theLoginResponseProvesWhatArrivedBeforeIt() {
        let harness = Harness()
        harness.answersLogin = false
        harness.send(harness.initiator.start())
        harness.target.targetResolved(ResolvedTarget(access: AccessRules()))
        harness.drain()
        harness.target.stampArrived(8)
        harness.target.sessionOpened(tsih: 1)
        harness.settle()
        #expect(harness.proofs.isEmpty)
        harness.command()
        #expect(harness.proofs == [8])
    }

    /// Against a model that remembers the place of every PDU: whatever is proved was followed by a PDU that has come
    /// through.
    @Test func R1_proofsAreSoundInRandomOrder() {
        var random = SplitMix(state: 42)
        for _ in 0..<50 {
            let harness = Harness.loggedIn()
            harness.isConnected = false
            var token: UInt64 = 0
            // Bytes sent by the target when a token arrived, and bytes received by the initiator when it last spoke.
            var sentAt: [UInt64: Int] = [:]
            var received = 0
            var open: [UInt32] = []
            for _ in 0..<200 {
                switch Int.random(in: 0..<6, using: &random) {
                case 0:
                    token += 1
                    harness.drain()
                    sentAt[token] = received + harness.toInitiator.readableBytes
                    harness.target.stampArrived(token)
                case 1:
                    let (tag, bytes) = harness.initiator.command(cdb: [0])
                    harness.send(bytes)
                    open.append(tag)
                case 2:
                    if let tag = open.popLast() { harness.target.complete(tag: tag, with: .good()) }
                case 3:
                    harness.target.ping(now: harness.now)
                default:
                    harness.drain()
                    let count = Int.random(in: 0...harness.toInitiator.readableBytes, using: &random)
                    guard let part = harness.toInitiator.readSlice(length: count) else { break }
                    received += count
                    let (output, _) = harness.initiator.received(part)
                    harness.send(output)
                }
                harness.drain()
                for proved in harness.proofs { #expect(received > sentAt[proved] ?? .max) }
            }
            #expect(!harness.isClosed)
            #expect(harness.proofs == harness.proofs.sorted())
        }
    }

    @Test func idleSessionsArePingedAndSilentOnesDropped() {
        let harness = Harness.loggedIn()
        var pings: Int { harness.events.filter { if case .nopIn = $0 { true } else { false } }.count }
        harness.advance(milliseconds: 999)
        #expect(pings == 0)
        harness.advance(milliseconds: 1)
        #expect(pings == 1)
        harness.advance(milliseconds: 999)
        #expect(pings == 1)
        harness.advance(milliseconds: 1)
        #expect(pings == 2)
        harness.initiator.options.answersPings = false
        harness.advance(milliseconds: 1_000)
        #expect(pings == 3)
        for _ in 0..<19 { harness.advance(milliseconds: 1_000) }
        #expect(!harness.isClosed)
        harness.advance(milliseconds: 1_000)
        #expect(harness.ended == [.pingTimeout])
        #expect(harness.isClosed)
        #expect(pings == 3)
    }

    @Test func busySessionsArePingedForUnprovedStamps() {
        let harness = Harness.loggedIn()
        harness.command()
        harness.target.stampArrived(1)
        for _ in 0..<4 {
            harness.advance(milliseconds: 300)
            harness.send(harness.initiator.nopOut(nil, isImmediate: true) { $0.tag = reservedTag })
        }
        #expect(harness.proofs == [1])
    }

    @Test func pingsOfTheInitiatorAreEchoed() {
        let harness = Harness.loggedIn()
        harness.send(harness.initiator.nopOut(pattern(100)))
        harness.send(harness.initiator.nopOut(pattern(9), isImmediate: true))
        let echoed = harness.events.compactMap { if case .nopIn(_, let data) = $0 { data } else { nil } }
        #expect(echoed == [pattern(100), pattern(9)])
        #expect(harness.initiator.expectedCommand == 101)
        var options = ISCSIInitiatorOptions()
        options.maxRecvDataSegmentLength = 512
        let small = Harness.loggedIn(options)
        small.send(small.initiator.nopOut(pattern(8_000)))
        let cut = small.events.compactMap { if case .nopIn(_, let data) = $0 { data } else { nil } }
        #expect(cut == [pattern(512)])
    }
}
