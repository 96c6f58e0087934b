package org.lavitedge.core

import java.security.MessageDigest

private val MARK = "org.lavit_edge.sha256:".toByteArray()
private const val DIGITS = 64
private val ZEROS = ByteArray(DIGITS) { '0'.code.toByte() }

/** SHA-256 in hexadecimal. */
fun sha256(bytes: ByteArray): String = hexadecimal(MessageDigest.getInstance("SHA-256").digest(bytes))

/**
 * The digest of an artifact: of its bytes, with the digest's own digits as zeros. [name] names the artifact in errors.
 *
 * @throws UserError unless the artifact carries one digest and it is this.
 */
fun checkSeal(artifact: ByteArray, name: String): String {
    val found = marks(artifact)
    val digest = MessageDigest.getInstance("SHA-256")
    var from = 0
    for (at in found) {
        digest.update(artifact, from, at - from)
        digest.update(ZEROS)
        from = at + DIGITS
    }
    digest.update(artifact, from, artifact.size - from)
    val actual = hexadecimal(digest.digest())
    if (found.size != 1) {
        val what = if (found.isEmpty()) "has no digest" else "has ${found.size} digests"
        throw UserError("$name $what; only an artifact exported by lavit-edge can test itself")
    }
    val stored = String(artifact, found[0], DIGITS, Charsets.US_ASCII)
    if (stored != actual) {
        val says = "its bytes have SHA-256 ${actual.take(16)}..., it says ${stored.take(16)}..."
        throw UserError("$name is not what was exported: $says")
    }
    return actual
}

/** Where digests begin: 64 lower-case hexadecimal digits behind the mark. */
private fun marks(bytes: ByteArray): List<Int> {
    val found = ArrayList<Int>()
    var at = 0
    while (at <= bytes.size - MARK.size - DIGITS) {
        val digits = at + MARK.size
        val here = bytes[at] == MARK[0] && MARK.indices.all { bytes[at + it] == MARK[it] }
        if (here && (digits until digits + DIGITS).all { isHexadecimal(bytes[it]) }) {
            found.add(digits)
            at = digits + DIGITS
        } else {
            at++
        }
    }
    return found
}

private fun isHexadecimal(byte: Byte): Boolean = byte.toInt().toChar() in '0'..'9' || byte.toInt().toChar() in 'a'..'f'

private fun hexadecimal(bytes: ByteArray): String = bytes.joinToString("") { (it.toInt() and 255).toString(16).padStart(2, '0') }
