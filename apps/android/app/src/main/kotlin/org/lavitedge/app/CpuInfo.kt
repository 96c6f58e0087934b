package org.lavitedge.app

/** What /proc/cpuinfo tells, in the words of a report (lavit_edge/benchmark/report.schema.json), as native/facts.cpp does. */
class CpuInfo(text: String) {
    /** The model, or the Arm implementer and part of each kind of core: `4 x 0x41/0xd05, 4 x 0x41/0xd0b`. */
    val name: String?

    val features: List<String>?

    init {
        val fields = text.lines().filter { ':' in it }.map { it.substringBefore(':').trim() to it.substringAfter(':').trim() }
        val kinds = sortedMapOf<String, Int>()
        var implementer = ""
        for ((key, value) in fields) {
            if (key == "CPU implementer") implementer = value
            if (key == "CPU part") kinds["$implementer/$value"] = (kinds["$implementer/$value"] ?: 0) + 1
        }
        val model = fields.find { it.first == "model name" }?.second
        name = model ?: kinds.map { "${it.value} x ${it.key}" }.joinToString().ifEmpty { null }
        val flags = fields.find { it.first == "Features" || it.first == "flags" }?.second?.split(' ')?.toSet()
        features = flags?.let { FLAGS.filterValues(it::contains).keys.sorted() }
    }

    private companion object {
        /** The schema's features by the names that Linux gives them, on Arm and on x86. */
        val FLAGS = mapOf(
            "neon" to "asimd",
            "fp16" to "asimdhp",
            "dotprod" to "asimddp",
            "i8mm" to "i8mm",
            "bf16" to "bf16",
            "sve" to "sve",
            "sve2" to "sve2",
            "sme" to "sme",
            "avx" to "avx",
            "avx2" to "avx2",
            "fma" to "fma",
            "avx512f" to "avx512f",
            "avx512_vnni" to "avx512_vnni",
            "avx_vnni" to "avx_vnni",
            "amx_int8" to "amx_int8",
        )
    }
}

/** Most resident memory of a process in bytes, by its /proc/self/status. */
fun peakMemory(status: String): Long? =
    status.lines().find { it.startsWith("VmHWM:") }?.filter(Char::isDigit)?.toLongOrNull()?.let { it * 1024 }

/** Android's thermal status, THERMAL_STATUS_NONE (0) to SHUTDOWN (6), in the schema's words. */
fun thermalWord(status: Int?): String? = when (status) {
    null -> null
    0 -> "nominal"
    1, 2 -> "fair"
    3 -> "serious"
    else -> "critical"
}

/** The processor's architecture as reports name it, by Android's name of its ABI. */
fun architecture(abi: String?): String? = mapOf("arm64-v8a" to "aarch64", "x86_64" to "x86_64")[abi] ?: abi
