import Foundation

/// SHA-256 of bytes (FIPS 180-4), 64 hexadecimal digits in lower case.
///
/// Our own because CryptoKit is Apple's alone, and what runs everywhere is tested everywhere.
public func sha256(_ bytes: [UInt8]) -> String {
    Sha256.hex(bytes)
}

private struct Sha256 {
    private static let primes = (2...311).filter { candidate in !(2..<candidate).contains { candidate % $0 == 0 } }
    // The standard defines its constants: the first 32 bits behind the point of the square roots of the first 8 primes, and of the
    // cube roots of the first 64. A Double has the 35 bits that this takes.
    private static let start = primes.prefix(8).map { fraction(Double($0).squareRoot()) }
    private static let round = primes.map { fraction(cbrt(Double($0))) }

    private var state = Self.start
    private var words = [UInt32](repeating: 0, count: 64)

    static func hex(_ bytes: [UInt8]) -> String {
        var hash = Sha256()
        let whole = bytes.count / 64 * 64
        bytes.withUnsafeBufferPointer { hash.take($0[..<whole]) }
        var rest = Array(bytes[whole...]) + [0x80]
        rest += [UInt8](repeating: 0, count: (120 - rest.count) % 64)
        for shift in stride(from: 56, through: 0, by: -8) { rest.append(UInt8(truncatingIfNeeded: (bytes.count * 8) >> shift)) }
        rest.withUnsafeBufferPointer { hash.take($0[...]) }
        return hash.state.map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }.joined()
    }

    private static func fraction(_ root: Double) -> UInt32 {
        UInt32((root - root.rounded(.down)) * 0x1p32)
    }

    private mutating func take(_ blocks: Slice<UnsafeBufferPointer<UInt8>>) {
        state.withUnsafeMutableBufferPointer { state in
            words.withUnsafeMutableBufferPointer { words in
                Self.round.withUnsafeBufferPointer { round in
                    for block in stride(from: 0, to: blocks.count, by: 64) {
                        Self.mix(UnsafeBufferPointer(rebasing: blocks[block..<block + 64]), state, words, round)
                    }
                }
            }
        }
    }

    private static func mix(
        _ block: UnsafeBufferPointer<UInt8>,
        _ state: UnsafeMutableBufferPointer<UInt32>,
        _ words: UnsafeMutableBufferPointer<UInt32>,
        _ round: UnsafeBufferPointer<UInt32>
    ) {
        for i in 0..<16 {
            let (high, low) = (UInt32(block[4 * i]) << 8 | UInt32(block[4 * i + 1]), UInt32(block[4 * i + 2]) << 8)
            words[i] = high << 16 | low | UInt32(block[4 * i + 3])
        }
        for i in 16..<64 {
            let (early, late) = (words[i - 15], words[i - 2])
            let first = turn(early, 7) ^ turn(early, 18) ^ early >> 3
            let second = turn(late, 17) ^ turn(late, 19) ^ late >> 10
            words[i] = words[i - 16] &+ first &+ words[i - 7] &+ second
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for i in 0..<64 {
            let choice = (e & f) ^ (~e & g)
            let majority = (a & b) ^ (a & c) ^ (b & c)
            let first = h &+ (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) &+ choice &+ round[i] &+ words[i]
            let second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) &+ majority
            (h, g, f, e) = (g, f, e, d &+ first)
            (d, c, b, a) = (c, b, a, first &+ second)
        }
        for (i, word) in [a, b, c, d, e, f, g, h].enumerated() { state[i] &+= word }
    }

    @inline(__always)
    private static func turn(_ word: UInt32, _ by: UInt32) -> UInt32 {
        word >> by | word << (32 - by)
    }
}
