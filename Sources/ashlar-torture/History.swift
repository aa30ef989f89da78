/// What the clients of a tortured cluster have seen: the operations of all of them, with the times of one clock.
struct History {
    /// What an operation does.
    enum Kind {
        case write
        case read
        /// COMPARE AND WRITE of one sector.
        case compareAndWrite
    }

    /// How an operation has ended.
    enum Status: Character {
        case good = "o"
        /// Refused or aborted with an answer; it may have taken effect before that.
        case failed = "f"
        /// Its connection broke; it may have taken effect until its end.
        case lost = "l"
        case miscompare = "m"
        /// Aborted by a function of its own session; it may have taken effect until that was answered.
        case aborted = "a"
        /// TASK ABORTED: another one's function aborted it.
        case taskAborted = "t"
        /// MEDIUM ERROR: nothing was read or written.
        case damaged = "d"
    }

    /// A task management function of a client.
    struct Function: Equatable {
        /// Its number in iSCSI.
        var code: Int
        var begin: UInt64
        /// `UInt64.max` where its answer was lost.
        var end: UInt64
        /// 0: complete.
        var response: Int

        /// Whether it aborts the commands of all sessions: CLEAR TASK SET and LOGICAL UNIT RESET.
        var isForAll: Bool { code == 4 || code == 5 }
    }

    /// One operation. Times are in microseconds.
    struct Operation {
        var client: Int
        var kind: Kind
        /// What a write writes; 0 with a read.
        var number: UInt64 = 0
        var lba: UInt64
        var sectors: Int
        var begin: UInt64
        /// `UInt64.max` where it never ended.
        var end: UInt64
        var status: Status
        /// What COMPARE AND WRITE expected.
        var expected: UInt64 = 0
        /// Where its values begin in ``History/values``, with a read.
        var firstValue = 0
        /// Where MEDIUM ERROR was.
        var badLBA: UInt64 = 0
    }

    /// A client or a line that broke off in the middle, or a read of what no write makes.
    struct Damage: Equatable {
        var client: Int
        var line: String
    }

    /// How often something was seen.
    struct Counts {
        var logins = 0
        var breaks = 0
        /// By sense key and additional sense, as the client writes them.
        var senses: [String: Int] = [:]
    }

    private(set) var operations: [Operation] = []
    /// The numbers that reads have found, sector by sector.
    private(set) var values: [UInt64] = []
    private(set) var functions: [Function] = []
    private(set) var damages: [Damage] = []
    private(set) var counts = Counts()

