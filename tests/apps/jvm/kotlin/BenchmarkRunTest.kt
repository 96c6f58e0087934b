package org.lavitedge.app

import org.junit.Test
import org.lavitedge.classifier.Artifact
import org.lavitedge.classifier.ExecuTorchModel
import org.lavitedge.classifier.fields
import org.lavitedge.classifier.given
import org.lavitedge.core.Condition
import org.lavitedge.core.Device
import org.lavitedge.core.Job
import org.lavitedge.core.Model
import org.lavitedge.core.Phone
import org.lavitedge.core.Runtime
import org.lavitedge.core.UserError
import java.io.File
import java.lang.Thread.sleep
import kotlin.concurrent.thread
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertTrue

class BenchmarkRunTest {
    private val model = given("artifact", "model")

    private fun report(name: String) = File(given("out"), "$name.json").also { it.delete() }

    private fun job(seconds: Double) = Job("model.pte", model.readBytes(), "0.1.0", "release", 2, seconds)

    @Test
    fun aReportOfARealModelThatPythonReads() {
        val report = report("benchmark")
        val outcome = assertIs<Outcome.Done>(BenchmarkRun(report).run { Machine(model) to job(0.3) })
        assertTrue(outcome.median!! > 0 && outcome.runs >= 50)
        assertEquals("XNNPACK", (fields(report)["runtime"] as Map<*, *>)["backend"])
        assertFalse(File("$report.part").exists())
    }

    @Test
    fun anInterruptedOneLeavesNoReport() {
        val report = report("interrupted")
        report.writeText("an earlier one")
        val run = BenchmarkRun(report)
        val machine = Machine(model)
        val background = thread {
            while (machine.runs < 20) sleep(1)
            run.interrupt("the app was sent to the background")
            run.interrupt("and something later")
        }
        val outcome = assertIs<Outcome.Failed>(run.run { machine to job(3600.0) })
        background.join()
        assertEquals("the app was sent to the background", outcome.why)
        assertEquals(mapOf("error" to outcome.why), fields(report))
    }

    @Test
    fun whatIsWrongIsWrittenInPlaceOfAReport() {
        val report = report("refused")
        val refused = BenchmarkRun(report).run { throw UserError("there is no such model") }
        val outcome = assertIs<Outcome.Failed>(refused)
        assertEquals("there is no such model", outcome.why)
        assertEquals("""{"error":"there is no such model"}""", report.readText())
        val damaged = BenchmarkRun(report).run {
            val artifact = Artifact.of(given("bad", "cut.pte"))
            Machine(artifact.file) to job(0.1)
        }
        assertTrue("cut.pte" in assertIs<Outcome.Failed>(damaged).why)
        assertEquals(setOf("error"), fields(report).keys)
    }

    @Test
    fun aFolderThatCannotBeWritten() {
        val run = BenchmarkRun(File(given("out"), "no/folder/report.json"))
        val outcome = assertIs<Outcome.Failed>(run.run { Machine(model) to job(0.1) })
        assertTrue("cannot be written" in outcome.why, outcome.why)
    }

    @Test
    fun requestsThatCannotBe() {
        Request(null, 1, 10, false)
        Request("model.pte", 4, 3600, true)
        for (name in listOf("../model.pte", "/sdcard/model.pte", "model.onnx", "", "a\nb.pte", "a/b.pte")) {
            assertFailsWith<UserError>(name) { Request(name, 1, 10, false) }
        }
        for (threads in listOf(0, -1, 65)) assertFailsWith<UserError> { Request(null, threads, 10, false) }
        for (seconds in listOf(0, 3601)) assertFailsWith<UserError> { Request(null, 1, seconds, false) }
    }

    /** This machine, in place of AndroidPhone, with the app's own model. */
    private class Machine(private val file: File) : Phone {
        @Volatile
        var runs = 0
        override var runtime = Runtime("ExecuTorch", null, "unknown")

        override fun device() = Device(null, null, "Linux", null, "x86_64", null, null, null, null, null)

        override fun condition() = Condition(null, null, null, null, null, null, null)

        override fun peakMemory() = peakMemory(File("/proc/self/status").readText())?.let { it to "VmHWM" }

        override fun load(threads: Int): Model {
            val model = ExecuTorchModel(file, "model.pte", threads)
            runtime = runtime.copy(backend = model.backend)
            return object : Model by model {
                override fun run() = model.run().also { runs++ }
            }
        }
    }
}
