import AVFoundation
import CoreVideo
import LavitEdge
import LavitEdgeCoreML

/// A camera, to be started once. Frames that come while one is being classified are dropped, so that answers do not lag behind.
final class Camera: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    let session = AVCaptureSession()
    let frames: AsyncStream<CameraFrame>
    /// Why there are no frames any more.
    let problems: AsyncStream<CameraProblem>
    /// Nil until it has started.
    private(set) var device: AVCaptureDevice?
    private let feed: AsyncStream<CameraFrame>.Continuation
    private let trouble: AsyncStream<CameraProblem>.Continuation
    private let queue = DispatchQueue(label: "camera")
    private let output = AVCaptureVideoDataOutput()
    private var coordinator: AVCaptureDevice.RotationCoordinator?
    private var turning: NSKeyValueObservation?
    private var observers: [any NSObjectProtocol] = []

    override init() {
        (frames, feed) = AsyncStream.makeStream(of: CameraFrame.self, bufferingPolicy: .bufferingNewest(1))
        (problems, trouble) = AsyncStream.makeStream(of: CameraProblem.self)
        super.init()
    }

    /// Asks for permission if need be, and starts.
    func start(front: Bool) async throws {
        switch AVCaptureDevice.authorizationStatus(for: .video) {
        case .authorized: break
        case .restricted: throw CameraProblem.restricted
        case .notDetermined:
            guard await AVCaptureDevice.requestAccess(for: .video) else { throw CameraProblem.denied }
        default: throw CameraProblem.denied
        }
        guard let device = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: front ? .front : .back) else {
            throw CameraProblem.missing(front: front)
        }
        try configure(device)
        self.device = device
        keepUpright(device)
        observe()
        queue.async { self.session.startRunning() }
    }

    private func configure(_ device: AVCaptureDevice) throws {
        let input = try AVCaptureDeviceInput(device: device)
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .vga640x480
        guard session.canAddInput(input), session.canAddOutput(output) else { throw CameraProblem.inUse }
        session.addInput(input)
        session.addOutput(output)
        // beside another app on the screen
        if session.isMultitaskingCameraAccessSupported { session.isMultitaskingCameraAccessEnabled = true }
    }

    /// The sensor lies in the device as it was built in, and the device in the hand as it is held: the model sees what stands upright,
    /// also where the screen does not turn. The front camera's pictures are not mirrored, as the preview is: the model learnt from such.
    private func keepUpright(_ device: AVCaptureDevice) {
        let coordinator = AVCaptureDevice.RotationCoordinator(device: device, previewLayer: nil)
        self.coordinator = coordinator
        turning = coordinator.observe(\.videoRotationAngleForHorizonLevelCapture, options: [.initial, .new]) {
            [weak self] coordinator, _ in
            self?.output.connection(with: .video)?.turn(to: coordinator.videoRotationAngleForHorizonLevelCapture)
        }
    }

    /// Turns the lamp on or off, if it has one.
    func light(_ on: Bool) throws {
        guard let device, device.hasTorch else { return }
        try device.lockForConfiguration()
        defer { device.unlockForConfiguration() }
        device.torchMode = on ? .on : .off
    }

    /// Another app, the system or the user may take the camera away at any time.
    private func observe() {
        let (center, trouble) = (NotificationCenter.default, trouble)
        let interrupted = AVCaptureSession.wasInterruptedNotification
        let failed = AVCaptureSession.runtimeErrorNotification
        observers = [
            center.addObserver(forName: interrupted, object: session, queue: nil) { note in
                let reason = note.userInfo?[AVCaptureSessionInterruptionReasonKey] as? Int ?? 0
                switch AVCaptureSession.InterruptionReason(rawValue: reason) {
                case .videoDeviceNotAvailableInBackground: trouble.yield(.inBackground)
                case .videoDeviceInUseByAnotherClient: trouble.yield(.inUse)
                case .videoDeviceNotAvailableWithMultipleForegroundApps: trouble.yield(.besideAnotherApp)
                case .videoDeviceNotAvailableDueToSystemPressure: trouble.yield(.tooHot)
                default: trouble.yield(.failed("interruption \(reason)"))
                }
            },
            center.addObserver(forName: failed, object: session, queue: nil) { note in
                let error = note.userInfo?[AVCaptureSessionErrorKey] as? any Error
                trouble.yield(.failed(error?.localizedDescription ?? "no reason was given"))
            },
        ]
    }

    func stop() {
        turning = nil
        for observer in observers { NotificationCenter.default.removeObserver(observer) }
        feed.finish()
        trouble.finish()
        queue.async { self.session.stopRunning() }
    }

    func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection) {
        guard let buffer = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        feed.yield(CameraFrame(buffer))
    }
}

extension AVCaptureConnection {
    /// Turns its pictures clockwise, in degrees, where it can.
    func turn(to angle: CGFloat) {
        if isVideoRotationAngleSupported(angle) { videoRotationAngle = angle }
    }
}
