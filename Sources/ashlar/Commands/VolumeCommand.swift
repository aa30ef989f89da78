import ArgumentParser
import ControlPlane

/// `ashlar volume`.
struct VolumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "volume",
        abstract: "Create, list, show, change, resize and delete volumes.",
        subcommands: [
            VolumeCreateCommand.self, VolumeListCommand.self, VolumeShowCommand.self, VolumeSetCommand.self,
            VolumeResizeCommand.self, VolumeDeleteCommand.self,
        ]
    )
}

/// `ashlar volume create NAME --size SIZE`.
struct VolumeCreateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "create", abstract: "Create a volume.")

    @Argument(help: "1 to 64 of a-z, 0-9, hyphen and dot.") var name: String
    @Option(help: "Size, as in 512M, 10G or 64T.") var size: String
    @Option(help: "Data block: a power of two from 512 to 64K (4K).") var blockSize: String?
    @Option(help: "SCSI logical block: 512 or 4096 (512).") var logicalBlockSize: String?
    @Option(help: "iSCSI name (iqn.2026-01.io.ashlar:NAME).") var iqn: String?
    @Flag(help: "Refuse writes.") var readOnly = false
    @OptionGroup(title: "Cache policy") var policy: PolicyOptions
    @OptionGroup(title: "Access") var access: AccessOptions
    @OptionGroup(title: "Control role") var client: ClientOptions

    func request() throws -> CreateVolumeRequest {
        var request = CreateVolumeRequest(name: name, sizeBytes: try SizeText.parse(size, option: "--size"))
        request.blockSizeBytes = try blockSize.map {
            try SizeText.narrow(SizeText.parse($0, option: "--block-size"), option: "--block-size")
        }
        request.logicalBlockSizeBytes = try logicalBlockSize.map {
            try SizeText.narrow(SizeText.parse($0, option: "--logical-block-size"), option: "--logical-block-size")
        }
        request.iqn = iqn
        request.readOnly = readOnly ? true : nil
        request.policy = try policy.policy()
        request.initiators = access.initiator.isEmpty ? nil : access.initiator
        request.credentials = try access.credentials()
        request.mutual = try access.mutual()
        return request
    }

    func run() async throws {
        try await client.run("volume create") { api in
            let volume = try await api.createVolume(try request())
            try VolumeText.print(volume, json: client.json)
        }
    }
}

/// `ashlar volume list`.
struct VolumeListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the volumes.")

    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("volume list") { api in
            var volumes: [VolumeDocument] = []
            var after: String?
            repeat {
                let page = try await api.volumes(after: after)
                volumes += page.volumes
                after = page.next
            } while after != nil
            print(client.json ? try JSONText.text(volumes) + "\n" : VolumeText.table(volumes), terminator: "")
        }
    }
}

/// `ashlar volume show NAME`.
struct VolumeShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show a volume and what it takes up."
    )

    @Argument(help: "Name of the volume.") var name: String
    @OptionGroup(title: "Control role") var client: ClientOptions

    private struct Shown: Encodable {
        var volume: VolumeDocument
        var space: SpaceDocument
    }

    func run() async throws {
        try await client.run("volume show") { api in
            let shown = Shown(volume: try await api.volume(name), space: try await api.space(name))
            guard !client.json else { return print(try JSONText.text(shown)) }
            print(VolumeText.details(shown.volume, shown.space), terminator: "")
        }
    }
}

/// `ashlar volume set NAME …`.
struct VolumeSetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set",
        abstract: "Change a volume; what is not named stays as it is."
    )

    @Argument(help: "Name of the volume.") var name: String
    @Flag(inversion: .prefixedNo, help: "Refuse writes.") var readOnly: Bool?
    @OptionGroup(title: "Cache policy") var policy: PolicyOptions
    @OptionGroup(title: "Access") var access: AccessOptions
    @Flag(help: "Let every initiator log in.") var anyInitiator = false
    @Flag(help: "Remove the credentials of initiators.") var noChap = false
    @Flag(help: "Remove the credential of the target.") var noMutualChap = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func validate() throws {
        if anyInitiator, !access.initiator.isEmpty {
            throw ValidationError("--any-initiator and --initiator exclude each other; give one of them.")
        }
        if noChap, access.chapFile != nil {
            throw ValidationError("--no-chap and --chap-file exclude each other; give one of them.")
        }
        if noMutualChap, access.mutualChapFile != nil {
            throw ValidationError("--no-mutual-chap and --mutual-chap-file exclude each other; give one of them.")
        }
    }

    func request() throws -> ChangeVolumeRequest {
        var request = ChangeVolumeRequest()
        request.readOnly = readOnly
        request.policy = try policy.policy()
        request.initiators = anyInitiator ? [] : access.initiator.isEmpty ? nil : access.initiator
        request.credentials = noChap ? [] : try access.credentials()
        request.mutual = noMutualChap ? CredentialDocument(name: "", secret: "") : try access.mutual()
        return request
    }

    func run() async throws {
        try await client.run("volume set") { api in
            let volume = try await api.changeVolume(name, try request())
            try VolumeText.print(volume, json: client.json)
        }
    }
}

