import Foundation

/// Everything between a picture and the model's input, and between a logit and its label (lavit_edge/contract/contract.py).
///
/// It rides inside every artifact, so that no app types a size or a label again. Normalisation is inside the model.
public struct InputContract: Equatable, Sendable {
    /// How a picture becomes a square.
    public enum Resize: String, Sendable {
        /// The whole picture is resized to the square.
        case squash
        /// The short side is resized to `size / cropFraction`, then the centre is taken.
        case crop
    }

    /// The filter, antialiased when it shrinks; PIL's are the reference.
    public enum Interpolation: String, Sendable {
        case bilinear
        case bicubic
    }

    /// The formats that this code reads. The first has no temperature and no threshold: every answer counts.
    public static let formats = ["lavit_edge.contract/1", "lavit_edge.contract/2"]
    static let largestSize = 4096
    static let temperatures = 0.01...100

    /// Side of the square input in pixels.
    public let size: Int
    /// One name per logit, in order.
    public let labels: [String]
    /// How a picture becomes the square.
    public let resize: Resize
    /// The filter of the resize.
    public let interpolation: Interpolation
    /// Share of the short side that `crop` keeps, in (0, 1].
    public let cropFraction: Double
    /// What logits are divided by before the softmax, so that probabilities are as often right as they say.
    public let temperature: Double
    /// An answer less probable than this is "not sure", in [0, 1).
    public let threshold: Double
    /// SHA-256 of the text that it was read from, which the exporter writes canonically.
    public let sha256: String

    /// Reads a contract's JSON.
    ///
    /// - Throws: ``UserError`` on anything that is not a contract of this format.
    public init(json text: String) throws {
        let value = try JSON(text: text, source: "contract: the text")
        guard case .object(let fields) = value, let format = fields["format"]?.string.flatMap(Self.formats.firstIndex) else {
            let formats = Self.formats.joined(separator: "' or '")
            throw UserError("contract: expected an object with format '\(formats)'\(otherFormat(value))")
        }
        let decision = format == 0 ? [] : ["temperature", "threshold"]
        let known = ["crop_fraction", "format", "interpolation", "labels", "mean", "resize", "size", "std"] + decision
        if let unknown = fields.keys.sorted().first(where: { !known.contains($0) }) {
            throw UserError("contract: unknown field '\(unknown)'")
        }
        guard let size = fields["size"]?.int, (1...Self.largestSize).contains(size) else {
            throw UserError("contract: size must be a whole number from 1 to \(Self.largestSize)")
        }
        self.size = size
        labels = try Self.labels(fields["labels"])
        guard let resize = Resize(rawValue: try Self.text(fields["resize"], else: "squash")) else {
            throw UserError("contract: resize must be squash or crop")
        }
        self.resize = resize
        guard let filter = Interpolation(rawValue: try Self.text(fields["interpolation"], else: "bicubic")) else {
            throw UserError("contract: interpolation must be bilinear or bicubic")
        }
        interpolation = filter
        guard let fraction = (fields["crop_fraction"] ?? 1).number, fraction > 0, fraction <= 1 else {
            throw UserError("contract: crop_fraction must be in (0, 1]")
        }
        cropFraction = fraction
        for (name, least) in [("mean", -1e6), ("std", 1e-6)] {
            guard let field = fields[name] else { continue }
            let numbers = (field.array ?? []).compactMap(\.number)
            guard field.array?.count == 3, numbers.count == 3, numbers.allSatisfy({ least...1e6 ~= $0 }) else {
                throw UserError("contract: \(name) must be three finite numbers, of std positive ones")
            }
        }
        if let missing = decision.first(where: { fields[$0] == nil }) {
            throw UserError("contract: field '\(missing)' is missing")
        }
        guard let temperature = (fields["temperature"] ?? 1).number, Self.temperatures ~= temperature else {
            throw UserError("contract: temperature must be from 0.01 to 100")
        }
        guard let threshold = (fields["threshold"] ?? 0).number, 0 <= threshold, threshold < 1 else {
            throw UserError("contract: threshold must be in [0, 1)")
        }
        (self.temperature, self.threshold) = (temperature, threshold)
        sha256 = LavitEdge.sha256(Array(text.utf8))
    }

    private static func text(_ value: JSON?, else standard: String) throws -> String {
        guard let value else { return standard }
        return value.string ?? ""
    }

    private static func labels(_ value: JSON?) throws -> [String] {
        let labels = (value?.array ?? []).compactMap(\.string)
        let named = labels.allSatisfy { !$0.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty }
        guard !labels.isEmpty, labels.count == value?.array?.count, named else {
            throw UserError("contract: labels must be a list of names, none of them empty")
        }
        // by bytes: Swift's strings are equal if they look alike
        guard Set(labels.map { Array($0.utf8) }).count == labels.count else {
            throw UserError("contract: a label appears twice; each class needs its own name")
        }
        guard !labels.joined().unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else {
            throw UserError("contract: a label holds a control character")
        }
        return labels
    }
}
