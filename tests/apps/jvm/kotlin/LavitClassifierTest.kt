package org.lavitedge.classifier

import org.junit.Test
import org.lavitedge.core.Frame
import org.lavitedge.core.PixelFormat
import org.lavitedge.core.Plane
import org.lavitedge.core.UserError
import org.lavitedge.core.topIndices
import java.io.File
import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

/** On a real `.pte`, in ExecuTorch's own Java classes and its own library for Android. */
class LavitClassifierTest {
    private val model = given("artifact", "model")

    @Test
    fun logitsAreThoseOfPythonsRuntime() {
        ExecuTorchModel(model, "model.pte", 1).use { loaded ->
            assertEquals("XNNPACK", loaded.backend)
            for (index in 0..3) {
                loaded.input.duplicate().put(floats(given("artifact", "tensor.$index")))
                val logits = loaded.run()
                val expected = floats(given("artifact", "logits.$index"))
                val worst = logits.indices.maxOf { abs(logits[it] - expected[it]) }
                assertEquals(expected.size, logits.size)
                assertTrue(worst < 1e-4, "golden picture $index: $worst off")
                println("golden picture $index: at most $worst off")
            }
        }
    }

    @Test
    fun entriesAreThoseThatPythonReads() {
        ExecuTorchModel(model, "model.pte", 1).use { loaded ->
            val entries = loaded.entries()
            assertEquals(setOf("contract", "provenance", "golden", "digest"), entries.keys)
            for ((name, entry) in entries) assertContentEquals(given("artifact", name).readBytes(), entry, name)
        }
    }

    @Test
    fun goldenPicturesPassAndAreClassified() {
        for (threads in 1..2) {
            LavitClassifier.open(model, threads).use { classifier ->
                assertNull(classifier.selfTest.failure)
                assertEquals(2 * classifier.payload.golden.size + 1, classifier.selfTest.checks.size)
                classifier.payload.golden.forEachIndexed { index, golden ->
                    val seen = classifier.classify(golden.picture)
                    assertEquals(topIndices(floats(given("artifact", "logits.$index")), 3), seen.answers.map { it.index })
                    assertEquals(seen.answers.map { classifier.payload.contract.labels[it.index] }, seen.answers.map { it.label })
                    assertTrue(seen.preparing > 0 && seen.running > 0)
                    assertEquals(1.0, seen.probabilities.sum(), 1e-9)
                    val threshold = classifier.payload.contract.threshold
                    assertEquals(seen.answers.first().takeIf { it.probability >= threshold }, seen.answer)
                }
                assertEquals(classifier.payload.contract.labels.size, classifier.classify(noise(640, 480), 1000).answers.size)
            }
        }
    }

    @Test
    fun transparentPixelsLieOverWhite() {
        val random = java.util.Random(0)
        val own = ByteArray(4 * 1000).also(random::nextBytes)
        own[3] = 0
        own[7] = -1
        for (premultiplied in listOf(true, false)) {
            val given = own.copyOf()
            val expected = own.indices.map { index ->
                val alpha = (own[index or 3].toInt() and 255) / 255.0
                val level = (own[index].toInt() and 255) * alpha
                if (premultiplied && index and 3 != 3) given[index] = Math.round(level).toInt().toByte()
                level + 255 * (1 - alpha)
            }
            layOverWhite(given, given.size, premultiplied)
            for (index in given.indices) {
                if (index and 3 != 3) assertEquals(expected[index], (given[index].toInt() and 255).toDouble(), 0.51)
            }
        }
    }

    @Test
    fun framesLeaveLittleToTheGarbageCollector() {
        LavitClassifier.open(model).use { classifier ->
            val frame = noise(640, 480)
            repeat(5) { classifier.classify(frame) }
            val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
            val before = threads.getThreadAllocatedBytes(Thread.currentThread().id)
            repeat(20) { classifier.classify(frame) }
            val each = (threads.getThreadAllocatedBytes(Thread.currentThread().id) - before) / 20
            println("bytes allocated for a frame: $each")
            assertTrue(each < 20_000, "$each bytes a frame") // its luma alone has 307,200
        }
    }

    @Test
    fun artifactsThatCannotBeUsedSayWhyInOneLine() {
        val bad = fields(given("bad", "bad.json"))
        assertTrue(bad.size >= 10)
        for ((name, words) in bad) {
            val error = assertFailsWith<UserError>(name) { LavitClassifier.open(given("bad", name)).close() }
            assertTrue(words as String in error.message!!, "$name: ${error.message}")
            assertTrue('\n' !in error.message!!)
            println("$name: ${error.message}")
        }
    }

    @Test
    fun aModelThatFailsItsSelfTestClassifiesNothing() {
        LavitClassifier.open(given("wrong")).use { classifier ->
            assertTrue("logits: at most" in classifier.selfTest.failure!!, classifier.selfTest.failure)
            val error = assertFailsWith<UserError> { classifier.classify(noise(64, 64)) }
            assertTrue("fails its self-test and is not used" in error.message!!)
        }
    }

    @Test
    fun anAssetIsUnpackedOnceAndMendedIfItsCopyIsDamaged() {
        val folder = File(given("out"), "unpacked")
        val bytes = model.readBytes()
        val first = Artifact.unpack(bytes, "model.pte", folder)
        assertEquals("model.pte", first.name)
        first.file.setLastModified(1_000_000_000_000)
        assertEquals(1_000_000_000_000, Artifact.unpack(bytes, "model.pte", folder).file.lastModified())
        first.file.writeBytes(bytes.copyOf(bytes.size / 2))
        File(folder, "earlier.pte").writeText("an earlier model")
        assertContentEquals(bytes, Artifact.unpack(bytes, "model.pte", folder).file.readBytes())
        assertEquals(listOf(first.file.name), folder.list()!!.toList())
        val damaged = bytes.copyOf().also { it[bytes.size / 2] = (it[bytes.size / 2] + 1).toByte() }
        val error = assertFailsWith<UserError> { Artifact.unpack(damaged, "model.pte", folder) }
        assertTrue("not what was exported" in error.message!!)
    }

    private fun noise(width: Int, height: Int): Frame {
        val random = java.util.Random(0)
        fun plane(across: Int, down: Int): Plane {
            val bytes = ByteArray(across * down).also(random::nextBytes)
            return Plane(ByteBuffer.allocateDirect(bytes.size).also { it.duplicate().put(bytes) }, across, 1)
        }
        val planes = listOf(plane(width, height), plane(width / 2, height / 2), plane(width / 2, height / 2))
        return Frame(PixelFormat.YUV_420_888, width, height, planes, rotation = 90)
    }
}
