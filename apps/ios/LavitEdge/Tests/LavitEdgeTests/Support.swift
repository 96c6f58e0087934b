import Foundation
import XCTest

@testable import LavitEdge

/// Files that the tests of every language read: LAVIT_EDGE_GOLDEN, or tests/golden of the checkout that this file is in.
let goldenFolder: URL = {
    if let path = ProcessInfo.processInfo.environment["LAVIT_EDGE_GOLDEN"] { return URL(fileURLWithPath: path) }
    var root = URL(fileURLWithPath: #filePath)
    for _ in 0..<6 { root.deleteLastPathComponent() }
    return root.appendingPathComponent("tests/golden")
}()

func goldenBytes(_ name: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: goldenFolder.appendingPathComponent(name)))
}

func goldenJSON(_ name: String) throws -> JSON {
    try JSON(text: String(decoding: goldenBytes(name), as: UTF8.self), source: name)
}

/// A file that the Python tests hand over.
func handedOver(_ variable: String) throws -> URL {
    guard let path = ProcessInfo.processInfo.environment[variable] else {
        throw XCTSkip("\(variable) is not set; tests/apps/test_ios_package.py sets it")
    }
    return URL(fileURLWithPath: path)
}

/// JSON as it may be written, floating point included; the package itself writes canonical JSON of integers only.
func text(_ value: JSON) throws -> String {
    switch value {
    case .int(let number): return "\(number)"
    case .double(let number): return "\(number)"
    case .array(let values): return "[" + (try values.map(text)).joined(separator: ",") + "]"
    case .object(let fields):
        let parts = try fields.sorted { $0.key < $1.key }.map { try "\(text(.string($0.key))):\(text($0.value))" }
        return "{" + parts.joined(separator: ",") + "}"
    default: return String(decoding: try value.canonical(), as: UTF8.self)
    }
}

/// The text of an error, which must be one line.
func refusal(_ line: UInt = #line, of work: () throws -> Void) -> String {
    do {
        try work()
        XCTFail("nothing was refused", line: line)
        return ""
    } catch let error as UserError {
        XCTAssertFalse(error.description.contains("\n"), line: line)
        return error.description
    } catch {
        XCTFail("\(error)", line: line)
        return ""
    }
}

func told() throws -> JSON {
    try JSON(text: String(contentsOf: handedOver("LAVIT_EDGE_TOLD"), encoding: .utf8), source: "told")
}

func contractText(_ changes: [String: JSON] = [:]) throws -> String {
    var fields: [String: JSON] = [
        "format": "lavit_edge.contract/1", "size": 64, "labels": ["cat", "château", "犬"], "resize": "crop",
        "interpolation": "bilinear", "crop_fraction": .double(0.875),
        "mean": [.double(0.5), .double(0.25), 0], "std": [.double(0.5), 1, 1],
    ]
    fields.merge(changes) { $1 }
    return try text(.object(fields))
}

/// Metadata as an exporter would write it, of four pictures of different sizes.
func madeMetadata() throws -> [String: String] {
    let contract = try InputContract(json: contractText())
    var (header, data): ([String: JSON], [UInt8]) = ([:], [])
    func add(_ name: String, _ dtype: String, _ shape: [Int], _ bytes: [UInt8]) {
        let offsets: JSON = [.int(data.count), .int(data.count + bytes.count)]
        header[name] = ["dtype": .string(dtype), "shape": JSON(shape), "data_offsets": offsets]
        data += bytes
    }
    for index in 0..<4 {
        let (width, height) = (70 + 9 * index, 80 - 5 * index)
        let pixels = (0..<3 * width * height).map { UInt8(truncatingIfNeeded: (($0 + index) &* 2_654_435_761) >> 16) }
        let picture = try XCTUnwrap(Picture(width: width, height: height, pixels: pixels))
        let square = try FrameConverter(contract: contract).input(from: picture)
        add("picture.\(index)", "U8", [height, width, 3], pixels)
        add("sample.\(index)", "U8", [16, 16, 3], square.sample())
        add(
            "logits.\(index)", "F32", [3],
            madeLogits(index).flatMap { withUnsafeBytes(of: $0.bitPattern.littleEndian, Array.init) })
    }
    header["__metadata__"] = ["golden": .string(try text(.object(madeFacts)))]
    let provenance: JSON = [
        "format": "lavit_edge.provenance/1", "precision": "int8", "checkpoint": ["name": "made"], "val_top1": .double(0.8985),
    ]
    return [
        "org.lavit_edge.contract": try contractText(),
        "org.lavit_edge.provenance": try text(provenance),
        "org.lavit_edge.golden": Data(safetensors(header, data)).base64EncodedString(),
        "org.lavit_edge.digest": "org.lavit_edge.sha256:" + String(repeating: "0", count: 64),
        "com.github.apple.coremltools.version": "9.0",
    ]
}

/// Of its golden pictures.
let madeFacts: [String: JSON] = [
    "format": "lavit_edge.golden/2", "names": ["a", "b", "c", "d"], "tolerance_steps": [8, 8, 8, 8],
    "step": .double(10.5 / 255), "close_steps": .double(0.1), "close_pictures": 2,
]

/// Of a package with that metadata; digests of one digit. What it is and what it says differ in a damaged one.
func madeSeal(content: String = "0", stored: String = "0") -> Seal {
    let digits = [content, stored, "2"].map { String(repeating: $0, count: 64) }
    return Seal(bytes: 100, sha256: digits[2], content: digits[0], stored: digits[1])
}

func madeLogits(_ index: Int) -> [Float] {
    [Float(index), 2.5 - Float(index), 10]
}

func safetensors(_ header: [String: JSON], _ data: [UInt8]) -> [UInt8] {
    let head = Array(((try? text(.object(header))) ?? "").utf8)
    return withUnsafeBytes(of: UInt64(head.count).littleEndian, Array.init) + head + data
}

/// A model that knows the golden pictures: it gives the logits expected for them, or `answers`, changed by `change`.
final class Echo: Model {
    private let samples: [[UInt8]]
    private let answers: [[Float]]
    private let change: ([Float]) -> [Float]
    private(set) var inputs: [Picture] = []

    init(_ payload: Payload, answers: [[Float]]? = nil, change: @escaping ([Float]) -> [Float] = { $0 }) {
        samples = payload.golden.map(\.sample)
        self.answers = answers ?? payload.golden.map(\.logits)
        self.change = change
    }

    func setInput(_ picture: Picture) {
        inputs.append(picture)
    }

    func run() throws -> [Float] {
        let sample = try XCTUnwrap(inputs.last).sample()
        return change(answers[samples.firstIndex(of: sample) ?? 0])
    }
}
