package org.lavitedge.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val FRACTION = 22 // bits of a weight: with 8 of the pixel and 2 for the weights' overshoot they fill 32
private const val HALF = 1 shl (FRACTION - 1)
private const val MOST_PIXELS = 178_956_970L
private const val BLOCK = 4 // columns of the result that are turned into rows at once

/**
 * The resize of PIL, which is the contract's reference, to the last bit: a separable filter, stretched by the factor of shrinking
 * so that it averages over all the pixels it skips; columns first, 8 bits in between.
 *
 * The picture comes a column at a time, and a column of the result is the sum of some of them, so that the loops run along
 * arrays of 32 bits without a gap and compilers turn them into vector instructions. Of the columns only those are kept that the
 * next column of the result needs. Rows lie in the order of the frame's, first the even ones, then the odd ones, as chroma
 * samples, of which there is one for two rows, are added quickest.
 */
internal class Resizer(private val contract: Contract) {
    private val size = contract.size
    private val line = 3 * size
    private val sums = IntArray(line)
    private lateinit var columns: Taps
    private lateinit var rows: Taps
    private var ring = emptyArray<IntArray>() // columns of the picture
    private var ringSize = 0
    private var block = emptyArray<IntArray>() // columns of the result, with the picture's rows
    private var middle = emptyArray<IntArray>() // the picture's rows at the width of the result: all red, all green, all blue
    private var next = 0
    private var width = 0
    private var height = 0
    private var backward = false

    /** The columns of the picture that the square is made of. */
    val neededColumns: IntRange get() = columns.needed

    /** The same of pairs of rows, as the frame counts them. */
    lateinit var pairs: IntRange
        private set

    /** Begins a picture, whose rows the frame has from the bottom if it is [backward]. One like the last one makes nothing anew. */
    fun begin(width: Int, height: Int, backward: Boolean) {
        next = 0
        if (width == this.width && height == this.height && backward == this.backward) return
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
        val ends = rows.needed
        val top = if (backward) height - 1 - ends.last else ends.first
        pairs = top / 2..(top + ends.last - ends.first) / 2
        ringSize = columns.stride + 1
        val values = 2 * (pairs.last - pairs.first + 1)
        if (values.toLong() * line > MOST_PIXELS) throw UserError("$width x $height pixels are too long and thin to resize")
        if (ring.size < ringSize || ring[0].size < 3 * values) ring = Array(ringSize) { IntArray(3 * values) }
        if (block.isEmpty() || block[0].size < 3 * values) block = Array(BLOCK) { IntArray(3 * values) }
        if (middle.size < values) middle = Array(values) { IntArray(line) }
        this.width = width
        this.height = height
        this.backward = backward
    }

    /** Where a column of the picture is to be written: red of all rows, then green, then blue. */
    fun column(column: Int): IntArray = ring[column % ringSize]

    /** Column [column] has been written. */
    fun add(column: Int) {
        while (next < size && columns.first[next] + columns.counts[next] <= column + 1) {
            squeeze(next)
            if (++next % BLOCK == 0) turn(next - BLOCK)
        }
    }

    private fun squeeze(column: Int) {
        val sums = block[column % BLOCK]
        val count = 6 * (pairs.last - pairs.first + 1)
        sums.fill(HALF, 0, count)
        val first = columns.first[column]
        val weights = column * columns.stride
        for (tap in 0 until columns.counts[column]) {
            addTimes(sums, columns.weights[weights + tap], ring[(first + tap) % ringSize], count)
        }
        toLevels(sums, count)
    }

    /** Writes a block's columns, from [column] on, as parts of rows: some values of each at a time, which lie in one line of a cache. */
    private fun turn(column: Int) {
        val count = 2 * (pairs.last - pairs.first + 1)
        val (a, b, c, d) = block
        for (channel in 0..2) {
            val to = channel * size + column
            var from = channel * count
            for (row in 0 until count) {
                val values = middle[row]
                values[to] = a[from]
                values[to + 1] = b[from]
                values[to + 2] = c[from]
                values[to + 3] = d[from++]
            }
        }
    }

    /** Writes the square, RGB, when all columns have been added. */
    fun finish(square: ByteArray) {
        for (row in 0 until size) {
            sums.fill(HALF)
            val first = rows.first[row]
            for (tap in 0 until rows.counts[row]) {
                addTimes(sums, rows.weights[row * rows.stride + tap], middle[placeOf(first + tap)], line)
            }
            toLevels(sums, line)
            var to = row * line
            for (i in 0 until size) {
                square[to++] = sums[i].toByte()
                square[to++] = sums[size + i].toByte()
                square[to++] = sums[2 * size + i].toByte()
            }
        }
    }

    /** Of a row of the picture in the order in which rows lie. */
    private fun placeOf(row: Int): Int {
        val place = if (backward) height - 1 - row else row
        return (place shr 1) - pairs.first + if (place % 2 == 0) 0 else pairs.last - pairs.first + 1
    }
}

/** [value], but 0 to 255; without `min` and `max`, which Java 17 does not turn into vector instructions. */
internal fun level(value: Int): Int {
    val positive = value and (value shr 31).inv()
    return (positive or ((255 - positive) shr 31)) and 255
}

/** Loops of their own, so that compilers turn them into vector instructions. */
private fun addTimes(sums: IntArray, weight: Int, values: IntArray, count: Int) {
    for (i in 0 until count) sums[i] += weight * values[i]
}

private fun toLevels(sums: IntArray, count: Int) {
    for (i in 0 until count) sums[i] = level(sums[i] shr FRACTION)
}

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
