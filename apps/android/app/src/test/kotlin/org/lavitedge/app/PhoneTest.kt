package org.lavitedge.app

import org.junit.Test
import org.lavitedge.core.Contract
import org.lavitedge.core.Frame
import org.lavitedge.core.FrameConverter
import org.lavitedge.core.PixelFormat
import org.lavitedge.core.Plane
import org.lavitedge.core.UserError
import java.nio.ByteBuffer
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** What is known of the camera, the screen and the processor. */
class PhoneTest {
    @Test
    fun framesStandUpright() {
        // a phone held upright, then on its left side: the back camera's sensor lies at 90 degrees, the front one's at 270
        assertEquals(listOf(90, 0, 270, 180), listOf(0, 90, 180, 270).map { frameRotation(90, it, front = false) })
        assertEquals(listOf(270, 0, 90, 180), listOf(0, 90, 180, 270).map { frameRotation(270, it, front = true) })
    }

    @Test
    fun theSmallestFrameThatIsLargeEnough() {
        val sizes = listOf(1920 to 1080, 640 to 480, 176 to 144, 1280 to 720)
        assertEquals(640 to 480, frameSize(sizes, 480))
        assertEquals(1280 to 720, frameSize(sizes, 481))
        assertEquals(1920 to 1080, frameSize(sizes, 4000))
        assertNull(frameSize(emptyList(), 480))
    }

    @Test
    fun framesOfAnUnexpectedFormat() {
        fun planes(bytes: Int) = List(3) { Plane(ByteBuffer.allocate(bytes), 8, 1) }
        assertEquals(PixelFormat.YUV_420_888, cameraFrame(35, 8, 8, planes(64), 90).format)
        for (format in listOf(256, 34, 17, 0)) { // JPEG, private, NV21, none
            assertTrue("format $format" in assertFailsWith<UserError> { cameraFrame(format, 8, 8, planes(64), 0) }.message!!)
        }
        assertFailsWith<UserError> { cameraFrame(35, 8, 8, planes(10), 0) }
        assertFailsWith<UserError> { cameraFrame(35, 8, 8, planes(64).take(1), 0) }
        assertFailsWith<UserError> { cameraFrame(35, 0, 8, planes(64), 0) }
    }

    @Test
    fun exifsOrientationsTurnAsTheyAreDefined() {
        // how PIL's ImageOps.exif_transpose shows the picture 0 1 2 / 3 4 5
        val expected = mapOf(
            0 to "012 345", 1 to "012 345", 2 to "210 543", 3 to "543 210", 4 to "345 012",
            5 to "03 14 25", 6 to "30 41 52", 7 to "52 41 30", 8 to "25 14 03", 9 to "012 345",
        )
        val contract = Contract.parse("""{"format":"${Contract.FORMATS[0]}","size":32,"labels":["a"]}""")
        val pixels = ByteArray(18) { (40 * (it / 3)).toByte() }
        for ((orientation, shown) in expected) {
            val (rotation, mirrored) = exifTurn(orientation)
            val rows = shown.split(' ')
            val turned = ByteArray(18) { (40 * shown.filter(Char::isDigit)[it / 3].digitToInt()).toByte() }
            val upright = frame(turned, rows[0].length, rows.size, 0, false)
            val expectedSquare = FrameConverter(contract).convert(upright)
            val square = FrameConverter(contract).convert(frame(pixels, 3, 2, rotation, mirrored))
            assertContentEquals(expectedSquare, square, "$orientation")
        }
    }

    private fun frame(pixels: ByteArray, width: Int, height: Int, rotation: Int, mirrored: Boolean) =
        Frame(PixelFormat.RGB, width, height, listOf(Plane(ByteBuffer.wrap(pixels), 3 * width, 3)), rotation, mirrored)

    @Test
    fun largePicturesAreMadeSmallerWhileTheyAreDecoded() {
        assertEquals(listOf(1, 1, 2, 4, 8), listOf(100, 2048, 2049, 8192, 16000).map { sampleSize(it, 10, 2048) })
        assertEquals(1, sampleSize(-1, -1, 2048)) // not a picture
    }

    @Test
    fun thePreviewKeepsItsShape() {
        // 640 x 480 by a sensor at 90 degrees is 480 x 640 upright; the view is 1080 x 1440: shown whole
        val upright = previewFit(640 to 480, 90, 0, 1080 to 1440)
        assertEquals(listOf(1080f, 1440f), listOf(1080 * upright.scaleX * upright.scale, 1440 * upright.scaleY * upright.scale))
        assertEquals(0f, upright.degrees)
        // on its side, 640 x 480 is seen in a view of 2000 x 1000: 1000 high
        val side = previewFit(640 to 480, 90, 90, 2000 to 1000)
        assertEquals(270f, side.degrees)
        assertEquals(1000f, 2000 * side.scaleX * side.scale, 1e-3f) // 480 becomes the height
        assertEquals(1000f * 640 / 480, 1000 * side.scaleY * side.scale, 1e-3f)
    }

    @Test
    fun theProcessor() {
        val core = "processor\t: %d\nFeatures\t: fp asimd asimdhp asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: %s\n\n"
        val arm = CpuInfo(listOf(0 to "0xd05", 1 to "0xd05", 2 to "0xd0b").joinToString("") { core.format(it.first, it.second) })
        assertEquals("2 x 0x41/0xd05, 1 x 0x41/0xd0b", arm.name)
        assertEquals(listOf("dotprod", "fp16", "i8mm", "neon"), arm.features)
        val x86 = CpuInfo("model name\t: Some CPU @ 2.0\nflags\t\t: fpu avx avx2 fma\n")
        assertEquals("Some CPU @ 2.0" to listOf("avx", "avx2", "fma"), x86.name to x86.features)
        val none = CpuInfo("")
        assertNull(none.name)
        assertNull(none.features)
        assertEquals(12_345L * 1024, peakMemory("Name:\tx\nVmHWM:\t   12345 kB\n"))
        assertNull(peakMemory(""))
        val words =
            mapOf(null to null, 0 to "nominal", 1 to "fair", 2 to "fair", 3 to "serious", 4 to "critical", 6 to "critical")
        assertEquals(words, words.keys.associateWith(::thermalWord))
        val names = mapOf("arm64-v8a" to "aarch64", "x86_64" to "x86_64", "riscv64" to "riscv64", null to null)
        assertEquals(names, names.keys.associateWith(::architecture))
    }
}
