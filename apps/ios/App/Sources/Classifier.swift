import CoreVideo
import Foundation
import LavitEdge

/// From camera frames to answers. An actor: Core ML and the converter's buffers are used by one frame at a time.
actor Classifier {
    /// What a frame showed, and how long it took.
    struct Seen: Sendable {
        let answers: [Answer]
        let preparing: Duration
        let running: Duration
    }

    private let model: CoreMLModel
    private let payload: Payload
    private let converter: FrameConverter

    init(_ artifact: Artifact, units: Units) throws {
        model = try CoreMLModel(compiled: artifact.compiled, units: units.coreML)
        payload = try Payload(metadata: model.metadata)
        converter = FrameConverter(contract: payload.contract)
    }

    /// The golden pictures on this device.
    func selfTest() throws -> SelfTest {
        try SelfTest(payload, model: model)
    }

    /// The three most probable labels.
    func classify(_ frame: CameraFrame) throws -> Seen {
        let clock = ContinuousClock()
        let start = clock.now
        let input = try frame.withFrame { try converter.input(from: $0) }
        try model.setInput(input)
        let ready = clock.now
        let logits = try model.run()
        let seen = try answers(logits, labels: payload.contract.labels, count: 3)
        return Seen(answers: seen, preparing: ready - start, running: clock.now - ready)
    }
}