    /// Adds what a client has written down.
    mutating func add(client: Int, text: String) {
        var hasEnded = false
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            switch words.first {
            case "W": addWrite(client, line, words)
            case "C": addComparison(client, line, words)
            case "R": addRead(client, line, words)
            case "M": addDamagedRead(client, line, words)
            case "T": addFunction(client, line, words)
            case "L": counts.logins += 1
            case "B": counts.breaks += 1
            case "S": addSense(client, line, words)
            case "E": hasEnded = true
            default: damages.append(Damage(client: client, line: String(line)))
            }
        }
        if !hasEnded { damages.append(Damage(client: client, line: "the client did not come to its end")) }
    }

    /// How many operations of a kind have ended in a way.
    func count(_ kind: Kind, _ status: Status) -> Int {
        operations.count { $0.kind == kind && $0.status == status }
    }

    /// The blocks in which a client found MEDIUM ERROR.
    func damagedBlocks(client: Int) -> Set<UInt64> {
        Set(operations.filter { $0.client == client && $0.status == .damaged }.map { DamagedBlocks.block($0.badLBA) })
    }

    private mutating func addSense(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count == 4, let count = Int(words[3]) else {
            return damages.append(Damage(client: client, line: String(line)))
        }
        counts.senses["\(words[1])/\(words[2])", default: 0] += count
    }

    private mutating func addWrite(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count >= 7, let number = UInt64(words[1]), let lba = UInt64(words[2]), let sectors = Int(words[3]),
            let times = Self.times(words[4], words[5]), let (status, badLBA) = Self.status(words[6...])
        else { return damages.append(Damage(client: client, line: String(line))) }
        operations.append(
            Operation(
                client: client,
                kind: .write,
                number: number,
                lba: lba,
                sectors: sectors,
                begin: times.begin,
                end: times.end,
                status: status,
                badLBA: badLBA
            )
        )
    }

    private mutating func addComparison(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count >= 7, let number = UInt64(words[1]), let lba = UInt64(words[2]),
            let expected = UInt64(words[3]), let times = Self.times(words[4], words[5]),
            let (status, badLBA) = Self.status(words[6...])
        else { return damages.append(Damage(client: client, line: String(line))) }
        operations.append(
            Operation(
                client: client,
                kind: .compareAndWrite,
                number: number,
                lba: lba,
                sectors: 1,
                begin: times.begin,
                end: times.end,
                status: status,
                expected: expected,
                badLBA: badLBA
            )
        )
    }

    private mutating func addRead(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count >= 6, let lba = UInt64(words[1]), let sectors = Int(words[2]),
            let times = Self.times(words[3], words[4])
        else { return damages.append(Damage(client: client, line: String(line))) }
        let first = values.count
        for word in words[5...] {
            let parts = word.split(separator: ":")
            guard parts.count == 2, let number = UInt64(parts[0]), let count = Int(parts[1]), count > 0,
                count <= sectors
            else { return damages.append(Damage(client: client, line: String(line))) }
            values.append(contentsOf: repeatElement(number, count: count))
        }
        guard values.count - first == sectors else {
            return damages.append(Damage(client: client, line: String(line)))
        }
        var read = Self.read(client, lba, sectors, times, .good)
        read.firstValue = first
        operations.append(read)
    }

    private mutating func addDamagedRead(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count == 6, let lba = UInt64(words[1]), let sectors = Int(words[2]),
            let times = Self.times(words[3], words[4]), let badLBA = UInt64(words[5])
        else { return damages.append(Damage(client: client, line: String(line))) }
        var read = Self.read(client, lba, sectors, times, .damaged)
        read.badLBA = badLBA
        operations.append(read)
    }

    private static func read(
        _ client: Int,
        _ lba: UInt64,
        _ sectors: Int,
        _ times: (begin: UInt64, end: UInt64),
        _ status: Status
    ) -> Operation {
        Operation(
            client: client,
            kind: .read,
            lba: lba,
            sectors: sectors,
            begin: times.begin,
            end: times.end,
            status: status
        )
    }

    private mutating func addFunction(_ client: Int, _ line: Substring, _ words: [Substring]) {
        guard words.count == 5, let code = Int(words[1]), let times = Self.times(words[2], words[3]),
            let response = Int(words[4])
        else { return damages.append(Damage(client: client, line: String(line))) }
        functions.append(Function(code: code, begin: times.begin, end: times.end, response: response))
    }

    /// Begin and end; an end of 0 never came.
    private static func times(_ begin: Substring, _ end: Substring) -> (begin: UInt64, end: UInt64)? {
        guard let begin = UInt64(begin), let end = UInt64(end), end == 0 || end >= begin else { return nil }
        return (begin, end == 0 ? .max : end)
    }

    /// How an operation ended; behind MEDIUM ERROR stands where it was, and nothing behind anything else.
    private static func status(_ words: ArraySlice<Substring>) -> (status: Status, badLBA: UInt64)? {
        guard let word = words.first, word.count == 1, let status = Status(rawValue: word[word.startIndex]) else {
            return nil
        }
        guard status == .damaged else { return words.count == 1 ? (status, 0) : nil }
        guard words.count == 2, let last = words.last, let badLBA = UInt64(last) else { return nil }
        return (status, badLBA)
    }
}
