// The declarations of Apple's AVFoundation that apps/ios uses (CoreVideo.swift says why).
@_exported import CoreVideo
@_exported import Dispatch
@_exported import KeyValueObserving
@_exported import QuartzCore

public final class CMSampleBuffer {}  // objc: CMSampleBufferGetImageBuffer
public func CMSampleBufferGetImageBuffer(_ buffer: CMSampleBuffer) -> CVImageBuffer? { fatalError() }

public struct AVMediaType: Hashable, Sendable {
    public static let video = AVMediaType()
}

public enum AVAuthorizationStatus: Int, Sendable { case notDetermined, restricted, denied, authorized }

public final class AVCaptureDevice: NSObject {
    public struct DeviceType: Hashable, Sendable {
        public static let builtInWideAngleCamera = DeviceType()  // objc: AVCaptureDeviceTypeBuiltInWideAngleCamera
    }
    public enum Position: Int, Sendable { case unspecified, back, front }
    public enum TorchMode: Int, Sendable { case off, on, auto }  // objc: AVCaptureTorchMode
    public final class RotationCoordinator: NSObject {
        public init(device: AVCaptureDevice, previewLayer: CALayer?) { fatalError() }
        public var videoRotationAngleForHorizonLevelCapture: CGFloat { fatalError() }
        public var videoRotationAngleForHorizonLevelPreview: CGFloat { fatalError() }
    }
    public var hasTorch: Bool { fatalError() }
    public var torchMode = TorchMode.off
    public func lockForConfiguration() throws { fatalError() }  // objc: lockForConfiguration
    public func unlockForConfiguration() { fatalError() }
    public class func authorizationStatus(for type: AVMediaType) -> AVAuthorizationStatus {  // objc: authorizationStatusForMediaType
        fatalError()
    }
    public class func requestAccess(for type: AVMediaType) async -> Bool {  // objc: requestAccessForMediaTypeCompletionHandler
        fatalError()
    }
    public class func `default`(  // objc: defaultDeviceWithDeviceTypeMediaTypePosition
        _ type: DeviceType, for media: AVMediaType?, position: Position
    ) -> AVCaptureDevice? { fatalError() }
}

public class AVCaptureInput: NSObject {}
public final class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws { fatalError() }
}

public final class AVCaptureConnection: NSObject {
    public var videoRotationAngle: CGFloat = 0
    public func isVideoRotationAngleSupported(_ angle: CGFloat) -> Bool { fatalError() }
}

public class AVCaptureOutput: NSObject {
    public func connection(with type: AVMediaType) -> AVCaptureConnection? { fatalError() }  // objc: connectionWithMediaType
}

public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
    func captureOutput(  // objc: captureOutputDidOutputSampleBufferFromConnection
        _ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)
}

public final class AVCaptureVideoDataOutput: AVCaptureOutput {
    public var videoSettings: [String: Any]! = [:]
    public var alwaysDiscardsLateVideoFrames = true
    public func setSampleBufferDelegate(
        _ delegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue: DispatchQueue?
    ) { fatalError() }
}

public final class AVCaptureSession: NSObject {
    public struct Preset: Hashable, Sendable {
        public static let vga640x480 = Preset()  // objc: AVCaptureSessionPreset640x480
    }
    public enum InterruptionReason: Int, Sendable {
        case videoDeviceNotAvailableInBackground = 1
        case videoDeviceInUseByAnotherClient = 3
        case videoDeviceNotAvailableWithMultipleForegroundApps = 4
        case videoDeviceNotAvailableDueToSystemPressure = 5
    }
    public static let wasInterruptedNotification = Notification.Name("")
    public static let runtimeErrorNotification = Notification.Name("")
    public var sessionPreset = Preset.vga640x480
    public var isMultitaskingCameraAccessSupported: Bool { fatalError() }
    public var isMultitaskingCameraAccessEnabled = false
    public func beginConfiguration() { fatalError() }
    public func commitConfiguration() { fatalError() }
    public func canAddInput(_ input: AVCaptureInput) -> Bool { fatalError() }
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { fatalError() }
    public func addInput(_ input: AVCaptureInput) { fatalError() }
    public func addOutput(_ output: AVCaptureOutput) { fatalError() }
    public func startRunning() { fatalError() }
    public func stopRunning() { fatalError() }
}

public final class AVCaptureVideoPreviewLayer: CALayer {
    public var session: AVCaptureSession?
    public var connection: AVCaptureConnection? { fatalError() }
}

public let AVCaptureSessionInterruptionReasonKey = ""
public let AVCaptureSessionErrorKey = ""