/// `ashlar volume resize NAME SIZE`.
struct VolumeResizeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "resize", abstract: "Change the size of a volume.")

    @Argument(help: "Name of the volume.") var name: String
    @Argument(help: "New size, as in 20G.") var size: String
    @Flag(help: "Shrink although what lies behind the new end is lost.") var force = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("volume resize") { api in
            let request = ResizeVolumeRequest(sizeBytes: try SizeText.parse(size, option: "SIZE"), force: force)
            try VolumeText.print(try await api.resizeVolume(name, request), json: client.json)
        }
    }
}

/// `ashlar volume delete NAME`.
struct VolumeDeleteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "delete",
        abstract: "Delete a volume and everything in it."
    )

    @Argument(help: "Name of the volume.") var name: String
    @Flag(help: "Delete although initiators are logged in.") var force = false
    @Flag(help: "Do not wait until it is gone.") var noWait = false
    @OptionGroup(title: "Control role") var client: ClientOptions

    func run() async throws {
        try await client.run("volume delete") { api in
            let reference = try await api.deleteVolume(name, force: force)
            if noWait {
                print(
                    client.json ? try JSONText.text(reference) : "Volume \(name) is being deleted (\(reference.job))."
                )
                return
            }
            let job = try await client.wait(for: reference.job, title: "Deleting \(name)", api)
            print(client.json ? try JSONText.text(job) : "Volume \(name) is deleted.")
        }
    }
}

/// Volumes as text.
enum VolumeText {
    static func print(_ volume: VolumeDocument, json: Bool) throws {
        Swift.print(json ? try JSONText.text(volume) + "\n" : table([volume]), terminator: "")
        if let warning = volume.warning { StandardError.write("warning: \(warning)\n") }
    }

    static func table(_ volumes: [VolumeDocument]) -> String {
        var table = Table(["NAME", "SIZE", "BLOCK", "STATE", "ACCESS", "IQN"], right: [1, 2])
        for volume in volumes {
            let state = volume.state == "active" ? (volume.readOnly ? "read-only" : "read-write") : volume.state
            table.add([
                volume.name, SizeText.text(volume.sizeBytes), SizeText.text(UInt64(volume.blockSizeBytes)), state,
                access(volume), volume.iqn,
            ])
        }
        return table.text
    }

    private static func access(_ volume: VolumeDocument) -> String {
        let who = volume.initiators.isEmpty ? "any" : "\(volume.initiators.count) listed"
        return who + (volume.credentials.isEmpty ? "" : ", CHAP") + (volume.mutual == nil ? "" : " mutual")
    }

    static func details(_ volume: VolumeDocument, _ space: SpaceDocument) -> String {
        let policy = volume.policy
        var table = Table(["volume", volume.name])
        table.add(["iqn", volume.iqn])
        table.add(["uuid", volume.uuid])
        table.add(["size", "\(SizeText.text(volume.sizeBytes)) (\(volume.sizeBytes) bytes)"])
        table.add(["blocks", "\(volume.blockSizeBytes) bytes, logical \(volume.logicalBlockSizeBytes)"])
        table.add(["state", volume.state + (volume.readOnly ? ", read-only" : "")])
        table.add(["created", volume.createdAt])
        table.add(["revision", "\(volume.revision)"])
        table.add(["initiators", volume.initiators.isEmpty ? "any" : volume.initiators.joined(separator: ", ")])
        table.add(["CHAP names", volume.credentials.isEmpty ? "none" : volume.credentials.joined(separator: ", ")])
        table.add(["mutual CHAP", volume.mutual ?? "none"])
        table.add(["move policy", policy.move ?? ""])
        table.add(["unmoved items at most", policy.unmovedItemsMaximum.map { "\($0)" } ?? ""])
        table.add(["unmoved bytes at most", policy.unmovedBytesMaximum.map(SizeText.text) ?? ""])
        table.add(["unmoved for at most", policy.unmovedAgeMaximumSeconds.map { "\($0) s" } ?? ""])
        table.add(["cached bytes at most", policy.cachedBytesMaximum.map(SizeText.text) ?? ""])
        table.add(["read fill", policy.readFill ?? ""])
        table.add(["compact below", policy.compactBelowPercent.map { "\($0) %" } ?? ""])
        table.add([
            "direct writes from",
            policy.directWriteMinimumBytes.map { $0 == 0 ? "never" : SizeText.text(UInt64($0)) } ?? "",
        ])
        table.add([
            "written through from",
            policy.writeThroughMinimumBytes.map { $0 == 0 ? "never" : SizeText.text(UInt64($0)) } ?? "",
        ])
        table.add(["reads ask", policy.readsBothAtOnce == true ? "cache and objects at once" : "the cache first"])
        table.add(["cached", "\(space.items) items, \(SizeText.text(space.cachedBytes))"])
        let age = space.oldestUnmovedSeconds.map { ", oldest \(Int($0)) s" } ?? ""
        table.add(["unmoved", "\(space.unmovedItems) items, \(SizeText.text(space.unmovedBytes))\(age)"])
        table.add(["mapped", "\(space.extents) extents, \(SizeText.text(space.mappedBytes))"])
        table.add(["objects", "\(space.objects), \(SizeText.text(space.objectBytes))"])
        return table.text
    }
}
