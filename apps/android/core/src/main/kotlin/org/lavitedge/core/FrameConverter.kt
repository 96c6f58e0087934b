package org.lavitedge.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.max
import kotlin.math.min

/**
 * Makes the input of one contract from camera frames: upright RGB, resized, to the bit what lavit_edge/contract/frames.py and
 * lavit_edge/contract/pictures.py make.
 *
 * It keeps its buffers and makes larger ones only for a larger frame, so that frame after frame nothing is left to the garbage
 * collector but a few small objects. Not for two threads at once.
 */
class FrameConverter(private val contract: Contract) {
    /** RGB, `size x size x 3`, rows from the top; the next [convert] overwrites it. */
    val square = ByteArray(3 * contract.size * contract.size)
    private val tensor = FloatArray(square.size)
    private val resizer = Resizer(contract)
    private val planes = List(3) { PlaneBytes(if (it == 0) 1 else 2) }
    private var blocks = Array(3) { IntArray(0) } // what is read of the planes, or of the channels
    private var terms = Array(3) { IntArray(0) } // what chroma adds to luma for red, green and blue
    private var column = IntArray(0) // that of a quad of columns

    /**
     * Fills [square].
     *
     * @throws UserError the frame is so long and thin that it cannot be cropped.
     */
    fun convert(frame: Frame): ByteArray {
        val width = if (frame.sideways) frame.height else frame.width
        val height = if (frame.sideways) frame.width else frame.height
        val leftward = frame.mirrored != (frame.rotation == 90 || frame.rotation == 180)
        resizer.begin(width, height, leftward, frame.rotation >= 180)
        planes[0].take(frame, frame.planes[0], if (frame.format.planes == 1) 3 else 1, resizer.rowQuads)
        if (frame.format.planes > 1) { // NV21's second plane is both
            planes[1].take(frame, frame.planes[1], 4 - frame.format.planes, resizer.rowQuads)
            planes[2].take(frame, frame.planes.last(), 4 - frame.format.planes, resizer.rowQuads)
        }
        val quads = resizer.columnQuads
        val words = 4 * (resizer.rowQuads.last - resizer.rowQuads.first + 1)
        if (column.size < 3 * words) {
            blocks = Array(3) { IntArray(4 * words) }
            terms = Array(3) { IntArray(2 * words) }
            column = IntArray(3 * words)
        }
        for (block in quads.first / 4..quads.last / 4) {
            if (frame.format.planes == 1) readPacked(frame, block) else readYuv(frame, block, words)
            for (quad in max(quads.first, 4 * block)..min(quads.last, 4 * block + 3)) {
                val to = resizer.quad(quad)
                for (channel in 0..2) {
                    val from = if (frame.format.planes == 1) channel else 0
                    System.arraycopy(blocks[from], quad % 4 * words, to, channel * words, words)
                }
                if (frame.format.planes > 1) addTerms(quad % 4, to, words)
                resizer.add(quad)
            }
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

    private fun readPacked(frame: Frame, block: Int) {
        for (channel in 0..2) {
            planes[0].read(block, channel, blocks[if (frame.format == PixelFormat.BGRA) 2 - channel else channel])
        }
    }

    /**
     * JFIF's conversion: BT.601, full range, in fixed point of 16 bits. Luma is whole there, so that rounding what is added to it
     * rounds the sum as well, and the pixels of a sample of chroma share it.
     */
    private fun readYuv(frame: Frame, block: Int, words: Int) {
        val (luma, u, v) = blocks
        planes[0].read(block, 0, luma)
        planes[1].read(block, if (frame.format == PixelFormat.NV21) 1 else 0, u)
        planes[2].read(block, 0, v)
        val (red, green, blue) = terms // plus 256 each, two to a word; blue's is lent to green
        val count = 2 * words
        mix(v, 91881, BIAS - 128 * 91881, red, count)
        mix(u, -22554, v, -46802, 0, BIAS + 128 * (22554 + 46802), blue, count)
        mix(u, -22554, v, -46802, 16, BIAS + 128 * (22554 + 46802), green, count)
        join(blue, green, count)
        mix(u, 116130, BIAS - 128 * 116130, blue, count)
    }

    /** Luma, which is in [to], becomes colour. */
    private fun addTerms(quad: Int, to: IntArray, words: Int) {
        val half = words / 2
        for (i in 0..5) System.arraycopy(terms[i / 2], quad * half, column, i * half, half) // even rows, and the odd ones
        addLevels(to, column, 3 * words)
    }
}

/**
 * A plane's bytes in arrays, which are many times faster to read than a buffer outside the heap. Of a frame that stands upright
 * they are words of four, so that four bytes are gathered at once: of luma, and of chroma with every other byte, four columns.
 *
 * The words' rows begin an odd number of cache lines apart: 640 bytes apart the pixels of a column share half of a cache's sets,
 * and gathering all columns took 0.08 ms instead of 0.03; byte by byte it were 0.32 and 0.11.
 *
 * @property share how many columns, and rows, of the frame share a sample: 2 of chroma, otherwise 1.
 */
private class PlaneBytes(private val share: Int) {
    private var values = IntArray(0)
    private var gathered = Array(4) { Array(4) { values } } // the words of 16 columns, or the bytes of 16 rows
    private val held = IntArray(16) // where in their rows they lie
    private val shifts = IntArray(4) // where in the words
    private var words = values
    private var bytes = ByteArray(0)
    private var own = bytes
    private var row = ByteBuffer.wrap(bytes).asIntBuffer()
    private var offset = 0
    private var rowStride = 0
    private var pixelStride = 0
    private var sideways = false
    private var whole = false // whether a row's words have the bytes of four columns where they are wanted, as phones give them
    private var quads = 0..0
    private var columns = 0
    private var rows = 0

    /** [channels] bytes of a pixel are read, of the [quads] of rows. */
    fun take(frame: Frame, plane: Plane, channels: Int, quads: IntRange) {
        val across = (frame.width + share - 1) / share
        val down = (frame.height + share - 1) / share
        sideways = frame.sideways
        columns = if (sideways) down else across
        rows = if (sideways) across else down
        pixelStride = plane.pixelStride
        whole = !sideways && pixelStride == share && channels <= share
        this.quads = quads
        held.fill(-1)
        val count = 4 / share * (quads.last - quads.first + 1)
        if (values.size < count) {
            values = IntArray(count)
            gathered = Array(4) { Array(4) { IntArray(count) } }
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

    /**
     * Writes 16 columns, or rows where the frame lies on its side, by four: a word for the pixels side by side. Chroma has two
     * samples there, in the bytes 0 and 2. By sixteen each line of the cache is visited a few times only, and loops are long, which
     * took a tenth off all of preprocessing.
     */
    fun read(block: Int, channel: Int, to: IntArray) {
        val parts = 4 / share
        val count = quads.last - quads.first + 1
        if (whole) {
            for (part in 0 until parts) {
                val from = 4 * block + first(part) * rowStride
                gather(words, from, parts * rowStride, to, part * count, there(part), parts * count)
            }
            if (channel > 0) shift(to, 8 * channel, 4 * parts * count)
            return
        }
        for (quad in 0..3) {
            for (byte in 0..3) {
                val column = min((16 * block + 4 * quad + byte) / share, columns - 1) // the last is its own neighbour
                val at = channel + column * if (sideways) rowStride else pixelStride
                hold(4 * quad + byte, if (sideways) at else at shr 2)
                shifts[byte] = if (sideways) 0 else 8 * (at and 3)
            }
            val (a, b, c, d) = gathered[quad]
            merge(a, shifts[0], b, shifts[1], c, shifts[2], d, shifts[3], values, parts * count)
            System.arraycopy(values, 0, to, quad * parts * count, parts * count)
        }
    }

    /** Sees to it that [gathered] has in [place] what lies at [at] in its rows. */
    private fun hold(place: Int, at: Int) {
        if (held[place] == at) return
        held[place] = at
        val to = gathered[place / 4][place % 4]
        if (place % 4 > 0 && held[place - 1] == at) { // they share a sample, or a word
            System.arraycopy(gathered[place / 4][place % 4 - 1], 0, to, 0, to.size)
            return
        }
        val parts = 4 / share
        val count = quads.last - quads.first + 1
        for (part in 0 until parts) {
            if (sideways) {
                val from = offset + at + first(part) * pixelStride
                gather(bytes, from, parts * pixelStride, to, part * count, there(part))
            } else {
                gather(words, at + first(part) * rowStride, parts * rowStride, to, part * count, there(part))
            }
        }
    }

    /** The first row of a part, as the resizer wants them: 0, 2, 1, 3, of chroma 0, 1. */
    private fun first(part: Int) = 4 / share * quads.first + ORDER[part * share]

    /** How many rows of a part there are. */
    private fun there(part: Int) = min(quads.last - quads.first + 1, (rows - 1 - first(part) + 4 / share) / (4 / share))
}

private val ORDER = intArrayOf(0, 2, 1, 3)

/** As a [ByteBuffer]'s own it is another method, which Android before 9 lacks. */
private fun place(buffer: Buffer, position: Int) {
    buffer.position(position)
}

// Loops of their own, as in Resizer.kt. Levels are added and clamped two to a word, which takes half as long as one by one.

private const val BYTES = 0x00ff00ff // every other byte of a word, with room above each
private const val UPPER = -1 shl 16
private const val BIAS = (256 shl 16) + 32768 // 256, and a half to round

private fun gather(bytes: ByteArray, first: Int, step: Int, to: IntArray, at: Int, count: Int) {
    var from = first
    for (i in at until at + count) {
        to[i] = bytes[from].toInt() and 255
        from += step
    }
}

/** Four words side by side, to [to] and [stride], twice and three times that behind. */
private fun gather(words: IntArray, first: Int, step: Int, to: IntArray, at: Int, count: Int, stride: Int) {
    var from = first
    for (i in at until at + count) {
        to[i] = words[from]
        to[i + stride] = words[from + 1]
        to[i + 2 * stride] = words[from + 2]
        to[i + 3 * stride] = words[from + 3]
        from += step
    }
}

/** Words of the bytes that begin at bit [k] of [a] and so on. */
private fun merge(a: IntArray, k: Int, b: IntArray, l: Int, c: IntArray, m: Int, d: IntArray, n: Int, to: IntArray, count: Int) {
    for (i in 0 until count) {
        val low = ((a[i] ushr k) and 255) or (((b[i] ushr l) and 255) shl 8)
        to[i] = low or (((c[i] ushr m) and 255) shl 16) or ((d[i] ushr n) shl 24)
    }
}

private fun shift(words: IntArray, bits: Int, count: Int) {
    for (i in 0 until count) words[i] = words[i] ushr bits
}

/** `(k u + rounding) shr 16`, which must fit 16 bits, of u in each half of a word. */
private fun mix(u: IntArray, k: Int, rounding: Int, to: IntArray, count: Int) {
    for (i in 0 until count) {
        val word = u[i]
        val low = k * (word and 255) + rounding
        val high = k * ((word ushr 16) and 255) + rounding
        to[i] = (low ushr 16) or (high and UPPER)
    }
}

/** `k u + l v + rounding` of u and v that begin at bit [from]. */
private fun mix(u: IntArray, k: Int, v: IntArray, l: Int, from: Int, rounding: Int, to: IntArray, count: Int) {
    for (i in 0 until count) to[i] = k * ((u[i] ushr from) and 255) + l * ((v[i] ushr from) and 255) + rounding
}

/** Puts the upper halves of [low] below those of [high]. */
private fun join(low: IntArray, high: IntArray, count: Int) {
    for (i in 0 until count) high[i] = (low[i] ushr 16) or (high[i] and UPPER)
}

/**
 * Adds to the four bytes of each of [words] what a half of [terms] has for two of them, less 256, and clamps them to 0 to 255.
 *
 * A sum of 256 to 511 stays, one of 512 to 1023 becomes 255 and a smaller one 0: bits 8 and 9 tell.
 */
private fun addLevels(words: IntArray, terms: IntArray, count: Int) {
    for (i in 0 until count) {
        val word = words[i]
        val term = terms[i]
        val even = (word and BYTES) + term
        val odd = ((word ushr 8) and BYTES) + term
        val evenStays = even and 0x01000100
        val oddStays = odd and 0x01000100
        val evenAbove = (even ushr 1) and 0x01000100
        val oddAbove = (odd ushr 1) and 0x01000100
        val evenLevel = (even and (evenStays - (evenStays ushr 8))) or (evenAbove - (evenAbove ushr 8))
        val oddLevel = (odd and (oddStays - (oddStays ushr 8))) or (oddAbove - (oddAbove ushr 8))
        words[i] = evenLevel or (oddLevel shl 8)
    }
}
