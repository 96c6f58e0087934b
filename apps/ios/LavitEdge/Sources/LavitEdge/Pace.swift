/// How many frames of a live view are classified: all that the device manages, and half as many while it is hot.
public struct Pace: Equatable, Sendable {
    private static let tooSoon = 1.75  // of 2: frames come at their own times, and the next one would be too late

    private var interval = 0.0  // nanoseconds between frames while it was cool, of late
    private var last: Int?

    /// No frame taken yet.
    public init() {}

    /// Whether to classify the frame that is there at that time, in nanoseconds.
    public mutating func takes(at now: Int, hot: Bool) -> Bool {
        guard let last else {
            self.last = now
            return true
        }
        let passed = Double(now - last)
        if hot && (interval > 0 ? passed < Self.tooSoon * interval : true) {
            if interval == 0 { interval = passed }  // hot from the start
            return false
        }
        if !hot { interval = interval == 0 ? passed : interval + (passed - interval) / 4 }
        self.last = now
        return true
    }
}
