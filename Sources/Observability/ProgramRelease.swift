/// The release of this program.
public enum ProgramRelease {
    /// Major, minor and patch number.
    public static let current = "0.3.0"
}
