import Foundation

/// One golden picture.
public struct Golden: Equatable, Sendable {
    /// Of the picture.
    public let name: String
    /// Before any resizing.
    public let picture: Picture
    /// 16 x 16 pixels, RGB, of the input that the exporter made of it.
    public let sample: [UInt8]
    /// Of the program that the artifact was made from.
    public let logits: [Float]
    /// The largest difference of a logit that passes, in steps.
    public let tolerance: Double
}

/// What rides inside every artifact, so that it can be tested wherever it lands (docs/payload.md).
public struct Payload: Sendable {
    /// In front of an entry's name, in metadata.
    public static let key = "org.lavit_edge."
    static let goldenFormat = "lavit_edge.golden/2"
    static let oldGoldenFormat = "lavit_edge.golden/1"  // one tolerance for all, and no step
    static let provenanceFormat = "lavit_edge.provenance/1"
    static let leastGolden = 4
    static let largestSide = 4096

    /// What the model takes and answers.
    public let contract: InputContract
    /// What the artifact was made from, and with.
    public let provenance: JSON
    /// SHA-256 that the artifact says it has, without what it says of itself.
    public let digest: String
    /// At least four.
    public let golden: [Golden]
    /// What differences of logits are counted in.
    public let step: Double
    /// How close ``closePictures`` must be, in steps.
    public let closeSteps: Double
    /// How many of the pictures must be that close, besides each being within its tolerance.
    public let closePictures: Int

    /// Reads the user-defined metadata of a Core ML model: `model.modelDescription.metadata[.creatorDefinedKey]`.
    ///
    /// - Throws: ``UserError`` when an entry is missing, of another format, or damaged.
    public init(metadata: [String: String]) throws {
        func entry(_ name: String) throws -> String {
            guard let value = metadata[Self.key + name] else {
                throw UserError("payload: entry '\(name)' is missing; only an artifact exported by lavit-edge can test itself")
            }
            return value
        }
        let texts = try ["contract", "provenance", "golden", "digest"].map(entry)
        contract = try InputContract(json: texts[0])
        provenance = try Self.object(texts[1], "provenance", [Self.provenanceFormat])
        guard let blob = Data(base64Encoded: texts[2]) else { throw UserError("payload: golden is not base64") }
        guard let stored = Seal.digits(in: Array(texts[3].utf8)).first, texts[3].utf8.count == stored.upperBound else {
            throw UserError("payload: digest is none")
        }
        digest = String(texts[3].suffix(Seal.digitCount))
        var file = try Safetensors([UInt8](blob), source: "payload: golden")
        let formats = [Self.goldenFormat, Self.oldGoldenFormat]
        let facts = try Self.object(file.metadata?["golden"]?.string ?? "", "golden", formats)
        let old = facts["format"]?.string == Self.oldGoldenFormat
        let names = facts["names"]?.array?.map(\.string) ?? []
        guard names.count >= Self.leastGolden, !names.contains(nil) else {
            throw UserError("payload: golden must name at least \(Self.leastGolden) pictures")
        }
        let allowed = facts["tolerance_steps"]
        let each: [JSON?] = old ? names.map { _ in allowed } : allowed?.array ?? []
        let tolerances = try each.map { try Self.positive($0, "tolerance_steps") }
        guard tolerances.count == names.count else {
            throw UserError("payload: tolerance_steps must be one positive number per picture")
        }
        let classes = contract.labels.count
        golden = try names.enumerated().map {
            try Self.golden($0, named: $1 ?? "", classes: classes, tolerance: tolerances[$0], from: &file)
        }
        if let unknown = file.tensors.keys.min() { throw UserError("payload: golden tensor '\(unknown)' is unknown") }
        let logits = golden.flatMap(\.logits)
        guard let low = logits.min(), let high = logits.max(), high > low else {
            throw UserError("payload: the expected logits are all equal, which no model gives")
        }
        if old {
            (step, closeSteps, closePictures) = (Double(high - low) / 255, 0, 0)
            return
        }
        step = try Self.positive(facts["step"], "step")
        closeSteps = try Self.positive(facts["close_steps"], "close_steps")
        guard let close = facts["close_pictures"]?.int, 0...golden.count ~= close else {
            throw UserError("payload: close_pictures must be a number of the pictures")
        }
        closePictures = close
    }

    private static func positive(_ value: JSON?, _ name: String) throws -> Double {
        guard let number = value?.number, number > 0, number.isFinite else {
            throw UserError("payload: \(name) must be positive numbers")
        }
        return number
    }

    private static func golden(
        _ index: Int, named name: String, classes: Int, tolerance: Double, from file: inout Safetensors
    ) throws -> Golden {
        let picture = file.take("picture.\(index)", dtype: "U8", shape: [nil, nil, 3])
        let sample = file.take("sample.\(index)", dtype: "U8", shape: [Picture.grid, Picture.grid, 3])
        let logits = file.take("logits.\(index)", dtype: "F32", shape: [classes])
        guard let picture, picture.shape.allSatisfy({ 1...largestSide ~= $0 }),
            let pixels = Picture(width: picture.shape[1], height: picture.shape[0], pixels: Array(picture.bytes))
        else { throw UserError("payload: golden picture \(index) must be uint8 (height, width, 3)") }
        guard let sample else {
            throw UserError("payload: golden sample \(index) must be uint8 (\(Picture.grid), \(Picture.grid), 3)")
        }
        let values = logits.map { floats(Array($0.bytes)) } ?? []
        guard values.count == classes, values.allSatisfy(\.isFinite) else {
            throw UserError("payload: golden logits \(index) must be \(classes) finite float32, one per label of the contract")
        }
        return Golden(name: name, picture: pixels, sample: Array(sample.bytes), logits: values, tolerance: tolerance)
    }

    /// float32, little-endian.
    private static func floats(_ bytes: [UInt8]) -> [Float] {
        stride(from: 0, to: bytes.count, by: 4).map { at in
            Float(bitPattern: bytes[at..<at + 4].reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
        }
    }

    private static func object(_ text: String, _ name: String, _ formats: [String]) throws -> JSON {
        let value = try JSON(text: text, source: "payload: \(name)")
        guard let format = value["format"]?.string, formats.contains(format) else {
            throw UserError("payload: \(name) must be an object with format '\(formats[0])'\(otherFormat(value))")
        }
        return value
    }
}

/// For messages: that something is of a format which this code does not know.
func otherFormat(_ value: JSON) -> String {
    guard let format = value["format"]?.string else { return "" }
    return ", not '\(oneLine(format, most: 60))'; a newer version of the app may read it"
}
