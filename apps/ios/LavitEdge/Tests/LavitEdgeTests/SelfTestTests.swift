import XCTest

@testable import LavitEdge

final class SelfTestTests: XCTestCase {
    func testPasses() throws {
        let payload = try Payload(metadata: madeMetadata())
        let model = Echo(payload)
        let tested = try SelfTest(payload, model: model)
        XCTAssertTrue(tested.passed)
        XCTAssertEqual(tested.checks.count, 9)
        XCTAssertEqual([tested.pictures, tested.sameTop1], [4, 4])
        XCTAssertEqual(tested.worst, 0)
        XCTAssertNil(tested.failure)
        XCTAssertEqual(model.inputs.map { [$0.width, $0.height] }, [[Int]](repeating: [64, 64], count: 4))
        let report = tested.report(sealProblem: nil, forced: true)
        let expected: JSON = [
            "passed": true, "pictures": 4, "same_top1": 4, "worst_millisteps": 0, "forced": false, "detail": nil,
        ]
        XCTAssertEqual(report, expected)
    }

    func testLogitsWithinAndBeyondTheTolerance() throws {
        let payload = try Payload(metadata: madeMetadata())
        let step = Float(payload.step)
        // a third of a change of one logit goes when the mean is taken off
        let near = try SelfTest(payload, model: Echo(payload) { [$0[0], $0[1] + 1.5 * 7.9 * step, $0[2]] })
        XCTAssertEqual(near.failure, "close pictures: 0 of 4 pictures within 0.1 steps, 2 needed")
        XCTAssertEqual(try XCTUnwrap(near.worst), 7.9, accuracy: 0.001)
        let far = try SelfTest(payload, model: Echo(payload) { [$0[0], $0[1] - 1.5 * 8.1 * step, $0[2]] })
        XCTAssertFalse(far.passed)
        XCTAssertEqual(far.failure, "a: logits: at most 8.10 steps off, 8 allowed: label 'château' differs most")
        XCTAssertEqual(far.report(sealProblem: nil, forced: true)["worst_millisteps"], 8100)
        XCTAssertEqual(far.report(sealProblem: nil, forced: true)["forced"], true)
    }

    /// Answers in the order in which they are asked for.
    private final class Answers: Model {
        private var rest: [[Float]]

        init(_ answers: [[Float]]) { rest = answers }

        func setInput(_ picture: Picture) {}

        func run() -> [Float] { rest.removeFirst() }
    }

    func testTheCasesThatTheTestsOfEveryLanguageRead() throws {
        let told = try goldenJSON("selftest.json")
        let cases = try XCTUnwrap(told["cases"]?.array)
        XCTAssertGreaterThanOrEqual(cases.count, 20)
        for facts in cases {
            let format = try XCTUnwrap(facts["payload"]?.string)
            guard case .object(let texts)? = told["payloads"]?[format] else { return XCTFail("no payload \(format)") }
            let metadata = texts.compactMapValues(\.string).map { ("org.lavit_edge.\($0)", $1) }
            let payload = try Payload(metadata: Dictionary(uniqueKeysWithValues: metadata))
            let answers = try XCTUnwrap(facts["answers"]?.array).map { ($0.array ?? []).map { Float($0.number ?? .nan) } }
            let tested = try SelfTest(payload, model: Answers(answers))
            let name = "\(facts["name"]?.string ?? ""), format \(format)"
            XCTAssertEqual(tested.checks.first { !$0.passed }?.name, facts["failed"]?.string, name)
            XCTAssertEqual(tested.sameTop1, facts["same_top1"]?.int, name)
            XCTAssertEqual(tested.report(sealProblem: nil, forced: false)["worst_millisteps"], facts["worst_millisteps"], name)
        }
    }

    /// As ``Echo``, with classes.
    private struct Classifier: Model {
        let echo: Echo
        let labels: [String]?

        func setInput(_ picture: Picture) { echo.setInput(picture) }

        func run() throws -> [Float] { try echo.run() }
    }

    func testExchangedClassesAreFound() throws {
        let payload = try Payload(metadata: madeMetadata())
        let labels = payload.contract.labels
        for (given, passes) in [(labels, true), ([labels[1], labels[0], labels[2]], false), ([], false)] {
            let tested = try SelfTest(payload, model: Classifier(echo: Echo(payload), labels: given))
            XCTAssertEqual(tested.passed, passes)
            XCTAssertEqual(tested.checks.last?.name, "labels")
        }
    }

    func testLogitsThatAreNone() throws {
        let payload = try Payload(metadata: madeMetadata())
        let broken: [([Float]) -> [Float]] = [
            { _ in [] }, { $0 + [1] }, { [$0[0], .nan, $0[2]] }, { [$0[0], .infinity, $0[2]] },
        ]
        for change in broken {
            let tested = try SelfTest(payload, model: Echo(payload, change: change))
            XCTAssertFalse(tested.passed)
            XCTAssertNil(tested.worst)
            XCTAssertEqual(tested.report(sealProblem: nil, forced: false)["worst_millisteps"], JSON.null)
        }
    }

    func testSwappedChannelsAreFound() throws {
        let payload = try Payload(metadata: madeMetadata())
        let golden = payload.golden[0]
        var picture = try FrameConverter(contract: payload.contract).input(from: golden.picture)
        XCTAssertTrue(SelfTest.checkInput(golden, picture).passed)
        for at in stride(from: 0, to: picture.pixels.count, by: 3) { picture.pixels.swapAt(at, at + 2) }
        let check = SelfTest.checkInput(golden, picture)
        XCTAssertFalse(check.passed)
        XCTAssertTrue(check.found.contains("1 allowed: resizing or channel order differs"))
    }

    func testABrokenSealComesFirst() throws {
        let payload = try Payload(metadata: madeMetadata())
        let report = try SelfTest(payload, model: Echo(payload)).report(sealProblem: "broken", forced: true)
        XCTAssertEqual([report["passed"], report["forced"], report["detail"]], [false, true, "broken"])
    }

    /// This machine's preprocessing of the golden pictures of an artifact that the exporter wrote.
    func testARealArtifact() throws {
        let payload = try Payload(metadata: artifactMetadata())
        let tested = try SelfTest(payload, model: Echo(payload))
        XCTAssertTrue(tested.passed, tested.failure ?? "")
        print("real artifact: \(tested.checks.map(\.found).joined(separator: "; "))")
    }
}
