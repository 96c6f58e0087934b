package org.lavitedge.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
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
    private val planes = List(3) { PlaneBytes(if (it == 0) 2 else 1) }
    private val chroma = Chroma()

    /**
     * Fills [square].
     *
     * @throws UserError the frame is so long and thin that it cannot be cropped.
     */
    fun convert(frame: Frame): ByteArray {
        val width = if (frame.sideways) frame.height else frame.width
        val height = if (frame.sideways) frame.width else frame.height
        resizer.begin(width, height, frame.rotation >= 180)
        planes[0].take(frame, frame.planes[0], if (frame.format.planes == 1) 3 else 1, resizer.pairs)
        if (frame.format.planes > 1) { // NV21's second plane is both
            planes[1].take(frame, frame.planes[1], 4 - frame.format.planes, resizer.pairs)
            planes[2].take(frame, frame.planes.last(), 4 - frame.format.planes, resizer.pairs)
        }
        chroma.forget()
        for (column in resizer.neededColumns) {
            val line = lineOf(frame, if (frame.mirrored) width - 1 - column else column)
            val values = resizer.column(column)
            if (frame.format.planes == 1) readPacked(frame, line, values) else readYuv(frame, line, values)
            resizer.add(column)
        }
        resizer.finish(square)
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

    /** Which line of the frame is a column of the upright picture: a column of it, or a row where the frame lies on its side. */
    private fun lineOf(frame: Frame, column: Int): Int = when (frame.rotation) {
        0, 270 -> column
        90 -> frame.height - 1 - column
        else -> frame.width - 1 - column
    }

    private fun readPacked(frame: Frame, line: Int, column: IntArray) {
        val rows = 2 * (resizer.pairs.last - resizer.pairs.first + 1)
        for (channel in 0..2) {
            val values = planes[0].read(line, if (frame.format == PixelFormat.BGRA) 2 - channel else channel)
            System.arraycopy(values, 0, column, channel * rows, rows)
        }
    }

    private fun readYuv(frame: Frame, line: Int, column: IntArray) {
        val rows = 2 * (resizer.pairs.last - resizer.pairs.first + 1)
        val luma = planes[0].read(line, 0)
        for (channel in 0..2) System.arraycopy(luma, 0, column, channel * rows, rows)
        addLevels(column, chroma.read(frame, planes, line shr 1, rows / 2), 3 * rows)
    }
}

// Loops of their own from 0 on, as in Resizer.kt.

private fun addLevels(sums: IntArray, values: IntArray, count: Int) {
    for (i in 0 until count) sums[i] = level(sums[i] + values[i])
}

private fun mix(u: IntArray, v: IntArray, red: IntArray, green: IntArray, blue: IntArray, count: Int) {
    for (i in 0 until count) {
        red[i] = (91881 * (v[i] - 128) + 32768) shr 16
        green[i] = (-22554 * (u[i] - 128) - 46802 * (v[i] - 128) + 32768) shr 16
        blue[i] = (116130 * (u[i] - 128) + 32768) shr 16
    }
}

/**
 * A plane's bytes in arrays, which are many times faster to read than a buffer outside the heap. Of a frame that stands upright
 * they are words of four, so that a column is gathered once for four bytes.
 *
 * The words' rows begin an odd number of cache lines apart: 640 bytes apart the pixels of a column share half of a cache's sets,
 * and gathering all columns took 0.08 ms instead of 0.03; byte by byte it were 0.32 and 0.11.
 *
 * @property parts into which a line's pixels are dealt in turns, one behind the other: 2 if each row of the frame has one of its
 *     own, 1 if a pair of rows shares them.
 */
private class PlaneBytes(private val parts: Int) {
    private var values = IntArray(0)
    private var gathered = values // words of a column
    private var held = -1 // where in their rows they lie
    private var words = values
    private var bytes = ByteArray(0)
    private var own = bytes
    private var row = ByteBuffer.wrap(bytes).asIntBuffer()
    private var offset = 0
    private var rowStride = 0
    private var pixelStride = 0
    private var sideways = false
    private var pairs = 0..0
    private var length = 0

