import XCTest

@testable import LavitEdge

final class ReportTests: XCTestCase {
    func testGoldenSeries() throws {
        let golden = try goldenJSON("report.json")
        let series = try XCTUnwrap(golden["series"]?.array)
        XCTAssertEqual(series.count, 4)
        for facts in series {
            var runs = Runs()
            let step = try XCTUnwrap(facts["step_ns"]?.int)
            for index in 0..<(try XCTUnwrap(facts["runs"]?.int)) {
                runs.append(start: index * step, sample: 5_000_000 + 7919 * index % 900_001)
            }
            XCTAssertEqual(runs.latency(), facts["latency"])
        }
        XCTAssertEqual(Runs().latency(), .null)
    }

    func testGoldenDigest() throws {
        let golden = try goldenJSON("report.json")
        XCTAssertEqual(try Report.digest(try XCTUnwrap(golden["document"])), golden["sha256"]?.string)
    }

    func testQuantilesByNearestRank() {
        XCTAssertEqual([0, 1, 500, 501, 1000].map { quantile([1, 2, 3, 4], permille: $0) }, [1, 1, 2, 3, 4])
    }

    func testLacksAreThoseOfTheSchema() throws {
        let root = goldenFolder.deletingLastPathComponent().deletingLastPathComponent()
        let file = root.appendingPathComponent("lavit_edge/benchmark/report.schema.json")
        let schema = try JSON(text: String(contentsOf: file, encoding: .utf8), source: "schema")
        XCTAssertEqual(Report.comparable, schema["properties"]?["lacks"]?["items"]?["enum"]?.array?.compactMap(\.string))
        XCTAssertEqual(Report.lacks(["artifact": [:]]), Report.comparable)
    }
}
