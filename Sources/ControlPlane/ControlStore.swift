/// The owner of a volume, as PostgreSQL names it.
struct VolumeOwnerRecord: Sendable, Hashable {
    /// The key of the volume.
    var volume: Int64
    /// Its size.
    var sizeBytes: UInt64
    /// Its data block.
    var blockSizeBytes: UInt32
    /// Its state.
    var state: String
    /// `host:port` of its owner, where one with a living lease has it.
    var ownerEndpoint: String?
}

/// What the control role keeps in PostgreSQL. Calls wait for the database on a thread of the store's own.
///
/// All of them throw ``ControlError``.
protocol ControlStore: Sendable {
    /// Inserts a volume.
    func createVolume(_ draft: VolumeDraft) async throws -> VolumeDocument
    /// Reads a volume; nil where there is none.
    func volume(named name: String) async throws -> VolumeDocument?
    /// Reads volumes in the order of their names, behind `after`.
    func volumes(after: String?, limit: Int) async throws -> [VolumeDocument]
    /// Changes a volume.
    func changeVolume(named name: String, _ change: ChangeVolumeRequest) async throws -> VolumeDocument
    /// Sets the size of a volume; refused where it would shrink and `force` is not set.
    func resizeVolume(named name: String, sizeBytes: UInt64, force: Bool) async throws -> VolumeDocument
    /// Marks a volume as being deleted; refused while sessions exist and `force` is not set.
    func markDeleting(named name: String, force: Bool) async throws -> VolumeOwnerRecord
    /// Removes a bounded number of rows of a volume that is being deleted; true once it is gone.
    func deletionStep(volume: Int64) async throws -> Bool
    /// Rows that belong to a volume: items and extents.
    func rowCount(volume: Int64) async throws -> UInt64
    /// Who owns a volume; nil where there is no such volume.
    func owner(volume name: String) async throws -> VolumeOwnerRecord?
    /// Names of volumes that are being deleted, at most `limit`.
    func deletingVolumes(limit: Int) async throws -> [String]
    /// Reads what volumes take up, in the order of their names, behind `after`.
    func space(after: String?, limit: Int) async throws -> [SpaceDocument]
    /// Reads what one volume takes up; nil where there is none.
    func space(volume name: String) async throws -> SpaceDocument?
    /// Reads what targets have reported.
    func targets() async throws -> [TargetDocument]
    /// Sets whether the sessions of a target are to go elsewhere; nil where no target of that name has reported.
    func setDraining(target name: String, _ isDraining: Bool) async throws -> TargetDocument?
    /// Reads which cache servers have registered lately, by name, each as it last did.
    func cacheServers() async throws -> [CacheNodeDocument]
    /// Sets whether the volumes of a cache server are to go elsewhere; nil where none of that name has registered.
    func setDraining(cache name: String, _ isDraining: Bool) async throws -> CacheNodeDocument?
    /// Reads open sessions, at most `limit`.
    func sessions(volume: String?, limit: Int) async throws -> [SessionDocument]
    /// The names of volumes by their keys.
    func volumeNames(_ keys: [Int64]) async throws -> [Int64: String]
    /// The settings of the cluster.
    func cluster() async throws -> ClusterDocument
    /// Changes settings of the cluster.
    func changeCluster(_ change: ChangeClusterRequest) async throws -> ClusterDocument
    /// Object servers that were recorded, with the live objects there.
    func objectServers() async throws -> [ObjectServerRecord]
    /// Sets whether the objects of a server are to go elsewhere; nil where no server of that number is recorded.
    func setDraining(objectServer id: Int32, _ isDraining: Bool) async throws -> ObjectServerRecord?
    /// Records that an object server was heard of.
    func recordObjectServer(id: Int32, name: String, endpoint: String, cluster: String) async throws
}

/// The numbers that a cache server or an object server answered, or why it did not.
enum PeerAnswer<Value: Sendable>: Sendable {
    /// It answered.
    case answered(Value)
    /// It did not, for this reason.
    case unreachable(String)
}

/// The other roles, as the control role uses them.
///
/// All of these throw ``ControlError``, and none waits for longer than the limits in ``ControlLimits``.
protocol ControlPeers: Sendable {
    /// Tells every cache server that a volume's row has changed; returns those that could not be told.
    func reload(volume: Int64) async -> [String]
    /// Has everything unmoved moved; returns the items that are left.
    func moveNow(volume: Int64, owner: String?) async throws -> UInt64
    /// Removes a bounded part of a volume; returns 0 once it is gone.
    func deleteStep(volume: Int64, owner: String?) async throws -> UInt64
    /// Asks every cache server for its numbers.
    func cacheStatistics() async -> [CacheDocument]
    /// Asks every object server for its numbers.
    func objectStatistics() async -> [ObjectServerDocument]
    /// The numbers of the object servers that are configured.
    var objectServers: [Int32] { get }
    /// The name that the certificate of an object server gives it; nil where it is not connected.
    func objectServerName(_ server: Int32) async -> String?
    /// A page of the objects that lie on a server, and where the next page begins.
    func listObjects(server: Int32, after: UInt64?) async throws -> (objects: [UInt64], next: UInt64?)
    /// Reads a whole object on its server; returns what is wrong with it, nil where nothing is.
    func verifyObject(server: Int32, object: UInt64) async throws -> ObjectDamage?
    /// Reads the header of an object.
    func objectHeader(server: Int32, object: UInt64) async throws -> HeaderAnswer
    /// What a server knows of the database: the highest clock that it was told, and the highest object id that lay there.
    func databaseKnowledge(server: Int32) async throws -> (clock: UInt64, highestObject: UInt64)
}

/// An object server as PostgreSQL knows it.
struct ObjectServerRecord: Sendable, Hashable {
    var id: Int32
    var isDraining: Bool
    /// Live objects there.
    var objects: UInt64
    /// Their bytes.
    var bytes: UInt64
}

/// What a server says when it is asked for a header.
enum HeaderAnswer: Sendable, Hashable {
    /// It lies there.
    case header(RecoverPlanner.Header)
    /// It does not lie there.
    case missing
    /// It lies there, but its header cannot be read.
    case damaged(String)
}

/// What a server says of an object that cannot be read.
enum ObjectDamage: Sendable, Hashable {
    /// It does not lie there.
    case missing
    /// It lies there, but is damaged.
    case damaged(String)
}
