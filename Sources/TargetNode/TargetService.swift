import AgentPlanning
import AshlarCore
import BlockObjects
import ISCSI
import Logging
import NIOCore
import Observability
import Ownership
import RPC
import SCSI
import Transport

/// A cache server as the target sees it.
final class CacheLink {
    let endpoint: String
    let client: RPCClient

    init(endpoint: String, client: RPCClient) {
        self.endpoint = endpoint
        self.client = client
    }
}

/// What all sessions of one event loop of a target share: links to cache and object servers, and the volumes with their owners.
///
/// A target keeps nothing that must survive (I9). Its loops share nothing but ``SharedNode``, no more than two targets would. Not
/// Sendable: everything happens on `loop`.
final class TargetService {
    let loop: any EventLoop
    /// Which of the node's loops it is, from 0.
    let number: Int
    let node: SharedNode
    let configuration: TargetConfiguration
    let identity: TLSIdentity
    let logger: Logger
    /// What was read from objects, for all sessions.
    let slots: SlotReader
    /// Storage for the output of whichever session writes next, so that busy sessions allocate none, and idle ones hold none.
    var spareOutput = ByteBuffer()
    private(set) var caches: [CacheLink] = []
    private(set) var objects: [ObjectServerID: RPCClient] = [:]
    private(set) var backends: [String: VolumeBackend] = [:]
    private var sessionsByID: [ObjectIdentifier: ISCSISession] = [:]
    private var timers: [RepeatedTask] = []
    private(set) var isns: ISNSService?
    /// Where objects of direct writes go.
    private var placement: ObjectPlacement
    /// Object servers that are drained, as far as known.
    private var drainedObjects: Set<ObjectServerID> = []

    init(
        loop: any EventLoop,
        number: Int,
        node: SharedNode,
        configuration: TargetConfiguration,
        identity: TLSIdentity,
        logger: Logger
    ) throws {
        self.loop = loop
        self.number = number
        self.node = node
        self.configuration = configuration
        self.identity = identity
        self.logger = logger
        slots = SlotReader(
            capacityBytes: configuration.readCacheBytes / configuration.loops,
            inflater: try BlockInflater(),
            metrics: ReadCacheMetrics(.shared),
            logger: logger
        )
        placement = ObjectPlacement(servers: configuration.objectServers.keys.map { ObjectServerID($0) })
        for text in configuration.cacheEndpoints {
            guard let endpoint = RPCEndpoint(text, defaultPort: 7401) else {
                throw TargetError.invalidEndpoint(key: "cache.endpoints", value: text)
            }
            addCache(endpoint)
        }
        for (id, text) in configuration.objectServers {
            guard let endpoint = RPCEndpoint(text, defaultPort: 7501) else {
                throw TargetError.invalidEndpoint(key: "objects.endpoints", value: text)
            }
            objects[ObjectServerID(id)] = RPCClient(
                eventLoop: loop,
                configuration: RPCClient.Configuration(
                    endpoint: endpoint,
                    identity: identity,
                    expectedRole: .objects,
                    seed: seed(UInt64(bitPattern: Int64(id)))
                ),
                logger: logger
            )
        }
    }

    var now: MonotonicTime { RPCClock.now }

    /// Whether it does what one loop does for all: it reports regularly, and registers with the iSNS server.
    private var isFirst: Bool { number == 0 }

    var portal: String { node.portal }

    /// Begins the generator that spreads the reconnects of a link: another one for each loop.
    private func seed(_ link: UInt64) -> UInt64 { link &+ UInt64(number) << 32 }

    private func noteLinks() {
        let isConnected = caches.contains { $0.client.isConnected }
        node.withState { $0.linksChanged(on: number, isConnected: isConnected) }
    }

