package org.lavitedge.core

import kotlin.math.exp

/** What the model sees: a label's index and name, and its probability. */
data class Answer(val index: Int, val label: String, val probability: Double)

/** Probabilities of logits, from the largest one down, so that no exponential overflows. NaN among them makes all NaN. */
fun softmax(logits: FloatArray): DoubleArray {
    val largest = logits.max().toDouble()
    val exponentials = DoubleArray(logits.size) { exp(logits[it] - largest) }
    val sum = exponentials.sum()
    return DoubleArray(logits.size) { exponentials[it] / sum }
}

/** Indices of the [count] largest values, the largest first; of equal ones the one with the lower index. */
fun topIndices(logits: FloatArray, count: Int): List<Int> =
    logits.indices.sortedByDescending { logits[it] + 0f }.take(count) // the sort is stable; -0 becomes 0

/** The [count] most probable labels. [logits] has one value for each of [labels]. */
fun answers(logits: FloatArray, labels: List<String>, count: Int): List<Answer> {
    require(logits.size == labels.size) { "${logits.size} logits for ${labels.size} labels" }
    val probabilities = softmax(logits)
    return topIndices(logits, count).map { Answer(it, labels[it], probabilities[it]) }
}
