/// One plane of a camera's frame, where it lies in memory.
public struct Plane {
    /// The last row may end behind its last pixel.
    public let bytes: UnsafeRawBufferPointer
    /// Bytes from a row to the next.
    public let rowStride: Int
    /// Bytes from a pixel to the next.
    public let pixelStride: Int

    /// A plane in memory that must stay there as long as it is used.
    public init(bytes: UnsafeRawBufferPointer, rowStride: Int, pixelStride: Int) {
        (self.bytes, self.rowStride, self.pixelStride) = (bytes, rowStride, pixelStride)
    }
}

/// A camera's frame, as the sensor gives it (lavit_edge/contract/frames.py).
public struct Frame {
    /// How pixels are stored.
    public enum Format: String, Sendable {
        /// Planes Y, U, V; chroma planes have `(side + 1) / 2` pixels a side. Apple's 420f is this, too: U and V are then its second
        /// plane from byte 0 and from byte 1, with a pixel stride of 2.
        case yuv420 = "yuv_420_888"
        /// Planes Y, and V and U in turns.
        case nv21
        /// One plane.
        case bgra
        /// One plane.
        case rgba
    }

    /// By how many degrees a frame must be turned clockwise to stand upright.
    public enum Rotation: Int, Sendable {
        case none = 0
        case quarter = 90
        case half = 180
        case threeQuarters = 270
    }

    static let mostPixels = 178_956_970

    let format: Format
    let width: Int
    let height: Int
    let planes: [Plane]
    let rotation: Rotation
    let mirrored: Bool

    /// A frame whose planes hold `width` x `height` pixels. `mirrored` flips the upright picture left to right, as front cameras show it.
    ///
    /// - Throws: ``UserError`` for a wrong number of planes, or one too short for its strides.
    public init(
        _ format: Format, width: Int, height: Int, planes: [Plane], rotation: Rotation = .none, mirrored: Bool = false
    ) throws {
        (self.format, self.width, self.height, self.planes) = (format, width, height, planes)
        (self.rotation, self.mirrored) = (rotation, mirrored)
        let count = [.yuv420: 3, .nv21: 2][format] ?? 1
        guard planes.count == count else {
            throw UserError("frame: \(format.rawValue) has \(count) planes, not \(planes.count)")
        }
        let side = 1...Self.mostPixels
        guard side.contains(width), side.contains(height), width * height <= Self.mostPixels else {
            throw UserError("frame: \(width) x \(height) pixels are none, or too many")
        }
        let channels = [Format.bgra: 3, .rgba: 3][format] ?? 1
        try Self.check(planes[0], width, height, channels: channels)
        for plane in planes.dropFirst() {
            try Self.check(plane, (width + 1) / 2, (height + 1) / 2, channels: format == .nv21 ? 2 : 1)
        }
    }

    private static func check(_ plane: Plane, _ width: Int, _ height: Int, channels: Int) throws {
        let (row, pixel) = (plane.rowStride, plane.pixelStride)
        guard pixel >= 1, pixel <= 1 << 20, row <= 1 << 31, row >= (width - 1) * pixel + 1 else {
            throw UserError("frame: strides of \(row) and \(pixel) bytes do not hold \(width) pixels a row")
        }
        guard plane.bytes.count >= (height - 1) * row + (width - 1) * pixel + channels else {
            throw UserError("frame: a plane of \(plane.bytes.count) bytes is too short for \(width) x \(height) pixels")
        }
    }

    /// Writes the upright picture. YUV is JFIF's: BT.601 coefficients, full range, in fixed point of 16 bits, each chroma sample for
    /// its 2 x 2 pixels. Alpha is ignored.
    func toRGB(into picture: inout Picture) {
        let turned = rotation == .quarter || rotation == .threeQuarters
        picture.resize(width: turned ? height : width, height: turned ? width : height)
        let (across, down) = (picture.width, picture.height)
        picture.pixels.withUnsafeMutableBufferPointer { out in
            for row in 0..<down {
                let line = UnsafeMutableBufferPointer(rebasing: out[3 * across * row..<3 * across * (row + 1)])
                let (first, last) = (source(mirrored ? across - 1 : 0, row), source(mirrored ? 0 : across - 1, row))
                let step = ((last.x - first.x).signum(), (last.y - first.y).signum())
                switch format {
                case .bgra: copy(to: line, from: first, step: step, red: 2, blue: 0)
                case .rgba: copy(to: line, from: first, step: step, red: 0, blue: 2)
                case .nv21: convert(to: line, from: first, step: step, u: 1, uOffset: 1, v: 1)
                case .yuv420: convert(to: line, from: first, step: step, u: 1, uOffset: 0, v: 2)
                }
            }
        }
    }

    /// Where in the frame the pixel of the upright picture lies.
    private func source(_ column: Int, _ row: Int) -> (x: Int, y: Int) {
        switch rotation {
        case .none: (column, row)
        case .quarter: (row, height - 1 - column)
        case .half: (width - 1 - column, height - 1 - row)
        case .threeQuarters: (width - 1 - row, column)
        }
    }

    private func copy(
        to line: UnsafeMutableBufferPointer<UInt8>, from: (x: Int, y: Int), step: (x: Int, y: Int), red: Int, blue: Int
    ) {
        let (bytes, rowStride, pixelStride) = (planes[0].bytes, planes[0].rowStride, planes[0].pixelStride)
        var at = from.y * rowStride + from.x * pixelStride
        for i in stride(from: 0, to: line.count, by: 3) {
            line[i] = bytes[at + red]
            line[i + 1] = bytes[at + 1]
            line[i + 2] = bytes[at + blue]
            at += step.y * rowStride + step.x * pixelStride
        }
    }

    private func convert(
        to line: UnsafeMutableBufferPointer<UInt8>, from: (x: Int, y: Int), step: (x: Int, y: Int), u: Int, uOffset: Int, v: Int
    ) {
        let (yPlane, uPlane, vPlane) = (planes[0], planes[u], planes[v])
        var (x, y) = from
        for i in stride(from: 0, to: line.count, by: 3) {
            let luma = Int32(yPlane.bytes[y * yPlane.rowStride + x * yPlane.pixelStride]) << 16
            let blue = Int32(uPlane.bytes[y / 2 * uPlane.rowStride + x / 2 * uPlane.pixelStride + uOffset]) - 128
            let red = Int32(vPlane.bytes[y / 2 * vPlane.rowStride + x / 2 * vPlane.pixelStride]) - 128
            // 1.402, 0.344136, 0.714136 and 1.772 times 2^16: integers, so that every language comes to the same bits
            line[i] = Self.rounded(luma + 91881 * red)
            line[i + 1] = Self.rounded(luma - 22554 * blue - 46802 * red)
            line[i + 2] = Self.rounded(luma + 116130 * blue)
            x += step.x
            y += step.y
        }
    }

    private static func rounded(_ value: Int32) -> UInt8 {
        UInt8(clamping: (value + 32768) >> 16)
    }
}
