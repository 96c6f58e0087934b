package org.lavitedge.core

import java.time.Instant
import java.time.temporal.ChronoUnit
import java.util.UUID

/** The digest that a report carries: SHA-256 of the canonical JSON of all but its own `sha256`. */
fun digest(report: Map<String, Any?>): String = sha256(Json.canonical(report - "sha256").toByteArray())

/** Those fields that a comparison should know and that are null here. A test holds the list against the schema. */
fun lacks(report: Map<String, Any?>): List<String> = LACKING.filter { path ->
    path.split('.').fold<String, Any?>(report) { value, name -> (value as? Map<*, *>)?.get(name) } == null
}

internal val LACKING = listOf(
    "artifact.content_sha256",
    "artifact.contract_sha256",
    "artifact.precision",
    "conditions.after.thermal",
    "conditions.before.power",
    "conditions.before.thermal",
    "device.cpu",
    "device.cpu_features",
    "device.name",
    "device.os_version",
    "harness.build",
    "memory.peak_bytes",
    "preprocessing",
    "runtime.version",
    "settings.threads",
)

/** A report with what every report has: format, id, `lacks`, digest (lavit_edge/benchmark/report.schema.json). */
fun finish(fields: Map<String, Any?>): Map<String, Any?> {
    val report = mapOf("format" to "lavit_edge.report/1", "id" to UUID.randomUUID().toString()) + fields
    val whole = report + ("lacks" to lacks(report))
    return whole + ("sha256" to digest(whole))
}

/** The time in UTC, to a second. */
fun now(): String = Instant.now().truncatedTo(ChronoUnit.SECONDS).toString()

/** A field of the report that is a name: one line of at most 200 characters, null if nothing is left. */
fun nameOrNull(text: String?): String? = text?.let { oneLine(it, 200) }?.ifEmpty { null }

/** The field `device`. Null where the system does not tell. */
data class Device(
    val name: String?,
    val kind: String?,
    val os: String?,
    val osVersion: String?,
    val arch: String?,
    val cpu: String?,
    val cpuFeatures: List<String>?,
    val cores: Int?,
    val memoryBytes: Long?,
    val emulator: String?,
) {
    internal fun fields() = mapOf(
        "name" to nameOrNull(name),
        "kind" to kind,
        "os" to nameOrNull(os),
        "os_version" to nameOrNull(osVersion),
        "arch" to nameOrNull(arch),
        "cpu" to nameOrNull(cpu),
        "cpu_features" to cpuFeatures?.distinct()?.sorted(),
        "cores" to cores,
        "memory_bytes" to memoryBytes,
        "emulated" to (emulator != null),
        "emulator" to nameOrNull(emulator),
    )
}

/** The device's state at one moment; [thermal] in the schema's words. Null where the system does not tell. */
data class Condition(
    val power: String?,
    val batteryPermille: Int?,
    val lowPower: Boolean?,
    val thermal: String?,
    val temperatureMillicelsius: Int?,
    val governor: String?,
    val loadPermille: Int?,
) {
    internal fun fields() = mapOf(
        "power" to power,
        "battery_permille" to batteryPermille,
        "low_power" to lowPower,
        "thermal" to thermal,
        "temperature_millicelsius" to temperatureMillicelsius,
        "governor" to nameOrNull(governor),
        "load_permille" to loadPermille,
    )
}

/** The field `runtime`. What the verdict tells of delegation is not known on a phone. */
data class Runtime(val name: String, val version: String?, val backend: String) {
    internal fun fields() = mapOf(
        "name" to name,
        "version" to nameOrNull(version),
        "backend" to backend,
        "delegated_macs_permille" to null,
        "graph_breaks" to null,
    )
}
