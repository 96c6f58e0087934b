#if canImport(CoreML)
    import CoreML
    import CoreVideo
    import Foundation
    import LavitEdge

    /// Core ML behind the package's two functions. Not to be used from two threads at once.
    final class CoreMLModel: Model {
        private let model: MLModel
        private let buffer: CVPixelBuffer
        private let input: MLFeatureProvider

        /// Opens a compiled model (`.mlmodelc`).
        init(compiled: URL, units: MLComputeUnits) throws {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units
            model = try MLModel(contentsOf: compiled, configuration: configuration)
            guard let size = model.modelDescription.inputDescriptionsByName["image"]?.imageConstraint else {
                throw UserError("the model takes no picture named image")
            }
            var made: CVPixelBuffer?
            CVPixelBufferCreate(nil, size.pixelsWide, size.pixelsHigh, kCVPixelFormatType_32BGRA, nil, &made)
            guard let made else { throw UserError("no memory for a picture of \(size.pixelsWide) x \(size.pixelsHigh) pixels") }
            buffer = made
            input = try MLDictionaryFeatureProvider(dictionary: ["image": MLFeatureValue(pixelBuffer: made)])
        }

        /// What the exporter wrote into the artifact.
        var metadata: [String: String] {
            model.modelDescription.metadata[MLModelMetadataKey.creatorDefinedKey] as? [String: String] ?? [:]
        }

        var labels: [String]? { model.modelDescription.classLabels as? [String] }

        func setInput(_ picture: Picture) throws {
            guard CVPixelBufferGetWidth(buffer) == picture.width, CVPixelBufferGetHeight(buffer) == picture.height else {
                throw UserError("the contract's size is not the model's")
            }
            CVPixelBufferLockBaseAddress(buffer, [])
            defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
            guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw UserError("the model's picture has no memory") }
            let bytes = base.assumingMemoryBound(to: UInt8.self)
            let stride = CVPixelBufferGetBytesPerRow(buffer)
            picture.pixels.withUnsafeBufferPointer { pixels in
                for row in 0..<picture.height {
                    var (from, to) = (3 * picture.width * row, stride * row)
                    for _ in 0..<picture.width {
                        bytes[to] = pixels[from + 2]
                        bytes[to + 1] = pixels[from + 1]
                        bytes[to + 2] = pixels[from]
                        bytes[to + 3] = 255
                        (from, to) = (from + 3, to + 4)
                    }
                }
            }
        }

        func run() throws -> [Float] {
            let output = try model.prediction(from: input)
            guard let logits = output.featureValue(for: "logits")?.multiArrayValue else {
                throw UserError("the model gives no logits; export it again")
            }
            return (0..<logits.count).map { logits[$0].floatValue }
        }
    }
#endif
