import LavitEdge
import SwiftUI

/// Measures the artifact and hands the report on.
struct BenchmarkScreen: View {
    @Environment(AppState.self) private var state
    @State private var step: String?
    @State private var report: Report?
    @State private var file: URL?
    @State private var seconds = 10

    var body: some View {
        Form {
            Stepper("\(seconds) s", value: $seconds, in: 10...600, step: 10)
            Button("Measure on \(state.units.rawValue)") { Task { await measure() } }
                .disabled(state.artifact == nil || step != nil)
            if let step { ProgressView(step) }
            if let report {
                Text(summary(report.json))
            }
            if let file {
                ShareLink("Report", item: file)
            }
            if let problem = state.problem {
                Text(problem).foregroundStyle(.red)
            }
        }
    }

    private func measure() async {
        guard let artifact = state.artifact else { return }
        (step, report, file) = ("starting", nil, nil)
        defer { step = nil }
        UIDevice.current.isBatteryMonitoringEnabled = true
        let battery = UIDevice.current.batteryState
        let level = UIDevice.current.batteryLevel
        let power = Device.Power(
            onMains: battery == .unknown ? nil : battery != .unplugged,
            batteryPermille: level < 0 ? nil : Int((level * 1000).rounded()))
        let (units, leastDuration) = (state.units, seconds * 1_000_000_000)
        let (steps, feed) = AsyncStream.makeStream(of: String.self)
        let work = Task.detached(priority: .userInitiated) {
            defer { feed.finish() }
            let system = ProcessInfo.processInfo.operatingSystemVersion
            let version = Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String
            var benchmark = Benchmark(
                file: Artifact.file, seal: artifact.seal,
                runtimeVersion: "iOS \(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
                backend: units.rawValue, version: version ?? "unknown")
            benchmark.leastDuration = leastDuration
            benchmark.power = { power }
            benchmark.notes = [
                "Core ML compiled the package in \(artifact.compileNanoseconds / 1_000_000) ms before it was loaded.",
                "The model was loaded before, by the camera's screen, in this process.",
            ]
            return try benchmark.run(
                load: {
                    let model = try CoreMLModel(compiled: artifact.compiled, units: units.coreML)
                    return (model, model.metadata)
                }, progress: { feed.yield($0) })
        }
        for await next in steps { step = next }
        do {
            let made = try await work.value
            let target = FileManager.default.temporaryDirectory.appendingPathComponent("report-\(units.rawValue).json")
            try made.write(to: target)
            (report, file) = (made, target)
        } catch {
            state.problem = "\(error)"
        }
    }

    private func summary(_ report: JSON) -> String {
        guard let median = report["latency"]?["p50_ns"]?.number, let runs = report["latency"]?["runs"]?.int else {
            return "Not timed: \(report["self_test"]?["detail"]?.string ?? "the self-test failed")"
        }
        return "p50 \((median / 1e6).formatted(.number.precision(.fractionLength(2)))) ms of \(runs) runs"
    }
}
