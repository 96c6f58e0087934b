package org.lavitedge.classifier

import org.lavitedge.core.Json
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** Files that tests/apps/test_android_app.py passes by system properties. */
fun given(name: String, file: String = ""): File {
    val path = System.getProperty("lavit.$name") ?: error("run these tests by tests/apps/test_android_app.py (lavit.$name)")
    return if (file.isEmpty()) File(path) else File(path, file)
}

@Suppress("UNCHECKED_CAST")
fun fields(file: File): Map<String, Any?> = Json.parse(file.readBytes(), file.name) as Map<String, Any?>

fun floats(file: File): FloatArray {
    val buffer = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    return FloatArray(buffer.remaining()).also(buffer::get)
}
