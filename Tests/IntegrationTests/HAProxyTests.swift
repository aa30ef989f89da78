import AshlarTestSupport
import Foundation
import Testing

extension IntegrationTests {
    /// Two targets behind one address.
    @Suite(.serialized) struct HAProxyTests {
        private func url(_ cluster: TestCluster, _ volume: String, port: Int) async throws -> String {
            "iscsi://127.0.0.1:\(port)/\(try await cluster.iqn(volume))/0"
        }

        private func log(_ cluster: TestCluster, target: Int) -> String {
            let data = FileManager.default.contents(atPath: cluster.data + "/log/target-\(target).log") ?? Data()
            return String(decoding: data, as: UTF8.self)
        }

        /// Target, counted from 1, at which the newest session of an initiator was opened.
        private func target(of initiator: RawInitiator, _ cluster: TestCluster, before: [Int]) -> Int? {
            let now = openings(initiator, cluster)
            return (0..<2).first { now[$0] > before[$0] }.map { $0 + 1 }
        }

        /// Sessions of an initiator opened so far, by target.
        private func openings(_ initiator: RawInitiator, _ cluster: TestCluster) -> [Int] {
            (1...2).map { number in
                log(cluster, target: number).split(separator: "\n")
                    .count { $0.contains("session opened") && $0.contains(initiator.name) }
            }
        }

        @Test func everyPortalSendsToTheBalancedAddress() async throws {
            try await Balancer.with(volumes: ["demo:16M", "other:16M"]) { cluster, balancer in
                for port in [balancer.port, cluster.port, cluster.port + 1] {
                    let list = try await ProcessRunner.check("iscsi-ls", ["iscsi://127.0.0.1:\(port)"])
                    for volume in ["demo", "other"] {
                        let line = list.split(separator: "\n").first { $0.contains(":\(volume) ") }
                        #expect(line?.contains("127.0.0.1:\(balancer.port),1") == true, "\(port): \(list)")
                    }
                }
                // Through either target the same port of the same device.
                let url = try await url(cluster, "demo", port: balancer.port)
                let pages = try await (0..<4).asyncMap { _ in
                    try await ProcessRunner.check("iscsi-inq", ["-e", "1", "-c", "0x83", url])
                }
                #expect(Set(pages).count == 1)
            }
        }

        @Test(arguments: ["roundrobin", "leastconn", "source"])
        func dataStayRightWhileConnectionsAreCutAndATargetDies_I1_R3(balance: String) async throws {
            try await Balancer.with(volumes: ["demo:64M", "image:48M"], balance: balance) { cluster, balancer in
                // Both are sessions of their own, and each is cut in the middle of whatever it sends.
                let ports = try TestEnvironment.freePorts(2)
                let writeCutter = try await Initiator.shared.startCutter(
                    port: ports,
                    upstream: balancer.port,
                    bytes: 50_000...3_000_000
                )
                let imageCutter = try await Initiator.shared.startCutter(
                    port: ports + 1,
                    upstream: balancer.port,
                    bytes: 5_000_000...20_000_000
                )
                let writes = Initiator.Writes(
                    url: try await url(cluster, "demo", port: ports),
                    journal: cluster.data + "/journal",
                    milliseconds: 12_000
                )
                let image = URL(fileURLWithPath: cluster.data).deletingLastPathComponent().path + "/image"
                try Images.make(image, mebibytes: 48, seed: 21)
                let imageURL = try await url(cluster, "image", port: ports + 1)
                let writer = try await Initiator.shared.start(writes)
                let convert = try BackgroundProcess(
                    "qemu-img",
                    ["convert", "-n", "-r", "8M", "-f", "raw", "-O", "raw", image, imageURL]
                )
                for target in 0..<2 {
                    try await Task.sleep(for: .seconds(1))
                    try await cluster.killAndWait("target", target)
                    try balancer.cut(target: 2 - target)
                }
                let report = try await Initiator.shared.finish(writer)
                let result = try await convert.wait(timeout: .seconds(180))
                #expect(result.isSuccess, "\(result.summary)")
                let cuts = [writeCutter, imageCutter].map { $0.output.split(separator: "\n").count }
                print("\(balance): \(report), cut \(cuts) times")
                #expect(report.acknowledged > 100 && report.logins > 3)
                #expect(cuts.allSatisfy { $0 > 0 })
                try await Images.compare(image, with: imageURL)
                for target in 1...2 {
                    try await Initiator.shared.verify([writes], through: cluster.url(target: target))
                    try await Images.compare(image, with: cluster.url(target: target, volume: "image"))
                }
                for cutter in [writeCutter, imageCutter] {
                    // Its children, one a connection, end with it.
                    cutter.send(SIGKILL)
                    _ = try await cutter.wait(timeout: .seconds(10))
                }
            }
        }

