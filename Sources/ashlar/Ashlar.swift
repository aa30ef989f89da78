import ArgumentParser
import CLinux
import Failpoints
import Observability

/// The program.
@main
struct Ashlar: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ashlar",
        abstract: "A distributed block store: iSCSI disks whose blocks live in PostgreSQL and move to block objects.",
        discussion: """
            Exit codes: 0 done; 1 refused or failed; 3 a check found damage; 64 wrong arguments; 69 the control role cannot \
            be reached; 77 the token is refused; 78 the configuration is refused.
            """,
        version: AshlarRelease.version,
        subcommands: [],
        groupedSubcommands: [
            CommandGroup(name: "Everything on one machine:", subcommands: [UpCommand.self]),
            CommandGroup(
                name: "Roles:",
                subcommands: [
                    TargetCommand.self, CacheCommand.self, ObjectsCommand.self, AgentCommand.self, ControlCommand.self,
                ]
            ),
            CommandGroup(
                name: "Administration:",
                subcommands: [
                    VolumeCommand.self, ClusterCommand.self, MoveCommand.self, FsckCommand.self, RecoverCommand.self,
                    ConfigCommand.self, MigrateCommand.self,
                    CertsCommand.self, FailpointsCommand.self,
                ]
            ),
        ]
    )

    /// Runs the command that the arguments name.
    static func main() async {
        // Blocks and objects come and go by the megabyte: to take each from the system and give it back costs more than filling it.
        ashlar_keep_freed_memory(Self.mmapThresholdBytes, Self.trimThresholdBytes)
        do throws(FailpointError) {
            if let armed = try ArmedFailpoint.ofThisProcess() {
                say(
                    "\(ArmedFailpoint.variable) is set: this process kills itself at failpoint \(armed.point.rawValue)"
                        + (armed.count > 1 ? ", when it has come there \(armed.count) times" : "")
                )
            }
        } catch {
            say("\(error)")
            exit(withError: ExitCodes.configuration)
        }
        await main(nil)
    }

    /// The largest that malloc(3) takes for it.
    private static let mmapThresholdBytes: Int32 = 32 << 20
    /// Free memory that a process keeps at the end of a heap.
    private static let trimThresholdBytes: Int32 = 128 << 20

    private static func say(_ text: String) { StandardError.write("ashlar: \(text)\n") }
}

/// The release of this program.
enum AshlarRelease {
    /// Major, minor and patch number.
    static let version = ProgramRelease.current
}
