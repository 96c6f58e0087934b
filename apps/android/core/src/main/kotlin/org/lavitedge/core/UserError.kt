package org.lavitedge.core

private const val LONGEST = 1000

/** Something the user can be told as it is, in one line: the artifact or the frame is at fault, not this code. */
class UserError(message: String) : Exception(oneLine(message, LONGEST))

/** [text] without line breaks and control characters, of at most [most] UTF-16 units: texts from files end up in messages. */
fun oneLine(text: String, most: Int): String {
    val clean = text.map { if (it.isISOControl() || it == '\u2028' || it == '\u2029') ' ' else it }.joinToString("").trim()
    if (clean.length <= most) return clean
    return clean.take(if (clean[most - 1].isHighSurrogate()) most - 1 else most)
}