    /** [channels] bytes of a pixel are read. */
    fun take(frame: Frame, plane: Plane, channels: Int, pairs: IntRange) {
        val across = if (parts == 2) frame.width else (frame.width + 1) / 2
        val down = if (parts == 2) frame.height else (frame.height + 1) / 2
        sideways = frame.sideways
        length = if (sideways) across else down
        pixelStride = plane.pixelStride
        this.pairs = pairs
        held = -1
        val count = parts * (pairs.last - pairs.first + 1)
        if (values.size < count) {
            values = IntArray(count)
            gathered = IntArray(count)
        }
        if (sideways) takeBytes(plane) else takeWords(plane, (across - 1) * pixelStride + channels, down)
    }

    private fun takeBytes(plane: Plane) {
        rowStride = plane.rowStride
        if (plane.data.hasArray()) {
            bytes = plane.data.array()
            offset = plane.data.arrayOffset() + plane.data.position()
            return
        }
        val length = plane.data.remaining()
        if (own.size < length) own = ByteArray(length)
        plane.data.duplicate().get(own, 0, length)
        bytes = own
        offset = 0
    }

    private fun takeWords(plane: Plane, length: Int, down: Int) {
        rowStride = ((length + 63) / 64 or 1) * 16
        if (words.size < rowStride * down) words = IntArray(rowStride * down)
        if (own.size < 4 * rowStride) own = ByteArray(4 * rowStride)
        if (row.capacity() != own.size / 4) row = ByteBuffer.wrap(own).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
        val data = plane.data.duplicate()
        val first = data.position()
        for (line in 0 until down) {
            place(data, first + line * plane.rowStride)
            data.get(own, 0, length)
            place(row, 0)
            row.get(words, line * rowStride, rowStride)
        }
    }

    /** Those of the pixels of a row, or of a column, that are needed; the next call overwrites them. */
    fun read(line: Int, channel: Int): IntArray {
        val at = channel + line * if (sideways) rowStride else pixelStride
        val count = pairs.last - pairs.first + 1
        val inHand = !sideways && at shr 2 == held
        if (!inHand) held = at shr 2
        for (part in 0 until if (inHand) 0 else parts) {
            val first = pairs.first * parts + part
            // of an odd number the last is its own neighbour, which no tap reaches
            val there = min(count, (length - part + parts - 1) / parts - pairs.first)
            if (sideways) {
                gather(bytes, offset + at + first * pixelStride, parts * pixelStride, values, part * count, there)
            } else {
                gather(words, held + first * rowStride, parts * rowStride, gathered, part * count, there)
            }
        }
        if (!sideways) unpack(gathered, 8 * (at and 3), values, parts * count)
        return values
    }
}

private fun gather(bytes: ByteArray, first: Int, step: Int, to: IntArray, at: Int, count: Int) {
    var from = first
    for (i in at until at + count) {
        to[i] = bytes[from].toInt() and 255
        from += step
    }
}

private fun gather(words: IntArray, first: Int, step: Int, to: IntArray, at: Int, count: Int) {
    var from = first
    for (i in at until at + count) {
        to[i] = words[from]
        from += step
    }
}

/** As a [ByteBuffer]'s own it is another method, which Android before 9 lacks. */
private fun place(buffer: Buffer, position: Int) {
    buffer.position(position)
}

/**
 * What is added to luma for red, green and blue along a line of the chroma planes.
 *
 * JFIF's conversion: BT.601, full range, in fixed point of 16 bits. Luma is whole there, so that rounding what is added to it
 * rounds the sum as well, and the pixels of a sample share it.
 */
private class Chroma {
    private var terms = IntArray(0)
    private val mixed = Array(3) { terms }
    private var line = -1

    /** Before a frame. */
    fun forget() {
        line = -1
    }

    /** For a column of [count] pairs as the resizer takes it. Two lines of luma have one of chroma, which is read once for both. */
    fun read(frame: Frame, planes: List<PlaneBytes>, line: Int, count: Int): IntArray {
        if (line == this.line) return terms
        this.line = line
        if (mixed[0].size < count) {
            for (channel in 0..2) mixed[channel] = IntArray(count)
            terms = IntArray(6 * count)
        }
        val u = planes[1].read(line, if (frame.format == PixelFormat.NV21) 1 else 0)
        val v = planes[2].read(line, 0)
        mix(u, v, mixed[0], mixed[1], mixed[2], count)
        for (half in 0..5) System.arraycopy(mixed[half / 2], 0, terms, half * count, count) // even rows, and the odd ones
        return terms
    }
}
