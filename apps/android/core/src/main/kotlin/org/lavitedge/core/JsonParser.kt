package org.lavitedge.core

/** One text being read. */
internal class JsonParser(private val text: String, private val source: String) {
    private var at = 0

    fun whole(): Any? {
        val value = value(1)
        if (next() != null) fail("something follows the value")
        return value
    }

    /** The next letter that is not white space, where [at] then is; null at the end. */
    private fun next(): Char? {
        while (at < text.length && text[at] in " \t\n\r") at++
        return text.getOrNull(at)
    }

    private fun value(depth: Int): Any? {
        if (depth > Json.DEEPEST) fail("nested too deeply")
        return when (next()) {
            '{' -> members(depth)
            '[' -> items(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun members(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        each('}') {
            if (next() != '"') fail("a name is missing")
            val name = string()
            if (next() != ':') fail("a colon is missing")
            at++
            if (name in found) fail("an object has the same name twice")
            found[name] = value(depth + 1)
        }
        return found
    }

    private fun items(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        each(']') { found.add(value(depth + 1)) }
        return found
    }

    private inline fun each(end: Char, read: () -> Unit) {
        at++
        if (next() == end) {
            at++
            return
        }
        while (true) {
            read()
            val letter = next()
            if (letter != end && letter != ',') fail("a comma or '$end' is missing")
            at++
            if (letter == end) return
        }
    }

    private fun word(word: String, value: Boolean?): Boolean? {
        if (!text.startsWith(word, at)) fail("an unknown word")
        at += word.length
        return value
    }

    private fun string(): String {
        at++
        val found = StringBuilder()
        while (true) {
            val letter = text.getOrNull(at++) ?: fail("a text without an end")
            when {
                letter == '"' -> break
                letter < ' ' -> fail("a control character in a text")
                letter != '\\' -> found.append(letter)
                else -> found.append(escaped())
            }
        }
        return found.toString().also { if (Json.hasHalfPair(it)) fail("half of a surrogate pair") }
    }

    private fun escaped(): Char = when (val letter = text.getOrNull(at++)) {
        '"', '\\', '/' -> letter

        'b' -> '\b'

        'f' -> '\u000c'

        'n' -> '\n'

        'r' -> '\r'

        't' -> '\t'

        'u' -> {
            val digits = text.substring(at, minOf(at + 4, text.length))
            if (digits.length < 4 || digits.any { it !in "0123456789abcdefABCDEF" }) fail("an escape without its four digits")
            at += 4
            digits.toInt(16).toChar()
        }

        else -> fail("an unknown escape")
    }

    private fun number(): Number {
        val found = NUMBER.matchAt(text, at) ?: fail("a value is missing")
        at = found.range.last + 1
        val whole = found.groupValues[1].isEmpty()
        val number: Number? = if (whole) found.value.toLongOrNull() else found.value.toDouble().takeIf { it.isFinite() }
        return number ?: fail("a number too large")
    }

    private fun fail(why: String): Nothing = throw UserError("$source is not JSON ($why at $at)")

    private companion object {
        val NUMBER = Regex("-?(?:0|[1-9][0-9]*)((?:\\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
    }
}
