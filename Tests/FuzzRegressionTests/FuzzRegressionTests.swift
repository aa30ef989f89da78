import Foundation
import FuzzTargets
import Testing

/// What `scripts/fuzz` has kept goes through the same functions again: no decoder traps, and none breaks its rules.
@Suite struct FuzzRegressionTests {
    static let folder = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appending(path: "Fuzz")
    static let targets = FuzzTarget.allCases.filter { $0 != .canary }

    /// The bounds that `scripts/fuzz` keeps to.
    static let corpusFilesMaximum = 200
    static let corpusBytesMaximum = 256 << 10

    /// The inputs of a target, by their names.
    static func inputs(_ kind: String, _ target: FuzzTarget) throws -> [(name: String, bytes: [UInt8])] {
        let folder = folder.appending(path: "\(kind)/\(target.rawValue)")
        guard FileManager.default.fileExists(atPath: folder.path(percentEncoded: false)) else { return [] }
        return try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
            .sorted { $0.lastPathComponent < $1.lastPathComponent }
            .map { ($0.lastPathComponent, Array(try Data(contentsOf: $0))) }
    }

    static func check(_ kind: String, _ target: FuzzTarget) throws {
        for (name, bytes) in try inputs(kind, target) {
            do {
                try target.run(bytes)
            } catch {
                Issue.record("\(kind)/\(target.rawValue)/\(name): \(error)")
            }
        }
    }

    @Test(arguments: targets) func I10_theCorpusBreaksNoRule(_ target: FuzzTarget) throws {
        try Self.check("corpus", target)
    }

    @Test(arguments: targets) func I10_whatOnceFailedBreaksNoRule(_ target: FuzzTarget) throws {
        try Self.check("regressions", target)
    }

    /// Inputs that are cut off anywhere reach what whole ones do not.
    @Test(arguments: targets) func I10_aCutSeedBreaksNoRule(_ target: FuzzTarget) throws {
        for (name, bytes) in try Self.inputs("corpus", target) where name.hasPrefix("seed-") {
            for count in stride(from: 0, to: min(bytes.count, 256), by: 5) {
                do {
                    try target.run(Array(bytes[..<count]))
                } catch {
                    Issue.record("\(target.rawValue)/\(name), the first \(count) bytes: \(error)")
                }
            }
        }
    }

    @Test(arguments: targets) func theCorpusIsThereAndSmall(_ target: FuzzTarget) throws {
        let inputs = try Self.inputs("corpus", target)
        #expect(inputs.contains { $0.name.hasPrefix("seed-") }, "make-seeds.py writes the first inputs")
        #expect(inputs.count <= Self.corpusFilesMaximum)
        #expect(inputs.reduce(0) { $0 + $1.bytes.count } <= Self.corpusBytesMaximum)
    }

    @Test func everyFolderBelongsToATarget() throws {
        for kind in ["corpus", "regressions"] {
            let folder = Self.folder.appending(path: kind).path(percentEncoded: false)
            guard FileManager.default.fileExists(atPath: folder) else { continue }
            for name in try FileManager.default.contentsOfDirectory(atPath: folder) where !name.hasPrefix(".") {
                #expect(FuzzTarget(rawValue: name) != nil, "\(kind)/\(name)")
            }
        }
    }

    /// The harness can fail.
    @Test func theCanaryIsFound() throws {
        #expect(throws: FuzzFailure.self) { try FuzzTarget.canary.run(Array("ASHLAR".utf8)) }
        #expect(throws: Never.self) { try FuzzTarget.canary.run(Array("ashlar".utf8)) }
    }
}
