package org.lavitedge.app

import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.view.Surface

/** One of the phone's cameras. [size] is that of its frames, as the sensor gives them, and [sensor] how it lies, in degrees. */
internal class Lens(val id: String, val front: Boolean, val sensor: Int, val torch: Boolean, val size: Pair<Int, Int>)

/** The first back and the first front camera, with frames whose short side has [least] pixels if there are such. */
internal fun lenses(manager: CameraManager, least: Int): List<Lens> {
    val found = manager.cameraIdList.mapNotNull { id ->
        val facts = manager.getCameraCharacteristics(id)
        val sizes = facts[CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP]?.getOutputSizes(ImageFormat.YUV_420_888)
        val size = frameSize(sizes.orEmpty().map { it.width to it.height }, least) ?: return@mapNotNull null // a depth camera
        val front = facts[CameraCharacteristics.LENS_FACING] == CameraCharacteristics.LENS_FACING_FRONT
        val torch = facts[CameraCharacteristics.FLASH_INFO_AVAILABLE] == true
        Lens(id, front, facts[CameraCharacteristics.SENSOR_ORIENTATION] ?: 0, torch, size)
    }
    return found.distinctBy { it.front }
}

/** A running camera: preview to a texture, frames to [listener]. All of it happens on [worker]'s thread, calls included. */
internal class Camera(private val manager: CameraManager, private val worker: Handler, private val listener: Listener) {
    interface Listener {
        /** A frame; it is closed behind this call, and those that come meanwhile are dropped. */
        fun onFrame(image: Image, lens: Lens)

        /** The camera has stopped; [text] is a string of the app. */
        fun onFailure(text: Int)

        /** Android refuses the camera to the app. */
        fun onDenied()
    }

    private var lens: Lens? = null // of the camera that is wanted
    private var device: CameraDevice? = null
    private var session: CameraCaptureSession? = null
    private var request: CaptureRequest.Builder? = null
    private var reader: ImageReader? = null
    private var surface: Surface? = null

    fun start(wanted: Lens, texture: SurfaceTexture) {
        stop()
        lens = wanted
        guarded {
            val (width, height) = wanted.size
            texture.setDefaultBufferSize(width, height)
            surface = Surface(texture)
            reader = ImageReader.newInstance(width, height, ImageFormat.YUV_420_888, 2).also {
                it.setOnImageAvailableListener(::onImage, worker)
            }
            manager.openCamera(wanted.id, Opened(wanted), worker)
        }
    }

    fun torch(on: Boolean) {
        val builder = request ?: return
        builder.set(CaptureRequest.FLASH_MODE, if (on) CaptureRequest.FLASH_MODE_TORCH else CaptureRequest.FLASH_MODE_OFF)
        guarded { session?.setRepeatingRequest(builder.build(), null, worker) }
    }

    fun stop() {
        lens = null
        request = null
        session = null // it ends with its device
        device?.close()
        device = null
        reader?.close()
        reader = null
        surface?.release()
        surface = null
    }

    private fun onImage(from: ImageReader) {
        val seen = lens ?: return
        val image = try {
            from.acquireLatestImage() ?: return
        } catch (_: IllegalStateException) { // closed meanwhile
            return
        }
        image.use { listener.onFrame(it, seen) }
    }

    private fun fail(text: Int) {
        stop()
        listener.onFailure(text)
    }

    /** Whatever Android throws here ends this camera, not the app: it may vanish between any two calls. */
    private fun guarded(work: () -> Unit) = try {
        work()
    } catch (_: SecurityException) {
        stop()
        listener.onDenied()
    } catch (error: CameraAccessException) {
        fail(if (error.reason == CameraAccessException.CAMERA_DISABLED) R.string.camera_disabled else R.string.camera_failed)
    } catch (_: IllegalStateException) {
        fail(R.string.camera_failed)
    } catch (_: IllegalArgumentException) {
        fail(R.string.camera_failed)
    }

    private inner class Opened(private val mine: Lens) : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            if (lens !== mine) return camera.close() // it took too long
            device = camera
            guarded {
                val targets = listOf(checkNotNull(surface), checkNotNull(reader).surface)
                val builder = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                targets.forEach(builder::addTarget)
                request = builder
                camera.createCaptureSession(targets, Configured(mine), worker)
            }
        }

        override fun onDisconnected(camera: CameraDevice) {
            camera.close()
            if (lens === mine) fail(R.string.camera_in_use)
        }

        override fun onError(camera: CameraDevice, error: Int) {
            camera.close()
            val text = when (error) {
                ERROR_CAMERA_IN_USE, ERROR_MAX_CAMERAS_IN_USE -> R.string.camera_in_use
                ERROR_CAMERA_DISABLED -> R.string.camera_disabled
                else -> R.string.camera_failed
            }
            if (lens === mine) fail(text)
        }
    }

    private inner class Configured(private val mine: Lens) : CameraCaptureSession.StateCallback() {
        override fun onConfigured(configured: CameraCaptureSession) {
            if (lens !== mine) return
            session = configured
            guarded { configured.setRepeatingRequest(checkNotNull(request).build(), null, worker) }
        }

        override fun onConfigureFailed(configured: CameraCaptureSession) {
            if (lens === mine) fail(R.string.camera_failed)
        }
    }
}
