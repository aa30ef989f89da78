import RPC
import Testing

@testable import Transport

struct RPCEndpointTests {
    @Test func readsNamesAndAddresses() {
        #expect(RPCEndpoint("cache-1:7401") == RPCEndpoint(host: "cache-1", port: 7401))
        #expect(RPCEndpoint("10.0.0.1:1") == RPCEndpoint(host: "10.0.0.1", port: 1))
        #expect(RPCEndpoint("[::1]:7401") == RPCEndpoint(host: "::1", port: 7401))
        #expect(RPCEndpoint("[::1]", defaultPort: 7) == RPCEndpoint(host: "::1", port: 7))
        #expect(RPCEndpoint("cache-1", defaultPort: 7401) == RPCEndpoint(host: "cache-1", port: 7401))
        #expect(RPCEndpoint("[::1]:7401")?.description == "[::1]:7401")
    }

    @Test(arguments: ["", ":1", "host", "host:", "host:x", "host:65536", "host:-1", "::1", "[::1", "[::1]x", "[::1]:"])
    func refuses(_ text: String) {
        #expect(RPCEndpoint(text) == nil)
    }

    @Test func sameSeedGivesTheSameWaits() {
        var first = SplitMix(state: 7)
        var second = SplitMix(state: 7)
        #expect((0..<10).map { _ in first.next() } == (0..<10).map { _ in second.next() })
    }
}
