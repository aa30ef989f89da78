import AshlarCore
import SCSI
import Testing

@testable import TargetNode

@Suite("What is one for all event loops of a target")
struct NodeStateTests {
    private static func state(loops: Int, redirect: LoginRedirect = .never) -> NodeState {
        NodeState(
            name: "own",
            portal: "10.0.0.1:3260,1",
            port: TargetPort(portalGroupTag: 1, relativePortIdentifier: 1),
            redirect: redirect,
            loops: loops
        )
    }

    private static func node(
        _ name: String,
        sessions: UInt32 = 0,
        tag: UInt16 = 1,
        isDraining: Bool = false
    ) -> TargetNodeState {
        TargetNodeState(
            name: name,
            portal: name == "own" ? "10.0.0.1:3260,1" : "10.0.0.2:3260,\(tag)",
            port: TargetPort(portalGroupTag: tag, relativePortIdentifier: tag),
            release: "1.0",
            sessions: sessions,
            receivesLogins: true,
            isDraining: isDraining
        )
    }

    // MARK: Spreading

    @Test func theLoopWithTheFewestConnectionsGetsTheNext() {
        var state = Self.state(loops: 3)
        #expect((0..<7).map { _ in state.connectionArrived() } == [0, 1, 2, 0, 1, 2, 0])
        state.connectionEnded(on: 1)
        state.connectionEnded(on: 1)
        #expect((0..<3).map { _ in state.connectionArrived() } == [1, 1, 1])
        #expect(state.shares.map(\.connections) == [3, 3, 2])
    }

    /// In the order of acceptance all sessions would come to one of two loops.
    @Test func initiatorsThatDiscoverBeforeTheyLogInAreSpread() {
        var state = Self.state(loops: 2)
        for _ in 0..<4 {
            let discovery = state.connectionArrived()
            if let discovery { state.connectionEnded(on: discovery) }
            #expect(state.connectionArrived() != nil)
        }
        #expect(state.shares.map(\.connections) == [2, 2])
    }

    @Test func allLoopsTogetherTakeSoManyConnections_I10() {
        var state = Self.state(loops: 3)
        for _ in 0..<TargetLimits.connectionsMaximum { #expect(state.connectionArrived() != nil) }
        #expect(state.connectionArrived() == nil)
        state.connectionEnded(on: 2)
        #expect(state.connectionArrived() == 2)
        #expect(state.connectionArrived() == nil)
    }

    @Test func loopsAreAQuarterOfTheProcessors() {
        let expected = [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16), (1_000, TargetLimits.loopsMaximum)]
        for (processors, loops) in expected { #expect(TargetConfiguration.loops(processors: processors) == loops) }
        #expect(TargetConfiguration.loopsAllowed.contains(TargetConfiguration.loopsDefault))
    }

    // MARK: What all loops add up to

    @Test func sessionsOfAllLoopsAreReported() {
        var state = Self.state(loops: 2)
        for loop in [0, 1, 1, 0, 1] { state.sessionOpened(on: loop) }
        state.sessionClosed(on: 0)
        let report = state.beginReport()
        #expect(report.node.sessions == 4 && report.node.name == "own" && report.node.receivesLogins)
    }

    @Test func aNodeIsReadyWhenEachLoopIs() {
        var state = Self.state(loops: 2)
        #expect(!state.isReady)
        state.linksChanged(on: 0, isConnected: true)
        #expect(!state.isReady)
        state.linksChanged(on: 1, isConnected: true)
        #expect(state.isReady)
        state.linksChanged(on: 0, isConnected: false)
        #expect(!state.isReady)
    }

    @Test func sessionHandlesAreNeverZero() {
        var state = Self.state(loops: 2)
        let handles = (0..<Int(UInt16.max)).map { _ in state.takeTSIH() }
        #expect(Set(handles).count == handles.count && !handles.contains(0))
        #expect(state.takeTSIH() == 1)
    }

    // MARK: Reports

    @Test func aDrainIsNewsOnce() {
        var state = Self.state(loops: 2)
        func take(_ isDraining: Bool, at time: UInt64) -> NodeState.News? {
            let number = state.beginReport().number
            let list = [Self.node("own", isDraining: isDraining), Self.node("other", tag: 2)]
            return state.take(list, ofReport: number, now: MonotonicTime(time))
        }
        #expect(take(false, at: 1) == NodeState.News(isDraining: nil, isAccessChanged: false))
        #expect(take(true, at: 2) == NodeState.News(isDraining: true, isAccessChanged: true))
        #expect(state.targetPortGroups.map(\.state) == [.standby, .activeOptimized])
        #expect(take(true, at: 3) == NodeState.News())
        #expect(state.isDraining && state.drainingSince == MonotonicTime(2))
        #expect(take(false, at: 4) == NodeState.News(isDraining: false, isAccessChanged: true))
        #expect(!state.isDraining)
    }

    /// Two loops have reported; the answer to the first report comes last.
    @Test func anOlderAnswerChangesNothing() {
        var state = Self.state(loops: 2)
        let (first, second) = (state.beginReport().number, state.beginReport().number)
        let draining = [Self.node("own", isDraining: true)]
        #expect(state.take(draining, ofReport: second, now: MonotonicTime(1))?.isDraining == true)
        #expect(state.take([Self.node("own")], ofReport: first, now: MonotonicTime(2)) == nil)
        #expect(state.isDraining && state.drainingSince == MonotonicTime(1))
    }

    @Test func loginsOfAllLoopsAreCountedAtOnce() {
        var state = Self.state(loops: 2, redirect: .temporarily)
        let list = [Self.node("own"), Self.node("a", sessions: 1, tag: 2), Self.node("b", sessions: 2, tag: 3)]
        #expect(state.redirection() == nil)
        #expect(state.take(list, ofReport: state.beginReport().number, now: MonotonicTime(1)) != nil)
        for _ in 0..<5 { #expect(state.redirection()?.isPermanent == false) }
        #expect(state.nodes.map(\.sessions) == [0, 4, 4])
    }
}
