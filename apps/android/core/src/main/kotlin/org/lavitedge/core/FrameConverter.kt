package org.lavitedge.core

import kotlin.math.max
import kotlin.math.min

/**
 * Makes the input of one contract from camera frames: upright RGB, resized, to the bit what lavit_edge/frames.py and
 * lavit_edge/pictures.py make.
 *
 * It keeps its buffers and makes larger ones only for a larger frame, so that frame after frame nothing is left to the garbage
 * collector but a few small objects. Not for two threads at once.
 */
class FrameConverter(private val contract: Contract) {
    /** RGB, `size x size x 3`, rows from the top; the next [convert] overwrites it. */
    val square = ByteArray(3 * contract.size * contract.size)
    private val tensor = FloatArray(square.size)
    private val resizer = Resizer(contract)
    private val planes = List(3) { PlaneBytes() }
    private var red = LongArray(0) // two rows at a time, as the resizer takes them
    private var green = red
    private var blue = red
    private val chroma = Chroma()

    /**
     * Fills [square].
     *
     * @throws UserError the frame is so long and thin that it cannot be cropped.
     */
    fun convert(frame: Frame): ByteArray {
        val width = if (frame.sideways) frame.height else frame.width
        val height = if (frame.sideways) frame.width else frame.height
        resizer.begin(width, height)
        if (red.size < width) {
            red = LongArray(width)
            green = LongArray(width)
            blue = LongArray(width)
        }
        frame.planes.forEachIndexed { index, plane -> planes[index].take(plane) }
        val needed = resizer.neededRows
        for (row in needed.first..needed.last step 2) {
            val lower = min(row + 1, height - 1) // of an odd number of rows the last is its own neighbour, which no tap reaches
            if (frame.format.planes == 1) readPacked(frame, row, lower) else readYuv(frame, row, lower)
            resizer.add(row, red, green, blue, square)
        }
        return square
    }

    /** [square] as the model takes it: float32 `(1, 3, size, size)`, 0 to 255; the next call overwrites it. */
    fun tensor(): FloatArray {
        val plane = contract.size * contract.size
        var at = 0
        for (pixel in 0 until plane) {
            tensor[pixel] = (square[at++].toInt() and 255).toFloat()
            tensor[plane + pixel] = (square[at++].toInt() and 255).toFloat()
            tensor[2 * plane + pixel] = (square[at++].toInt() and 255).toFloat()
        }
        return tensor
    }

    /**
     * Which line of the frame is [row] of the upright picture: a row of it, or a column where the frame lies on its side, walked
     * forward or backward.
     */
    private fun lineOf(frame: Frame, row: Int): Int = when (frame.rotation) {
        0, 90 -> row
        180 -> frame.height - 1 - row
        else -> frame.width - 1 - row
    }

    /** Whether the line is walked from its end: turning by 90 or 180 degrees turns it round, and so does mirroring. */
    private fun isBackward(frame: Frame): Boolean = (frame.rotation == 90 || frame.rotation == 180) != frame.mirrored

    private fun readPacked(frame: Frame, upperRow: Int, lowerRow: Int) {
        val plane = planes[0]
        val data = plane.data
        val upper = plane.line(lineOf(frame, upperRow), frame.sideways)
        val lower = plane.line(lineOf(frame, lowerRow), frame.sideways)
        val along = plane.along(frame.sideways)
        val first = if (frame.format == PixelFormat.BGRA) 2 else 0 // red's offset; blue's is the other one
        val backward = isBackward(frame)
        val last = (if (frame.sideways) frame.height else frame.width) - 1
        for (column in resizer.neededColumns) {
            val at = (if (backward) last - column else column) * along
            val a = upper + at
            val b = lower + at
            red[column] = pair(data[a + first].toInt() and 255, data[b + first].toInt() and 255)
            green[column] = pair(data[a + 1].toInt() and 255, data[b + 1].toInt() and 255)
            blue[column] = pair(data[a + 2 - first].toInt() and 255, data[b + 2 - first].toInt() and 255)
        }
    }

