import ControlPlane
import Foundation
import Glibc

/// What the system is for, with a real initiator: a disk image is written through one target, compared through another, moved
/// to block objects, evicted, compared, and found again after a restart.
struct MainJob: Sendable {
    var cluster: Cluster
    var control: APIClient
    var volume: VolumeDocument
    /// Hears of each step when it is done.
    var report: @Sendable (Step) -> Void

    /// A step that was done.
    struct Step: Codable, Sendable {
        var step: Int
        var what: String
        var seconds: Double
        var detail: String
    }

    /// How long moving and evicting may take.
    private static let settleTimeout = Duration.seconds(900)
    /// How long one run of qemu-img may take.
    private static let copyTimeout = Duration.seconds(1_800)
    private static let seed: UInt64 = 20_260_101

    /// Counts and times the steps.
    private final class Recorder {
        var count = 0
        let clock = ContinuousClock()
    }

    /// Runs the job.
    ///
    /// - Throws: ``UpError`` with the step that failed.
    func run() async throws {
        guard let qemu = Command.find("qemu-img") else {
            throw UpError(
                "qemu-img is not installed.",
                remedy: "Install it (apt-get install qemu-utils qemu-block-extra)."
            )
        }
        let recorder = Recorder()
        let layout = cluster.layout
        var image: DiskImage?
        try await step(recorder, "made an ext4 image") {
            let made = try await DiskImage.make(
                in: layout.scratchDirectory,
                volumeBytes: volume.sizeBytes,
                seed: Self.seed
            )
            image = made
            return "\(made.sizeBytes >> 20) MiB with \(made.fileCount) files of \(made.contentBytes >> 20) MiB"
        }
        guard let image else { return }
        defer { try? FileManager.default.removeItem(atPath: layout.scratchDirectory) }
        let first = url(target: 1)
        let second = url(target: 2)

        try await step(recorder, "wrote it with qemu-img convert through \(first)") {
            try await Command(
                path: qemu,
                arguments: ["convert", "-n", "-f", "raw", "-O", "raw", image.path, first]
            ).check(timeout: Self.copyTimeout)
            return ""
        }
        try await compare(recorder, qemu, image, second, "read from the cache")
        try await move(recorder)
        try await evict(recorder, image)
        try await compare(recorder, qemu, image, second, "read from block objects")
        try await step(recorder, "stopped all processes and started them again") {
            await cluster.stop()
            try await cluster.start()
            return ""
        }
        try await compare(recorder, qemu, image, second, "after the restart")
        try await showWhereBlocksLie(recorder)
    }

    private func url(target: Int) -> String {
        let plan = cluster.plan
        return "iscsi://127.0.0.1:\(plan.iscsiPort + min(target, plan.targets) - 1)/\(volume.iqn)/0"
    }

    private func step(_ recorder: Recorder, _ what: String, _ body: () async throws -> String) async throws {
        recorder.count += 1
        let started = recorder.clock.now
        let detail: String
        do {
            detail = try await body()
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw UpError("Step \(recorder.count) failed, which should have: \(what). \(error)")
        }
        let seconds = ((recorder.clock.now - started) / .milliseconds(1)).rounded() / 1_000
        report(Step(step: recorder.count, what: what, seconds: seconds, detail: detail))
    }

    private func compare(
        _ recorder: Recorder,
        _ qemu: String,
        _ image: DiskImage,
        _ url: String,
        _ when: String
    ) async throws {
        try await step(recorder, "compared it with qemu-img compare through \(url), \(when)") {
            let said = try await Command(
                path: qemu,
                arguments: ["compare", "-f", "raw", "-F", "raw", image.path, url]
            ).check(timeout: Self.copyTimeout)
            return said.split(separator: "\n").last.map(String.init) ?? ""
        }
    }

    private func move(_ recorder: Recorder) async throws {
        try await step(recorder, "moved every block to block objects") {
            let before = try await figures()
            let after = try await settle { figures in
                guard figures.unmovedItems > 0 else { return true }
                _ = try await control.move(volume.name)
                return false
            }
            return
                "\(before.unmovedItems) blocks were unmoved; now \(after.unmovedItems), in \(after.liveObjects) objects"
        }
    }

    private func evict(_ recorder: Recorder, _ image: DiskImage) async throws {
        let limit = max(1 << 20, image.contentBytes / 16)
        try await step(recorder, "evicted down to the policy's limit of \(limit >> 20) MiB") {
            let before = try await figures()
            var change = ChangeVolumeRequest()
            change.policy = PolicyDocument()
            change.policy?.cachedBytesMaximum = limit
            _ = try await control.changeVolume(volume.name, change)
            let after = try await settle { $0.cachedBytes <= limit }
            return "\(before.cachedBytes >> 20) MiB were cached; now \(after.cachedBytes >> 20) MiB"
        }
    }

    // MARK: Figures

    private struct Figures: Sendable {
        var unmovedItems: UInt64
        var cachedBytes: UInt64
        var liveObjects: UInt64
    }

    private func figures() async throws -> Figures {
        let columns = ["unmoved_items", "cached_bytes", "objects"]
        let row = try await cluster.database.row(
            "SELECT unmoved_items, cached_bytes, objects FROM ashlar_inspect.space WHERE volume = $1",
            columns,
            parameter: volume.name
        )
        let numbers = columns.map { row[$0].flatMap { UInt64($0) } }
        guard let unmoved = numbers[0], let cached = numbers[1], let objects = numbers[2] else {
            throw UpError("The database knows nothing of volume \(volume.name).")
        }
        return Figures(unmovedItems: unmoved, cachedBytes: cached, liveObjects: objects)
    }

    /// Waits until the figures are as they should be.
    private func settle(_ isSettled: (Figures) async throws -> Bool) async throws -> Figures {
        let clock = ContinuousClock()
        let deadline = clock.now + Self.settleTimeout
        while true {
            let figures = try await figures()
            if try await isSettled(figures) { return figures }
            guard clock.now < deadline else {
                throw UpError(
                    "After \(Self.settleTimeout) there are \(figures.unmovedItems) unmoved blocks and "
                        + "\(figures.cachedBytes >> 20) MiB in the cache.",
                    remedy: "The agent's log tells more."
                )
            }
            try await Task.sleep(for: .milliseconds(500))
        }
    }

    // MARK: Inspection

    private func showWhereBlocksLie(_ recorder: Recorder) async throws {
        guard let psql = Command.find("psql") else {
            throw UpError("psql is not installed.", remedy: "Install it (apt-get install postgresql-client).")
        }
        let quoted = "'" + volume.name.replacingOccurrences(of: "'", with: "''") + "'"
        for statement in Self.statements(volume: quoted) {
            let dsn = cluster.postgres.dsn
            try await step(recorder, "asked PostgreSQL: \(statement)") {
                let said = try await Command(
                    path: psql,
                    arguments: ["-X", "-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-d", dsn, "-c", statement]
                ).check(timeout: .seconds(120))
                return "\n" + said.trimmingCharacters(in: .newlines)
            }
        }
    }

    /// The statements, each over the views that `docs/` describes.
    static func statements(volume quoted: String) -> [String] {
        [
            "SELECT * FROM ashlar_inspect.space WHERE volume = \(quoted)",
            "SELECT * FROM ashlar_inspect.block(\(quoted), 0)",
            "SELECT place, count(*) AS blocks FROM ashlar_inspect.blocks WHERE volume = \(quoted) GROUP BY 1 ORDER BY 1",
            "SELECT count(*) AS unmoved FROM ashlar_inspect.unmoved_queue WHERE volume = \(quoted)",
        ]
    }
}
