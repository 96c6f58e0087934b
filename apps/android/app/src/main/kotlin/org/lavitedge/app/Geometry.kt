package org.lavitedge.app

import org.lavitedge.core.Frame
import org.lavitedge.core.PixelFormat
import org.lavitedge.core.Plane
import org.lavitedge.core.UserError
import kotlin.math.min

private const val YUV_420_888 = 35 // ImageFormat's

/**
 * By how many degrees a frame must be turned clockwise to stand upright.
 *
 * @param sensor the camera's SENSOR_ORIENTATION. [display] is the screen's rotation in degrees, counter-clockwise as Android tells it.
 */
fun frameRotation(sensor: Int, display: Int, front: Boolean): Int = (sensor + (if (front) display else 360 - display)) % 360

/** The smallest of [sizes] (width, height) whose short side has [least] pixels, or the largest there is. */
fun frameSize(sizes: List<Pair<Int, Int>>, least: Int): Pair<Int, Int>? {
    val (large, small) = sizes.partition { min(it.first, it.second) >= least }
    return large.minByOrNull { it.first * it.second } ?: small.maxByOrNull { it.first * it.second }
}

/** A camera's image as a frame. Throws [UserError] if it is of another format than was asked for, or lacks bytes. */
fun cameraFrame(format: Int, width: Int, height: Int, planes: List<Plane>, rotation: Int): Frame {
    if (format != YUV_420_888) throw UserError("the camera gives frames of format $format instead of YUV_420_888")
    return Frame(PixelFormat.YUV_420_888, width, height, planes, rotation)
}

/** How EXIF's orientation 1 to 8 turns a picture: degrees clockwise, and whether it is mirrored then. */
fun exifTurn(orientation: Int): Pair<Int, Boolean> = when (orientation) {
    2 -> 0 to true
    3 -> 180 to false
    4 -> 180 to true
    5 -> 90 to true
    6 -> 90 to false
    7 -> 270 to true
    8 -> 270 to false
    else -> 0 to false
}

/** The power of two by which a picture is made smaller while it is decoded, so that its long side has at most [most] pixels. */
fun sampleSize(width: Int, height: Int, most: Int): Int {
    var size = 1
    while (maxOf(width, height) / size > most) size *= 2
    return size
}

/**
 * How the preview, which a TextureView stretches over all of itself, keeps its shape: it is stretched by [scaleX] and [scaleY]
 * and turned by [degrees], about the middle.
 */
class PreviewFit(val scaleX: Float, val scaleY: Float, val degrees: Float, val scale: Float)

/** @param size of the camera's frames as the sensor gives them. [view] is the TextureView's. */
fun previewFit(size: Pair<Int, Int>, sensor: Int, display: Int, view: Pair<Int, Int>): PreviewFit {
    val (width, height) = if (sensor % 180 == 0) size else size.second to size.first // upright while the screen is not turned
    val (turnedWidth, turnedHeight) = if (display % 180 == 0) width to height else height to width
    val scale = min(view.first.toFloat() / turnedWidth, view.second.toFloat() / turnedHeight)
    return PreviewFit(width.toFloat() / view.first, height.toFloat() / view.second, (360 - display) % 360f, scale)
}
