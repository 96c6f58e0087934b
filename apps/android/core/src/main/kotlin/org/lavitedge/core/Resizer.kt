package org.lavitedge.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val FRACTION = 22 // bits of a weight: with 8 of the pixel and 2 for the weights' overshoot they fill 32
private const val HALF = 1 shl (FRACTION - 1)
private const val MOST_PIXELS = 178_956_970L
private const val QUAD = 4 // neighbours whose bytes make a word

/**
 * The resize of PIL, which is the contract's reference, to the last bit: a separable filter, stretched by the factor of shrinking
 * so that it averages over all the pixels it skips; columns first, 8 bits in between.
 *
 * The picture comes four columns at a time, a word for the four pixels in a row, and a column of the result is the sum of some of
 * them, times weights: the loops run along arrays of 32 bits without a gap, and compilers turn them into vector instructions. Four
 * bytes are taken from a word in less time than four words are read, and all that a column of the result needs fits the processor's
 * first cache. Then the same with rows.
 *
 * Columns and rows are counted as the frame has them; where the picture has them the other way round, its weights are.
 */
internal class Resizer(private val contract: Contract) {
    private val size = contract.size
    private val line = 3 * size
    private lateinit var columns: Taps
    private lateinit var rows: Taps
    private var ring = emptyArray<IntArray>() // quads of columns of the frame, of which only those are kept that are needed next
    private var sums = IntArray(0)
    private var parts = Array(QUAD) { IntArray(0) } // of four columns of the result every fourth row
    private var words = IntArray(0)
    private var narrow = IntArray(0) // columns of the result with all rows of the frame, four rows to a word
    private var stride = 0 // of a column in it: an odd number of cache lines, as in PlaneBytes
    private var lines = emptyArray<IntArray>() // quads of rows of that, the same
    private var next = 0
    private var width = 0
    private var height = 0
    private var leftward = false
    private var upward = false

    /** The columns of the frame that the square is made of, by four. */
    val columnQuads: IntRange get() = columns.quads

    /** The same of rows. */
    lateinit var rowQuads: IntRange
        private set

    /**
     * Begins a picture, which has the frame's columns from the right if it is [leftward], and its rows from the bottom if it is
     * [upward]. One like the last one makes nothing anew.
     */
    fun begin(width: Int, height: Int, leftward: Boolean, upward: Boolean) {
        next = 0
        if (width == this.width && height == this.height && leftward == this.leftward && upward == this.upward) return
        var across = size
        var down = size
        if (contract.resize == Resize.CROP) {
            val edge = max(size.toDouble(), round(size / contract.cropFraction)) // rounds halves to even, as Python does
            val scale = edge / min(width, height)
            val wide = max(edge, round(width * scale))
            val high = max(edge, round(height * scale))
            if (wide * high > MOST_PIXELS) throw UserError("$width x $height pixels are too long and thin to crop")
            across = wide.toInt()
            down = high.toInt()
        }
        columns = Taps(width, across, (across - size) / 2, size, contract.interpolation, leftward)
        rows = Taps(height, down, (down - size) / 2, size, contract.interpolation, upward)
        rowQuads = rows.quads
        val count = rowQuads.last - rowQuads.first + 1
        val values = 3 * QUAD * count
        if (values.toLong() * size > MOST_PIXELS) throw UserError("$width x $height pixels are too long and thin to resize")
        if (ring.size < columns.most || ring[0].size < values) ring = Array(columns.most) { IntArray(values) }
        if (sums.size < max(values, line)) sums = IntArray(max(values, line))
        if (words.size < values) {
            words = IntArray(values)
            parts = Array(QUAD) { IntArray(values) }
        }
        stride = ((3 * count + 15) / 16 or 1) * 16
        if (narrow.size < size * stride) narrow = IntArray(size * stride)
        if (lines.size < rows.most) lines = Array(rows.most) { IntArray(line) }
        this.width = width
        this.height = height
        this.leftward = leftward
        this.upward = upward
    }

