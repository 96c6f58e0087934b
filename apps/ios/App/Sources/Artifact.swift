import CoreML
import Foundation
import LavitEdge

/// An `.mlpackage` as it was exported, so that its bytes can be checked, and what the device compiled of it.
struct Artifact: Sendable {
    static let file = "model.mlpackage"

    let seal: Seal
    let compiled: URL
    let compileNanoseconds: Int

    /// Checks and compiles a package. Takes seconds.
    static func open(_ package: URL, force: Bool = false) throws -> Artifact {
        let seal = try Seal(package: package)
        if let problem = seal.problem(name: file), !force { throw UserError(problem) }
        let start = Benchmark.uptime()
        let compiled = try MLModel.compileModel(at: package)
        return Artifact(seal: seal, compiled: compiled, compileNanoseconds: Benchmark.uptime() - start)
    }

    /// The package in the app's bundle.
    static func bundled() throws -> URL {
        guard let package = Bundle.main.url(forResource: "model", withExtension: "mlpackage", subdirectory: "Model") else {
            throw UserError("the app holds no \(file); apps/ios/README.md says where to put it")
        }
        return package
    }

    /// A measurement of it, which `run(load:progress:)` starts.
    func benchmark(_ units: Units, power: Device.Power) -> Benchmark {
        let system = ProcessInfo.processInfo.operatingSystemVersion
        var benchmark = Benchmark(
            file: Self.file, seal: seal,
            runtimeVersion: "iOS \(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            backend: units.rawValue,
            version: Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String ?? "unknown")
        benchmark.power = { power }
        benchmark.isStopped = { Task.isCancelled }
        benchmark.notes = ["Core ML compiled the package in \(compileNanoseconds / 1_000_000) ms before it was loaded."]
        return benchmark
    }

    /// Loads it, for a `Classifier` or a `Benchmark`.
    func load(_ units: Units) throws -> (any Model, [String: String]) {
        let model = try CoreMLModel(compiled: compiled, units: units.coreML)
        return (model, model.metadata)
    }
}

/// Where Core ML may compute, by the names that reports use.
enum Units: String, CaseIterable, Identifiable, Sendable {
    case all
    case cpuAndNeuralEngine
    case cpuAndGPU
    case cpuOnly

    var id: String { rawValue }

    var coreML: MLComputeUnits {
        switch self {
        case .all: .all
        case .cpuAndNeuralEngine: .cpuAndNeuralEngine
        case .cpuAndGPU: .cpuAndGPU
        case .cpuOnly: .cpuOnly
        }
    }
}
