package org.lavitedge.app

import android.Manifest
import android.app.Activity
import android.app.AlertDialog
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.graphics.Color
import android.graphics.Matrix
import android.graphics.SurfaceTexture
import android.hardware.display.DisplayManager
import android.net.Uri
import android.os.Bundle
import android.provider.Settings
import android.view.TextureView
import android.view.View
import android.view.WindowManager
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import android.widget.ToggleButton

private const val PERMISSION = 1
private const val PHOTO = 2
private const val FAINT = 0.5f // of labels that the model is not sure of

/** The camera's picture with what the model sees in it. It shows what [CameraState] says; [Worker] has the camera and the model. */
class MainActivity :
    Activity(),
    Worker.Listener,
    DisplayManager.DisplayListener,
    TextureView.SurfaceTextureListener {
    private lateinit var worker: Worker
    private lateinit var preview: TextureView
    private lateinit var picture: ImageView
    private lateinit var message: TextView
    private lateinit var answer: TextView
    private lateinit var answers: TextView
    private lateinit var figures: TextView
    private lateinit var pause: Button
    private lateinit var flip: Button
    private lateinit var torch: ToggleButton
    private lateinit var photo: Button
    private lateinit var labels: Button

    private var state = CameraState()
    private var picked: Uri? = null // the picture on the screen
    private var resumed = false
    private var asked = false
    private var filming: Boolean? = null // by the front camera or not; null while the camera does not run

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        asked = saved?.getBoolean("asked") ?: false
        state = CameraState(front = saved?.getBoolean("front") ?: false)
        setContentView(R.layout.main)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        preview = findViewById(R.id.preview) as TextureView
        picture = findViewById(R.id.picture) as ImageView
        message = findViewById(R.id.message) as TextView
        answer = findViewById(R.id.answer) as TextView
        answers = findViewById(R.id.answers) as TextView
        figures = findViewById(R.id.figures) as TextView
        pause = findViewById(R.id.pause) as Button
        flip = findViewById(R.id.flip) as Button
        torch = findViewById(R.id.torch) as ToggleButton
        photo = findViewById(R.id.photo) as Button
        labels = findViewById(R.id.labels) as Button
        preview.surfaceTextureListener = this
        preview.addOnLayoutChangeListener { _, _, _, _, _, _, _, _, _ -> fit() }
        pause.setOnClickListener { onPauseButton() }
        flip.setOnClickListener { on(Event.Switch) }
        torch.setOnClickListener { worker.torch(torch.isChecked) }
        photo.setOnClickListener { pick() }
        labels.setOnClickListener { showLabels() }
        val benchmark: View = findViewById(R.id.benchmark) // its type is told, since newer Androids infer it
        benchmark.setOnClickListener { startActivity(Intent(this, BenchmarkActivity::class.java)) }
        // a turn from one side to the other changes no layout
        getSystemService(DisplayManager::class.java).registerDisplayListener(this, null)
        worker = Worker(this, this)
        worker.open()
        @Suppress("DEPRECATION") // what took its place came with Android 13
        val before = saved?.getParcelable<Uri>("picked")
        before?.let(::look)
        render()
    }

    override fun onSaveInstanceState(out: Bundle) {
        super.onSaveInstanceState(out)
        out.putBoolean("asked", asked)
        out.putBoolean("front", state.front)
        out.putParcelable("picked", picked)
    }

    override fun onResume() {
        super.onResume()
        resumed = true
        if (permitted()) {
            on(Event.Permission(true))
        } else if (asked) {
            on(Event.Permission(false))
        } else {
            asked = true
            requestPermissions(arrayOf(Manifest.permission.CAMERA), PERMISSION)
        }
    }

    override fun onPause() {
        super.onPause()
        resumed = false
        film()
    }

    override fun onDestroy() {
        super.onDestroy()
        getSystemService(DisplayManager::class.java).unregisterDisplayListener(this)
        worker.close()
    }

    override fun onRequestPermissionsResult(code: Int, permissions: Array<String>, results: IntArray) =
        on(Event.Permission(permitted()))

    override fun onActivityResult(code: Int, result: Int, data: Intent?) {
        val uri = data?.data
        if (code != PHOTO || result != RESULT_OK || uri == null) return
        try { // so that it can be read when this screen is made anew
            contentResolver.takePersistableUriPermission(uri, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        } catch (_: SecurityException) { // the other app gives it for now only
        }
        look(uri)
    }

    private fun look(uri: Uri) {
        picked = uri
        on(Event.PhotoPicked)
        worker.look(uri) // when the model is open
    }

    /** From the worker, on this thread: what has happened. */
    override fun on(event: Event) {
        state = state.after(event)
        film()
        render()
    }

    override fun onPhoto(bitmap: Bitmap?, rotation: Int, mirrored: Boolean) {
        picture.setImageBitmap(bitmap)
        picture.setBackgroundColor(if (bitmap?.hasAlpha() == true) Color.WHITE else Color.BLACK) // as the model sees it
        picture.rotation = rotation.toFloat()
        picture.scaleX = if (mirrored) -1f else 1f
    }

    private fun permitted() = checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    private fun onPauseButton() = when {
        state.screen is Screen.Photo -> {
            picked = null
            on(Event.PhotoClosed)
        }

        state.screen !is Screen.NoPermission -> on(Event.PauseOrResume)

        shouldShowRequestPermissionRationale(Manifest.permission.CAMERA) ->
            requestPermissions(arrayOf(Manifest.permission.CAMERA), PERMISSION)

        // refused for good: Android does not ask any more
        else -> startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
    }

    private fun pick() = try {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        startActivityForResult(intent, PHOTO)
    } catch (_: ActivityNotFoundException) {
        on(Event.PhotoPicked)
        on(Event.PhotoRefused(getString(R.string.no_picker)))
    }

    private fun showLabels() {
        AlertDialog.Builder(this).setTitle(R.string.labels_title).setItems(worker.labels.toTypedArray(), null).show()
    }

    /** Starts, changes or stops the camera as the state wants it. */
    private fun film() {
        val texture = preview.surfaceTexture
        val wanted = state.front.takeIf { resumed && state.watches && preview.isAvailable }
        if (wanted == filming) return
        filming = wanted
        torch.isChecked = false
        if (wanted == null || texture == null) worker.stop() else worker.film(wanted, texture)
        fit()
    }

    private fun fit() {
        val rotation = 90 * windowManager.defaultDisplay.rotation
        worker.display = rotation
        val lens = worker.lens(state.front) ?: return
        if (preview.width == 0 || preview.height == 0) return
        val fit = previewFit(lens.size, lens.sensor, rotation, preview.width to preview.height)
        val matrix = Matrix()
        val x = preview.width / 2f
        val y = preview.height / 2f
        matrix.postScale(fit.scaleX, fit.scaleY, x, y)
        matrix.postRotate(fit.degrees, x, y)
        matrix.postScale(fit.scale, fit.scale, x, y)
        preview.setTransform(matrix)
    }

    private fun render() {
        val screen = state.screen
        val text = when (screen) {
            Screen.Loading -> getString(R.string.loading)
            is Screen.Unusable -> getString(R.string.unusable, screen.why)
            is Screen.SelfTestFailed -> getString(R.string.self_test_failed, screen.why)
            Screen.NoPermission -> getString(R.string.no_permission)
            Screen.NoCamera -> getString(R.string.no_camera)
            is Screen.Trouble -> screen.why
            is Screen.Photo -> screen.why ?: if (screen.sight == null) getString(R.string.looking) else ""
            is Screen.Watching, is Screen.Paused -> ""
        }
        if (message.text.toString() != text) message.text = text // as it is a live region, it is read aloud
        message.visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
        picture.visibility = if (screen is Screen.Photo) View.VISIBLE else View.GONE
        val label = when (screen) {
            Screen.NoPermission -> R.string.allow
            is Screen.Trouble -> R.string.retry
            is Screen.Photo -> R.string.resume
            is Screen.Paused -> R.string.resume
            else -> R.string.pause
        }
        pause.setText(label)
        pause.isEnabled = state.canPick && screen != Screen.NoCamera
        flip.isEnabled = state.canSwitch && state.canPick && screen !is Screen.Photo
        torch.isEnabled = screen is Screen.Watching && worker.lens(state.front)?.torch == true
        photo.isEnabled = state.canPick
        labels.isEnabled = worker.labels.isNotEmpty()
        show(
            when (screen) {
                is Screen.Watching -> screen.sight
                is Screen.Paused -> screen.sight
                is Screen.Photo -> screen.sight
                else -> null
            },
        )
    }

    private fun show(sight: Sight?) {
        val best = if (sight == null) "" else sight.answer?.label ?: getString(R.string.not_sure)
        if (answer.text.toString() != best) answer.text = best // it is read aloud
        answers.text = sight?.answers?.joinToString("\n") { "${percent(it.probability)}  ${it.label}" }.orEmpty()
        answers.alpha = if (sight?.answer == null) FAINT else 1f
        figures.text = sight?.let {
            val ran = milliseconds(it.running)
            val prepared = milliseconds(it.preparing)
            val rate = it.framesPerSecond
            when {
                rate == null -> getString(R.string.figures, ran, prepared)
                it.hot -> getString(R.string.figures_hot, ran, prepared, rate)
                else -> getString(R.string.figures_camera, ran, prepared, rate)
            }
        }.orEmpty()
    }

    override fun onDisplayChanged(display: Int) = fit()

    override fun onDisplayAdded(display: Int) = Unit

    override fun onDisplayRemoved(display: Int) = Unit

    override fun onSurfaceTextureAvailable(texture: SurfaceTexture, width: Int, height: Int) = film()

    override fun onSurfaceTextureSizeChanged(texture: SurfaceTexture, width: Int, height: Int) = fit()

    override fun onSurfaceTextureUpdated(texture: SurfaceTexture) = Unit

    override fun onSurfaceTextureDestroyed(texture: SurfaceTexture): Boolean {
        filming = null
        worker.stop()
        return true
    }
}