    /**
     * Where a quad of columns is to be written: red of all rows, then green, then blue. Of the rows come first 0, 4, 8 ... of those
     * needed, then 2, 6, 10 ..., 1, 5, 9 ..., and 3, 7, 11 ...
     */
    fun quad(quad: Int): IntArray = ring[quad % ring.size]

    /** Quad [quad] has been written. */
    fun add(quad: Int) {
        val count = rowQuads.last - rowQuads.first + 1
        while (next < size && columns.last[next] <= quad) {
            columns.sum(ring, next, sums, 3 * QUAD * count)
            for (part in 0 until 3 * QUAD) {
                System.arraycopy(sums, part * count, parts[part % QUAD], (next % QUAD * 3 + part / QUAD) * count, count)
            }
            if (++next % QUAD == 0) {
                val (a, b, c, d) = parts
                pack(a, c, b, d, words, 3 * QUAD * count)
                for (column in next - QUAD until next) {
                    val to = stride * if (leftward) size - 1 - column else column
                    System.arraycopy(words, column % QUAD * 3 * count, narrow, to, 3 * count)
                }
            }
        }
    }

    /** Writes the square, RGB, when all quads have been added. */
    fun finish(square: ByteArray) {
        val count = rowQuads.last - rowQuads.first + 1
        var quad = 0
        for (row in 0 until size) {
            while (quad <= rows.last[row] - rowQuads.first) {
                val to = lines[(quad + rowQuads.first) % lines.size]
                for (channel in 0..2) gather(narrow, channel * count + quad, stride, to, channel * size, size)
                quad++
            }
            rows.sum(lines, row, sums, line)
            var to = line * if (upward) size - 1 - row else row
            for (column in 0 until size) {
                square[to] = sums[column].toByte()
                square[to + 1] = sums[column + size].toByte()
                square[to + 2] = sums[column + 2 * size].toByte()
                to += 3
            }
        }
    }
}

/**
 * What the pixels `from` to `from + count` of a side are made of when [before] pixels become [after], all counted from the other
 * end if it is [backward]: pixel i of the quads [first] to [last], with [weights] from `i * QUAD * most` on that sum to
 * `1 shl FRACTION`. Those of a quad's pixels that are not needed are 0.
 *
 * Of each weight 256 times the one before in its quad is taken away, so that bytes need not be cut out of a word: a word shifted
 * to the byte is the byte and 256 times the word shifted to the next. What overflows does so in both, and is gone in the sum.
 */
private class Taps(before: Int, after: Int, from: Int, count: Int, interpolation: Interpolation, backward: Boolean) {
    val first = IntArray(count)
    val last = IntArray(count)
    val most: Int
    val weights: IntArray
    val quads: IntRange get() = first[0]..last.last()

    init {
        val scale = before.toDouble() / after
        val stretch = max(scale, 1.0)
        val reach = stretch * if (interpolation == Interpolation.BICUBIC) 2 else 1
        val exact = DoubleArray(ceil(reach).toInt() * 2 + 1)
        most = (exact.size + 2) / QUAD / 2 * 2 + 2 // the first tap may be the last of its quad; even, as two are added at once
        weights = IntArray(count * QUAD * most)
        for (i in 0 until count) {
            val centre = (from + i + 0.5) * scale
            val start = max((centre - reach + 0.5).toInt(), 0)
            val taps = min((centre + reach + 0.5).toInt(), before) - start
            var sum = 0.0
            for (tap in 0 until taps) {
                val x = abs((tap + start - centre + 0.5) * (1 / stretch))
                exact[tap] = if (interpolation == Interpolation.BICUBIC) cubic(x) else max(0.0, 1 - x)
                sum += exact[tap]
            }
            val place = if (backward) count - 1 - i else i
            val begin = if (backward) before - start - taps else start
            first[place] = begin / QUAD
            last[place] = (begin + taps - 1) / QUAD
            for (tap in 0 until taps) {
                val weight = exact[tap] / sum * (1 shl FRACTION)
                val at = begin % QUAD + if (backward) taps - 1 - tap else tap
                weights[place * QUAD * most + at] = (weight + if (weight < 0) -0.5 else 0.5).toInt()
            }
        }
        for (i in weights.indices.reversed()) if (i % QUAD > 0) weights[i] -= weights[i - 1] shl 8
    }

