import Foundation
import Testing

/// The rules of the modules, read from the import lines and from `Package.swift`.
@Suite("Architecture")
struct ArchitectureTests {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    static let pure = [
        "AshlarCore", "BlockObjects", "SCSI", "ISCSI", "ISNS", "RPC", "Ownership", "Supervision",
        "AgentPlanning", "AshlarSimulation",
    ]

    struct Source {
        var module: String
        var path: String
        var lines: [String]
        var imports: [String] {
            lines.compactMap { line in
                let words = line.split(separator: " ")
                guard let index = words.firstIndex(of: "import"), index <= 1, words.count > index + 1 else {
                    return nil
                }
                return String(words[index + 1])
            }
        }
    }

    static func sources() throws -> [Source] {
        let folder = root.appending(path: "Sources")
        var result: [Source] = []
        guard let walker = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil) else {
            return []
        }
        for case let url as URL in walker where url.pathExtension == "swift" {
            let relative = url.path(percentEncoded: false).dropFirst(folder.path(percentEncoded: false).count)
            let parts = relative.split(separator: "/")
            let text = try String(contentsOf: url, encoding: .utf8)
            result.append(
                Source(
                    module: String(parts[0]),
                    path: String(relative),
                    lines: text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
                )
            )
        }
        return result
    }

    @Test("pure modules know no socket, no TLS, no Foundation and no C library")
    func purity() throws {
        let forbidden: Set = [
            "NIOPosix", "NIOSSL", "Foundation", "FoundationEssentials", "Glibc", "Dispatch", "CLinux", "CLibPQ",
            "Logging", "Failpoints",
        ]
        for source in try Self.sources() where Self.pure.contains(source.module) {
            let found = source.imports.filter { forbidden.contains($0) }
            #expect(found.isEmpty, "\(source.path) imports \(found)")
        }
    }

    @Test("only PostgresStore knows libpq, only ControlPlane knows Hummingbird")
    func owners() throws {
        for source in try Self.sources() {
            if source.module != "PostgresStore" { #expect(!source.imports.contains("CLibPQ"), "\(source.path)") }
            if source.module != "ControlPlane" {
                #expect(!source.imports.contains { $0.hasPrefix("Hummingbird") }, "\(source.path)")
            }
        }
    }

    @Test("time, randomness and clocks come in as parameters in pure modules")
    func determinism() throws {
        let forbidden = ["Date()", "ContinuousClock.now", ".random(", "SystemRandomNumberGenerator", "NIODeadline.now"]
        for source in try Self.sources() where Self.pure.contains(source.module) {
            for (number, line) in source.lines.enumerated() {
                for word in forbidden where line.contains(word) {
                    Issue.record("\(source.path):\(number + 1) uses \(word)")
                }
            }
        }
    }

    @Test("arrows point downward only")
    func layers() throws {
        let layers: [String: Int] = [
            "CChecksum": 0, "CLinux": 0, "CLibPQ": 0, "CZlib": 0, "AshlarCore": 1, "Failpoints": 1, "BlockObjects": 2,
            "SCSI": 2,
            "ISCSI": 2, "ISNS": 2, "RPC": 2, "Ownership": 2, "Supervision": 2, "AgentPlanning": 3, "Observability": 3,
            "PostgresStore": 3, "ObjectStore": 3, "Transport": 3, "TargetNode": 4, "CacheServer": 4, "ObjectServer": 4,
            "Agent": 4, "ControlPlane": 4, "ashlar": 5, "AshlarTestSupport": 5, "AshlarSimulation": 6,
            "ashlar-simulate": 7, "ashlar-torture": 6,
        ]
        for source in try Self.sources() {
            let own = try #require(layers[source.module], "\(source.module) has no layer")
            for name in source.imports {
                guard let layer = layers[name] else { continue }
                #expect(layer < own, "\(source.path) imports \(name)")
            }
        }
    }

    @Test("nothing is left over: no notes to self, no forced casts, no long file")
    func tidiness() throws {
        for source in try Self.sources() {
            #expect(source.lines.count <= 700, "\(source.path) has \(source.lines.count) lines")
            for (number, line) in source.lines.enumerated() {
                for word in ["TO" + "DO", "FIX" + "ME", "XX" + "X", "as" + "! ", "tr" + "y! "] where line.contains(word)
                {
                    Issue.record("\(source.path):\(number + 1) has \(word)")
                }
            }
        }
    }
}
