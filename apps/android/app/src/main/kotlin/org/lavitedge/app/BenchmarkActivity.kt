package org.lavitedge.app

import android.app.Activity
import android.os.Bundle
import android.os.Process
import android.view.View
import android.view.WindowManager
import android.widget.TextView
import org.lavitedge.classifier.Artifact
import org.lavitedge.core.Job
import java.io.File
import kotlin.concurrent.thread

private const val SECONDS = 10

/**
 * One benchmark, in a process of its own, which ends with the screen, so that the next one loads the model anew.
 *
 * `am start -n org.lavitedge.app/.BenchmarkActivity --es artifact NAME --ei threads N --ei seconds S --ez force true` measures NAME
 * in the app's folder on shared storage; without NAME, the model inside the app. The report is `report.json` there
 * (lavit_edge/benchmark/adb_app.py fetches it).
 */
class BenchmarkActivity : Activity() {
    private var run: BenchmarkRun? = null

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.benchmark)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val folder = getExternalFilesDir(null)
        if (folder == null) show(getString(R.string.benchmark_no_storage)) else start(folder)
    }

    override fun onPause() {
        super.onPause()
        run?.interrupt(getString(R.string.benchmark_interrupted))
    }

    override fun onDestroy() {
        super.onDestroy()
        if (isFinishing) Process.killProcess(Process.myPid())
    }

    private fun start(folder: File) {
        val work = BenchmarkRun(File(folder, "report.json"))
        run = work
        val named = intent.getStringExtra("artifact")
        val threads = intent.getIntExtra("threads", 1)
        val seconds = intent.getIntExtra("seconds", SECONDS)
        val force = intent.getBooleanExtra("force", false)
        (findViewById(R.id.outcome) as TextView).text = getString(R.string.benchmark_running, named ?: ASSET, threads, seconds)
        thread(name = "benchmark") {
            val outcome = work.run {
                val request = Request(named, threads, seconds, force)
                val artifact = request.artifact?.let { Artifact.of(File(folder, it)) } ?: Artifact.ofAsset(this, ASSET)
                val build = if (BuildConfig.DEBUG) "debug" else "release"
                val job = Job(artifact.name, artifact.bytes, BuildConfig.VERSION_NAME, build, threads, seconds.toDouble(), force)
                AndroidPhone(this, artifact.file, artifact.name) to job
            }
            runOnUiThread { show(words(outcome, File(folder, "report.json").path)) }
        }
    }

    private fun words(outcome: Outcome, report: String): String = when (outcome) {
        is Outcome.Failed -> getString(R.string.benchmark_failed, outcome.why)

        is Outcome.Done -> outcome.median?.let {
            getString(R.string.benchmark_done, milliseconds(it), outcome.runs, report)
        } ?: getString(R.string.benchmark_untested, outcome.detail, report)
    }

    private fun show(text: String) {
        (findViewById(R.id.outcome) as TextView).text = text
        val working: View = findViewById(R.id.working)
        working.visibility = View.GONE
    }
}
