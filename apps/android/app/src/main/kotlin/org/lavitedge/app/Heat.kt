package org.lavitedge.app

import android.os.Build
import android.os.PowerManager

/** Android's thermal status as it changes, of Android 10 and newer; older ones do not tell. */
class Heat(private val power: PowerManager) {
    private var stop = {}

    /** Calls [changed] on the main thread with whether the phone is so hot that it says so to people, now and at each change. */
    fun follow(changed: (Boolean) -> Unit) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return
        val listener = PowerManager.OnThermalStatusChangedListener { changed(it >= PowerManager.THERMAL_STATUS_SEVERE) }
        power.addThermalStatusListener(listener)
        stop = { power.removeThermalStatusListener(listener) }
    }

    fun close() = stop()
}

/** [PowerManager.getCurrentThermalStatus], null before Android 10. */
fun thermalStatus(power: PowerManager): Int? =
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) power.currentThermalStatus else null
