// swift-tools-version: 6.2
import PackageDescription

/// One array for every target, so that no module is compiled under other rules than its neighbours.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
    // Tests and simulation run with the check in debug builds; in a release it takes a third of a command's instructions.
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioConcurrency = Target.Dependency.product(name: "NIOConcurrencyHelpers", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioFoundation = Target.Dependency.product(name: "NIOFoundationCompat", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let x509 = Target.Dependency.product(name: "X509", package: "swift-certificates")
let asn1 = Target.Dependency.product(name: "SwiftASN1", package: "swift-asn1")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "Metrics", package: "swift-metrics")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(name: "HummingbirdTesting", package: "hummingbird")
let hummingbirdTLS = Target.Dependency.product(name: "HummingbirdTLS", package: "hummingbird")
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let deque = Target.Dependency.product(name: "DequeModule", package: "swift-collections")

let package = Package(
    name: "ashlar",
    products: [
        .executable(name: "ashlar", targets: ["ashlar"])
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        .target(name: "CChecksum"),
        .target(name: "CLinux"),
        .systemLibrary(name: "CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),

        // Pure cores: events in, actions out. No socket, clock, file, database or randomness inside.
        .target(name: "AshlarCore", dependencies: ["CChecksum"], swiftSettings: settings),
        .target(name: "BlockObjects", dependencies: ["AshlarCore", "CZlib", nioCore], swiftSettings: settings),
        .target(name: "SCSI", dependencies: ["AshlarCore", nioCore], swiftSettings: settings),
        .target(name: "ISCSI", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "ISNS", dependencies: ["AshlarCore", nioCore], swiftSettings: settings),
        .target(name: "RPC", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "Ownership", dependencies: ["AshlarCore", nioCore, deque], swiftSettings: settings),
        .target(name: "AgentPlanning", dependencies: ["AshlarCore", "BlockObjects", "RPC"], swiftSettings: settings),

        // Thin shells.
        .target(name: "Failpoints", swiftSettings: settings),
        .target(
            name: "Observability",
            dependencies: ["AshlarCore", nioCore, nioPosix, nioHTTP1, nioConcurrency, logging, metrics],
            swiftSettings: settings
        ),
        .target(
            name: "PostgresStore",
            dependencies: [
                "AshlarCore", "Failpoints", "Ownership", "CLibPQ", "CLinux", nioCore, nioConcurrency, logging, crypto,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "ObjectStore",
            dependencies: ["AshlarCore", "Failpoints", "BlockObjects", "CLinux", nioCore, nioConcurrency, logging],
            swiftSettings: settings
        ),
        .target(
            name: "Transport",
            dependencies: [
                "AshlarCore", "Failpoints", "RPC", nioCore, nioPosix, nioConcurrency, nioSSL, crypto, x509, asn1,
                logging, deque,
            ],
            swiftSettings: settings
        ),

        // The roles.
        .target(
            name: "TargetNode",
            dependencies: [
                "AshlarCore", "BlockObjects", "SCSI", "ISCSI", "ISNS", "Ownership", "RPC", "AgentPlanning", "Transport",
                "Observability",
                nioCore, nioPosix, nioConcurrency, crypto, logging, metrics, deque,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "CacheServer",
            dependencies: [
                "AshlarCore", "Ownership", "RPC", "Transport", "PostgresStore", "BlockObjects", "Observability",
                "CLinux",
                nioCore, nioPosix, nioConcurrency, logging, metrics, deque,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "ObjectServer",
            dependencies: [
                "AshlarCore", "BlockObjects", "RPC", "Transport", "ObjectStore", "Observability",
                nioCore, nioPosix, nioConcurrency, logging, metrics,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "Agent",
            dependencies: [
                "AshlarCore", "BlockObjects", "AgentPlanning", "Failpoints", "RPC", "Transport", "Observability",
                nioCore,
                nioPosix, logging, metrics,
            ],
            swiftSettings: settings
        ),
        .target(
            name: "ControlPlane",
            dependencies: [
                "AshlarCore", "Failpoints", "RPC", "Transport", "PostgresStore", "Observability",
                nioCore, nioPosix, nioSSL, crypto, hummingbird, hummingbirdTLS, logging, metrics,
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "ashlar",
            dependencies: [
                "AshlarCore", "Failpoints", "RPC", "Transport", "PostgresStore", "ObjectStore", "Observability",
                "TargetNode", "CacheServer",
                "ObjectServer", "Agent", "ControlPlane", "Supervision", "CLinux",
                nioCore, nioPosix, nioHTTP1, nioFoundation, nioConcurrency, nioSSL, crypto, logging, metrics, lifecycle,
                arguments, configuration, httpClient,
            ],
            swiftSettings: settings
        ),

        .target(name: "Supervision", dependencies: ["AshlarCore"], swiftSettings: settings),

        .target(
            name: "AshlarTestSupport",
            dependencies: [
                "AshlarCore", "Failpoints", "Ownership", "ISCSI", "SCSI", "RPC", "BlockObjects", "ObjectStore",
                "CLinux",
                nioCore, nioConcurrency, logging, deque,
            ],
            swiftSettings: settings
        ),

        .executableTarget(
            name: "ashlar-torture",
            dependencies: ["AshlarTestSupport", arguments],
            swiftSettings: settings
        ),

        // Whole clusters in one thread and virtual time, from a seed (scripts/simulate).
        .target(
            name: "AshlarSimulation",
            dependencies: [
                "AshlarCore", "BlockObjects", "RPC", "Ownership", "AgentPlanning", "ObjectStore", "AshlarTestSupport",
                nioCore,
            ],
            swiftSettings: settings
        ),
        .executableTarget(
            name: "ashlar-simulate",
            dependencies: ["AshlarSimulation", arguments],
            swiftSettings: settings
        ),

        // What libFuzzer is pointed at (scripts/fuzz), so that the tests run the same rules over the kept corpus.
        .target(
            name: "FuzzTargets",
            dependencies: ["AshlarCore", "BlockObjects", "SCSI", "ISCSI", "ISNS", "RPC", nioCore],
            path: "Fuzz/Sources/FuzzTargets",
            swiftSettings: settings
        ),
        .testTarget(name: "FuzzRegressionTests", dependencies: ["FuzzTargets"], swiftSettings: settings),

        .testTarget(
            name: "AshlarCoreTests",
            dependencies: ["AshlarCore", "AshlarTestSupport", "CChecksum"],
            swiftSettings: settings
        ),
        .testTarget(name: "ArchitectureTests", swiftSettings: settings),
        .testTarget(name: "FailpointsTests", dependencies: ["Failpoints"], swiftSettings: settings),
        .testTarget(
            name: "OwnershipTests",
            dependencies: ["Ownership", "AshlarCore", "AshlarSimulation", "AshlarTestSupport", nioCore, deque],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ISCSITests",
            dependencies: ["ISCSI", "AshlarCore", "AshlarTestSupport", nioCore],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ISNSTests",
            dependencies: ["ISNS", "AshlarCore", "AshlarTestSupport", nioCore],
            swiftSettings: settings
        ),
        .testTarget(name: "SCSITests", dependencies: ["SCSI", "AshlarCore", nioCore], swiftSettings: settings),
        .testTarget(name: "RPCTests", dependencies: ["AshlarCore", "RPC", nioCore], swiftSettings: settings),
        .testTarget(
            name: "BlockObjectsTests",
            dependencies: ["AshlarCore", "BlockObjects", nioCore],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ObjectStoreTests",
            dependencies: [
                "AshlarCore", "AshlarTestSupport", "BlockObjects", "Failpoints", "ObjectStore", "CLinux", nioCore,
                nioConcurrency, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "PostgresStoreTests",
            dependencies: [
                "PostgresStore", "AshlarCore", "AshlarTestSupport", "Ownership", "CLibPQ", "CLinux", nioCore,
                nioConcurrency, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "TransportTests",
            dependencies: [
                "AshlarCore", "RPC", "Transport", nioCore, nioPosix, nioEmbedded, nioConcurrency, nioSSL, crypto, x509,
                asn1, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "CacheServerTests",
            dependencies: [
                "AshlarCore", "AshlarTestSupport", "CacheServer", "Ownership", "PostgresStore", "RPC", "Transport",
                nioCore, nioPosix, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ObjectServerTests",
            dependencies: [
                "ObjectServer", "ObjectStore", "BlockObjects", "AshlarCore", "RPC", "Transport", nioCore, nioPosix,
                nioConcurrency, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "AgentTests",
            dependencies: [
                "Agent", "AgentPlanning", "ObjectServer", "ObjectStore", "Observability", "BlockObjects", "AshlarCore",
                "RPC",
                "Transport",
                nioCore, nioPosix, nioConcurrency, logging,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "TargetNodeTests",
            dependencies: ["TargetNode", "AshlarCore", nioCore, nioEmbedded, logging],
            swiftSettings: settings
        ),
        .testTarget(name: "SupervisionTests", dependencies: ["Supervision", "CLinux"], swiftSettings: settings),
        .testTarget(
            name: "IntegrationTests",
            dependencies: [
                "ashlar", "ashlar-torture", "AshlarCore", "AshlarTestSupport", "Failpoints", "ISCSI", "ISNS", "RPC",
                "Transport", nioCore, nioPosix, nioHTTP1, nioConcurrency, nioSSL, httpClient, logging,
            ],
            exclude: ["Conformance", "Initiator"],
            swiftSettings: settings
        ),
        .testTarget(name: "TortureTests", dependencies: ["ashlar-torture"], swiftSettings: settings),
        .testTarget(
            name: "ObservabilityTests",
            dependencies: [
                "Observability", nioCore, nioPosix, nioHTTP1, nioEmbedded, nioConcurrency, logging, metrics,
            ],
            swiftSettings: settings
        ),
        .testTarget(
            name: "ControlPlaneTests",
            dependencies: [
                "ControlPlane", "PostgresStore", "Ownership", "AshlarCore", "AshlarTestSupport", "CLinux", nioCore,
                nioConcurrency, logging, hummingbird, hummingbirdTesting,
            ],
            exclude: ["CommandLine"],
            swiftSettings: settings
        ),
        .testTarget(
            name: "CommandLineTests",
            dependencies: ["ashlar", "ControlPlane", "CacheServer", "TargetNode", "AshlarCore", arguments],
            path: "Tests/ControlPlaneTests/CommandLine",
            swiftSettings: settings
        ),
    ]
)
