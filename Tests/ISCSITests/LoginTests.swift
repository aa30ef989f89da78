import AshlarCore
import AshlarTestSupport
import ISCSI
import NIOCore
import Testing

@Suite struct LoginTests {
    private let names = [
        TextKey("InitiatorName", "iqn.2026-01.test:initiator"), TextKey("TargetName", "iqn.2026-01.test:volume"),
    ]

    /// Sends one request to a fresh target; the status of the answer, `nil` where the login goes on.
    private func status(
        _ keys: [TextKey],
        current: UInt8 = 1,
        next: UInt8? = 3,
        rules: AccessRules = .init(),
        change: (inout LoginRequestPDU) -> Void = { _ in }
    ) -> UInt16? {
        let harness = Harness()
        harness.rules = rules
        harness.send(harness.initiator.loginRequest(keys, current: current, next: next, change: change))
        #expect(harness.isClosed == (harness.loginStatus != 0 && harness.loginStatus != nil))
        #expect(harness.ended.isEmpty)
        return harness.loginStatus
    }

    @Test func loginWithoutSecurity() {
        let harness = Harness.loggedIn()
        #expect(harness.loginStatus == 0)
        #expect(harness.initiator.tsih == 7)
        #expect(harness.resolves.first?.targetName == "iqn.2026-01.test:volume")
        #expect(harness.resolves.first?.isid == 0x4000_0137_0001)
        #expect(harness.opens.first?.connectionID == 1)
        let keys = harness.initiator.targetKeys
        #expect(keys.contains(TextKey("TargetPortalGroupTag", "1")))
        #expect(keys.contains(TextKey("MaxRecvDataSegmentLength", "262144")))
        #expect(keys.filter { $0.name == "MaxRecvDataSegmentLength" }.count == 1)
        #expect(harness.initiator.expectedCommand == 100)
        #expect(harness.initiator.maximumCommand == 100 + Limits.commandWindow - 1)
    }

    @Test func loginGoesOnDripFed() {
        let harness = Harness()
        harness.portion = 1
        harness.send(harness.initiator.start())
        #expect(harness.isFullFeature)
    }

    @Test func loginThroughBothStagesWithTextOverSeveralPDUs() {
        let harness = Harness()
        let text = TextKeys.encode(names + [TextKey("AuthMethod", "None")])
        var pdu = LoginRequestPDU()
        pdu.isid = 5
        pdu.connectionID = 1
        pdu.commandNumber = 100
        pdu.continues = true
        let first = text.getSlice(at: 0, length: 20)
        harness.send(harness.initiator.encoder.frame(pdu.header, data: first))
        #expect(harness.resolves.isEmpty)
        pdu.continues = false
        pdu.isTransit = true
        pdu.nextStage = 1
        let second = text.getSlice(at: 20, length: text.readableBytes - 20)
        harness.isConnected = false
        harness.send(harness.initiator.encoder.frame(pdu.header, data: second))
        #expect(harness.resolves.count == 1)
        let header = BasicHeader(peeking: harness.toInitiator)
        #expect(header.map { LoginResponsePDU($0).isTransit } == true)
        #expect(header.map { LoginResponsePDU($0).nextStage } == 1)
        harness.isConnected = true
        harness.toInitiator = ByteBuffer()
        pdu.currentStage = 1
        pdu.nextStage = 3
        harness.isConnected = false
        harness.send(harness.initiator.encoder.frame(pdu.header))
        #expect(harness.isFullFeature)
    }

    /// As libiscsi does: names come again in the operational stage.
    @Test func namesMayBeRepeatedButNotChanged() {
        let again: [([TextKey], UInt16?)] = [
            (names, 0), ([TextKey("TargetName", "iqn.other")], 0x0200), ([TextKey("AuthMethod", "None")], 0x0200),
        ]
        for (keys, status) in again {
            let harness = Harness()
            harness.send(
                harness.initiator.loginRequest(names + [TextKey("AuthMethod", "None")], current: 0, next: 1)
            )
            harness.send(harness.initiator.loginRequest(keys, current: 1, next: 3))
            #expect(harness.loginStatus == status)
        }
    }

