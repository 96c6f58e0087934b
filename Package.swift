// swift-tools-version: 6.0
import PackageDescription

// At the root of the repository, because SwiftPM looks for a package that is added by its URL nowhere else.
let sources = "apps/ios/LavitEdge/Sources"
let package = Package(
    name: "lavit-edge",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "LavitEdge", targets: ["LavitEdge"]),
        .library(name: "LavitEdgeCoreML", targets: ["LavitEdgeCoreML"]),
    ],
    targets: [
        .target(name: "LavitEdge", path: "\(sources)/LavitEdge"),
        .target(name: "LavitEdgeCoreML", dependencies: ["LavitEdge"], path: "\(sources)/LavitEdgeCoreML"),
        .testTarget(
            name: "LavitEdgeTests", dependencies: ["LavitEdge", "LavitEdgeCoreML"],
            path: "apps/ios/LavitEdge/Tests/LavitEdgeTests"),
    ]
)
