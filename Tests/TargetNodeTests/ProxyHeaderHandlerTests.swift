import AshlarCore
import Logging
import NIOCore
import NIOEmbedded
import Testing

@testable import TargetNode

/// Keeps log lines with their peers.
private final class LineLog: @unchecked Sendable {
    // Used by one test on one thread.
    var lines: [String] = []

    struct Handler: LogHandler {
        let log: LineLog
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.info
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            log.lines.append("\(event.message) \(event.metadata?["peer"].map { "\($0)" } ?? "")")
        }
    }
}

/// Stands where the session would be.
private final class Collector: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    let address: String
    var received = ByteBuffer()

    init(address: String) { self.address = address }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received.writeImmutableBuffer(unwrapInboundIn(data))
    }
}

@Suite struct ProxyHeaderHandlerTests {
    private let log = LineLog()
    private static let proxy = "10.0.0.7"
    private static let signature: [UInt8] = [13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10]
    /// 192.0.2.1:49153 by way of 192.0.2.100:3260.
    private static let header =
        signature + [0x21, 0x11, 0, 12, 192, 0, 2, 1, 192, 0, 2, 100, 0xC0, 1, 0x0C, 0xBC]

    private func channel(allowed: [String] = []) throws -> EmbeddedChannel {
        let access = PortalAccess(
            proxyProtocol: .required,
            proxies: ["10.0.0.0/24"].compactMap(AddressPrefix.init),
            initiators: allowed.compactMap(AddressPrefix.init)
        )
        let logger = Logger(label: "test") { [log] _ in LineLog.Handler(log: log) }
        let channel = EmbeddedChannel()
        try channel.connect(to: SocketAddress(ipAddress: Self.proxy, port: 40_000)).wait()
        let handler = ProxyHeaderHandler(access: access, logger: logger) { Collector(address: $0) }
        try channel.pipeline.syncOperations.addHandler(handler)
        return channel
    }

    private func session(of channel: EmbeddedChannel) throws -> Collector {
        try channel.pipeline.syncOperations.handler(type: Collector.self)
    }

    @Test(arguments: [1, 7, 28, 1_000])
    func theSessionGetsTheAddressAndWhatFollows(portion: Int) throws {
        let channel = try channel()
        var bytes = ByteBuffer(bytes: Self.header)
        bytes.writeString("a login and more")
        while bytes.readableBytes > 0 {
            let part = bytes.readSlice(length: min(portion, bytes.readableBytes))
            try channel.writeInbound(try #require(part))
        }
        let session = try session(of: channel)
        #expect(session.received == ByteBuffer(string: "a login and more"))
        #expect(session.address.hasPrefix("192.0.2.1:49153 by ") && session.address.contains("10.0.0.7:40000"))
        #expect(throws: (any Error).self) {
            try channel.pipeline.syncOperations.handler(type: ProxyHeaderHandler.self)
        }
        // The deadline has gone with the handler.
        channel.embeddedEventLoop.advanceTime(by: .seconds(60))
        #expect(channel.isActive && log.lines.isEmpty)
        _ = try channel.finish()
    }

    @Test func theInitiatorsOwnAddressDecides() throws {
        let allowed = try channel(allowed: ["192.0.2.0/24"])
        try allowed.writeInbound(ByteBuffer(bytes: Self.header))
        #expect(try session(of: allowed).received.readableBytes == 0)
        #expect(log.lines.isEmpty)
        // Not the proxy's.
        let refused = try channel(allowed: ["10.0.0.0/8", "198.51.100.0/24"])
        try refused.writeInbound(ByteBuffer(bytes: Self.header + [1, 2, 3]))
        #expect(!refused.isActive)
        #expect(log.lines.count == 1)
        #expect(log.lines[0].contains("target.allowed-addresses") && log.lines[0].contains("192.0.2.1:49153"))
    }

    @Test func aProxySpeaksForItself() throws {
        let local = Self.signature + [0x20, 0, 0, 0]
        let channel = try channel(allowed: ["10.0.0.7"])
        try channel.writeInbound(ByteBuffer(bytes: local))
        #expect(try session(of: channel).address.contains("10.0.0.7"))
        let unknown = Self.signature + [0x21, 0, 0, 0]
        let open = try self.channel()
        try open.writeInbound(ByteBuffer(bytes: unknown))
        #expect(try session(of: open).address.hasPrefix("unknown by "))
        let guarded = try self.channel(allowed: ["10.0.0.7"])
        try guarded.writeInbound(ByteBuffer(bytes: unknown))
        #expect(!guarded.isActive)
    }

    @Test(arguments: [
        (Array("PROXY TCP4 192.0.2.1 192.0.2.100 49153 3260\r\n".utf8), "version 1"),
        ([0x43, 0x87, 0, 0], "does not begin with a PROXY header"), (header.map { $0 == 0x21 ? 0x91 : $0 }, "version"),
    ])
    func whatIsNoHeaderIsClosedWithALine(bytes: [UInt8], words: String) throws {
        let channel = try channel()
        try channel.writeInbound(ByteBuffer(bytes: bytes))
        #expect(!channel.isActive)
        #expect(log.lines.count == 1 && log.lines[0].contains(words) && log.lines[0].contains("10.0.0.7"))
        try channel.writeInbound(ByteBuffer(bytes: Self.header))
        #expect(log.lines.count == 1)
    }

    @Test func aConnectionWithoutAHeaderIsClosedInTime() throws {
        for sent in [0, 5] {
            let channel = try channel()
            try channel.writeInbound(ByteBuffer(bytes: Self.header.prefix(sent)))
            channel.embeddedEventLoop.advanceTime(by: .milliseconds(4_999))
            #expect(channel.isActive)
            channel.embeddedEventLoop.advanceTime(by: .milliseconds(1))
            #expect(!channel.isActive)
            #expect(log.lines.last?.contains("sends no PROXY header") == true)
        }
    }

    @Test func aConnectionThatEndsFirstLeavesNothing() throws {
        let channel = try channel()
        try channel.writeInbound(ByteBuffer(bytes: Self.header.prefix(20)))
        channel.pipeline.fireErrorCaught(ChannelError.inputClosed)
        channel.embeddedEventLoop.advanceTime(by: .seconds(60))
        #expect(!channel.isActive && log.lines.isEmpty)
    }

    @Test func proxiesAreThoseThatAreNamed() {
        let access = PortalAccess(
            proxyProtocol: .required,
            proxies: ["10.0.0.0/24", "fd00::1"].compactMap(AddressPrefix.init)
        )
        for (text, isAdmitted) in [("10.0.0.7", true), ("10.0.1.7", false), ("fd00::1", true), ("fd00::2", false)] {
            #expect(access.admitsProxy(NetworkAddress(text)) == isAdmitted)
        }
        #expect(!access.admitsProxy(nil))
        #expect(access.admitsInitiator(nil))
        #expect(!PortalAccess(proxyProtocol: .off, proxies: [], initiators: access.proxies).admitsInitiator(nil))
    }

    @Test func addressesOfSocketsAreUnderstood() throws {
        let socket = { (text: String) in NetworkAddress(try SocketAddress(ipAddress: text, port: 1)) }
        #expect(try socket("127.0.0.2")?.description == "127.0.0.2")
        #expect(try socket("::ffff:127.0.0.2")?.description == "127.0.0.2")
        #expect(try socket("fe80::1")?.description == "fe80::1")
        #expect(NetworkAddress(try SocketAddress(unixDomainSocketPath: "/tmp/x")) == nil)
    }
}
