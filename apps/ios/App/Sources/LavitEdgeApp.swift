import LavitEdge
import LavitEdgeCoreML
import SwiftUI

@main
struct LavitEdgeApp: App {
    @State private var state = AppState()

    var body: some Scene {
        WindowGroup {
            if CommandLine.arguments.contains("--benchmark") {
                HarnessScreen()
            } else {
                TabView {
                    CameraScreen().tabItem { Label("Camera", systemImage: "camera") }
                    BenchmarkScreen().tabItem { Label("Benchmark", systemImage: "stopwatch") }
                    SelfTestScreen().tabItem { Label("Self-test", systemImage: "checkmark.seal") }
                }
                .environment(state)
                .task { await state.open() }
            }
        }
    }
}

/// What all screens share: the artifact, and where it runs.
@MainActor @Observable
final class AppState {
    private(set) var artifact: Artifact?
    /// Nil until its self-test has passed, so that what is wrong or not tested yet classifies nothing.
    private(set) var recogniser: LavitClassifier?
    private(set) var selfTest: SelfTest?
    /// What is wrong with the artifact, for people.
    private(set) var problem: String?
    /// Where Core ML may compute; the model is loaded and tested anew when it changes.
    var units = Units.all {
        didSet { Task { await load() } }
    }

    /// How many of the app's doings want the screen to stay on: it dims else while the camera is held before something.
    var awake = 0 {
        didSet { UIApplication.shared.isIdleTimerDisabled = awake > 0 }
    }

    /// Checks, compiles, loads and tests the artifact; but for compiling, at every launch.
    func open() async {
        guard artifact == nil else { return }
        do {
            artifact = try await Artifact.open(Artifact.bundled())
            await load()
        } catch {
            problem = "\(error)"
        }
    }

    private func load() async {
        guard let artifact else { return }
        (recogniser, selfTest, problem) = (nil, nil, nil)
        let units = units
        do {
            let loaded = try await Task.detached { try LavitClassifier(artifact, units: units) }.value
            let tested = loaded.selfTest
            guard units == self.units else { return }  // it was changed once more meanwhile
            selfTest = tested
            problem = tested.failure.map { "self-test failed: \($0)" }
            if tested.passed { recogniser = loaded }
        } catch {
            if units == self.units { problem = "\(error)" }
        }
    }
}
