import LavitEdge
import SwiftUI

@main
struct LavitEdgeApp: App {
    @State private var state = AppState()

    var body: some Scene {
        WindowGroup {
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

/// What all screens share: the artifact, and where it runs.
@MainActor @Observable
final class AppState {
    private(set) var artifact: Artifact?
    private(set) var classifier: Classifier?
    private(set) var selfTest: SelfTest?
    /// What went wrong, for people.
    var problem: String?
    /// Where Core ML may compute; the model is loaded and tested anew when it changes.
    var units = Units.all {
        didSet { Task { await load() } }
    }

    /// Checks, compiles, loads and tests the artifact; a new version of iOS may compile it otherwise, so this is done at every launch.
    func open() async {
        guard artifact == nil else { return }
        do {
            artifact = try await Task.detached { try Artifact.open() }.value
            await load()
        } catch {
            problem = "\(error)"
        }
    }

    private func load() async {
        guard let artifact else { return }
        (classifier, selfTest, problem) = (nil, nil, nil)
        do {
            let units = units
            let loaded = try await Task.detached { try Classifier(artifact, units: units) }.value
            let tested = try await loaded.selfTest()
            guard units == self.units else { return }  // it was changed once more meanwhile
            (classifier, selfTest) = (loaded, tested)
            problem = tested.failure.map { "self-test failed: \($0)" }
        } catch {
            problem = "\(error)"
        }
    }
}
