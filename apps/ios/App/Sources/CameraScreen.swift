import AVFoundation
import LavitEdge
import LavitEdgeCoreML
import PhotosUI
import SwiftUI

/// The camera's picture, or a photo, with what the model sees in it.
struct CameraScreen: View {
    @Environment(AppState.self) private var state
    @Environment(\.scenePhase) private var phase
    @Environment(\.verticalSizeClass) private var height
    @State private var live = Live()
    @State private var camera: Camera?
    @State private var torch = false
    @State private var picked: PhotosPickerItem?
    @State private var photo: Photo?
    @State private var listing = false

    /// What the camera is started anew for, permission asked for included.
    private struct Watch: Equatable {
        let source: Int
        let resting: Bool
    }

    var body: some View {
        let layout = height == .compact ? AnyLayout(HStackLayout()) : AnyLayout(VStackLayout())
        layout {
            if let photo {
                Image(decorative: photo.image, scale: 1).resizable().scaledToFit()
            } else {
                Preview(camera: camera)
            }
            if height == .compact {
                ScrollView { panel }
            } else {
                panel
            }
        }
        .padding()
        .sheet(isPresented: $listing) { LabelList(labels: state.recogniser?.payload.contract.labels ?? [], shown: $listing) }
        .task(id: Watch(source: live.source, resting: live.isPaused || phase == .background)) { await watch() }
        .task(id: picked) { await look() }
        .onChange(of: state.recogniser == nil) {
            live.reset()  // what another model said
            Task { await classify() }
        }
        .onChange(of: torch) { light() }
        .onChange(of: phase) {
            if phase == .background && !live.isPaused { live.reset() }
        }
    }

    private var panel: some View {
        @Bindable var state = state
        return VStack {
            if let problem = state.problem ?? live.problem {
                Text(translated(problem)).foregroundStyle(.red)
            } else if state.recogniser == nil {
                ProgressView("Self-test")
            }
            if live.isDenied, let settings = URL(string: UIApplication.openSettingsURLString) {
                Link("Settings", destination: settings)
            }
            if let seen = live.seen {
                if let best = seen.best {
                    Text(best.label).font(.headline)
                } else {
                    Text("Not sure").font(.headline)
                }
                ForEach(seen.answers, id: \.index) { answer in
                    HStack {
                        Text(answer.label)
                        Spacer()
                        Text(answer.probability, format: .percent.precision(.fractionLength(1)))
                    }
                    .foregroundStyle(seen.best == nil ? .secondary : .primary)
                    .accessibilityElement(children: .combine)  // or VoiceOver reads the labels first and the numbers then
                }
                Text("prepared in \(milliseconds(seen.preparing)) ms, run in \(milliseconds(seen.running)) ms").font(.caption)
                if let rate = live.framesPerSecond {
                    Text("\(short(rate)) frames/s").font(.caption)
                }
            }
            HStack {
                Button(live.isPaused ? "Resume" : "Pause") { pause(!live.isPaused) }
                Spacer()
                Button("Switch camera") { live.switchCamera() }.disabled(live.isPaused)
                Spacer()
                PhotosPicker("Photo", selection: $picked, matching: .images)
            }
            HStack {
                if camera?.device?.hasTorch == true {
                    Toggle("Torch", isOn: $torch).toggleStyle(.button).disabled(live.isPaused)
                    Spacer()
                }
                Button("What it knows") { listing = true }.disabled(state.recogniser == nil)
                Spacer()
                Picker("Compute units", selection: $state.units) {
                    ForEach(Units.allCases) { Text($0.rawValue).tag($0) }
                }
            }
        }
    }

    private func milliseconds(_ nanoseconds: Int) -> String { short(Double(nanoseconds) / 1e6) }

    private func short(_ number: Double) -> String { number.formatted(.number.precision(.fractionLength(1))) }

    private func pause(_ paused: Bool) {
        (photo, picked) = (nil, nil)
        live.pause(paused)
    }

    private func light() {
        do {
            try camera?.light(torch)
        } catch {
            live.fail(CameraProblem.failed(error.localizedDescription), turn: live.turn)
        }
    }

    /// Until the screen disappears or something else is to be watched, which cancels the task and so ends the streams.
    private func watch() async {
        guard !live.isPaused, phase != .background else { return }
        let (source, camera) = (live.source, Camera())
        state.awake += 1
        defer {
            camera.stop()
            state.awake -= 1
        }
        do {
            try await camera.start(front: live.isFront)
        } catch {
            if let turn = live.turn(of: source) { live.fail(error, turn: turn) }
            return
        }
        guard live.turn(of: source) != nil else { return }
        (self.camera, torch) = (camera, false)
        let trouble = Task {
            for await problem in camera.problems {
                if let turn = live.turn(of: source) { live.fail(problem, turn: turn) }
            }
        }
        defer { trouble.cancel() }
        var pace = Pace()
        for await frame in camera.frames {
            guard let recogniser = state.recogniser, let turn = live.turn(of: source),
                pace.takes(at: Benchmark.uptime(), hot: Device.isHot)
            else { continue }
            do {
                let seen = try await recogniser.classify(frame)
                guard recogniser === state.recogniser else { continue }
                live.show(seen, of: recogniser.payload.contract, turn: turn, at: Benchmark.uptime())
            } catch {
                live.fail(error, turn: turn)  // the next frame may be sound
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
            live.fail(error, turn: turn)
        }
    }

    /// What the photo shows, if there is one.
    private func classify() async {
        guard let photo, let recogniser = state.recogniser else { return }
        let turn = live.turn
        do {
            live.show(try await recogniser.classify(photo.picture), turn: turn)
        } catch {
            live.fail(error, turn: turn)
        }
    }
}

/// The labels that the model was trained on: of anything else it is not sure, or wrong.
private struct LabelList: View {
    let labels: [String]
    @Binding var shown: Bool

    var body: some View {
        VStack {
            Text("What it knows").font(.headline)
            List {
                ForEach(labels, id: \.self) { Text($0) }
            }
            Button("Done") { shown = false }
        }
        .padding()
    }
}
