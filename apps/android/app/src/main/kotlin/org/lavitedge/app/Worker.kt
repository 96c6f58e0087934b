package org.lavitedge.app

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ColorSpace
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraManager
import android.media.ExifInterface
import android.media.Image
import android.net.Uri
import android.os.Handler
import android.os.HandlerThread
import android.os.Looper
import android.os.PowerManager
import org.lavitedge.classifier.LavitClassifier
import org.lavitedge.classifier.Seen
import org.lavitedge.core.Answer
import org.lavitedge.core.Plane
import org.lavitedge.core.Steady
import org.lavitedge.core.UserError
import org.lavitedge.core.answers
import java.io.IOException

/** The model inside the app. */
const val ASSET = "model.pte"

private const val LEAST = 480 // pixels of a frame's short side, or the model's if it wants more
private const val ROWS = 3 // labels on the screen
private const val LARGEST = 2048 // pixels of a picture's long side: a phone's photograph would take 200 MB

/** The thread that has the model and the camera. Its methods are called, and [listener] is called back, on the main thread. */
internal class Worker(private val context: Context, private val listener: Listener) {
    interface Listener {
        fun on(event: Event)

        /** The picture that is being looked at, to be shown turned and mirrored. */
        fun onPhoto(bitmap: Bitmap?, rotation: Int, mirrored: Boolean)
    }

    /** The screen's rotation in degrees. */
    @Volatile
    var display = 0

    @Volatile
    private var lenses = emptyList<Lens>()

    private val main = Handler(Looper.getMainLooper())
    private val thread = HandlerThread("model").apply { start() }
    private val handler = Handler(thread.looper)
    private val manager = context.getSystemService(CameraManager::class.java)
    private val rate = FrameRate()
    private val pace = Pace()
    private val heat = Heat(context.getSystemService(PowerManager::class.java)).apply { follow { pace.hot = it } }
    private val camera = Camera(manager, handler, Frames())
    private var classifier: LavitClassifier? = null
    private var steady = Steady(0.0)

    /** What the model knows; empty until it is open. */
    @Volatile
    var labels = emptyList<String>()
        private set

    fun lens(front: Boolean): Lens? = lenses.find { it.front == front }

    /** Opens the model, then looks for cameras. */
    fun open() = post {
        try {
            val opened = LavitClassifier.open(context, ASSET)
            classifier = opened
            steady = Steady(opened.payload.contract.threshold)
            labels = opened.payload.contract.labels
            tell(Event.Opened(opened.selfTest.failure))
            lenses = lenses(manager, maxOf(LEAST, opened.payload.contract.size))
            tell(Event.Cameras(back = lens(false) != null, front = lens(true) != null))
        } catch (error: UserError) {
            tell(Event.Refused(error.message.orEmpty()))
        } catch (_: OutOfMemoryError) {
            tell(Event.Refused(context.getString(R.string.no_memory)))
        } catch (_: CameraAccessException) {
            tell(Event.Cameras(back = false, front = false))
        } catch (_: IllegalArgumentException) { // of a camera that vanished meanwhile
            tell(Event.Cameras(back = false, front = false))
        }
    }

    fun film(front: Boolean, texture: SurfaceTexture) = post {
        rate.restart()
        steady.reset()
        lens(front)?.let { camera.start(it, texture) }
    }

    fun torch(on: Boolean) = post { camera.torch(on) }

    fun stop() = post(camera::stop)

    fun close() {
        heat.close()
        post {
            camera.stop()
            classifier?.close()
            classifier = null
        }
        thread.quitSafely()
    }

    /** Decodes and classifies a picture of another app; nothing if the model cannot be used, which the screen says. */
    fun look(uri: Uri) = post {
        val model = classifier ?: return@post
        try {
            val (rotation, mirrored) = exifTurn(orientation(uri))
            val bitmap = decode(uri) ?: throw UserError(context.getString(R.string.photo_unreadable))
            main.post { listener.onPhoto(bitmap, rotation, mirrored) }
            val seen = model.classify(bitmap, rotation, mirrored, ROWS)
            tell(Event.PhotoSeen(Sight(seen.answer, seen.answers, seen.preparing, seen.running)))
        } catch (error: UserError) {
            tell(Event.PhotoRefused(error.message.orEmpty()))
        } catch (_: IOException) {
            tell(Event.PhotoRefused(context.getString(R.string.photo_unreadable)))
        } catch (_: SecurityException) { // the other app gives it no more
            tell(Event.PhotoRefused(context.getString(R.string.photo_unreadable)))
        } catch (_: OutOfMemoryError) {
            tell(Event.PhotoRefused(context.getString(R.string.no_memory)))
        }
    }

    private fun decode(uri: Uri): Bitmap? {
        val options = BitmapFactory.Options()
        options.inJustDecodeBounds = true
        context.contentResolver.openInputStream(uri)?.use { BitmapFactory.decodeStream(it, null, options) }
        options.inJustDecodeBounds = false
        options.inSampleSize = sampleSize(options.outWidth, options.outHeight, LARGEST)
        // of a wide-gamut photo, such as Display P3, the decoder keeps the colours as they are in the file unless it is asked
        options.inPreferredColorSpace = ColorSpace.get(ColorSpace.Named.SRGB)
        return context.contentResolver.openInputStream(uri)?.use { BitmapFactory.decodeStream(it, null, options) }
    }

    private fun orientation(uri: Uri): Int = context.contentResolver.openInputStream(uri)?.use {
        ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL)
    } ?: ExifInterface.ORIENTATION_NORMAL

    private fun tell(event: Event) {
        main.post { listener.on(event) }
    }

    private fun post(work: () -> Unit) {
        handler.post(work)
    }

    private inner class Frames : Camera.Listener {
        override fun onFrame(image: Image, lens: Lens) {
            val model = classifier ?: return
            val begin = System.nanoTime()
            if (!pace.begin(begin)) return
            try {
                val planes = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
                val rotation = frameRotation(lens.sensor, display, lens.front)
                val frame = cameraFrame(image.format, image.width, image.height, planes, rotation)
                tell(Event.FrameSeen(sight(model.classify(frame), begin), lens.front))
            } catch (error: UserError) {
                tell(Event.FrameRefused(error.message.orEmpty()))
            } catch (_: OutOfMemoryError) {
                tell(Event.FrameRefused(context.getString(R.string.no_memory)))
            }
            pace.end(System.nanoTime())
        }

        private fun sight(seen: Seen, begin: Long): Sight {
            val shown = steady.add(begin / 1e9, seen.probabilities)
            val average = steady.average ?: seen.probabilities
            val answer = shown?.let { Answer(it, labels[it], average[it]) }
            val rows = answers(average, labels, ROWS)
            return Sight(answer, rows, seen.preparing, seen.running, rate.add(System.nanoTime()), pace.hot)
        }

        override fun onFailure(text: Int) = tell(Event.CameraFailed(context.getString(text)))

        override fun onDenied() = tell(Event.Permission(false))
    }
}
