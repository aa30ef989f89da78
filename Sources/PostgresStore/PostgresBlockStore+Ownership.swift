public import AshlarCore
import Failpoints
public import Ownership

extension PostgresBlockStore {
    /// See ``BlockStore/registerServer(name:endpoint:leaseMilliseconds:completion:)``.
    public func registerServer(
        name: String,
        endpoint: String,
        leaseMilliseconds: UInt32,
        completion: @escaping @Sendable (Result<CacheServerID, StoreFailure>) -> Void
    ) {
        leaseLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheServerRegistered,
                {
                    var call = Call(Statements.registerServer)
                    call.add(name)
                    call.add(endpoint)
                    call.add(Int64(leaseMilliseconds))
                    return call
                },
                completion: completion
            ) { (result) throws(StoreFailure) in CacheServerID(try result.int(0, 0)) }
        )
    }

    /// See ``BlockStore/renewLease(server:leaseMilliseconds:completion:)``.
    public func renewLease(
        server: CacheServerID,
        leaseMilliseconds: UInt32,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    ) {
        leaseLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheLeaseRenewed,
                { Call(Statements.renewLease, Int64(server), Int64(leaseMilliseconds)) },
                completion: completion
            ) { $0.affected == 1 }
        )
    }

    /// See ``BlockStore/releaseLeases(name:except:completion:)``.
    public func releaseLeases(
        name: String,
        except: CacheServerID?,
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    ) {
        leaseLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheLeasesReleased,
                {
                    var call = Call(Statements.releaseLeases)
                    call.add(name)
                    call.add(except.map { Int64($0) } ?? 0)
                    return call
                },
                completion: completion
            ) { _ in }
        )
    }

    /// See ``BlockStore/takeOver(volume:server:completion:)``.
    ///
    /// Transactions of an old epoch whose owner's lease has ended are waited for, then their sessions are ended.
    public func takeOver(
        volume: VolumeID,
        server: CacheServerID,
        completion: @escaping @Sendable (Result<TakeoverResult, StoreFailure>) -> Void
    ) {
        Takeover(
            lane: takeoverLane,
            volume: volume,
            server: server,
            lockTimeoutMilliseconds: takeoverLockTimeoutMilliseconds,
            completion: completion
        ).begin(attempts: PostgresStoreLimits.takeoverAttemptsMaximum)
    }

    /// See ``BlockStore/countVolume(volume:completion:)``. On the connection for background work, so that no takeover waits for it.
    public func countVolume(
        volume: VolumeID,
        completion: @escaping @Sendable (Result<VolumeCounts, StoreFailure>) -> Void
    ) {
        backgroundLane.submit(
            .single(
                isChange: false,
                { Call(Statements.countItems, Int64(volume)) },
                completion: completion
            ) { (result) throws(StoreFailure) in
                VolumeCounts(
                    unmovedItems: try result.unsigned(0, 0),
                    items: try result.unsigned(0, 1),
                    objectBlocks: try result.unsigned(0, 2)
                )
            }
        )
    }

    /// See ``BlockStore/relinquish(volume:epoch:server:successor:completion:)``.
    public func relinquish(
        volume: VolumeID,
        epoch: Epoch,
        server: CacheServerID,
        successor: CacheServerID,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    ) {
        takeoverLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheVolumeRelinquished,
                { Call(Statements.relinquish, Int64(volume), Int64(epoch), Int64(server), Int64(successor)) },
                completion: completion
            ) { $0.affected == 1 }
        )
    }

    /// Records that a server is about to stop, so that no other one gives it volumes.
    public func markStopping(
        server: CacheServerID,
        completion: @escaping @Sendable (Result<Void, StoreFailure>) -> Void
    ) {
        leaseLane.submit(
            .single(
                isChange: true,
                failpoint: .cacheStopAnnounced,
                { Call(Statements.markStopping, Int64(server)) },
                completion: completion
            ) { _ in }
        )
    }

    /// Looks which cache servers live, what they own, and which volumes were given up for `server`.
    public func surveyServers(
        server: CacheServerID,
        completion: @escaping @Sendable (Result<CacheSurvey, StoreFailure>) -> Void
    ) {
        sessionLane.submit(
            .transaction(
                { _ in
                    [
                        Call(
                            Statements.surveyServers,
                            Int64(OwnershipBalanceLimits.flappingWindowMilliseconds)
                        ),
                        Call(Statements.handedOver, Int64(server)),
                    ]
                },
                completion: completion
            ) { (results) throws(StoreFailure) in
                var survey = CacheSurvey(servers: [], handedOver: [])
                for row in 0..<results[0].count { survey.servers.append(try results[0].cacheServer(row)) }
                for row in 0..<results[1].count { survey.handedOver.append(VolumeID(try results[1].int(row, 0))) }
                return survey
            }
        )
    }

    /// See ``BlockStore/openNexus(volume:epoch:nexus:completion:)``.
    public func openNexus(
        volume: VolumeID,
        epoch: Epoch,
        nexus: NexusRow,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    ) {
        let volumeNumber = Int64(volume)
        let epochNumber = Int64(epoch)
        sessionLane.submit(
            .transaction(
                failpoints: JobFailpoints(done: .cacheNexusOpened),
                { _ in
                    var close = Call(Statements.closeOlderNexuses, volumeNumber, epochNumber, Int64(nexus.number))
                    close.add(nexus.ports.initiatorName)
                    close.add(Int64(truncatingIfNeeded: nexus.ports.isid))
                    close.add(Int64(nexus.ports.portalGroupTag))
                    var insert = Call(Statements.insertNexus, volumeNumber, epochNumber, Int64(nexus.number))
                    insert.add(nexus.ports.initiatorName)
                    insert.add(Int64(truncatingIfNeeded: nexus.ports.isid))
                    insert.add(Int64(nexus.ports.portalGroupTag))
                    insert.add(nexus.node)
                    return [
                        Call(Statements.lockShared, arrays: [volumeNumber]),
                        Call(Statements.guardEpochs, arrays: [volumeNumber], [epochNumber]),
                        close, insert, Self.initialMark(volumeNumber, epochNumber, nexus),
                        Call(Statements.raiseNexuses, volumeNumber, epochNumber, Int64(nexus.number)),
                    ]
                },
                completion: completion
            ) { $0[1].count == 1 }
        )
    }

    /// The marks with which a nexus begins; -1 is the lane of no connection that commits.
    private static func initialMark(_ volume: Int64, _ epoch: Int64, _ nexus: NexusRow) -> Call {
        let done = nexus.mark.done.map { Int64($0) }
        var call = Call(
            Statements.markNexuses,
            arrays: [volume],
            [epoch],
            [Int64(nexus.number)],
            [Int64(nexus.mark.lowWater)],
            [1],
            [Int64(done.count)],
            done
        )
        call.add(-1)
        return call
    }

    /// See ``BlockStore/closeNexus(volume:epoch:nexus:completion:)``.
    public func closeNexus(
        volume: VolumeID,
        epoch: Epoch,
        nexus: NexusNumber,
        completion: @escaping @Sendable (Result<Bool, StoreFailure>) -> Void
    ) {
        let volumeNumber = Int64(volume)
        let epochNumber = Int64(epoch)
        sessionLane.submit(
            .transaction(
                failpoints: JobFailpoints(done: .cacheNexusClosed),
                { _ in
                    [
                        Call(Statements.lockShared, arrays: [volumeNumber]),
                        Call(Statements.guardEpochs, arrays: [volumeNumber], [epochNumber]),
                        Call(Statements.closeNexus, volumeNumber, epochNumber, Int64(nexus)),
                    ]
                },
                completion: completion
            ) { $0[1].count == 1 }
        )
    }
}

