package org.lavitedge.app

import org.lavitedge.core.Answer
import kotlin.math.roundToInt

/** What the camera's screen shows. Only [Watching], [Paused] and [Photo] can show labels. */
sealed interface Screen {
    /** The artifact is being opened and tested. */
    data object Loading : Screen

    /** The artifact cannot be used. */
    data class Unusable(val why: String) : Screen

    data class SelfTestFailed(val why: String) : Screen

    data object NoPermission : Screen

    data object NoCamera : Screen

    /** The camera or its frames are at fault; a next frame ends it. */
    data class Trouble(val why: String) : Screen

    data class Watching(val sight: Sight?) : Screen

    data class Paused(val sight: Sight?) : Screen

    /** A picture that was picked, and what is in it, or why it cannot be told. */
    data class Photo(val sight: Sight?, val why: String?) : Screen
}

/**
 * What a frame or picture showed.
 *
 * @property answer null: not sure. [answers] are the most probable labels all the same; of frames both are averages.
 * @property preparing nanoseconds, and [running]. [framesPerSecond] of frames only; [hot] if they are fewer for it.
 */
class Sight(
    val answer: Answer?,
    val answers: List<Answer>,
    val preparing: Long,
    val running: Long,
    val framesPerSecond: Double? = null,
    val hot: Boolean = false,
)

/** What happens to the screen. */
sealed interface Event {
    /** The artifact is open; [failure] is its self-test's. */
    data class Opened(val failure: String?) : Event

    data class Refused(val why: String) : Event

    data class Permission(val granted: Boolean) : Event

    data class Cameras(val back: Boolean, val front: Boolean) : Event

    data class CameraFailed(val why: String) : Event

    /** [front] tells by which camera; a late frame of the other one is not shown. */
    data class FrameSeen(val sight: Sight, val front: Boolean) : Event

    data class FrameRefused(val why: String) : Event

    /** The pause button; in trouble, it tries again. */
    data object PauseOrResume : Event

    /** The button for the other camera. */
    data object Switch : Event

    data object PhotoPicked : Event

    data class PhotoSeen(val sight: Sight) : Event

    data class PhotoRefused(val why: String) : Event

    data object PhotoClosed : Event
}

/**
 * All that decides what the camera's screen shows, without Android; [after] gives the next state.
 *
 * @property front whether the front camera is the chosen one.
 */
data class CameraState(
    private val opened: Boolean = false,
    private val unusable: String? = null,
    private val failure: String? = null,
    private val permitted: Boolean? = null,
    private val cameras: Event.Cameras? = null,
    val front: Boolean = false,
    private val trouble: String? = null,
    private val down: Boolean = false,
    private val paused: Boolean = false,
    private val sight: Sight? = null,
    private val photo: Screen.Photo? = null,
) {
    val screen: Screen
        get() = when {
            unusable != null -> Screen.Unusable(unusable)
            failure != null -> Screen.SelfTestFailed(failure)
            !opened -> Screen.Loading
            photo != null -> photo
            permitted == false -> Screen.NoPermission
            cameras?.let { it.back || it.front } == false -> Screen.NoCamera
            trouble != null -> Screen.Trouble(trouble)
            paused -> Screen.Paused(sight)
            else -> Screen.Watching(sight)
        }

    /** Whether the camera is to run. One that failed waits for the button. */
    val watches: Boolean
        get() = permitted == true && cameras != null && !down && (screen is Screen.Watching || screen is Screen.Trouble)

    val canSwitch: Boolean get() = cameras?.let { it.back && it.front } == true

    /** A picture needs no camera. */
    val canPick: Boolean get() = opened && unusable == null && failure == null

    fun after(event: Event): CameraState = when (event) {
        is Event.Opened -> copy(opened = true, failure = event.failure)
        is Event.Refused -> copy(unusable = event.why)
        is Event.Permission -> copy(permitted = event.granted, trouble = null, down = false, sight = null)
        is Event.Cameras -> copy(cameras = event, front = if (event.back && event.front) front else event.front)
        is Event.CameraFailed -> if (watches) copy(trouble = event.why, down = true, sight = null) else this
        is Event.FrameRefused -> if (watches) copy(trouble = event.why, sight = null) else this
        is Event.FrameSeen -> if (watches && event.front == front) copy(trouble = null, sight = event.sight) else this
        Event.PauseOrResume -> if (trouble != null) copy(trouble = null, down = false) else copy(paused = !paused)
        Event.Switch -> if (canSwitch) copy(front = !front, trouble = null, down = false, sight = null, paused = false) else this
        Event.PhotoPicked -> copy(photo = Screen.Photo(null, null))
        is Event.PhotoSeen -> if (photo != null) copy(photo = Screen.Photo(event.sight, null)) else this
        is Event.PhotoRefused -> if (photo != null) copy(photo = Screen.Photo(null, event.why)) else this
        Event.PhotoClosed -> copy(photo = null, sight = null)
    }
}

/** Frames a second over the last [most] of them, from when they came in nanoseconds. */
class FrameRate(private val most: Int = 30) {
    private val times = ArrayDeque<Long>()

    /** Null until two frames have come. */
    fun add(time: Long): Double? {
        times.addLast(time)
        if (times.size > most) times.removeFirst()
        val passed = time - times.first()
        return if (passed > 0) (times.size - 1) * 1e9 / passed else null
    }

    fun restart() = times.clear()
}

/** A probability as people read it: a share of 99.97 % is not yet 100. */
fun percent(probability: Double): String {
    val tenths = (1000 * probability).roundToInt().coerceIn(if (probability > 0) 1 else 0, if (probability < 1) 999 else 1000)
    return "${tenths / 10}.${tenths % 10} %"
}

/** Nanoseconds as milliseconds with one decimal. */
fun milliseconds(nanoseconds: Long): String = ((nanoseconds + 50_000) / 100_000).let { "${it / 10}.${it % 10} ms" }
