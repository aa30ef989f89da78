// swift-tools-version: 6.2
import PackageDescription

// The micro benchmarks (scripts/bench --micro): a package of its own, so that nobody who builds the product builds them.
// `Sources/<Module>` are links to those of the product, so that what a module keeps in its package can be measured, and only the
// modules that are measured are compiled.

/// The rules that the product is compiled under.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioConcurrency = Target.Dependency.product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "ashlar-bench",
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        .target(name: "CChecksum"),
        .target(name: "CLinux"),
        .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .target(name: "AshlarCore", dependencies: ["CChecksum"], swiftSettings: settings),
        .target(name: "BlockObjects", dependencies: ["AshlarCore", "CZlib", nioCore], swiftSettings: settings),
        .target(name: "SCSI", dependencies: ["AshlarCore", nioCore], swiftSettings: settings),
        .target(name: "ISCSI", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "RPC", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "Ownership", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "Failpoints", swiftSettings: settings),
        // With one file more than the product's: what it measures is internal.
        .target(
            name: "PostgresStore",
            dependencies: [
                "AshlarCore", "Failpoints", "Ownership", "CLibPQ", "CLinux", nioCore, nioConcurrency, logging, crypto,
            ],
            swiftSettings: settings
        ),
        .target(name: "CAllocations"),
        .executableTarget(
            name: "ashlar-bench",
            dependencies: [
                "AshlarCore", "BlockObjects", "CAllocations", "ISCSI", "Ownership", "PostgresStore", "RPC", "SCSI",
                nioCore,
            ],
            swiftSettings: settings
        ),
    ]
)
