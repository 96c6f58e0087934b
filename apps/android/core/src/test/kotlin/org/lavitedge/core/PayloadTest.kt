package org.lavitedge.core

import org.junit.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class PayloadTest {
    private val sound = entries()

    @Test
    fun ofARealArtifact() {
        val payload = Payload.read(sound)
        val facts = fields(json(given("artifact", "facts.json")))
        assertEquals(list(facts["names"]), payload.golden.map { it.name })
        assertEquals(list(facts["labels"]), payload.contract.labels)
        assertEquals(int(facts["size"]), payload.contract.size)
        assertEquals(list(facts["tolerances"]).map { (it as Number).toDouble() }, payload.golden.map { it.tolerance })
        assertEquals((facts["step"] as Number).toDouble(), payload.step, 1e-12)
        assertEquals(facts["model"], (payload.provenance["checkpoint"] as Map<*, *>)["name"])
        payload.golden.forEachIndexed { index, golden ->
            val square = given("artifact", "input.$index").readBytes()
            assertContentEquals(square, FrameConverter(payload.contract).convert(golden.picture))
            assertContentEquals(golden.sample, sampleOf(square, payload.contract.size))
            assertContentEquals(floats(given("artifact", "expected.$index")), golden.logits)
        }
    }

    @Test
    fun theDigestIsThatOfTheBytes() {
        val bytes = given("artifact", "model").readBytes()
        val digest = checkSeal(bytes, "model.pte")
        assertEquals("org.lavit_edge.sha256:$digest", String(sound.getValue("digest")))
        for (at in listOf(0, bytes.size / 2, bytes.size - 1)) {
            val changed = bytes.copyOf().also { it[at] = (it[at].toInt() xor 1).toByte() }
            assertTrue("is not what was exported" in assertFailsWith<UserError> { checkSeal(changed, "model.pte") }.message!!)
        }
        assertFailsWith<UserError> { checkSeal(bytes.copyOf(bytes.size - 1), "model.pte") }
        assertTrue("has 2 digests" in assertFailsWith<UserError> { checkSeal(bytes + bytes, "model.pte") }.message!!)
        assertTrue("has no digest" in assertFailsWith<UserError> { checkSeal(ByteArray(0), "model.pte") }.message!!)
    }

    @Test
    fun anEntryThatIsMissingOrOfAnotherFormat() {
        for (name in sound.keys) assertTrue("'$name' is missing" in refused(sound - name))
        for (name in listOf("contract", "provenance")) {
            val newer = String(sound.getValue(name)).replace("$name/1", "$name/9")
            assertTrue("lavit_edge.$name/1" in refused(sound + (name to newer.toByteArray())))
            assertTrue("not UTF-8" in refused(sound + (name to byteArrayOf(-1))))
        }
        val newer = String(sound.getValue("golden"), Charsets.ISO_8859_1).replace("golden/2", "golden/3")
        assertTrue("lavit_edge.golden/2" in refused(sound + ("golden" to newer.toByteArray(Charsets.ISO_8859_1))))
    }

    @Test
    fun everyCutOfGoldenIsRefused() {
        val whole = sound.getValue("golden")
        val header = 8 + ByteBuffer.wrap(whole).order(ByteOrder.LITTLE_ENDIAN).getLong(0).toInt()
        for (length in (0..header) + (header until whole.size step 997)) refused(sound + ("golden" to whole.copyOf(length)))
        refused(sound + ("golden" to whole + 0))
    }

    @Test
    fun everyChangedByteOfGoldensHeaderIsReadOrRefused() {
        val whole = sound.getValue("golden")
        val header = 8 + ByteBuffer.wrap(whole).order(ByteOrder.LITTLE_ENDIAN).getLong(0).toInt()
        for (at in 0 until header) {
            for (byte in listOf(0, '9'.code, '-'.code, ']'.code, 0xFF)) {
                val changed = whole.copyOf().also { it[at] = byte.toByte() }
                try {
                    Payload.read(sound + ("golden" to changed))
                } catch (_: UserError) {
                    // the one exception there is
                }
            }
        }
    }

    @Test
    fun goldensThatCannotBe() {
        val facts = """{\"format\":\"lavit_edge.golden/1\",\"names\":[\"a\",\"b\",\"c\",\"d\"],\"tolerance_steps\":8}"""
        fun file(tensors: String, bytes: Int, golden: String = facts): ByteArray {
            val header = """{"__metadata__":{"golden":"$golden"}$tensors}""".toByteArray()
            val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(header.size.toLong()).array()
            return length + header + ByteArray(bytes)
        }
        fun said(file: ByteArray) = refused(sound + ("golden" to file))
        assertTrue("picture 0 is missing" in said(file("", 0)))
        assertTrue("at least 4" in said(file("", 0, """{\"format\":\"lavit_edge.golden/1\",\"names\":[\"a\"]}""")))
        assertTrue("positive" in said(file("", 0, facts.replace(":8", ":0"))))
        assertTrue("one number per picture" in said(file("", 0, facts.replace("golden/1", "golden/2"))))
        assertTrue("positive" in said(file("", 0, facts.replace("golden/1", "golden/2").replace(":8", ":[8,8,8,-1]"))))
        val picture = ""","picture.0":{"dtype":"U8","shape":%s,"data_offsets":%s}"""
        for ((shape, offsets) in listOf(
            "[1,1,3]" to "[0,4]", "[1,1,3]" to "[1,4]", "[1,1,3]" to "[0]", "[1,1,3]" to "null", "[1,1,3]" to "[3,0]",
            "[-1,-1,3]" to "[0,3]", "7" to "[0,3]", "[1,1,3.0]" to "[0,3]",
            "[4294967296,4294967296,3]" to "[0,3]", "[9223372036854775807,2,3]" to "[0,3]",
        )) {
            assertTrue("damaged" in said(file(picture.format(shape, offsets), 3)), "$shape $offsets")
        }
        assertTrue("missing or of another" in said(file(picture.format("[1,3]", "[0,3]"), 3)))
        assertTrue("no size" in said(file(picture.format("[0,1,3]", "[0,0]"), 0)))
        assertTrue("damaged" in said(file(picture.format("[1,1,3]", "[0,3]").replace("U8", "F64"), 3)))
        val twice = picture.format("[1,1,3]", "[0,3]") + picture.format("[1,1,3]", "[0,3]").replace("picture.0", "picture.1")
        assertTrue("damaged" in said(file(twice, 3)))
    }

    private fun refused(entries: Map<String, ByteArray>) = assertFailsWith<UserError> { Payload.read(entries) }.message!!
}
