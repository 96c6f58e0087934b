import Foundation
import LavitEdge

/// Models that Core ML has compiled, so that only the first launch waits for it.
///
/// Each is kept by the digest of its package and the version of the system, which may compile it otherwise. Beside it lies the digest of
/// its own files: one that was damaged since, or half written, is not found.
public struct CompiledModels: Sendable {
    private let root: URL
    private let folder: URL

    /// In the caches of the app, which the system empties when it lacks room.
    public static let standard = CompiledModels(
        in: (FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask).first ?? FileManager.default.temporaryDirectory)
            .appendingPathComponent("org.lavit_edge.compiled", isDirectory: true))

    /// In a folder, which need not be there yet.
    public init(in folder: URL, system: String = ProcessInfo.processInfo.operatingSystemVersionString) {
        root = folder
        self.folder = folder.appendingPathComponent(sha256(Array(system.utf8)), isDirectory: true)
    }

    /// The compiled model of a package; nil if there is none that is whole.
    public func find(_ seal: Seal) -> URL? {
        let (model, note) = places(seal)
        guard let noted = try? Data(contentsOf: note), let found = try? Seal.digest(folder: model) else { return nil }
        return Data(found.utf8) == noted ? model : nil
    }

    /// Moves the compiled model of a package here, and forgets those of other systems; gives its place, which is the old one where
    /// nothing can be written.
    func keep(_ made: URL, for seal: Seal) -> URL {
        let files = FileManager.default
        let (model, note) = places(seal)
        do {
            for other in (try? files.contentsOfDirectory(at: root, includingPropertiesForKeys: nil)) ?? []
            where other.lastPathComponent != folder.lastPathComponent {
                try files.removeItem(at: other)
            }
            try files.createDirectory(at: folder, withIntermediateDirectories: true)
            let digest = try Seal.digest(folder: made)
            for old in [note, model] where files.fileExists(atPath: old.path) { try files.removeItem(at: old) }
            try files.moveItem(at: made, to: model)
            try Data(digest.utf8).write(to: note, options: .atomic)
            return model
        } catch {
            return files.fileExists(atPath: made.path) ? made : model
        }
    }

    private func places(_ seal: Seal) -> (model: URL, note: URL) {
        let name = folder.appendingPathComponent(seal.sha256)
        return (URL(fileURLWithPath: name.path + ".mlmodelc", isDirectory: true), name.appendingPathExtension("sha256"))
    }
}
