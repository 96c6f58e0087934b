package org.lavitedge.app

import android.media.ExifInterface
import android.os.Build
import android.os.PowerManager
import java.io.InputStream

/**
 * Calls that came after Android 6, whose stubs are the newest that the tests can compile against: by name, and null where they are
 * not. They are public, so that no shrinker and no rule on hidden interfaces concerns them.
 */
internal object Newer {
    /** Android 10's `PowerManager.getCurrentThermalStatus`. */
    fun thermalStatus(power: PowerManager): Int? =
        orNull { PowerManager::class.java.getMethod("getCurrentThermalStatus").invoke(power) as Int }

    /** Android 12's `Build.SOC_MODEL`. */
    fun chip(): String? = orNull { Build::class.java.getField("SOC_MODEL").get(null) as String }?.takeIf { it != "unknown" }

    /** Android 7's constructor of a stream; until then pictures are shown as they are stored. */
    fun exif(stream: InputStream): ExifInterface? =
        orNull { ExifInterface::class.java.getConstructor(InputStream::class.java).newInstance(stream) }

    private fun <T> orNull(call: () -> T): T? = try {
        call()
    } catch (_: ReflectiveOperationException) {
        null
    }
}
