import AshlarTestSupport
import Foundation
import ISCSI
import NIOCore

/// An iSCSI initiator on a blocking socket, for what no well-behaved initiator sends.
final class RawInitiator {
    /// What the log calls it before it has logged in: the end of its address.
    let address: String
    /// What the log calls it afterwards.
    let name: String
    private(set) var machine: ISCSIInitiator
    private let descriptor: Int32
    private var isOpen = true
    /// The command that a test repeats until it is done.
    var pending: UInt32?
    /// How commands ended that were begun and not waited for, by their tags.
    private var outcomes: [UInt32: Outcome] = [:]
    /// Answers to task management that nobody has taken yet, by the tags of the requests.
    private var responses: [UInt32: UInt8] = [:]

    /// Connects to a portal of this machine, from an address of this machine; without the name of a target for discovery.
    ///
    /// - Parameter isid: The qualifier by which one initiator has several ports.
    init(
        port: Int,
        iqn: String?,
        name: String,
        from source: UInt32 = 0x7F00_0001,
        isid: UInt64? = nil
    ) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw ProcessFailure("no socket") }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        address.sin_addr = in_addr(s_addr: UInt32(0x7F00_0001).bigEndian)
        var own = address
        own.sin_port = 0
        own.sin_addr = in_addr(s_addr: source.bigEndian)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let (descriptor, size) = (descriptor, length)
        let bound = withUnsafePointer(to: &own) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, size) }
        }
        let status = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic in
                guard bound == 0 else { return bound }
                let connected = connect(descriptor, generic, size)
                return connected == 0 ? getsockname(descriptor, generic, &length) : connected
            }
        }
        guard status == 0 else {
            Foundation.close(descriptor)
            throw ProcessFailure("no connection to port \(port): errno \(errno)")
        }
        self.address = ":\(UInt16(bigEndian: address.sin_port))"
        self.name = "iqn.2026-01.org.ashlar.test:\(name)"
        var options = ISCSIInitiatorOptions()
        options.initiatorName = self.name
        options.targetName = iqn
        options.sessionType = iqn == nil ? .discovery : .normal
        options.isid = isid ?? options.isid
        machine = ISCSIInitiator(options)
    }

    deinit { close() }

    /// Closes the connection; with `isReset` so that the peer sees it fail.
    func close(isReset: Bool = false) {
        guard isOpen else { return }
        isOpen = false
        if isReset {
            var option = linger(l_onoff: 1, l_linger: 0)
            setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        }
        Foundation.close(descriptor)
    }

    // MARK: Bytes

    /// Sends bytes; a peer that has closed is no failure here.
    func send(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard sent > 0 else { return }
            rest = rest.dropFirst(sent)
        }
    }

    /// What has happened since the last call, at the latest after `milliseconds`; nil where the target has closed.
    func receive(milliseconds: Int32 = 5_000) -> [ISCSIInitiatorEvent]? {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&entry, 1, milliseconds) > 0 else { return [] }
        var bytes = [UInt8](repeating: 0, count: 1 << 18)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return nil }
        let (output, events) = machine.received(ByteBuffer(bytes: bytes[..<count]))
        if output.readableBytes > 0 { send(Array(output.readableBytesView)) }
        for event in events {
            switch event {
            case .completed(let result): outcomes[result.tag] = Outcome(result)
            case .taskManagement(let pdu): responses[pdu.tag] = pdu.response
            default: break
            }
        }
        return events
    }

    /// Takes what the target sends until it closes; returns whether it has done so in time, and what happened.
    ///
    /// - Parameter others: Sessions that stay, and whose pings are answered meanwhile.
    func waitForClose(
        seconds: Int,
        keeping others: [RawInitiator] = []
    ) -> (isClosed: Bool, events: [ISCSIInitiatorEvent]) {
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(seconds)
        var all: [ISCSIInitiatorEvent] = []
        while clock.now < deadline {
            guard let events = receive(milliseconds: 100) else { return (true, all) }
            all += events
            for other in others { _ = other.receive(milliseconds: 0) }
        }
        return (false, all)
    }

    // MARK: Sessions

    /// Logs in.
    func logIn() throws {
        guard let refusal = try tryLogIn() else { return }
        throw ProcessFailure("\(name): login refused with \(String(refusal.status, radix: 16))")
    }

    /// Logs in; where the target refuses that, its status and keys.
    func tryLogIn() throws -> (status: UInt16, keys: [TextKey])? {
        send(Array(machine.start().readableBytesView))
        while !machine.isLoggedIn {
            guard let events = receive(), !events.isEmpty else { throw ProcessFailure("\(name): no answer to a login") }
            for case .loginFailed(let status, let keys) in events { return (status, keys) }
        }
        return nil
    }

    /// Logs out; the target must agree, and close.
    func logOut() throws {
        send(Array(machine.logout().readableBytesView))
        let (isClosed, events) = waitForClose(seconds: 10)
        let responses = events.compactMap { if case .logout(let pdu) = $0 { pdu.response } else { nil } }
        guard isClosed, responses == [0] else { throw ProcessFailure("\(name): no logout: \(responses)") }
        close()
    }

    /// The names of the targets that the portal offers, all or the one asked for, however many PDUs they take (RFC 7143,
    /// appendix C).
    func discover(_ target: String = "All") throws -> [String] {
        var text: [UInt8] = []
        var request = machine.text(ByteBuffer(string: "SendTargets=\(target)\0"))
        let tag = request.tag
        while true {
            send(Array(request.bytes.readableBytesView))
            let (response, data) = try nextText()
            text += data.readableBytesView
            guard !response.isFinal else { break }
            request = machine.text(ByteBuffer()) { pdu in
                pdu.tag = tag
                pdu.transferTag = response.transferTag
                pdu.lun = response.lun
            }
        }
        let key = "TargetName="
        return text.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            .filter { $0.hasPrefix(key) }.map { String($0.dropFirst(key.count)) }
    }

    private func nextText() throws -> (TextResponsePDU, ByteBuffer) {
        for _ in 0..<60 {
            guard let events = receive(milliseconds: 1_000) else {
                throw ProcessFailure("\(name): the target has closed the connection")
            }
            for case .text(let response, let data) in events { return (response, data) }
        }
        throw ProcessFailure("\(name): no answer to a text request")
    }

    /// Runs a command to its end.
    func run(
        _ cdb: [UInt8],
        lun: UInt64 = 0,
        read: UInt32? = nil,
        write: [UInt8]? = nil
    ) throws -> Outcome {
        let tag = begin(cdb, lun: lun, read: read, write: write)
        try wait("no answer to a command") { outcomes[tag] != nil }
        guard let outcome = outcomes.removeValue(forKey: tag) else {
            throw ProcessFailure("\(name): no answer to a command")
        }
        return outcome
    }

    /// Sends a command and does not wait for its end; its tag.
    func begin(_ cdb: [UInt8], lun: UInt64 = 0, read: UInt32? = nil, write: [UInt8]? = nil) -> UInt32 {
        let (tag, bytes) = machine.command(cdb: cdb, lun: lun, read: read, write: write.map { ByteBuffer(bytes: $0) })
        send(Array(bytes.readableBytesView))
        return tag
    }

    /// Waits until commands that were begun have ended; in their order.
    func finish(_ tags: [UInt32]) throws -> [Outcome] {
        try wait("commands are not answered") { tags.allSatisfy { outcomes[$0] != nil } }
        return tags.compactMap { outcomes.removeValue(forKey: $0) }
    }

    /// How a command has ended that was begun; nil where that is not known.
    func outcome(_ tag: UInt32) -> Outcome? { outcomes.removeValue(forKey: tag) }

    /// Sends a task management function and does not wait for its answer; its tag.
    func beginManagement(_ function: TaskManagementFunction, lun: UInt64 = 0, of task: UInt32? = nil) -> UInt32 {
        let (tag, bytes) = machine.taskManagement(function.rawValue) { pdu in
            pdu.lun = lun
            if let task { pdu.referencedTag = task }
        }
        send(Array(bytes.readableBytesView))
        return tag
    }

    /// Runs a task management function; what the target answers.
    func manage(
        _ function: TaskManagementFunction,
        lun: UInt64 = 0,
        of task: UInt32? = nil
    ) throws -> TaskManagementResponse? {
        let tag = beginManagement(function, lun: lun, of: task)
        try wait("no answer to \(function)") { responses[tag] != nil }
        return responses.removeValue(forKey: tag).flatMap { TaskManagementResponse(rawValue: $0) }
    }

    /// Takes what the target sends until a condition holds; a breach of the protocol is a failure.
    private func wait(_ what: String, until isDone: () -> Bool) throws {
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(30)
        while !isDone() {
            guard clock.now < deadline else { throw ProcessFailure("\(name): \(what)") }
            guard let events = receive(milliseconds: 1_000) else {
                throw ProcessFailure("\(name): the target has closed the connection")
            }
            for event in events {
                switch event {
                case .violation(let text): throw ProcessFailure("\(name): the target broke the protocol: \(text)")
                case .reject: throw ProcessFailure("\(name): a command was rejected")
                default: break
                }
            }
        }
    }

    /// As ``run(_:read:write:)``, with the unit attentions that come before; returned with them.
    func runPastAttentions(
        _ cdb: [UInt8],
        read: UInt32? = nil,
        write: [UInt8]? = nil
    ) throws -> (outcome: Outcome, attentions: [Sense]) {
        var attentions: [Sense] = []
        while true {
            let outcome = try run(cdb, read: read, write: write)
            guard let sense = outcome.sense, sense.key == 6, attentions.count < 8 else { return (outcome, attentions) }
            attentions.append(sense)
        }
    }

    /// Writes and reads logical blocks of 512 bytes; both must succeed and agree.
    func writeAndRead(_ address: UInt64, fill: UInt8) throws {
        let data = [UInt8](repeating: fill, count: 512)
        let written = try runPastAttentions(Self.write16(address, 1), write: data).outcome
        let read = try runPastAttentions(Self.read16(address, 1), read: 512).outcome
        guard written.isGood, read.isGood, read.data == data else {
            throw ProcessFailure("\(name): block \(address): \(written), \(read)")
        }
    }

    // MARK: CDBs

    static func read16(_ address: UInt64, _ blocks: UInt32) -> [UInt8] { sixteen(0x88, address, blocks) }
    static func write16(_ address: UInt64, _ blocks: UInt32) -> [UInt8] { sixteen(0x8A, address, blocks) }
    /// READ CAPACITY (16).
    static let readCapacity: [UInt8] = [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]

    private static func sixteen(_ code: UInt8, _ address: UInt64, _ blocks: UInt32) -> [UInt8] {
        let (first, count) = (bigEndian(address, 8), bigEndian(UInt64(blocks), 4))
        return [code, 0] + first + count + [0, 0]
    }

    /// The last `count` bytes of a number.
    static func bigEndian(_ value: UInt64, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
    }

    /// Sense key and additional sense code with its qualifier.
    struct Sense: Hashable {
        var key: UInt8
        var code: UInt16
    }

    /// How a command ended.
    struct Outcome {
        var status: UInt8
        var sense: Sense?
        var data: [UInt8]
        /// Bytes that the CDB asked for beyond what was announced (RFC 7143, 11.4.5.1).
        var overflow: UInt32
        /// Whether the sense data have the descriptor format.
        var isInDescriptorFormat = false
        /// Offset in the CDB of the field in error, by sense data of the fixed format.
        var fieldInCDB: Int?
        /// The information field of sense data of the fixed format, where it is valid.
        var information: UInt64?

        var isGood: Bool { status == 0 }

        init(_ result: ISCSIInitiatorResult) {
            status = result.status
            data = Array(result.data.readableBytesView)
            overflow = result.residual.isOverflow ? result.residual.count : 0
            let bytes = Array(result.sense.readableBytesView)
            if bytes.count >= 14, bytes[0] & 0x7E == 0x70 {
                sense = Sense(key: bytes[2] & 0x0F, code: UInt16(bytes[12]) << 8 | UInt16(bytes[13]))
                if bytes[0] & 0x80 != 0 { information = bytes[3..<7].reduce(0) { $0 << 8 | UInt64($1) } }
                // SKSV and C/D.
                if bytes.count >= 18, bytes[15] & 0xC0 == 0xC0 { fieldInCDB = Int(bytes[16]) << 8 | Int(bytes[17]) }
            } else if bytes.count >= 8, bytes[0] & 0x7E == 0x72 {
                isInDescriptorFormat = true
                sense = Sense(key: bytes[1] & 0x0F, code: UInt16(bytes[2]) << 8 | UInt16(bytes[3]))
            }
        }
    }
}

