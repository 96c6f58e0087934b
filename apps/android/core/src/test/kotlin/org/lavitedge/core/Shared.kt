package org.lavitedge.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Files that Python's test passes by system properties. */
fun given(name: String, file: String = ""): File {
    val path = System.getProperty("lavit.$name") ?: error("run these tests by tests/apps/test_android_core.py (lavit.$name)")
    return if (file.isEmpty()) File(path) else File(path, file)
}

fun json(file: File): Any? = Json.parse(file.readBytes(), file.name)

@Suppress("UNCHECKED_CAST")
fun fields(value: Any?): Map<String, Any?> = value as Map<String, Any?>

fun list(value: Any?): List<Any?> = value as List<Any?>

fun int(value: Any?): Int = (value as Long).toInt()

fun floats(file: File): FloatArray {
    val buffer = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(buffer.remaining()).also(buffer::get)
}

/** The entries of a real artifact, as a runtime gives them. */
fun entries(): Map<String, ByteArray> =
    listOf("contract", "provenance", "golden", "digest").associateWith { given("artifact", it).readBytes() }
