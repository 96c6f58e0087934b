package org.lavitedge.core

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
        frame.planes.forEachIndexed { index, plane ->
            if (index == 0) planes[0].take(plane, frame.width, frame.height)
            if (index > 0) planes[index].take(plane, (frame.width + 1) / 2, (frame.height + 1) / 2)
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
        val first = if (frame.format == PixelFormat.BGRA) 2 else 0 // red's offset; blue's is the other one
        val pairs = resizer.pairs
        val rows = 2 * (pairs.last - pairs.first + 1)
        planes[0].read(line, frame.sideways, first, pairs, column, 0)
        planes[0].read(line, frame.sideways, 1, pairs, column, rows)
        planes[0].read(line, frame.sideways, 2 - first, pairs, column, 2 * rows)
    }

    private fun readYuv(frame: Frame, line: Int, column: IntArray) {
        val pairs = resizer.pairs
        val rows = 2 * (pairs.last - pairs.first + 1)
        planes[0].read(line, frame.sideways, 0, pairs, column, 0)
        System.arraycopy(column, 0, column, rows, rows)
        System.arraycopy(column, 0, column, 2 * rows, rows)
        addLevels(column, chroma.read(frame, planes, line shr 1, pairs), 3 * rows)
    }
}

/** One long loop, without `min` and `max`, for Java's compiler: in six short ones this alone took 1.1 ms for 640 x 480 pixels. */
private fun addLevels(sums: IntArray, values: IntArray, count: Int) {
    for (i in 0 until count) sums[i] = level(sums[i] + values[i])
}

/** A plane's bytes in an array, which is many times faster to read than a buffer outside the heap. */
private class PlaneBytes {
    var data = ByteArray(0)
    private var own = data
    private var offset = 0
    private var rowStride = 0
    private var pixelStride = 0
    private var across = 0
    private var down = 0

    /** Of [across] x [down] pixels. */
    fun take(plane: Plane, across: Int, down: Int) {
        rowStride = plane.rowStride
        pixelStride = plane.pixelStride
        this.across = across
        this.down = down
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

    /** Pixels `2 i` and `2 i + 1` of a row, or of a column, for i in [pairs]: first the even ones, then the odd ones. */
    fun read(line: Int, sideways: Boolean, channel: Int, pairs: IntRange, to: IntArray, at: Int) {
        val along = if (sideways) pixelStride else rowStride
        val count = pairs.last - pairs.first + 1
        val first = start(line, sideways) + channel
        copy(first + 2 * pairs.first * along, 2 * along, to, at, count)
        // of an odd number the last is its own neighbour, which no tap reaches
        val odd = min(count, (if (sideways) across else down) / 2 - pairs.first)
        copy(first + (2 * pairs.first + 1) * along, 2 * along, to, at + count, odd)
    }

    /** The pixels of a row, or of a column, in [range]. */
    fun readAll(line: Int, sideways: Boolean, channel: Int, range: IntRange, to: IntArray) {
        val along = if (sideways) pixelStride else rowStride
        copy(start(line, sideways) + channel + range.first * along, along, to, 0, range.last - range.first + 1)
    }

    private fun start(line: Int, sideways: Boolean): Int = offset + line * if (sideways) rowStride else pixelStride

    private fun copy(first: Int, step: Int, to: IntArray, at: Int, count: Int) {
        val data = data
        var from = first
        for (i in at until at + count) {
            to[i] = data[from].toInt() and 255
            from += step
        }
    }
}

/**
 * What is added to luma for red, green and blue along a line of the chroma planes.
 *
 * JFIF's conversion: BT.601, full range, in fixed point of 16 bits. Luma is whole there, so that rounding what is added to it
 * rounds the sum as well, and the pixels of a sample share it.
 */
private class Chroma {
    private var terms = IntArray(0)
    private var u = terms
    private var v = terms
    private var line = -1

    /** Before a frame. */
    fun forget() {
        line = -1
    }

    /** For a column as the resizer takes it. Two lines of luma have one of chroma, which is read once for both. */
    fun read(frame: Frame, planes: List<PlaneBytes>, line: Int, range: IntRange): IntArray {
        if (line == this.line) return terms
        this.line = line
        val count = range.last - range.first + 1
        if (u.size < count) {
            u = IntArray(count)
            v = IntArray(count)
            terms = IntArray(6 * count)
        }
        val nv21 = frame.format == PixelFormat.NV21
        planes[1].readAll(line, frame.sideways, if (nv21) 1 else 0, range, u)
        planes[if (nv21) 1 else 2].readAll(line, frame.sideways, 0, range, v)
        mix(0, 91881, 0, count)
        mix(2 * count, -46802, -22554, count)
        mix(4 * count, 0, 116130, count)
        return terms
    }

    /** For the even rows, and the same for the odd ones. */
    private fun mix(at: Int, reddish: Int, bluish: Int, count: Int) {
        val terms = terms
        val u = u
        val v = v
        for (i in 0 until count) terms[at + i] = (reddish * (v[i] - 128) + bluish * (u[i] - 128) + 32768) shr 16
        System.arraycopy(terms, at, terms, at + count, count)
    }
}