    @Test func statusCodesOfTheStandard() {
        #expect(status(names) == 0)
        #expect(status([]) == 0x0207)
        #expect(status([names[0]]) == 0x0207)
        #expect(status([names[1]]) == 0x0207)
        #expect(status(names + [TextKey("SessionType", "Other")]) == 0x0209)
        #expect(
            status(
                names,
                change: {
                    $0.versionMinimum = 1; $0.versionMaximum = 2
                }
            ) == 0x0205
        )
        #expect(status(names, change: { $0.tsih = 9 }) == 0x020A)
        #expect(status(names + [TextKey("MaxRecvDataSegmentLength", "1")]) == 0x0200)
        #expect(status(names + [TextKey("AuthMethod", "None")]) == 0x0200)
        #expect(status(names + [TextKey("HeaderDigest", "None")], current: 0, next: 1) == 0x0200)
        #expect(status(names + names) == 0x0200)
        #expect(status(names, current: 2) == 0x0200)
        #expect(status(names, current: 1, next: 1) == 0x0200)
        #expect(status(names, current: 0, next: 2) == 0x0200)
        #expect(status(names, change: { $0.continues = true }) == 0x0200)
        let long = TextKey("InitiatorName", String(repeating: "x", count: 224))
        #expect(status([long, names[1]]) == 0x0200)
        #expect(status(names, rules: AccessRules(initiators: ["iqn.other"])) == 0x0202)
        #expect(status(names, rules: AccessRules(initiators: ["iqn.2026-01.test:initiator"])) == 0)
    }

    @Test func whatTheShellRefuses() {
        let statuses: [LoginStatus] = [
            .notFound, .targetRemoved, .outOfResources, .serviceUnavailable, .tooManyConnections,
            .cannotIncludeInSession,
        ]
        for status in statuses {
            for late in [false, true] {
                let harness = Harness()
                harness.answersLogin = false
                harness.send(harness.initiator.start())
                if late { harness.target.targetResolved(ResolvedTarget(access: AccessRules())) }
                harness.drain()
                #expect(harness.opens.count == (late ? 1 : 0))
                harness.target.loginRefused(status)
                harness.settle()
                #expect(harness.loginStatus == status.code)
                #expect(harness.isClosed)
                #expect(harness.ended.isEmpty)
            }
        }
        #expect(LoginStatus.sessionDoesNotExist.description == "020ah")
    }

    @Test func redirection() {
        for permanently in [false, true] {
            let harness = Harness()
            harness.answersLogin = false
            harness.send(harness.initiator.start())
            harness.target.loginRedirected(to: "[fe80::1]:3260,2", permanently: permanently)
            harness.settle()
            #expect(harness.loginStatus == (permanently ? 0x0102 : 0x0101))
            #expect(harness.initiator.targetKeys == [TextKey("TargetAddress", "[fe80::1]:3260,2")])
            #expect(harness.isClosed)
        }
    }

    @Test func portalGroupAndAliasAreDeclared() {
        let harness = Harness()
        harness.answersLogin = false
        harness.send(harness.initiator.start())
        harness.target.targetResolved(
            ResolvedTarget(access: AccessRules(), portalGroupTag: 77, alias: "a wall")
        )
        harness.drain()
        #expect(harness.opens.first?.portalGroupTag == 77)
        harness.target.sessionOpened(tsih: 1)
        harness.settle()
        #expect(harness.initiator.targetKeys.contains(TextKey("TargetPortalGroupTag", "77")))
        #expect(harness.initiator.targetKeys.contains(TextKey("TargetAlias", "a wall")))
    }

    @Test func aSessionOpenedForAConnectionThatIsGoneEndsAtOnce() {
        let harness = Harness()
        harness.answersLogin = false
        harness.send(harness.initiator.start())
        harness.target.targetResolved(ResolvedTarget(access: AccessRules()))
        harness.drain()
        harness.target.inputClosed()
        harness.drain()
        #expect(harness.ended.isEmpty)
        harness.target.sessionOpened(tsih: 3)
        harness.drain()
        #expect(harness.ended == [.connectionClosed])
    }

    @Test func otherPDUsDuringTheLoginAreRefused() {
        let harness = Harness()
        harness.send(harness.initiator.nopOut())
        #expect(harness.loginStatus == 0x020B)
        #expect(harness.isClosed)
        let other = Harness.loggedIn()
        other.send(other.initiator.loginRequest([], current: 1, next: 3))
        #expect(other.ended == [.protocolError])
    }

    @Test func requestsBeforeTheAnswerAreRefused() {
        let harness = Harness()
        harness.answersLogin = false
        let request = harness.initiator.start()
        harness.send(request)
        harness.send(request)
        #expect(harness.loginStatus == 0x0200)
    }

    @Test func I10_aLoginThatStallsIsDropped() {
        let harness = Harness()
        harness.send(harness.initiator.loginRequest(names, current: 0, next: nil))
        harness.advance(milliseconds: 14_999)
        #expect(!harness.isClosed)
        harness.advance(milliseconds: 1)
        #expect(harness.isClosed)
        #expect(harness.ended.isEmpty)
    }

    @Test func I10_aLoginThatNeverEndsIsRefused() {
        let harness = Harness()
        var count = 0
        while !harness.isClosed, count < 1_000 {
            harness.send(harness.initiator.loginRequest(count == 0 ? names : [], current: 1, next: nil))
            harness.events.removeAll { if case .violation = $0 { true } else { false } }
            harness.isConnected = false
            count += 1
        }
        #expect(count == ISCSILimits.loginRequestsMaximum + 1)
    }

    @Test func I10_answersThatWouldNotFitAreRefused() {
        let harness = Harness()
        harness.send(harness.initiator.loginRequest(names, current: 1, next: nil))
        let keys = (0..<127).map { TextKey("X-" + String(repeating: "k", count: 55) + String(1_000 + $0), "1") }
        harness.isConnected = false
        for (index, part) in [keys, []].enumerated() {
            harness.send(harness.initiator.loginRequest(part, current: 1, next: nil))
            if index == 0 { #expect(harness.isClosed) }
        }
    }

    @Test func requiredDigestsAreRequired() {
        var configuration = ISCSIConfiguration()
        configuration.headerDigest = .required
        let harness = Harness(configuration: configuration)
        harness.send(harness.initiator.start())
        #expect(harness.loginStatus == 0x0200)
        var options = ISCSIInitiatorOptions()
        options.headerDigest = ["None", "CRC32C"]
        let other = Harness.loggedIn(options, configuration: configuration)
        #expect(other.opens.first?.headerDigest == true)
    }

    @Test func firstBurstIsNoLongerThanABurst() {
        var options = ISCSIInitiatorOptions()
        options.maxBurstLength = 4_096
        let harness = Harness.loggedIn(options)
        #expect(harness.opens.first?.firstBurstLength == 4_096)
    }

    @Test func notesHideWhatPeersPutIntoNames() {
        let harness = Harness()
        harness.send(
            harness.initiator.loginRequest(
                [TextKey("InitiatorName", "iqn\u{202E}evil"), names[1]],
                current: 1,
                next: 3
            )
        )
        #expect(harness.notes.contains { $0.message.contains("iqn?evil") })
    }
}

