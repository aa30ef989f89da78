import AshlarCore
import ISCSI
import Logging
import NIOCore
import Ownership
import RPC
import Transport

/// A volume as a target sees it: its description, its owner, and the sessions that are logged in to it here.
final class VolumeBackend {
    enum LookUpFailure: Error {
        case noSuchVolume
        case unavailable(String)
    }

    let iqn: String
    unowned let service: TargetService
    private(set) var volume: VolumeDescription?
    // Of its policy, so that volumes without these options pay next to nothing for them.
    private(set) var writesThrough = false
    private(set) var readsBothAtOnce = false
    private(set) var owner: CacheLink?
    private(set) var sessions: [ObjectIdentifier: ISCSISession] = [:]
    private var isLocating = false
    private var waiters: [(MonotonicTime, (Result<VolumeDescription, LookUpFailure>) -> Void)] = []
    private var nextCandidate = 0
    private var hint: String?
    /// Direct writes on their way.
    var direct: DirectPacker<DirectCommand>?
    var isDirectScheduled = false
    /// Writes through on their way into objects.
    var through: ThroughPacker<DirectCommand>?
    var isThroughScheduled = false
    /// Reads that go on where others ended.
    var readAhead: ReadAhead?
    /// Where blocks last lay, for reads that ask both at once.
    var places: KnownPlaces?
    /// The owner is being asked where lies what is to be read ahead.
    var isLookingAhead = false

    init(iqn: String, service: TargetService) {
        self.iqn = iqn
        self.service = service
    }

    func add(_ session: ISCSISession) { sessions[ObjectIdentifier(session)] = session }

    func remove(_ session: ISCSISession) {
        sessions[ObjectIdentifier(session)] = nil
        dropIfUnused()
    }

    private func dropIfUnused() {
        if sessions.isEmpty, waiters.isEmpty, !isLocating { service.drop(self) }
    }

    // MARK: The owner

    /// Finds volume and owner afresh: for a login, whose access rules have to be the newest.
    func resolve(completion: @escaping (Result<VolumeDescription, LookUpFailure>) -> Void) {
        let deadline = service.now.advanced(byNanoseconds: TargetLimits.loginDeadlineMilliseconds * 1_000_000)
        waiters.append((deadline, completion))
        locate()
    }

    /// The owner does not answer, or is the owner no more.
    func ownerLost() {
        owner = nil
        directOwnerLost()
        through?.ownerLost()
        for session in Array(sessions.values) { session.ownerLost() }
        locate()
    }

    /// The owner hands the volume over.
    func ownerMoves(to successor: RPCOwnerHint?) {
        if let endpoint = successor?.endpoint, !endpoint.isEmpty { hint = endpoint }
    }

    /// Asks one cache server after the other until one says who the owner is.
    func locate() {
        guard !isLocating else { return }
        isLocating = true
        askNext()
    }

