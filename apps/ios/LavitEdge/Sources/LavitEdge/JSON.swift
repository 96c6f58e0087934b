/// A JSON value, as it is written; what two readers may understand differently is refused. Both of Foundation's readers (Swift 6.0.3)
/// take an object with a name twice, a comma too many, a byte-order mark and a zero behind the value, and 64.0 for an integer.
public enum JSON: Equatable, Sendable {
    case null
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    /// The field of that name; nil if there is none, or if this is no object.
    public subscript(name: String) -> JSON? {
        guard case .object(let fields) = self else { return nil }
        return fields[name]
    }

    /// The text of a string, else nil.
    public var string: String? {
        guard case .string(let value) = self else { return nil }
        return value
    }

    /// The value of an integer, else nil.
    public var int: Int? {
        guard case .int(let value) = self else { return nil }
        return value
    }

    /// The value of a number, integer or not, else nil.
    public var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        default: nil
        }
    }

    /// The values of a list, else nil.
    public var array: [JSON]? {
        guard case .array(let values) = self else { return nil }
        return values
    }

    /// Canonical JSON (RFC 8785) in UTF-8, of what a report holds: sorted names, no white space, integers.
    ///
    /// - Throws: ``UserError`` for a number that is no integer or that JavaScript could not hold (2^53 and beyond).
    public func canonical() throws -> [UInt8] {
        var bytes: [UInt8] = []
        try write(to: &bytes)
        return bytes
    }

    private func write(to bytes: inout [UInt8]) throws {
        switch self {
        case .null: bytes += "null".utf8
        case .bool(let value): bytes += (value ? "true" : "false").utf8
        case .int(let value):
            guard value.magnitude < 1 << 53 else { throw UserError("\(value) is too large for canonical JSON") }
            bytes += String(value).utf8
        case .double(let value): throw UserError("\(value) is no integer; canonical JSON is written of integers alone")
        case .string(let value): Self.write(value, to: &bytes)
        case .array(let values):
            bytes.append(UInt8(ascii: "["))
            for (index, value) in values.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                try value.write(to: &bytes)
            }
            bytes.append(UInt8(ascii: "]"))
        case .object(let fields):
            bytes.append(UInt8(ascii: "{"))
            // by UTF-16, as the RFC has it; Swift's own order of strings is another
            let sorted = fields.sorted { $0.key.utf16.lexicographicallyPrecedes($1.key.utf16) }
            for (index, field) in sorted.enumerated() {
                if index > 0 { bytes.append(UInt8(ascii: ",")) }
                Self.write(field.key, to: &bytes)
                bytes.append(UInt8(ascii: ":"))
                try field.value.write(to: &bytes)
            }
            bytes.append(UInt8(ascii: "}"))
        }
    }

    private static func write(_ text: String, to bytes: inout [UInt8]) {
        let short: [UInt8: Character] = [8: "b", 9: "t", 10: "n", 12: "f", 13: "r", 34: "\"", 92: "\\"]
        bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            if let letter = short[byte] {
                bytes += "\\\(letter)".utf8
            } else if byte < 0x20 {
                bytes += "\\u00\(byte < 16 ? "0" : "")\(String(byte, radix: 16))".utf8
            } else {
                bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
    }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral, ExpressibleByNilLiteral,
    ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    /// A string.
    public init(stringLiteral value: String) { self = .string(value) }
    /// An integer.
    public init(integerLiteral value: Int) { self = .int(value) }
    /// A truth value.
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    /// null.
    public init(nilLiteral: ()) { self = .null }
    /// A list.
    public init(arrayLiteral elements: JSON...) { self = .array(elements) }
    /// An object; the names must differ.
    public init(dictionaryLiteral elements: (String, JSON)...) { self = .object(Dictionary(uniqueKeysWithValues: elements)) }

    /// A string, or null.
    public init(_ value: String?) { self = value.map { .string($0) } ?? .null }
    /// An integer, or null.
    public init(_ value: Int?) { self = value.map { .int($0) } ?? .null }
    /// A truth value, or null.
    public init(_ value: Bool?) { self = value.map { .bool($0) } ?? .null }
    /// A list of integers, or null.
    public init(_ values: [Int]?) { self = values.map { .array($0.map { .int($0) }) } ?? .null }
}
