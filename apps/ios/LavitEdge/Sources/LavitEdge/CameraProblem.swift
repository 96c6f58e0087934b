/// Why there is no picture.
public enum CameraProblem: Error, Equatable, Sendable, CustomStringConvertible {
    case denied
    case restricted
    case missing(front: Bool)
    case inBackground
    case inUse
    case besideAnotherApp
    case tooHot
    case failed(String)
    /// Of four characters, as Core Video's constants are.
    case format(UInt32)

    /// For people, in one line.
    public var description: String {
        switch self {
        case .denied: "the app may not use the camera; Settings, Privacy & Security, Camera allows it"
        case .restricted: "the camera is blocked on this device, by Screen Time or its administrator"
        case .missing(let front): "this device has no \(front ? "front" : "back") camera"
        case .inBackground: "the camera rests while the app is in the background"
        case .inUse: "another app uses the camera"
        case .besideAnotherApp: "there is no camera beside another app; give this one the whole screen"
        case .tooHot: "the camera stopped because the device is too hot"
        case .failed(let why): oneLine("the camera failed: \(why)", most: 500)
        case .format(let code): "the camera gives pictures of format '\(Self.characters(code))', which this app does not read"
        }
    }

    private static func characters(_ code: UInt32) -> String {
        let bytes = withUnsafeBytes(of: code.bigEndian, Array.init)
        let printable = bytes.allSatisfy { (0x20...0x7E).contains($0) }
        return printable ? String(decoding: bytes, as: UTF8.self) : "\(code)"
    }
}
