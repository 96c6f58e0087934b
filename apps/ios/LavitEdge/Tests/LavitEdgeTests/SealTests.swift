import XCTest

@testable import LavitEdge

final class SealTests: XCTestCase {
    private var package = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        package = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: package.appendingPathComponent("b/c"), withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: package)
    }

    private func write(_ text: String, _ path: String) throws {
        try Data(text.utf8).write(to: package.appendingPathComponent(path))
    }

    func testDigest() throws {
        let blank = "org.lavit_edge.sha256:" + String(repeating: "0", count: 64)
        try write("x\(blank)y", "b/c/d")
        try write("1", "b/a")
        try write("2", "a")
        try write("3", "b-c")  // in the order of paths it is before b/a
        func lines(_ sealed: String) -> [UInt8] {
            let files = [("2", "a"), ("3", "b-c"), ("1", "b/a"), (sealed, "b/c/d")]
            return Array(files.map { "\(sha256(Array($0.utf8)))  \($1)\n" }.joined().utf8)
        }
        let content = sha256(lines("x\(blank)y"))
        XCTAssertTrue(try XCTUnwrap(Seal(package: package).problem(name: "it")).contains("it is not what was exported"))
        let sealed = "xorg.lavit_edge.sha256:\(content)y"
        try write(sealed, "b/c/d")
        let seal = try Seal(package: package)
        XCTAssertEqual(seal.content, content)
        XCTAssertEqual(seal.stored, content)
        XCTAssertEqual(seal.sha256, sha256(lines(sealed)))
        XCTAssertEqual(seal.bytes, 3 + sealed.utf8.count)
        XCTAssertNil(seal.problem(name: "it"))
        try write("4", "a")
        XCTAssertTrue(try XCTUnwrap(Seal(package: package).problem(name: "it")).contains("it is not what was exported"))
        try write(sealed, "a")
        XCTAssertTrue(refusal { _ = try Seal(package: package) }.contains("has 2 digests"))
    }

    func testPackagesThatCannotBe() throws {
        try write("org.lavit_edge.sha256:0", "a")
        XCTAssertTrue(try XCTUnwrap(Seal(package: package).problem(name: "it")).contains("it has no digest"))
        try FileManager.default.createSymbolicLink(at: package.appendingPathComponent("b/l"), withDestinationURL: package)
        XCTAssertTrue(refusal { _ = try Seal(package: package) }.contains("'b/l' is a link"))
        XCTAssertTrue(refusal { _ = try Seal(package: package.appendingPathComponent("none")) }.contains("no folder"))
        XCTAssertTrue(refusal { _ = try Seal(package: package.appendingPathComponent("a")) }.contains("no folder"))
    }
}
