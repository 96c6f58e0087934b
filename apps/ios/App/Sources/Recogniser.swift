import LavitEdge

/// The package's classifier, which Core ML and the converter's buffers let work on one picture at a time.
actor Recogniser {
    private let classifier: Classifier

    /// Loads and tests the artifact. Takes seconds where Core ML specialises it for a neural engine.
    init(_ artifact: Artifact, units: Units) throws {
        classifier = try Classifier(file: Artifact.file, seal: artifact.seal) { try artifact.load(units) }
    }

    var selfTest: SelfTest { classifier.selfTest }

    func classify(_ frame: CameraFrame) throws -> Seen {
        try frame.withFrame { try classifier.classify($0) }
    }

    func classify(_ photo: Picture) throws -> Seen {
        try classifier.classify(photo)
    }
}
