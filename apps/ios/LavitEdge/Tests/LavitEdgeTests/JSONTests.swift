import XCTest

@testable import LavitEdge

final class JSONTests: XCTestCase {
    func testValues() throws {
        let text =
            #" { "a" : [ 1, -7, 0, 2.5, -0.0, 1e3, 9007199254740993, true, false, null ], "é\n\ud83d\ude00\/" : "\u00e9😀" } "#
        let numbers: [JSON] = [1, -7, 0, .double(2.5), .double(-0.0), .double(1000), 9_007_199_254_740_993]
        let expected: JSON = ["a": .array(numbers + [true, false, nil]), "é\n😀/": "é😀"]
        XCTAssertEqual(try JSON(text: text, source: "text"), expected)
    }

    func testWhatIsNotJSON() {
        let texts = [
            "", " ", "nul", "NaN", "Infinity", "-", "01", "1.", ".5", "1e", "+1", "1 2", "[1,]", "[,1]", "[1", "{\"a\":1,}",
            "{\"a\"}", "{a:1}", "{\"a\":1 \"b\":2}", "'a'", "\"a", "\"\t\"", "\"\\x\"", "\"\\u12\"", "\"\\u00é0\"", "\"\\ud800\"",
            "\"\\ud800\\n\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "1e999", "{\"a\":1,\"a\":1}", "{\"a\":1,\"\\u0061\":1}",
            "\u{FEFF}1", "1\0", String(repeating: "9", count: 400), String(repeating: "[", count: 100_000),
        ]
        for text in texts {
            XCTAssertTrue(
                refusal { _ = try JSON(text: text, source: "it") }.hasPrefix("it is not JSON ("), String(text.prefix(20)))
        }
    }

    func testBytesThatAreNotUTF8() {
        for bytes: [UInt8] in [
            [0x22, 0xFF, 0x22], [0x22, 0xC3, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xC0, 0xAF, 0x22],
        ] {
            XCTAssertTrue(refusal { _ = try JSONReader.read(bytes, source: "it") }.contains("UTF-8"))
        }
    }

    func testATruncatedTextThrowsWhereverItEnds() throws {
        let whole = Array(try contractText().utf8)
        for end in 0..<whole.count {
            XCTAssertThrowsError(try JSONReader.read(Array(whole[..<end]), source: "it")) { XCTAssertTrue($0 is UserError) }
        }
        XCTAssertNoThrow(try JSONReader.read(whole, source: "it"))
    }

    func testOneByteChangedIsReadOrRefusedAndNeverCrashes() throws {
        let whole = Array(try contractText().utf8)
        for at in 0..<whole.count {
            for byte: UInt8 in [0x00, 0x22, 0x2C, 0x39, 0x5B, 0x5C, 0x7B, 0x7D, 0x80, 0xFF] {
                var bytes = whole
                bytes[at] = byte
                do {
                    _ = try JSONReader.read(bytes, source: "it")
                } catch {
                    XCTAssertTrue(error is UserError)
                }
            }
        }
    }

    func testCanonical() throws {
        let value: JSON = ["b": [1, nil], "a\u{1F}\"\\": true, "\u{FB33}": 1, "😀": 2]
        // by UTF-16 the emoji, a pair from D83D on, is before FB33
        XCTAssertEqual(
            String(decoding: try value.canonical(), as: UTF8.self),
            "{\"a\\u001f\\\"\\\\\":true,\"b\":[1,null],\"😀\":2,\"\u{FB33}\":1}")
        for number: JSON in [.double(1), .int(1 << 53), .int(.min)] {
            XCTAssertTrue(refusal { _ = try JSON.array([number]).canonical() }.contains("canonical JSON"))
        }
    }

    func testSha256() {
        let known = [
            "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            String(repeating: "a", count: 1_000_000): "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ]
        for (text, digest) in known { XCTAssertEqual(sha256(Array(text.utf8)), digest, String(text.prefix(10))) }
    }
}
