import Testing

@testable import ControlPlane

@Suite struct RulesTests {
    @Test(
        arguments: [
            ("0", 0), ("512", 512), ("4k", 4_096), ("64M", 64 << 20), ("64MiB", 64 << 20), ("1G", 1 << 30),
            ("64T", 64 << 40),
            ("1P", 1 << 50), ("7B", 7),
        ] as [(String, UInt64)]
    )
    func sizes(text: String, bytes: UInt64) {
        #expect(ByteSize.parse(text) == bytes)
    }

    @Test(arguments: ["", "G", "-1", "1.5G", "1 G", "1X", "1GG", "99999999999T", "18446744073709551616", "١G"])
    func textsThatAreNoSize(text: String) {
        #expect(ByteSize.parse(text) == nil)
    }

    @Test(
        arguments: [
            (0, "0 B"), (1_000, "1000 B"), (4_096, "4K"), (1 << 30, "1G"), (64 << 40, "64T"), (1_536, "1536 B"),
            (10_000_000, "9.5M"), (3 << 29, "1536M"),
        ] as [(UInt64, String)]
    )
    func sizesAsText(bytes: UInt64, text: String) {
        #expect(ByteSize.text(bytes) == text)
    }

    @Test(arguments: [
        "iqn.1993-08.org.debian:01:abc", "iqn.2026-01.io.ashlar:demo", "eui.02004567A425678D", "naa.52004567BA64678D",
    ])
    func iscsiNames(name: String) {
        #expect(VolumeRules.isISCSIName(name))
    }

    @Test(arguments: [
        "", "demo", "iqn.", "iqn.2026.io:x", "iqn.2026-01", "iqn.2026-01.IO:x", "iqn.2026-01.io:a b", "eui.123",
        "naa.zz004567BA64678D", "iqn.2026-01." + String(repeating: "a", count: 223),
    ])
    func namesThatAreNoISCSINames(name: String) {
        #expect(!VolumeRules.isISCSIName(name))
    }

    @Test(arguments: ["", "-a", "a-", ".a", "A", "a_b", "a/b", "ä", "a b", String(repeating: "a", count: 65)])
    func namesThatNoVolumeHas(name: String) {
        #expect(throws: ControlError.self) { try VolumeRules.checkName(name) }
    }

    @Test func sameSecretInBothDirectionsIsRefused() {
        var request = ChangeVolumeRequest()
        request.credentials = [CredentialDocument(name: "a", secret: "0123456789ab")]
        request.mutual = CredentialDocument(name: "b", secret: "0123456789ab")
        let error = #expect(throws: ControlError.self) { try VolumeRules.checked(request) }
        #expect(error?.message.contains("0123456789ab") == false)
    }

    @Test func policyIsCompletedWithTheStandard() {
        var parts = PolicyDocument()
        parts.move = "lru"
        let policy = VolumeRules.complete(parts)
        #expect(policy.move == "lru")
        #expect(policy.readFill == "never")
        #expect(policy.cachedBytesMaximum == 256 << 20)
    }

    @Test func tokens() throws {
        let token = try BearerToken("0123456789abcdef")
        #expect(token.matches(authorization: "Bearer 0123456789abcdef"))
        #expect(token.matches(authorization: "bearer  0123456789abcdef"))
        for wrong in [
            nil, "", "Bearer", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer 0123456789abcde",
        ] {
            #expect(!token.matches(authorization: wrong))
        }
        #expect("\(token)" == "token")
        #expect(throws: ControlError.self) { try BearerToken("short") }
        #expect(throws: ControlError.self) { try BearerToken("0123456789 abcdef") }
        #expect(throws: ControlError.self) { try BearerToken(file: "/nowhere/token") }
    }

    @Test func jobsAreBoundedAndUnique() async throws {
        let jobs = Jobs()
        let first = try await jobs.start(kind: "delete", subject: "a") { _ in
            try await Task.sleep(for: .seconds(60))
            return Jobs.Outcome("never")
        }
        let same = try await jobs.start(kind: "delete", subject: "a") { _ in Jobs.Outcome("other") }
        #expect(first == same)
        for index in 1..<ControlLimits.jobsRunningMaximum {
            _ = try await jobs.start(kind: "delete", subject: "b\(index)") { _ in
                try await Task.sleep(for: .seconds(60))
                return Jobs.Outcome("never")
            }
        }
        await #expect(throws: ControlError.self) {
            _ = try await jobs.start(kind: "delete", subject: "c") { _ in Jobs.Outcome("") }
        }
        await jobs.shutdown()
        #expect(await jobs.job(first)?.state == .failed)
    }
}
