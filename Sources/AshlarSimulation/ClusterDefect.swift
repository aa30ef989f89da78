package import AshlarTestSupport

extension Cluster {
    /// Defects in what joins the cores to one another and to the store, planted to see that the checker finds them.
    enum Defect: String, CaseIterable {
        /// Old proofs are taken for fresh ones (R1).
        case proofsNeverAge
        /// A target takes an initiator for alive without having heard of it (R1).
        case proofsWithoutInitiator
        /// A session resumes its nexus without its initiator's proof (R2).
        case resumedUnproved
        /// A login does not close the older nexus of the same ports (R3).
        case reinstatementMissed
        /// What had no answer is sent again under new numbers (R4).
        case resentUnderNewNumbers
        /// Commands of an earlier epoch are passed off as the current one's (R5).
        case epochsRewritten
        /// Commands are said to be aborted when their owner is lost, not when another epoch serves (R6).
        case abortedTooSoon
        /// A reset aborts only what has come to the owner (R6).
        case transitForgotten
        /// Initiators go to another port at once (R7).
        case portsTooSoon
        /// A server takes its lease for far longer than it is (R8).
        case leaseOverrated
        /// After a pause a server goes on with the time that it was before (R8).
        case clockReadEarly
        /// A direct write is mapped though something newer was committed since its versions were handed out (M4).
        case overtakenMapped
        /// The object of a write through is mapped whatever its items are by now (M1).
        case throughIgnoresVersion
        /// Who takes a nexus up again does not say that it was aborted meanwhile (R9).
        case abortsForgottenWithResume
        /// Of a commit whose outcome is not heard only a part is made (I12).
        case halfCommitted
        /// A commit is now and then acknowledged without being made (I1).
        case commitForgotten
        /// The epoch is tested by a plain join: a takeover does not wait for a transaction (I3).
        case lockLeftOut
        /// A new owner starts without registrations and reservation.
        case registrationsForgotten
        /// A scan asks which objects are known, and lists then (M8).
        case scanAsksFirst
        /// Puts are acknowledged before they are synced (M9).
        case putsUnsynced
        /// A read that asks both at once takes what came from where its blocks last lay, whatever the owner says (I2).
        case knownPlacesTrusted
        /// A read that misses an object keeps what it had of the older map (M10).
        case readsMixed
    }
}

/// A rule that is left out or weakened in a simulation, to see that its checkers find that.
package enum PlantedDefect: Sendable, Hashable, CaseIterable {
    case cluster(String)
    case store(ModelStore.Defect)

    /// All of them, in the order of their declaration.
    package static var allCases: [PlantedDefect] {
        Cluster.Defect.allCases.map { .cluster($0.rawValue) } + ModelStore.Defect.allCases.map { .store($0) }
    }

    /// The defect of that name.
    package init?(name: String) {
        guard let found = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = found
    }

    /// Its name.
    package var name: String {
        switch self {
        case .cluster(let name): name
        case .store(let defect): defect.rawValue
        }
    }

    var inCluster: Cluster.Defect? { if case .cluster(let name) = self { Cluster.Defect(rawValue: name) } else { nil } }
    var inStore: ModelStore.Defect? { if case .store(let defect) = self { defect } else { nil } }
}
