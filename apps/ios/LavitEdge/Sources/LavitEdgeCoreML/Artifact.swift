import Foundation
import LavitEdge

#if canImport(CoreML)
    import CoreML
#endif

/// An `.mlpackage` as it was exported, whose bytes have been checked, and what Core ML compiled of it.
public struct Artifact: Sendable {
    /// The package's name, for messages and reports.
    public let file: String
    /// Of the package's bytes.
    public let seal: Seal
    /// An `.mlmodelc`.
    public let compiled: URL
    /// How long Core ML compiled the package; nil if it did so at an earlier launch.
    public let compileNanoseconds: Int?

    /// Checks a package, and compiles it unless that was done before; the first time takes seconds.
    ///
    /// - Parameter force: takes a package that is not what was exported.
    /// - Throws: ``UserError`` for a package that cannot be read or is not what was exported, and where there is no Core ML; what Core ML
    ///   throws.
    public static func open(_ package: URL, force: Bool = false, cache: CompiledModels = .standard) async throws -> Artifact {
        let (file, seal) = (package.lastPathComponent, try Seal(package: package))
        if let problem = seal.problem(name: file), !force { throw UserError(problem) }
        if let compiled = cache.find(seal) {
            return Artifact(file: file, seal: seal, compiled: compiled, compileNanoseconds: nil)
        }
        let start = Benchmark.uptime()
        let made = try await compile(package)
        let took = Benchmark.uptime() - start
        return Artifact(file: file, seal: seal, compiled: cache.keep(made, for: seal), compileNanoseconds: took)
    }

    /// The package `name.mlpackage` in a folder of an app's resources. It has to lie in a folder, since Xcode compiles one that does not.
    ///
    /// - Throws: ``UserError`` if there is none.
    public static func bundled(_ name: String = "model", folder: String = "Model", in bundle: Bundle = .main) throws -> URL {
        guard let package = bundle.url(forResource: name, withExtension: "mlpackage", subdirectory: folder) else {
            throw UserError("the app holds no \(folder)/\(name).mlpackage; apps/ios/README.md says where to put it")
        }
        return package
    }

    #if canImport(CoreML)
        private static func compile(_ package: URL) async throws -> URL {
            try await MLModel.compileModel(at: package)
        }

        /// Loads it, for a ``Classifier`` or a ``Benchmark``: the model, and what the exporter wrote into it.
        public func load(_ units: Units) throws -> (any Model, [String: String]) {
            let model = try CoreMLModel(compiled: compiled, units: units.coreML)
            return (model, model.metadata)
        }
    #else
        private static let missing = UserError("this system has no Core ML; iOS and macOS have it")

        private static func compile(_ package: URL) async throws -> URL { throw missing }

        /// Throws ``UserError``: there is no Core ML here.
        public func load(_ units: Units) throws -> (any Model, [String: String]) { throw Self.missing }
    #endif
}

/// Where Core ML may compute, by the names that reports use.
public enum Units: String, CaseIterable, Identifiable, Sendable {
    case all
    case cpuAndNeuralEngine
    case cpuAndGPU
    case cpuOnly

    /// Its name.
    public var id: String { rawValue }

    #if canImport(CoreML)
        var coreML: MLComputeUnits {
            switch self {
            case .all: .all
            case .cpuAndNeuralEngine: .cpuAndNeuralEngine
            case .cpuAndGPU: .cpuAndGPU
            case .cpuOnly: .cpuOnly
            }
        }
    #endif
}
