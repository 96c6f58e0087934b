package org.lavitedge.core

import java.nio.ByteBuffer

/** What cameras give; [planes] is the number of planes. [RGB] is for pictures that are decoded already. */
enum class PixelFormat(val planes: Int) {
    /** Y, U and V; U and V for each 2 x 2 pixels. */
    YUV_420_888(3),

    /** Y, then V and U in turns. */
    NV21(2),
    BGRA(1),
    RGBA(1),
    RGB(1),
}

/**
 * @property data from its position to its limit; the last row may end behind its last pixel. It is not moved.
 * @property rowStride bytes from a row to the next.
 * @property pixelStride bytes from a pixel to the next.
 */
class Plane(val data: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/**
 * A camera's frame, as lavit_edge/contract/frames.py has it.
 *
 * @property width in pixels, as the sensor gives it; where [width] or [height] is odd, chroma planes have `(side + 1) / 2`.
 * @property rotation by how many degrees the frame must be turned clockwise to stand upright: 0, 90, 180 or 270.
 * @property mirrored whether the upright picture is flipped left to right, as front cameras show it.
 * @throws UserError a rotation, a size or a number of planes that cannot be, or a plane too short for its strides.
 */
class Frame(
    val format: PixelFormat,
    val width: Int,
    val height: Int,
    val planes: List<Plane>,
    val rotation: Int = 0,
    val mirrored: Boolean = false,
) {
    init {
        if (planes.size != format.planes) throw UserError("frame: $format has ${format.planes} planes, not ${planes.size}")
        if (rotation !in listOf(0, 90, 180, 270)) {
            throw UserError("frame: rotation must be 0, 90, 180 or 270 degrees, not $rotation")
        }
        if (width < 1 || height < 1) throw UserError("frame: $width x $height pixels are none")
        val across = (width + 1) / 2
        val down = (height + 1) / 2
        when (format) {
            PixelFormat.YUV_420_888 -> {
                check(planes[0], width, height, 1)
                check(planes[1], across, down, 1)
                check(planes[2], across, down, 1)
            }

            PixelFormat.NV21 -> {
                check(planes[0], width, height, 1)
                check(planes[1], across, down, 2)
            }

            else -> check(planes[0], width, height, 3) // alpha is not read
        }
    }

    /** Whether it lies on its side: then the upright picture is [height] wide. */
    val sideways: Boolean get() = rotation == 90 || rotation == 270

    private fun check(plane: Plane, width: Int, height: Int, channels: Int) {
        val row = (width - 1L) * plane.pixelStride + 1
        if (plane.pixelStride < 1 || plane.rowStride < row) {
            throw UserError("frame: strides of ${plane.rowStride} and ${plane.pixelStride} bytes do not hold $width pixels a row")
        }
        if (plane.data.remaining() < (height - 1L) * plane.rowStride + row + channels - 1) {
            throw UserError("frame: a plane of ${plane.data.remaining()} bytes is too short for $width x $height pixels")
        }
    }
}
