import XCTest

@testable import LavitEdge

final class FramesTests: XCTestCase {
    /// A frame of the golden files, while its bytes are there.
    private func with<T>(_ facts: JSON, _ work: (Frame) throws -> T) throws -> T {
        let name = try XCTUnwrap(facts["name"]?.string)
        return try goldenBytes("\(name).frame").withUnsafeBytes { bytes in
            let planes = try XCTUnwrap(facts["planes"]?.array).map { plane in
                let from = try XCTUnwrap(plane["offset"]?.int)
                let part = UnsafeRawBufferPointer(rebasing: bytes[from..<from + (try XCTUnwrap(plane["length"]?.int))])
                let (row, pixel) = (try XCTUnwrap(plane["row_stride"]?.int), try XCTUnwrap(plane["pixel_stride"]?.int))
                return Plane(bytes: part, rowStride: row, pixelStride: pixel)
            }
            let form = try XCTUnwrap(Frame.Format(rawValue: facts["format"]?.string ?? ""))
            let rotation = try XCTUnwrap(Frame.Rotation(rawValue: facts["rotation"]?.int ?? -1))
            let (width, height) = (try XCTUnwrap(facts["width"]?.int), try XCTUnwrap(facts["height"]?.int))
            let frame = try Frame(
                form, width: width, height: height, planes: planes, rotation: rotation, mirrored: facts["mirrored"] == true)
            return try work(frame)
        }
    }

    private func converter(_ facts: JSON) throws -> FrameConverter {
        FrameConverter(contract: try InputContract(json: text(try XCTUnwrap(facts["contract"]))))
    }

    func testGoldenFramesBecomeTheirInputs() throws {
        let listed = try XCTUnwrap(try goldenJSON("frames.json").array)
        XCTAssertEqual(listed.count, 32)
        var worst = 0
        for facts in listed {
            let name = facts["name"]?.string ?? ""
            let converter = try converter(facts)
            let input = try with(facts) { try converter.input(from: $0) }
            let expected = try goldenBytes("\(name).input")
            XCTAssertEqual(input.pixels.count, expected.count, name)
            let most = zip(input.pixels, expected).map { abs(Int($0) - Int($1)) }.max() ?? 255
            XCTAssertLessThanOrEqual(most, 1, name)
            worst = max(worst, most)
        }
        print("golden frames: \(listed.count), at most \(worst) of 255 off")
    }

    func testBuffersAreKeptAndAnInputThatIsHeldStaysAsItIs() throws {
        let listed = try XCTUnwrap(try goldenJSON("frames.json").array)
        let converter = try converter(listed[0])
        func address(_ picture: Picture) -> UnsafePointer<UInt8>? { picture.pixels.withUnsafeBufferPointer(\.baseAddress) }
        let first = try with(listed[0]) { address(try converter.input(from: $0)) }
        XCTAssertEqual(try with(listed[0]) { address(try converter.input(from: $0)) }, first)
        let held = try with(listed[0]) { try converter.input(from: $0) }
        let pixels = held.pixels
        XCTAssertNotEqual(try with(listed[2]) { try converter.input(from: $0) }, held)
        XCTAssertEqual(held.pixels, pixels)
    }

    func testRotationIsClockwiseAndMirroringComesAfter() throws {
        let bytes = (0..<6).flatMap { [UInt8](repeating: $0, count: 4) }  // 0 1 2 / 3 4 5
        let turns: [(Frame.Rotation, Bool, [UInt8])] = [
            (.none, false, [0, 1, 2, 3, 4, 5]), (.none, true, [2, 1, 0, 5, 4, 3]),
            (.quarter, false, [3, 0, 4, 1, 5, 2]), (.quarter, true, [0, 3, 1, 4, 2, 5]),
            (.half, false, [5, 4, 3, 2, 1, 0]), (.threeQuarters, false, [2, 5, 1, 4, 0, 3]),
        ]
        try bytes.withUnsafeBytes { bytes in
            let plane = Plane(bytes: bytes, rowStride: 12, pixelStride: 4)
            for (rotation, mirrored, expected) in turns {
                var picture = Picture()
                let frame = try Frame(.rgba, width: 3, height: 2, planes: [plane], rotation: rotation, mirrored: mirrored)
                frame.toRGB(into: &picture)
                XCTAssertEqual(stride(from: 0, to: 18, by: 3).map { picture.pixels[$0] }, expected)
            }
        }
    }

    func testApplesTwoPlanesAreThreeWithAStride() throws {
        let (luma, chroma): ([UInt8], [UInt8]) = ([100, 101, 102, 103], [90, 200])  // U, V
        try luma.withUnsafeBytes { luma in
            try chroma.withUnsafeBytes { chroma in
                let y = Plane(bytes: luma, rowStride: 2, pixelStride: 1)
                let u = Plane(bytes: chroma, rowStride: 2, pixelStride: 2)
                let v = Plane(bytes: UnsafeRawBufferPointer(rebasing: chroma[1...]), rowStride: 2, pixelStride: 2)
                var picture = Picture()
                try Frame(.yuv420, width: 2, height: 2, planes: [y, u, v]).toRGB(into: &picture)
                // 100 + 1.402 * 72, 100 + 0.344136 * 38 - 0.714136 * 72, 100 - 1.772 * 38
                XCTAssertEqual(Array(picture.pixels.prefix(3)), [201, 62, 33])
            }
        }
    }

    func testFramesThatCannotBe() throws {
        let bytes = [UInt8](repeating: 0, count: 24)
        bytes.withUnsafeBytes { bytes in
            func plane(_ row: Int, _ pixel: Int) -> Plane { Plane(bytes: bytes, rowStride: row, pixelStride: pixel) }
            let cases: [(String, () throws -> Frame)] = [
                ("rgba has 1 planes, not 0", { try Frame(.rgba, width: 3, height: 2, planes: []) }),
                ("pixels are none", { try Frame(.rgba, width: 0, height: 2, planes: [plane(12, 4)]) }),
                ("or too many", { try Frame(.rgba, width: .max, height: 2, planes: [plane(12, 4)]) }),
                ("too short for 3 x 3", { try Frame(.rgba, width: 3, height: 3, planes: [plane(12, 4)]) }),
                ("do not hold 3 pixels", { try Frame(.bgra, width: 3, height: 2, planes: [plane(8, 4)]) }),
                ("do not hold 3 pixels", { try Frame(.bgra, width: 3, height: 2, planes: [plane(12, .min)]) }),
                ("do not hold 3 pixels", { try Frame(.bgra, width: 3, height: 2, planes: [plane(.max, 4)]) }),
                ("too short", { try Frame(.nv21, width: 4, height: 4, planes: [plane(4, 1), plane(23, 2)]) }),
            ]
            for (words, make) in cases {
                XCTAssertTrue(refusal { _ = try make() }.contains(words), words)
            }
        }
    }

    func testPicturesTooLongAndThinToCrop() throws {
        let contract = try InputContract(json: contractText(["size": 4096]))
        let thin = try XCTUnwrap(Picture(width: 1, height: 200_000, pixels: [UInt8](repeating: 0, count: 600_000)))
        XCTAssertTrue(refusal { _ = try FrameConverter(contract: contract).input(from: thin) }.contains("too long and thin"))
    }
}
