import Foundation

/// What the benchmark's screen shows. A measurement that was interrupted never becomes a report, however far it had come.
public struct Trial: Equatable, Sendable {
    /// How far it is.
    public enum State: Equatable, Sendable {
        case idle
        /// Doing that.
        case running(String)
        /// For people: what went wrong, or why it was stopped.
        case failed(String)
        /// The report's file, and its figures for people.
        case done(String, file: URL)
    }

    /// Why a measurement is stopped.
    public enum Interruption: String, Sendable {
        case background = "the app went to the background"
        case left = "its screen was left"
    }

    /// How far it is.
    public private(set) var state = State.idle
    private var number = 0

    /// Nothing measured yet.
    public init() {}

    /// Whether a measurement goes on.
    public var isRunning: Bool {
        if case .running = state { true } else { false }
    }

    /// Begins a measurement, and gives its number.
    public mutating func start() -> Int {
        number += 1
        state = .running("starting")
        return number
    }

    /// Whether measurement `number` is the one that goes on.
    public func goesOn(_ number: Int) -> Bool {
        isRunning && number == self.number
    }

    /// Says what measurement `number` does now.
    public mutating func step(_ text: String, _ number: Int) {
        if goesOn(number) { state = .running(text) }
    }

    /// Stops what goes on; does nothing if nothing does.
    public mutating func interrupt(_ why: Interruption) {
        if isRunning { state = .failed("stopped: \(why.rawValue); there is no report") }
    }

    /// Ends measurement `number`, if it still goes on: writes its report to the file, or says what went wrong.
    public mutating func finish(_ result: Result<Report, any Error>, file: URL, _ number: Int) {
        guard goesOn(number) else { return }
        do {
            let report = try result.get()
            try report.write(to: file)
            state = .done(report.summary, file: file)
        } catch {
            state = .failed(oneLine("\(error)", most: 1000))
        }
    }
}

extension Report {
    /// Its median for people, or why there is none.
    public var summary: String {
        guard let median = json["latency"]?["p50_ns"]?.int, let runs = json["latency"]?["runs"]?.int else {
            return "Not timed: \(json["self_test"]?["detail"]?.string ?? "the self-test failed")"
        }
        let forced = json["self_test"]?["passed"] == true ? "" : "; the self-test failed"
        return String(format: "p50 %.2f ms of %d runs", Double(median) / 1e6, runs) + forced
    }
}