extension TestCluster {
    /// The iSCSI name of a volume.
    func iqn(_ volume: String = "demo") async throws -> String {
        try await sql("SELECT iqn FROM volumes WHERE name = '\(volume)'")
    }

    /// A session with a volume through a target, which is counted from 1.
    func session(
        _ name: String,
        volume: String = "demo",
        target: Int = 1,
        isid: UInt64? = nil
    ) async throws -> RawInitiator {
        let initiator = try await RawInitiator(port: port + target - 1, iqn: iqn(volume), name: name, isid: isid)
        try initiator.logIn()
        return initiator
    }

    /// Runs a command of the program against this cluster.
    func ashlar(_ arguments: [String], timeout: Duration = .seconds(60)) async throws -> ProcessResult {
        try await ProcessRunner.run(TestEnvironment.program(), arguments + ["--data", data], timeout: timeout)
    }

    /// A change that must be taken.
    func change(_ body: String, volume: String = "demo") async throws {
        let answer = try await api("PATCH", "/v1/volumes/\(volume)", body)
        guard (200..<300).contains(answer.status) else { throw ProcessFailure("\(body): \(answer)") }
    }

    /// Waits until a statement answers `expected`.
    func wait(_ what: String, _ statement: String, is expected: String, timeout: Duration = .seconds(60)) async throws {
        _ = try await ProcessRunner.eventually(what, timeout: timeout) { () -> Bool? in
            try await self.sql(statement) == expected ? true : nil
        }
    }

