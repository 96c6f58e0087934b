import AVFoundation
import LavitEdge
import SwiftUI

/// The camera's picture with what the model sees in it.
struct CameraScreen: View {
    @Environment(AppState.self) private var state
    @State private var session: AVCaptureSession?
    @State private var seen: Classifier.Seen?

    var body: some View {
        @Bindable var state = state
        VStack {
            Preview(session: session)
            if let problem = state.problem {
                Text(problem).foregroundStyle(.red)
            }
            ForEach(seen?.answers ?? [], id: \.index) { answer in
                HStack {
                    Text(answer.label)
                    Spacer()
                    Text(answer.probability, format: .percent.precision(.fractionLength(1)))
                }
            }
            if let seen {
                Text("prepared in \(milliseconds(seen.preparing)), run in \(milliseconds(seen.running))").font(.caption)
            }
            Picker("Compute units", selection: $state.units) {
                ForEach(Units.allCases) { Text($0.rawValue).tag($0) }
            }
        }
        .padding()
        .task { await watch() }
    }

    /// Until the screen disappears, which cancels the task and so ends the stream of frames.
    private func watch() async {
        let camera = Camera()
        session = camera.session
        defer { camera.stop() }
        do {
            try await camera.start()
            for await frame in camera.frames {
                guard let classifier = state.classifier, state.selfTest?.passed == true else { continue }
                seen = try await classifier.classify(frame)
            }
        } catch {
            state.problem = "\(error)"
        }
    }

    private func milliseconds(_ duration: Duration) -> String {
        duration.formatted(.units(allowed: [.milliseconds], fractionalPart: .show(length: 1)))
    }
}

/// The camera's own preview.
private struct Preview: UIViewRepresentable {
    let session: AVCaptureSession?

    final class LayerView: UIView {
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
    }

    func makeUIView(context: Context) -> LayerView {
        LayerView()
    }

    func updateUIView(_ view: LayerView, context: Context) {
        (view.layer as? AVCaptureVideoPreviewLayer)?.session = session
    }
}
