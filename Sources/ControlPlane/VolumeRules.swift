import AshlarCore

/// A volume whose every part has been checked, ready to be inserted.
public struct VolumeDraft: Sendable, Hashable {
    /// The name.
    public var name: String
    /// The iSCSI name.
    public var iqn: String
    /// The dimensions.
    public var sizeBytes: UInt64
    /// The data block.
    public var blockSizeBytes: UInt32
    /// The SCSI logical block.
    public var logicalBlockSizeBytes: UInt32
    /// Whether writes are refused.
    public var readOnly: Bool
    /// Named parts of the policy.
    public var policy: PolicyDocument
    /// Initiators, ascending, each once.
    public var initiators: [String]
    /// Credentials of initiators.
    public var credentials: [CredentialDocument]
    /// Credential of the target.
    public var mutual: CredentialDocument?
}

/// What names, sizes, policies and access rules must be.
public enum VolumeRules {
    /// What iSCSI names of volumes begin with for which none is named (RFC 7143, 4.2.7.4).
    public static let iqnPrefix = "iqn.2026-01.io.ashlar:"

    /// Checks a volume that is to be created.
    ///
    /// - Throws: ``ControlError`` with the field and what it must be.
    public static func draft(_ request: CreateVolumeRequest) throws(ControlError) -> VolumeDraft {
        try checkName(request.name)
        let iqn = request.iqn ?? iqnPrefix + request.name
        try checkTargetName(iqn)
        let blockSize = request.blockSizeBytes ?? Limits.blockSizeDefaultBytes
        let logical = request.logicalBlockSizeBytes ?? Limits.logicalBlockSizeDefaultBytes
        try checkGeometry(sizeBytes: request.sizeBytes, blockSizeBytes: blockSize, logicalBlockSizeBytes: logical)
        let policy = request.policy ?? PolicyDocument()
        try checkPolicy(policy)
        try checkTogether(complete(policy))
        let initiators = try checkedInitiators(request.initiators ?? [])
        let credentials = request.credentials ?? []
        try checkCredentials(credentials, mutual: request.mutual)
        return VolumeDraft(
            name: request.name,
            iqn: iqn,
            sizeBytes: request.sizeBytes,
            blockSizeBytes: blockSize,
            logicalBlockSizeBytes: logical,
            readOnly: request.readOnly ?? false,
            policy: policy,
            initiators: initiators,
            credentials: credentials,
            mutual: request.mutual
        )
    }

    /// Checks a change; what it returns has its initiators sorted.
    ///
    /// - Throws: ``ControlError`` with the field and what it must be.
    public static func checked(_ request: ChangeVolumeRequest) throws(ControlError) -> ChangeVolumeRequest {
        var request = request
        if let policy = request.policy { try checkPolicy(policy) }
        if let initiators = request.initiators { request.initiators = try checkedInitiators(initiators) }
        let mutual = request.mutual.flatMap { $0.name.isEmpty ? nil : $0 }
        try checkCredentials(request.credentials ?? [], mutual: mutual)
        return request
    }

    // MARK: Names

    /// Checks the name of a volume.
    ///
    /// - Throws: ``ControlError``.
    public static func checkName(_ name: String) throws(ControlError) {
        let bytes = Array(name.utf8)
        let ends = [bytes.first, bytes.last].allSatisfy { $0.map(isLetterOrDigit) ?? false }
        let inner = bytes.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") }
        guard ends, inner, bytes.count <= Limits.volumeNameMaximumBytes else {
            throw ControlError(
                .invalid,
                "\"\(name.prefix(Limits.volumeNameMaximumBytes))\" cannot be the name of a volume.",
                remedy: "Use 1 to \(Limits.volumeNameMaximumBytes) of a-z, 0-9, hyphen and dot, "
                    + "with a letter or digit at both ends."
            )
        }
    }

    static func checkTargetName(_ name: String) throws(ControlError) {
        guard isISCSIName(name) else {
            throw ControlError(
                .invalid,
                "iqn \"\(name.prefix(ControlLimits.iscsiNameMaximumBytes))\" is not an iSCSI name.",
                remedy: "Use iqn.YYYY-MM.reversed.domain:name in small letters, or leave it out."
            )
        }
    }

