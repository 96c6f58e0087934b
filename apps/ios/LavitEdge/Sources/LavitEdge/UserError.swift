/// What is wrong with something that came from outside, in one line that a person can act on.
public struct UserError: Error, Equatable, CustomStringConvertible {
    /// The line; control characters are spaces in it.
    public let description: String

    /// An error that says `message`.
    public init(_ message: String) {
        description = oneLine(message, most: 1000)
    }
}

/// `text` without control characters, and no longer than `most` scalars.
func oneLine(_ text: String, most: Int) -> String {
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(most) {
        scalars.append(scalar.properties.generalCategory == .control ? " " : scalar)
    }
    return String(scalars)
}
