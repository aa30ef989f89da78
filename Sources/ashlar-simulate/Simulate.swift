import ArgumentParser
import AshlarSimulation
import Foundation

/// Runs whole clusters from seeds, and says what the checkers found.
@main
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ashlar-simulate",
        abstract: "Runs seeded simulations of whole clusters."
    )

    @Option(help: "One seed: how a finding is seen again.")
    var seed: UInt64?

    @Option(help: "How many seeds.")
    var seeds: UInt64 = 200

    @Option(help: "The first of the seeds.")
    var first: UInt64 = 1

    @Option(help: "Minutes of virtual time a seed in which things go wrong; at least one.")
    var minutes: UInt64 = 1

    @Option(help: "Leaves a rule out, to see that it is found; see --list-defects.")
    var defect: String?

    @Flag(help: "Leaves each rule out in turn, and says which seed found it.")
    var defects = false

    @Flag(help: "Prints the names of the rules that can be left out.")
    var listDefects = false

    @Flag(help: "Prints a line a seed.")
    var verbose = false

    func validate() throws {
        guard minutes >= 1, minutes <= 1_000 else { throw ValidationError("--minutes is from 1 to 1000.") }
        guard seeds >= 1, first <= .max - seeds else { throw ValidationError("--seeds is at least 1.") }
        if let defect, PlantedDefect(name: defect) == nil {
            throw ValidationError("\(defect) is no planted defect; see --list-defects.")
        }
    }

    func run() throws {
        if listDefects {
            for defect in PlantedDefect.allCases { print(defect.name) }
        } else if defects {
            try findAll()
        } else {
            try search()
        }
    }

    private var range: ClosedRange<UInt64> {
        if let seed { seed...seed } else { first...(first + seeds - 1) }
    }

    /// Runs the seeds; ends with 1 where there was a finding.
    private func search() throws {
        var total = Total()
        for seed in range {
            let planted = defect.flatMap { PlantedDefect(name: $0) }
            let report = try Simulation(seed: seed, seconds: minutes * 60, defect: planted).run()
            total.add(report)
            let summary = "\(report.commands) commands, \(report.faults) faults, \(report.seconds) s"
            if self.seed != nil || verbose || !report.findings.isEmpty {
                print("seed \(seed): digest \(String(report.digest, radix: 16)), \(summary)")
            }
            for finding in report.findings.prefix(5) { print("seed \(seed): \(finding)") }
        }
        total.printSummary()
        if total.seedsWithFindings > 0 { throw ExitCode(1) }
    }

    /// Each defect must be found by one of the seeds.
    private func findAll() throws {
        var isMissed = false
        for defect in PlantedDefect.allCases {
            var found: UInt64?
            let start = cpuSeconds()
            for seed in range {
                let report = try Simulation(seed: seed, seconds: minutes * 60, defect: defect).run()
                guard let finding = report.findings.first else { continue }
                let spent = String(format: "%.1f", cpuSeconds() - start)
                print("\(defect.name): seed \(seed), \(spent) s of CPU: \(finding)")
                found = seed
                break
            }
            if found == nil {
                print("\(defect.name): not found by the seeds \(range.lowerBound) to \(range.upperBound)")
                isMissed = true
            }
        }
        if isMissed { throw ExitCode(1) }
    }
}

/// The CPU time of this process, in seconds.
private func cpuSeconds() -> Double { Double(clock()) / Double(CLOCKS_PER_SEC) }

/// What several runs came to.
private struct Total {
    var seeds = 0
    var seedsWithFindings = 0
    var commands = 0
    var seconds: UInt64 = 0
    var faults = 0
    /// For each counter how often it was counted, and in how many seeds.
    var counters: [String: (count: Int, seeds: Int)] = [:]
    let begun = cpuSeconds()

    mutating func add(_ report: Simulation.Report) {
        seeds += 1
        if !report.findings.isEmpty { seedsWithFindings += 1 }
        commands += report.commands
        seconds += report.seconds
        faults += report.faults
        for (name, count) in report.counters {
            let old = counters[name] ?? (0, 0)
            counters[name] = (old.count + count, old.seeds + 1)
        }
    }

    func printSummary() {
        for (name, counter) in counters.sorted(by: { $0.key < $1.key }) {
            print("  \(name): \(counter.count), in \(counter.seeds) of \(seeds) seeds")
        }
        let hours = String(format: "%.2f", Double(seconds) / 3_600)
        let cpu = String(format: "%.1f", cpuSeconds() - begun)
        print(
            "\(seeds) seeds, \(seedsWithFindings) with findings; \(commands) commands, \(faults) faults, "
                + "\(hours) simulated hours, \(cpu) s of CPU"
        )
    }
}
