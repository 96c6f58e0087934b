package org.lavitedge.classifier

import android.graphics.Bitmap
import org.lavitedge.core.Frame
import org.lavitedge.core.PixelFormat
import org.lavitedge.core.Plane
import org.lavitedge.core.UserError
import java.nio.ByteBuffer

/** Lays the first [length] bytes of [rgba], [premultiplied] by their alpha or not, over white. */
internal fun layOverWhite(rgba: ByteArray, length: Int, premultiplied: Boolean) {
    for (pixel in 0 until length - 3 step 4) {
        val alpha = rgba[pixel + 3].toInt() and 255
        if (alpha == 255) continue
        for (at in pixel..pixel + 2) {
            val level = rgba[at].toInt() and 255
            val own = if (premultiplied) level else (level * alpha + 127) / 255
            rgba[at] = (own + 255 - alpha).toByte()
        }
    }
}

/** Bitmaps as frames; their pixels lie in an array that grows only for a larger bitmap. */
internal class BitmapFrames {
    private var pixels = ByteArray(0)

    fun frame(image: Bitmap, rotation: Int, mirrored: Boolean): Frame {
        val whole = if (image.config == Bitmap.Config.ARGB_8888) image else image.copy(Bitmap.Config.ARGB_8888, false)
        if (whole == null) throw UserError("the picture's pixels (${image.config}) cannot be read")
        val length = whole.rowBytes * whole.height
        if (pixels.size < length) pixels = ByteArray(length)
        whole.copyPixelsToBuffer(ByteBuffer.wrap(pixels, 0, length)) // ARGB_8888 lies in memory as R, G, B, A
        if (whole.hasAlpha()) layOverWhite(pixels, length, whole.isPremultiplied)
        if (whole !== image) whole.recycle()
        val plane = Plane(ByteBuffer.wrap(pixels, 0, length), whole.rowBytes, 4)
        return Frame(PixelFormat.RGBA, whole.width, whole.height, listOf(plane), rotation, mirrored)
    }
}
