package org.lavitedge.app

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import org.lavitedge.classifier.ExecuTorchModel
import org.lavitedge.core.Condition
import org.lavitedge.core.Device
import org.lavitedge.core.Model
import org.lavitedge.core.Phone
import org.lavitedge.core.Runtime
import java.io.File
import java.io.IOException

/** This phone and its ExecuTorch, for a report. [artifact] is the file to load, [name] what messages call it. */
class AndroidPhone(private val context: Context, private val artifact: File, private val name: String) : Phone {
    /** Of which backend is known when the model is loaded; a report asks after that. */
    override var runtime = Runtime("ExecuTorch", BuildConfig.EXECUTORCH_VERSION.ifEmpty { null }, "unknown")
        private set

    private var loaded: ExecuTorchModel? = null

    override fun load(threads: Int): Model {
        val model = ExecuTorchModel(artifact, name, threads)
        loaded = model
        runtime = runtime.copy(backend = model.backend)
        return model
    }

    fun close() {
        loaded?.close()
        loaded = null
    }

    override fun device(): Device {
        val cpu = CpuInfo(read("/proc/cpuinfo").orEmpty())
        val memory = ActivityManager.MemoryInfo()
        context.getSystemService(ActivityManager::class.java).getMemoryInfo(memory)
        val tablet = context.resources.configuration.smallestScreenWidthDp >= 600
        val model = Build.MODEL.orEmpty()
        val maker = Build.MANUFACTURER.orEmpty()
        val emulated = Build.HARDWARE == "ranchu" || Build.HARDWARE == "goldfish"
        return Device(
            name = if (model.startsWith(maker, ignoreCase = true)) model else "$maker $model",
            kind = if (tablet) "tablet" else "phone",
            os = "Android",
            osVersion = Build.VERSION.RELEASE,
            arch = architecture(Build.SUPPORTED_ABIS.firstOrNull()),
            cpu = listOfNotNull(chip(), cpu.name).joinToString(": ").ifEmpty { null },
            cpuFeatures = cpu.features,
            cores = java.lang.Runtime.getRuntime().availableProcessors(),
            memoryBytes = memory.totalMem,
            emulator = if (emulated) "Android emulator" else null,
        )
    }

    override fun condition(): Condition {
        // the system keeps this one: it is there without a receiver
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        val level = battery?.getIntExtra(BatteryManager.EXTRA_LEVEL, -1) ?: -1
        val scale = battery?.getIntExtra(BatteryManager.EXTRA_SCALE, -1) ?: -1
        val plugged = battery?.getIntExtra(BatteryManager.EXTRA_PLUGGED, -1) ?: -1
        val power = context.getSystemService(PowerManager::class.java)
        return Condition(
            power = when {
                plugged < 0 -> null
                plugged == 0 -> "battery"
                else -> "mains"
            },
            batteryPermille = if (level < 0 || scale <= 0) null else 1000 * level / scale,
            lowPower = power.isPowerSaveMode,
            thermal = thermalWord(thermalStatus(power)),
            temperatureMillicelsius = null, // the CPU's sensors are not for apps, and the battery's is another thing
            governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?.trim(),
            loadPermille = null,
        )
    }

    override fun peakMemory(): Pair<Long, String>? = peakMemory(read("/proc/self/status").orEmpty())?.let { it to "VmHWM" }

    private fun chip(): String? =
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) Build.SOC_MODEL.takeIf { it != "unknown" } else null

    private fun read(path: String): String? = try {
        File(path).readText()
    } catch (_: IOException) { // not for apps on this phone
        null
    }
}
