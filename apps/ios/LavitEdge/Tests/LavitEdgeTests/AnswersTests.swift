import XCTest

@testable import LavitEdge

final class AnswersTests: XCTestCase {
    func testGoldenAnswers() throws {
        let listed = try XCTUnwrap(try goldenJSON("answers.json").array)
        XCTAssertEqual(listed.count, 12)
        for facts in listed {
            let logits = try numbers(facts["logits"]).map { Float($0) }
            let probabilities = softmax(logits)
            assertEqual(probabilities, try numbers(facts["softmax"]), accuracy: 1e-12)
            let top = facts["top"]?.array?.compactMap(\.int)
            XCTAssertEqual(topIndices(logits, count: 3), top)
            let labels = logits.indices.map { "label \($0)" }
            let seen = Seen(probabilities, best: 1, labels: labels, preparing: 1, running: 2)
            XCTAssertEqual(seen.answers.map(\.index), top)
            XCTAssertEqual(seen.answers.map(\.label), top?.map { "label \($0)" })
            XCTAssertEqual(seen.answers[0].probability, probabilities.max())
            XCTAssertEqual(seen.best, Answer(index: 1, label: "label 1", probability: probabilities[1]))
        }
    }

    func testGoldenDecisions() throws {
        let listed = try XCTUnwrap(try goldenJSON("decisions.json")["answers"]?.array)
        XCTAssertEqual(listed.count, 16)
        for facts in listed {
            let logits = try numbers(facts["logits"]).map { Float($0) }
            let (temperature, threshold) = (facts["temperature"]?.number ?? 0, facts["threshold"]?.number ?? 0)
            let labels = JSON.array(logits.indices.map { .string("label \($0)") })
            let contract = try InputContract(
                json: contractText([
                    "format": "lavit_edge.contract/2", "labels": labels, "temperature": .double(temperature),
                    "threshold": .double(threshold),
                ]))
            let probabilities = try LavitEdge.probabilities(logits, contract)
            assertEqual(probabilities, try numbers(facts["probabilities"]), accuracy: 1e-11)
            XCTAssertEqual(decide(probabilities, threshold: contract.threshold), facts["answer"]?.int)
        }
    }

    func testGoldenLiveViews() throws {
        let films = try XCTUnwrap(try goldenJSON("decisions.json")["live"]?.array)
        XCTAssertEqual(films.count, 4)
        for film in films {
            var steady = Steady(threshold: try XCTUnwrap(film["threshold"]?.number))
            let frames = try XCTUnwrap(film["frames"]?.array)
            XCTAssertGreaterThan(frames.count, 50)
            for frame in frames {
                steady.add(try numbers(frame["probabilities"]), at: try XCTUnwrap(frame["seconds"]?.number))
                assertEqual(steady.average, try numbers(frame["average"]), accuracy: 1e-11)
                XCTAssertEqual(steady.shown, frame["shown"]?.int)
            }
        }
    }

    private func numbers(_ value: JSON?) throws -> [Double] {
        try XCTUnwrap(value?.array).map { try XCTUnwrap($0.number) }
    }

    private func assertEqual(_ given: [Double], _ wanted: [Double], accuracy: Double, line: UInt = #line) {
        XCTAssertEqual(given.count, wanted.count, line: line)
        for (one, other) in zip(given, wanted) { XCTAssertEqual(one, other, accuracy: accuracy, line: line) }
    }

    func testOfEqualLogitsTheFirstIsFirst() {
        XCTAssertEqual(topIndices([1, 3, 3, 2, 3], count: 4), [1, 2, 4, 3])
        XCTAssertEqual(topIndices([1, 2], count: 5), [1, 0])
        XCTAssertEqual(decide([0.25, 0.375, 0.375], threshold: 0.375), 1)
        XCTAssertNil(decide([0.25, 0.375, 0.375], threshold: 0.4))
    }

    func testLogitsThatAreNone() throws {
        let contract = try InputContract(json: contractText(["labels": ["a", "b"]]))
        for logits: [Float] in [[1], [1, .nan], [1, .infinity], []] {
            XCTAssertTrue(refusal { _ = try probabilities(logits, contract) }.contains("for 2 labels"))
        }
    }
}