    /// Has everything moved by the volume's policy, which then leaves alone for an hour what is written.
    func moveByAge(cachedBytesMaximum: UInt64 = 256 << 20) async throws {
        try await change(
            """
            {"policy":{"move":"age","unmovedAgeMaximumSeconds":0,"cachedBytesMaximum":\(cachedBytesMaximum)}}
            """
        )
        let state = "SELECT unmoved_items = 0 AND cached_bytes <= \(cachedBytesMaximum) FROM ashlar_inspect.space"
        try await wait("all moved, and evicted to the limit", state + " WHERE volume = 'demo'", is: "t")
        try await change(#"{"policy":{"unmovedAgeMaximumSeconds":3600}}"#)
    }

    /// Adds a key to the configuration file of a role and has `ashlar up` start it with that.
    func configure(
        _ role: String,
        _ section: String,
        _ values: [String: any Sendable],
        index: Int = 0
    ) async throws {
        let path = "\(data)/\(role)-\(index + 1)/config.json"
        let text = FileManager.default.contents(atPath: path) ?? Data()
        guard var document = try JSONSerialization.jsonObject(with: text) as? [String: Any] else {
            throw ProcessFailure("\(path) is no object")
        }
        var part = document[section] as? [String: Any] ?? [:]
        part.merge(values) { _, new in new }
        document[section] = part
        // In place: the file keeps its owner.
        try JSONSerialization.data(withJSONObject: document).write(to: URL(fileURLWithPath: path))
        try await killAndWait(role, index)
    }

    /// Resident memory of a process in bytes.
    static func residentBytes(_ pid: Int32) throws -> Int {
        let text = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let number = line.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { throw ProcessFailure("process \(pid) has no resident memory") }
        return number << 10
    }
}
