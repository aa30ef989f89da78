/// A place between two durable effects, by name: what is durable before it, and what is not yet.
///
/// A process whose environment names one in `ASHLAR_FAILPOINT` ends there as by `kill -9`; see ``reach()``. The first part of a
/// name says whose process it is: a role, `migrate`, `up`, or `certs`, which are the files that `ashlar up` and `ashlar certs` write.
///
/// Targets have none: nothing that they do is durable.
public enum Failpoint: String, Sendable, CaseIterable {
    // MARK: Cache servers

    /// The server's row is committed with its first lease; it does not know its number yet.
    case cacheServerRegistered = "cache.server-registered"
    /// The lease is longer in PostgreSQL; the server still counts the old one.
    case cacheLeaseRenewed = "cache.lease-renewed"
    /// A volume's new epoch is committed; nobody serves the volume under it yet.
    case cacheVolumeTaken = "cache.volume-taken"
    /// A nexus is committed; the target has not been told its number.
    case cacheNexusOpened = "cache.nexus-opened"
    /// The end of a nexus is committed; the target has not been told.
    case cacheNexusClosed = "cache.nexus-closed"
    /// Writes are ready to be committed; nothing of them has been sent to PostgreSQL.
    case cacheWritesReady = "cache.writes-ready"
    /// The transaction of writes has been sent whole, with its COMMIT; its outcome is not known.
    case cacheWritesSent = "cache.writes-sent"
    /// Writes are committed; none has been answered.
    case cacheWritesCommitted = "cache.writes-committed"
    /// A new ceiling of versions is committed, with the writes that come with it; the server does not know.
    case cacheVersionsRaised = "cache.versions-raised"
    /// Blocks were made zeros by a committed transaction; that has not been answered.
    case cacheZerosCommitted = "cache.zeros-committed"
    /// A copy by reference is committed; it has not been answered.
    case cacheCopyCommitted = "cache.copy-committed"
    /// A change of the unit's state, as a reservation, is committed; it has not been answered.
    case cacheUnitChanged = "cache.unit-changed"
    /// What the nexuses know of the volume's description is committed; they have not been told.
    case cacheDescriptionTold = "cache.description-told"
    /// What lay behind the end of a volume that shrank is gone, and the mark of it with it; the server does not know yet.
    case cacheRemainsForgotten = "cache.remains-forgotten"
    /// Intended objects are committed; their ids have not been handed out.
    case cacheObjectsReserved = "cache.objects-reserved"
    /// The transaction that maps a move has been sent whole; its outcome is not known.
    case cacheMoveSent = "cache.move-sent"
    /// A move is mapped; neither memory nor the agent knows.
    case cacheMoveMapped = "cache.move-mapped"
    /// The transaction that maps direct writes has been sent whole; its outcome is not known.
    case cacheDirectSent = "cache.direct-sent"
    /// Direct writes are mapped and marked as done; none has been answered.
    case cacheDirectMapped = "cache.direct-mapped"
    /// A compaction is mapped; neither memory nor the agent knows.
    case cacheCompactionMapped = "cache.compaction-mapped"
    /// Items are evicted in PostgreSQL; memory still has them.
    case cacheItemsEvicted = "cache.items-evicted"
    /// Blocks that were read from objects are items; memory does not know.
    case cacheItemsFilled = "cache.items-filled"
    /// Intents that are too old and objects without references are dead; no agent knows of them.
    case cacheObjectsSwept = "cache.objects-swept"
    /// The rows of deleted objects are gone; the agent has not been told.
    case cacheObjectsForgotten = "cache.objects-forgotten"
    /// The database's clock has ticked; no object server knows the new time.
    case cacheClockTicked = "cache.clock-ticked"
    /// Items of a scrub are handed out to this server; none has been verified.
    case cacheScrubItemsTaken = "cache.scrub-items-taken"
    /// What was found in items is recorded; no objects have been handed out.
    case cacheScrubItemsDone = "cache.scrub-items-done"
    /// Objects of a scrub are handed out in PostgreSQL; the agent does not know.
    case cacheScrubObjectsTaken = "cache.scrub-objects-taken"
    /// How objects were found is recorded; the agent has not been told.
    case cacheScrubObjectsDone = "cache.scrub-objects-done"
    /// A session has a segment of the journal to fill; the server does not know, and has put nothing there.
    case cacheSegmentClaimed = "cache.segment-claimed"
    /// Segments whose sessions are gone are sealed, and what is in use of one is counted; nothing has been taken out of it.
    case cacheSegmentSealed = "cache.segment-sealed"
    /// Bytes of items have been put into another segment; theirs may still be full of them.
    case cacheItemsRelocated = "cache.items-relocated"
    /// A segment is truncated and free; the server that cleans does not know.
    case cacheSegmentTruncated = "cache.segment-truncated"
    /// What a target reports of itself is recorded; it has no answer.
    case cacheTargetReported = "cache.target-reported"
    /// A part of the rows of a volume that is being deleted is gone; the control role has not been told.
    case cacheVolumeDeletionStepped = "cache.volume-deletion-stepped"
    /// A volume is given up for another server; neither targets nor memory know.
    case cacheVolumeRelinquished = "cache.volume-relinquished"
    /// Others know that this server is about to stop; it has given nothing away yet.
    case cacheStopAnnounced = "cache.stop-announced"
    /// The lease is given back; the process has not ended.
    case cacheLeasesReleased = "cache.leases-released"

