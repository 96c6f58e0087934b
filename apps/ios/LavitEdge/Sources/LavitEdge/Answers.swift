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

/// What a picture showed, and how long that took.
public struct Seen: Equatable, Sendable {
    static let rows = 3

    /// The most probable label; nil: not sure. In a live view ``Steady`` says so, and it need not be the first of ``answers``.
    public let best: Answer?
    /// The most probable labels, the first of them first, however improbable.
    public let answers: [Answer]
    /// Of all labels, in their order.
    public let probabilities: [Double]
    /// From the frame to the model's input, in nanoseconds.
    public let preparing: Int
    /// The model, in nanoseconds.
    public let running: Int

    /// What was seen: `best` of the probabilities, one for each label.
    public init(_ probabilities: [Double], best: Int?, labels: [String], preparing: Int, running: Int) {
        func answer(_ index: Int) -> Answer { Answer(index: index, label: labels[index], probability: probabilities[index]) }
        self.best = best.map(answer)
        answers = topIndices(probabilities, count: Self.rows).map(answer)
        self.probabilities = probabilities
        (self.preparing, self.running) = (preparing, running)
    }
}

/// Probabilities of logits over a temperature, computed from the largest one down, so that no exponential overflows.
public func softmax(_ logits: [Float], temperature: Double = 1) -> [Double] {
    let largest = Double(logits.max() ?? 0)
    let exponentials = logits.map { exp((Double($0) - largest) / temperature) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
}

/// Indices of the `count` largest values, the largest first; of equal ones the one with the lower index.
public func topIndices<Value: BinaryFloatingPoint>(_ values: [Value], count: Int) -> [Int] {
    Array(values.indices.sorted { (-values[$0], $0) < (-values[$1], $1) }.prefix(count))
}

/// Probabilities of the contract's labels.
///
/// - Throws: ``UserError`` unless there is one finite logit for each label.
public func probabilities(_ logits: [Float], _ contract: InputContract) throws -> [Double] {
    guard logits.count == contract.labels.count, logits.allSatisfy(\.isFinite) else {
        let classes = contract.labels.count
        throw UserError("the model gave \(logits.count) values for \(classes) labels, or values that are not finite")
    }
    return softmax(logits, temperature: contract.temperature)
}

/// The index of the most probable label, of equal ones the lower; nil, "not sure", where it is below the threshold.
public func decide(_ probabilities: [Double], threshold: Double) -> Int? {
    topIndices(probabilities, count: 1).first { probabilities[$0] >= threshold }
}

/// An answer for a live view: from an average over about half a second, and not given up for a hair's breadth
/// (lavit_edge/contract/answers.py).
public struct Steady: Equatable, Sendable {
    static let timeConstant = 0.5  // seconds: a frame weighs 1/e of what it did half a second ago
    static let margin = 0.1  // of probability: by it another must lead, or the shown one be below the threshold, before it goes

    private let threshold: Double
    /// Exponential; empty before the first frame.
    public private(set) var average: [Double] = []
    /// What is shown; nil: not sure.
    public private(set) var shown: Int?
    private var last = 0.0

    /// Nothing seen yet.
    public init(threshold: Double) {
        self.threshold = threshold
    }

    /// Takes a frame's probabilities, and its time on a clock that runs on.
    public mutating func add(_ probabilities: [Double], at seconds: Double) {
        let share = 1 - exp(-max(seconds - last, 0) / Self.timeConstant)
        average = average.isEmpty ? probabilities : zip(average, probabilities).map { $0 + share * ($1 - $0) }
        last = seconds
        if let shown, average[shown] >= threshold - Self.margin, (average.max() ?? 0) - average[shown] < Self.margin { return }
        shown = decide(average, threshold: threshold)
    }
}
