import Foundation
import LavitEdge

/// An artifact, ready to classify: the package's ``Classifier`` on Core ML, which works on one picture at a time.
public actor LavitClassifier {
    /// What the artifact carries: labels, golden pictures and what else differs from model to model.
    public nonisolated let payload: Payload
    /// What the golden pictures say of this device.
    public nonisolated let selfTest: SelfTest
    private let classifier: Classifier

    /// Opens a package: checks its bytes, lets Core ML compile it at the first launch, loads it and tests it. Takes seconds.
    ///
    /// - Throws: ``UserError`` for what cannot be used, one that fails its self-test here included; what Core ML throws.
    public static func open(_ package: URL, units: Units = .all) async throws -> LavitClassifier {
        let opened = try LavitClassifier(await Artifact.open(package), units: units)
        if let failure = opened.selfTest.failure { throw UserError("self-test failed: \(failure)") }
        return opened
    }

    /// Loads and tests an artifact. As ``open(_:units:)``, but one that fails its self-test can be looked at; it classifies nothing.
    public init(_ artifact: Artifact, units: Units) throws {
        classifier = try Classifier(file: artifact.file, seal: artifact.seal) { try artifact.load(units) }
        (payload, selfTest) = (classifier.payload, classifier.selfTest)
    }

    /// What a picture shows, such as a ``Photo``'s.
    public func classify(_ picture: Picture) throws -> Seen {
        try classifier.classify(picture)
    }

    #if canImport(CoreVideo)
        /// What a camera's picture shows.
        public func classify(_ frame: CameraFrame) throws -> Seen {
            try frame.withFrame { try classifier.classify($0) }
        }
    #endif
}
