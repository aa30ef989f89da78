import CLinux
public import Failpoints
import Logging
import NIOConcurrencyHelpers
public import ObjectStore

/// A disk in memory that forgets what was not synced, and fails when it is told to.
///
/// Contents of files and names in directories have two states each: what the running system sees and what is durable. Syncing
/// makes the second equal to the first. A crash keeps, of each difference, the one or the other at random: names one by one,
/// of contents also any beginning. So every order of write-back that a real disk may choose can come up.
public final class ModelFileSystem: FileSystem {
    /// What was asked of the disk.
    public struct Call: Sendable, Equatable {
        /// The sorts of calls.
        public enum Kind: String, Sendable, CaseIterable {
            case createDirectory, openDirectory, createFile, openFile, size, read, write, syncFile, syncDirectory
            case close, link, rename, unlink, names, lock, failpoint
        }

        /// The sort.
        public let kind: Kind
        /// What it is about.
        public let path: String
        /// The file, where it is about an open one.
        public let descriptor: Int32?
        /// The point that was reached.
        public var failpoint: Failpoint?
    }

    private struct Node: Sendable {
        var isDirectory: Bool
        var content: [UInt8] = []
        var durableContent: [UInt8] = []
        var names: [String: Int] = [:]
        var durableNames: [String: Int] = [:]
    }

    private struct Handle: Sendable {
        var node: Int
        var path: String
    }

    private struct State: Sendable {
        var nodes: [Node] = [Node(isDirectory: true)]
        var handles: [Int32: Handle] = [:]
        var nextDescriptor: Int32 = 100
        var locks: [Int: Int32] = [:]
        var calls: [Call] = []
        var isCrashed = false
        var fault: (@Sendable (Call, Int) -> Int32?)?
        var random: UInt64 = 1
    }

    /// The errno by which a fault says that the machine stops here.
    public static let crash: Int32 = -1
    /// The errno of a full disk.
    public static let noSpace = ENOSPC
    /// What every call says once the machine has stopped.
    public static let stopped = ObjectStoreError(.inputOutput, "the machine has stopped", systemError: crash)
    private let state = NIOLockedValueBox(State())

    /// A disk with empty directories of these names at its top.
    public init(directories: [String] = ["disk"]) {
        state.withLockedValue { state in
            for name in directories {
                state.nodes.append(Node(isDirectory: true))
                state.nodes[0].names[name] = state.nodes.count - 1
            }
            state.nodes[0].durableNames = state.nodes[0].names
        }
    }

    // MARK: For tests

    /// Opens the roots of an object server on this disk, without a log.
    package func open(_ configuration: ObjectStoreConfiguration) throws(ObjectStoreError) -> ObjectFiles {
        let silent = Logger(label: "model", factory: { _ in SwiftLogNoOpLogHandler() })
        return try ObjectFiles(configuration: configuration, fileSystem: self, logger: silent)
    }

    /// Asked before each call, with the number of calls before it: an errno to fail with, `crash`, or nil.
    public func setFault(_ fault: (@Sendable (Call, Int) -> Int32?)?) {
        state.withLockedValue { $0.fault = fault }
    }

    /// Fails the calls of one kind whose path has that ending.
    public func fail(_ kind: Call.Kind, _ number: Int32, where suffix: String = "") {
        setFault { call, _ in call.kind == kind && call.path.hasSuffix(suffix) ? number : nil }
    }

    /// All calls since the process was started, or they were forgotten.
    public var calls: [Call] { state.withLockedValue { $0.calls } }

    /// Whether the machine has stopped.
    public var isCrashed: Bool { state.withLockedValue { $0.isCrashed } }

    /// Forgets the calls.
    public func forgetCalls() { state.withLockedValue { $0.calls = [] } }

    /// The process ends: descriptors and locks are gone, nothing else.
    public func restartProcess() {
        state.withLockedValue { state in
            state.handles = [:]
            state.locks = [:]
            state.isCrashed = false
            state.fault = nil
            state.calls = []
        }
    }

