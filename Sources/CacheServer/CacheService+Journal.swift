import NIOCore
import Ownership
import PostgresStore

// The journal of cached bytes is cleaned by whichever cache server comes first, step by step.
extension CacheService {
    /// Makes a step, and the next one soon where there is more to do.
    func cleanJournal() {
        let bound = NIOLoopBound(self, eventLoop: loop)
        store.cleanJournal { [loop] result in
            loop.execute {
                let service = bound.value
                guard service.isRunning else { return }
                var pause = CacheServerLimits.journalRound
                switch result {
                case .success(let step):
                    service.note(nil, of: .journal)
                    if !step.isDone { pause = CacheServerLimits.journalPause }
                case .failure(let failure): service.note(failure, of: .journal)
                }
                loop.scheduleTask(in: pause) { bound.value.cleanJournal() }
            }
        }
    }
}
