import Foundation

/// The digest inside an artifact (lavit_edge/artifact/seal.py). It shows that a package is whole; check it before Core ML
/// compiles the package.
public struct Seal: Equatable, Sendable {
    private static let mark = Array("org.lavit_edge.sha256:".utf8)
    static let digitCount = 64

    /// Of all the package's files.
    public let bytes: Int
    /// SHA-256 of one line for each file in the order of their paths, `<sha256 of the file>  <path>\n`.
    public let sha256: String
    /// As ``sha256``, with the digest's own digits as zeros: what the package should say of itself.
    public let content: String
    /// What the package says of itself; nil if it says nothing.
    public let stored: String?
}

extension Seal {
    /// Reads a package, a folder such as `model.mlpackage`.
    ///
    /// - Throws: ``UserError`` if there is no such folder, it cannot be read, it holds a link, or it has more than one digest.
    public init(package: URL) throws {
        var (total, whole, blank) = (0, "", "")
        var found: [String] = []
        for path in try Self.files(package) {
            var contents = [UInt8](try Self.read(path, in: package))
            total += contents.count
            let actual = LavitEdge.sha256(contents)
            whole += "\(actual)  \(path)\n"
            let places = Self.digits(in: contents)
            for place in places {
                found.append(String(decoding: contents[place], as: UTF8.self))
                contents.replaceSubrange(place, with: repeatElement(UInt8(ascii: "0"), count: Self.digitCount))
            }
            blank += "\(places.isEmpty ? actual : LavitEdge.sha256(contents))  \(path)\n"
        }
        guard found.count <= 1 else {
            throw UserError("\(package.lastPathComponent) has \(found.count) digests; export it again")
        }
        bytes = total
        sha256 = LavitEdge.sha256(Array(whole.utf8))
        content = LavitEdge.sha256(Array(blank.utf8))
        stored = found.first
    }

    /// What is wrong with the package of that name, nil if it is what was exported.
    public func problem(name: String) -> String? {
        guard let stored else { return "\(name) has no digest; only an artifact exported by lavit-edge can test itself" }
        if stored == content { return nil }
        return
            "\(name) is not what was exported: its bytes have SHA-256 \(content.prefix(16))..., it says \(stored.prefix(16))..."
    }

    /// SHA-256 of all files of a folder, as ``sha256`` is of a package's.
    ///
    /// - Throws: ``UserError`` if it cannot be read, or holds a link.
    public static func digest(folder: URL) throws -> String {
        let lines = try files(folder).map { "\(LavitEdge.sha256([UInt8](try read($0, in: folder))))  \($0)\n" }
        return LavitEdge.sha256(Array(lines.joined().utf8))
    }

    /// Throws ``UserError`` unless a payload is that of the package itself: the contract of another would name the wrong labels.
    func check(_ payload: Payload, name: String) throws {
        guard payload.digest == stored else {
            throw UserError("\(name): the compiled model is another one's (it says \(payload.digest.prefix(16))...)")
        }
    }

    /// Where in a file digests stand, behind their mark.
    static func digits(in bytes: [UInt8]) -> [Range<Int>] {
        var places: [Range<Int>] = []
        var at = 0
        while let start = bytes[at...].firstIndex(of: mark[0]) {
            at = start + 1
            let digits = start + mark.count..<start + mark.count + digitCount
            guard digits.upperBound <= bytes.count, bytes[start..<digits.lowerBound].elementsEqual(mark) else { continue }
            guard bytes[digits].allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }) else { continue }
            places.append(digits)
            at = digits.upperBound
        }
        return places
    }

    private static func read(_ path: String, in folder: URL) throws -> Data {
        guard let data = try? Data(contentsOf: folder.appendingPathComponent(path)) else {
            throw UserError("\(folder.lastPathComponent): '\(path)' cannot be read")
        }
        return data
    }

    /// Paths of the files below a folder, in order.
    private static func files(_ package: URL) throws -> [String] {
        let name = package.lastPathComponent
        let keys: Set<URLResourceKey> = [.isSymbolicLinkKey, .isDirectoryKey, .isRegularFileKey]
        var (paths, folders) = ([String](), [""])
        while let folder = folders.popLast() {
            let inside = folder.isEmpty ? package : package.appendingPathComponent(folder)
            guard (try? inside.resourceValues(forKeys: keys).isDirectory) == true,
                let items = try? FileManager.default.contentsOfDirectory(at: inside, includingPropertiesForKeys: Array(keys))
            else { throw UserError("\(name) is no folder that can be read") }
            for item in items {
                let path = folder.isEmpty ? item.lastPathComponent : "\(folder)/\(item.lastPathComponent)"
                let kind = try? item.resourceValues(forKeys: keys)
                guard kind?.isSymbolicLink == false, kind?.isDirectory == true || kind?.isRegularFile == true else {
                    throw UserError("\(name): '\(path)' is a link or no plain file")
                }
                if kind?.isDirectory == true { folders.append(path) } else { paths.append(path) }
            }
        }
        return paths.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
    }
}
