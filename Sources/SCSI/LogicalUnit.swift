public import AshlarCore

/// What a device server must know of a volume, and of the port through which it is seen, to answer by itself.
public struct LogicalUnit: Sendable, Hashable {
    /// The volume.
    public var volume: VolumeDescription
    /// iSCSI name of the target.
    public var targetName: String
    /// Portal group tag of the target port.
    public var portalGroupTag: UInt16
    /// RELATIVE TARGET PORT IDENTIFIER; 1 to 65,535.
    public var relativePortIdentifier: UInt16
    /// PRODUCT REVISION LEVEL; cut to four characters.
    public var productRevision: String
    /// Mode parameters in force.
    public var mode: ModeParameters
    /// Mode parameters that come back with a reset.
    public var savedMode: ModeParameters
    /// All target ports of the target, with that through which it is seen.
    public var targetPorts: [TargetPort]
    /// PERIPHERAL DEVICE IDENTIFYING INFORMATION.
    public var identifyingInformation: [UInt8]
    /// PERIPHERAL DEVICE TEXT IDENTIFYING INFORMATION: UTF-8 that ends with a zero byte, or nothing.
    public var identifyingText: [UInt8]

    /// A logical unit with each part named; without `targetPorts` its own port is all there is.
    public init(
        volume: VolumeDescription,
        targetName: String,
        portalGroupTag: UInt16,
        relativePortIdentifier: UInt16,
        productRevision: String,
        mode: ModeParameters = ModeParameters(),
        savedMode: ModeParameters = ModeParameters(),
        targetPorts: [TargetPort]? = nil,
        identifyingInformation: [UInt8] = [],
        identifyingText: [UInt8] = []
    ) {
        self.volume = volume
        self.targetName = targetName
        self.portalGroupTag = portalGroupTag
        self.relativePortIdentifier = relativePortIdentifier
        self.productRevision = productRevision
        self.mode = mode
        self.savedMode = savedMode
        self.targetPorts =
            targetPorts ?? [
                TargetPort(portalGroupTag: portalGroupTag, relativePortIdentifier: relativePortIdentifier)
            ]
        self.identifyingInformation = identifyingInformation
        self.identifyingText = identifyingText
    }

    /// The port through which it is seen.
    public var targetPort: TargetPort {
        TargetPort(portalGroupTag: portalGroupTag, relativePortIdentifier: relativePortIdentifier)
    }

    /// Whether writes are refused.
    public var isWriteProtected: Bool { volume.isReadOnly || mode.isSoftwareWriteProtected }

    /// The unit as it were if nothing protected it: for who leaves that to the volume's owner.
    public var withoutProtection: LogicalUnit {
        var unit = self
        unit.volume.isReadOnly = false
        unit.mode.isSoftwareWriteProtected = false
        return unit
    }

    /// Bytes in a logical block.
    var logicalBlockBytes: UInt64 { UInt64(volume.geometry.logicalBlockSizeBytes) }

    /// Number of logical blocks.
    var logicalBlockCount: UInt64 { volume.geometry.logicalBlockCount }

    /// Logical blocks in a data block.
    var logicalBlocksPerDataBlock: UInt32 {
        volume.geometry.blockSizeBytes / volume.geometry.logicalBlockSizeBytes
    }

    /// The volume's 16 bytes; padded with zeros, or cut, where the description has another number.
    var uuid: [UInt8] {
        let bytes = volume.uuid.prefix(16)
        return bytes + [UInt8](repeating: 0, count: 16 - bytes.count)
    }

    /// The volume's 16 bytes as 32 hexadecimal digits: the serial number.
    var serialNumber: String { hexadecimal(uuid) }

    /// A locally assigned NAA identifier: 3h and 60 bits folded from the volume's 16 bytes (SPC-5, 7.7.6.6.4).
    var networkAddressIdentifier: [UInt8] {
        let bytes = uuid
        var folded = (0..<8).map { bytes[$0] ^ bytes[$0 + 8] }
        folded[0] = 0x30 | (folded[0] & 0x0F)
        return folded
    }
}

/// Bytes as lower case hexadecimal digits.
func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits: [Character] = Array("0123456789abcdef")
    return bytes.reduce(into: "") { text, byte in
        text.append(digits[Int(byte >> 4)])
        text.append(digits[Int(byte & 0x0F)])
    }
}
