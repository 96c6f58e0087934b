/// What the camera's screen shows: answers to the picture that is seen, or what is wrong, never both.
///
/// Classifying takes its time, and meanwhile a button may be pressed. So an answer names the ``turn`` in which its picture was taken,
/// and one of an earlier turn is dropped: it would label another model's, camera's or photo's picture. A camera that was left goes on
/// for some frames: each names its ``source``, and has no turn any more.
public struct Live: Equatable, Sendable {
    private static let second = 1_000_000_000

    /// Counts what makes earlier pictures void.
    public private(set) var turn = 0
    /// Counts the cameras that were started, and the photos.
    public private(set) var source = 0
    /// Of the latest picture; of a camera's latest half second.
    public private(set) var seen: Seen?
    /// What is wrong, for people.
    public private(set) var problem: String?
    /// Whether it is that the person has denied the camera, which the system's settings alone undo.
    public private(set) var isDenied = false
    /// Whether the camera rests.
    public private(set) var isPaused = false
    /// Whether the front camera is used.
    public private(set) var isFront = false
    private var steady: Steady?
    private var shown: [Int] = []  // when answers came, in nanoseconds, of the last second

    /// Nothing seen yet, with the back camera.
    public init() {}

    /// Frames classified in a second, by those of the last one; nil before there are two of them.
    public var framesPerSecond: Double? {
        guard let first = shown.first, let last = shown.last, last > first else { return nil }
        return Double((shown.count - 1) * Self.second) / Double(last - first)
    }

    /// The turn of a picture that a source gives now; nil if it is not watched any more.
    public func turn(of source: Int) -> Int? {
        source == self.source ? turn : nil
    }

    /// Shows the answer to a photo of that turn.
    public mutating func show(_ seen: Seen, turn: Int) {
        guard turn == self.turn else { return }
        (self.seen, problem, isDenied) = (seen, nil, false)
    }

    /// Shows the answer to a camera's frame of that turn, steadied; `now` in nanoseconds.
    public mutating func show(_ seen: Seen, of contract: InputContract, turn: Int, at now: Int) {
        guard turn == self.turn else { return }
        var steady = steady ?? Steady(threshold: contract.threshold)
        steady.add(seen.probabilities, at: Double(now) / Double(Self.second))
        self.steady = steady
        let steadied = Seen(
            steady.average, best: steady.shown, labels: contract.labels, preparing: seen.preparing, running: seen.running)
        show(steadied, turn: turn)
        shown = shown.filter { now - $0 < Self.second } + [now]
    }

    /// Shows what went wrong with a picture of that turn, and no label.
    public mutating func fail(_ problem: any Error, turn: Int) {
        guard turn == self.turn else { return }
        (seen, steady, shown, self.problem) = (nil, nil, [], oneLine("\(problem)", most: 1000))
        isDenied = problem as? CameraProblem == .denied
    }

    /// Forgets what is shown: the model or the picture's source is another one now.
    public mutating func reset() {
        turn += 1
        (seen, problem, isDenied, steady, shown) = (nil, nil, false, nil, [])
    }

    /// Stops the camera and keeps what its last picture showed, or lets it go on.
    public mutating func pause(_ paused: Bool) {
        let kept = paused ? seen : nil
        leave()
        (isPaused, seen) = (paused, kept)
    }

    /// From the back camera to the front one, or the other way.
    public mutating func switchCamera() {
        leave()
        isFront.toggle()
    }

    private mutating func leave() {
        source += 1
        reset()
    }
}
