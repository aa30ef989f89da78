public import AshlarCore

/// What a device server must know of a volume, and of the port through which it is seen, to answer by itself.
///
/// Its parts lie in storage that copies share: each command of an initiator hands it about.
public struct LogicalUnit: Sendable, Hashable {
    private struct Parts: Sendable, Hashable {
        var volume: VolumeDescription
        var targetName: String
        var portalGroupTag: UInt16
        var relativePortIdentifier: UInt16
        var productRevision: String
        var mode: ModeParameters
        var savedMode: ModeParameters
        var targetPorts: [TargetPort]
        var identifyingInformation: [UInt8]
        var identifyingText: [UInt8]
    }

    private final class Storage: Sendable {
        let parts: Parts
        init(_ parts: Parts) { self.parts = parts }
    }

    private var storage: Storage

    private mutating func change(_ change: (inout Parts) -> Void) {
        var parts = storage.parts
        change(&parts)
        storage = Storage(parts)
    }

    /// The volume.
    public var volume: VolumeDescription {
        get { storage.parts.volume }
        set { change { $0.volume = newValue } }
    }
    /// iSCSI name of the target.
    public var targetName: String {
        get { storage.parts.targetName }
        set { change { $0.targetName = newValue } }
    }
    /// Portal group tag of the target port.
    public var portalGroupTag: UInt16 {
        get { storage.parts.portalGroupTag }
        set { change { $0.portalGroupTag = newValue } }
    }
    /// RELATIVE TARGET PORT IDENTIFIER; 1 to 65,535.
    public var relativePortIdentifier: UInt16 {
        get { storage.parts.relativePortIdentifier }
        set { change { $0.relativePortIdentifier = newValue } }
    }
    /// PRODUCT REVISION LEVEL; cut to four characters.
    public var productRevision: String {
        get { storage.parts.productRevision }
        set { change { $0.productRevision = newValue } }
    }
    /// Mode parameters in force.
    public var mode: ModeParameters {
        get { storage.parts.mode }
        set { change { $0.mode = newValue } }
    }
    /// Mode parameters that come back with a reset.
    public var savedMode: ModeParameters {
        get { storage.parts.savedMode }
        set { change { $0.savedMode = newValue } }
    }
    /// All target ports of the target, with that through which it is seen.
    public var targetPorts: [TargetPort] {
        get { storage.parts.targetPorts }
        set { change { $0.targetPorts = newValue } }
    }
    /// PERIPHERAL DEVICE IDENTIFYING INFORMATION.
    public var identifyingInformation: [UInt8] {
        get { storage.parts.identifyingInformation }
        set { change { $0.identifyingInformation = newValue } }
    }
    /// PERIPHERAL DEVICE TEXT IDENTIFYING INFORMATION: UTF-8 that ends with a zero byte, or nothing.
    public var identifyingText: [UInt8] {
        get { storage.parts.identifyingText }
        set { change { $0.identifyingText = newValue } }
    }

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
        let parts = Parts(
            volume: volume,
            targetName: targetName,
            portalGroupTag: portalGroupTag,
            relativePortIdentifier: relativePortIdentifier,
            productRevision: productRevision,
            mode: mode,
            savedMode: savedMode,
            targetPorts: targetPorts ?? [
                TargetPort(portalGroupTag: portalGroupTag, relativePortIdentifier: relativePortIdentifier)
            ],
            identifyingInformation: identifyingInformation,
            identifyingText: identifyingText
        )
        storage = Storage(parts)
    }

    /// Compares all parts.
    public static func == (lhs: LogicalUnit, rhs: LogicalUnit) -> Bool {
        lhs.storage === rhs.storage || lhs.storage.parts == rhs.storage.parts
    }

    /// Hashes all parts.
    public func hash(into hasher: inout Hasher) { hasher.combine(storage.parts) }

    /// How the volume is divided.
    public var geometry: Geometry { storage.parts.volume.geometry }

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
    var logicalBlockBytes: UInt64 { UInt64(geometry.logicalBlockSizeBytes) }

    /// Number of logical blocks.
    var logicalBlockCount: UInt64 { geometry.logicalBlockCount }

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
