import Foundation

/// The resize of PIL, which is the contract's reference: a separable filter, stretched by the factor of shrinking so that it averages
/// over all the pixels it skips; columns first, 8 bits in between, weights in fixed point of 22 bits.
struct Resizer {
    private static let fraction = Int32(22)  // bits; with 8 of the pixel and 2 of the weights' overshoot they fill 32
    private static let grain = Double(1 << fraction)

    /// What each pixel of the result is made of: pixels from `first` on, with weights that sum to one.
    private struct Taps {
        var first: [Int] = []
        var start: [Int] = [0]  // where a pixel's weights begin; one more than there are pixels
        var weights: [Int32] = []

        /// Of the contract's pixels in the middle when `before` pixels become `after`.
        init(before: Int, after: Int, contract: InputContract) {
            let bicubic = contract.interpolation == .bicubic
            let scale = Double(before) / Double(after)
            let stretch = max(scale, 1)
            let reach = (bicubic ? 2 : 1) * stretch
            let from = (after - contract.size) / 2
            for at in from..<from + contract.size {
                let centre = (Double(at) + 0.5) * scale
                let low = max(Int(centre - reach + 0.5), 0)
                let high = min(Int(centre + reach + 0.5), before)
                let values = (low..<high).map { pixel in
                    let distance = abs((Double(pixel) - centre + 0.5) / stretch)
                    return bicubic ? Resizer.cubic(distance) : max(0, 1 - distance)
                }
                let sum = values.reduce(0, +)
                first.append(low)
                weights += values.map { Int32(($0 / sum * grain).rounded()) }
                start.append(weights.count)
            }
        }
    }

    let width: Int
    let height: Int
    private let size: Int
    private let across: Taps
    private let down: Taps
    private var columns: [UInt8]
    private var sums: [Int32]

    /// From `width` x `height` pixels to the contract's square.
    ///
    /// - Throws: ``UserError`` for a picture so long and thin that it cannot be cropped.
    init(width: Int, height: Int, contract: InputContract) throws {
        (self.width, self.height, size) = (width, height, contract.size)
        var (wide, high) = (Double(size), Double(size))
        if contract.resize == .crop {
            // halves go to the even number, as in Python
            let short = max(wide, (wide / contract.cropFraction).rounded(.toNearestOrEven))
            let scale = short / Double(min(width, height))
            wide = max(short, (Double(width) * scale).rounded(.toNearestOrEven))
            high = max(short, (Double(height) * scale).rounded(.toNearestOrEven))
            guard wide * high <= Double(Frame.mostPixels) else {
                throw UserError("\(width) x \(height) pixels are too long and thin to crop")
            }
        }
        across = Taps(before: width, after: Int(wide), contract: contract)
        down = Taps(before: height, after: Int(high), contract: contract)
        columns = [UInt8](repeating: 0, count: 3 * size * height)
        sums = [Int32](repeating: 0, count: 3 * size)
    }

    /// Resizes a picture of the size that this was made for; `square` keeps its memory.
    mutating func resize(_ picture: Picture, into square: inout Picture) {
        square.resize(width: size, height: size)
        resizeColumns(picture)
        resizeRows(into: &square)
    }

    private mutating func resizeColumns(_ picture: Picture) {
        let (across, width, height, size) = (across, width, height, size)
        columns.withUnsafeMutableBufferPointer { out in
            picture.pixels.withUnsafeBufferPointer { pixels in
                across.weights.withUnsafeBufferPointer { weights in
                    for row in 0..<height {
                        for column in 0..<size {
                            var (red, green, blue) = (Int32(0), Int32(0), Int32(0))
                            var at = 3 * (row * width + across.first[column])
                            for tap in across.start[column]..<across.start[column + 1] {
                                let weight = weights[tap]
                                red &+= weight &* Int32(pixels[at])
                                green &+= weight &* Int32(pixels[at + 1])
                                blue &+= weight &* Int32(pixels[at + 2])
                                at += 3
                            }
                            let to = 3 * (row * size + column)
                            out[to] = Self.rounded(red)
                            out[to + 1] = Self.rounded(green)
                            out[to + 2] = Self.rounded(blue)
                        }
                    }
                }
            }
        }
    }

    private mutating func resizeRows(into square: inout Picture) {
        let line = 3 * size
        square.pixels.withUnsafeMutableBufferPointer { out in
            columns.withUnsafeBufferPointer { columns in
                sums.withUnsafeMutableBufferPointer { sums in
                    for row in 0..<size {
                        sums.update(repeating: 0)
                        var at = line * down.first[row]
                        for tap in down.start[row]..<down.start[row + 1] {
                            let weight = down.weights[tap]
                            for i in 0..<line { sums[i] &+= weight &* Int32(columns[at + i]) }
                            at += line
                        }
                        for i in 0..<line { out[line * row + i] = Self.rounded(sums[i]) }
                    }
                }
            }
        }
    }

    private static func rounded(_ sum: Int32) -> UInt8 {
        UInt8(clamping: (sum &+ 1 << (fraction - 1)) >> fraction)
    }

    private static func cubic(_ x: Double) -> Double {  // Keys' kernel with a = -1/2
        if x < 1 { return (1.5 * x - 2.5) * x * x + 1 }
        return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
    }
}
