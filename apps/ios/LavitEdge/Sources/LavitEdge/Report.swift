import Foundation

/// A benchmark report (lavit_edge/benchmark/report.schema.json). All its numbers are integers, so that equal reports have equal bytes
/// in every language.
public struct Report: Sendable {
    static let format = "lavit_edge.report/1"

    /// Fields that a comparison should know; those that are null are named in `lacks`.
    static let comparable = [
        "artifact.content_sha256", "artifact.contract_sha256", "artifact.precision", "conditions.after.thermal",
        "conditions.before.power", "conditions.before.thermal", "device.cpu", "device.cpu_features", "device.name",
        "device.os_version", "harness.build", "memory.peak_bytes", "preprocessing", "runtime.version", "settings.threads",
    ]

    /// The report's fields.
    public let json: JSON

    /// Gives a report what every report has: format, id, `lacks`, digest.
    ///
    /// - Throws: ``UserError`` for a number that is no integer.
    init(_ fields: [String: JSON]) throws {
        var fields = fields
        fields["format"] = .string(Self.format)
        fields["id"] = .string(UUID().uuidString.lowercased())
        fields["lacks"] = .array(Self.lacks(.object(fields)).map { .string($0) })
        fields["sha256"] = .string(try Self.digest(.object(fields)))
        json = .object(fields)
    }

    /// Those fields of ``comparable`` that are null.
    static func lacks(_ report: JSON) -> [String] {
        comparable.filter { path in
            let value = path.split(separator: ".").reduce(report) { $0[String($1)] ?? .null }
            return value == .null
        }
    }

    /// SHA-256 of the canonical JSON of all but the report's own `sha256`.
    static func digest(_ report: JSON) throws -> String {
        guard case .object(var fields) = report else { throw UserError("a report is an object") }
        fields["sha256"] = nil
        return sha256(try JSON.object(fields).canonical())
    }

    /// The time in UTC, to a second.
    static func now() -> String {
        ISO8601DateFormatter().string(from: Date())
    }

    /// Writes the report, whole or not at all.
    ///
    /// - Throws: what Foundation says if it cannot.
    public func write(to file: URL) throws {
        try Data(json.canonical() + [0x0A]).write(to: file, options: .atomic)
    }
}
