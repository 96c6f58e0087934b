package org.lavitedge.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val FRACTION = 22 // bits of a weight: with 8 of the pixel and 2 for the weights' overshoot they fill 32
private const val HALF = 1 shl (FRACTION - 1)
private const val HALVES = HALF.toLong() or (HALF.toLong() shl 32)
private const val MOST_PIXELS = 178_956_970L

/**
 * The resize of PIL, which is the contract's reference, to the last bit: a separable filter, stretched by the factor of shrinking
 * so that it averages over all the pixels it skips; columns first, 8 bits in between.
 *
 * Rows come from the top, two at a time. A pair's red values are one array of Longs, the upper row's in the low half of each and
 * the lower row's in the high half: one multiplication then serves both rows, which made the pass over columns 2.5 times as fast
 * as one over bytes. Only the rows that the next row of the result needs are kept.
 */
internal class Resizer(private val contract: Contract) {
    private val size = contract.size
    private val line = 3 * size
    private val sums = IntArray(line)
    private lateinit var columns: Taps
    private lateinit var rows: Taps
    private var ring = IntArray(0) // rows that were squeezed to the width of the result
    private var ringRows = 0
    private var nextRow = 0
    private var width = 0
    private var height = 0

    /** The rows and columns of the picture that the square is made of. */
    val neededRows: IntRange get() = rows.needed
    val neededColumns: IntRange get() = columns.needed

    /** Begins a picture. Nothing is made anew for one of the same size as the last. */
    fun begin(width: Int, height: Int) {
        nextRow = 0
        if (width == this.width && height == this.height) return
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
        columns = Taps(width, across, (across - size) / 2, size, contract.interpolation)
        rows = Taps(height, down, (down - size) / 2, size, contract.interpolation)
        ringRows = rows.stride + 2
        if (ring.size < ringRows * line) ring = IntArray(ringRows * line)
        this.width = width
        this.height = height
    }

    /** Rows [row] and `row + 1` of the picture; writes those rows of the square, RGB, that are now known to [square]. */
    fun add(row: Int, red: LongArray, green: LongArray, blue: LongArray, square: ByteArray) {
        squeeze(red, green, blue, row % ringRows * line, (row + 1) % ringRows * line)
        while (nextRow < size && rows.first[nextRow] + rows.counts[nextRow] <= row + 2) finish(nextRow++, square)
    }

    private fun squeeze(red: LongArray, green: LongArray, blue: LongArray, upper: Int, lower: Int) {
        val ring = ring
        val columns = columns
        val weights = columns.weights
        var to = 0
        for (x in 0 until size) {
            var reds = HALVES
            var greens = HALVES
            var blues = HALVES
            val first = columns.first[x]
            val shift = x * columns.stride - first
            for (at in first until first + columns.counts[x]) {
                val weight = weights[at + shift].toLong()
                reds += weight * red[at]
                greens += weight * green[at]
                blues += weight * blue[at]
            }
            ring[upper + to] = low(reds)
            ring[lower + to++] = high(reds)
            ring[upper + to] = low(greens)
            ring[lower + to++] = high(greens)
            ring[upper + to] = low(blues)
            ring[lower + to++] = high(blues)
        }
    }

    private fun finish(row: Int, square: ByteArray) {
        sums.fill(HALF)
        val first = rows.first[row]
        for (tap in 0 until rows.counts[row]) {
            addTimes(sums, rows.weights[row * rows.stride + tap], ring, (first + tap) % ringRows * line)
        }
        val to = row * line
        for (i in 0 until line) square[to + i] = level(sums[i]).toByte()
    }
}

/** A loop of its own, of one multiplication, so that compilers turn it into vector instructions. */
private fun addTimes(sums: IntArray, weight: Int, values: IntArray, from: Int) {
    for (i in sums.indices) sums[i] += weight * values[from + i]
}

private fun level(sum: Int): Int = max(0, min(255, sum shr FRACTION))

private fun low(sums: Long): Int = level(sums.toInt())

/** The high half, less what the low half borrowed from it when it is negative. */
private fun high(sums: Long): Int = level(((sums - sums.toInt()) shr 32).toInt())

/**
 * What the pixels `from` to `from + count` of a side are made of when [before] pixels become [after]: pixel i of [counts] pixels
 * from [first] on, with [weights] from `i * stride` on that sum to `1 shl FRACTION`.
 */
private class Taps(before: Int, after: Int, from: Int, count: Int, interpolation: Interpolation) {
    val first = IntArray(count)
    val counts = IntArray(count)
    val stride: Int
    val weights: IntArray
    val needed: IntRange get() = first[0] until first.last() + counts.last()

    init {
        val scale = before.toDouble() / after
        val stretch = max(scale, 1.0)
        val reach = stretch * if (interpolation == Interpolation.BICUBIC) 2 else 1
        stride = ceil(reach).toInt() * 2 + 1
        weights = IntArray(count * stride)
        val exact = DoubleArray(stride)
        for (i in 0 until count) {
            val centre = (from + i + 0.5) * scale
            first[i] = max((centre - reach + 0.5).toInt(), 0)
            counts[i] = min((centre + reach + 0.5).toInt(), before) - first[i]
            var sum = 0.0
            for (tap in 0 until counts[i]) {
                val x = abs((tap + first[i] - centre + 0.5) * (1 / stretch))
                exact[tap] = if (interpolation == Interpolation.BICUBIC) cubic(x) else max(0.0, 1 - x)
                sum += exact[tap]
            }
            for (tap in 0 until counts[i]) {
                val weight = exact[tap] / sum * (1 shl FRACTION)
                weights[i * stride + tap] = (weight + if (weight < 0) -0.5 else 0.5).toInt()
            }
        }
    }

    /** Keys' kernel with a = -1/2. */
    private fun cubic(x: Double): Double = when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
        else -> 0.0
    }
}
