package org.lavitedge.app

import org.lavitedge.core.Job
import org.lavitedge.core.Json
import org.lavitedge.core.Model
import org.lavitedge.core.Phone
import org.lavitedge.core.UserError
import org.lavitedge.core.benchmark
import java.io.File
import java.io.IOException
import java.util.concurrent.atomic.AtomicReference

/** How a benchmark ended. */
sealed interface Outcome {
    /** The report is written. [median] is in nanoseconds, null if the self-test failed, of which [detail] tells. */
    class Done(val median: Long?, val runs: Int, val detail: String?) : Outcome

    class Failed(val why: String) : Outcome
}

/** One benchmark. The report appears whole under [report] or not at all; if there is none, `{"error": ...}` does. */
class BenchmarkRun(private val report: File) {
    private val stopped = AtomicReference<String?>(null)

    /** Ends the benchmark at its next inference, for the reason [why]. From any thread. */
    fun interrupt(why: String) {
        stopped.compareAndSet(null, why)
    }

    /** Runs it on this thread. What [prepare] throws counts as what the benchmark throws. */
    fun run(prepare: () -> Pair<Phone, Job>): Outcome = try {
        report.delete() // an earlier one must not be taken for this one
        val (phone, job) = prepare()
        val made = benchmark(Stoppable(phone), job)
        check()
        write(Json.canonical(made))
        val latency = made["latency"] as? Map<*, *>
        val detail = (made["self_test"] as Map<*, *>)["detail"] as String?
        Outcome.Done(latency?.get("p50_ns") as Long?, latency?.get("runs") as Int? ?: 0, detail)
    } catch (error: UserError) {
        failed(error.message.orEmpty())
    } catch (error: IOException) {
        failed("the report cannot be written (${error.message})")
    } catch (error: OutOfMemoryError) {
        failed("there is not enough memory")
    }

    private fun failed(why: String): Outcome {
        try {
            write(Json.canonical(mapOf("error" to why)))
        } catch (_: IOException) {
            // the screen says it
        }
        return Outcome.Failed(why)
    }

    private fun check() {
        stopped.get()?.let { throw UserError(it) }
    }

    private fun write(text: String) {
        val part = File(report.path + ".part")
        part.writeText(text)
        if (!part.renameTo(report)) throw IOException("cannot rename ${part.name}")
    }

    private inner class Stoppable(private val phone: Phone) : Phone by phone {
        override fun load(threads: Int): Model {
            val model = phone.load(threads)
            return object : Model by model {
                override fun run(): FloatArray {
                    check()
                    return model.run()
                }
            }
        }
    }
}

private val THREADS = 1..64
private val SECONDS = 1..3600

/**
 * What `am start` asks for, checked.
 *
 * @property artifact a file in the app's folder on shared storage; null for the model inside the app.
 * @throws UserError a name with a folder in it, or numbers that cannot be.
 */
class Request(val artifact: String?, val threads: Int, val seconds: Int, val force: Boolean) {
    init {
        val named = artifact == null || (artifact.endsWith(".pte") && artifact.none { it == '/' || it.isISOControl() })
        if (!named) throw UserError("artifact must be the name of a .pte without a folder")
        if (threads !in THREADS) throw UserError("threads must be ${THREADS.first} to ${THREADS.last}, not $threads")
        if (seconds !in SECONDS) throw UserError("seconds must be ${SECONDS.first} to ${SECONDS.last}, not $seconds")
    }
}
