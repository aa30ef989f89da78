import ArgumentParser
import ControlPlane
import Foundation

/// Options for the cache policy of a volume.
struct PolicyOptions: ParsableArguments {
    @Option(help: "What to move, and in which order: lru, fifo, count, bytes or age.") var move: String?
    @Option(help: "Items that may be unmoved (policy count).") var unmovedItems: UInt64?
    @Option(help: "Bytes that may be unmoved, as in 1G (policy bytes).") var unmovedBytes: String?
    @Option(help: "Seconds that an item may be unmoved (policy age).") var unmovedAge: UInt32?
    @Option(help: "Bytes of moved items that stay in the cache, as in 256M.") var cachedBytes: String?
    @Option(help: "Whether blocks read from objects are kept: never, always or second.") var readFill: String?
    @Option(help: "Objects with a lower live share in percent are compacted.") var compactBelow: UInt8?
    @Option(help: "Writes of so many bytes go straight to objects, as in 64K; or never.") var directWrite: String?
    @Option(help: "Smaller writes, from so many bytes on, go to cache and objects at once, as in 4K; or never.")
    var writeThrough: String?
    @Flag(inversion: .prefixedNo, help: "Whether reads ask the cache and the object servers at once.")
    var readBothAtOnce: Bool?

    /// What was named; nil where nothing was.
    func policy() throws -> PolicyDocument? {
        var policy = PolicyDocument()
        policy.move = move
        policy.unmovedItemsMaximum = unmovedItems
        policy.unmovedBytesMaximum = try unmovedBytes.map { try SizeText.parse($0, option: "--unmoved-bytes") }
        policy.unmovedAgeMaximumSeconds = unmovedAge
        policy.cachedBytesMaximum = try cachedBytes.map { try SizeText.parse($0, option: "--cached-bytes") }
        policy.readFill = readFill
        policy.compactBelowPercent = compactBelow
        policy.directWriteMinimumBytes = try Self.bytes(directWrite, option: "--direct-write")
        policy.writeThroughMinimumBytes = try Self.bytes(writeThrough, option: "--write-through")
        policy.readsBothAtOnce = readBothAtOnce
        return policy.isEmpty ? nil : policy
    }

    private static func bytes(_ text: String?, option: String) throws -> UInt32? {
        try text.map { $0 == "never" ? 0 : try SizeText.narrow(SizeText.parse($0, option: option), option: option) }
    }
}

/// Options for who may log in to a volume.
struct AccessOptions: ParsableArguments {
    @Option(help: "iSCSI name of an initiator that may log in; may be repeated (none: any).") var initiator: [String] =
        []

    @Option(help: "File with the CHAP credentials of initiators: a line \"NAME SECRET\" for each.") var chapFile:
        String?

    @Option(help: "File with the credential that the target proves itself with: one line \"NAME SECRET\".")
    var mutualChapFile: String?

    func credentials() throws -> [CredentialDocument]? { try chapFile.map { try Self.read($0, option: "--chap-file") } }

    func mutual() throws -> CredentialDocument? {
        guard let mutualChapFile else { return nil }
        let credentials = try Self.read(mutualChapFile, option: "--mutual-chap-file")
        guard credentials.count == 1 else {
            throw CommandFailure(
                "--mutual-chap-file \(mutualChapFile) has \(credentials.count) lines; give it one.",
                exitCode: ExitCodes.usage
            )
        }
        return credentials[0]
    }

    /// Secrets come from files, because arguments can be seen by every user of the machine.
    static func read(_ path: String, option: String) throws -> [CredentialDocument] {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw CommandFailure("\(option) \(path) cannot be read; name a readable file.", exitCode: ExitCodes.usage)
        }
        let lines = String(decoding: data, as: UTF8.self).split(whereSeparator: \.isNewline)
        return try lines.enumerated().compactMap { index, line in
            let line = line.trimmingCharacters(in: .whitespaces)
            if line.isEmpty || line.hasPrefix("#") { return nil }
            guard let space = line.firstIndex(where: { $0 == " " || $0 == "\t" }) else {
                throw CommandFailure(
                    "Line \(index + 1) of \(option) \(path) is not \"NAME SECRET\"; correct it.",
                    exitCode: ExitCodes.usage
                )
            }
            return CredentialDocument(
                name: String(line[..<space]),
                secret: line[space...].trimmingCharacters(in: .whitespaces)
            )
        }
    }
}
