public import AshlarCore
public import NIOCore

/// What a proxy says about a connection that it passes on: the header of the PROXY protocol, version 2
/// (`proxy-protocol.txt` of haproxy.org, 2.2), which comes before anything else.
///
/// | bytes | field |
/// | --- | --- |
/// | 0 to 11 | 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A |
/// | 12 | version (2) in the upper, command (0 LOCAL, 1 PROXY) in the lower four bits |
/// | 13 | address family (0 UNSPEC, 1 INET, 2 INET6, 3 UNIX), transport (0 UNSPEC, 1 STREAM, 2 DGRAM) |
/// | 14, 15 | bytes that follow, big-endian |
/// | 16… | source address, destination address, source port, destination port; then TLVs, which are skipped |
public enum ProxyHeader: Sendable, Hashable {
    /// LOCAL: the proxy speaks for itself, as in a health check; the connection's own address holds.
    case local
    /// The initiator's address and port.
    case proxied(NetworkAddress, port: UInt16)
    /// PROXY without an IP address: the initiator came by a Unix socket, or by what the proxy has no name for.
    case unknown
}

/// Finds the PROXY header at the beginning of a connection, however its bytes are cut.
public struct ProxyHeaderDecoder: Sendable {
    /// Why a connection does not begin with a header that can be taken; the end of a log line.
    public enum Failure: String, Error, Sendable, Hashable {
        /// Something else came, such as a login.
        case missing = "it does not begin with a PROXY header"
        /// The text format.
        case versionOne = "its PROXY header is of version 1; configure the proxy for version 2"
        /// A version that does not exist.
        case unknownVersion = "its PROXY header is of an unknown version"
        /// Neither LOCAL nor PROXY.
        case unknownCommand = "its PROXY header has an unknown command"
        /// A family or transport that is none, or not that of a TCP connection.
        case unknownFamily = "its PROXY header has an address family or transport that is not supported"
        /// The length leaves no room for the addresses.
        case tooShort = "its PROXY header is too short for its addresses"
        /// The length is beyond ``ISCSILimits/proxyHeaderMaximumBytes``.
        case tooLong = "its PROXY header is too long"
    }

    private static let signature: [UInt8] = [
        0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
    ]
    private static let versionOneSignature = Array("PROXY".utf8)
    /// Signature, version and command, family and transport, length.
    private static let fixedBytes = 16

    private var gathered = ByteBuffer()

    /// A decoder for a connection that has just been accepted.
    public init() {}

    /// Takes bytes; the header once it is whole, and then leaves what follows it in `bytes`. `nil`: more is needed.
    ///
    /// What cannot become a header is refused at its first wrong byte, so that nothing waits for the rest of it.
    public mutating func decode(_ bytes: inout ByteBuffer) throws(Failure) -> ProxyHeader? {
        if gathered.readableBytes == 0 {
            gathered = bytes
        } else {
            gathered.writeImmutableBuffer(bytes)
        }
        bytes.moveReaderIndex(to: bytes.writerIndex)
        let view = gathered.readableBytesView
        guard view.starts(with: Self.signature.prefix(view.count)) else {
            // The text format is named as such, once enough of it is there.
            if view.count < Self.versionOneSignature.count, Self.versionOneSignature.starts(with: view) { return nil }
            throw view.starts(with: Self.versionOneSignature) ? .versionOne : .missing
        }
        let start = gathered.readerIndex
        if let first: UInt8 = gathered.getInteger(at: start + 12) {
            guard first >> 4 == 2 else { throw .unknownVersion }
            guard first & 0x0F <= 1 else { throw .unknownCommand }
        }
        guard let length: UInt16 = gathered.getInteger(at: start + 14) else { return nil }
        let total = Self.fixedBytes + Int(length)
        guard total <= ISCSILimits.proxyHeaderMaximumBytes else { throw .tooLong }
        guard var header = gathered.getSlice(at: start, length: total) else { return nil }
        header.moveReaderIndex(forwardBy: Self.fixedBytes)
        let isLocal = gathered.getInteger(at: start + 12, as: UInt8.self).map { $0 & 0x0F == 0 } ?? false
        let family: UInt8 = gathered.getInteger(at: start + 13) ?? 0
        let result = isLocal ? .local : try Self.source(family, &header)
        gathered.moveReaderIndex(forwardBy: total)
        bytes = gathered
        gathered = ByteBuffer()
        return result
    }

    private static func source(_ family: UInt8, _ block: inout ByteBuffer) throws(Failure) -> ProxyHeader {
        switch family {
        case 0x11:
            guard let source: UInt32 = block.readInteger(), block.readInteger(as: UInt32.self) != nil,
                let port: UInt16 = block.readInteger(), block.readInteger(as: UInt16.self) != nil
            else { throw .tooShort }
            return .proxied(NetworkAddress(ipv4: source), port: port)
        case 0x21:
            guard let high: UInt64 = block.readInteger(), let low: UInt64 = block.readInteger(),
                block.readSlice(length: 16) != nil,
                let port: UInt16 = block.readInteger(), block.readInteger(as: UInt16.self) != nil
            else { throw .tooShort }
            return .proxied(NetworkAddress(ipv6: high, low), port: port)
        case 0x31:
            // Two paths of 108 bytes.
            guard block.readableBytes >= 216 else { throw .tooShort }
            return .unknown
        case 0x00:
            return .unknown
        default:
            throw .unknownFamily
        }
    }
}
