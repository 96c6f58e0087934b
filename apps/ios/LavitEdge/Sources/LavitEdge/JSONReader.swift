/// Reads JSON (RFC 8259) and nothing else: no NaN, no comma too many, no name twice, no half of a surrogate pair.
struct JSONReader {
    private static let deepest = 64

    private let bytes: [UInt8]
    private var at = 0
    private var depth = 0

    private init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    /// The value of a JSON text in UTF-8; `source` names it in errors.
    ///
    /// - Throws: ``UserError`` if it is not JSON, or nested more than 64 deep, or has a number that no `Double` holds.
    static func read(_ bytes: [UInt8], source: String) throws -> JSON {
        var reader = JSONReader(bytes)
        do {
            let value = try reader.value()
            reader.skipSpace()
            guard reader.at == bytes.count else { throw UserError("something follows the value") }
            return value
        } catch let error as UserError {
            throw UserError("\(source) is not JSON (\(error) at byte \(reader.at))")
        }
    }

    private var next: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D { at += 1 }
    }

    private mutating func take(_ letter: Unicode.Scalar) throws {
        guard next == UInt8(ascii: letter) else { throw UserError("expected '\(letter)'") }
        at += 1
    }

    private mutating func took(_ letter: Unicode.Scalar) -> Bool {
        skipSpace()
        guard next == UInt8(ascii: letter) else { return false }
        at += 1
        return true
    }

    private mutating func value() throws -> JSON {
        skipSpace()
        switch next {
        case UInt8(ascii: "{"): return try nested { try $0.object() }
        case UInt8(ascii: "["): return try nested { try $0.array() }
        case UInt8(ascii: "\""): return .string(try text())
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        case nil: throw UserError("the text ends early")
        default: return try number()
        }
    }

    private mutating func nested(_ read: (inout JSONReader) throws -> JSON) throws -> JSON {
        at += 1
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.deepest else { throw UserError("nested too deeply") }
        return try read(&self)
    }

    private mutating func word(_ word: String, _ value: JSON) throws -> JSON {
        for letter in word.unicodeScalars { try take(letter) }
        return value
    }

    private mutating func array() throws -> JSON {
        var values: [JSON] = []
        if took("]") { return .array(values) }
        repeat { values.append(try value()) } while took(",")
        try take("]")
        return .array(values)
    }

    private mutating func object() throws -> JSON {
        var fields: [String: JSON] = [:]
        if took("}") { return .object(fields) }
        repeat {
            skipSpace()
            let name = try text()
            skipSpace()
            try take(":")
            guard fields.updateValue(try value(), forKey: name) == nil else {
                throw UserError("an object has the same name twice")
            }
        } while took(",")
        try take("}")
        return .object(fields)
    }

    private mutating func number() throws -> JSON {
        let start = at
        if next == UInt8(ascii: "-") { at += 1 }
        if next == UInt8(ascii: "0") { at += 1 } else { try digits() }
        var whole = true
        if next == UInt8(ascii: ".") {
            whole = false
            at += 1
            try digits()
        }
        if next == UInt8(ascii: "e") || next == UInt8(ascii: "E") {
            whole = false
            at += 1
            if next == UInt8(ascii: "+") || next == UInt8(ascii: "-") { at += 1 }
            try digits()
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if whole, let value = Int(text) { return .int(value) }
        guard let value = Double(text), value.isFinite else { throw UserError("a number too large") }
        return .double(value)
    }

    private mutating func digits() throws {
        let start = at
        while let byte = next, (0x30...0x39).contains(byte) { at += 1 }
        guard at > start else { throw UserError(next == nil ? "the text ends early" : "expected a value") }
    }

    private mutating func text() throws -> String {
        try take("\"")
        var read: [UInt8] = []
        while let byte = next, byte != UInt8(ascii: "\"") {
            guard byte >= 0x20 else { throw UserError("a control character in a string") }
            at += 1
            if byte == UInt8(ascii: "\\") {
                read += String(try escaped()).utf8
            } else {
                read.append(byte)
            }
        }
        try take("\"")
        let text = String(decoding: read, as: UTF8.self)
        guard text.utf8.elementsEqual(read) else { throw UserError("a string that is not UTF-8") }  // it has been repaired
        return text
    }

    private mutating func escaped() throws -> Unicode.Scalar {
        guard let letter = next else { throw UserError("the text ends early") }
        at += 1
        switch letter {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(letter)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{C}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw UserError("an unknown escape")
        }
        var code = try unit()
        if (0xD800..<0xDC00).contains(code) {
            try take("\\")
            try take("u")
            let low = try unit()
            guard (0xDC00..<0xE000).contains(low) else { throw UserError("half of a surrogate pair") }
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw UserError("half of a surrogate pair") }
        return scalar
    }

    /// Four hexadecimal digits.
    private mutating func unit() throws -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw UserError("an unknown escape")
            }
            code = code << 4 + UInt32(digit)
            at += 1
        }
        return code
    }
}

extension JSON {
    /// The value of a JSON text; `source` names it in errors.
    ///
    /// - Throws: ``UserError`` if it is not JSON, has a name twice or half of a surrogate pair, or is nested beyond reason.
    public init(text: String, source: String) throws {
        self = try JSONReader.read(Array(text.utf8), source: source)
    }
}
