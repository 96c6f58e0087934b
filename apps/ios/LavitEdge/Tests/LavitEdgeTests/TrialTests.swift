import XCTest

@testable import LavitEdge

final class TrialTests: XCTestCase {
    private let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)

    override func tearDown() {
        try? FileManager.default.removeItem(at: file)
    }

    private func report(passed: Bool = true, timed: Bool = true) throws -> Report {
        let latency: JSON = timed ? ["p50_ns": 1_234_567, "runs": 99] : nil
        let device: JSON = ["cpu": nil]
        return try Report(["latency": latency, "self_test": ["passed": .bool(passed), "detail": "wrong"], "device": device])
    }

    func testFromTheStartToTheReport() throws {
        var trial = Trial()
        XCTAssertEqual(trial.state, .idle)
        let number = trial.start()
        XCTAssertTrue(trial.isRunning)
        trial.step("measuring", number)
        XCTAssertEqual(trial.state, .running("measuring"))
        trial.finish(.success(try report()), file: file, number)
        XCTAssertEqual(trial.state, .done("p50 1.23 ms of 99 runs", file: file))
        XCTAssertTrue(try String(contentsOf: file, encoding: .utf8).contains("lavit_edge.report/1"))
    }

    /// Even if it was done when it was stopped, and the news came later.
    func testInterruptedThereIsAMessageAndNoReport() throws {
        for why in [Trial.Interruption.background, .left] {
            var trial = Trial()
            let number = trial.start()
            trial.interrupt(why)
            XCTAssertEqual(trial.state, .failed("stopped: \(why.rawValue); there is no report"))
            trial.step("measuring", number)
            trial.finish(.success(try report()), file: file, number)
            XCTAssertEqual(trial.state, .failed("stopped: \(why.rawValue); there is no report"))
            XCTAssertFalse(FileManager.default.fileExists(atPath: file.path))
        }
    }

    func testNothingIsInterruptedWhereNothingGoesOn() throws {
        var trial = Trial()
        trial.interrupt(.background)
        XCTAssertEqual(trial.state, .idle)
        trial.finish(.success(try report()), file: file, trial.start())
        let done = trial
        trial.interrupt(.left)
        XCTAssertEqual(trial, done)
    }

    func testTheOneBeforeSaysNothingOfTheNext() throws {
        var trial = Trial()
        let first = trial.start()
        trial.interrupt(.background)
        let second = trial.start()
        trial.step("of the first", first)
        trial.finish(.success(try report()), file: file, first)
        XCTAssertEqual(trial.state, .running("starting"))
        trial.finish(.failure(UserError("no")), file: file, second)
        XCTAssertEqual(trial.state, .failed("no"))
    }

    func testAReportThatCannotBeWritten() throws {
        var trial = Trial()
        trial.finish(.success(try report()), file: file.appendingPathComponent("none"), trial.start())
        guard case .failed(let why) = trial.state else { return XCTFail("\(trial.state)") }
        XCTAssertFalse(why.contains("\n"))
    }

    func testSummaries() throws {
        XCTAssertEqual(try report(passed: false, timed: false).summary, "Not timed: wrong")
        XCTAssertEqual(try report(passed: false).summary, "p50 1.23 ms of 99 runs; the self-test failed")
    }

    func testArgumentsOfALaunchForTheHarness() throws {
        let home = URL(fileURLWithPath: "/home")
        func launch(_ words: [String]) throws -> Launch? { try Launch(arguments: ["app"] + words, home: home) }
        let words = ["--benchmark", "Documents/b/model.mlpackage", "--report", "Documents/b/report.json", "--seconds", "3.5"]
        let read = try XCTUnwrap(launch(words))
        XCTAssertEqual(read.package.path, "/home/Documents/b/model.mlpackage")
        XCTAssertEqual(read.report.path, "/home/Documents/b/report.json")
        XCTAssertEqual(read.leastDuration, 3_500_000_000)
        XCTAssertFalse(read.force)
        XCTAssertEqual(try launch(words + ["--force"])?.force, true)
        XCTAssertNil(try launch([]))
        XCTAssertNil(try launch(["-NSDocumentRevisionsDebugMode", "YES"]))  // as Xcode starts apps
        let cases = [
            ("'--seconds' is unknown or lacks", Array(words.dropLast())), ("'--threads' is unknown", words + ["--threads", "1"]),
            ("--benchmark and --report are needed", Array(words.prefix(2))),
            ("model.pte is none", ["--benchmark", "model.pte", "--report", "r"]),
            ("--seconds must be", Array(words.dropLast()) + ["nan"]), ("--seconds must be", Array(words.dropLast()) + ["-1"]),
        ]
        for (words, arguments) in cases {
            let said = refusal { _ = try launch(arguments) }
            XCTAssertTrue(said.contains(words), said)
        }
    }
}