    /// Whether a text is an iSCSI name in its normal form (RFC 7143, 4.2.7).
    static func isISCSIName(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard bytes.count <= ControlLimits.iscsiNameMaximumBytes else { return false }
        if name.hasPrefix("eui.") { return bytes.count == 20 && bytes.dropFirst(4).allSatisfy(isHexadecimal) }
        if name.hasPrefix("naa.") {
            return (bytes.count == 20 || bytes.count == 36) && bytes.dropFirst(4).allSatisfy(isHexadecimal)
        }
        guard name.hasPrefix("iqn."), bytes.count > 12 else { return false }
        let allowed = bytes.allSatisfy {
            isLetterOrDigit($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: ":")
        }
        let date = bytes[4..<11]
        let isDate = date.enumerated().allSatisfy { index, byte in
            index == 4 ? byte == UInt8(ascii: "-") : (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
        }
        return allowed && isDate && bytes[11] == UInt8(ascii: ".")
    }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
            || (UInt8(ascii: "A")...UInt8(ascii: "F")).contains(byte)
    }

    // MARK: Dimensions and policy

    static func checkGeometry(
        sizeBytes: UInt64,
        blockSizeBytes: UInt32,
        logicalBlockSizeBytes: UInt32
    ) throws(ControlError) {
        do {
            _ = try Geometry(
                sizeBytes: sizeBytes,
                blockSizeBytes: blockSizeBytes,
                logicalBlockSizeBytes: logicalBlockSizeBytes
            )
        } catch {
            let remedy =
                switch error {
                case .blockSize: "Set blockSizeBytes to one of these."
                case .logicalBlockSize: "Set logicalBlockSizeBytes to 512, or to 4096 with blocks that large."
                case .size: sizeRemedy(sizeBytes, blockSizeBytes: blockSizeBytes)
                }
            throw ControlError(.invalid, "The \(error).", remedy: remedy)
        }
    }

    private static func sizeRemedy(_ sizeBytes: UInt64, blockSizeBytes: UInt32) -> String {
        let block = UInt64(blockSizeBytes)
        guard sizeBytes > 0, sizeBytes < Limits.volumeSizeMaximumBytes else {
            return "Set sizeBytes inside these bounds."
        }
        return "Set sizeBytes to \((sizeBytes / block + 1) * block), for instance."
    }

    static func checkPolicy(_ policy: PolicyDocument) throws(ControlError) {
        if let move = policy.move, MovePolicy(rawValue: move) == nil {
            throw invalid("policy.move", move, MovePolicy.allCases.map(\.rawValue))
        }
        if let fill = policy.readFill, ReadFillPolicy(rawValue: fill) == nil {
            throw invalid("policy.readFill", fill, ReadFillPolicy.allCases.map(\.rawValue))
        }
        if let percent = policy.compactBelowPercent, percent > 100 {
            throw ControlError(
                .invalid,
                "policy.compactBelowPercent is \(percent).",
                remedy: "Set it from 0 to 100."
            )
        }
        let bounds = [
            ("unmovedItemsMaximum", policy.unmovedItemsMaximum), ("unmovedBytesMaximum", policy.unmovedBytesMaximum),
            ("cachedBytesMaximum", policy.cachedBytesMaximum),
        ]
        for case (let name, let value?) in bounds where value > UInt64(Int64.max) {
            throw ControlError(.invalid, "policy.\(name) is \(value).", remedy: "Set it to at most \(Int64.max).")
        }
    }

    /// Checks the parts of a complete policy against one another.
    ///
    /// - Throws: ``ControlError`` with the field and what it must be.
    static func checkTogether(_ policy: PolicyDocument) throws(ControlError) {
        guard let through = policy.writeThroughMinimumBytes, let direct = policy.directWriteMinimumBytes else { return }
        if through > 0, direct > 0, through >= direct {
            throw ControlError(
                .invalid,
                "With policy.writeThroughMinimumBytes \(through) and policy.directWriteMinimumBytes \(direct) no write would be "
                    + "written through: writes go straight to objects from \(direct) bytes on.",
                remedy: "Set writeThroughMinimumBytes to less than directWriteMinimumBytes, or one of the two to 0."
            )
        }
        if through > UInt32(Limits.objectTargetBytes) {
            throw ControlError(
                .invalid,
                "policy.writeThroughMinimumBytes is \(through).",
                remedy: "Set it to at most \(Limits.objectTargetBytes): larger writes do not fit into an object."
            )
        }
    }

