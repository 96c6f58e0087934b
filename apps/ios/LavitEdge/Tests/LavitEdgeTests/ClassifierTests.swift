import XCTest

@testable import LavitEdge

/// What the app does with an artifact, from its bytes to a label, and with everything that an artifact can have wrong.
final class ClassifierTests: XCTestCase {
    private func made(
        _ metadata: [String: String], seal: Seal = madeSeal(), change: @escaping ([Float]) -> [Float] = { $0 }
    ) throws -> Classifier {
        let model = Echo(try Payload(metadata: madeMetadata()), change: change)
        return try Classifier(file: "model.mlpackage", seal: seal) { (model, metadata) }
    }

    func testLabelsComeFromTheArtifact() throws {
        let classifier = try made(madeMetadata())
        XCTAssertTrue(classifier.selfTest.passed)
        let seen = try classifier.classify(classifier.payload.golden[0].picture)
        XCTAssertEqual(seen.answers.map(\.label), ["犬", "château", "cat"])  // of logits 0, 2.5, 10
        XCTAssertEqual(seen.best, seen.answers[0])
        XCTAssertEqual(seen.probabilities, softmax([0, 2.5, 10]))
        XCTAssertGreaterThanOrEqual(min(seen.preparing, seen.running), 0)
        try [UInt8](repeating: 9, count: 4 * 70 * 80).withUnsafeBytes { bytes in
            let plane = Plane(bytes: bytes, rowStride: 280, pixelStride: 4)
            XCTAssertEqual(try classifier.classify(Frame(.bgra, width: 70, height: 80, planes: [plane])).answers.count, 3)
        }
    }

    func testBelowTheThresholdItIsNotSure() throws {
        for (threshold, sure) in [(0.5, true), (0.9, false)] {
            var metadata = try madeMetadata()
            metadata["org.lavit_edge.contract"] = try contractText([
                "format": "lavit_edge.contract/2", "temperature": 8, "threshold": .double(threshold),
            ])
            let classifier = try made(metadata)
            let seen = try classifier.classify(classifier.payload.golden[0].picture)  // 0.60 of logits 0, 2.5, 10 over 8
            XCTAssertEqual(seen.best?.label, sure ? "犬" : nil)
            XCTAssertEqual(seen.answers.map(\.label), ["犬", "château", "cat"])
        }
    }

    func testTimes() throws {
        let metadata = try madeMetadata()
        var now = 0
        let clock: () -> Int = {
            now += now + 1
            return now
        }
        let model = Echo(try Payload(metadata: metadata))
        let classifier = try Classifier(file: "m", seal: madeSeal(), clock: clock) { (model, metadata) }
        let seen = try classifier.classify(classifier.payload.golden[0].picture)
        XCTAssertEqual([seen.preparing, seen.running], [2, 4])  // of 1, 3, 7
    }

    func testAModelThatFailsItsSelfTestLabelsNothing() throws {
        let classifier = try made(madeMetadata()) { $0.reversed() }
        XCTAssertFalse(classifier.selfTest.passed)
        let said = refusal { _ = try classifier.classify(classifier.payload.golden[0].picture) }
        XCTAssertTrue(said.hasPrefix("self-test failed: a: logits: at most "), said)
    }

    func testLogitsThatAreNoneAreNoLabels() throws {
        var broken = false
        let classifier = try made(madeMetadata()) { broken ? [.nan, 0, 1] : $0 }
        broken = true
        XCTAssertTrue(refusal { _ = try classifier.classify(classifier.payload.golden[0].picture) }.contains("not finite"))
    }

    func testADamagedPackageIsNotLoaded() {
        let said = refusal {
            _ = try Classifier(file: "model.mlpackage", seal: madeSeal(content: "1")) { throw UserError("it was loaded") }
        }
        XCTAssertTrue(said.hasPrefix("model.mlpackage is not what was exported"), said)
    }

    func testArtifactsThatCannotBeUsed() throws {
        let newer = try contractText(["format": "lavit_edge.contract/3"])
        let cases: [(String, String, String?)] = [
            ("entry 'golden' is missing", "golden", nil),
            ("entry 'contract' is missing", "contract", nil),
            ("not 'lavit_edge.contract/3'; a newer version of the app may read it", "contract", newer),
            ("not 'lavit_edge.provenance/9'", "provenance", #"{"format":"lavit_edge.provenance/9"}"#),
            ("golden is damaged", "golden", "AAAA"),
            ("the compiled model is another one's", "digest", "org.lavit_edge.sha256:" + String(repeating: "a", count: 64)),
        ]
        for (words, entry, value) in cases {
            var metadata = try madeMetadata()
            metadata["org.lavit_edge.\(entry)"] = value
            let said = refusal { _ = try made(metadata) }
            XCTAssertTrue(said.contains(words), said)
        }
    }

    /// A contract that was exchanged, with the digest that belongs to the package: the hash of what is there is another one.
    func testAContractOfAnotherModel() throws {
        let package = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.copyItem(at: handedOver("LAVIT_EDGE_PACKAGE"), to: package)
        defer { try? FileManager.default.removeItem(at: package) }
        let model = package.appendingPathComponent("Data/com.apple.CoreML/model.mlmodel")
        var bytes = [UInt8](try Data(contentsOf: model))
        let old = Array(#""labels":[""#.utf8)
        let at = try XCTUnwrap(bytes.indices.first { bytes[$0...].starts(with: old) }) + old.count
        bytes[at] ^= 1  // the first letter of the first label
        try Data(bytes).write(to: model)
        let said = refusal {
            _ = try Classifier(file: "model.mlpackage", seal: Seal(package: package)) { throw UserError("it was loaded") }
        }
        XCTAssertTrue(said.contains("is not what was exported: its bytes have SHA-256"), said)
    }
}
