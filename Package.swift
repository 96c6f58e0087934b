// swift-tools-version: 6.0
import PackageDescription

// At the root of the repository, because SwiftPM looks for a package that is added by its URL nowhere else.
let sources = "apps/ios/LavitEdge/Sources"
#if os(Linux)  // which has no CryptoKit: OpenSSL's headers, on Debian libssl-dev
    let crypto: [Target] = [.systemLibrary(name: "COpenSSL", path: "\(sources)/COpenSSL")]
#else
    let crypto: [Target] = []
#endif
let package = Package(
    name: "lavit-edge",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "LavitEdge", targets: ["LavitEdge"]),
        .library(name: "LavitEdgeCoreML", targets: ["LavitEdgeCoreML"]),
    ],
    targets: crypto + [
        .target(name: "LavitEdge", dependencies: crypto.map { .byName(name: $0.name) }, path: "\(sources)/LavitEdge"),
        .target(name: "LavitEdgeCoreML", dependencies: ["LavitEdge"], path: "\(sources)/LavitEdgeCoreML"),
        .testTarget(
            name: "LavitEdgeTests", dependencies: ["LavitEdge", "LavitEdgeCoreML"],
            path: "apps/ios/LavitEdge/Tests/LavitEdgeTests"),
    ]
)