        @Test func aTargetThatHangsIsTakenOut() async throws {
            try await Balancer.with(volumes: ["demo:16M"]) { cluster, balancer in
                let iqn = try await cluster.iqn()
                let first = try RawInitiator(port: balancer.port, iqn: iqn, name: "first")
                let before = openings(first, cluster)
                try first.logIn()
                try first.writeAndRead(1, fill: 1)
                let number = try #require(target(of: first, cluster, before: before))
                let pid = try cluster.state().pids("target")[number - 1]
                defer { kill(pid, SIGCONT) }
                try await ProcessRunner.suspend(pid)
                try await balancer.wait(target: number, isUp: false)
                #expect(first.waitForClose(seconds: 10).isClosed, "the session of a target that is down stays open")
                for index in 0..<4 {
                    let other = try RawInitiator(port: balancer.port, iqn: iqn, name: "other-\(index)")
                    try other.logIn()
                    try other.writeAndRead(UInt64(2 + index), fill: UInt8(index))
                    #expect(openings(other, cluster)[number - 1] == 0)
                    try other.logOut()
                }
                kill(pid, SIGCONT)
                try await balancer.wait(target: number, isUp: true)
                let names = try (0..<2).map { index in
                    let other = try RawInitiator(port: balancer.port, iqn: iqn, name: "back-\(index)")
                    try other.logIn()
                    try other.writeAndRead(1, fill: UInt8(index))
                    defer { other.close() }
                    return openings(other, cluster)
                }
                #expect(names.map { $0[number - 1] }.reduce(0, +) == 1, "it is not back: \(names)")
            }
        }

        @Test func aNewLoginAtTheOtherTargetEndsTheOldSession_R3() async throws {
            try await Balancer.with(volumes: ["demo:16M"]) { cluster, balancer in
                let iqn = try await cluster.iqn()
                var old: RawInitiator?
                var targets: [Int] = []
                for turn in 0..<4 {
                    // The same name, ISID and portal group: to the owner it is the same port.
                    let initiator = try RawInitiator(port: balancer.port, iqn: iqn, name: "wanderer")
                    let before = openings(initiator, cluster)
                    try initiator.logIn()
                    try initiator.writeAndRead(UInt64(turn), fill: UInt8(turn))
                    targets.append(try #require(target(of: initiator, cluster, before: before)))
                    if let old {
                        #expect(throws: (any Error).self, "the old session still writes") {
                            try old.writeAndRead(100, fill: 0xEE)
                        }
                        #expect(old.waitForClose(seconds: 10).isClosed)
                    }
                    let block = try initiator.run(RawInitiator.read16(100, 1), read: 512)
                    #expect(block.isGood && block.data == [UInt8](repeating: 0, count: 512))
                    old = initiator
                }
                #expect(targets == [1, 2, 1, 2] || targets == [2, 1, 2, 1], "\(targets)")
            }
        }

        @Test func targetsGoByTheInitiatorsOwnAddress() async throws {
            let port = try Balancer.freePort()
            let extra = ["--balanced-portal", "127.0.0.1:\(port)"]
            try await TestCluster.with(volumes: ["demo:16M"], extra: extra) { cluster in
                let iqn = try await cluster.iqn()
                for index in 0..<2 {
                    try await cluster.configure(
                        "target",
                        "target",
                        [
                            "proxy-protocol": "required", "proxy-protocol-from": ["127.0.0.1"],
                            "allowed-addresses": ["127.0.0.2/31", "192.0.2.0/24"],
                        ],
                        index: index
                    )
                }
                let balancer = try await Balancer.start(cluster, port: port, sendsProxyHeader: true)
                for index in 0..<2 {
                    let listed = try RawInitiator(port: port, iqn: iqn, name: "listed-\(index)", from: 0x7F00_0002)
                    try listed.logIn()
                    try listed.writeAndRead(UInt64(index), fill: 7)
                    let lines = (1...2).flatMap { log(cluster, target: $0).split(separator: "\n") }
                    let line = lines.first { $0.contains("session opened") && $0.contains(listed.name) }
                    #expect(line?.contains("127.0.0.2\(listed.address)") == true, "\(line ?? "no line")")
                    try listed.logOut()
                }
                // Closed before they log in, with a line that names them.
                let past = "its address is not in target.proxy-protocol-from"
                for (entry, source, reason) in [
                    (port, UInt32(0x7F00_0004), "the initiator's address is not in target.allowed-addresses"),
                    (port, 0x7F00_0001, "the initiator's address is not in target.allowed-addresses"),
                    (cluster.port, 0x7F00_0002, past),
                    (cluster.port, 0x7F00_0001, "it does not begin with a PROXY header"),
                ] {
                    let refused = try RawInitiator(port: entry, iqn: iqn, name: "refused", from: source)
                    #expect(throws: (any Error).self) { try refused.logIn() }
                    #expect(refused.waitForClose(seconds: 10).isClosed)
                    let address = "127.0.0.\(source & 0xFF)\(refused.address)"
                    let lines = (1...2).flatMap { log(cluster, target: $0).split(separator: "\n") }
                    #expect(lines.contains { $0.contains(reason) && $0.contains(address) }, "\(reason) \(address)")
                }
                await balancer.stop()
            }
        }
    }
}
