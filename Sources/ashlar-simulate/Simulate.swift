import ArgumentParser

@main
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ashlar-simulate")
}
