import XCTest

@testable import LavitEdge

final class PayloadTests: XCTestCase {
    private let key = "org.lavit_edge.golden"

    func testEntries() throws {
        let payload = try Payload(metadata: madeMetadata())
        XCTAssertEqual(payload.contract.labels.count, 3)
        XCTAssertEqual(payload.provenance["checkpoint"]?["name"], "made")
        XCTAssertEqual(payload.golden.map(\.name), ["a", "b", "c", "d"])
        XCTAssertEqual(payload.golden.map(\.logits), (0..<4).map(madeLogits))
        XCTAssertEqual(payload.golden.map(\.tolerance), [8, 8, 8, 8])
        XCTAssertEqual([payload.step, payload.closeSteps], [10.5 / 255, 0.1])
        XCTAssertEqual(payload.closePictures, 2)
        XCTAssertEqual(payload.golden[1].picture.width, 79)
        XCTAssertEqual(payload.golden[1].picture.height, 75)
    }

    func testAMissingEntryIsNamed() throws {
        for name in ["contract", "provenance", "golden", "digest"] {
            var metadata = try madeMetadata()
            metadata["org.lavit_edge.\(name)"] = nil
            XCTAssertTrue(refusal { _ = try Payload(metadata: metadata) }.contains("entry '\(name)' is missing"))
        }
    }

    /// The golden file's header and data, changed.
    private func changed(_ change: (inout [String: JSON], inout [UInt8]) -> Void) throws -> [String: String] {
        var metadata = try madeMetadata()
        let file = [UInt8](try XCTUnwrap(Data(base64Encoded: try XCTUnwrap(metadata[key]))))
        let length = Int(file[0]) | Int(file[1]) << 8 | Int(file[2]) << 16
        guard case .object(var header) = try JSONReader.read(Array(file[8..<8 + length]), source: "header") else { return [:] }
        var data = Array(file[(8 + length)...])
        change(&header, &data)
        metadata[key] = Data(safetensors(header, data)).base64EncodedString()
        return metadata
    }

    func testGoldenFilesThatCannotBe() throws {
        func tensor(_ dtype: String, _ shape: [Int], _ offsets: [Int]) -> JSON {
            ["dtype": .string(dtype), "shape": JSON(shape), "data_offsets": JSON(offsets)]
        }
        let picture = 70 * 80 * 3
        let cases: [(String, (inout [String: JSON], inout [UInt8]) -> Void)] = [
            ("is damaged", { $1.removeLast() }), ("is damaged", { $1.append(0) }),
            ("is damaged", { header, _ in header["sample.0"] = tensor("U8", [16, 16, 3], [0, 768]) }),
            ("is damaged", { header, _ in header["sample.0"] = tensor("U8", [16, 16, 3], [768, 0]) }),
            ("is damaged", { header, _ in header["sample.0"] = tensor("U8", [16, -16, 3], [picture, picture + 768]) }),
            ("is damaged", { header, _ in header["sample.0"] = tensor("U8", [.max, .max], [picture, picture + 768]) }),
            ("is damaged", { header, _ in header["sample.0"] = tensor("U8", [16, 16, 3], [.min, .max]) }),
            ("is damaged", { header, _ in header["sample.0"] = 1 }),
            ("sample 0 must be", { header, _ in header["sample.0"] = tensor("U8", [768], [picture, picture + 768]) }),
            ("sample 0 must be", { header, _ in header["sample.0"] = tensor("I8", [16, 16, 3], [picture, picture + 768]) }),
            ("picture 0 must be", { header, _ in header["picture.0"] = tensor("U8", [1, 70 * 80, 3], [0, picture]) }),
            ("picture 0 must be", { header, _ in header["picture.0"] = tensor("U8", [80, 70, 3, 1], [0, picture]) }),
            ("tensor 'more' is unknown", { header, _ in header["more"] = tensor("U8", [0], [0, 0]) }),
            ("logits 0 must be", { $1.replaceSubrange(picture + 768..<picture + 772, with: [0, 0, 0xC0, 0x7F]) }),
            ("golden", { header, _ in header["__metadata__"] = nil }),
            ("golden", { header, _ in header["__metadata__"] = ["golden": "{}"] }),
            ("golden", { header, _ in header["__metadata__"] = ["golden": 1] }),
            ("at least 4", { header, _ in header["__metadata__"] = facts(["a", "b", "c"], 8) }),
            ("at least 4", { header, _ in header["__metadata__"] = facts(["a", "b", "c", 4], 8) }),
            ("picture 4 must be", { header, _ in header["__metadata__"] = facts(["a", "b", "c", "d", "e"], 8) }),
            ("positive number", { header, _ in header["__metadata__"] = facts(["a", "b", "c", "d"], 0) }),
            ("positive number", { header, _ in header["__metadata__"] = facts(["a", "b", "c", "d"], true) }),
            ("per picture", { header, _ in header["__metadata__"] = newFacts(["tolerance_steps": [8, 8, 8]]) }),
            ("positive number", { header, _ in header["__metadata__"] = newFacts(["tolerance_steps": [8, 8, 8, -8]]) }),
            ("step must be", { header, _ in header["__metadata__"] = newFacts(["step": 0]) }),
            ("close_steps must be", { header, _ in header["__metadata__"] = newFacts(["close_steps": nil]) }),
            ("close_pictures must be", { header, _ in header["__metadata__"] = newFacts(["close_pictures": 5]) }),
            (
                "all equal",
                { header, data in
                    for index in 0..<4 {
                        guard let from = header["logits.\(index)"]?["data_offsets"]?.array?[0].int else { continue }
                        data.replaceSubrange(from..<from + 12, with: [UInt8](repeating: 0, count: 12))
                    }
                }
            ),
        ]
        func facts(_ names: JSON, _ tolerance: JSON) -> JSON {
            let value: JSON = ["format": "lavit_edge.golden/1", "names": names, "tolerance_steps": tolerance]
            return ["golden": .string((try? text(value)) ?? "")]
        }
        func newFacts(_ changes: [String: JSON]) -> JSON {
            ["golden": .string((try? text(.object(madeFacts.merging(changes) { $1 }))) ?? "")]
        }
        for (index, (words, change)) in cases.enumerated() {
            let metadata = try changed(change)
            let said = refusal { _ = try Payload(metadata: metadata) }
            XCTAssertTrue(said.contains(words), "case \(index): \(said)")
        }
    }