    @discardableResult
    private func addCache(_ endpoint: RPCEndpoint) -> CacheLink {
        let text = endpoint.description
        let client = RPCClient(
            eventLoop: loop,
            configuration: RPCClient.Configuration(
                endpoint: endpoint,
                identity: identity,
                expectedRole: .cache,
                seed: seed(UInt64(caches.count))
            ),
            logger: logger,
            onStateChange: { [weak self] state in
                guard let self else { return }
                noteLinks()
                switch state {
                case .connected:
                    if isFirst { refreshNodes {} }
                    refreshDrainedObjects()
                case .disconnected: linkLost(text)
                default: return
                }
            }
        )
        let link = CacheLink(endpoint: text, client: client)
        caches.append(link)
        return link
    }

    /// The link to a cache server, made when an owner's endpoint is not among those configured.
    func link(to endpoint: String) -> CacheLink? {
        if let known = caches.first(where: { $0.endpoint == endpoint }) { return known }
        guard let parsed = RPCEndpoint(endpoint) else { return nil }
        if let known = caches.first(where: { $0.endpoint == parsed.description }) { return known }
        guard caches.count < TargetLimits.cacheLinksMaximum else { return nil }
        let link = addCache(parsed)
        link.client.start()
        return link
    }

    private func linkLost(_ endpoint: String) {
        for backend in backends.values where backend.owner?.endpoint == endpoint { backend.ownerLost() }
    }

    // MARK: Life

    /// Connects, and begins to ask for stamps. On the loop.
    func start() throws {
        for link in caches { link.client.start() }
        for client in objects.values { client.start() }
        let bound = NIOLoopBound(self, eventLoop: loop)
        timers = [
            loop.scheduleRepeatedTask(
                initialDelay: TargetLimits.stampInterval,
                delay: TargetLimits.stampInterval
            ) { _ in bound.value.askForStamps() },
            loop.scheduleRepeatedTask(initialDelay: .zero, delay: TargetLimits.heartbeatInterval) { _ in
                if bound.value.isFirst { bound.value.refreshNodes {} }
                bound.value.refreshDrainedObjects()
            },
        ]
        if isFirst, let server = configuration.isnsServer {
            isns = try ISNSService(service: self, server: server)
            isns?.start()
        }
    }

    /// Tells the iSNS server that the target goes away. On the loop.
    func deregister() -> EventLoopFuture<Void> { isns?.stop() ?? loop.makeSucceededVoidFuture() }

    /// Ends all sessions and links. On the loop.
    func stop() {
        for timer in timers { timer.cancel() }
        timers = []
        for session in Array(sessionsByID.values) { session.terminate(.shutdown) }
        for link in caches { link.client.close() }
        for client in objects.values { client.close() }
    }

    // MARK: Connections

    /// Lets a connection to the portal in, or throws why it is closed at once.
    func accept(_ channel: any Channel) throws {
        let access = configuration.portalAccess
        let pipeline = channel.pipeline.syncOperations
        let remote = channel.remoteAddress
        switch access.proxyProtocol {
        case .off:
            guard access.admitsInitiator(NetworkAddress(remote)) else {
                throw refuse(remote, PortalAccess.initiatorRefused)
            }
            try pipeline.addHandler(ISCSISession(service: self, randomBytes: Self.randomBytes()))
        case .required:
            guard access.admitsProxy(NetworkAddress(remote)) else { throw refuse(remote, PortalAccess.proxyRefused) }
            try pipeline.addHandler(
                ProxyHeaderHandler(access: access, logger: logger) { [unowned self] address in
                    ISCSISession(service: self, address: address, randomBytes: Self.randomBytes())
                }
            )
        }
    }

    private func refuse(_ remote: SocketAddress?, _ message: Logger.Message) -> TargetError {
        let peer = PortalAccess.text(remote)
        logger.warning(message, metadata: ["peer": "\(peer)"])
        return .addressNotAllowed(peer)
    }

    /// What nobody can foresee, for the challenges of one login.
    private static func randomBytes() -> [UInt8] {
        var generator = SystemRandomNumberGenerator()
        return (0..<64).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
    }

    // MARK: Sessions