    /// The machine ends: of what was not synced any part may be lost.
    public func restartMachine(seed: UInt64) {
        restartProcess()
        state.withLockedValue { state in
            var generator = SeededGenerator(seed: seed)
            for index in state.nodes.indices {
                var node = state.nodes[index]
                for name in Set(node.names.keys).union(node.durableNames.keys).sorted()
                where node.names[name] != node.durableNames[name] && Bool.random(using: &generator) {
                    node.durableNames[name] = node.names[name]
                }
                if node.content != node.durableContent, Bool.random(using: &generator) {
                    let kept = Int.random(in: 0...node.content.count, using: &generator)
                    node.durableContent = Array(node.content.prefix(kept))
                }
                node.names = node.durableNames
                node.content = node.durableContent
                state.nodes[index] = node
            }
        }
    }

    /// All paths of files.
    public func files() -> [String] {
        state.withLockedValue { state in
            var found: [String] = []
            var waiting = [(0, "")]
            while let (node, path) = waiting.popLast() {
                for (name, child) in state.nodes[node].names {
                    if state.nodes[child].isDirectory {
                        waiting.append((child, "\(path)/\(name)"))
                    } else {
                        found.append("\(path)/\(name)")
                    }
                }
            }
            return found.sorted()
        }
    }

    /// Changes a file behind the store's back, durably.
    public func change(_ path: String, _ body: (inout [UInt8]) -> Void) {
        state.withLockedValue { state in
            guard let node = Self.node(path, in: state) else { return }
            body(&state.nodes[node].content)
            state.nodes[node].durableContent = state.nodes[node].content
        }
    }

    // MARK: The disk

    private static func node(_ path: String, in state: State) -> Int? {
        var trail = [0]
        for part in path.split(separator: "/") {
            if part == ".." {
                trail.removeLast()
                if trail.isEmpty { return nil }
                continue
            }
            guard let last = trail.last, let next = state.nodes[last].names[String(part)] else { return nil }
            trail.append(next)
        }
        return trail.last
    }

    private static func parent(_ path: String, in state: State) -> (node: Int, name: String)? {
        guard let slash = path.lastIndex(of: "/") else { return nil }
        let node = node(String(path[..<slash]), in: state)
        return node.map { ($0, String(path[path.index(after: slash)...])) }
    }

    /// Runs one call: records it, fails it where a fault says so, else does it.
    private func call<Value>(
        _ kind: Call.Kind,
        _ path: String,
        descriptor: OpenFile? = nil,
        failpoint: Failpoint? = nil,
        _ body: (inout State, String) -> Result<Value, ObjectStoreError>
    ) throws(ObjectStoreError) -> Value {
        let result: Result<Value, ObjectStoreError> = state.withLockedValue { state in
            guard !state.isCrashed else { return .failure(Self.stopped) }
            let name = descriptor.flatMap { state.handles[$0.rawValue]?.path } ?? path
            let call = Call(kind: kind, path: name, descriptor: descriptor?.rawValue, failpoint: failpoint)
            let fault = state.fault?(call, state.calls.count)
            state.calls.append(call)
            if fault == Self.crash {
                state.isCrashed = true
                return .failure(Self.stopped)
            }
            if let fault { return .failure(.system(fault, kind.rawValue, name)) }
            return body(&state, name)
        }
        return try result.get()
    }

    private static func open(_ node: Int, _ path: String, _ state: inout State) -> OpenFile {
        state.nextDescriptor += 1
        state.handles[state.nextDescriptor] = Handle(node: node, path: path)
        return OpenFile(state.nextDescriptor)
    }

    private static func missing(_ path: String) -> ObjectStoreError { .system(ENOENT, "finding", path) }