    func testTruncatedGoldenFilesAreRefusedWhereverTheyEnd() throws {
        var metadata = try madeMetadata()
        let file = [UInt8](try XCTUnwrap(Data(base64Encoded: try XCTUnwrap(metadata[key]))))
        let length = Int(file[0]) | Int(file[1]) << 8
        for end in Array(0..<length + 16) + Array(stride(from: length + 16, to: file.count, by: 997)) {
            metadata[key] = Data(file[..<end]).base64EncodedString()
            XCTAssertTrue(refusal { _ = try Payload(metadata: metadata) }.hasPrefix("payload: "))
        }
    }

    func testTextsThatCannotBe() throws {
        let cases = [
            ("golden", "not base64!", "not base64"), ("golden", "", "is damaged"), ("provenance", "{}", "with format"),
            ("provenance", "{\"format\":\"lavit_edge.provenance/2\"}", "with format"), ("contract", "x", "is not JSON"),
            ("digest", "", "digest is none"), ("digest", "org.lavit_edge.sha256:12", "digest is none"),
        ]
        for (name, value, words) in cases {
            var metadata = try madeMetadata()
            metadata["org.lavit_edge.\(name)"] = value
            XCTAssertTrue(refusal { _ = try Payload(metadata: metadata) }.contains(words), words)
        }
    }

    /// Of an artifact that the exporter wrote: its metadata, and what Python says is in it.
    func testARealArtifact() throws {
        let metadata = try artifactMetadata()
        let told = try told()
        let payload = try Payload(metadata: metadata)
        XCTAssertEqual(payload.contract.sha256, told["contract_sha256"]?.string)
        XCTAssertEqual(payload.contract.labels, told["labels"]?.array?.compactMap(\.string))
        XCTAssertEqual(payload.golden.map(\.tolerance), told["tolerances"]?.array?.compactMap(\.number))
        XCTAssertEqual(payload.step, try XCTUnwrap(told["step"]?.number), accuracy: 1e-12)
        XCTAssertEqual(payload.digest, told["content_sha256"]?.string)
        XCTAssertEqual(payload.golden.map(\.name), told["names"]?.array?.compactMap(\.string))
        XCTAssertEqual(payload.golden.map { sha256($0.picture.pixels) }, told["pictures_sha256"]?.array?.compactMap(\.string))
        let converter = FrameConverter(contract: payload.contract)
        let inputs = try payload.golden.map { sha256(try converter.input(from: $0.picture).pixels) }
        XCTAssertEqual(inputs, told["inputs_sha256"]?.array?.compactMap(\.string))
        XCTAssertEqual(payload.golden.flatMap(\.logits), try XCTUnwrap(told["logits"]?.array).map { Float($0.number ?? .nan) })
    }

    func testTheSealOfARealPackage() throws {
        let told = try told()
        let package = try handedOver("LAVIT_EDGE_PACKAGE")
        let seal = try Seal(package: package)
        XCTAssertEqual(seal.bytes, told["bytes"]?.int)
        XCTAssertEqual(seal.sha256, told["sha256"]?.string)
        XCTAssertEqual(seal.content, told["content_sha256"]?.string)
        XCTAssertNil(seal.problem(name: "model.mlpackage"))
    }
}

func artifactMetadata() throws -> [String: String] {
    let text = try String(contentsOf: handedOver("LAVIT_EDGE_METADATA"), encoding: .utf8)
    guard case .object(let fields) = try JSON(text: text, source: "metadata") else { throw UserError("metadata is no object") }
    return fields.compactMapValues(\.string)
}
