import Foundation

/// Rows in columns, for people.
struct Table {
    /// How the values of a column stand.
    enum Alignment {
        case left
        case right
    }

    private let titles: [String]
    private let alignments: [Alignment]
    private var rows: [[String]] = []

    /// A table with its titles; those columns stand right whose numbers are in `right`.
    init(_ titles: [String], right: Set<Int> = []) {
        self.titles = titles
        alignments = titles.indices.map { right.contains($0) ? .right : .left }
    }

    /// Adds a row; missing values are empty.
    mutating func add(_ row: [String]) {
        rows.append(titles.indices.map { $0 < row.count ? Self.plain(row[$0]) : "" })
    }

    /// The table, each line with its newline, no space at the ends of lines.
    var text: String {
        let all = [titles] + rows
        let widths = titles.indices.map { column in all.map { $0[column].count }.max() ?? 0 }
        return all.map { row in
            var line = ""
            for (column, value) in row.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - value.count)
                line += alignments[column] == .left ? value + padding : padding + value
                if column + 1 < row.count { line += "  " }
            }
            while line.last == " " { line.removeLast() }
            return line + "\n"
        }.joined()
    }

    /// Control characters of others' names must not reach a terminal.
    private static func plain(_ text: String) -> String {
        String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? "?" : $0 }))
    }
}

/// JSON for programs.
enum JSONText {
    static func text(_ value: some Encodable) throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return String(decoding: try encoder.encode(value), as: UTF8.self)
    }
}

/// A line on standard error that shows how far something is; nothing where nobody looks.
struct ProgressBar {
    private let isShown: Bool
    private let title: String
    private var lastLine = ""
    private let write: (String) -> Void

    /// A bar behind a title.
    init(
        _ title: String,
        isShown: Bool = StandardError.isTerminal,
        write: @escaping (String) -> Void = StandardError.write
    ) {
        self.title = title
        self.isShown = isShown
        self.write = write
    }

    /// Shows `done` of `total`; without a total only the message.
    mutating func show(done: UInt64, total: UInt64, _ message: String = "") {
        guard isShown else { return }
        let line = Self.line(title, done: done, total: total, message)
        guard line != lastLine else { return }
        write("\r" + line + "\u{1B}[K")
        lastLine = line
    }

    /// Removes the bar.
    mutating func end() {
        guard isShown, !lastLine.isEmpty else { return }
        write("\r\u{1B}[K")
        lastLine = ""
    }

    static func line(_ title: String, done: UInt64, total: UInt64, _ message: String) -> String {
        guard total > 0 else { return message.isEmpty ? title : "\(title): \(message)" }
        let width = 30
        let share = Double(min(done, total)) / Double(total)
        let full = Int(share * Double(width))
        let bar = String(repeating: "#", count: full) + String(repeating: ".", count: width - full)
        return "\(title) [\(bar)] \(Int(share * 100))%" + (message.isEmpty ? "" : "  \(message)")
    }
}