    func register(_ session: ISCSISession) { sessionsByID[ObjectIdentifier(session)] = session }
    func unregister(_ session: ISCSISession) { sessionsByID[ObjectIdentifier(session)] = nil }

    /// A session is logged in to a volume.
    func nexusOpened() { node.withState { $0.sessionOpened(on: number) } }

    /// It is no more.
    func nexusClosed() { node.withState { $0.sessionClosed(on: number) } }

    func takeTSIH() -> UInt16 { node.withState { $0.takeTSIH() } }

    func backend(iqn: String) -> VolumeBackend {
        if let known = backends[iqn] { return known }
        let backend = VolumeBackend(iqn: iqn, service: self)
        backends[iqn] = backend
        return backend
    }

    func drop(_ backend: VolumeBackend) { backends[backend.iqn] = nil }

    // MARK: Regular work

    /// Asks every owner for fresh stamps of the volumes that have sessions, so that idle sessions can be proved (R1).
    private func askForStamps() {
        for link in caches where link.client.isConnected {
            let served = backends.values.filter { $0.owner === link && !$0.sessions.isEmpty && $0.volume != nil }
            let page = Array(served.prefix(RPCMessageLimits.stampsMaximum))
            let ids = page.compactMap { $0.volume?.id }
            guard !ids.isEmpty else { continue }
            link.client.send(
                Stamps(volumes: ids),
                deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
            ) { result in
                guard case .success(var answer) = result, let stamps = try? answer.decode(Stamps.Answer.self) else {
                    // The link's end is told by its state; a single lost answer is made good in a second.
                    return
                }
                for (backend, entry) in zip(page, stamps.stamps) { backend.stampArrived(entry, from: link) }
            }
            for backend in page { backend.askForNexuses() }
        }
        // A peer that ends a link in order stops to take requests before that changes its state.
        noteLinks()
        continueDraining()
    }

    // MARK: Objects of direct writes

    /// The object server for an object of direct writes: one that is connected and not drained.
    func placementOfDirect(_ object: ObjectID) -> ObjectServerID? {
        let connected = Set(objects.filter { $0.value.isConnected }.keys)
        let order = placement.order(of: object, connected: connected, excluded: drainedObjects, now: now)
        return order.first { connected.contains($0) }
    }

    /// Others come first for a while where a put has failed.
    func directPutEnded(on server: ObjectServerID, isDone: Bool) {
        if isDone { placement.putSucceeded(on: server) } else { placement.putFailed(on: server, now: now) }
    }

    /// Asks which object servers take no new objects; what was known stays where nobody answers.
    private func refreshDrainedObjects() {
        guard !objects.isEmpty, let link = caches.first(where: { $0.client.isConnected }) else { return }
        link.client.send(
            DrainingServers(),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            guard case .success(var answer) = result, let found = try? answer.decode(DrainingServers.Answer.self) else {
                return
            }
            drainedObjects = Set(found.servers)
        }
    }

    // MARK: Target nodes

    /// Tells that this target lives, and learns which others do; what was known stays where nobody answers.
    ///
    /// One loop does so regularly, each where a session wants to know what is so now: by its own link, and for all.
    func refreshNodes(completion: @escaping () -> Void) {
        guard let link = caches.first(where: { $0.client.isConnected }) else { return completion() }
        let report = node.withState { $0.beginReport() }
        link.client.send(
            TargetReport(node: report.node),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            defer { completion() }
            switch result {
            case .success(var answer):
                do throws(RPCError) {
                    take(try answer.decode(TargetReport.Answer.self).nodes, ofReport: report.number)
                } catch {
                    logger.debug("report was not taken", metadata: ["reason": "\(error)"])
                }
            case .failure(let failure):
                logger.debug("report was not taken", metadata: ["reason": "\(failure.reason)"])
            }
        }
    }

