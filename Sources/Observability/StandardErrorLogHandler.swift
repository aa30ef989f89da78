import Glibc
public import Logging

/// The beginning of logging in a process.
public enum LogBootstrap {
    /// Sends every log of the process to standard error, one line a message. To be called once, before the first logger
    /// is made.
    public static func start(level: Logger.Level) {
        LoggingSystem.bootstrap { label in
            var handler = StandardErrorLogHandler(label: label)
            handler.logLevel = level
            return handler
        }
    }
}

/// Writes messages as lines: time, level, label, message, then the fields as `key=value`.
///
/// A line is written with one system call, so that lines of several threads never mix. Control characters are escaped, so
/// that no peer can forge a line; the values of fields whose names speak of secrets are hidden.
public struct StandardErrorLogHandler: LogHandler {
    /// Fields of every message of this logger.
    public var metadata: Logger.Metadata = [:]
    /// Fields that depend on the task.
    public var metadataProvider: Logger.MetadataProvider?
    /// Messages below this are not written.
    public var logLevel: Logger.Level = .info
    private let label: String
    private let write: @Sendable (String) -> Void

    /// A handler for the loggers of `label`.
    public init(label: String) {
        self.init(label: label) { StandardErrorLogHandler.writeToStandardError($0) }
    }

    /// A handler that hands its lines, each with its newline, to `write`, on the thread that logs.
    public init(label: String, write: @escaping @Sendable (String) -> Void) {
        self.label = label
        self.write = write
    }

    /// One field of every message.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes a message as one line.
    public func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() { fields.merge(provided) { _, new in new } }
        if let own = event.metadata { fields.merge(own) { _, new in new } }
        if let error = event.error { fields["error"] = .string("\(error)") }
        write(
            LogLine.text(
                time: LogLine.now(),
                level: event.level,
                label: label,
                message: event.message.description,
                fields: fields
            )
        )
    }

    private static func writeToStandardError(_ line: String) {
        var line = line
        line.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while let base = rest.baseAddress, !rest.isEmpty {
                let written = Glibc.write(STDERR_FILENO, base, rest.count)
                if written < 0 {
                    if errno == EINTR { continue }
                    return  // There is nowhere left to say so.
                }
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            }
        }
    }
}

/// The format of a log line.
enum LogLine {
    /// Parts of field names whose values are never shown.
    private static let secretParts = ["secret", "password", "token", "passphrase", "private"]

    /// A line with its newline.
    static func text(
        time: String,
        level: Logger.Level,
        label: String,
        message: String,
        fields: Logger.Metadata
    ) -> String {
        var line = "\(time) \(level.rawValue) \(label) \(escaped(message))"
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) {
            line += " \(escaped(key))=\(isSecret(key) ? "<hidden>" : quoted("\(value)"))"
        }
        if line.utf8.count > ObservabilityLimits.logLineMaximumBytes {
            line = String(decoding: line.utf8.prefix(ObservabilityLimits.logLineMaximumBytes), as: UTF8.self) + "…"
        }
        return line + "\n"
    }

    /// The time of day in UTC, as in RFC 3339, to the millisecond.
    static func now() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return text(seconds: time.tv_sec, milliseconds: time.tv_nsec / 1_000_000)
    }

    static func text(seconds: Int, milliseconds: Int) -> String {
        var seconds = time_t(seconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let date = "\(parts.tm_year + 1_900)-\(pad(parts.tm_mon + 1))-\(pad(parts.tm_mday))"
        let fraction = String(milliseconds + 1_000).dropFirst()
        return "\(date)T\(pad(parts.tm_hour)):\(pad(parts.tm_min)):\(pad(parts.tm_sec)).\(fraction)Z"
    }

    private static func pad(_ number: Int32) -> String {
        number < 10 ? "0\(number)" : "\(number)"
    }

    private static func isSecret(_ key: String) -> Bool {
        let key = key.lowercased()
        return secretParts.contains { key.contains($0) }
    }

    /// Control characters as escapes, so that a message is one line and changes no terminal.
    private static func escaped(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if isControl(scalar) {
                result += "\\u{" + String(scalar.value, radix: 16) + "}"
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || scalar.value == 0x2028 || scalar.value == 0x2029
    }

    private static func quoted(_ text: String) -> String {
        let text = escaped(text)
        guard text.isEmpty || text.utf8.contains(where: { $0 == 0x20 || $0 == 0x22 || $0 == 0x3D }) else { return text }
        var result = "\""
        for character in text {
            if character == "\"" || character == "\\" { result.append("\\") }
            result.append(character)
        }
        return result + "\""
    }
}
