import LavitEdge
import SwiftUI

/// What the golden pictures in the artifact say of this device.
struct SelfTestScreen: View {
    @Environment(AppState.self) private var state

    var body: some View {
        List {
            if let problem = state.problem {
                Text(translated(problem)).foregroundStyle(.red)
            }
            ForEach(state.selfTest?.checks ?? [], id: \.name) { check in
                VStack(alignment: .leading) {
                    Label(check.name, systemImage: check.passed ? "checkmark" : "xmark")
                    Text(check.found).font(.caption)
                }
                .accessibilityElement(children: .combine)
            }
            if state.selfTest == nil && state.problem == nil {
                ProgressView("Self-test")
            }
        }
    }
}