    private func take(_ list: [TargetNodeState], ofReport number: UInt64) {
        let now = now
        guard let news = node.withState({ $0.take(list, ofReport: number, now: now) }) else { return }
        switch news.isDraining {
        case true?: logger.notice("draining: sessions are asked to go elsewhere")
        case false?:
            logger.notice("no longer draining")
            node.onEachLoop { service in
                for session in service.sessionsByID.values { session.withdrawLogoutRequest() }
            }
        case nil: break
        }
        guard news.isAccessChanged else { return }
        node.onEachLoop { service in
            for session in service.sessionsByID.values { session.tell(.asymmetricAccessChanged) }
        }
    }

    /// Whether sessions are to go elsewhere.
    var isDraining: Bool { node.withState({ $0.isDraining }) }

    /// All target ports that live, ascending.
    var targetPorts: [TargetPort] { node.withState({ $0.targetPorts }) }

    /// The target port groups, with their states.
    var targetPortGroups: [TargetPortGroup] { node.withState({ $0.targetPortGroups }) }

    /// Where a login is to go instead.
    func redirection() -> (portal: String, isPermanent: Bool)? { node.withState { $0.redirection() } }

    /// Goes on with draining: the port is standby for a while, so that initiators with other paths leave by themselves; then
    /// sessions are asked to log out, and at last dropped. Discovery goes on, and so do logins that are to be sent elsewhere.
    private func continueDraining() {
        guard let drainingSince = node.withState({ $0.drainingSince }) else { return }
        let waited = now.nanoseconds(since: drainingSince)
        let open = sessionsByID.values.filter { $0.nexus != nil }
        if waited >= TargetLimits.drainGraceNanoseconds {
            for session in open { session.requestLogout() }
        }
        if waited >= TargetLimits.drainGraceNanoseconds + 2 * UInt64(TargetLimits.logoutSeconds) * 1_000_000_000 {
            for session in open { session.terminate(.shutdown) }
        }
    }

    /// Asks all sessions to log out; whether there were any.
    func requestLogouts() -> Bool {
        for session in Array(sessionsByID.values) { session.requestLogout() }
        return !sessionsByID.isEmpty
    }

    /// The session through which an initiator uses a volume here: its own, or another one of the same initiator, which it could
    /// have opened with what it has proved here. (A name alone proves nothing: anybody may claim it.)
    func session(of session: ISCSISession, designatedBy device: CopyDevice) -> ISCSISession? {
        if session.unit?.isDesignated(by: device) == true { return session }
        return self.session(designatedBy: device, initiator: session.initiator, proof: session.proof)
    }

    private func session(
        designatedBy device: CopyDevice,
        initiator: String,
        proof: CHAPCredential?
    ) -> ISCSISession? {
        sessionsByID.values.first {
            guard $0.initiator == initiator, $0.nexus != nil, let unit = $0.unit else { return false }
            return unit.isDesignated(by: device) && unit.volume.access.admits(initiator, proof: proof)
        }
    }

    /// Whether there are sessions that this loop does not know.
    var hasOtherLoops: Bool { configuration.loops > 1 }

    /// As ``session(of:designatedBy:)``, of the other loops, and for several devices at once.
    func sessionsElsewhere(
        of session: ISCSISession,
        designatedBy devices: [CopyDevice],
        completion: @escaping ([CopyDevice: CopyElsewhere]) -> Void
    ) {
        let (initiator, proof, loop) = (session.initiator, session.proof, loop)
        let searches = node.all.filter { !$0.eventLoop.inEventLoop }.map { other in
            other.eventLoop.submit { () -> [CopyElsewhere.Found] in
                devices.compactMap { device in
                    guard
                        let found = other.value.session(designatedBy: device, initiator: initiator, proof: proof),
                        let unit = found.unit
                    else { return nil }
                    let bound = NIOLoopBound(found, eventLoop: other.eventLoop)
                    return CopyElsewhere.Found(device: device, session: bound, id: ObjectIdentifier(found), unit: unit)
                }
            }
        }
        EventLoopFuture.whenAllSucceed(searches, on: loop).assumeIsolated().whenComplete { result in
            // It fails where a loop has stopped: then this one stops, too.
            let found = (try? result.get())?.joined() ?? [].joined()
            var sessions: [ObjectIdentifier: CopyElsewhere] = [:]
            var byDevice: [CopyDevice: CopyElsewhere] = [:]
            for found in found where byDevice[found.device] == nil {
                // Devices of one session are one participant, so that it is seen that a copy stays inside a volume.
                let participant = sessions[found.id] ?? CopyElsewhere(found, loop: loop)
                sessions[found.id] = participant
                byDevice[found.device] = participant
            }
            completion(byDevice)
        }
    }

