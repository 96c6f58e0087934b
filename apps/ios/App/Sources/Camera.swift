import AVFoundation
import CoreVideo
import LavitEdge

/// A picture of the camera. The camera does not write to it any more, and only one reader has it.
struct CameraFrame: @unchecked Sendable {
    let buffer: CVPixelBuffer

    /// Upright, since the connection turns it; BGRA, since the output was told so.
    func withFrame<T>(_ work: (Frame) throws -> T) throws -> T {
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw UserError("the camera's picture has no memory") }
        let plane = Plane(bytes: UnsafeRawBufferPointer(start: base, count: stride * height), rowStride: stride, pixelStride: 4)
        return try work(Frame(.bgra, width: width, height: height, planes: [plane]))
    }
}

/// The back camera, to be started once. Frames that come while one is being classified are dropped, so that answers do not lag behind.
final class Camera: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    let session = AVCaptureSession()
    let frames: AsyncStream<CameraFrame>
    private let feed: AsyncStream<CameraFrame>.Continuation
    private let queue = DispatchQueue(label: "camera")

    override init() {
        (frames, feed) = AsyncStream.makeStream(of: CameraFrame.self, bufferingPolicy: .bufferingNewest(1))
        super.init()
    }

    /// Asks for permission if need be, and starts.
    func start() async throws {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw UserError("the app may not use the camera; Settings, Privacy, Camera allows it")
        }
        guard let device = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: .back) else {
            throw UserError("this device has no back camera")
        }
        try configure(device)
        queue.async { self.session.startRunning() }
    }

    private func configure(_ device: AVCaptureDevice) throws {
        let input = try AVCaptureDeviceInput(device: device)
        let output = AVCaptureVideoDataOutput()
        output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA]
        output.alwaysDiscardsLateVideoFrames = true
        output.setSampleBufferDelegate(self, queue: queue)
        session.beginConfiguration()
        defer { session.commitConfiguration() }
        session.sessionPreset = .vga640x480
        guard session.canAddInput(input), session.canAddOutput(output) else { throw UserError("the camera is in use") }
        session.addInput(input)
        session.addOutput(output)
        if let connection = output.connection(with: .video), connection.isVideoRotationAngleSupported(90) {
            connection.videoRotationAngle = 90  // the sensor lies on its side
        }
    }

    func stop() {
        queue.async { self.session.stopRunning() }
    }

    func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection) {
        guard let buffer = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        feed.yield(CameraFrame(buffer: buffer))
    }
}