@Suite struct CHAPTests {
    private let rules = AccessRules(
        credentials: [
            CHAPCredential(name: "alice", secret: "correct horse battery"),
            CHAPCredential(name: "bob", secret: "other secret 12"),
        ],
        mutual: CHAPCredential(name: "target", secret: "staple of the target")
    )

    private func login(
        _ credential: CHAPCredential?,
        mutual: Bool = false,
        algorithms: String = "7,6,5",
        rules: AccessRules? = nil,
        configuration: ISCSIConfiguration = .init()
    ) -> Harness {
        var options = ISCSIInitiatorOptions()
        options.credential = credential
        options.mutual = mutual ? CHAPCredential(name: "target", secret: "staple of the target") : nil
        options.chapAlgorithms = algorithms
        let harness = Harness(options, configuration: configuration)
        harness.rules = rules ?? self.rules
        harness.send(harness.initiator.start())
        return harness
    }

    @Test func oneWay() {
        for credential in rules.credentials {
            let harness = login(credential)
            #expect(harness.loginStatus == 0)
            #expect(harness.opens.first?.authenticatedName == credential.name)
        }
    }

    @Test func wrongSecretsAndNamesFailAlike() {
        for credential in [
            CHAPCredential(name: "alice", secret: "wrong"),
            CHAPCredential(name: "mallory", secret: "correct horse battery"),
            CHAPCredential(name: "mallory", secret: ""), CHAPCredential(name: "bob", secret: "correct horse battery"),
        ] {
            let harness = login(credential)
            #expect(harness.loginStatus == 0x0201)
            #expect(harness.isClosed)
            #expect(harness.opens.isEmpty)
            #expect(!harness.notes.contains { $0.message.contains("horse") })
        }
    }

