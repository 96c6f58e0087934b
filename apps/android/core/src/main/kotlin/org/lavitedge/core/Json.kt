package org.lavitedge.core

import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

/**
 * JSON without a library: Android's own org.json is not there on a plain JVM, and it takes NaN, comments and repeated names.
 *
 * Objects are [Map]s in the order of the text, arrays [List]s, whole numbers [Long]s and others [Double]s.
 */
object Json {
    /** How deep values may lie in each other; our documents are five deep. */
    const val DEEPEST = 64

    /** The largest integer that all of JSON's readers agree on. */
    const val LARGEST = (1L shl 53) - 1

    /**
     * The value of a text that [source] names in errors.
     *
     * @throws UserError not JSON, an object with a name twice, half of a surrogate pair, a number that no Long or Double holds,
     *   or nesting beyond [DEEPEST].
     */
    fun parse(text: String, source: String): Any? = JsonParser(text, source).whole()

    /** As above, from UTF-8. */
    fun parse(utf8: ByteArray, source: String): Any? = parse(text(utf8, source), source)

    /** @throws UserError the bytes are not UTF-8. */
    fun text(utf8: ByteArray, source: String): String = try {
        Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(utf8)).toString()
    } catch (_: CharacterCodingException) {
        throw UserError("$source is not UTF-8")
    }

    /**
     * RFC 8785 for what a report holds: sorted names, no white space, integers.
     *
     * @throws IllegalArgumentException a value that has no place in a report: a fraction, say, or half of a surrogate pair.
     */
    fun canonical(value: Any?): String = StringBuilder().also { write(value, it) }.toString()

    private fun write(value: Any?, out: StringBuilder) {
        when (value) {
            null, is Boolean -> out.append(value)

            is Int -> out.append(value)

            is Long -> {
                require(value in -LARGEST..LARGEST) { "$value is beyond the integers of JSON" }
                out.append(value)
            }

            is String -> quote(value, out)

            is List<*> -> {
                out.append('[')
                value.forEachIndexed { index, item ->
                    if (index > 0) out.append(',')
                    write(item, out)
                }
                out.append(']')
            }

            is Map<*, *> -> {
                out.append('{')
                value.keys.map { it as String }.sorted().forEachIndexed { index, name ->
                    if (index > 0) out.append(',')
                    quote(name, out)
                    out.append(':')
                    write(value[name], out)
                }
                out.append('}')
            }

            else -> throw IllegalArgumentException("a ${value::class.simpleName} has no place in a report")
        }
    }

    private fun quote(text: String, out: StringBuilder) {
        require(!hasHalfPair(text)) { "a text with half of a surrogate pair" }
        out.append('"')
        for (letter in text) {
            when (letter) {
                '"' -> out.append("\\\"")
                '\\' -> out.append("\\\\")
                '\b' -> out.append("\\b")
                '\u000c' -> out.append("\\f")
                '\n' -> out.append("\\n")
                '\r' -> out.append("\\r")
                '\t' -> out.append("\\t")
                in '\u0000'..'\u001f' -> out.append("\\u").append(letter.code.toString(16).padStart(4, '0'))
                else -> out.append(letter)
            }
        }
        out.append('"')
    }

    internal fun hasHalfPair(text: String): Boolean {
        var at = 0
        while (at < text.length) {
            if (text[at].isSurrogate()) {
                if (!text[at].isHighSurrogate() || at + 1 == text.length || !text[at + 1].isLowSurrogate()) return true
                at++
            }
            at++
        }
        return false
    }
}
