import XCTest

@testable import LavitEdge

final class ContractTests: XCTestCase {
    func testFields() throws {
        let contract = try InputContract(json: contractText())
        XCTAssertEqual(contract.size, 64)
        XCTAssertEqual(contract.labels, ["cat", "château", "犬"])
        XCTAssertEqual(contract.resize, .crop)
        XCTAssertEqual(contract.interpolation, .bilinear)
        XCTAssertEqual(contract.cropFraction, 0.875)
        XCTAssertEqual(contract.sha256, sha256(Array(try contractText().utf8)))
    }

    func testWhatIsLeftOutIsStandard() throws {
        let contract = try InputContract(json: #"{"format":"lavit_edge.contract/1","size":37,"labels":["a"]}"#)
        XCTAssertEqual(contract.size, 37)
        XCTAssertEqual(contract.resize, .squash)
        XCTAssertEqual(contract.interpolation, .bicubic)
        XCTAssertEqual(contract.cropFraction, 1)
    }

    func testGoldenDecisions() throws {
        let listed = try XCTUnwrap(try goldenJSON("decisions.json")["contracts"]?.array)
        XCTAssertGreaterThan(listed.count, 15)
        for facts in listed {
            let text = try XCTUnwrap(facts["text"]?.string)
            if facts["refused"] == true {
                XCTAssertTrue(refusal { _ = try InputContract(json: text) }.hasPrefix("contract: "), text)
            } else {
                let contract = try InputContract(json: text)
                XCTAssertEqual(contract.temperature, facts["temperature"]?.number)
                XCTAssertEqual(contract.threshold, facts["threshold"]?.number)
            }
        }
    }

    func testLabelsThatOnlyLookAlikeAreTwo() throws {
        let labels: JSON = ["\u{E9}", "e\u{301}"]
        XCTAssertEqual(try InputContract(json: contractText(["labels": labels])).labels.count, 2)
    }

    func testWhatIsNoContract() throws {
        let cases: [(String, String, JSON)] = [
            ("expected an object with format", "format", "lavit_edge.contract/3"),
            ("expected an object with format", "format", nil),
            ("unknown field 'colour'", "colour", "RGB"), ("size", "size", 0), ("size", "size", -32), ("size", "size", 8192),
            ("size", "size", .double(64)), ("size", "size", "64"), ("labels", "labels", []), ("labels", "labels", ["a", ""]),
            ("labels", "labels", ["a", 1]), ("labels", "labels", "ab"), ("labels", "labels", [" \u{3000}"]),
            ("twice", "labels", ["a", "b", "a"]), ("control", "labels", ["a\nb"]), ("resize", "resize", "stretch"),
            ("resize", "resize", nil), ("interpolation", "interpolation", 1), ("crop_fraction", "crop_fraction", 0),
            ("crop_fraction", "crop_fraction", 2), ("crop_fraction", "crop_fraction", "1"), ("mean", "mean", [0, 0]),
            ("mean", "mean", [0, 0, "0"]), ("std", "std", [1, 1, 0]), ("std", "std", 1),
        ]
        for (words, name, value) in cases {
            let text = try contractText([name: value])
            XCTAssertTrue(refusal { _ = try InputContract(json: text) }.contains(words), "\(name) \(value)")
        }
        for text in ["[]", "1", "", "{}"] {
            XCTAssertTrue(refusal { _ = try InputContract(json: text) }.hasPrefix("contract:"), text)
        }
    }
}