    @Test func mutual() {
        let harness = login(rules.credentials[0], mutual: true)
        #expect(harness.loginStatus == 0)
        let answer = ISCSITestHash.digest(
            .sha256,
            [9] + Array("staple of the target".utf8) + harness.initiator.challenge
        )
        #expect(harness.initiator.targetKeys.contains(TextKey("CHAP_N", "target")))
        #expect(harness.initiator.targetKeys.contains(TextKey("CHAP_R", TextValue.hexadecimal(encoding: answer))))
    }

    @Test func mutualWithoutACredentialOrWithTheSameSecretFails() {
        var rules = rules
        rules.mutual = nil
        #expect(login(rules.credentials[0], mutual: true, rules: rules).loginStatus == 0x0201)
        rules.mutual = CHAPCredential(name: "target", secret: "correct horse battery")
        #expect(login(rules.credentials[0], mutual: true, rules: rules).loginStatus == 0x0201)
    }

    @Test(arguments: CHAPAlgorithm.allCases)
    func everyAlgorithm(_ algorithm: CHAPAlgorithm) {
        let harness = login(rules.credentials[0], algorithms: "99,1000,\(algorithm.rawValue),5")
        #expect(harness.loginStatus == 0)
        #expect(harness.initiator.targetKeys.contains(TextKey("CHAP_A", String(algorithm.rawValue))))
    }

    @Test func theInitiatorsOrderDecidesAmongThoseAccepted() {
        var configuration = ISCSIConfiguration()
        configuration.chapAlgorithms = [.sha256, .sha3_256]
        let harness = login(rules.credentials[0], algorithms: "5,8,7", configuration: configuration)
        #expect(harness.initiator.targetKeys.contains(TextKey("CHAP_A", "8")))
        #expect(login(rules.credentials[0], algorithms: "5,6", configuration: configuration).loginStatus == 0x0201)
    }

    @Test func proofCannotBeLeftOut() {
        // Straight to operational negotiation, offering None only, and with T before the proof.
        #expect(login(nil).loginStatus == 0x0201)
        let names = [
            TextKey("InitiatorName", "iqn.2026-01.test:initiator"), TextKey("TargetName", "iqn.2026-01.test:volume"),
        ]
        for (method, next) in [("None", UInt8(1)), ("None,KRB5", 1), ("None", 3)] {
            let harness = Harness()
            harness.rules = rules
            harness.send(
                harness.initiator.loginRequest(names + [TextKey("AuthMethod", method)], current: 0, next: next)
            )
            #expect(harness.loginStatus == 0x0201)
        }
        let eager = Harness()
        eager.rules = rules
        eager.isConnected = false
        eager.send(
            eager.initiator.loginRequest(names + [TextKey("AuthMethod", "CHAP")], current: 0, next: 3)
        )
        #expect(!eager.isFullFeature)
        #expect(BasicHeader(peeking: eager.toInitiator).map { LoginResponsePDU($0).isTransit } == false)
        #expect(eager.opens.isEmpty)
        let silent = Harness()
        silent.rules = rules
        silent.send(silent.initiator.loginRequest(names, current: 0, next: 3))
        #expect(silent.loginStatus == 0x0201)
    }

    @Test func initiatorsThatInsistOnProofWhereNoneIsSetAreRefused() {
        let harness = Harness()
        harness.send(
            harness.initiator.loginRequest(
                [
                    TextKey("InitiatorName", "iqn.i"), TextKey("TargetName", "iqn.t"), TextKey("AuthMethod", "CHAP"),
                ],
                current: 0,
                next: nil
            )
        )
        #expect(harness.loginStatus == 0x0201)
        // CHAP first but None as well: None it is.
        let other = login(CHAPCredential(name: "a", secret: "b"), rules: AccessRules())
        #expect(other.initiator.targetKeys.contains(TextKey("AuthMethod", "None")))
    }

