// The declarations of Apple's CoreML that apps/ios uses (CoreVideo.swift says why).
import CoreVideo
import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLModelConfiguration: NSObject {
    public var computeUnits: MLComputeUnits = .all
}

public struct MLModelMetadataKey: Hashable, Sendable {
    public static let creatorDefinedKey = MLModelMetadataKey()  // objc: MLModelCreatorDefinedKey
}

public final class MLImageConstraint: NSObject {
    public var pixelsWide: Int { fatalError() }
    public var pixelsHigh: Int { fatalError() }
}

public final class MLFeatureDescription: NSObject {
    public var imageConstraint: MLImageConstraint? { fatalError() }
}

public final class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { fatalError() }
    public var metadata: [MLModelMetadataKey: Any] { fatalError() }
    public var classLabels: [Any]? { fatalError() }
}

public final class MLMultiArray: NSObject {
    public var count: Int { fatalError() }
    public subscript(index: Int) -> NSNumber { fatalError() }  // objc: objectAtIndexedSubscript
}

public final class MLFeatureValue: NSObject {
    public convenience init(pixelBuffer: CVPixelBuffer) { fatalError() }  // objc: featureValueWithPixelBuffer
    public var multiArrayValue: MLMultiArray? { fatalError() }
}

public protocol MLFeatureProvider {
    func featureValue(for name: String) -> MLFeatureValue?  // objc: featureValueForName
}

public final class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public init(dictionary: [String: Any]) throws { fatalError() }
    public func featureValue(for name: String) -> MLFeatureValue? { fatalError() }  // objc: featureValueForName
}

public final class MLModel: NSObject {
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {  // objc: modelWithContentsOfURLConfigurationError
        fatalError()
    }
    public static func compileModel(at url: URL) async throws -> URL { fatalError() }  // objc: compileModelAtURLCompletionHandler
    public var modelDescription: MLModelDescription { fatalError() }
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {  // objc: predictionFromFeaturesError
        fatalError()
    }
}
