import AVFoundation
import SwiftUI

/// The camera's own preview, turned as the screen is.
struct Preview: UIViewRepresentable {
    let camera: Camera?

    final class LayerView: UIView {
        private var coordinator: AVCaptureDevice.RotationCoordinator?
        private var turning: NSKeyValueObservation?

        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }

        private var preview: AVCaptureVideoPreviewLayer? { layer as? AVCaptureVideoPreviewLayer }

        func show(_ camera: Camera) {
            guard let preview, let device = camera.device, preview.session !== camera.session else { return }
            preview.session = camera.session
            let coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: preview)
            self.coordinator = coordinator
            turning = coordinator.observe(\.videoRotationAngleForHorizonLevelPreview, options: [.initial, .new]) {
                [weak self] coordinator, _ in
                let angle = coordinator.videoRotationAngleForHorizonLevelPreview
                MainActor.assumeIsolated { self?.preview?.connection?.turn(to: angle) }  // which it is told on
            }
        }
    }

    func makeUIView(context: Context) -> LayerView {
        LayerView()
    }

    func updateUIView(_ view: LayerView, context: Context) {
        if let camera { view.show(camera) }
    }
}