    // MARK: Agents

    /// The agent has blocks to move, and the id of an intended object; nothing has been put.
    case agentMoveReceived = "agent.move-received"
    /// An object lies on its server; it is not mapped.
    case agentObjectPut = "agent.object-put"
    /// A move is mapped, and the agent knows it.
    case agentMoveMapped = "agent.move-mapped"
    /// The agent has slots to rewrite, and the id of an intended object; nothing has been put.
    case agentCompactionReceived = "agent.compaction-received"
    /// A compaction is mapped, and the agent knows it; its sources are not collected.
    case agentCompactionMapped = "agent.compaction-mapped"
    /// Items are evicted, and the agent knows it.
    case agentItemsEvicted = "agent.items-evicted"
    /// The agent knows the database's new time; no object server does.
    case agentClockLearned = "agent.clock-learned"
    /// An object server keeps the new time; others do not yet.
    case agentClockRaised = "agent.clock-raised"
    /// The agent knows which objects are dead; their bytes are all there.
    case agentDeadReceived = "agent.dead-received"
    /// The bytes of dead objects are gone; their rows are there.
    case agentDeadDeleted = "agent.dead-deleted"
    /// The rows of deleted objects are gone, and the agent knows it.
    case agentDeadForgotten = "agent.dead-forgotten"
    /// A scan has listed objects; it has not asked which are known.
    case agentScanListed = "agent.scan-listed"
    /// A scan knows which objects have no row; none of them is deleted.
    case agentScanCompared = "agent.scan-compared"
    /// An object server has deleted an object; others may be left to delete, and nothing says that it is gone.
    case agentObjectDeleted = "agent.object-deleted"
    /// The agent has objects to verify; it has not begun.
    case agentScrubReceived = "agent.scrub-received"
    /// Objects are verified; what was found is not recorded.
    case agentScrubVerified = "agent.scrub-verified"
    /// What a scrub found is recorded, and the agent knows it.
    case agentScrubReported = "agent.scrub-reported"

    // MARK: Object servers

    /// The identity of a new root was written under its temporary name.
    case identityWritten = "objects.identity-written"
    /// It was synced.
    case identitySynced = "objects.identity-synced"
    /// It has its name.
    case identityLinked = "objects.identity-linked"
    /// The root's directory was synced.
    case identityDirectorySynced = "objects.identity-directory-synced"
    /// The directories were created.
    case layoutCreated = "objects.layout-created"
    /// They were synced.
    case layoutSynced = "objects.layout-synced"
    /// The temporary file of a put was created.
    case putTemporaryCreated = "objects.put-temporary-created"
    /// It holds the object.
    case putTemporaryWritten = "objects.put-temporary-written"
    /// It was synced.
    case putTemporarySynced = "objects.put-temporary-synced"
    /// The object has its name.
    case putLinked = "objects.put-linked"
    /// The temporary name was removed.
    case putTemporaryRemoved = "objects.put-temporary-removed"
    /// An identical object was replaced by the one put.
    case putReplaced = "objects.put-replaced"
    /// The directory was synced: the put may be acknowledged.
    case putDirectorySynced = "objects.put-directory-synced"
    /// An object's name was removed.
    case deleteUnlinked = "objects.delete-unlinked"
    /// The directory was synced: the delete may be acknowledged.
    case deleteDirectorySynced = "objects.delete-directory-synced"
    /// A later time of the database was written under its temporary name.
    case clockWritten = "objects.clock-written"
    /// It was synced.
    case clockSynced = "objects.clock-synced"
    /// It has its name.
    case clockRenamed = "objects.clock-renamed"
    /// The root's directory was synced: the time may be acknowledged.
    case clockDirectorySynced = "objects.clock-directory-synced"

