import Foundation
import Testing

@testable import Failpoints

@Suite struct FailpointTests {
    @Test func aNameSaysWhoseProcessItIs_andWhat() {
        let processes: Set<Substring> = ["cache", "agent", "objects", "control", "migrate", "certs", "up"]
        for point in Failpoint.allCases {
            let parts = point.rawValue.split(separator: ".", omittingEmptySubsequences: false)
            #expect(parts.count == 2, "\(point)")
            #expect(processes.contains(point.process), "\(point)")
            #expect(parts.last?.isEmpty == false, "\(point)")
            #expect(point.rawValue.allSatisfy { $0.isLowercase || $0 == "-" || $0 == "." }, "\(point)")
        }
    }

    @Test func aPointIsArmedForItsFirstTimeOrForTheOneThatIsCounted() throws {
        #expect(try ArmedFailpoint(parsing: "cache.writes-sent").point == .cacheWritesSent)
        #expect(try ArmedFailpoint(parsing: "cache.writes-sent").count == 1)
        #expect(try ArmedFailpoint(parsing: "objects.put-linked:3").count == 3)
        #expect(try ArmedFailpoint(parsing: "up.completed:\(ArmedFailpoint.countMaximum)").point == .upCompleted)
        for point in Failpoint.allCases { #expect(try ArmedFailpoint(parsing: point.rawValue).point == point) }
    }

    @Test(arguments: [
        "", "cache", "cache.writes-sent ", "Cache.writes-sent", "cache.writes-sent:", "cache.writes-sent:0",
        "cache.writes-sent:-1", "cache.writes-sent:1:2", "cache.writes-sent:\(ArmedFailpoint.countMaximum + 1)",
    ])
    func whatIsNoPointIsRefused(text: String) {
        #expect(throws: FailpointError.self) { try ArmedFailpoint(parsing: text) }
    }

    @Test func aRefusalNamesTheVariableAndHowToSeeTheNames() throws {
        let error = try #require(throws: FailpointError.self) { try ArmedFailpoint(parsing: "cache.nothing") }
        #expect(error.description.contains("ASHLAR_FAILPOINT") && error.description.contains("\"cache.nothing\""))
        #expect(error.description.contains("ashlar failpoints"))
    }

    @Test func theDocumentationNamesEveryPointAndNoOther() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/failpoints.md"), encoding: .utf8)
        // The first cell of a row of a table.
        let named = text.split(separator: "\n").compactMap { line -> String? in
            let cells = line.split(separator: "`")
            return cells.count > 1 && cells[0] == "| " && cells[1].contains(".") ? String(cells[1]) : nil
        }
        #expect(named == Failpoint.allCases.map(\.rawValue))
    }

    @Test func nothingIsArmedWithoutTheVariable() throws {
        #expect(try ArmedFailpoint.ofThisProcess() == nil)
        #expect(!Failpoint.isAnyArmed)
        for point in Failpoint.allCases {
            #expect(!point.isArmed)
            point.reach()
        }
        #expect(Failpoint.armed(among: Failpoint.allCases) == nil)
    }
}
