/// What the camera's screen shows: answers to the picture that is seen, or what is wrong, never both.
///
/// Classifying takes its time, and meanwhile a button may be pressed. So an answer names the ``turn`` in which its picture was taken,
/// and one of an earlier turn is dropped: it would label another model's, camera's or photo's picture.
public struct Live: Equatable, Sendable {
    private static let second = 1_000_000_000

    /// Counts what makes earlier pictures void.
    public private(set) var turn = 0
    /// Of the latest picture.
    public private(set) var seen: Seen?
    /// What is wrong, for people.
    public private(set) var problem: String?
    /// Whether the camera rests.
    public private(set) var isPaused = false
    /// Whether the front camera is used.
    public private(set) var isFront = false
    private var shown: [Int] = []  // when answers came, in nanoseconds, of the last second

    /// Nothing seen yet, with the back camera.
    public init() {}

    /// Frames classified in a second, by those of the last one; nil before there are two of them.
    public var framesPerSecond: Double? {
        guard let first = shown.first, let last = shown.last, last > first else { return nil }
        return Double((shown.count - 1) * Self.second) / Double(last - first)
    }

    /// Shows the answer to a picture of that turn.
    public mutating func show(_ seen: Seen, turn: Int, at now: Int) {
        guard turn == self.turn else { return }
        (self.seen, problem) = (seen, nil)
        shown = shown.filter { now - $0 < Self.second } + [now]
    }

    /// Shows what went wrong with a picture of that turn, and no label.
    public mutating func fail(_ problem: String, turn: Int) {
        guard turn == self.turn else { return }
        (seen, shown, self.problem) = (nil, [], problem)
    }

    /// Forgets what is shown: the model or the picture's source is another one now.
    public mutating func reset() {
        turn += 1
        (seen, problem, shown) = (nil, nil, [])
    }

    /// Stops the camera and keeps what its last picture showed, or lets it go on.
    public mutating func pause(_ paused: Bool) {
        let kept = paused ? seen : nil
        reset()
        (isPaused, seen) = (paused, kept)
    }

    /// From the back camera to the front one, or the other way.
    public mutating func switchCamera() {
        reset()
        isFront.toggle()
    }
}

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
