package org.lavitedge.core

import java.math.BigDecimal
import java.util.Locale
import kotlin.math.abs
import kotlin.math.min
import kotlin.math.roundToLong

private const val GREY_LEVELS = 1 // that an input may be off

/** What was checked, whether it passed, and what was found. */
data class Check(val name: String, val passed: Boolean, val found: String)

/**
 * What the golden pictures say of a model on this device (lavit_edge/selftest.py): of each, its preprocessing and its logits.
 *
 * @property sameTop1 golden pictures with the expected label first.
 * @property worstMillisteps the largest difference of a logit in 1/1000 step; null where logits are not finite or too many.
 */
class SelfTest internal constructor(val checks: List<Check>, val pictures: Int, val sameTop1: Int, val worstMillisteps: Long?) {
    val passed: Boolean get() = checks.all { it.passed }

    /** What failed first, in one line; null if nothing did. */
    val failure: String? get() = checks.find { !it.passed }?.let { "${it.name}: ${it.found}" }
}

/** Tests a model that takes float32 `(1, 3, size, size)`, 0 to 255, and gives logits. [run] must not keep the input. */
fun selfTest(payload: Payload, run: (FloatArray) -> FloatArray): SelfTest {
    val converter = FrameConverter(payload.contract)
    val checks = ArrayList<Check>()
    var same = 0
    var most: Double? = 0.0
    for (golden in payload.golden) {
        checks += checkInput(golden, converter.convert(golden.picture), payload.contract.size)
        val logits = run(converter.tensor())
        checks += checkLogits(golden, logits, payload)
        val worst = stepsOff(golden, logits, payload)?.max()
        most = if (worst == null || most == null) null else maxOf(worst, most)
        if (topIndices(logits, 1) == topIndices(golden.logits, 1)) same++
    }
    val millisteps = most?.let { min((1000 * it).roundToLong(), Json.LARGEST) }
    return SelfTest(checks, payload.golden.size, same, millisteps)
}

/** Compares 256 pixels of the preprocessed picture with what the exporter had there. */
internal fun checkInput(golden: Golden, square: ByteArray, size: Int): Check {
    val sample = sampleOf(square, size)
    val off = IntArray(sample.size) { abs((sample[it].toInt() and 255) - (golden.sample[it].toInt() and 255)) }
    val worst = off.max()
    val passed = worst <= GREY_LEVELS
    var found = "at most $worst of 255 off"
    if (!passed) {
        val at = off.indexOfFirst { it == worst }
        found += " (row ${sampledAt(at / 3 / GRID, size)}, column ${sampledAt(at / 3 % GRID, size)}, ${"RGB"[at % 3]}), " +
            "$GREY_LEVELS allowed: resizing or channel order differs"
    }
    return Check("${golden.name}: preprocessing", passed, found)
}

/** Compares the artifact's logits with those of the program that it was made from. */
internal fun checkLogits(golden: Golden, logits: FloatArray, payload: Payload): Check {
    val name = "${golden.name}: logits"
    val steps = stepsOff(golden, logits, payload)
        ?: return Check(name, false, "${logits.size} for ${golden.logits.size} labels, or values that are not finite")
    val worst = steps.max()
    val passed = worst <= payload.tolerance
    val allowed = BigDecimal.valueOf(payload.tolerance).stripTrailingZeros().toPlainString()
    val found = "at most ${String.format(Locale.ROOT, "%.2f", worst)} steps off, $allowed allowed"
    val label = payload.contract.labels[steps.indexOfFirst { it == worst }]
    return Check(name, passed, if (passed) found else "$found: label '$label' differs most")
}

/** How far each logit is off; null if there is one too many, too few or not finite. */
private fun stepsOff(golden: Golden, logits: FloatArray, payload: Payload): List<Double>? {
    if (logits.size != golden.logits.size || !logits.all { it.isFinite() }) return null
    return logits.indices.map { abs(logits[it] - golden.logits[it]).toDouble() / payload.step }
}
