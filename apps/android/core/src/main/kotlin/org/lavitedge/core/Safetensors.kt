package org.lavitedge.core

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** One tensor; [bytes] is little-endian and begins at its position. */
internal class Tensor(val type: String, val shape: List<Long>, val bytes: ByteBuffer)

/** A safetensors file: 8 bytes, little-endian, the length of a JSON header; the header; the tensors' bytes without a gap. */
internal class Safetensors(val tensors: Map<String, Tensor>, val metadata: Map<*, *>) {
    companion object {
        private val BYTES = mapOf("U8" to 1L, "F32" to 4L) // those that a payload has

        /** @throws UserError the file is damaged, or has a type that no payload has. [name] names it. */
        fun parse(file: ByteArray, name: String): Safetensors {
            val length = if (file.size < 8) -1 else ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).getLong(0)
            if (length < 0 || length > file.size - 8) damaged(name, "no header")
            val data = 8 + length.toInt()
            val header = Json.parse(file.copyOfRange(8, data), "$name's header") as? Map<*, *> ?: damaged(name, "no header")
            val tensors = LinkedHashMap<String, Tensor>()
            var covered = 0L
            // by place, so that a gap or an overlap shows
            val placed = header.filterKeys { it != "__metadata__" }.map { (key, facts) -> Entry(key as String, facts, name) }
            for (entry in placed.sortedBy { it.from }) {
                if (entry.from != covered || entry.to > file.size - data) damaged(name, "tensor '${entry.name}'")
                covered = entry.to
                val bytes = ByteBuffer.wrap(file, data + entry.from.toInt(), (entry.to - entry.from).toInt()).slice()
                tensors[entry.name] = Tensor(entry.type, entry.shape, bytes.order(ByteOrder.LITTLE_ENDIAN))
            }
            if (covered != (file.size - data).toLong()) damaged(name, "bytes that are no tensor's")
            return Safetensors(tensors, header["__metadata__"] as? Map<*, *> ?: emptyMap<Any, Any>())
        }

        private fun damaged(name: String, what: String): Nothing = throw UserError("$name is damaged ($what)")
    }

    private class Entry(val name: String, facts: Any?, file: String) {
        val type: String
        val shape: List<Long>
        val from: Long
        val to: Long

        init {
            val fields = facts as? Map<*, *> ?: emptyMap<Any, Any>()
            val offsets = sizes(fields["data_offsets"])
            type = fields["dtype"] as? String ?: ""
            shape = sizes(fields["shape"]) ?: listOf(-1)
            from = offsets?.getOrNull(0) ?: -1
            to = offsets?.getOrNull(1) ?: -1
            val size = BYTES[type]?.let { bytes -> shape.fold(bytes) { product, side -> product(product, side) } }
            if (offsets?.size != 2 || from < 0 || size == null || size != to - from) damaged(file, "tensor '$name'")
        }

        private fun sizes(value: Any?): List<Long>? {
            val sizes = (value as? List<*>)?.filterIsInstance<Long>()?.filter { it >= 0 }
            return sizes?.takeIf { it.size == value.size }
        }

        /** -1 instead of more than any file of ours has. */
        private fun product(a: Long, b: Long): Long = if (a < 0 || b < 0 || (a > 0 && b > Int.MAX_VALUE / a)) -1 else a * b
    }
}
