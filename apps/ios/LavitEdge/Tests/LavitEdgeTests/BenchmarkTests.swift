import XCTest

@testable import LavitEdge

/// A model whose runs take as long as it says, by a clock of its own.
private final class Clocked: Model {
    private let inner: Echo
    private let durations: [Int]
    private(set) var now = 0
    private(set) var runs = 0

    init(_ inner: Echo, durations: [Int]) {
        (self.inner, self.durations) = (inner, durations)
    }

    func setInput(_ picture: Picture) {
        now += 1_000_000
        inner.setInput(picture)
    }

    func run() throws -> [Float] {
        now += durations[runs % durations.count]
        runs += 1
        return try inner.run()
    }
}

final class BenchmarkTests: XCTestCase {
    private func benchmark(_ seal: Seal? = nil) -> Benchmark {
        Benchmark(file: "model.mlpackage", seal: seal ?? madeSeal(), runtimeVersion: "17.0", backend: "all", version: "0.1.0")
    }

    /// A whole run with a model of those durations.
    private func run(
        _ made: Benchmark, durations: [Int] = [1_000_000], change: @escaping ([Float]) -> [Float] = { $0 }
    ) throws -> (JSON, [String]) {
        var (made, steps) = (made, [String]())
        let metadata = try madeMetadata()
        let model = Clocked(Echo(try Payload(metadata: metadata), change: change), durations: durations)
        made.clock = { model.now }
        return (try made.run(load: { (model, metadata) }, progress: { steps.append($0) }).json, steps)
    }

    func testTheOrderAndTheFigures() throws {
        var made = benchmark()
        made.leastDuration = 100_000_000
        made.notes = ["a\nnote"]
        made.power = { Device.Power(onMains: false, batteryPermille: 500) }
        let (report, steps) = try run(made, durations: [30_000_000])
        XCTAssertEqual(steps, ["loading the model", "self-test", "warming up", "measuring"])
        XCTAssertEqual(report["load"]?["first_inference_ns"], 30_000_000)
        XCTAssertEqual(report["settings"]?["warmup"]?["runs"], 34)  // the first to pass a second
        XCTAssertEqual(report["latency"]?["runs"], 50)
        XCTAssertEqual(report["latency"]?["p50_ns"], 30_000_000)
        XCTAssertEqual(report["latency"]?["duration_ns"], 1_500_000_000)
        XCTAssertEqual(report["preprocessing"], ["frame": "640x480 BGRA", "runs": 20, "p50_ns": 1_000_000])
        XCTAssertEqual(report["least_duration_met"], true)
        XCTAssertEqual(report["artifact"]?["top1_permille"], 898)  // half to even, as in Python
        XCTAssertEqual(report["artifact"]?["precision"], "int8")
        XCTAssertEqual(report["conditions"]?["before"]?["power"], "battery")
        XCTAssertEqual(report["conditions"]?["after"]?["battery_permille"], 500)
        XCTAssertEqual(report["notes"], ["a note"])
        XCTAssertEqual(report["sha256"]?.string, try Report.digest(report))
    }

    func testWarmingUpIsAtLeastThreeRunsAndASecond() throws {
        let (report, _) = try run(benchmark(), durations: [900_000_000])
        XCTAssertEqual(report["settings"]?["warmup"]?["runs"], 3)
        XCTAssertEqual(report["settings"]?["warmup"]?["duration_ns"], 2_700_000_000)
    }

    func testTheMeasurementGoesOnUntilItsDuration() throws {
        var made = benchmark()
        made.leastDuration = 1_000_000_000
        let (report, _) = try run(made, durations: [1_000_000, 3_000_000])
        XCTAssertEqual(report["latency"]?["runs"], 500)
        XCTAssertEqual(report["latency"]?["min_ns"], 1_000_000)
        XCTAssertEqual(report["latency"]?["max_ns"], 3_000_000)
    }

    func testAWrongModelGetsNoLatencyUnlessForced() throws {
        let wrong: ([Float]) -> [Float] = { $0.map { $0 * 2 } }
        let (report, steps) = try run(benchmark(), change: wrong)
        XCTAssertEqual(steps, ["loading the model", "self-test"])
        XCTAssertEqual(report["latency"], JSON.null)
        XCTAssertEqual(report["least_duration_met"], false)
        XCTAssertEqual(report["self_test"]?["passed"], false)
        var made = benchmark()
        made.force = true
        let (forced, _) = try run(made, change: wrong)
        XCTAssertEqual(forced["self_test"]?["forced"], true)
        XCTAssertNotEqual(forced["latency"], JSON.null)
    }

    func testADamagedPackageIsNotLoaded() throws {
        let damaged = madeSeal(content: "1")
        let said = refusal { _ = try benchmark(damaged).run(load: { throw UserError("it was loaded") }) }
        XCTAssertTrue(said.contains("is not what was exported"), said)
    }

    func testAnotherModelsPayloadIsNotMeasured() throws {
        let metadata = try madeMetadata()
        let other = benchmark(madeSeal(content: "1", stored: "1"))
        let said = refusal { _ = try other.run(load: { (Echo(try Payload(metadata: metadata)), metadata) }) }
        XCTAssertTrue(said.contains("the compiled model is another one's"), said)
    }

    /// At whatever point: while it loads, warms up, measures, or when all but the report is done.
    func testStoppedThereIsNoReport() throws {
        let metadata = try madeMetadata()
        for limit in [0, 1, 10, 1_050] {
            let model = Clocked(Echo(try Payload(metadata: metadata)), durations: [1_000_000])
            var (made, asked) = (benchmark(), 0)
            made.leastDuration = 50_000_000
            made.clock = { model.now }
            made.isStopped = {
                asked += 1
                return asked > limit
            }
            let said = refusal { _ = try made.run(load: { (model, metadata) }) }
            XCTAssertEqual(said, "the measurement was stopped; nothing is reported")
            XCTAssertEqual(asked, limit + 1)
        }
    }

    func testWhatALoaderThrowsIsThrown() {
        XCTAssertEqual(refusal { _ = try benchmark().run(load: { throw UserError("no such model") }) }, "no such model")
    }

    /// Reports with the real clock, which the Python tests read. The model gives what the artifact gave in Python's evaluator.
    func testReportsForPython() throws {
        let folder = try handedOver("LAVIT_EDGE_REPORTS")
        let metadata = try artifactMetadata()
        let payload = try Payload(metadata: metadata)
        let answers = try XCTUnwrap(told()["answers"]?.array).map { $0.array?.map { Float($0.number ?? .nan) } ?? [] }
        var made = try benchmark(Seal(package: handedOver("LAVIT_EDGE_PACKAGE")))
        made.leastDuration = 100_000_000
        func write(_ name: String, _ model: Echo) throws {
            try made.run(load: { (model, metadata) }).write(to: folder.appendingPathComponent(name))
        }
        try write("passed.json", Echo(payload, answers: answers))
        try write("failed.json", Echo(payload) { $0.map { -$0 } })
        made.force = true
        made.notes = ["forced, « été » 😀"]
        try write("forced.json", Echo(payload) { _ in [.nan] })
    }
}
