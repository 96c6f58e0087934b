package org.lavitedge.core

import kotlin.math.exp
import kotlin.math.max

/** What the model sees: a label's index and name, and its probability. */
data class Answer(val index: Int, val label: String, val probability: Double)

/**
 * Probabilities of logits over [temperature], from the largest one down, so that no exponential overflows. NaN among them makes
 * all NaN.
 */
fun softmax(logits: FloatArray, temperature: Double = 1.0): DoubleArray {
    val largest = logits.max().toDouble()
    val exponentials = DoubleArray(logits.size) { exp((logits[it] - largest) / temperature) }
    val sum = exponentials.sum()
    return DoubleArray(logits.size) { exponentials[it] / sum }
}

/** Indices of the [count] largest values, the largest first; of equal ones the one with the lower index. */
fun topIndices(logits: FloatArray, count: Int): List<Int> = topIndices(DoubleArray(logits.size) { logits[it].toDouble() }, count)

/** As above. */
fun topIndices(values: DoubleArray, count: Int): List<Int> =
    values.indices.sortedByDescending { values[it] + 0.0 }.take(count) // the sort is stable; -0 becomes 0

/** The [count] most probable labels. [probabilities] has one value for each of [labels]. */
fun answers(probabilities: DoubleArray, labels: List<String>, count: Int): List<Answer> {
    require(probabilities.size == labels.size) { "${probabilities.size} probabilities for ${labels.size} labels" }
    return topIndices(probabilities, count).map { Answer(it, labels[it], probabilities[it]) }
}

/** The index of the largest probability, of equal ones the first; null, "not sure", where it is below [threshold]. */
fun decide(probabilities: DoubleArray, threshold: Double): Int? =
    topIndices(probabilities, 1)[0].takeIf { probabilities[it] >= threshold }

/**
 * An answer for a live view, as lavit_edge/contract/answers.py has it: of an average over about half a second, and not given up for
 * a hair's breadth.
 */
class Steady(private val threshold: Double) {
    /** Probabilities, averaged exponentially; null before the first frame. */
    var average: DoubleArray? = null
        private set
    private var shown: Int? = null
    private var last = 0.0

    /** Takes a frame's [probabilities], at [seconds] on a clock that runs on. Returns the index to show; null: not sure. */
    fun add(seconds: Double, probabilities: DoubleArray): Int? {
        val share = 1 - exp(-max(seconds - last, 0.0) / TIME_CONSTANT)
        val before = average
        val now = DoubleArray(probabilities.size) {
            if (before == null) probabilities[it] else before[it] + share * (probabilities[it] - before[it])
        }
        average = now
        last = seconds
        val kept = shown
        if (kept == null || now[kept] < threshold - MARGIN || now.max() - now[kept] >= MARGIN) shown = decide(now, threshold)
        return shown
    }

    /** After a pause, another camera or another model. */
    fun reset() {
        average = null
        shown = null
    }

    companion object {
        /** In seconds: a frame weighs 1/e of what it did this long ago. */
        const val TIME_CONSTANT = 0.5

        /** Of probability, that another label must lead by, or the shown one fall below the threshold, before it goes. */
        const val MARGIN = 0.1
    }
}
