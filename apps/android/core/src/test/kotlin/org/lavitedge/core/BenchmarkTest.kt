package org.lavitedge.core

import org.junit.Test
import java.nio.FloatBuffer
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class BenchmarkTest {
    @Test
    fun goldenTimes() {
        val listed = list(fields(json(given("golden", "report.json")))["series"]).map(::fields)
        assertEquals(4, listed.size)
        for (series in listed) {
            val runs = Runs()
            val step = series["step_ns"] as Long
            for (run in 0L until series["runs"] as Long) runs.add(run * step, 5_000_000 + 7919 * run % 900_001)
            assertEquals(Json.canonical(series["latency"]), Json.canonical(runs.latency()))
        }
    }

    @Test
    fun quantilesByNearestRank() {
        val values = longArrayOf(1, 2, 3, 4, 5, 6, 7)
        assertEquals(listOf(1L, 1L, 4L, 7L, 7L), listOf(0, 1, 500, 990, 1000).map { quantile(values, it) })
        assertEquals(9L, quantile(longArrayOf(9), 0))
    }

    @Test
    fun runsGoOnForTheTimeAndTheNumberWhicheverIsLater() {
        for ((milliseconds, expected) in listOf(1L to 1000, 400L to 3, 600L to 3, 300L to 4)) {
            var now = 77L
            val runs = timedRuns(1.0, 3, { now }) { now += milliseconds * 1_000_000 }
            assertEquals(expected to expected * milliseconds * 1_000_000, runs.size to runs.duration)
        }
    }

    @Test
    fun lackingFieldsAreTheSchemas() {
        val schema = fields(json(given("schema")))
        val lacks = fields(fields(schema["properties"])["lacks"])
        assertEquals(list(fields(lacks["items"])["enum"]), LACKING)
    }

    @Test
    fun aReportThatPythonReads() {
        val report = benchmark(FakePhone(), job(), FakePhone.Clock())
        given("out", "whole.json").writeText(Json.canonical(report))
        val latency = fields(report["latency"])
        assertEquals(6_000_000L, latency["p50_ns"])
        assertTrue(latency["runs"] as Int >= 50 && latency["duration_ns"] as Long >= 500_000_000)
        val warmup = fields(fields(report["settings"])["warmup"])
        assertTrue(warmup["runs"] as Int >= 3 && warmup["duration_ns"] as Long >= 1_000_000_000)
        assertEquals(true, report["least_duration_met"])
        assertEquals(emptyList<String>(), report["lacks"])
        assertEquals(digest(report), report["sha256"])
    }

    @Test
    fun aPhoneThatTellsNothing() {
        val report = benchmark(FakePhone(silent = true), job(), FakePhone.Clock())
        given("out", "silent.json").writeText(Json.canonical(report))
        val known = setOf("harness.build", "preprocessing", "settings.threads")
        val expected = LACKING.filter { !it.startsWith("artifact.") && it !in known }
        assertEquals(expected, report["lacks"])
    }

    @Test
    fun aFailedSelfTestIsNotTimedUnlessForced() {
        val failed = benchmark(FakePhone(wrong = true), job(), FakePhone.Clock())
        given("out", "failed.json").writeText(Json.canonical(failed))
        assertNull(failed["latency"])
        assertEquals(false to false, fields(failed["self_test"]).let { it["passed"] to it["forced"] })
        val forced = benchmark(FakePhone(wrong = true), job(force = true), FakePhone.Clock())
        given("out", "forced.json").writeText(Json.canonical(forced))
        assertEquals(false to true, fields(forced["self_test"]).let { it["passed"] to it["forced"] })
        assertTrue(fields(forced["latency"])["runs"] as Int >= 50)
    }

    @Test
    fun aDamagedArtifactNeverReachesTheRuntime() {
        val phone = FakePhone()
        val bytes = given("artifact", "model").readBytes().also { it[100] = (it[100] + 1).toByte() }
        assertFailsWith<UserError> { benchmark(phone, Job("model.pte", bytes, "0.1.0", "release"), FakePhone.Clock()) }
        assertEquals(0, phone.loads)
    }

    private fun job(force: Boolean = false): Job {
        val bytes = given("artifact", "model").readBytes()
        return Job("model.pte", bytes, "0.1.0", "release", seconds = 0.5, force = force)
    }
}

/** A phone whose model knows the golden pictures by heart; each look at the clock takes 6 ms. */
private class FakePhone(private val silent: Boolean = false, private val wrong: Boolean = false) : Phone {
    class Clock : () -> Long {
        private var now = 1L shl 40

        override fun invoke(): Long {
            now += 6_000_000
            return now
        }
    }

    var loads = 0
    override val runtime = Runtime("ExecuTorch", if (silent) null else "1.4.1", "XNNPACK")

    override fun device() = if (silent) {
        Device(null, null, null, null, null, null, null, null, null, null)
    } else {
        Device("Maker Phone\n1", "phone", "Android", "15", "aarch64", "Arm", listOf("neon", "dotprod"), 8, 8L shl 30, "qemu")
    }

    override fun condition() = if (silent) {
        Condition(null, null, null, null, null, null, null)
    } else {
        Condition("battery", 815, false, "nominal", 31_500, "schedutil", 120)
    }

    override fun peakMemory() = if (silent) null else 150_000_000L to "VmHWM"

    override fun load(threads: Int): Model {
        loads++
        return object : Model {
            override val input: FloatBuffer = FloatBuffer.allocate(3 * 64 * 64)
            private val known = (0..3).map { floats(given("artifact", "tensor.$it")) to floats(given("artifact", "logits.$it")) }

            override fun entries() = org.lavitedge.core.entries()

            override fun run(): FloatArray {
                val logits = known.find { it.first.contentEquals(input.array()) }?.second ?: FloatArray(10)
                return if (wrong) logits.reversedArray() else logits
            }
        }
    }
}
