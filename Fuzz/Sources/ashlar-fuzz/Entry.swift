import FuzzTargets

#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// The target that the environment names, as `scripts/fuzz` does.
private let target: FuzzTarget = {
    let variable = "ASHLAR_FUZZ_TARGET"
    guard let value = getenv(variable), let target = FuzzTarget(rawValue: String(cString: value)) else {
        let names = FuzzTarget.allCases.map(\.rawValue).joined(separator: ", ")
        fatalError("\(variable) names no target; there are: \(names)")
    }
    return target
}()

/// What libFuzzer calls for each input. A broken rule ends the process, which libFuzzer takes for a crash.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    do throws(FuzzFailure) {
        try target.run(Array(UnsafeBufferPointer(start: start, count: count)))
    } catch {
        fatalError("\(target.rawValue): \(error)")
    }
    return 0
}
