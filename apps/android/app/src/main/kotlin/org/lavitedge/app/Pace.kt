package org.lavitedge.app

import kotlin.math.max

private const val FRAME = 1_000_000_000L / 30 // nanoseconds from a camera's frame to its next

/** Which frames are looked at: all that there is time for, and of a [hot] phone half as many. Times are in nanoseconds. */
class Pace {
    @Volatile
    var hot = false

    private var next = Long.MIN_VALUE
    private var began = 0L

    /** Whether the frame that has come is looked at. */
    fun begin(time: Long): Boolean {
        if (hot && time < next) return false
        began = time
        return true
    }

    /** The frame is done. */
    fun end(time: Long) {
        next = began + 2 * max(time - began, FRAME) - FRAME / 2 // the camera's clock is not ours
    }
}