    /// See ``FileSystem``.
    public func createDirectory(_ path: String) throws(ObjectStoreError) -> Bool {
        try call(.createDirectory, path) { state, path in
            guard let (parent, name) = Self.parent(path, in: state) else { return .failure(Self.missing(path)) }
            guard state.nodes[parent].names[name] == nil else { return .success(false) }
            state.nodes.append(Node(isDirectory: true))
            state.nodes[parent].names[name] = state.nodes.count - 1
            return .success(true)
        }
    }

    /// See ``FileSystem``.
    public func openDirectory(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try call(.openDirectory, path) { state, path in
            guard let node = Self.node(path, in: state) else { return .failure(Self.missing(path)) }
            guard state.nodes[node].isDirectory else { return .failure(.system(ENOTDIR, "opening", path)) }
            return .success(Self.open(node, path, &state))
        }
    }

    /// See ``FileSystem``.
    public func createFile(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try call(.createFile, path) { state, path in
            guard let (parent, name) = Self.parent(path, in: state) else { return .failure(Self.missing(path)) }
            guard state.nodes[parent].names[name] == nil else { return .failure(.system(EEXIST, "creating", path)) }
            state.nodes.append(Node(isDirectory: false))
            state.nodes[parent].names[name] = state.nodes.count - 1
            return .success(Self.open(state.nodes.count - 1, path, &state))
        }
    }

    /// See ``FileSystem``.
    public func openFile(_ path: String) throws(ObjectStoreError) -> OpenFile {
        try call(.openFile, path) { state, path in
            guard let node = Self.node(path, in: state) else { return .failure(Self.missing(path)) }
            return .success(Self.open(node, path, &state))
        }
    }

    /// See ``FileSystem``.
    public func byteCount(of file: OpenFile) throws(ObjectStoreError) -> UInt64 {
        try call(.size, "", descriptor: file) { state, _ in
            guard let handle = state.handles[file.rawValue] else { return .failure(Self.stopped) }
            return .success(UInt64(state.nodes[handle.node].content.count))
        }
    }

    /// See ``FileSystem``.
    public func byteCount(at path: String) throws(ObjectStoreError) -> UInt64? {
        try call(.size, path) { state, path in
            .success(Self.node(path, in: state).map { UInt64(state.nodes[$0].content.count) })
        }
    }

    /// Gives at most 700 bytes at once, as a call may.
    public func read(
        _ file: OpenFile,
        into bytes: UnsafeMutableRawBufferPointer,
        at offset: UInt64
    ) throws(ObjectStoreError) -> Int {
        let part: [UInt8] = try call(.read, "", descriptor: file) { state, _ in
            guard let handle = state.handles[file.rawValue] else { return .failure(Self.stopped) }
            return .success(
                Array(state.nodes[handle.node].content.dropFirst(Int(offset)).prefix(min(bytes.count, 700)))
            )
        }
        bytes.copyBytes(from: part)
        return part.count
    }

    /// Takes at most 900 bytes at once, as a call may.
    public func write(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        let part = Array(bytes.prefix(900))
        return try call(.write, "", descriptor: file) { state, _ in
            guard let handle = state.handles[file.rawValue] else { return .failure(Self.stopped) }
            state.nodes[handle.node].content += part
            return .success(part.count)
        }
    }

    /// See ``FileSystem``: a model has no page cache.
    public func writeUncached(_ file: OpenFile, _ bytes: UnsafeRawBufferPointer) throws(ObjectStoreError) -> Int {
        try write(file, bytes)
    }

    /// See ``FileSystem``.
    public func syncFile(_ file: OpenFile) throws(ObjectStoreError) {
        try call(.syncFile, "", descriptor: file) { state, _ -> Result<Void, ObjectStoreError> in
            guard let handle = state.handles[file.rawValue] else { return .failure(Self.stopped) }
            state.nodes[handle.node].durableContent = state.nodes[handle.node].content
            return .success(())
        }
    }

