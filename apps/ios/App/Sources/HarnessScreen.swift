import LavitEdge
import LavitEdgeCoreML
import SwiftUI

/// For `python -m lavit_edge.benchmark --device ios:NAME`: measures the artifact that it was given, writes the report, and ends.
struct HarnessScreen: View {
    @Environment(\.scenePhase) private var phase

    var body: some View {
        ProgressView("Measuring for lavit_edge.benchmark")
            .task { await measure() }
            .onChange(of: phase) {
                if phase == .background { Self.fail(UserError("the app went to the background; there is no report")) }
            }
    }

    private func measure() async {
        UIApplication.shared.isIdleTimerDisabled = true
        let power = Device.Power.now()
        do {
            let home = URL(fileURLWithPath: NSHomeDirectory())
            guard let launch = try Launch(arguments: CommandLine.arguments, home: home) else { return }
            let work = Task.detached(priority: .userInitiated) {
                let artifact = try await Artifact.open(launch.package, force: launch.force)
                var benchmark = artifact.benchmark(.all, power: power)
                (benchmark.leastDuration, benchmark.force) = (launch.leastDuration, launch.force)
                try benchmark.run(load: { try artifact.load(.all) }).write(to: launch.report)
            }
            try await work.value
        } catch {
            Self.fail(error)
        }
        exit(0)
    }

    /// Nobody looks at the screen then; `devicectl` shows this line and the exit code.
    private static func fail(_ error: any Error) -> Never {
        FileHandle.standardError.write(Data("error: \(UserError("\(error)"))\n".utf8))
        exit(2)
    }
}
