package org.lavitedge.core

import org.junit.Test
import java.util.Base64
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class SelfTestTest {
    private val payload = Payload.read(entries())

    /** What the artifact's own runtime, in Python, makes of the golden pictures, in order. */
    private fun answered(change: (FloatArray) -> FloatArray = { it }): (FloatArray) -> FloatArray {
        var index = 0
        return { input ->
            assertContentEquals(floats(given("artifact", "tensor.$index")), input)
            change(floats(given("artifact", "logits.${index++}")))
        }
    }

    @Test
    fun aSoundArtifactPasses() {
        val result = selfTest(payload, answered())
        val facts = fields(json(given("artifact", "facts.json")))
        assertTrue(result.passed, result.failure)
        assertNull(result.failure)
        assertEquals(payload.golden.size to 2 * payload.golden.size + 1, result.pictures to result.checks.size)
        assertEquals(int(facts["same_top1"]), result.sameTop1)
        assertEquals((facts["worst_millisteps"] as Long).toDouble(), result.worstMillisteps!!.toDouble(), 1.0)
    }

    @Test
    fun theCasesThatTheTestsOfEveryLanguageRead() {
        val told = fields(json(given("golden", "selftest.json")))
        val cases = list(told["cases"]).map(::fields)
        assertTrue(cases.size >= 20)
        for (case in cases) {
            val texts = fields(fields(told["payloads"])[case["payload"]])
            val entries = texts.mapValues { (it.value as String).toByteArray() }.toMutableMap()
            entries["golden"] = Base64.getDecoder().decode(texts["golden"] as String)
            val answers = list(case["answers"]).map { logits ->
                list(logits).map { (it as Number).toFloat() }.toFloatArray()
            }.iterator()
            val result = selfTest(Payload.read(entries)) { answers.next() }
            val name = "${case["name"]}, format ${case["payload"]}"
            assertEquals(case["failed"], result.checks.find { !it.passed }?.name, name)
            assertEquals(
                listOf(case["same_top1"], case["worst_millisteps"]),
                listOf(result.sameTop1.toLong(), result.worstMillisteps),
                name,
            )
        }
    }

    @Test
    fun logitsBeyondTheToleranceFail() {
        for ((factor, passes) in listOf(0.9 to true, 1.1 to false)) {
            // of a change of one logit that is left when the mean is taken off
            val share = 1 - 1.0 / payload.contract.labels.size
            val off = (factor * payload.golden[0].tolerance * payload.step / share).toFloat()
            var index = 0
            val result = selfTest(payload) { payload.golden[index++].logits.copyOf().also { it[3] += off } }
            assertEquals(passes, result.passed, "$factor: ${result.checks}")
            if (!passes) assertTrue("label '${payload.contract.labels[3]}' differs most" in result.failure!!, result.failure)
        }
    }

    @Test
    fun logitsThatAreNone() {
        for (change in listOf<(FloatArray) -> FloatArray>(
            { it.copyOf().also { logits -> logits[0] = Float.NaN } },
            { it.copyOf().also { logits -> logits[0] = Float.NEGATIVE_INFINITY } },
            { it.copyOf(it.size - 1) },
            { it.copyOf(it.size + 1) },
            { FloatArray(0) },
        )) {
            val result = selfTest(payload, answered(change))
            assertFalse(result.passed)
            assertNull(result.worstMillisteps)
        }
    }

    @Test
    fun exchangedChannelsAreSeen() {
        val golden = payload.golden[0]
        val square = given("artifact", "input.0").readBytes()
        val size = payload.contract.size
        assertTrue(checkInput(golden, square, size).passed)
        val exchanged = ByteArray(square.size) { square[it - it % 3 + 2 - it % 3] }
        val check = checkInput(golden, exchanged, size)
        assertFalse(check.passed)
        assertTrue("resizing or channel order differs" in check.found, check.found)
    }
}
