/// From pictures to answers, by a model that has tested itself on this device. Not for two threads at once.
public final class Classifier {
    /// What the artifact carries: labels, size and everything else that differs from model to model.
    public let payload: Payload
    /// What the golden pictures say here.
    public let selfTest: SelfTest

    private let model: any Model
    private let converter: FrameConverter
    private let clock: () -> Int

    /// Loads a model and tests it.
    ///
    /// - Parameters:
    ///   - seal: of the package that the model was compiled from. `file` is its name, for messages.
    ///   - load: gives the loaded model and its user-defined metadata; not called for a damaged package.
    ///   - clock: nanoseconds since some moment.
    /// - Throws: ``UserError`` for an artifact that is damaged, of a newer version, or carries nothing to test itself with; what `load`
    ///   or the model throws. A failed self-test is no error here, but such a model classifies nothing.
    public init(
        file: String, seal: Seal, clock: @escaping () -> Int = Benchmark.uptime, load: () throws -> (any Model, [String: String])
    ) throws {
        if let problem = seal.problem(name: file) { throw UserError(problem) }
        let (model, metadata) = try load()
        payload = try Payload(metadata: metadata)
        try seal.check(payload, name: file)
        (self.model, self.clock) = (model, clock)
        converter = FrameConverter(contract: payload.contract)
        selfTest = try SelfTest(payload, model: model)
    }

    /// The most probable labels of a camera's frame.
    ///
    /// - Throws: ``UserError`` if the self-test failed, or for logits that are none; what the model throws.
    public func classify(_ frame: Frame) throws -> Seen {
        try classify { try converter.input(from: frame) }
    }

    /// The most probable labels of a picture. Throws as ``classify(_:)-frame``.
    public func classify(_ picture: Picture) throws -> Seen {
        try classify { try converter.input(from: picture) }
    }

    private func classify(_ input: () throws -> Picture) throws -> Seen {
        if let failure = selfTest.failure { throw UserError("self-test failed: \(failure)") }
        let start = clock()
        try model.setInput(input())
        let ready = clock()
        let logits = try model.run()
        let done = clock()
        let contract = payload.contract
        let probabilities = try probabilities(logits, contract)
        return Seen(
            probabilities, best: decide(probabilities, threshold: contract.threshold), labels: contract.labels,
            preparing: ready - start, running: done - ready)
    }
}
