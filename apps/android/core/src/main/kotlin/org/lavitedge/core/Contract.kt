package org.lavitedge.core

/** How a picture becomes a square: the whole of it, or the middle of it. */
enum class Resize { SQUASH, CROP }

/** The filter of the resize; it is antialiased. */
enum class Interpolation { BILINEAR, BICUBIC }

/**
 * What a picture must become before the model sees it, and what the model's outputs are called (lavit_edge/contract/contract.py).
 *
 * @property size side of the square input in pixels.
 * @property cropFraction share of the short side that [Resize.CROP] keeps.
 * @property mean of R, G and B, on the scale 0 to 1. The model normalises by itself; an app has no use for it.
 * @property labels one for each logit.
 * @property temperature what logits are divided by before the softmax. Format 1 means 1.
 * @property threshold an answer less probable than this is "not sure", in [0, 1). Format 1 means 0: never.
 * @property sha256 of the text that the contract was read from, which exporters write canonically.
 */
class Contract private constructor(
    val size: Int,
    val labels: List<String>,
    val resize: Resize,
    val interpolation: Interpolation,
    val cropFraction: Double,
    val mean: List<Double>,
    val std: List<Double>,
    val temperature: Double,
    val threshold: Double,
    val sha256: String,
) {
    companion object {
        val FORMATS = listOf("lavit_edge.contract/1", "lavit_edge.contract/2")
        const val LARGEST_SIZE = 4096
        const val COLDEST = 0.01
        private val FIELDS = setOf("format", "size", "labels", "resize", "interpolation", "crop_fraction", "mean", "std")
        private val DECISION = setOf("temperature", "threshold") // what format 2 has beside them

        /** @throws UserError on anything that is not a contract of this format. */
        fun parse(text: String): Contract {
            val fields = formatted(text, "contract", *FORMATS.toTypedArray())
            val decision = if (fields["format"] == FORMATS[1]) DECISION else emptySet()
            (fields.keys - FIELDS - decision).firstOrNull()?.let { throw UserError("contract: unknown field '$it'") }
            (decision - fields.keys).firstOrNull()?.let { throw UserError("contract: field '$it' is missing") }
            val size = (fields["size"] as? Long) ?: 0
            need(size in 1..LARGEST_SIZE, "size must be a whole number from 1 to $LARGEST_SIZE")
            val labels = (fields["labels"] as? List<*>)?.filterIsInstance<String>() ?: emptyList()
            need(labels.isNotEmpty() && labels.size == (fields["labels"] as List<*>).size, "labels must be a list of names")
            need(labels.none { label -> label.isBlank() || label.any { it.isISOControl() } }, "a label is empty or not printable")
            need(labels.toSet().size == labels.size, "a label appears twice")
            val fraction = number(fields.getOrDefault("crop_fraction", 1L))
            need(fraction != null && fraction > 0 && fraction <= 1, "crop_fraction must be in (0, 1]")
            val std = three(fields, "std", listOf(0.229, 0.224, 0.225))
            need(std.all { it > 0 }, "std must be positive")
            val temperature = number(fields.getOrDefault("temperature", 1L))
            need(temperature != null && temperature in COLDEST..1 / COLDEST, "temperature must be from 0.01 to 100")
            val threshold = number(fields.getOrDefault("threshold", 0L))
            need(threshold != null && threshold >= 0 && threshold < 1, "threshold must be in [0, 1)")
            return Contract(
                size.toInt(),
                labels,
                oneOf<Resize>(fields, "resize", Resize.SQUASH),
                oneOf<Interpolation>(fields, "interpolation", Interpolation.BICUBIC),
                fraction!!,
                three(fields, "mean", listOf(0.485, 0.456, 0.406)),
                std,
                temperature!!,
                threshold!!,
                sha256(text.toByteArray()),
            )
        }

        private inline fun <reified E : Enum<E>> oneOf(fields: Map<String, Any?>, name: String, otherwise: E): E {
            if (name !in fields) return otherwise
            val values = enumValues<E>()
            return values.find { it.name.lowercase() == fields[name] }
                ?: throw UserError("contract: $name must be one of ${values.joinToString { it.name.lowercase() }}")
        }

        private fun three(fields: Map<String, Any?>, name: String, otherwise: List<Double>): List<Double> {
            if (name !in fields) return otherwise
            val values = (fields[name] as? List<*>)?.mapNotNull(::number) ?: emptyList()
            need(values.size == 3 && (fields[name] as List<*>).size == 3, "$name must be three numbers")
            return values
        }

        private fun number(value: Any?): Double? = (value as? Number)?.toDouble()

        private fun need(sound: Boolean, what: String) {
            if (!sound) throw UserError("contract: $what")
        }
    }
}

/** The JSON object in [text], which must say that it is of [format]; a reader refuses formats that it does not know. */
internal fun formatted(text: String, name: String, vararg formats: String): Map<String, Any?> {
    val value = Json.parse(text, name) as? Map<*, *>
    if (value?.get("format") !in formats) {
        val has = (value?.get("format") as? String)?.let { "'${it.take(100)}'" } ?: "none"
        throw UserError("$name: expected an object with format ${formats.joinToString(" or ") { "'$it'" }}, it has $has")
    }
    @Suppress("UNCHECKED_CAST") // the names of a parsed object are texts
    return value as Map<String, Any?>
}
