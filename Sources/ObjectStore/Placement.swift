import AshlarCore
import Glibc

/// Where an object lies: which root, and which directory of it.
enum Placement {
    /// A bijective hash (the finalizer of SplitMix64): the order of listings, and the source of all sharding.
    static func hash(_ value: UInt64) -> UInt64 {
        var mixed = value &+ 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    static func hash(_ id: ObjectID) -> UInt64 { hash(id.rawValue) }

    /// How much a root wants an object: the highest of all roots gets it (weighted rendezvous hashing), so that a new root
    /// takes only its own share from the others and a change of weights moves as little as possible.
    static func score(_ id: ObjectID, rootKey: UInt64, weight: UInt32) -> Double {
        let mixed = hash(hash(id) ^ rootKey)
        // From 53 bits a number that is neither 0 nor 1, so that the logarithm is finite and negative.
        let fraction = (Double(mixed >> 11) + 0.5) / Double(1 << 53)
        return -Double(weight) / log(fraction)
    }

    /// The number by which a root takes part in the hashing.
    static func rootKey(uuid: [UInt8]) -> UInt64 {
        uuid.reduce(0) { hash($0 ^ UInt64($1)) }
    }
}

/// The directories and names of one root.
struct RootLayout: Sendable, Hashable {
    static let identityName = "identity"
    static let identityTemporaryName = "identity.temporary"
    static let clockName = "clock"
    static let clockTemporaryName = "clock.temporary"
    static let objectsName = "objects"
    static let objectSuffix = ".object"
    static let temporarySuffix = ".temporary"
    private static let idDigits = 16

    /// The root's directory.
    let root: String
    /// Bits of the hash that each of the two levels takes.
    let bits: Int

    var identity: String { "\(root)/\(Self.identityName)" }
    var identityTemporary: String { "\(root)/\(Self.identityTemporaryName)" }
    var clock: String { "\(root)/\(Self.clockName)" }
    var clockTemporary: String { "\(root)/\(Self.clockTemporaryName)" }
    var objects: String { "\(root)/\(Self.objectsName)" }
    /// Directories of one level.
    var fanout: Int { 1 << bits }
    var shardCount: Int { 1 << (2 * bits) }

    func shard(of id: ObjectID) -> Int {
        Int(Placement.hash(id) >> UInt64(64 - 2 * bits))
    }

    func outerDirectory(_ number: Int) -> String { "\(objects)/\(Hexadecimal.text(UInt64(number), digits: 2))" }

    func directory(shard: Int) -> String {
        "\(outerDirectory(shard >> bits))/\(Hexadecimal.text(UInt64(shard & (fanout - 1)), digits: 2))"
    }

    func directory(of id: ObjectID) -> String { directory(shard: shard(of: id)) }

    func path(of id: ObjectID) -> String {
        "\(directory(of: id))/\(Hexadecimal.text(id.rawValue, digits: Self.idDigits))\(Self.objectSuffix)"
    }

    func temporaryPath(of id: ObjectID, number: UInt64) -> String {
        "\(directory(of: id))/\(Hexadecimal.text(id.rawValue, digits: Self.idDigits)).\(number)\(Self.temporarySuffix)"
    }

    /// The object that a file name stands for; nil for any other name.
    static func objectID(ofName name: String) -> ObjectID? {
        guard name.utf8.count == idDigits + objectSuffix.utf8.count, name.hasSuffix(objectSuffix) else { return nil }
        return Hexadecimal.number(name.utf8.prefix(idDigits)).map { ObjectID($0) }
    }
}

/// Numbers as lower-case hexadecimal digits, in one form each.
enum Hexadecimal {
    private static let digits = Array("0123456789abcdef".utf8)

    static func text(_ value: UInt64, digits count: Int) -> String {
        let bytes = (0..<count).map { digits[Int(value >> UInt64(4 * (count - 1 - $0)) & 0xF)] }
        return String(decoding: bytes, as: UTF8.self)
    }

    static func text(_ bytes: [UInt8]) -> String {
        bytes.map { text(UInt64($0), digits: 2) }.joined()
    }

    /// At most 16 digits; nil for anything else, upper case included.
    static func number(_ text: some Collection<UInt8>) -> UInt64? {
        guard !text.isEmpty, text.count <= 16 else { return nil }
        var value: UInt64 = 0
        for byte in text {
            guard let digit = digits.firstIndex(of: byte) else { return nil }
            value = value << 4 | UInt64(digit)
        }
        return value
    }

    static func bytes(_ text: String) -> [UInt8]? {
        let characters = Array(text.utf8)
        guard characters.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        for start in stride(from: 0, to: characters.count, by: 2) {
            guard let value = number(characters[start..<start + 2]) else { return nil }
            bytes.append(UInt8(value))
        }
        return bytes
    }
}
