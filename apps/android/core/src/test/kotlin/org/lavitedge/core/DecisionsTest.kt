package org.lavitedge.core

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith

/** tests/golden/decisions.json: what Python makes of the same. */
class DecisionsTest {
    private val golden = fields(json(given("golden", "decisions.json")))

    private fun cases(name: String) = list(golden[name]).map(::fields)

    private fun number(value: Any?) = (value as Number).toDouble()

    private fun numbers(value: Any?) = list(value).map(::number).toDoubleArray()

    @Test
    fun contractsOfBothFormatsAndWhatIsNone() {
        val (bad, good) = cases("contracts").partition { "refused" in it }
        assertEquals(3 to 16, good.size to bad.size)
        for (case in good) {
            val contract = Contract.parse(case["text"] as String)
            assertEquals(number(case["temperature"]) to number(case["threshold"]), contract.temperature to contract.threshold)
        }
        for (case in bad) assertFailsWith<UserError>(case["text"] as String) { Contract.parse(case["text"] as String) }
    }

    @Test
    fun answersAndWhereThereIsNone() {
        val cases = cases("answers")
        for (case in cases) {
            val logits = numbers(case["logits"]).map { it.toFloat() }.toFloatArray()
            val probabilities = softmax(logits, number(case["temperature"]))
            assertClose(numbers(case["probabilities"]), probabilities)
            assertEquals(case["answer"]?.let(::int), decide(probabilities, number(case["threshold"])))
        }
        assertEquals(16, cases.size)
    }

    @Test
    fun liveViewsAreSteady() {
        val cases = cases("live")
        for (case in cases) {
            val steady = Steady(number(case["threshold"]))
            repeat(2) {
                // as new after a reset
                for (frame in list(case["frames"]).map(::fields)) {
                    val shown = steady.add(number(frame["seconds"]), numbers(frame["probabilities"]))
                    assertClose(numbers(frame["average"]), steady.average!!)
                    assertEquals(frame["shown"]?.let(::int), shown, "at ${frame["seconds"]} s")
                }
                steady.reset()
            }
        }
        assertEquals(4, cases.size)
    }

    private fun assertClose(expected: DoubleArray, found: DoubleArray) {
        assertEquals(expected.size, found.size)
        for (index in expected.indices) assertEquals(expected[index], found[index], 1e-11)
    }
}
