import Glibc

/// A fixed number of threads that run blocking jobs in the order in which they came, from a bounded queue.
///
/// Invariants, all under the mutex: `jobs` has at most `waitingMaximum` elements from `head` on; `isClosed` only goes from
/// false to true; a thread ends when the queue is empty and closed.
final class WorkerPool: @unchecked Sendable {
    typealias Job = @Sendable () -> Void

    enum Refusal {
        case full, closed
    }

    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let waitingMaximum: Int
    private var jobs: [Job?] = []
    private var head = 0
    private var isClosed = false
    private var threads: [pthread_t] = []

    /// Starts the threads. A pool must be shut down before it is let go.
    ///
    /// - Throws: `.busy` where the system gives no thread.
    init(threads count: Int, waitingMaximum: Int) throws(ObjectStoreError) {
        precondition(count >= 1 && waitingMaximum >= 1, "a pool needs a thread and a queue")
        self.waitingMaximum = waitingMaximum
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        condition = .allocate(capacity: 1)
        condition.initialize(to: pthread_cond_t())
        precondition(pthread_mutex_init(mutex, nil) == 0, "a mutex needs nothing that could fail")
        precondition(pthread_cond_init(condition, nil) == 0, "a condition needs nothing that could fail")
        for _ in 0..<count {
            var thread = pthread_t()
            let argument = Unmanaged.passRetained(self)
            let result = pthread_create(
                &thread,
                nil,
                { pointer in
                    guard let pointer else { preconditionFailure("a thread gets its pool") }
                    Unmanaged<WorkerPool>.fromOpaque(pointer).takeRetainedValue().runJobs()
                    return nil
                },
                argument.toOpaque()
            )
            guard result == 0 else {
                argument.release()
                shutdown()
                throw ObjectStoreError(.busy, "the system gives no thread", systemError: result)
            }
            threads.append(thread)
        }
    }

    deinit {
        precondition(threads.isEmpty, "a pool must be shut down before it is let go")
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    private func locked<Value>(_ body: () -> Value) -> Value {
        precondition(pthread_mutex_lock(mutex) == 0, "the mutex is broken")
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    /// Hands a job to the threads; nil if it was taken.
    func submit(_ job: @escaping Job) -> Refusal? {
        locked {
            guard !isClosed else { return .closed }
            guard jobs.count - head < waitingMaximum else { return .full }
            jobs.append(job)
            pthread_cond_signal(condition)
            return nil
        }
    }

    /// Takes no more jobs, runs those that wait, and ends the threads. Not to be called from one of them.
    func shutdown() {
        let ending: [pthread_t] = locked {
            isClosed = true
            pthread_cond_broadcast(condition)
            defer { threads = [] }
            return threads
        }
        for thread in ending {
            precondition(thread != pthread_self(), "a pool's own thread cannot wait for itself to end")
            pthread_join(thread, nil)
        }
    }

    private func runJobs() {
        while let job = nextJob() {
            job()
        }
    }

    private func nextJob() -> Job? {
        locked {
            while head == jobs.count {
                if isClosed { return nil }
                pthread_cond_wait(condition, mutex)
            }
            let job = jobs[head]
            jobs[head] = nil
            head += 1
            if head == jobs.count {
                jobs.removeAll(keepingCapacity: true)
                head = 0
            } else if head >= waitingMaximum {
                // The queue never ran empty: move what waits to the front, so that it does not grow for ever.
                jobs.removeFirst(head)
                head = 0
            }
            return job
        }
    }
}
