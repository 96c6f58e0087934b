import Foundation

/// What `python -m lavit_edge.benchmark model.mlpackage --device ios:NAME` starts the app with (lavit_edge/benchmark/ios.py).
public struct Launch: Equatable, Sendable {
    /// The artifact.
    public let package: URL
    /// Where the report goes.
    public let report: URL
    /// How long the measurement goes on at least, in nanoseconds.
    public let leastDuration: Int
    /// Whether a model that fails its self-test is timed, too.
    public let force: Bool

    /// Reads a process's arguments, whose paths are relative to `home`, the app's container; nil without `--benchmark`.
    ///
    /// - Throws: ``UserError`` for arguments that are not understood.
    public init?(arguments: [String], home: URL) throws {
        guard arguments.contains("--benchmark") else { return nil }
        var (values, force) = ([String: String](), false)
        var rest = arguments.dropFirst()
        while let name = rest.popFirst() {
            if name == "--force" {
                force = true
            } else if ["--benchmark", "--report", "--seconds"].contains(name), let value = rest.popFirst() {
                values[name] = value
            } else {
                throw UserError("argument '\(name)' is unknown or lacks its value")
            }
        }
        guard let package = values["--benchmark"], let report = values["--report"] else {
            throw UserError("--benchmark and --report are needed")
        }
        guard package.hasSuffix(".mlpackage") else {
            throw UserError("this app runs an .mlpackage by Core ML, and \(package) is none")
        }
        guard let seconds = Double(values["--seconds"] ?? "10"), 0...86400 ~= seconds else {
            throw UserError("--seconds must be a number from 0 to 86400")
        }
        self.package = home.appendingPathComponent(package)
        self.report = home.appendingPathComponent(report)
        (leastDuration, self.force) = (Int((seconds * Double(Benchmark.second)).rounded()), force)
    }
}
