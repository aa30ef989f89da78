/// Why `ashlar up` cannot do what it was asked: one sentence, and the remedy where there is one.
struct UpError: Error, Sendable, CustomStringConvertible {
    /// What is wrong; a sentence.
    var problem: String
    /// What to do about it; a sentence.
    var remedy: String?

    init(_ problem: String, remedy: String? = nil) {
        self.problem = problem
        self.remedy = remedy
    }

    var description: String {
        remedy.map { "\(problem) \($0)" } ?? problem
    }

    /// A failed system call on a path.
    static func system(_ doing: String, _ path: String, errno code: Int32) -> UpError {
        UpError("Cannot \(doing) \(path): \(systemMessage(code)).", remedy: remedy(for: code, path: path))
    }

    private static func remedy(for code: Int32, path: String) -> String? {
        switch code {
        case SystemErrors.noSpace: "Free some space there, or name another directory with --data."
        case SystemErrors.access, SystemErrors.notPermitted, SystemErrors.readOnly:
            "Give yourself the right to write there, or name another directory with --data."
        default: nil
        }
    }
}
