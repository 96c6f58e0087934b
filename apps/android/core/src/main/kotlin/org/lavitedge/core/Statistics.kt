package org.lavitedge.core

/** Beyond so many runs a report has quantiles instead of every run. */
const val MOST_SAMPLES = 20_000

private const val MINUTE = 60_000_000_000L // ns

/** By nearest rank: value `ceil(q n)` of the n in [ordered], from 1; no interpolation, which languages do differently. */
fun quantile(ordered: LongArray, permille: Int): Long {
    val rank = (permille.toLong() * ordered.size + 999) / 1000
    return ordered[maxOf(rank, 1).toInt() - 1]
}

/** When each run began and how long it took, in nanoseconds. */
class Runs {
    private var starts = LongArray(1024)
    private var samples = LongArray(1024)

    var size = 0
        private set

    /** From the start of the first run to the end of the last. */
    val duration: Long get() = if (size == 0) 0 else starts[size - 1] + samples[size - 1] - starts[0]

    fun add(start: Long, sample: Long) {
        if (size == starts.size) {
            starts = starts.copyOf(2 * size)
            samples = samples.copyOf(2 * size)
        }
        starts[size] = start
        samples[size++] = sample
    }

    /** In order of size. */
    fun sorted(): LongArray = samples.copyOf(size).apply { sort() }

    /** The field `latency` of a report. There must be a run. */
    fun latency(): Map<String, Any?> {
        val ordered = sorted()
        val whole = duration / MINUTE
        val minutes = (0 until size).groupBy({ (starts[it] - starts[0]) / MINUTE }, { samples[it] }) // in the order of the runs
        val few = size <= MOST_SAMPLES
        return mapOf(
            "runs" to size,
            "duration_ns" to duration,
            "min_ns" to ordered.first(),
            "p50_ns" to quantile(ordered, 500),
            "p90_ns" to quantile(ordered, 900),
            "p99_ns" to quantile(ordered, 990),
            "max_ns" to ordered.last(),
            "samples_ns" to if (few) samples.take(size) else null,
            "quantiles_ns" to if (few) null else (0..1000).map { quantile(ordered, it) },
            "minutes_p50_ns" to minutes.filterKeys { it < whole }.values.map { quantile(it.sorted().toLongArray(), 500) },
        )
    }
}