    private static func invalid(_ field: String, _ value: String, _ allowed: [String]) -> ControlError {
        ControlError(
            .invalid,
            "\(field) is \"\(value.prefix(64))\".",
            remedy: "Set it to one of \(allowed.joined(separator: ", "))."
        )
    }

    /// The complete policy of a volume whose row has these parts.
    static func complete(_ parts: PolicyDocument) -> PolicyDocument {
        let standard = CachePolicy.standard
        var policy = parts
        policy.move = parts.move ?? standard.move.rawValue
        policy.unmovedItemsMaximum = parts.unmovedItemsMaximum ?? standard.unmovedItemsMaximum
        policy.unmovedBytesMaximum = parts.unmovedBytesMaximum ?? standard.unmovedBytesMaximum
        policy.unmovedAgeMaximumSeconds = parts.unmovedAgeMaximumSeconds ?? standard.unmovedAgeMaximumSeconds
        policy.cachedBytesMaximum = parts.cachedBytesMaximum ?? standard.cachedBytesMaximum
        policy.readFill = parts.readFill ?? standard.readFill.rawValue
        policy.compactBelowPercent = parts.compactBelowPercent ?? standard.compactBelowPercent
        policy.directWriteMinimumBytes = parts.directWriteMinimumBytes ?? standard.directWriteMinimumBytes
        policy.writeThroughMinimumBytes = parts.writeThroughMinimumBytes ?? standard.writeThroughMinimumBytes
        policy.readsBothAtOnce = parts.readsBothAtOnce ?? standard.readsBothAtOnce
        return policy
    }

    // MARK: Access

    private static func checkedInitiators(_ names: [String]) throws(ControlError) -> [String] {
        guard names.count <= ControlLimits.accessRulesMaximum else {
            throw ControlError(
                .invalid,
                "\(names.count) initiators are too many.",
                remedy: "Name at most \(ControlLimits.accessRulesMaximum)."
            )
        }
        for name in names where !isISCSIName(name) {
            throw ControlError(
                .invalid,
                "Initiator \"\(name.prefix(ControlLimits.iscsiNameMaximumBytes))\" is not an iSCSI name.",
                remedy: "Use the name that the initiator logs in with, as in iqn.1993-08.org.debian:01:abc."
            )
        }
        return Array(Set(names)).sorted()
    }

    private static func checkCredentials(
        _ credentials: [CredentialDocument],
        mutual: CredentialDocument?
    ) throws(ControlError) {
        guard credentials.count <= ControlLimits.accessRulesMaximum else {
            throw ControlError(
                .invalid,
                "\(credentials.count) credentials are too many.",
                remedy: "Name at most \(ControlLimits.accessRulesMaximum)."
            )
        }
        var seen = Set<String>()
        for credential in credentials {
            try checkCredential(credential, field: "credentials")
            guard seen.insert(credential.name).inserted else {
                throw ControlError(
                    .invalid,
                    "Credential \"\(credential.name)\" is named twice.",
                    remedy: "Give each name one secret."
                )
            }
        }
        guard let mutual else { return }
        try checkCredential(mutual, field: "mutual")
        if credentials.contains(where: { $0.secret == mutual.secret }) {
            throw ControlError(
                .invalid,
                "The secret of mutual is also one of the initiators'.",
                remedy: "Choose another one: RFC 7143, 9.2.1, forbids the same secret in both directions."
            )
        }
    }

    private static func checkCredential(_ credential: CredentialDocument, field: String) throws(ControlError) {
        let isPrintable = (credential.name + credential.secret).utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }
        guard isPrintable, (1...ControlLimits.chapSecretMaximumBytes).contains(credential.name.utf8.count) else {
            throw ControlError(
                .invalid,
                "A name or secret in \(field) is empty, too long, or has control characters.",
                remedy: "Use 1 to \(ControlLimits.chapSecretMaximumBytes) printable bytes."
            )
        }
        let allowed = ControlLimits.chapSecretMinimumBytes...ControlLimits.chapSecretMaximumBytes
        guard allowed.contains(credential.secret.utf8.count) else {
            throw ControlError(
                .invalid,
                "The secret of \"\(credential.name)\" in \(field) has \(credential.secret.utf8.count) bytes.",
                remedy: "Use \(allowed.lowerBound) to \(allowed.upperBound)."
            )
        }
    }
}
