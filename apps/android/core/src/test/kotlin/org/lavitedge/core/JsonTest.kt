package org.lavitedge.core

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class JsonTest {
    @Test
    fun values() {
        assertEquals(listOf(1L, -7L, 0L, 2.5, 100.0, true, false, null), Json.parse(" [1,-7,-0, 2.5,1e2,true,false,null]\n", "x"))
        assertEquals(mapOf("a" to mapOf("b" to emptyList<Any>()), "" to "é"), Json.parse("{\"a\":{\"b\":[ ]},\"\":\"é\"}", "x"))
        assertEquals("\"\\/\b\u000c\n\r\tA\uD83D\uDE00", Json.parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\uD83d\\ude00\"", "x"))
    }

    @Test
    fun whatIsNotJson() {
        val texts = listOf(
            "", " ", "nul", "NaN", "Infinity", "-", "+1", "01", "1.", ".5", "1e", "0x1", "1 2", "[1,]", "[,1]", "{,}", "{\"a\"}",
            "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":1 \"b\":2}", "'a'", "\"", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u+123\"",
            "\"a\nb\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\uD800\"", "{\"a\":1,\"a\":1}", "1e999", "9223372036854775808",
            "\uFEFF1", "1//", "[1", "]", "\u00a01",
        )
        for (text in texts) assertFailsWith<UserError>("accepted: $text") { Json.parse(text, "x") }
    }

    @Test
    fun nestingHasAnEnd() {
        fun nested(depth: Int) = "[".repeat(depth) + "]".repeat(depth)
        Json.parse(nested(Json.DEEPEST), "x")
        for (depth in listOf(Json.DEEPEST + 1, 1_000_000)) {
            assertTrue("nested too deeply" in assertFailsWith<UserError> { Json.parse(nested(depth), "x") }.message!!)
        }
        assertFailsWith<UserError> { Json.parse("{\"a\":".repeat(100_000), "x") }
    }

    @Test
    fun everyCutIsRefusedAndEveryChangedByteIsReadOrRefused() {
        for (name in listOf("contract", "provenance")) {
            val whole = given("artifact", name).readBytes()
            for (length in whole.indices) assertFailsWith<UserError> { Json.parse(whole.copyOf(length), name) }
            for (at in whole.indices) {
                for (byte in listOf(0, '"'.code, '\\'.code, '{'.code, ']'.code, 0xC0, 0xFF)) {
                    val changed = whole.copyOf().also { it[at] = byte.toByte() }
                    try {
                        Json.parse(changed, name)
                    } catch (_: UserError) {
                        // the one exception there is
                    }
                }
            }
        }
    }

    @Test
    fun messagesAreOneLine() {
        val message = UserError("a\nb\u001b[2J\u2028" + "\uD83D\uDE00".repeat(1000)).message!!
        assertTrue(message.none { it.isISOControl() || it == '\u2028' } && message.length <= 1000 && !Json.hasHalfPair(message))
    }

    @Test
    fun canonicalOfTheGoldenDocument() {
        val golden = fields(json(given("golden", "report.json")))
        assertEquals(golden["sha256"], digest(fields(golden["document"])))
        val text = Json.canonical(golden["document"])
        val a = "\\\"\\\\\\b\\f\\n\\r\\t\\u0001\u007f\u2028é\uD83D\uDE00"
        assertTrue(text.startsWith("{\"a\":\"$a\",\"b\":[1,null,true,-7,9007199254740991]"))
        assertEquals(golden["document"], Json.parse(text, "x"))
    }

    @Test
    fun whatHasNoPlaceInAReport() {
        for (value in listOf(1.0, Float.NaN, Json.LARGEST + 1, "\uD800", mapOf("\uDC00" to 1), listOf(Any()))) {
            assertFailsWith<IllegalArgumentException> { Json.canonical(value) }
        }
    }
}
