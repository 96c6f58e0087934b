package org.lavitedge.core

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

private const val FRACTION = 22 // bits of a weight: with 8 of the pixel and 2 for the weights' overshoot they fill 32
private const val HALF = 1 shl (FRACTION - 1)
private const val MOST_PIXELS = 178_956_970L
private const val QUAD = 4 // columns of the result whose bytes make a word; taps that are added at once

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
    private var block = Array(QUAD) { IntArray(0) } // columns of the result, with the picture's rows
    private val quads = Array(size / QUAD) { IntArray(0) } // the same as bytes, four columns to a word
    private var lines = emptyArray<IntArray>() // the picture's rows at the width of the result, as the next row of it needs them
    private val words = IntArray(line / QUAD)
    private val bytes = IntArray(line / QUAD)
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
        val values = 6 * (pairs.last - pairs.first + 1)
        if (values.toLong() * size > MOST_PIXELS) throw UserError("$width x $height pixels are too long and thin to resize")
        if (ring.size <= columns.stride || ring[0].size < values) ring = Array(columns.stride + 1) { IntArray(values) }
        if (lines.size <= rows.stride) lines = Array(rows.stride + 1) { IntArray(line) }
        if (block[0].size < values) block = Array(QUAD) { IntArray(values) }
        for (quad in quads.indices) if (quads[quad].size < values) quads[quad] = IntArray(values)
        this.width = width
        this.height = height
        this.backward = backward
    }

    /** Where a column of the picture is to be written: red of all rows, then green, then blue. */
    fun column(column: Int): IntArray = ring[column % ring.size]

    /** Column [column] has been written. */
    fun add(column: Int) {
        while (next < size && columns.first[next] + columns.counts[next] <= column + 1) {
            val values = 6 * (pairs.last - pairs.first + 1)
            columns.sum(ring, next, block[next % QUAD], values)
            if (++next % QUAD == 0) pack(block[0], block[1], block[2], block[3], quads[next / QUAD - 1], values)
        }
    }

    /** Writes the square, RGB, when all columns have been added. */
    fun finish(square: ByteArray) {
        var row = rows.first[0]
        var to = 0
        for (at in 0 until size) {
            while (row < rows.first[at] + rows.counts[at]) unpack(row++)
            rows.sum(lines, at, sums, line)
            for (quad in quads.indices) {
                for (i in 0 until QUAD) {
                    val from = i * words.size + quad
                    square[to++] = sums[from].toByte()
                    square[to++] = sums[from + quads.size].toByte()
                    square[to++] = sums[from + 2 * quads.size].toByte()
                }
            }
        }
    }

    /** A row of the picture: red of the columns 0, 4, 8 ..., green and blue, then the same of 1, 5, 9 ... */
    private fun unpack(row: Int) {
        val to = lines[row % lines.size]
        var from = placeOf(row)
        var at = 0
        for (channel in 0..2) {
            for (quad in quads) words[at++] = quad[from]
            from += 2 * (pairs.last - pairs.first + 1)
        }
        for (byte in 0 until QUAD) {
            unpack(words, 8 * byte, bytes, words.size)
            System.arraycopy(bytes, 0, to, byte * words.size, words.size)
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

// Loops of their own from 0 on, so that compilers turn them into vector instructions: Java 17 does not if a variable is added to
// the index, which made the loops along columns up to eight times as slow.

private fun add(to: IntArray, k: Int, a: IntArray, l: Int, b: IntArray, m: Int, c: IntArray, n: Int, d: IntArray, count: Int) {
    for (i in 0 until count) to[i] += k * a[i] + l * b[i] + m * c[i] + n * d[i]
}

private fun toLevels(sums: IntArray, count: Int) {
    for (i in 0 until count) sums[i] = level(sums[i] shr FRACTION)
}

private fun pack(a: IntArray, b: IntArray, c: IntArray, d: IntArray, to: IntArray, count: Int) {
    for (i in 0 until count) to[i] = a[i] or (b[i] shl 8) or (c[i] shl 16) or (d[i] shl 24)
}

internal fun unpack(words: IntArray, shift: Int, to: IntArray, count: Int) {
    for (i in 0 until count) to[i] = (words[i] ushr shift) and 255
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
        stride = (ceil(reach).toInt() * 2 / QUAD + 1) * QUAD
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

    /**
     * Writes pixel [pixel], which is a line of [length] values, made of some of [ring], where line i is at i modulo its size.
     *
     * By four taps it takes two thirds of the time that it takes one by one. Weights behind the last are 0.
     */
    fun sum(ring: Array<IntArray>, pixel: Int, to: IntArray, length: Int) {
        to.fill(HALF, 0, length)
        for (tap in 0 until counts[pixel] step QUAD) {
            val at = pixel * stride + tap
            val line = first[pixel] + tap
            val a = ring[line % ring.size]
            val b = ring[(line + 1) % ring.size]
            val c = ring[(line + 2) % ring.size]
            val d = ring[(line + 3) % ring.size]
            add(to, weights[at], a, weights[at + 1], b, weights[at + 2], c, weights[at + 3], d, length)
        }
        toLevels(to, length)
    }

    /** Keys' kernel with a = -1/2. */
    private fun cubic(x: Double): Double = when {
        x < 1 -> (1.5 * x - 2.5) * x * x + 1
        x < 2 -> (((x - 5) * x + 8) * x - 4) * -0.5
        else -> 0.0
    }
}
