// The JVM's part of preprocessing.py: for each line `N` on stdin, converts N frames and prints the nanoseconds that each took.
import org.lavitedge.core.Contract
import org.lavitedge.core.Frame
import org.lavitedge.core.FrameConverter
import org.lavitedge.core.PixelFormat
import org.lavitedge.core.Plane
import java.io.File
import java.nio.ByteBuffer

/** Arguments: the contract's JSON; a 640 x 480 frame of YUV_420_888 without gaps, U and V with a pixel stride of 2, as phones give it. */
fun main(arguments: Array<String>) {
    val converter = FrameConverter(Contract.parse(File(arguments[0]).readText()))
    val bytes = File(arguments[1]).readBytes()
    val luma = 640 * 480

    fun plane(from: Int, length: Int, pixelStride: Int): Plane {
        val data = ByteBuffer.allocateDirect(length) // outside the heap, as a camera gives it
        data.put(bytes, from, length).flip()
        return Plane(data, 640, pixelStride)
    }
    val planes = listOf(plane(0, luma, 1), plane(luma, luma / 2, 2), plane(luma * 3 / 2, luma / 2, 2))
    val frame = Frame(PixelFormat.YUV_420_888, 640, 480, planes)
    while (true) {
        val times = LongArray((readlnOrNull() ?: return).toInt()) {
            val start = System.nanoTime()
            converter.convert(frame)
            converter.tensor()
            System.nanoTime() - start
        }
        println(times.joinToString(" "))
    }
}
