import Foundation

/// Tests an artifact on this device, then times it, and makes the report (docs/benchmark.md).
public struct Benchmark {
    static let second = 1_000_000_000
    static let leastRuns = 50
    static let frameSize = (width: 640, height: 480)
    static let frameRuns = 20

    /// The artifact's file name, `model.mlpackage`.
    public let file: String
    /// Of the package, before Core ML compiled it.
    public let seal: Seal
    /// The version of Core ML's system, or nil.
    public let runtimeVersion: String?
    /// Core ML's compute units: cpuOnly, cpuAndGPU, cpuAndNeuralEngine, all.
    public let backend: String
    /// Of lavit-edge.
    public let version: String
    /// How long the measurement goes on at least, in nanoseconds.
    public var leastDuration = 10 * second
    /// Times a model that failed its self-test, too; the report says so.
    public var force = false
    /// For people.
    public var notes: [String] = []
    /// What the device runs from, now.
    public var power: () -> Device.Power = { Device.Power() }
    /// Nanoseconds since some moment.
    public var clock: () -> Int = Benchmark.uptime
    /// Whether it is to end now, without a report; asked before each run.
    public var isStopped: () -> Bool = { false }

    /// Nanoseconds since the system started.
    @Sendable public static func uptime() -> Int { Int(DispatchTime.now().uptimeNanoseconds) }

    /// A benchmark of the artifact that has this seal.
    public init(file: String, seal: Seal, runtimeVersion: String?, backend: String, version: String) {
        (self.file, self.seal, self.runtimeVersion, self.backend, self.version) = (file, seal, runtimeVersion, backend, version)
    }

    /// Runs it.
    ///
    /// - Parameters:
    ///   - load: loads the model, which this process must not have done before, and gives its user-defined metadata.
    ///   - progress: is told what is being done.
    /// - Throws: ``UserError`` for an artifact that cannot test itself, or is damaged and not forced, and when it is stopped; what `load`
    ///   or the model throws.
    public func run(load: () throws -> (any Model, [String: String]), progress: (String) -> Void = { _ in }) throws -> Report {
        let (created, before) = (Report.now(), Device.condition(power()))
        let problem = seal.problem(name: file)
        if let problem, !force { throw UserError("\(problem); nothing was measured") }
        progress("loading the model")
        var start = clock()
        let (model, metadata) = try load()
        let cold = clock() - start
        let payload = try Payload(metadata: metadata)
        if !force { try seal.check(payload, name: file) }
        let converter = FrameConverter(contract: payload.contract)
        try model.setInput(converter.input(from: payload.golden[0].picture))
        start = clock()
        _ = try model.run()
        let first = clock() - start
        progress("self-test")
        let tested = try SelfTest(payload, model: model)
        let passed = problem == nil && tested.passed
        var (warmup, runs) = (Runs(), Runs())
        if passed || force {
            progress("warming up")
            warmup = try timedRuns(model, leastDuration: Self.second, leastRuns: 3)
            progress("measuring")
            runs = try timedRuns(model, leastDuration: leastDuration, leastRuns: Self.leastRuns)
        }
        let preprocessing = try preprocessing(model, converter)
        try goOn()
        return try Report([
            "created": .string(created),
            "harness": ["name": "ios", "version": .string(version), "build": .string(Self.build)],
            "device": Device.facts(),
            "runtime": [
                "name": "Core ML", "version": JSON(runtimeVersion), "backend": .string(backend),
                "delegated_macs_permille": nil, "graph_breaks": nil,
            ],
            "artifact": artifact(payload),
            "settings": settings(warmup),
            "conditions": ["before": before, "after": Device.condition(power())],
            "self_test": tested.report(sealProblem: problem, forced: force),
            // Core ML reads a model that it has just compiled
            "load": ["cold_ns": .int(cold), "first_inference_ns": .int(first), "file_cache": "warm"],
            "latency": runs.latency(),
            "preprocessing": preprocessing,
            "memory": System.memory(),
            "least_duration_met": .bool(runs.samples.count >= Self.leastRuns && runs.duration >= leastDuration),
            "notes": .array(notes.map { .string(oneLine($0, most: 500)) }),
        ])
    }

    /// Runs one after another, until both so much time and so many runs are reached.
    func timedRuns(_ model: any Model, leastDuration: Int, leastRuns: Int) throws -> Runs {
        var runs = Runs()
        while runs.samples.count < leastRuns || runs.duration < leastDuration {
            try goOn()
            let start = clock()
            _ = try model.run()
            runs.append(start: start, sample: clock() - start)
        }
        return runs
    }

    private func goOn() throws {
        if isStopped() { throw UserError("the measurement was stopped; nothing is reported") }
    }

    private func settings(_ warmup: Runs) -> JSON {
        [
            "threads": nil,  // Core ML chooses
            "least_duration_ns": .int(leastDuration),
            "least_runs": .int(Self.leastRuns),
            "warmup": [
                "policy": "3 runs and 1 s, whichever is later",
                "runs": .int(warmup.samples.count),
                "duration_ns": .int(warmup.duration),
            ],
        ]
    }

    private func artifact(_ payload: Payload) -> JSON {
        let made = payload.provenance
        // an .mlpackage that was not quantised computes in fp16
        let precision = made["precision"]?.string.flatMap { ["float": "float16"][$0] ?? $0 }
        let top1 = made["val_top1"]?.number.flatMap { 0...1 ~= $0 ? Int(($0 * 1000).rounded(.toNearestOrEven)) : nil }
        return [
            "file": .string(file),
            "bytes": .int(seal.bytes),
            "sha256": .string(seal.sha256),
            "content_sha256": .string(seal.content),
            "contract_sha256": .string(payload.contract.sha256),
            "model": JSON(made["checkpoint"]?["name"]?.string),
            "precision": JSON(precision),
            "image_size": .int(payload.contract.size),
            "top1_permille": JSON(top1),
        ]
    }

    /// From a camera's frame to the model's input.
    private func preprocessing(_ model: any Model, _ converter: FrameConverter) throws -> JSON {
        let (width, height) = Self.frameSize
        let bytes = (0..<4 * width * height).map { UInt8(truncatingIfNeeded: ($0 &* 2_654_435_761) >> 24) }
        var runs = Runs()
        try bytes.withUnsafeBytes { bytes in
            let plane = Plane(bytes: bytes, rowStride: 4 * width, pixelStride: 4)
            for _ in 0..<Self.frameRuns {
                let start = clock()
                try model.setInput(converter.input(from: Frame(.bgra, width: width, height: height, planes: [plane])))
                runs.append(start: start, sample: clock() - start)
            }
        }
        let median = quantile(runs.samples.sorted(), permille: 500)
        return ["frame": .string("\(width)x\(height) BGRA"), "runs": .int(Self.frameRuns), "p50_ns": .int(median)]
    }

    private static var build: String {
        #if DEBUG
            "debug"
        #else
            "release"
        #endif
    }
}
