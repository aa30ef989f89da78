package import AshlarCore

/// The target's side of a CHAP exchange (RFC 7143, 12.1.3; RFC 1994).
///
/// `awaitingAlgorithms` → CHAP_A → `awaitingResponse` → CHAP_N, CHAP_R (CHAP_I, CHAP_C) → `done`. Any failure ends the
/// login.
package struct CHAPMachine: Sendable {
    /// A digest of bytes.
    package typealias Hash = @Sendable (CHAPAlgorithm, [UInt8]) -> [UInt8]

    /// Why an exchange failed; none of it goes to the initiator.
    package enum Failure: String, Error, Sendable {
        case noCommonAlgorithm = "no CHAP algorithm in common"
        case malformed = "a CHAP key is missing or malformed"
        case wrongResponse = "the CHAP name or response is wrong"
        case reflected = "the initiator sent our own challenge back"
        case sharedSecret = "the secrets of both directions are the same"
        case noMutualCredential = "the initiator asks for mutual CHAP, and no credential is set for it"
    }

    private enum State: Sendable {
        case awaitingAlgorithms
        case awaitingResponse(CHAPAlgorithm)
        case done
    }

    private var state = State.awaitingAlgorithms
    private let rules: AccessRules
    private let accepted: [CHAPAlgorithm]
    private let identifier: UInt8
    private let challenge: [UInt8]
    private let hash: Hash
    /// CHAP_N of the initiator, once it has proved itself.
    package private(set) var authenticatedName: String?

    /// An exchange; `randomBytes` become identifier and challenge.
    package init(rules: AccessRules, accepted: [CHAPAlgorithm], randomBytes: [UInt8], hash: @escaping Hash) {
        precondition(randomBytes.count > ISCSILimits.chapChallengeBytes, "a challenge needs random bytes")
        self.rules = rules
        self.accepted = accepted
        self.identifier = randomBytes[0]
        self.challenge = Array(randomBytes[1...ISCSILimits.chapChallengeBytes])
        self.hash = hash
    }

    /// Takes the CHAP keys of one request and returns those of the answer.
    package mutating func received(_ keys: [String: String]) throws(Failure) -> [TextKey] {
        switch state {
        case .awaitingAlgorithms:
            guard let offered = keys["CHAP_A"] else {
                guard keys.isEmpty else { throw .malformed }
                return []
            }
            guard keys.count == 1 else { throw .malformed }
            let choice = TextValue.list(offered).lazy
                .compactMap { TextValue.number($0) }
                .compactMap { $0 <= 255 ? CHAPAlgorithm(rawValue: UInt8($0)) : nil }
                .first { accepted.contains($0) }
            guard let choice else { throw .noCommonAlgorithm }
            state = .awaitingResponse(choice)
            return [
                TextKey("CHAP_A", String(choice.rawValue)), TextKey("CHAP_I", String(identifier)),
                TextKey("CHAP_C", TextValue.hexadecimal(encoding: challenge)),
            ]
        case .awaitingResponse(let algorithm):
            guard !keys.isEmpty else { return [] }
            return try verify(keys, algorithm)
        case .done:
            guard keys.isEmpty else { throw .malformed }
            return []
        }
    }

    private mutating func verify(_ keys: [String: String], _ algorithm: CHAPAlgorithm) throws(Failure) -> [TextKey] {
        guard let name = keys["CHAP_N"], let responseText = keys["CHAP_R"],
            let response = TextValue.binary(responseText, maximumBytes: ISCSILimits.chapBinaryMaximumBytes)
        else { throw .malformed }
        // An unknown name costs the same work as a known one, and fails the same way.
        let credential = rules.credentials.first { $0.name == name }
        let secret = Array((credential?.secret ?? "").utf8)
        let expected = hash(algorithm, [identifier] + secret + challenge)
        guard isEqual(expected, response), credential != nil else { throw .wrongResponse }
        let answer = try proveOurselves(keys, algorithm, initiatorSecret: secret)
        authenticatedName = name
        state = .done
        return answer
    }

    private func proveOurselves(
        _ keys: [String: String],
        _ algorithm: CHAPAlgorithm,
        initiatorSecret: [UInt8]
    ) throws(Failure) -> [TextKey] {
        let identifierText = keys["CHAP_I"]
        let challengeText = keys["CHAP_C"]
        guard keys.count == 2 + (identifierText == nil ? 0 : 1) + (challengeText == nil ? 0 : 1) else {
            throw .malformed
        }
        guard let identifierText, let challengeText else {
            guard identifierText == nil && challengeText == nil else { throw .malformed }
            return []
        }
        guard let theirIdentifier = TextValue.number(identifierText), theirIdentifier <= 255,
            let theirChallenge = TextValue.binary(
                challengeText,
                maximumBytes: ISCSILimits.chapBinaryMaximumBytes
            )
        else { throw .malformed }
        guard !isEqual(theirChallenge, challenge) else { throw .reflected }
        guard let mutual = rules.mutual else { throw .noMutualCredential }
        let ours = Array(mutual.secret.utf8)
        guard !isEqual(ours, initiatorSecret) else { throw .sharedSecret }
        let response = hash(algorithm, [UInt8(theirIdentifier)] + ours + theirChallenge)
        return [
            TextKey("CHAP_N", mutual.name), TextKey("CHAP_R", TextValue.hexadecimal(encoding: response)),
        ]
    }

    /// Whether the initiator has proved itself.
    package var isDone: Bool { if case .done = state { true } else { false } }

    /// Compares in a time that depends on the lengths alone.
    private func isEqual(_ lhs: [UInt8], _ rhs: [UInt8]) -> Bool {
        guard lhs.count == rhs.count else { return false }
        var difference: UInt8 = 0
        for index in lhs.indices { difference |= lhs[index] ^ rhs[index] }
        return difference == 0
    }
}
