import AshlarCore
import Supervision
import TargetNode
import Transport

/// What runs: how many of each role, and in which order they start and stop.
struct UpPlan: Sendable {
    /// The name of PostgreSQL among the supervised processes.
    static let postgresName = "postgres"

    var targets: Int
    var caches: Int
    var objects: Int
    var agents: Int
    var iscsiPort: Int
    /// `host:port` of a balancer in front of all targets, which then are one portal group; nil: each is one of its own.
    var balancedPortal: String?
    var logLevel: String
    /// iSNS server of the targets; nil for none.
    var isnsServer: String?
    /// Event loops of each target; nil for the default.
    var targetLoops: Int?

    /// - Throws: ``UpError`` for counts and ports that cannot be.
    func validate() throws {
        let counts = [
            ("--targets", targets, 1), ("--caches", caches, 1), ("--objects", objects, 1), ("--agents", agents, 0),
        ]
        for (option, count, minimum) in counts where !(minimum...UpLimits.instancesMaximum).contains(count) {
            throw UpError(
                "\(option) \(count) is not possible.",
                remedy: "Give \(minimum) to \(UpLimits.instancesMaximum)."
            )
        }
        guard (1...65_536 - targets).contains(iscsiPort) else {
            throw UpError(
                "--iscsi-port \(iscsiPort) leaves no room for \(targets) portals.",
                remedy: "Give a lower one."
            )
        }
        if let targetLoops, !TargetConfiguration.loopsAllowed.contains(targetLoops) {
            throw UpError(
                "--target-loops \(targetLoops) is not possible.",
                remedy: "Give 1 to \(TargetConfiguration.loopsAllowed.upperBound)."
            )
        }
        if let isnsServer, RPCEndpoint(isnsServer, defaultPort: 3_205) == nil {
            throw UpError("--isns-server \(isnsServer) is no server.", remedy: "Give HOST or HOST:PORT.")
        }
        if let balancedPortal, RPCEndpoint(balancedPortal).map({ $0.port > 0 }) != true {
            throw UpError(
                "--balanced-portal \(balancedPortal) is no HOST:PORT.",
                remedy: "Give one as in 10.0.0.30:3260."
            )
        }
    }

    /// The instances of a role.
    func instances(of role: Role) -> [RoleInstance] {
        let count =
            switch role {
            case .target: targets
            case .cache: caches
            case .objects: objects
            case .agent: agents
            case .control: 1
            }
        return (0..<count).map { RoleInstance(role: role, number: $0 + 1) }
    }

    /// All instances, in the order in which they are started.
    var instances: [RoleInstance] {
        [Role.objects, .cache, .target, .agent, .control].flatMap { instances(of: $0) }
    }

    /// What needs a port besides the portals.
    var portPurposes: [String] {
        instances.flatMap { instance in
            let health = instance.name + ".health"
            switch instance.role {
            case .target, .agent: return [health]
            case .cache, .objects, .control: return [instance.name, health]
            }
        }
    }

    /// The iSCSI ports.
    var portals: [Int] {
        (0..<targets).map { iscsiPort + $0 }
    }

    /// The processes, with PostgreSQL, and how they depend on each other.
    var processes: [SupervisedProcess] {
        let postgres = SupervisedProcess(
            name: Self.postgresName,
            stopStage: 5,
            stopSteps: [
                // Fast, then immediate, then by force.
                SupervisedProcess.StopStep(signal: 2, patience: UpLimits.postgresStopPatience),
                SupervisedProcess.StopStep(signal: 3, patience: UpLimits.roleStopPatience),
                SupervisedProcess.StopStep(signal: 9, patience: UpLimits.roleStopPatience),
            ],
            startTimeout: UpLimits.postgresStartTimeout
        )
        return [postgres] + instances.map { process(of: $0) }
    }

    private func process(of instance: RoleInstance) -> SupervisedProcess {
        let caches = instances(of: .cache).map(\.name)
        let objects = instances(of: .objects).map(\.name)
        let needs: [String]
        let startsAfter: [String]
        let stopStage: Int
        switch instance.role {
        case .objects: (needs, startsAfter, stopStage) = ([], [Self.postgresName], 4)
        case .cache: (needs, startsAfter, stopStage) = ([Self.postgresName], objects, 3)
        case .control: (needs, startsAfter, stopStage) = ([Self.postgresName], caches, 2)
        case .agent: (needs, startsAfter, stopStage) = ([], caches + objects, 1)
        case .target: (needs, startsAfter, stopStage) = ([], caches + objects, 0)
        }
        return SupervisedProcess(
            name: instance.name,
            needs: needs,
            startsAfter: startsAfter,
            needsCleanUp: instance.role == .cache,
            stopStage: stopStage,
            stopSteps: [
                SupervisedProcess.StopStep(signal: 15, patience: UpLimits.roleStopPatience),
                SupervisedProcess.StopStep(signal: 9, patience: UpLimits.roleStopPatience),
            ],
            startTimeout: UpLimits.roleStartTimeout
        )
    }
}