/// One takeover: look, then lock and begin an epoch; end the sessions that are in the way, and try again.
private struct Takeover: Sendable {
    let lane: Lane
    let volume: VolumeID
    let server: CacheServerID
    let lockTimeoutMilliseconds: Int
    let completion: @Sendable (Result<TakeoverResult, StoreFailure>) -> Void

    /// Looks first, so that a living owner is not made to wait by the lock.
    func begin(attempts: Int) {
        lane.submit(
            .single(isChange: false, { Call(Statements.ownerStatus, Int64(volume), Int64(server)) }) { outcome in
                switch outcome {
                case .failure(let failure): completion(.failure(failure.store))
                case .success(let results):
                    do throws(StoreFailure) {
                        if let answer = try obstacle(results) {
                            completion(.success(answer))
                        } else if attempts == 0 {
                            completion(.failure(.refused("transactions of the old epoch do not end")))
                        } else {
                            takeLock(attempts: attempts)
                        }
                    } catch {
                        completion(.failure(error))
                    }
                }
            }
        )
    }

    /// What forbids the takeover, or nil.
    private func obstacle(_ results: [QueryResult]) throws(StoreFailure) -> TakeoverResult? {
        guard let status = results.first, status.count == 1 else { return .noSuchVolume }
        guard try status.bool(0, 3) else { return .leaseEnded }
        if status.isNull(0, 0) { return nil }
        return .heldBy(
            server: CacheServerID(try status.int(0, 0)),
            endpoint: status.string(0, 1),
            leaseLeftMilliseconds: UInt32(clamping: try status.int(0, 2))
        )
    }

