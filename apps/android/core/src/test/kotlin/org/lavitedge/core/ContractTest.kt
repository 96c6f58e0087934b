package org.lavitedge.core

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class ContractTest {
    @Test
    fun ofARealArtifact() {
        val contract = Contract.parse(given("artifact", "contract").readText())
        assertEquals(64, contract.size)
        assertEquals((0..9).map { "class $it" }, contract.labels)
        assertEquals(Resize.SQUASH to Interpolation.BICUBIC, contract.resize to contract.interpolation)
        assertEquals(listOf(0.485, 0.456, 0.406) to listOf(0.229, 0.224, 0.225), contract.mean to contract.std)
        assertEquals(given("artifact", "contract.sha256").readText(), contract.sha256)
    }

    @Test
    fun fieldsThatMayBeMissing() {
        val contract = Contract.parse("""{"format":"lavit_edge.contract/1","size":37,"labels":["a"]}""")
        assertEquals(37, contract.size)
        assertEquals(Resize.SQUASH to Interpolation.BICUBIC, contract.resize to contract.interpolation)
        assertEquals(1.0, contract.cropFraction)
    }

    @Test
    fun anotherFormatIsRefusedInOneLine() {
        for (format in listOf("\"lavit_edge.contract/3\"", "null", "1")) {
            val text = """{"format":$format,"size":32,"labels":["a"]}"""
            val message = assertFailsWith<UserError> { Contract.parse(text) }.message!!
            assertTrue("expected an object with format 'lavit_edge.contract/1' or 'lavit_edge.contract/2'" in message, message)
        }
        for (text in listOf("[]", "1", "null", "\"lavit_edge.contract/1\"")) assertFailsWith<UserError> { Contract.parse(text) }
    }

    @Test
    fun whatIsNoContract() {
        val changes = listOf(
            "size" to "-32", "size" to "0", "size" to "64.0", "size" to "8192", "size" to "\"64\"",
            "labels" to "[]", "labels" to "\"a\"", "labels" to "[\"a\",\"a\"]", "labels" to "[\"a\",1]",
            "labels" to "[\" \"]", "labels" to "[\"a\\u0007\"]",
            "resize" to "\"stretch\"", "resize" to "null", "interpolation" to "\"nearest\"", "crop_fraction" to "0",
            "crop_fraction" to "1.5", "crop_fraction" to "null", "mean" to "[1,2]", "mean" to "[1,2,\"3\"]", "std" to "[1,0,1]",
            "colour" to "1",
        )
        for ((name, value) in changes) {
            val sound = linkedMapOf("format" to "\"lavit_edge.contract/1\"", "size" to "64", "labels" to "[\"a\"]")
            val text = (sound + (name to value)).entries.joinToString(",", "{", "}") { "\"${it.key}\":${it.value}" }
            assertFailsWith<UserError>("accepted: $text") { Contract.parse(text) }
        }
    }
}
