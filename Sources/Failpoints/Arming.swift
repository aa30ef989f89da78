import Glibc
import Synchronization

/// Which failpoint a process ends at.
public struct ArmedFailpoint: Sendable, Hashable {
    /// The environment variable that arms one: `NAME`, or `NAME:COUNT`.
    public static let variable = "ASHLAR_FAILPOINT"
    /// The highest count.
    public static let countMaximum = 1_000_000

    /// The point.
    public var point: Failpoint
    /// The process ends when it is reached for this time; from 1 on.
    public var count: Int

    /// Reads the value of the variable.
    ///
    /// - Throws: ``FailpointError`` for a name or a count that is none.
    public init(parsing text: String) throws(FailpointError) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let point = Failpoint(rawValue: String(parts[0])) else {
            throw FailpointError("there is no failpoint \"\(parts[0])\"; ashlar failpoints lists them")
        }
        self.point = point
        count = 1
        guard parts.count == 2 else { return }
        guard let count = Int(parts[1]), (1...Self.countMaximum).contains(count) else {
            throw FailpointError("\"\(parts[1])\" is no count from 1 to \(Self.countMaximum)")
        }
        self.count = count
    }

    /// What the environment of this process arms, which is read once; nil: nothing.
    ///
    /// - Throws: ``FailpointError`` where it names none. Such a process reaches nothing, but ought not to start.
    public static func ofThisProcess() throws(FailpointError) -> ArmedFailpoint? { try arming.found.get() }
}

/// Why the environment arms nothing that there is.
public struct FailpointError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The variable, and what is wrong with it.
    public let description: String

    init(_ reason: String) { description = "\(ArmedFailpoint.variable): \(reason)" }
}

/// The environment, read when it is first needed, and how often the armed point may still be passed.
private final class Arming: Sendable {
    let found: Result<ArmedFailpoint?, FailpointError>
    let point: Failpoint?
    let left: Atomic<Int>

    init() {
        var armed: ArmedFailpoint?
        do throws(FailpointError) {
            if let text = getenv(ArmedFailpoint.variable).map({ String(cString: $0) }), !text.isEmpty {
                armed = try ArmedFailpoint(parsing: text)
            }
            found = .success(armed)
        } catch {
            found = .failure(error)
        }
        point = armed?.point
        left = Atomic(armed?.count ?? 0)
    }
}

private let arming = Arming()

extension Failpoint {
    /// Whose process reaches it: the part of the name before the dot.
    public var process: Substring { rawValue.prefix { $0 != "." } }

    /// Whether the process is to end here. Any thread.
    public var isArmed: Bool { arming.point == self }

    /// Says that the process has come here; where this point is armed, and for the count that is armed, the process ends as by
    /// `kill -9`. Else it costs a comparison. Any thread.
    public func reach() {
        guard arming.point == self, arming.left.subtract(1, ordering: .relaxed).newValue == 0 else { return }
        let line = "ashlar: failpoint \(rawValue) reached: process \(getpid()) kills itself\n"
        _ = line.withCString { write(STDERR_FILENO, $0, strlen($0)) }
        kill(getpid(), SIGKILL)
        // The signal is delivered before this returns, or to another thread in a moment; nothing more may happen here.
        while true { pause() }
    }

    /// The first of the points that is armed; nil: none.
    public static func armed(among points: [Failpoint]) -> Failpoint? {
        arming.point.flatMap { points.contains($0) ? $0 : nil }
    }

    /// Whether this process is to end at any point. Any thread.
    public static var isAnyArmed: Bool { arming.point != nil }
}
