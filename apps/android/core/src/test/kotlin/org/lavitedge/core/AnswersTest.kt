package org.lavitedge.core

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class AnswersTest {
    @Test
    fun goldenAnswers() {
        val listed = list(json(given("golden", "answers.json"))).map(::fields)
        assertEquals(12, listed.size)
        for (facts in listed) {
            val logits = list(facts["logits"]).map { (it as Number).toFloat() }.toFloatArray()
            val expected = list(facts["softmax"]).map { (it as Number).toDouble() }
            softmax(logits).forEachIndexed { index, value -> assertEquals(expected[index], value, 1e-6) }
            assertEquals(list(facts["top"]).map(::int), topIndices(logits, 3))
        }
    }

    @Test
    fun ofEqualLogitsTheFirstComesFirstAndZeroHasNoSign() {
        assertEquals(listOf(1, 2, 0), topIndices(floatArrayOf(1f, 3f, 3f), 3))
        assertEquals(listOf(0, 1), topIndices(floatArrayOf(-0f, 0f), 2))
        assertEquals(listOf(0), topIndices(floatArrayOf(1f), 5))
    }

    @Test
    fun hugeLogitsDoNotOverflow() {
        assertEquals(listOf(0.5, 0.5), softmax(floatArrayOf(Float.MAX_VALUE, Float.MAX_VALUE)).toList())
        assertEquals(listOf(1.0, 0.0), softmax(floatArrayOf(0f, -Float.MAX_VALUE)).toList())
        assertTrue(softmax(floatArrayOf(1f, Float.NaN)).all { it.isNaN() })
    }

    @Test
    fun answersHaveTheirLabels() {
        val found = answers(softmax(floatArrayOf(0f, 2f, 1f)), listOf("a", "b", "c"), 2)
        assertEquals(listOf("b", "c"), found.map { it.label })
        assertEquals(listOf(1, 2), found.map { it.index })
        assertEquals(0.66524, found[0].probability, 1e-5)
        assertFailsWith<IllegalArgumentException> { answers(doubleArrayOf(1.0), listOf("a", "b"), 1) }
    }
}
