import CLinux
import Glibc
import Logging
import NIOCore
import NIOPosix
import Ownership
import PostgresStore

// How much room PostgreSQL has left for its log: by the free bytes of the file system where that is on this host, else by what the log
// takes of the room that it has been given.
extension CacheService {
    /// Measures, tells the core, and does so again after a while.
    func measureLogRoom() {
        let bound = NIOLoopBound(self, eventLoop: loop)
        let finish: @Sendable (Result<UInt64, StoreFailure>) -> Void = { [loop] result in
            loop.execute {
                let service = bound.value
                guard service.isRunning else { return }
                var free: UInt64?
                switch result {
                case .success(let bytes):
                    free = bytes
                    service.note(nil, of: .room)
                case .failure(let failure): service.note(failure, of: .room)
                }
                service.core.logRoomMeasured(freeBytes: free, now: service.now)
                service.endTurn()
                loop.scheduleTask(in: CacheServerLimits.logRoomRound) { bound.value.measureLogRoom() }
            }
        }
        if let directory = configuration.log.directory {
            // A file system may take its time.
            NIOThreadPool.singleton.submit { _ in finish(Self.freeBytes(directory)) }
        } else if let capacity = configuration.log.capacityBytes {
            store.logBytes { result in finish(result.map { capacity - min($0, capacity) }) }
        }
    }

    private static func freeBytes(_ directory: String) -> Result<UInt64, StoreFailure> {
        var status = statvfs()
        guard statvfs(directory, &status) == 0 else {
            return .failure(
                .refused("the free room of \(directory) cannot be read: \(String(cString: strerror(errno)))")
            )
        }
        return .success(UInt64(status.f_bavail) * UInt64(status.f_frsize))
    }
}