    private fun readYuv(frame: Frame, upperRow: Int, lowerRow: Int) {
        val luma = planes[0]
        val data = luma.data
        val a = lineOf(frame, upperRow)
        val b = lineOf(frame, lowerRow)
        val upper = luma.line(a, frame.sideways)
        val lower = luma.line(b, frame.sideways)
        val along = luma.along(frame.sideways)
        val backward = isBackward(frame)
        val last = (if (frame.sideways) frame.height else frame.width) - 1
        val columns = resizer.neededColumns
        val from = (if (backward) last - columns.last else columns.first) shr 1
        val to = (if (backward) last - columns.first else columns.last) shr 1
        chroma.read(frame, planes, a shr 1, b shr 1, from, to)
        val reds = chroma.red
        val greens = chroma.green
        val blues = chroma.blue
        val red = red
        val green = green
        val blue = blue
        for (column in columns.first..columns.last) {
            val at = if (backward) last - column else column
            val y = pair(data[upper + at * along].toInt() and 255, data[lower + at * along].toInt() and 255)
            var r = y + reds[at shr 1]
            var g = y + greens[at shr 1]
            var b = y + blues[at shr 1]
            if ((r or g or b) and BEYOND != 0L) { // rare: only then both halves are looked at
                r = levels(r)
                g = levels(g)
                b = levels(b)
            }
            red[column] = r
            green[column] = g
            blue[column] = b
        }
    }
}

private const val BEYOND = (0xFFFFFF00L shl 32) or 0xFFFFFF00L // bits that neither half has when both are in 0 to 255

private fun pair(low: Int, high: Int): Long = low.toLong() or (high.toLong() shl 32)

/** Both halves in 0 to 255; a negative low half has borrowed from the high one. */
private fun levels(sums: Long): Long = pair(level(sums.toInt()), level(((sums - sums.toInt()) shr 32).toInt()))

private fun level(value: Int): Int = max(0, min(255, value))

/** A plane's bytes in an array, which is many times faster to read than a buffer outside the heap. */
private class PlaneBytes {
    var data = ByteArray(0)
    private var own = data
    private var offset = 0
    private var rowStride = 0
    private var pixelStride = 0

    fun take(plane: Plane) {
        rowStride = plane.rowStride
        pixelStride = plane.pixelStride
        if (plane.data.hasArray()) {
            data = plane.data.array()
            offset = plane.data.arrayOffset() + plane.data.position()
            return
        }
        val length = plane.data.remaining()
        if (own.size < length) own = ByteArray(length)
        plane.data.duplicate().get(own, 0, length)
        data = own
        offset = 0
    }

    /** Where row [index], or the column of that number, begins. */
    fun line(index: Int, column: Boolean): Int = offset + index * if (column) pixelStride else rowStride

    /** Bytes from a pixel of a row, or of a column, to the next. */
    fun along(column: Boolean): Int = if (column) rowStride else pixelStride
}

/**
 * What is added to luma for red, green and blue along two lines of the chroma planes, the second line's in the high half.
 *
 * JFIF's conversion: BT.601, full range, in fixed point of 16 bits. Luma is whole there, so that rounding what is added to it
 * rounds the sum as well, and the pixels of a sample share it.
 */
private class Chroma {
    var red = LongArray(0)
        private set
    var green = red
        private set
    var blue = red
        private set

    fun read(frame: Frame, planes: List<PlaneBytes>, upper: Int, lower: Int, from: Int, to: Int) {
        if (red.size <= to) {
            red = LongArray(to + 1)
            green = LongArray(to + 1)
            blue = LongArray(to + 1)
        }
        red.fill(0, from, to + 1)
        green.fill(0, from, to + 1)
        blue.fill(0, from, to + 1)
        if (upper == lower) {
            add(frame, planes, upper, from, to, 1L + (1L shl 32))
        } else {
            add(frame, planes, upper, from, to, 1L)
            add(frame, planes, lower, from, to, 1L shl 32)
        }
    }

    private fun add(frame: Frame, planes: List<PlaneBytes>, line: Int, from: Int, to: Int, halves: Long) {
        val nv21 = frame.format == PixelFormat.NV21
        val u = planes[1]
        val v = if (nv21) u else planes[2]
        val alongU = u.along(frame.sideways)
        val alongV = v.along(frame.sideways)
        val startU = u.line(line, frame.sideways) + if (nv21) 1 else 0
        val startV = v.line(line, frame.sideways)
        for (pixel in from..to) {
            val bluish = (u.data[startU + pixel * alongU].toInt() and 255) - 128
            val reddish = (v.data[startV + pixel * alongV].toInt() and 255) - 128
            red[pixel] += halves * ((91881 * reddish + 32768) shr 16)
            green[pixel] += halves * ((-22554 * bluish - 46802 * reddish + 32768) shr 16)
            blue[pixel] += halves * ((116130 * bluish + 32768) shr 16)
        }
    }
}
