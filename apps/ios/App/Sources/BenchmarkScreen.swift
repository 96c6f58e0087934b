import LavitEdge
import LavitEdgeCoreML
import SwiftUI

/// Measures the artifact and hands the report on.
struct BenchmarkScreen: View {
    @Environment(AppState.self) private var state
    @Environment(\.scenePhase) private var phase
    @State private var trial = Trial()
    @State private var work: Task<Report, any Error>?
    @State private var seconds = 10

    var body: some View {
        Form {
            Stepper("\(seconds) s", value: $seconds, in: 10...600, step: 10)
            Button("Measure on \(state.units.rawValue)") { Task { await measure() } }
                .disabled(state.artifact == nil || trial.isRunning)
            switch trial.state {
            case .idle: EmptyView()
            case .running(let step): ProgressView(step)
            case .failed(let problem): Text(translated(problem)).foregroundStyle(.red)
            case .done(let figures, let file):
                Text(figures)
                ShareLink("Report", item: file)
            }
            if let problem = state.problem {
                Text(translated(problem)).foregroundStyle(.red)
            }
        }
        .onChange(of: phase) {
            if phase == .background { stop(.background) }
        }
        .onDisappear { stop(.left) }  // the camera's screen would run the model beside it
    }

    private func stop(_ why: Trial.Interruption) {
        trial.interrupt(why)
        work?.cancel()
    }

    private func measure() async {
        guard let artifact = state.artifact else { return }
        let number = trial.start()
        state.awake += 1  // a locked screen would stop a long one
        defer { state.awake -= 1 }
        var benchmark = artifact.benchmark(state.units, power: .now())
        benchmark.leastDuration = seconds * 1_000_000_000
        benchmark.notes.append("The model was loaded before, by the camera's screen, in this process.")
        let (ready, units) = (benchmark, state.units)
        let (steps, feed) = AsyncStream.makeStream(of: String.self)
        let work = Task.detached(priority: .userInitiated) {
            defer { feed.finish() }
            return try ready.run(load: { try artifact.load(units) }, progress: { feed.yield($0) })
        }
        self.work = work
        for await step in steps { trial.step(step, number) }
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("report-\(units.rawValue).json")
        trial.finish(await work.result, file: file, number)
    }
}

extension Artifact {
    /// A measurement of it, which `run(load:progress:)` starts.
    func benchmark(_ units: Units, power: Device.Power) -> Benchmark {
        let system = ProcessInfo.processInfo.operatingSystemVersion
        var benchmark = Benchmark(
            file: file, seal: seal,
            runtimeVersion: "iOS \(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            backend: units.rawValue,
            version: Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String ?? "unknown")
        benchmark.power = { power }
        benchmark.isStopped = { Task.isCancelled }
        let compiling = compileNanoseconds.map { "in \($0 / 1_000_000) ms before it was loaded" } ?? "at an earlier launch"
        benchmark.notes = ["Core ML compiled the package \(compiling)."]
        return benchmark
    }
}

extension Device.Power {
    /// What the device runs from.
    @MainActor static func now() -> Device.Power {
        UIDevice.current.isBatteryMonitoringEnabled = true
        let (battery, level) = (UIDevice.current.batteryState, UIDevice.current.batteryLevel)
        return Device.Power(
            onMains: battery == .unknown ? nil : battery != .unplugged,
            batteryPermille: level < 0 ? nil : Int((level * 1000).rounded()))
    }
}
