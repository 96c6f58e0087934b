package org.lavitedge.core

/**
 * One golden picture.
 *
 * @property picture RGB, before any resizing.
 * @property sample 16 x 16 x 3, what [sampleOf] takes from the input that the contract makes of it.
 * @property logits of the program that the artifact was made from.
 * @property tolerance the largest difference of a logit that passes, in steps of the payload.
 */
class Golden(val name: String, val picture: Frame, val sample: ByteArray, val logits: FloatArray, val tolerance: Double)

/**
 * What rides inside an artifact (docs/payload.md).
 *
 * @property provenance what the artifact was made from, and with.
 * @property step what differences of logits are counted in.
 * @property closePictures how many of the pictures must be within [closeSteps], besides each being within its tolerance.
 */
class Payload private constructor(
    val contract: Contract,
    val provenance: Map<String, Any?>,
    val golden: List<Golden>,
    val step: Double,
    val closeSteps: Double,
    val closePictures: Int,
) {
    companion object {
        private val ENTRIES = listOf("contract", "provenance", "golden", "digest")
        private const val GOLDEN_FORMAT = "lavit_edge.golden/2"
        private const val OLD_GOLDEN_FORMAT = "lavit_edge.golden/1" // one tolerance for all, and no step
        private const val LEAST_GOLDEN = 4
        private const val LARGEST_SIDE = 4096

        /**
         * Reads the entries of an artifact by their names: texts in UTF-8, and `golden` as it is in a `.pte`.
         *
         * @throws UserError an entry is missing, of another format, or damaged.
         */
        fun read(entries: Map<String, ByteArray>): Payload {
            for (name in ENTRIES - entries.keys) {
                throw UserError("payload: entry '$name' is missing; only an artifact exported by lavit-edge can test itself")
            }
            val provenance = formatted(text(entries, "provenance"), "payload: provenance", "lavit_edge.provenance/1") - "format"
            val contract = Contract.parse(text(entries, "contract"))
            val file = Safetensors.parse(entries.getValue("golden"), "payload: golden")
            val facts = formatted(file.metadata["golden"] as? String ?: "", "payload: golden", GOLDEN_FORMAT, OLD_GOLDEN_FORMAT)
            val old = facts["format"] == OLD_GOLDEN_FORMAT
            val names = facts["names"] as? List<*> ?: emptyList<Any>()
            if (names.size < LEAST_GOLDEN || names.any { it !is String }) {
                throw UserError("payload: golden must name at least $LEAST_GOLDEN pictures")
            }
            val allowed = facts["tolerance_steps"]
            val each = if (old) List(names.size) { allowed } else allowed as? List<*> ?: emptyList<Any>()
            val tolerances = each.map { positive(it, "tolerance_steps") }
            if (tolerances.size != names.size) throw UserError("payload: tolerance_steps must be one number per picture")
            val tensors = file.tensors.toMutableMap()
            val golden = names.mapIndexed { index, name ->
                golden(name as String, index, tensors, contract.labels.size, tolerances[index])
            }
            tensors.keys.firstOrNull()?.let { throw UserError("payload: golden tensor '$it' is unknown") }
            val range = golden.maxOf { it.logits.max() } - golden.minOf { it.logits.min() }
            if (range <= 0) throw UserError("payload: the expected logits are all equal, which no model gives")
            if (old) return Payload(contract, provenance, golden, range.toDouble() / 255, 0.0, 0)
            val close = facts["close_pictures"] as? Long ?: -1
            if (close !in 0..golden.size) throw UserError("payload: close_pictures must be a number of the pictures")
            val (step, closeSteps) = listOf("step", "close_steps").map { positive(facts[it], it) }
            return Payload(contract, provenance, golden, step, closeSteps, close.toInt())
        }

        private fun positive(value: Any?, name: String): Double =
            (value as? Number)?.toDouble()?.takeIf { it > 0 && it.isFinite() }
                ?: throw UserError("payload: $name must be positive numbers")

        private fun text(entries: Map<String, ByteArray>, name: String) = Json.text(entries.getValue(name), "payload: $name")

        private fun golden(
            name: String,
            index: Int,
            tensors: MutableMap<String, Tensor>,
            classes: Int,
            tolerance: Double,
        ): Golden {
            fun take(part: String, type: String, shape: List<Long?>): Tensor {
                val tensor = tensors.remove("$part.$index")
                val fits = tensor?.type == type && tensor.shape.size == shape.size &&
                    shape.zip(tensor.shape).all { (wanted, side) -> wanted == null || wanted == side }
                return tensor.takeIf { fits }
                    ?: throw UserError("payload: golden $part $index is missing or of another type or shape")
            }
            val picture = take("picture", "U8", listOf(null, null, 3))
            val (height, width) = picture.shape
            if (height !in 1..LARGEST_SIDE || width !in 1..LARGEST_SIDE) {
                throw UserError("payload: golden picture $index has no size that can be")
            }
            val sample = take("sample", "U8", listOf(GRID.toLong(), GRID.toLong(), 3)).bytes
            val logits = take("logits", "F32", listOf(classes.toLong())).bytes.asFloatBuffer()
            val values = FloatArray(classes) { logits.get(it) }
            if (!values.all { it.isFinite() }) throw UserError("payload: golden logits $index are not finite")
            val plane = Plane(picture.bytes, 3 * width.toInt(), 3)
            val frame = Frame(PixelFormat.RGB, width.toInt(), height.toInt(), listOf(plane))
            return Golden(name, frame, ByteArray(sample.remaining()).also(sample::get), values, tolerance)
        }
    }
}

/** An input is remembered as 16 x 16 of its pixels. */
const val GRID = 16

/** 16 x 16 pixels of a square of [size], those in rows and columns `(2 i + 1) size / 32`. */
fun sampleOf(square: ByteArray, size: Int): ByteArray = ByteArray(3 * GRID * GRID) { i ->
    val row = sampledAt(i / 3 / GRID, size)
    val column = sampledAt(i / 3 % GRID, size)
    square[3 * (row * size + column) + i % 3]
}

internal fun sampledAt(i: Int, size: Int): Int = (2 * i + 1) * size / (2 * GRID)
