/// Times of runs one after another, in nanoseconds.
public struct Runs: Equatable, Sendable {
    static let mostSamples = 20_000  // beyond it a report has quantiles instead
    static let minute = 60_000_000_000

    /// When each run began.
    public private(set) var starts: [Int] = []
    /// How long it took.
    public private(set) var samples: [Int] = []

    /// No runs yet.
    public init() {}

    /// Adds a run that came after those that are there.
    public mutating func append(start: Int, sample: Int) {
        starts.append(start)
        samples.append(sample)
    }

    /// From the start of the first run to the end of the last.
    public var duration: Int {
        guard let first = starts.first, let last = starts.last, let sample = samples.last else { return 0 }
        return last + sample - first
    }

    /// The field `latency` of a report; null without runs.
    public func latency() -> JSON {
        guard let first = starts.first else { return .null }
        let ordered = samples.sorted()
        var minutes: [Int: [Int]] = [:]
        for (start, sample) in zip(starts, samples) { minutes[(start - first) / Self.minute, default: []].append(sample) }
        let whole = minutes.keys.filter { $0 < duration / Self.minute }.sorted()
        let few = ordered.count <= Self.mostSamples
        return [
            "runs": .int(ordered.count),
            "duration_ns": .int(duration),
            "min_ns": .int(ordered[0]),
            "p50_ns": .int(quantile(ordered, permille: 500)),
            "p90_ns": .int(quantile(ordered, permille: 900)),
            "p99_ns": .int(quantile(ordered, permille: 990)),
            "max_ns": .int(ordered[ordered.count - 1]),
            "samples_ns": JSON(few ? samples : nil),
            "quantiles_ns": JSON(few ? nil : (0...1000).map { quantile(ordered, permille: $0) }),
            "minutes_p50_ns": JSON(whole.map { quantile((minutes[$0] ?? []).sorted(), permille: 500) }),
        ]
    }
}

/// By nearest rank: value `ceil(q n)` of the `n` in order, from 1; no interpolation, which languages do differently.
///
/// - Parameter ordered: at least one value.
public func quantile(_ ordered: [Int], permille: Int) -> Int {
    ordered[max((permille * ordered.count + 999) / 1000, 1) - 1]
}
