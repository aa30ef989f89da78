import CAllocations
import Glibc

// ashlar-bench --list                                  names, and how many operations are counted
// ashlar-bench [--rounds N] [--milliseconds N] [CASE…]  one line of JSON for each case
// ashlar-bench --operations N CASE                     makes so many operations, for an instrument that counts their
//                                                      instructions, and prints how often they took memory
//
// scripts/bench --micro runs it, and makes tables.

@main
enum Entry {
    static func main() {
        do {
            try run(Array(CommandLine.arguments.dropFirst()))
        } catch {
            let text = Array("ashlar-bench: \(error)\n".utf8)
            _ = write(STDERR_FILENO, text, text.count)
            exit(1)
        }
    }

    private static func run(_ arguments: [String]) throws {
        var options = ["--rounds": 9, "--milliseconds": 20, "--operations": 0]
        var names: [String] = []
        var isList = false
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if options[argument] != nil {
                guard index < arguments.count, let number = Int(arguments[index]), number > 0 else {
                    throw BenchmarkFailure("\(argument) takes a number above 0")
                }
                options[argument] = number
                index += 1
            } else if argument == "--list" {
                isList = true
            } else if argument.hasPrefix("-") {
                throw BenchmarkFailure("\(argument) is not known")
            } else {
                names.append(argument)
            }
        }
        let benchmarks = try names.isEmpty ? Benchmark.all : names.map(named)
        if isList {
            for benchmark in benchmarks { print(benchmark.name, benchmark.countedOperations) }
        } else if let operations = options["--operations"], operations > 0 {
            try make(operations, of: benchmarks)
        } else {
            for benchmark in benchmarks {
                try measure(benchmark, rounds: options["--rounds"] ?? 1, milliseconds: options["--milliseconds"] ?? 1)
            }
        }
    }

    private static func named(_ name: String) throws -> Benchmark {
        guard let benchmark = Benchmark.all.first(where: { $0.name == name }) else {
            throw BenchmarkFailure("there is no case \(name); --list names them")
        }
        return benchmark
    }

    private static func make(_ operations: Int, of benchmarks: [Benchmark]) throws {
        guard benchmarks.count == 1, operations % benchmarks[0].step == 0 else {
            throw BenchmarkFailure("--operations takes one case, and whole steps of it")
        }
        let body = try benchmarks[0].prepare()
        let allocated = ashlar_allocations()
        let sum = try body(operations)
        let allocations = ashlar_allocations() - allocated
        try require(sum != .max, "the sum is not used for anything but this")
        print(allocations)
    }

    private static func measure(_ benchmark: Benchmark, rounds: Int, milliseconds: Int) throws {
        let result = try Measuring.measure(benchmark, rounds: rounds, milliseconds: milliseconds)
        print(
            """
            {"case": "\(benchmark.name)", "nanoseconds": \(rounded(result.nanoseconds)), \
            "fastest": \(rounded(result.fastest)), "slowest": \(rounded(result.slowest)), \
            "allocations": \(rounded(result.allocations)), "operations": \(result.operations), "rounds": \(rounds)}
            """
        )
        fflush(nil)
    }

    private static func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
}