    // MARK: The control role

    /// A volume is committed, with its access rules; its creation is not answered.
    case controlVolumeCreated = "control.volume-created"
    /// A volume's policy or access is changed; neither cache servers nor the caller know.
    case controlVolumeChanged = "control.volume-changed"
    /// A volume's new size is committed; neither cache servers nor the caller know.
    case controlVolumeResized = "control.volume-resized"
    /// A volume is to be deleted; none of its rows is gone.
    case controlDeletionMarked = "control.deletion-marked"
    /// A step of a deletion is done; more may follow.
    case controlDeletionStepped = "control.deletion-stepped"
    /// A volume is gone; its job has not ended.
    case controlVolumeDeleted = "control.volume-deleted"
    /// A server or target is to be drained, or not any more; the caller does not know.
    case controlDrainingSet = "control.draining-set"
    /// Settings of the cluster are committed; the caller does not know.
    case controlClusterChanged = "control.cluster-changed"
    /// A repair of a check is committed; others may follow.
    case controlRepairMade = "control.repair-made"
    /// A recovery has ended a volume's epoch; its owner does not know, and its map is as it was.
    case controlRecoveryFenced = "control.recovery-fenced"
    /// A recovery has created a volume that only objects knew; nothing is mapped.
    case controlRecoveryCreated = "control.recovery-created"
    /// A part of a volume's map is rebuilt; more may follow.
    case controlRecoveryApplied = "control.recovery-applied"
    /// Object ids go on above all that lie on servers; the volumes are not served yet.
    case controlRecoveryObjectsRaised = "control.recovery-objects-raised"
    /// A recovered volume may be served again; others may not yet, and deletion is refused.
    case controlRecoveryFinished = "control.recovery-finished"
    /// The database's clock is above that of all object servers; the recovery is not answered.
    case controlRecoveryClockRaised = "control.recovery-clock-raised"

    // MARK: Migrations

    /// The ledger is there; no migration is applied.
    case migrateLedgerCreated = "migrate.ledger-created"
    /// A migration is applied; the next one is not.
    case migrateApplied = "migrate.applied"
    /// A migration is taken back; the one before it is not.
    case migrateTakenBack = "migrate.taken-back"

    // MARK: Certificates

    /// The certificate of a new authority is written; its key is not.
    case certsAuthorityCertificateWritten = "certs.authority-certificate-written"
    /// The key of a node is written; its certificate is not.
    case certsNodeKeyWritten = "certs.node-key-written"

    // MARK: ashlar up

    /// The data directory is there, and empty.
    case upDirectoryMade = "up.directory-made"
    /// The data directory is locked; it belongs to no cluster yet.
    case upDirectoryLocked = "up.directory-locked"
    /// A small file is written under its temporary name, and synced.
    case upFileSynced = "up.file-synced"
    /// The data directory belongs to a cluster; there is no PostgreSQL.
    case upRecordSaved = "up.record-saved"
    /// The directory of PostgreSQL's socket is there.
    case upSocketDirectoryMade = "up.socket-directory-made"
    /// PostgreSQL's directory is made, under its temporary name and without our roles.
    case upPostgresMade = "up.postgres-made"
    /// Our role and database are in it, and nobody may connect.
    case upPostgresFilled = "up.postgres-filled"
    /// It is complete, under its temporary name.
    case upPostgresComplete = "up.postgres-complete"
    /// It has its name.
    case upPostgresNamed = "up.postgres-named"
    /// PostgreSQL's settings are written; the API has no token.
    case upSettingsWritten = "up.settings-written"
    /// The API has its token; there are no certificates.
    case upTokenWritten = "up.token-written"
    /// The authority is complete; nodes have no certificates.
    case upAuthorityWritten = "up.authority-written"
    /// A node has its certificate; others have none.
    case upCertificateWritten = "up.certificate-written"
    /// A node has its configuration; others have none.
    case upConfigurationWritten = "up.configuration-written"
    /// Everything is prepared; no process runs.
    case upPrepared = "up.prepared"
    /// The schema is there; the database has another cluster's name.
    case upDatabaseMigrated = "up.database-migrated"
    /// The database has the cluster's name; no role has started.
    case upDatabaseClaimed = "up.database-claimed"
    /// A volume that was asked for is created; others may not be, and the first start is not complete.
    case upVolumeCreated = "up.volume-created"
    /// The first start is complete, and nobody has been told.
    case upCompleted = "up.completed"
}
