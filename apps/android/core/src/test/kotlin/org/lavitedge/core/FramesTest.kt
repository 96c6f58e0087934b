package org.lavitedge.core

import com.sun.management.ThreadMXBean
import org.junit.Test
import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.max
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class FramesTest {
    private val listed = list(json(given("golden", "frames.json"))).map(::fields)

    @Test
    fun goldenFramesBecomeTheirInputs() {
        assertEquals(32, listed.size)
        println("golden frames: ${listed.size}, at most ${worst("golden")} of 255 off")
        assertEquals(0, worst("golden"))
    }

    @Test
    fun framesOfOtherSizesBecomeTheirInputs() {
        assertEquals(0, worst("frames"))
    }

    private fun worst(folder: String): Int {
        var worst = 0
        for (facts in list(json(given(folder, "frames.json"))).map(::fields)) {
            for (direct in listOf(false, true)) {
                val square = FrameConverter(contract(facts)).convert(frame(facts, direct, folder))
                worst = max(worst, worstOff(square, expected(facts, folder)))
            }
        }
        return worst
    }

    @Test
    fun oneConverterTakesFramesOfEverySizeAndFormatInTurn() {
        for (group in listed.groupBy { text(it["contract"]) }.values) {
            val converter = FrameConverter(contract(group[0]))
            for (facts in group + group.reversed()) {
                assertContentEquals(expected(facts), converter.convert(frame(facts, direct = true)), facts["name"] as String)
            }
        }
    }

    @Test
    fun theTensorHasTheSquaresChannelsOneAfterAnother() {
        val facts = listed[0]
        val converter = FrameConverter(contract(facts))
        val square = converter.convert(frame(facts, false))
        val tensor = converter.tensor()
        for (i in square.indices) {
            assertEquals((square[i].toInt() and 255).toFloat(), tensor[i % 3 * (square.size / 3) + i / 3])
        }
    }

    @Test
    fun aSecondFrameAllocatesNothingLarge() {
        for (facts in listed) {
            val converter = FrameConverter(contract(facts))
            val frame = frame(facts, direct = true)
            converter.convert(frame)
            converter.tensor()
            val bean = ManagementFactory.getThreadMXBean() as ThreadMXBean
            val thread = Thread.currentThread().id
            val before = bean.getThreadAllocatedBytes(thread)
            converter.convert(frame)
            converter.tensor()
            val allocated = bean.getThreadAllocatedBytes(thread) - before
            assertTrue(allocated < 16 * 1024, "${facts["name"]}: $allocated bytes") // the smallest frame's buffers have 40,000
        }
    }

    @Test
    fun aHundredFramesAllocateLessThanOneFramesBytes() {
        val luma = Plane(ByteBuffer.allocateDirect(640 * 480), 640, 1)
        val chroma = List(2) { Plane(ByteBuffer.allocateDirect(640 * 240), 640, 2) }
        val frame = Frame(PixelFormat.YUV_420_888, 640, 480, listOf(luma) + chroma)
        val converter = FrameConverter(contract(listed[0]))
        converter.convert(frame)
        val bean = ManagementFactory.getThreadMXBean() as ThreadMXBean
        val thread = Thread.currentThread().id
        val before = bean.getThreadAllocatedBytes(thread)
        repeat(100) {
            converter.convert(frame)
            converter.tensor()
        }
        val allocated = bean.getThreadAllocatedBytes(thread) - before
        assertTrue(allocated < 640 * 480 * 3 / 2, "$allocated bytes")
    }

    @Test
    fun aBuffersPositionIsWhereItsPlaneBeginsAndStaysThere() {
        val facts = listed[0]
        val frame = frame(facts, false)
        val moved = frame.planes.map { plane ->
            val data = ByteBuffer.allocate(plane.data.remaining() + 9)
            data.position(9)
            data.put(plane.data.duplicate()).position(9)
            Plane(data, plane.rowStride, plane.pixelStride)
        }
        val square = FrameConverter(contract(facts)).convert(Frame(frame.format, frame.width, frame.height, moved))
        assertContentEquals(expected(facts), square)
        assertEquals(listOf(9, 9, 9), moved.map { it.data.position() })
    }

    @Test
    fun framesThatCannotBe() {
        fun refused(words: String, frame: () -> Frame) {
            val message = assertFailsWith<UserError> { frame() }.message!!
            assertTrue(words in message, message)
        }
        val data = ByteBuffer.allocate(24)
        val plane = Plane(data, 12, 4)
        Frame(PixelFormat.RGBA, 3, 2, listOf(plane))
        refused("RGBA has 1 planes, not 0") { Frame(PixelFormat.RGBA, 3, 2, emptyList()) }
        refused("rotation must be") { Frame(PixelFormat.RGBA, 3, 2, listOf(plane), rotation = 45) }
        refused("pixels are none") { Frame(PixelFormat.RGBA, 0, 2, listOf(plane)) }
        refused("too short for 3 x 3") { Frame(PixelFormat.RGBA, 3, 3, listOf(plane)) }
        refused("too short") { Frame(PixelFormat.RGBA, 3, Int.MAX_VALUE, listOf(plane)) }
        refused("do not hold 3 pixels") { Frame(PixelFormat.RGBA, 3, 2, listOf(Plane(data, 8, 4))) }
        refused("do not hold 3 pixels") { Frame(PixelFormat.RGBA, 3, 2, listOf(Plane(data, -12, 4))) }
        refused("do not hold 3 pixels") { Frame(PixelFormat.RGBA, 3, 2, listOf(Plane(data, 12, 0))) }
        refused("too short") { Frame(PixelFormat.NV21, 3, 2, listOf(plane, Plane(ByteBuffer.allocate(3), 4, 2))) }
    }

    @Test
    fun aFrameTooLongAndThinToCrop() {
        val contract = contract(listed.first { fields(it["contract"])["resize"] == "crop" })
        val frame = Frame(PixelFormat.RGB, 1, 1_000_000, listOf(Plane(ByteBuffer.allocate(3_000_000), 3, 3)))
        assertTrue("too long and thin" in assertFailsWith<UserError> { FrameConverter(contract).convert(frame) }.message!!)
    }

    private fun contract(facts: Map<String, Any?>) = Contract.parse(text(facts["contract"]))

    /** JSON with fractions, which reports never have. */
    private fun text(value: Any?): String = when (value) {
        is Map<*, *> -> value.entries.joinToString(",", "{", "}") { "${text(it.key)}:${text(it.value)}" }
        is List<*> -> value.joinToString(",", "[", "]") { text(it) }
        is Double -> value.toString()
        else -> Json.canonical(value)
    }

    private fun frame(facts: Map<String, Any?>, direct: Boolean, folder: String = "golden"): Frame {
        val bytes = given(folder, "${facts["name"]}.frame").readBytes()
        val planes = list(facts["planes"]).map(::fields).map { plane ->
            val length = int(plane["length"])
            val data = if (direct) ByteBuffer.allocateDirect(length) else ByteBuffer.allocate(length)
            data.put(bytes, int(plane["offset"]), length).flip()
            Plane(data, int(plane["row_stride"]), int(plane["pixel_stride"]))
        }
        val format = PixelFormat.valueOf((facts["format"] as String).uppercase())
        val mirrored = facts["mirrored"] as Boolean
        return Frame(format, int(facts["width"]), int(facts["height"]), planes, int(facts["rotation"]), mirrored)
    }

    private fun expected(facts: Map<String, Any?>, folder: String = "golden") =
        given(folder, "${facts["name"]}.input").readBytes()

    private fun worstOff(a: ByteArray, b: ByteArray): Int {
        assertEquals(b.size, a.size)
        return a.indices.maxOf { abs((a[it].toInt() and 255) - (b[it].toInt() and 255)) }
    }
}