    /// Also where a target is named: the rules of that one open no list of all.
    @Test(arguments: [false, true])
    func discoveryHasRulesOfItsOwn(namesTarget: Bool) {
        var configuration = ISCSIConfiguration()
        configuration.discoveryAccess = rules
        var options = ISCSIInitiatorOptions()
        options.sessionType = .discovery
        if !namesTarget { options.targetName = nil }
        let harness = Harness(options, configuration: configuration)
        harness.send(harness.initiator.start())
        #expect(harness.loginStatus == 0x0201)
        options.credential = rules.credentials[0]
        let other = Harness(options, configuration: configuration)
        other.send(other.initiator.start())
        #expect(other.loginStatus == 0)
        #expect(other.resolves.isEmpty)
        #expect(other.opens.first?.identity.sessionType == .discovery)
        // RFC 7143, 13.9: where a TargetName was given.
        let tag = TextKey("TargetPortalGroupTag", "1")
        #expect(other.initiator.targetKeys.contains(tag) || !namesTarget)
    }

    // MARK: The machine alone

    private func machine(_ rules: AccessRules? = nil) -> CHAPMachine {
        CHAPMachine(
            rules: rules ?? self.rules,
            accepted: CHAPAlgorithm.allCases,
            randomBytes: Harness.random,
            hash: ISCSITestHash.digest
        )
    }

    @Test func reflectedChallengesAreRefused() throws {
        var machine = machine()
        let answer = try machine.received(["CHAP_A": "5"])
        let challenge = try #require(answer.first { $0.name == "CHAP_C" }?.value)
        let ours = Array(Harness.random[1...32])
        #expect(TextValue.binary(challenge, maximumBytes: 64) == ours)
        let response = ISCSITestHash.digest(.md5, [Harness.random[0]] + Array("correct horse battery".utf8) + ours)
        #expect(throws: CHAPMachine.Failure.reflected) {
            try machine.received([
                "CHAP_N": "alice", "CHAP_R": TextValue.hexadecimal(encoding: response), "CHAP_I": "1",
                "CHAP_C": challenge,
            ])
        }
        #expect(!machine.isDone)
    }

    /// RFC 1994: MD5 of identifier, secret and challenge. The digest was computed apart, with coreutils' `md5sum`.
    @Test func theDigestIsTakenOverIdentifierSecretAndChallenge() throws {
        final class Seen: @unchecked Sendable { var bytes: [UInt8] = [] }
        let seen = Seen()
        var machine = CHAPMachine(
            rules: rules,
            accepted: [.md5],
            randomBytes: [0x2A] + [UInt8](repeating: 0x11, count: 32),
            hash: { _, bytes in
                seen.bytes = bytes
                return Array(hex("a975a102bed28b1c9d3b95b2910e83a0").readableBytesView)
            }
        )
        _ = try machine.received(["CHAP_A": "5"])
        _ = try machine.received(["CHAP_N": "alice", "CHAP_R": "0xa975a102bed28b1c9d3b95b2910e83a0"])
        #expect(seen.bytes == [0x2A] + Array("correct horse battery".utf8) + [UInt8](repeating: 0x11, count: 32))
        #expect(machine.isDone)
        #expect(machine.authenticatedName == "alice")
    }

    @Test func malformedKeysAreRefused() throws {
        for keys in [["CHAP_N": "alice"], ["CHAP_A": "5", "CHAP_N": "alice"], ["CHAP_R": "0x00"]] {
            var machine = machine()
            #expect(throws: CHAPMachine.Failure.malformed) { try machine.received(keys) }
        }
        for keys in [
            ["CHAP_N": "alice"], ["CHAP_N": "alice", "CHAP_R": "zz"], ["CHAP_A": "5"],
            ["CHAP_N": "alice", "CHAP_R": "0x" + String(repeating: "00", count: 1_025)],
        ] {
            var machine = machine()
            _ = try machine.received(["CHAP_A": "5"])
            #expect(throws: CHAPMachine.Failure.malformed) { try machine.received(keys) }
        }
        var machine = machine()
        _ = try machine.received(["CHAP_A": "5"])
        #expect(throws: CHAPMachine.Failure.wrongResponse) {
            try machine.received(["CHAP_N": "alice", "CHAP_R": "0x00"])
        }
    }
}