    /// See ``FileSystem``.
    public func syncDirectory(_ directory: OpenFile) throws(ObjectStoreError) {
        try call(.syncDirectory, "", descriptor: directory) { state, _ -> Result<Void, ObjectStoreError> in
            guard let handle = state.handles[directory.rawValue] else { return .failure(Self.stopped) }
            state.nodes[handle.node].durableNames = state.nodes[handle.node].names
            return .success(())
        }
    }

    /// See ``FileSystem``.
    public func dropCached(_ file: OpenFile) {}

    /// See ``FileSystem``.
    public func close(_ file: OpenFile) throws(ObjectStoreError) {
        try call(.close, "", descriptor: file) { state, _ -> Result<Void, ObjectStoreError> in
            state.handles[file.rawValue] = nil
            return .success(())
        }
    }

    /// See ``FileSystem``.
    public func discard(_ file: OpenFile) {
        state.withLockedValue { state in
            if let handle = state.handles.removeValue(forKey: file.rawValue), state.locks[handle.node] == file.rawValue
            {
                state.locks[handle.node] = nil
            }
        }
    }

    /// Descriptors that are open.
    public var openCount: Int { state.withLockedValue { $0.handles.count } }

    /// See ``FileSystem``.
    public func link(_ path: String, as name: String) throws(ObjectStoreError) -> Bool {
        try call(.link, name) { state, name in
            guard let node = Self.node(path, in: state), let (parent, last) = Self.parent(name, in: state) else {
                return .failure(Self.missing(path))
            }
            guard state.nodes[parent].names[last] == nil else { return .success(false) }
            state.nodes[parent].names[last] = node
            return .success(true)
        }
    }

    /// See ``FileSystem``.
    public func rename(_ path: String, over name: String) throws(ObjectStoreError) {
        try call(.rename, name) { state, name -> Result<Void, ObjectStoreError> in
            guard
                let node = Self.node(path, in: state), let (from, old) = Self.parent(path, in: state),
                let (to, new) = Self.parent(name, in: state)
            else { return .failure(Self.missing(path)) }
            state.nodes[from].names[old] = nil
            state.nodes[to].names[new] = node
            return .success(())
        }
    }

    /// See ``FileSystem``.
    public func unlink(_ path: String) throws(ObjectStoreError) -> Bool {
        try call(.unlink, path) { state, path in
            guard let (parent, name) = Self.parent(path, in: state) else { return .failure(Self.missing(path)) }
            return .success(state.nodes[parent].names.removeValue(forKey: name) != nil)
        }
    }

    /// See ``FileSystem``.
    public func names(in path: String) throws(ObjectStoreError) -> [String] {
        try call(.names, path) { state, path in
            guard let node = Self.node(path, in: state) else { return .failure(Self.missing(path)) }
            return .success(state.nodes[node].names.keys.sorted())
        }
    }

    /// See ``FileSystem``.
    public func lock(_ directory: OpenFile) throws(ObjectStoreError) -> Bool {
        try call(.lock, "", descriptor: directory) { state, _ in
            guard let handle = state.handles[directory.rawValue] else { return .failure(Self.stopped) }
            guard state.locks[handle.node] == nil else { return .success(false) }
            state.locks[handle.node] = directory.rawValue
            return .success(true)
        }
    }

    /// See ``FileSystem``.
    public func space(at path: String) throws(ObjectStoreError) -> FileSystemSpace {
        FileSystemSpace(freeBytes: 1_000, totalBytes: 2_000)
    }

    /// See ``FileSystem``.
    public func randomBytes(count: Int) -> [UInt8] {
        state.withLockedValue { state in
            state.random += 1
            var generator = SeededGenerator(seed: state.random)
            return (0..<count).map { _ in UInt8.random(in: 0...255, using: &generator) }
        }
    }

    /// See ``FileSystem``.
    public func reached(_ failpoint: Failpoint) throws(ObjectStoreError) {
        try call(.failpoint, failpoint.rawValue, failpoint: failpoint) { _, _ -> Result<Void, ObjectStoreError> in
            .success(())
        }
    }
}
