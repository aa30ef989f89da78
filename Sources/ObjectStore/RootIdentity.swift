import AshlarCore
import NIOCore

/// To whom a root belongs: the content of its identity file (D33).
///
/// Lines of text, so that a person can read it: a title, then `key: value`, the last of which is the CRC-32C of the lines
/// above it.
struct RootIdentity: Sendable, Hashable {
    static let formatVersion = 1
    private static let title = "ashlar object root"

    var clusterID: String
    var serverID: ObjectServerID
    /// 16 bytes, made for this root alone.
    var uuid: [UInt8]
    /// Bits of the hash that each level of its directories takes.
    var directoryBits: Int

    func encoded() -> ByteBuffer {
        let text = """
            \(Self.title)
            format: \(Self.formatVersion)
            cluster: \(clusterID)
            server: \(serverID)
            root: \(Hexadecimal.text(uuid))
            directory-bits: \(directoryBits)

            """
        let checksum = Self.checksum(of: text)
        return ByteBuffer(string: text + "checksum: \(Hexadecimal.text(UInt64(checksum.rawValue), digits: 8))\n")
    }

    init(clusterID: String, serverID: ObjectServerID, uuid: [UInt8], directoryBits: Int) {
        self.clusterID = clusterID
        self.serverID = serverID
        self.uuid = uuid
        self.directoryBits = directoryBits
    }

    /// Reads an identity file of the root at `path`.
    ///
    /// - Throws: `.refused` with a sentence that names the remedy.
    init(decoding bytes: ByteBuffer, path: String) throws(ObjectStoreError) {
        let damaged = ObjectStoreError(
            .refused,
            "the identity file of object root \(path) is damaged: restore it from a backup, or name another directory"
        )
        let text = String(buffer: bytes)
        guard let mark = text.range(ofChecksumLine: "checksum: ") else { throw damaged }
        let lines = text[..<mark.start].split(separator: "\n", omittingEmptySubsequences: true)
        guard
            lines.first.map(String.init) == Self.title,
            Hexadecimal.number(mark.value.utf8) == UInt64(Self.checksum(of: String(text[..<mark.start])).rawValue)
        else { throw damaged }
        var values: [String: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { throw damaged }
            values[String(line[..<colon])] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        guard let format = values["format"].flatMap({ Int($0) }) else { throw damaged }
        guard format == Self.formatVersion else {
            throw ObjectStoreError(
                .refused,
                "object root \(path) has format \(format), which this version does not know: run the version that made it"
            )
        }
        let bits = ObjectStoreLimits.directoryBitsMinimum...ObjectStoreLimits.directoryBitsMaximum
        guard
            let clusterID = values["cluster"], !clusterID.isEmpty,
            let serverID = values["server"].flatMap({ Int32($0) }),
            let uuid = values["root"].flatMap({ Hexadecimal.bytes($0) }), uuid.count == 16,
            let directoryBits = values["directory-bits"].flatMap({ Int($0) }), bits.contains(directoryBits)
        else { throw damaged }
        self.init(
            clusterID: clusterID,
            serverID: ObjectServerID(serverID),
            uuid: uuid,
            directoryBits: directoryBits
        )
    }

    /// Refuses a root that belongs to somebody else (D33).
    func check(against configuration: ObjectStoreConfiguration, path: String) throws(ObjectStoreError) {
        guard clusterID == configuration.clusterID else {
            throw ObjectStoreError(
                .refused,
                "object root \(path) belongs to cluster \(clusterID), not to \(configuration.clusterID): "
                    + "name a directory of this cluster or an empty one in objects.roots"
            )
        }
        guard serverID == configuration.serverID else {
            throw ObjectStoreError(
                .refused,
                "object root \(path) belongs to object server \(serverID), not to \(configuration.serverID): "
                    + "set objects.id to \(serverID), or name another directory in objects.roots"
            )
        }
    }

    private static func checksum(of text: String) -> Checksum {
        var text = text
        return text.withUTF8 { Checksum(of: UnsafeRawBufferPointer($0)) }
    }
}

extension String {
    /// The last line, if it begins with `key`: where it begins, and what follows the key.
    fileprivate func range(ofChecksumLine key: String) -> (start: String.Index, value: Substring)? {
        guard hasSuffix("\n") else { return nil }
        let body = dropLast()
        let start = body.lastIndex(of: "\n").map { index(after: $0) } ?? startIndex
        let line = body[start...]
        guard line.hasPrefix(key) else { return nil }
        return (start, line.dropFirst(key.count))
    }
}
