import ArgumentParser
import Failpoints

/// `ashlar failpoints`.
struct FailpointsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "failpoints",
        abstract: "List the places at which a process can be made to kill itself, for tests.",
        discussion: """
            A process whose environment has \(ArmedFailpoint.variable)=NAME[:COUNT] ends as by kill -9 when it comes there, or \
            when it has come there COUNT times. What is durable at each is in docs/failpoints.md.
            """
    )

    func run() {
        for point in Failpoint.allCases { print(point.rawValue) }
    }
}
