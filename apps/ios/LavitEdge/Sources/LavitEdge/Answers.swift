import Foundation

/// What the model sees.
public struct Answer: Equatable, Sendable {
    /// Of the label in the contract.
    public let index: Int
    /// Its name.
    public let label: String
    /// From 0 to 1.
    public let probability: Double
}

/// Probabilities of logits, computed from the largest one down, so that no exponential overflows.
public func softmax(_ logits: [Float]) -> [Double] {
    let largest = Double(logits.max() ?? 0)
    let exponentials = logits.map { exp(Double($0) - largest) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
}

/// Indices of the `count` largest values, the largest first; of equal ones the one with the lower index.
public func topIndices(_ logits: [Float], count: Int) -> [Int] {
    Array(logits.indices.sorted { (-logits[$0], $0) < (-logits[$1], $1) }.prefix(count))
}

/// The `count` most probable labels.
///
/// - Throws: ``UserError`` unless there is one finite logit for each label.
public func answers(_ logits: [Float], labels: [String], count: Int) throws -> [Answer] {
    guard logits.count == labels.count, logits.allSatisfy(\.isFinite) else {
        throw UserError("the model gave \(logits.count) values for \(labels.count) labels, or values that are not finite")
    }
    let probabilities = softmax(logits)
    return topIndices(logits, count: count).map { Answer(index: $0, label: labels[$0], probability: probabilities[$0]) }
}
