// Faults at the seam of a connection, for tests (D30, D31). Most are made by the server itself, so that what it sends and does is what it
// sends and does in earnest; the test's database has what they need (``FaultPlan/schema``).

/// Something that goes wrong with one job.
package enum InjectedFault: Sendable, Hashable {
    /// The connection breaks before a statement, given by its place, and before the COMMIT.
    case lost(before: Int)
    /// The connection breaks when everything has been done, and before it is known.
    case lostAfterEffect
    /// The statement before this place fails with the SQLSTATE; severity ERROR.
    case error(String, before: Int)
    /// The COMMIT fails with the SQLSTATE; severity ERROR.
    case errorAtCommit(String)
    /// The server ends the session before a statement: FATAL, 57P01.
    case ended(before: Int)
    /// Everything was done, and in place of the answer the end of the session comes, with this SQLSTATE.
    case endedAfterEffect(String)
    /// The COMMIT is answered as done, with the warning that standbys may lack it.
    case warned

    /// What has to be sent in addition, and the place where.
    func insertion(of calls: Int, commit: Int) -> (call: Call, at: Int)? {
        switch self {
        case .error(let state, let place):
            var call = Call(FaultPlan.raise)
            call.add(state)
            return (call, min(place, commit))
        case .errorAtCommit(let state):
            var call = Call(FaultPlan.arm)
            call.add(state)
            return (call, min(1, commit))
        case .ended(let place): return (Call(FaultPlan.end), min(place, commit))
        case .lost, .lostAfterEffect, .endedAfterEffect, .warned: return nil
        }
    }
}

/// Which jobs suffer which faults.
package struct FaultPlan: Sendable {
    /// Chooses the fault of a job by the lane's name and the names of its statements.
    let choose: @Sendable (_ lane: String, _ statements: [String]) -> InjectedFault?

    /// A plan.
    package init(choose: @escaping @Sendable (_ lane: String, _ statements: [String]) -> InjectedFault?) {
        self.choose = choose
    }

    static let raise = Statement(name: "fault_raise", sql: "SELECT fault_raise($1::text)")
    static let arm = Statement(name: "fault_arm", sql: "INSERT INTO fault_armed VALUES ($1::text)")
    static let end = Statement(name: "fault_end", sql: "SELECT pg_terminate_backend(pg_backend_pid())")
    static let statements = [raise, arm, end]

    /// What the test's database needs.
    package static let schema = """
        CREATE FUNCTION fault_raise(state text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'injected' USING ERRCODE = state; END $$;
        CREATE FUNCTION fault_fire() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM fault_raise(NEW.state); RETURN NULL; END $$;
        CREATE TABLE fault_armed (state text);
        CREATE CONSTRAINT TRIGGER fault_fire AFTER INSERT ON fault_armed DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fault_fire();
        """
}
