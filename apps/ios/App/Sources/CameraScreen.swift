import AVFoundation
import LavitEdge
import LavitEdgeCoreML
import PhotosUI
import SwiftUI

/// The camera's picture, or a photo, with what the model sees in it.
struct CameraScreen: View {
    @Environment(AppState.self) private var state
    @Environment(\.scenePhase) private var phase
    @State private var live = Live()
    @State private var session: AVCaptureSession?
    @State private var picked: PhotosPickerItem?
    @State private var photo: Photo?

    /// What the camera is started anew for, permission asked for included.
    private struct Watch: Equatable {
        let front: Bool
        let resting: Bool
    }

    var body: some View {
        @Bindable var state = state
        VStack {
            if let photo {
                Image(decorative: photo.image, scale: 1).resizable().scaledToFit()
            } else {
                Preview(session: session)
            }
            if let problem = state.problem ?? live.problem {
                Text(problem).foregroundStyle(.red)
            } else if state.recogniser == nil {
                ProgressView("self-test")
            }
            ForEach(live.seen?.answers ?? [], id: \.index) { answer in
                HStack {
                    Text(answer.label)
                    Spacer()
                    Text(answer.probability, format: .percent.precision(.fractionLength(1)))
                }
            }
            if let seen = live.seen {
                Text(times(seen)).font(.caption)
            }
            HStack {
                Button(live.isPaused ? "Resume" : "Pause") { pause(!live.isPaused) }
                Spacer()
                Button(live.isFront ? "Back camera" : "Front camera") { live.switchCamera() }.disabled(live.isPaused)
                Spacer()
                PhotosPicker("Photo", selection: $picked, matching: .images)
            }
            Picker("Compute units", selection: $state.units) {
                ForEach(Units.allCases) { Text($0.rawValue).tag($0) }
            }
        }
        .padding()
        .task(id: Watch(front: live.isFront, resting: live.isPaused || phase == .background)) { await watch() }
        .task(id: picked) { await look() }
        .onChange(of: state.recogniser == nil) {
            live.reset()  // what another model said
            Task { await classify() }
        }
        .onChange(of: phase) {
            if phase == .background && !live.isPaused { live.reset() }
        }
    }

    private func pause(_ paused: Bool) {
        (photo, picked) = (nil, nil)
        live.pause(paused)
    }

    /// Until the screen disappears or something else is to be watched, which cancels the task and so ends the streams.
    private func watch() async {
        guard !live.isPaused, phase != .background else { return }
        let camera = Camera()
        session = camera.session
        defer { camera.stop() }
        let turn = live.turn
        do {
            try await camera.start(front: live.isFront)
        } catch {
            return live.fail("\(error)", turn: turn)
        }
        let trouble = Task {
            for await problem in camera.problems { live.fail("\(problem)", turn: live.turn) }
        }
        defer { trouble.cancel() }
        for await frame in camera.frames {
            guard let recogniser = state.recogniser else { continue }
            let turn = live.turn
            do {
                let seen = try await recogniser.classify(frame)
                guard recogniser === state.recogniser else { continue }
                live.show(seen, turn: turn, at: Benchmark.uptime())
            } catch {
                live.fail("\(error)", turn: turn)  // the next frame may be sound
            }
        }
    }

    /// Decodes the photo that was picked.
    private func look() async {
        guard let picked else { return }
        live.pause(true)
        live.reset()
        photo = nil
        let turn = live.turn
        do {
            guard let data = try await picked.loadTransferable(type: Data.self) else {
                throw UserError("the photo cannot be read")
            }
            let decoded = try await Task.detached { try Photo(data) }.value
            guard turn == live.turn else { return }
            photo = decoded
            await classify()
        } catch {
            live.fail("\(error)", turn: turn)
        }
    }

    /// What the photo shows, if there is one.
    private func classify() async {
        guard let photo, let recogniser = state.recogniser else { return }
        let turn = live.turn
        do {
            live.show(try await recogniser.classify(photo.picture), turn: turn, at: Benchmark.uptime())
        } catch {
            live.fail("\(error)", turn: turn)
        }
    }

    private func times(_ seen: Seen) -> String {
        let (preparing, running) = (Double(seen.preparing) / 1e6, Double(seen.running) / 1e6)
        let times = String(format: "prepared in %.1f ms, run in %.1f ms", preparing, running)
        return live.framesPerSecond.map { times + String(format: ", %.1f frames/s", $0) } ?? times
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
