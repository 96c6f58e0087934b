import CoreML
import Foundation
import LavitEdge

/// The `.mlpackage` in the app: as it was exported, so that its bytes can be checked, and compiled on the device.
struct Artifact: Sendable {
    static let file = "model.mlpackage"

    let seal: Seal
    let compiled: URL
    let compileNanoseconds: Int

    /// Checks and compiles the package in the app's bundle. Takes seconds.
    static func open() throws -> Artifact {
        guard let package = Bundle.main.url(forResource: "model", withExtension: "mlpackage", subdirectory: "Model") else {
            throw UserError("the app holds no \(file); apps/ios/README.md says where to put it")
        }
        let seal = try Seal(package: package)
        if let problem = seal.problem(name: file) { throw UserError(problem) }
        let start = DispatchTime.now().uptimeNanoseconds
        let compiled = try MLModel.compileModel(at: package)
        return Artifact(seal: seal, compiled: compiled, compileNanoseconds: Int(DispatchTime.now().uptimeNanoseconds - start))
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
