import Agent
import ArgumentParser
import AshlarCore
import CacheServer
import ControlPlane
import ObjectServer
import TargetNode

/// `ashlar target`.
struct TargetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "target",
        abstract: "Run a target: iSCSI towards initiators. With list: show the targets. With drain: empty one.",
        subcommands: [TargetListCommand.self, TargetDrainCommand.self]
    )

    @OptionGroup(title: "Node") var node: NodeFlags
    @OptionGroup(title: "Listening") var listen: ListenFlags
    @OptionGroup(title: "Peers") var caches: CacheEndpointFlags
    @OptionGroup(title: "Peers") var objects: ObjectEndpointFlags
    @OptionGroup(title: "Target") var target: TargetFlags

    var settingFlags: [any SettingFlags] { [node, listen, caches, objects, target] }

    func run() async throws {
        try await RoleRunner.run(.target, config: node.config, flags: settingFlags) { settings, logger in
            try await runTarget(try settings.target(), logger: logger)
        }
    }
}

/// `ashlar cache`.
struct CacheCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache",
        abstract: "Run a cache server: the owner of volumes. With stats: show the numbers. With drain: empty one.",
        subcommands: [CacheStatsCommand.self, CacheDrainCommand.self, CacheAcceptLossCommand.self]
    )

    @OptionGroup(title: "Node") var node: NodeFlags
    @OptionGroup(title: "Listening") var listen: ListenFlags
    @OptionGroup(title: "Peers") var objects: ObjectEndpointFlags
    @OptionGroup(title: "PostgreSQL") var postgres: PostgresFlags
    @OptionGroup(title: "Cache") var cache: CacheFlags

    var settingFlags: [any SettingFlags] { [node, listen, objects, postgres, cache] }

    func run() async throws {
        try await RoleRunner.run(.cache, config: node.config, flags: settingFlags) { settings, logger in
            try await runCacheServer(settings.cacheServer(), logger: logger)
        }
    }
}

/// `ashlar objects`.
struct ObjectsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "objects",
        abstract: "Run an object server: the store of block objects. With list: show them. With drain: empty one.",
        subcommands: [ObjectsListCommand.self, ObjectsDrainCommand.self]
    )

    @OptionGroup(title: "Node") var node: NodeFlags
    @OptionGroup(title: "Listening") var listen: ListenFlags
    @OptionGroup(title: "Objects") var objects: ObjectsFlags

    var settingFlags: [any SettingFlags] { [node, listen, objects] }

    func run() async throws {
        try await RoleRunner.run(.objects, config: node.config, flags: settingFlags) { settings, logger in
            try await runObjectServer(settings.objectServer(), logger: logger)
        }
    }
}

/// `ashlar agent`.
struct AgentCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "agent",
        abstract: "Run an agent: moves, evicts, compacts and collects."
    )

    @OptionGroup(title: "Node") var node: NodeFlags
    @OptionGroup(title: "Peers") var caches: CacheEndpointFlags
    @OptionGroup(title: "Peers") var objects: ObjectEndpointFlags
    @OptionGroup(title: "Agent") var agent: AgentFlags

    var settingFlags: [any SettingFlags] { [node, caches, objects, agent] }

    func run() async throws {
        try await RoleRunner.run(.agent, config: node.config, flags: settingFlags) { settings, logger in
            try await runAgent(settings.agent(), logger: logger)
        }
    }
}

/// `ashlar control`.
struct ControlCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "control",
        abstract: "Run the control role: the HTTPS API and the administration."
    )

    @OptionGroup(title: "Node") var node: NodeFlags
    @OptionGroup(title: "Listening") var listen: ListenFlags
    @OptionGroup(title: "Peers") var caches: CacheEndpointFlags
    @OptionGroup(title: "Peers") var objects: ObjectEndpointFlags
    @OptionGroup(title: "PostgreSQL") var postgres: PostgresFlags
    @OptionGroup(title: "Control") var control: ControlFlags

    var settingFlags: [any SettingFlags] { [node, listen, caches, objects, postgres, control] }

    func run() async throws {
        try await RoleRunner.run(.control, config: node.config, flags: settingFlags) { settings, logger in
            try await runControl(settings.control(), logger: logger)
        }
    }
}