    /** Writes pixel [pixel], which is a line of [length] values, made of some of [ring], where quad i is at i modulo its size. */
    fun sum(ring: Array<IntArray>, pixel: Int, to: IntArray, length: Int) {
        val from = first[pixel]
        val end = last[pixel]
        for (quad in from..end step 2) { // a quad behind the last has no weight
            val at = (pixel * most + quad - from) * QUAD
            add(quad == from, quad + 1 >= end, to, weights, at, ring[quad % ring.size], ring[(quad + 1) % ring.size], length)
        }
    }

    /** Keys' kernel with a = -1/2. */
    private fun cubic(x: Double): Double = when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
        else -> 0.0
    }
}

// Loops of their own from 0 on, so that compilers turn them into vector instructions: Java 17 does not if something that varies is
// added to the index of what is stored, if a store comes before a load, or if there is too much in a loop: the sum of six arrays
// times their weights took 15 times as long as that of five.

internal fun gather(words: IntArray, first: Int, step: Int, to: IntArray, at: Int, count: Int) {
    var from = first
    for (i in at until at + count) {
        to[i] = words[from]
        from += step
    }
}

/**
 * Adds the words of [a] and [b] to sums that begin with the [first] two and are levels after the [last].
 *
 * Two at once take two thirds of the time that they take one by one. All in one function of more than 325 bytes of code, which
 * Java 17 does not inline: where it did, loops were not turned into vector instructions, and preprocessing took 1.6 times as long.
 *
 * @param at where in [weights] those of [a] are, then those of [b], as [Taps] has them.
 */
private fun add(first: Boolean, last: Boolean, to: IntArray, weights: IntArray, at: Int, a: IntArray, b: IntArray, count: Int) {
    val k = weights[at]
    val l = weights[at + 1]
    val m = weights[at + 2]
    val n = weights[at + 3]
    val o = weights[at + 4]
    val p = weights[at + 5]
    val q = weights[at + 6]
    val r = weights[at + 7]
    if (first) {
        for (i in 0 until count) {
            val x = a[i]
            val y = b[i]
            to[i] = HALF + k * x + l * (x ushr 8) + m * (x ushr 16) + n * (x ushr 24) +
                o * y + p * (y ushr 8) + q * (y ushr 16) + r * (y ushr 24)
        }
    } else if (!last) {
        for (i in 0 until count) {
            val x = a[i]
            val y = b[i]
            to[i] += k * x + l * (x ushr 8) + m * (x ushr 16) + n * (x ushr 24) +
                o * y + p * (y ushr 8) + q * (y ushr 16) + r * (y ushr 24)
        }
    } else {
        for (i in 0 until count) {
            val x = a[i]
            val y = b[i]
            val sum = to[i] + k * x + l * (x ushr 8) + m * (x ushr 16) + n * (x ushr 24) +
                o * y + p * (y ushr 8) + q * (y ushr 16) + r * (y ushr 24)
            val level = sum shr FRACTION
            val positive = level and (level shr 31).inv()
            to[i] = (positive or ((255 - positive) shr 31)) and 255
        }
    }
    if (first && last) {
        for (i in 0 until count) {
            val level = to[i] shr FRACTION
            val positive = level and (level shr 31).inv()
            to[i] = (positive or ((255 - positive) shr 31)) and 255
        }
    }
}

/** Words of four bytes. */
private fun pack(a: IntArray, b: IntArray, c: IntArray, d: IntArray, to: IntArray, count: Int) {
    for (i in 0 until count) to[i] = a[i] or (b[i] shl 8) or (c[i] shl 16) or (d[i] shl 24)
}
