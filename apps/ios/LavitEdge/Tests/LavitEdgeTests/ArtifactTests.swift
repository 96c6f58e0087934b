import XCTest

@testable import LavitEdge
@testable import LavitEdgeCoreML

final class ArtifactTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "/")

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws {
        try FileManager.default.removeItem(at: folder)
    }

    /// What Core ML would have made: a folder of two files.
    private func compiled(_ weight: String = "weight") throws -> URL {
        let made = folder.appendingPathComponent("made.mlmodelc")
        try FileManager.default.createDirectory(at: made.appendingPathComponent("weights"), withIntermediateDirectories: true)
        try Data("model".utf8).write(to: made.appendingPathComponent("model.mil"))
        try Data(weight.utf8).write(to: made.appendingPathComponent("weights/weight.bin"))
        return made
    }

    private func exists(_ place: URL) -> Bool { FileManager.default.fileExists(atPath: place.path) }

    func testWhatWasCompiledIsFoundAgain() throws {
        let (cache, seal) = (CompiledModels(in: folder.appendingPathComponent("cache"), system: "17.0"), madeSeal())
        XCTAssertNil(cache.find(seal))
        let made = try compiled()
        let kept = cache.keep(made, for: seal)
        XCTAssertFalse(exists(made))
        XCTAssertEqual(cache.find(seal), kept)
        XCTAssertEqual(kept.pathExtension, "mlmodelc")
        XCTAssertEqual(try String(contentsOf: kept.appendingPathComponent("weights/weight.bin"), encoding: .utf8), "weight")
        let other = Seal(bytes: 1, sha256: String(repeating: "f", count: 64), content: seal.content, stored: seal.stored)
        XCTAssertNil(cache.find(other))
    }

    func testOneThatIsNotWholeIsCompiledAnew() throws {
        let (cache, seal) = (CompiledModels(in: folder.appendingPathComponent("cache"), system: "17.0"), madeSeal())
        let kept = cache.keep(try compiled(), for: seal)
        let weight = kept.appendingPathComponent("weights/weight.bin")
        for damage in [{ try Data("weighs".utf8).write(to: weight) }, { try FileManager.default.removeItem(at: weight) }] {
            try damage()
            XCTAssertNil(cache.find(seal))
            XCTAssertEqual(cache.keep(try compiled(), for: seal), kept)
            XCTAssertEqual(cache.find(seal), kept)
        }
    }

    func testAnotherSystemCompilesAnewAndForgetsTheOlder() throws {
        let (place, seal) = (folder.appendingPathComponent("cache"), madeSeal())
        let (old, new) = (CompiledModels(in: place, system: "17.0"), CompiledModels(in: place, system: "18.0"))
        let kept = old.keep(try compiled(), for: seal)
        XCTAssertNil(new.find(seal))
        XCTAssertEqual(new.find(seal), nil)
        XCTAssertNotEqual(new.keep(try compiled(), for: seal), kept)
        XCTAssertFalse(exists(kept))
    }

    func testWithoutACacheTheModelStaysWhereItIs() throws {
        let file = folder.appendingPathComponent("file")
        try Data().write(to: file)  // no folder can be in it
        let (cache, made) = (CompiledModels(in: file.appendingPathComponent("cache"), system: "17.0"), try compiled())
        XCTAssertEqual(cache.keep(made, for: madeSeal()), made)
        XCTAssertTrue(exists(made))
        XCTAssertNil(cache.find(madeSeal()))
    }

    func testTheAppHoldsNoPackage() {
        XCTAssertTrue(refusal { _ = try Artifact.bundled("no", in: .main) }.contains("Model/no.mlpackage"))
    }

    func testOpeningARealPackage() async throws {
        let package = try handedOver("LAVIT_EDGE_PACKAGE")
        let (cache, seal) = (CompiledModels(in: folder.appendingPathComponent("cache")), try Seal(package: package))
        #if !canImport(CoreML)
            do {
                _ = try await Artifact.open(package, cache: cache)
                XCTFail("nothing was refused")
            } catch { XCTAssertTrue("\(error)".contains("no Core ML"), "\(error)") }
        #endif
        let kept = cache.keep(try compiled(), for: seal)
        let artifact = try await Artifact.open(package, cache: cache)
        XCTAssertEqual([artifact.file, artifact.compiled.path], ["model.mlpackage", kept.path])
        XCTAssertEqual(artifact.seal, seal)
        XCTAssertNil(artifact.compileNanoseconds)
    }

    func testADamagedPackageIsNotCompiled() async throws {
        let package = folder.appendingPathComponent("model.mlpackage")
        try FileManager.default.copyItem(at: handedOver("LAVIT_EDGE_PACKAGE"), to: package)
        try Data("{ }".utf8).write(to: package.appendingPathComponent("Manifest.json"))
        do {
            _ = try await LavitClassifier.open(package)
            XCTFail("nothing was refused")
        } catch { XCTAssertTrue("\(error)".contains("model.mlpackage is not what was exported"), "\(error)") }
    }
}
