// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "LavitEdge",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "LavitEdge", targets: ["LavitEdge"])],
    targets: [
        .target(name: "LavitEdge"),
        .testTarget(name: "LavitEdgeTests", dependencies: ["LavitEdge"]),
    ]
)
