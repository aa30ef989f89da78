/// The operational keys of RFC 7143, section 13, with the function by which each is settled.
///
/// | key | function | range | default |
/// | --- | --- | --- | --- |
/// | HeaderDigest, DataDigest | first of the offerer's list that we take | None, CRC32C | None |
/// | MaxConnections | minimum | 1 to 65535 | 1 |
/// | InitialR2T, DataPDUInOrder, DataSequenceInOrder | OR | Yes, No | Yes |
/// | ImmediateData | AND | Yes, No | Yes |
/// | MaxRecvDataSegmentLength | declared | 512 to 2^24 - 1 | 8192 |
/// | MaxBurstLength, FirstBurstLength | minimum | 512 to 2^24 - 1 | 262144, 65536 |
/// | DefaultTime2Wait, DefaultTime2Retain | maximum, minimum | 0 to 3600 | 2, 20 |
/// | MaxOutstandingR2T | minimum | 1 to 65535 | 1 |
/// | ErrorRecoveryLevel | minimum | 0 to 2 | 0 |
/// | TaskReporting | first of the offerer's list that we take | RFC3720 | RFC3720 |
/// | iSCSIProtocolLevel | minimum | 0 to 31 | 1 |
/// | IFMarker, OFMarker | obsolete: No | | |
/// | IFMarkInt, OFMarkInt | obsolete: Reject | | |
package struct KeyNegotiation: Sendable {
    /// How one key was settled.
    package enum Outcome: Hashable, Sendable {
        /// Answer with this value.
        case answer(String)
        /// Declared; no answer.
        case declared
        /// The declaration breaks the rules: the login cannot go on.
        case invalid
    }

    /// Our side.
    package let configuration: ISCSIConfiguration
    /// What is agreed on so far.
    package var parameters: SessionParameters

    private var isDiscovery: Bool { parameters.identity.sessionType == .discovery }

    /// A negotiation that has agreed on nothing.
    package init(configuration: ISCSIConfiguration, identity: LoginIdentity) {
        self.configuration = configuration
        self.parameters = SessionParameters(identity: identity)
        self.parameters.portalGroupTag = configuration.portalGroupTag
    }

    /// Settles one key that the initiator offered or declared.
    package mutating func settle(_ key: TextKey) -> Outcome {
        switch key.name {
        case "HeaderDigest":
            return digest(key.value, policy: configuration.headerDigest) { $0.headerDigest = $1 }
        case "DataDigest":
            return digest(key.value, policy: configuration.dataDigest) { $0.dataDigest = $1 }
        case "MaxRecvDataSegmentLength":
            guard let value = TextValue.number(key.value), (512...ISCSILimits.dataSegmentMaximumBytes).contains(value)
            else { return .invalid }
            parameters.maxSendDataSegmentLength = UInt32(value)
            return .declared
        case "ErrorRecoveryLevel":
            return minimum(key.value, of: 0, within: 0...2) { _, _ in }
        case "DefaultTime2Wait":
            return maximum(key.value, of: 2, within: 0...3_600) { $0.defaultTime2Wait = UInt16($1) }
        case "DefaultTime2Retain":
            return minimum(key.value, of: 0, within: 0...3_600) { $0.defaultTime2Retain = UInt16($1) }
        case "iSCSIProtocolLevel":
            return minimum(key.value, of: 1, within: 0...31) { _, _ in }
        case "TaskReporting":
            return .answer(TextValue.list(key.value).contains("RFC3720") ? "RFC3720" : "Reject")
        case "IFMarker", "OFMarker":
            return .answer(TextValue.boolean(key.value) == nil ? "Reject" : "No")
        case "IFMarkInt", "OFMarkInt":
            return .answer("Reject")
        default:
            return settleOfNormalSession(key)
        }
    }

    /// Keys that mean nothing in a discovery session.
    private mutating func settleOfNormalSession(_ key: TextKey) -> Outcome {
        let segments: ClosedRange<UInt64> = 512...ISCSILimits.dataSegmentMaximumBytes
        let outcome: Outcome
        let before = parameters
        let configuration = configuration
        switch key.name {
        case "MaxConnections":
            outcome = minimum(key.value, of: 1, within: 1...65_535) { _, _ in }
        case "InitialR2T":
            outcome = boolean(key.value, { $0 || configuration.initialR2T }) { $0.initialR2T = $1 }
        case "ImmediateData":
            outcome = boolean(key.value, { $0 && configuration.immediateData }) { $0.immediateData = $1 }
        case "DataPDUInOrder", "DataSequenceInOrder":
            outcome = boolean(key.value, { _ in true }) { _, _ in }
        case "MaxBurstLength":
            let ours = UInt64(configuration.maxBurstLength)
            outcome = minimum(key.value, of: ours, within: segments) { $0.maxBurstLength = UInt32($1) }
        case "FirstBurstLength":
            let ours = UInt64(configuration.firstBurstLength)
            outcome = minimum(key.value, of: ours, within: segments) { $0.firstBurstLength = UInt32($1) }
        case "MaxOutstandingR2T":
            let ours = UInt64(configuration.maxOutstandingR2T)
            outcome = minimum(key.value, of: ours, within: 1...65_535) { $0.maxOutstandingR2T = UInt16($1) }
        default:
            return .answer("NotUnderstood")
        }
        guard isDiscovery else { return outcome }
        parameters = before
        return .answer("Irrelevant")
    }

    // MARK: Functions

    private mutating func minimum(
        _ text: String,
        of ours: UInt64,
        within range: ClosedRange<UInt64>,
        _ store: (inout SessionParameters, UInt64) -> Void
    ) -> Outcome {
        guard let offered = TextValue.number(text), range.contains(offered) else { return .answer("Reject") }
        let result = min(offered, max(ours, range.lowerBound))
        store(&parameters, result)
        return .answer(String(result))
    }

    private mutating func maximum(
        _ text: String,
        of ours: UInt64,
        within range: ClosedRange<UInt64>,
        _ store: (inout SessionParameters, UInt64) -> Void
    ) -> Outcome {
        guard let offered = TextValue.number(text), range.contains(offered) else { return .answer("Reject") }
        let result = max(offered, ours)
        store(&parameters, result)
        return .answer(String(result))
    }

    private mutating func boolean(
        _ text: String,
        _ function: (Bool) -> Bool,
        _ store: (inout SessionParameters, Bool) -> Void
    ) -> Outcome {
        guard let offered = TextValue.boolean(text) else { return .answer("Reject") }
        let result = function(offered)
        store(&parameters, result)
        return .answer(result ? "Yes" : "No")
    }

    private mutating func digest(
        _ text: String,
        policy: DigestPolicy,
        _ store: (inout SessionParameters, Bool) -> Void
    ) -> Outcome {
        let offered = TextValue.list(text)
        let choice =
            switch policy {
            case .never: offered.first { $0 == "None" }
            case .allowed: offered.first { $0 == "None" || $0 == "CRC32C" }
            case .required: offered.first { $0 == "CRC32C" }
            }
        guard let choice else { return .answer("Reject") }
        store(&parameters, choice == "CRC32C")
        return .answer(choice)
    }

    /// Whether RFC 7143 knows an operational or declarative key of this name.
    package static func isKnown(_ name: String) -> Bool {
        switch name {
        case "HeaderDigest", "DataDigest", "MaxConnections", "InitialR2T", "ImmediateData", "MaxRecvDataSegmentLength",
            "MaxBurstLength", "FirstBurstLength", "DefaultTime2Wait", "DefaultTime2Retain", "MaxOutstandingR2T",
            "DataPDUInOrder", "DataSequenceInOrder", "ErrorRecoveryLevel", "TaskReporting", "iSCSIProtocolLevel",
            "SendTargets", "TargetAlias", "TargetAddress", "TargetPortalGroupTag", "SessionType", "InitiatorName",
            "TargetName", "AuthMethod":
            true
        default:
            false
        }
    }

    /// Whether the digests that are required were agreed on.
    package var satisfiesPolicy: Bool {
        (configuration.headerDigest != .required || parameters.headerDigest)
            && (configuration.dataDigest != .required || parameters.dataDigest)
    }
}