    private func takeLock(attempts: Int) {
        let number = Int64(volume)
        let job = Job(
            isChange: true,
            calls: { _ in
                var timeout = Call(Statements.setLockTimeout)
                timeout.add(String(lockTimeoutMilliseconds))
                return [
                    Call(Statements.begin), timeout, Call(Statements.lockExclusive, number),
                    Call(Statements.lockOwnerLease, number, Int64(server)),
                    Call(Statements.bumpEpoch, number, Int64(server)),
                    Call(Statements.dropOrphanMarks, number), Call(Statements.describeVolume, number),
                    Call(Statements.nexuses, number), Call(Statements.logicalUnit, number),
                    Call(Statements.registrations, number), Call(Statements.commit),
                ]
            },
            failpoints: JobFailpoints(done: .cacheVolumeTaken),
            finish: { outcome in
                switch outcome {
                case .failure(let failure) where failure.sqlState == SQLState.lockNotAvailable:
                    endHolders(attempts: attempts)
                case .failure(let failure):
                    completion(.failure(failure.store))
                case .success(let results):
                    do throws(StoreFailure) {
                        if let ownership = try ownership(Array(results.dropFirst(4))) {
                            completion(.success(.owned(ownership)))
                        } else {
                            begin(attempts: attempts - 1)
                        }
                    } catch {
                        completion(.failure(error))
                    }
                }
            }
        )
        lane.submit(job)
    }

    private func endHolders(attempts: Int) {
        lane.submit(
            .single(isChange: true, { Call(Statements.endHolders, Int64(volume), Int64(server)) }) { outcome in
                switch outcome {
                case .failure(let failure): completion(.failure(failure.store))
                case .success: begin(attempts: attempts - 1)
                }
            }
        )
    }

    /// From the results of bump, orphans, description, nexuses, unit, registrations, commit; nil where the epoch was not
    /// bumped.
    private func ownership(_ results: [QueryResult]) throws(StoreFailure) -> Ownership? {
        guard results.count == 7 else { throw StoreFailure.broken("a takeover has the wrong number of results") }
        let bump = results[0]
        guard bump.count == 1 else { return nil }
        guard results[2].count == 1 else { throw StoreFailure.broken("an owned volume has no description") }
        let description = try results[2].volume(0)
        return Ownership(
            description: description,
            epoch: Epoch(try bump.unsigned(0, 0)),
            firstVersion: Version(try bump.unsigned(0, 1)),
            firstNexus: NexusNumber(try bump.unsigned(0, 2)),
            nexuses: try results[3].nexuses(),
            unit: try results[4].logicalUnit(registrations: results[5]),
            told: try results[4].told()
        )
    }
}

extension QueryResult {
    fileprivate func cacheServer(_ row: Int) throws(StoreFailure) -> CacheServerState {
        CacheServerState(
            id: CacheServerID(try int(row, 0)),
            name: string(row, 1),
            endpoint: string(row, 2),
            isLeaving: try bool(row, 3),
            usedVolumes: Int(try int(row, 4)),
            idleVolumes: Int(try int(row, 5)),
            ageMilliseconds: UInt64(max(try int(row, 6), 0)),
            recentStarts: Int(try int(row, 7))
        )
    }

    /// Nexuses in order of number, each with what all lanes marked.
    fileprivate func nexuses() throws(StoreFailure) -> [NexusRow] {
        var rows: [NexusRow] = []
        var done: Set<CommandID> = []
        func close() {
            guard let last = rows.indices.last else { return }
            let lowWater = rows[last].mark.lowWater
            rows[last].mark.done = done.filter { $0 >= lowWater }.sorted()
            done = []
        }
        for row in 0..<count {
            let number = NexusNumber(try unsigned(row, 0))
            let lowWater = CommandID(try unsigned(row, 5))
            if rows.last?.number != number {
                close()
                let ports = InitiatorTargetNexus(
                    initiatorName: string(row, 1),
                    isid: try unsigned(row, 2),
                    portalGroupTag: try exactly(row, 3, as: UInt16.self)
                )
                let mark = NexusMark(nexus: number, lowWater: lowWater, done: [])
                rows.append(
                    NexusRow(
                        number: number,
                        ports: ports,
                        node: string(row, 4),
                        mark: mark,
                        attentions: try attentions(row, 7),
                        aborted: isNull(row, 8)
                            ? nil
                            : Stamp(
                                epoch: Epoch(try unsigned(row, 8)),
                                time: MonotonicTime(try unsigned(row, 9))
                            )
                    )
                )
            } else if let last = rows.indices.last, lowWater > rows[last].mark.lowWater {
                rows[last].mark.lowWater = lowWater
            }
            for command in try ints(row, 6) { done.insert(CommandID(UInt64(bitPattern: command))) }
        }
        close()
        return rows
    }
}