    private func askNext() {
        expireWaiters()
        guard !waiters.isEmpty || !sessions.isEmpty else {
            isLocating = false
            return dropIfUnused()
        }
        let hinted = hint.flatMap { service.link(to: $0) }
        hint = nil
        let connected = service.caches.filter { $0.client.isConnected }
        guard let link = (hinted?.client.isConnected == true ? hinted : nil) ?? pick(connected) else {
            return askLater()
        }
        link.client.send(
            LookUpVolume(iqn: iqn),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { result in
            self.lookedUp(result, at: link)
        }
    }

    private func pick(_ links: [CacheLink]) -> CacheLink? {
        guard !links.isEmpty else { return nil }
        nextCandidate += 1
        return links[nextCandidate % links.count]
    }

    private func askLater() {
        let bound = NIOLoopBound(self, eventLoop: service.loop)
        service.loop.scheduleTask(in: TargetLimits.locateInterval) { bound.value.askNext() }
    }

    private func lookedUp(_ result: Result<RPCAnswer, RPCFailure>, at link: CacheLink) {
        switch result {
        case .failure: askLater()
        case .success(var answer):
            do throws(RPCError) {
                let found = try answer.decode(LookUpVolume.Answer.self)
                guard found.ownerEndpoint.isEmpty, let stamp = found.stamp else {
                    hint = found.ownerEndpoint
                    return askLater()
                }
                ownerFound(link, found.volume, stamp)
            } catch {
                if error.status == .noSuchVolume {
                    finish(.failure(.noSuchVolume))
                    for session in Array(sessions.values) { session.terminate(.reset) }
                    return dropIfUnused()
                }
                if let owner = error.ownerHint, !owner.endpoint.isEmpty { hint = owner.endpoint }
                askLater()
            }
        }
    }

    private func ownerFound(_ link: CacheLink, _ description: VolumeDescription, _ stamp: Stamp) {
        owner = link
        describe(description)
        finish(.success(description))
        for session in Array(sessions.values) { session.ownerFound(stamp) }
        dropIfUnused()
    }

    private func finish(_ result: Result<VolumeDescription, LookUpFailure>) {
        isLocating = false
        let waiting = waiters
        waiters = []
        for (_, completion) in waiting { completion(result) }
    }

    private func expireWaiters() {
        let now = service.now
        let expired = waiters.filter { $0.0 <= now }
        waiters.removeAll { $0.0 <= now }
        for (_, completion) in expired { completion(.failure(.unavailable("no cache server owns \(iqn)"))) }
    }

    private func describe(_ description: VolumeDescription) {
        let old = volume
        volume = description
        writesThrough = description.policy.writeThroughMinimumBytes > 0
        readsBothAtOnce = description.policy.readsBothAtOnce
        if !readsBothAtOnce { places = nil }
        guard let old, old.revision != description.revision else { return }
        for session in sessions.values { session.volumeChanged(to: description) }
    }

    /// The owner's regular stamp; nil: it is the owner no more.
    func stampArrived(_ entry: Stamps.Answer.Entry?, from link: CacheLink) {
        guard owner === link else { return }
        guard let entry else { return ownerLost() }
        for session in sessions.values { session.stampArrived(entry.stamp) }
        if entry.revision != volume?.revision { locate() }
    }

    // MARK: Nexuses

    /// Opens a nexus at the owner, which closes older ones between the same ports first (R3).
    func openNexus(
        _ ports: InitiatorTargetNexus,
        completion: @escaping (Result<OpenNexus.Answer, LookUpFailure>) -> Void
    ) {
        let deadline = service.now.advanced(byNanoseconds: TargetLimits.loginDeadlineMilliseconds * 1_000_000)
        openNexus(ports, until: deadline, completion: completion)
    }

    private func openNexus(
        _ ports: InitiatorTargetNexus,
        until deadline: MonotonicTime,
        completion: @escaping (Result<OpenNexus.Answer, LookUpFailure>) -> Void
    ) {
        guard let owner, let volume else { return completion(.failure(.unavailable("the owner is not known"))) }
        let message = OpenNexus(volume: volume.id, ports: ports, node: service.configuration.node.name)
        owner.client.send(message, deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds) { result in
            switch result {
            case .failure(let failure): completion(.failure(.unavailable(failure.reason)))
            case .success(var answer):
                do throws(RPCError) {
                    completion(.success(try answer.decode(OpenNexus.Answer.self)))
                } catch {
                    guard error.status == .notOwner, self.service.now < deadline else {
                        return completion(.failure(.unavailable(error.message)))
                    }
                    // The login goes on at the next owner.
                    self.ownerMoves(to: error.ownerHint)
                    if self.owner === owner { self.ownerLost() }
                    self.resolve { found in
                        switch found {
                        case .success: self.openNexus(ports, until: deadline, completion: completion)
                        case .failure(let failure): completion(.failure(failure))
                        }
                    }
                }
            }
        }
    }

    /// Asks which of the sessions' nexuses a newer login has closed: idle ones would not notice (R3).
    func askForNexuses() {
        guard let owner, let volume else { return }
        let open = sessions.values.compactMap(\.nexus?.nexus).prefix(RPCMessageLimits.stampsMaximum)
        guard !open.isEmpty else { return }
        owner.client.send(
            NexusStates(volume: volume.id, nexuses: open.sorted()),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { result in
            // A lost answer is made good in a second.
            guard case .success(var answer) = result, let states = try? answer.decode(NexusStates.self) else { return }
            let closed = Set(states.nexuses)
            for session in Array(self.sessions.values) {
                guard let nexus = session.nexus?.nexus, closed.contains(nexus) else { continue }
                session.terminate(.reinstated)
            }
        }
    }

    /// Closes a nexus, so that nothing of it is done any more; the answer is of no use to a session that has ended.
    func closeNexus(_ nexus: NexusNumber) {
        guard let owner, let volume else { return }
        owner.client.send(
            CloseNexus(volume: volume.id, nexus: nexus),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [logger = service.logger] result in
            if case .failure(let failure) = result {
                // The next login between these ports closes it (R3).
                logger.info("a nexus could not be closed", metadata: ["reason": "\(failure.reason)"])
            }
        }
    }
}
