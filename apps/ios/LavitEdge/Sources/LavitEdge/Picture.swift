/// RGB, 8 bits, rows from the top, no padding.
public struct Picture: Equatable, Sendable {
    static let grid = 16

    /// In pixels.
    public internal(set) var width: Int
    /// In pixels.
    public internal(set) var height: Int
    /// `3 * width * height` bytes.
    public internal(set) var pixels: [UInt8]

    /// A picture of pixels that fill it; nil if they do not.
    public init?(width: Int, height: Int, pixels: [UInt8]) {
        guard width > 0, height > 0, pixels.count / 3 / width == height, pixels.count == 3 * width * height else { return nil }
        (self.width, self.height, self.pixels) = (width, height, pixels)
    }

    /// Without pixels, for a buffer that grows.
    init() {
        (width, height, pixels) = (0, 0, [])
    }

    /// Gives the picture another size, and room for its pixels; does nothing if it has that size.
    mutating func resize(width: Int, height: Int) {
        (self.width, self.height) = (width, height)
        let count = 3 * width * height
        if pixels.count != count { pixels = [UInt8](repeating: 0, count: count) }
    }

    /// Of a square, the 16 x 16 pixels in rows and columns `(2 i + 1) * size / 32`: what a payload remembers of an input.
    func sample() -> [UInt8] {
        let at = (0..<Self.grid).map { (2 * $0 + 1) * width / (2 * Self.grid) }
        return at.flatMap { row in at.flatMap { column in pixels[3 * (row * width + column)..<3 * (row * width + column + 1)] } }
    }
}
