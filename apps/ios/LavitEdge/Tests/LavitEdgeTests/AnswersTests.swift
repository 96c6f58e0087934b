import XCTest

@testable import LavitEdge

final class AnswersTests: XCTestCase {
    func testGoldenAnswers() throws {
        let listed = try XCTUnwrap(try goldenJSON("answers.json").array)
        XCTAssertEqual(listed.count, 12)
        for facts in listed {
            let logits = try XCTUnwrap(facts["logits"]?.array).map { Float(try XCTUnwrap($0.number)) }
            let expected = try XCTUnwrap(facts["softmax"]?.array).map { try XCTUnwrap($0.number) }
            for (given, wanted) in zip(softmax(logits), expected) { XCTAssertEqual(given, wanted, accuracy: 1e-12) }
            let top = facts["top"]?.array?.compactMap(\.int)
            XCTAssertEqual(topIndices(logits, count: 3), top)
            let labels = logits.indices.map { "label \($0)" }
            let given = try answers(logits, labels: labels, count: 3)
            XCTAssertEqual(given.map(\.index), top)
            XCTAssertEqual(given.map(\.label), top?.map { "label \($0)" })
            XCTAssertEqual(given[0].probability, try XCTUnwrap(expected.max()), accuracy: 1e-12)
        }
    }

    func testOfEqualLogitsTheFirstIsFirst() {
        XCTAssertEqual(topIndices([1, 3, 3, 2, 3], count: 4), [1, 2, 4, 3])
        XCTAssertEqual(topIndices([1, 2], count: 5), [1, 0])
    }

    func testLogitsThatAreNone() {
        for logits: [Float] in [[1], [1, .nan], [1, .infinity], []] {
            XCTAssertTrue(refusal { _ = try answers(logits, labels: ["a", "b"], count: 1) }.contains("for 2 labels"))
        }
    }
}
