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
 * What the golden pictures say of a model on this device (lavit_edge/selftest.py): of each, its preprocessing and its logits, and of
 * all, how many are answered as expected.
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
    var close = 0
    var most: Double? = 0.0
    for (golden in payload.golden) {
        checks += checkInput(golden, converter.convert(golden.picture), payload.contract.size)
        val logits = run(converter.tensor())
        checks += checkLogits(golden, logits, payload)
        val worst = stepsOff(golden, logits, payload)?.max()
        most = if (worst == null || most == null) null else maxOf(worst, most)
        if (worst != null && worst <= payload.closeSteps) close++
        if (topIndices(logits, 1) == topIndices(golden.logits, 1)) same++
    }
    val (steps, needed) = plain(payload.closeSteps) to payload.closePictures
    val found = "$close of ${payload.golden.size} pictures within $steps steps, $needed needed"
    checks += Check("close pictures", close >= needed, found) // a fault in a layer shows on each picture
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

/**
 * Compares the artifact's logits, less their mean, with those of the program that it was made from; and its first label, where the
 * program's leads by more than the tolerance.
 */
internal fun checkLogits(golden: Golden, logits: FloatArray, payload: Payload): Check {
    val name = "${golden.name}: logits"
    val steps = stepsOff(golden, logits, payload)
        ?: return Check(name, false, "${logits.size} for ${golden.logits.size} labels, or values that are not finite")
    val worst = steps.max()
    val labels = payload.contract.labels
    val found = "at most ${twoDigits(worst)} steps off, ${plain(golden.tolerance)} allowed"
    if (worst > golden.tolerance) return Check(name, false, "$found: label '${labels[steps.indexOf(worst)]}' differs most")
    val (first, expected) = listOf(logits, golden.logits).map { topIndices(it, 1)[0] }
    val lead = (golden.logits[expected].toDouble() - golden.logits[first]) / payload.step
    if (lead > golden.tolerance) {
        val other = "label '${labels[first]}' is first, not '${labels[expected]}' by ${twoDigits(lead)} steps"
        return Check(name, false, "$found: $other")
    }
    return Check(name, true, found)
}

private fun twoDigits(value: Double) = String.format(Locale.ROOT, "%.2f", value)

private fun plain(value: Double) = BigDecimal.valueOf(value).stripTrailingZeros().toPlainString()

/** How far each logit is off, both less their mean; null if there is one too many, too few or not finite. */
private fun stepsOff(golden: Golden, logits: FloatArray, payload: Payload): List<Double>? {
    if (logits.size != golden.logits.size || !logits.all { it.isFinite() }) return null
    val (given, expected) = listOf(logits, golden.logits).map { values -> values.sumOf { it.toDouble() } / values.size }
    return logits.indices.map { abs((logits[it] - given) - (golden.logits[it] - expected)) / payload.step }
}