    // MARK: Discovery

    /// Lists the names of all volumes that an initiator may see; none where the volumes cannot be had.
    func listTargets(for initiator: String, named wanted: String?, completion: @escaping ([String]) -> Void) {
        let name = { (volume: VolumeDescription) -> String? in
            volume.access.lists(initiator) && (wanted == nil || wanted == volume.iqn) ? volume.iqn : nil
        }
        listVolumes(name) { [logger] names in
            if names == nil { logger.warning("volumes could not be listed for discovery") }
            completion(names ?? [])
        }
    }

    /// What a closure takes from each volume, page by page; nil where they cannot all be had.
    ///
    /// No more pages are asked for once there are ``TargetLimits/discoveryTargetsMaximum``.
    func listVolumes<Item>(
        _ item: @escaping (VolumeDescription) -> Item?,
        completion: @escaping ([Item]?) -> Void
    ) {
        listPage(after: "", item, found: [], completion: completion)
    }

    private func listPage<Item>(
        after name: String,
        _ item: @escaping (VolumeDescription) -> Item?,
        found: [Item],
        completion: @escaping ([Item]?) -> Void
    ) {
        guard let link = caches.first(where: { $0.client.isConnected }) else { return completion(nil) }
        let limit = RPCMessageLimits.volumesInListMaximum
        link.client.send(
            ListVolumes(after: name, limit: UInt32(limit)),
            deadlineMilliseconds: TargetLimits.controlDeadlineMilliseconds
        ) { [self] result in
            guard case .success(var answer) = result, let page = try? answer.decode(ListVolumes.Answer.self) else {
                return completion(nil)
            }
            let all = found + page.volumes.compactMap(item)
            guard page.volumes.count == limit, let last = page.volumes.last,
                all.count < TargetLimits.discoveryTargetsMaximum
            else { return completion(all) }
            listPage(after: last.name, item, found: all, completion: completion)
        }
    }
}

