package org.lavitedge.core

import java.nio.ByteBuffer
import java.nio.FloatBuffer
import kotlin.math.roundToInt
import kotlin.math.roundToLong

private const val SECOND = 1e9 // ns
private const val LEAST_RUNS = 50
private const val WARMUP = "3 runs and 1 s, whichever is later"
private const val WARMUP_RUNS = 3
private const val FRAME_RUNS = 20
private const val FRAME_WIDTH = 640
private const val FRAME_HEIGHT = 480

/** A model that a runtime has loaded. */
interface Model {
    /** The entries of the payload that the artifact carries, as [Payload.read] takes them. */
    fun entries(): Map<String, ByteArray>

    /** Float32 `(1, 3, size, size)`, 0 to 255; filled before [run]. Its position must be 0. */
    val input: FloatBuffer

    /** Logits of [input]. */
    fun run(): FloatArray
}

/** The phone and the runtime, as an app sees them. */
interface Phone {
    val runtime: Runtime

    fun device(): Device

    fun condition(): Condition

    /** Most resident memory of this process in bytes, and where that was read; null if the system does not tell. */
    fun peakMemory(): Pair<Long, String>?

    /** Loads an artifact with a runtime that this process has not loaded it with before. */
    fun load(threads: Int): Model
}

/**
 * What is to be measured.
 *
 * @property file name of the artifact, without a folder. [artifact] is its bytes.
 * @property version of lavit-edge. [build] is `release` or `debug`.
 * @property seconds the least duration of the measurement, warm-up not counted.
 * @property force measure although the self-test fails; the report says so.
 */
class Job(
    val file: String,
    val artifact: ByteArray,
    val version: String,
    val build: String,
    val threads: Int = 1,
    val seconds: Double = 10.0,
    val force: Boolean = false,
)

/** Runs [run] until [leastRuns] have taken [seconds] by [clock], which is in nanoseconds. */
fun timedRuns(seconds: Double, leastRuns: Int, clock: () -> Long, run: () -> Unit): Runs {
    val least = (seconds * SECOND).roundToLong()
    val runs = Runs()
    while (runs.size < leastRuns || runs.duration < least) {
        val start = clock()
        run()
        runs.add(start, clock() - start)
    }
    return runs
}

/**
 * Tests and measures an artifact, and gives the report, without `latency` if the self-test fails and nobody forces it.
 *
 * @throws UserError the artifact's bytes are not what was exported, or it carries no payload that can be read.
 */
fun benchmark(phone: Phone, job: Job, clock: () -> Long = System::nanoTime): Map<String, Any?> {
    val created = now()
    val before = phone.condition()
    val content = checkSeal(job.artifact, job.file) // a damaged file never reaches the runtime
    var start = clock()
    val model = phone.load(job.threads)
    val cold = clock() - start
    start = clock()
    model.run()
    val first = clock() - start
    val payload = Payload.read(model.entries())
    fun give(input: FloatArray) {
        model.input.duplicate().put(input) // clear() of a FloatBuffer is not on Android 8, whose Buffer has it
    }
    val tested = selfTest(payload) { input ->
        give(input)
        model.run()
    }
    val timed = tested.passed || job.force
    val warmup = if (timed) timedRuns(1.0, WARMUP_RUNS, clock) { model.run() } else Runs()
    val runs = if (timed) timedRuns(job.seconds, LEAST_RUNS, clock) { model.run() } else Runs()
    val converter = FrameConverter(payload.contract)
    val frame = noise()
    // for a second: long enough for the code to be compiled in the first half of it
    val preprocessing = timedRuns(1.0, FRAME_RUNS, clock) {
        converter.convert(frame)
        give(converter.tensor())
    }
    val least = (job.seconds * SECOND).roundToLong()
    val memory = phone.peakMemory()
    return finish(
        mapOf(
            "created" to created,
            "harness" to mapOf("name" to "android", "version" to job.version, "build" to job.build),
            "device" to phone.device().fields(),
            "runtime" to phone.runtime.fields(),
            "artifact" to artifact(job, content, payload),
            "settings" to mapOf(
                "threads" to job.threads,
                "least_duration_ns" to least,
                "least_runs" to LEAST_RUNS,
                "warmup" to mapOf("policy" to WARMUP, "runs" to warmup.size, "duration_ns" to warmup.duration),
            ),
            "conditions" to mapOf("before" to before.fields(), "after" to phone.condition().fields()),
            "self_test" to mapOf(
                "passed" to tested.passed,
                "pictures" to tested.pictures,
                "same_top1" to tested.sameTop1,
                "worst_millisteps" to tested.worstMillisteps,
                "forced" to (timed && !tested.passed),
                "detail" to tested.failure?.let { oneLine(it, 500) },
            ),
            // its digest has just been taken
            "load" to mapOf("cold_ns" to cold, "first_inference_ns" to first, "file_cache" to "warm"),
            "latency" to if (timed) runs.latency() else null,
            "preprocessing" to mapOf(
                "frame" to "${FRAME_WIDTH}x$FRAME_HEIGHT YUV_420_888",
                "runs" to preprocessing.size,
                "p50_ns" to quantile(preprocessing.sorted(), 500),
            ),
            "memory" to mapOf("peak_bytes" to memory?.first, "source" to memory?.second),
            "least_duration_met" to (runs.size >= LEAST_RUNS && runs.duration >= least),
            "notes" to emptyList<String>(),
        ),
    )
}

private fun artifact(job: Job, content: String, payload: Payload): Map<String, Any?> {
    val precision = payload.provenance["precision"]
    val top1 = (payload.provenance["val_top1"] as? Number)?.toDouble()
    return mapOf(
        "file" to nameOrNull(job.file),
        "bytes" to job.artifact.size,
        "sha256" to sha256(job.artifact),
        "content_sha256" to content,
        "contract_sha256" to payload.contract.sha256,
        "model" to nameOrNull((payload.provenance["checkpoint"] as? Map<*, *>)?.get("name") as? String),
        "precision" to mapOf("int8" to "int8", "float" to "float32")[precision], // of a .pte
        "image_size" to payload.contract.size,
        "top1_permille" to top1?.takeIf { it in 0.0..1.0 }?.let { (1000 * it).roundToInt() },
    )
}

/** A camera's frame of noise, outside the heap as cameras give it. */
private fun noise(): Frame {
    var state = 1
    fun plane(width: Int, height: Int, pixelStride: Int): Plane {
        val data = ByteBuffer.allocateDirect(width * pixelStride * height)
        for (at in 0 until data.capacity()) {
            state = state * 1664525 + 1013904223
            data.put(at, (state ushr 24).toByte())
        }
        return Plane(data, width * pixelStride, pixelStride)
    }
    val chroma = List(2) { plane(FRAME_WIDTH / 2, FRAME_HEIGHT / 2, 2) }
    return Frame(PixelFormat.YUV_420_888, FRAME_WIDTH, FRAME_HEIGHT, listOf(plane(FRAME_WIDTH, FRAME_HEIGHT, 1)) + chroma)
}
