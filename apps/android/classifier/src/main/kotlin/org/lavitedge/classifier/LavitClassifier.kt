package org.lavitedge.classifier

import android.content.Context
import android.graphics.Bitmap
import org.lavitedge.core.Answer
import org.lavitedge.core.Frame
import org.lavitedge.core.FrameConverter
import org.lavitedge.core.Payload
import org.lavitedge.core.SelfTest
import org.lavitedge.core.UserError
import org.lavitedge.core.answers
import org.lavitedge.core.decide
import org.lavitedge.core.selfTest
import org.lavitedge.core.softmax
import java.io.File

/**
 * What a picture shows.
 *
 * @property answer the most probable label; null, "not sure", where it is less probable than the contract's threshold.
 * @property answers the most probable labels, the most probable first, sure or not.
 * @property probabilities of all labels, for a live view's [org.lavitedge.core.Steady].
 * @property preparing nanoseconds from the picture to the model's input. [running] is the model's.
 */
class Seen(
    val answer: Answer?,
    val answers: List<Answer>,
    val probabilities: DoubleArray,
    val preparing: Long,
    val running: Long,
)

/**
 * A LaViT with all that belongs to it: `LavitClassifier.open(context, "model.pte").classify(bitmap)`.
 *
 * Labels, sizes and the way to resize come from the artifact, so another model is another file and no other code. Buffers are
 * reused from picture to picture; not for two threads at once.
 */
class LavitClassifier private constructor(private val name: String, private val model: ExecuTorchModel) : AutoCloseable {
    /** What the artifact carries. */
    val payload = Payload.read(model.entries())

    private val converter = FrameConverter(payload.contract)
    private val bitmaps = BitmapFrames()

    /** The golden pictures on this device. If they do not pass, nothing is classified. */
    val selfTest: SelfTest = selfTest(payload, ::logits)

    /**
     * The [count] most probable labels of a frame.
     *
     * @throws UserError the self-test has failed, the frame cannot be used, or the model fails.
     */
    fun classify(frame: Frame, count: Int = 3): Seen {
        selfTest.failure?.let { throw UserError("$name fails its self-test and is not used: $it") }
        val start = System.nanoTime()
        converter.convert(frame)
        val input = converter.tensor()
        val ready = System.nanoTime()
        val logits = logits(input)
        if (!logits.all { it.isFinite() }) throw UserError("$name gives logits that are not finite")
        val ran = System.nanoTime()
        val contract = payload.contract
        val probabilities = softmax(logits, contract.temperature)
        val best = decide(probabilities, contract.threshold)?.let { Answer(it, contract.labels[it], probabilities[it]) }
        return Seen(best, answers(probabilities, contract.labels, count), probabilities, ready - start, ran - ready)
    }

    /**
     * The same of a bitmap, whose transparent pixels lie over white; [rotation] and [mirrored] as [Frame] has them. Its colours are
     * taken for sRGB's: ask the decoder for them (`BitmapFactory.Options.inPreferredColorSpace`).
     */
    fun classify(image: Bitmap, rotation: Int = 0, mirrored: Boolean = false, count: Int = 3): Seen =
        classify(bitmaps.frame(image, rotation, mirrored), count)

    override fun close() = model.close()

    private fun logits(input: FloatArray): FloatArray {
        model.input.duplicate().put(input)
        return model.run()
    }

    companion object {
        /**
         * Opens the artifact [name] among the app's assets and tests it on this device. Not for the main thread.
         *
         * @throws UserError one line for people: it is not there, damaged, of another version, or cannot run here.
         */
        fun open(context: Context, name: String, threads: Int = 1): LavitClassifier =
            open(Artifact.ofAsset(context, name), threads)

        /** The same of a file. */
        fun open(file: File, threads: Int = 1): LavitClassifier = open(Artifact.of(file), threads)

        private fun open(artifact: Artifact, threads: Int): LavitClassifier {
            val model = ExecuTorchModel(artifact.file, artifact.name, threads)
            return try {
                LavitClassifier(artifact.name, model)
            } catch (error: Throwable) {
                model.close()
                throw error
            }
        }
    }
}
