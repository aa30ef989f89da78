// swift-tools-version: 6.2
import PackageDescription

// Fuzzing needs every module compiled with its instrumentation, and a `main` that is libFuzzer's: a package of its own, whose
// folders `Sources/<Module>` are links to those of the product. Built and run by `scripts/fuzz`.

/// The rules that the product is compiled under.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "ashlar-fuzz",
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        .target(name: "CChecksum"),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .target(name: "AshlarCore", dependencies: ["CChecksum"], swiftSettings: settings),
        .target(name: "BlockObjects", dependencies: ["AshlarCore", "CZlib", nioCore], swiftSettings: settings),
        .target(name: "SCSI", dependencies: ["AshlarCore", nioCore], swiftSettings: settings),
        .target(name: "ISCSI", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "ISNS", dependencies: ["AshlarCore", nioCore], swiftSettings: settings),
        .target(name: "RPC", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(
            name: "FuzzTargets",
            dependencies: ["AshlarCore", "BlockObjects", "SCSI", "ISCSI", "ISNS", "RPC", nioCore],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "ashlar-fuzz",
            dependencies: ["FuzzTargets"],
            swiftSettings: settings + [.unsafeFlags(["-parse-as-library"])]
        ),
    ]
)
