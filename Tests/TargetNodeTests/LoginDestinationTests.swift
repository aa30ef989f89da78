import AshlarCore
import Testing

@testable import TargetNode

@Suite struct LoginDestinationTests {
    private func node(
        _ name: String,
        _ sessions: UInt32,
        isFrontDoor: Bool = false,
        isDraining: Bool = false
    ) -> TargetNodeState {
        TargetNodeState(
            name: name,
            portal: "10.0.0.1:3260",
            port: TargetPort(portalGroupTag: 1, relativePortIdentifier: 1),
            release: "1.0",
            sessions: sessions,
            receivesLogins: !isFrontDoor,
            isDraining: isDraining
        )
    }

    private func choice(_ nodes: TargetNodeState..., isDraining: Bool = false) -> String? {
        LoginDestination.choose(among: nodes, servesIfThereIsNone: !isDraining)?.name
    }

    @Test func theFewestSessionsDecideAndThenTheName() {
        #expect(choice(node("a", 3), node("b", 2), node("c", 2)) == "b")
        #expect(choice(node("a", 0, isDraining: true), node("b", 9)) == "b")
        #expect(choice() == nil)
    }

    /// They have no sessions, and would be chosen always.
    @Test func frontDoorsSendNothingToOneAnother() {
        #expect(choice(node("door", 0, isFrontDoor: true), node("b", 9)) == "b")
        #expect(choice(node("door", 0, isFrontDoor: true)) == nil)
        #expect(choice(node("door", 0, isFrontDoor: true), node("b", 9, isDraining: true)) == nil)
    }

    /// The front door finds no other node then, and serves.
    @Test func theLastNodeThatIsDrainedSendsToAFrontDoor() {
        #expect(choice(node("door", 0, isFrontDoor: true), isDraining: true) == "door")
        #expect(choice(node("door", 0, isFrontDoor: true), node("b", 9), isDraining: true) == "b")
        #expect(choice(node("door", 0, isFrontDoor: true, isDraining: true), isDraining: true) == nil)
    }
}