/// Bounds of the target's shell.
enum TargetLimits {
    /// How often owners are asked for stamps.
    static let stampInterval = TimeAmount.seconds(1)
    /// How often a target tells that it lives.
    static let heartbeatInterval = TimeAmount.seconds(5)
    /// How often a session lets time pass.
    static let sessionTick = TimeAmount.milliseconds(250)
    /// How long to wait before an owner is looked for again.
    static let locateInterval = TimeAmount.milliseconds(100)
    /// How long a login waits for its volume's owner, in milliseconds.
    static let loginDeadlineMilliseconds: UInt64 = 10_000
    /// Deadline of requests that are no commands.
    static let controlDeadlineMilliseconds: UInt32 = 5_000
    /// How long a put of direct writes may take before they go through the cache, in milliseconds: less than a proof is good for.
    static let directPutDeadlineMilliseconds: UInt32 = 3_000
    /// How often a read is repeated because an object has gone meanwhile (I7).
    static let readRepeatsMaximum = 8
    /// How often a slot is asked for again from an object server that cannot be reached.
    static let fetchRetriesMaximum = 20
    /// Pause between these.
    static let fetchRetryInterval = TimeAmount.milliseconds(250)
    /// A run in an object of which memory holds some is fetched whole where more pieces than this are missing.
    static let gapsOfRunMaximum = 8
    /// Bytes that are read ahead at once for all volumes; the read cache may set a lower bound.
    static let aheadBytesMaximum = 8 << 20
    /// The part of the read cache that what is read ahead may take: half of what blocks that nobody has used twice have.
    static let aheadCacheDivisor = 20
    /// Nothing is read ahead while reads have sent for more than this.
    static let aheadBelowFetchedBytes = 2 << 20
    /// Bytes that are read ahead with one request.
    static let aheadRequestBytes = 256 << 10
    /// Deadline of what is read ahead, in milliseconds: reads that wait for it fetch it themselves then.
    static let aheadDeadlineMilliseconds: UInt32 = 2_000
    /// Pieces of PDUs up to this size are copied behind one another before they go to the channel.
    static let copiedOutputMaximumBytes = 16 << 10
    /// Output of this size goes to the channel before the flush.
    static let outputChunkBytes = 256 << 10
    /// With more output than this not yet taken, an initiator gives no commands; it gives them again below the lower mark. More
    /// than a turn of the loop brings where small commands come in numbers, so that reading is not switched off and on by those.
    static let outputHighBytes = 512 << 10
    /// The lower mark.
    static let outputLowBytes = 128 << 10
    /// Pause before a command is sent again that a link had no room for.
    static let busyLinkInterval = TimeAmount.milliseconds(20)
    /// How long an erasure that is not immediate may take, in milliseconds: a day.
    static let erasureDeadlineMilliseconds: UInt32 = 86_400_000
    /// How long task management waits for the owner before the session is dropped instead, in milliseconds: less than
    /// open-iscsi waits for an abort (15 s).
    static let taskManagementDeadlineMilliseconds: UInt32 = 10_000
    /// How long a port that is being drained is standby before its sessions are asked to log out, in nanoseconds.
    static let drainGraceNanoseconds: UInt64 = 15_000_000_000
    /// Seconds within which an initiator that is asked to log out is to do so.
    static let logoutSeconds: UInt16 = 5
    /// How long a target that stops waits for sessions to log out.
    static let stopGrace = TimeAmount.seconds(1)
    /// Links to cache servers.
    static let cacheLinksMaximum = 64
    /// Targets in the answer to one discovery.
    static let discoveryTargetsMaximum = 20_000
    /// Event loops of one target. What each of them has in stock of objects for direct writes to one volume may add up to what its
    /// owner hands out.
    static let loopsMaximum = 32
    /// Connections at one portal.
    static let connectionsMaximum = 1_024
    /// Connections by which an iSNS server inquires.
    static let isnsConnectionsMaximum = 16
    /// How long such a connection may be idle; servers open a new one for each inquiry.
    static let isnsIdleTimeout = TimeAmount.minutes(5)
    /// How long a connection to the iSNS server may take.
    static let isnsConnectTimeout = TimeAmount.seconds(5)
    /// Pause before the portal's own address is looked up again.
    static let isnsLookUpInterval = TimeAmount.seconds(30)
    /// How long a connection may take to send its PROXY header.
    static let proxyHeaderTimeout = TimeAmount.seconds(5)
}

/// Why a target could not start, or does not take a connection.
public enum TargetError: Error, Sendable, CustomStringConvertible {
    /// A configured endpoint is not `host:port`.
    case invalidEndpoint(key: String, value: String)
    /// The portal's address cannot be listened on.
    case portalNotAvailable(String, reason: String)
    /// The portal has as many connections as it takes.
    case tooManyConnections
    /// An address is not among those that are let in.
    case addressNotAllowed(String)

    /// Names the key and the remedy.
    public var description: String {
        switch self {
        case .invalidEndpoint(let key, let value): "\(key): '\(value)' is not host:port"
        case .portalNotAvailable(let portal, let reason):
            "the iSCSI portal \(portal) cannot be opened (\(reason)); is another target running there?"
        case .tooManyConnections: "the portal has \(TargetLimits.connectionsMaximum) connections and takes no more"
        case .addressNotAllowed(let peer): "connections from \(peer) are not taken"
        }
    }
}
