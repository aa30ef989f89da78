import ArgumentParser
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

    private static func say(_ text: String) { StandardError.write("ashlar: \(text)\n") }
}

/// The release of this program.
enum AshlarRelease {
    /// Major, minor and patch number.
    static let version = ProgramRelease.current
}
