package org.lavitedge.app

import org.junit.Test
import org.lavitedge.core.Answer
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertIs
import kotlin.test.assertNull
import kotlin.test.assertSame
import kotlin.test.assertTrue

class CameraStateTest {
    private val sight = listOf(Answer(0, "tench", 0.9)).let { Sight(it.first(), it, 1, 2, 30.0) }
    private val seen = Event.FrameSeen(sight, front = false)
    private val ready = listOf(Event.Opened(null), Event.Cameras(back = true, front = true), Event.Permission(true))

    private fun after(vararg events: Event) = events.fold(CameraState()) { state, event -> state.after(event) }

    private fun afterReady(vararg events: Event) = after(*ready.toTypedArray(), *events)

    @Test
    fun fromLoadingToLabels() {
        assertEquals(Screen.Loading, CameraState().screen)
        assertFalse(CameraState().watches)
        for (order in listOf(ready, ready.reversed())) {
            val state = after(*order.toTypedArray())
            assertEquals(Screen.Watching(null), state.screen)
            assertTrue(state.watches)
        }
        assertSame(sight, (afterReady(seen).screen as Screen.Watching).sight)
    }

    @Test
    fun anArtifactThatCannotBeUsedEndsAllElse() {
        for (refused in listOf(Event.Refused("model.pte is damaged"), Event.Opened("logits: 99 steps off"))) {
            var state = after(refused, Event.Cameras(back = true, front = true))
            for (event in listOf(Event.Permission(true), seen, Event.PauseOrResume, Event.Switch, Event.PhotoPicked)) {
                state = state.after(event)
                assertTrue(state.screen is Screen.Unusable || state.screen is Screen.SelfTestFailed, "$event: ${state.screen}")
                assertFalse(state.watches || state.canPick)
            }
        }
        assertEquals(Screen.SelfTestFailed("logits: 99 steps off"), after(Event.Opened("logits: 99 steps off")).screen)
        assertEquals(Screen.Unusable("no"), after(Event.Refused("no")).screen)
    }

    @Test
    fun permissionDeniedAndTakenAway() {
        val denied = after(Event.Opened(null), Event.Cameras(back = true, front = false), Event.Permission(false))
        assertEquals(Screen.NoPermission, denied.screen)
        assertFalse(denied.watches)
        assertEquals(Screen.Watching(null), denied.after(Event.Permission(true)).screen)
        val taken = afterReady(seen, Event.Permission(false), seen)
        assertEquals(Screen.NoPermission, taken.screen)
        assertEquals(Screen.Watching(null), taken.after(Event.Permission(true)).screen) // no label of before
        assertTrue(denied.canPick)
    }

    @Test
    fun noCamera() {
        val none = after(Event.Opened(null), Event.Cameras(back = false, front = false), Event.Permission(true))
        assertEquals(Screen.NoCamera, none.screen)
        assertFalse(none.watches)
        val photo = none.after(Event.PhotoPicked).after(Event.PhotoSeen(sight))
        assertEquals(Screen.Photo(sight, null), photo.screen)
        assertEquals(Screen.NoCamera, photo.after(Event.PhotoClosed).screen)
    }

    @Test
    fun onlyAFrontCamera() {
        val state = after(Event.Opened(null), Event.Cameras(back = false, front = true), Event.Permission(true))
        assertTrue(state.front && state.watches && !state.canSwitch)
        assertTrue(state.after(Event.Switch).front)
    }

    @Test
    fun aFrameThatCannotBeUsedTakesTheLabelsAwayUntilTheNextOne() {
        val refused = afterReady(seen, Event.FrameRefused("frame: too short"))
        assertEquals(Screen.Trouble("frame: too short"), refused.screen)
        assertTrue(refused.watches) // the camera goes on
        assertSame(sight, (refused.after(seen).screen as Screen.Watching).sight)
        assertEquals(Screen.Watching(null), refused.after(Event.PauseOrResume).screen)
    }

    @Test
    fun aCameraThatFailsWaitsForTheButton() {
        val failed = afterReady(seen, Event.CameraFailed("taken"))
        assertEquals(Screen.Trouble("taken"), failed.screen)
        assertFalse(failed.watches)
        assertEquals(Screen.Trouble("taken"), failed.after(seen).screen) // a late frame
        assertTrue(failed.after(Event.PauseOrResume).watches)
        assertTrue(failed.after(Event.Permission(true)).watches) // the app comes back to the front
        assertEquals(Screen.Watching(null), failed.after(Event.PauseOrResume).screen)
    }

    @Test
    fun pause() {
        val paused = afterReady(seen, Event.PauseOrResume)
        assertEquals(Screen.Paused(sight), paused.screen)
        assertFalse(paused.watches)
        val late = Event.FrameSeen(Sight(null, sight.answers, 1, 2), front = false)
        assertSame(sight, (paused.after(late).screen as Screen.Paused).sight)
        assertEquals(Screen.Paused(sight), paused.after(Event.CameraFailed("late")).screen)
        assertTrue(paused.after(Event.PauseOrResume).watches)
    }

    @Test
    fun theOtherCamerasLateFrameIsNotShown() {
        val switched = afterReady(seen, Event.Switch)
        assertTrue(switched.front)
        assertEquals(Screen.Watching(null), switched.screen)
        assertNull((switched.after(seen).screen as Screen.Watching).sight)
        assertSame(sight, (switched.after(Event.FrameSeen(sight, front = true)).screen as Screen.Watching).sight)
    }

    @Test
    fun aPictureThatWasPicked() {
        val picked = afterReady(seen, Event.PhotoPicked)
        assertEquals(Screen.Photo(null, null), picked.screen)
        assertFalse(picked.watches)
        assertEquals(Screen.Photo(null, null), picked.after(seen).screen)
        assertEquals(Screen.Photo(null, "no picture"), picked.after(Event.PhotoRefused("no picture")).screen)
        assertEquals(Screen.Watching(null), picked.after(Event.PhotoSeen(sight)).after(Event.PhotoClosed).screen)
        assertIs<Screen.Watching>(afterReady(Event.PhotoSeen(sight)).screen) // it was closed meanwhile
    }

    @Test
    fun aPictureThatWasPickedBeforeTheModelIsOpen() { // the screen was made anew
        val early = after(Event.PhotoPicked)
        assertEquals(Screen.Loading, early.screen)
        assertEquals(Screen.Photo(null, null), early.after(Event.Opened(null)).screen)
        assertEquals(Screen.Photo(sight, null), early.after(Event.Opened(null)).after(Event.PhotoSeen(sight)).screen)
        assertIs<Screen.Unusable>(early.after(Event.Refused("damaged")).screen)
        assertIs<Screen.SelfTestFailed>(
            early.after(Event.Opened("off")).after(Event.PhotoRefused("it fails its self-test")).screen,
        )
    }

    @Test
    fun aHotPhoneLooksAtHalfAsManyFrames() {
        for (work in listOf(5L, 20L, 100L, 400L)) {
            val (cool, hot) = listOf(false, true).map { looked(Pace().apply { this.hot = it }, work) }
            assertEquals(0.5, hot.toDouble() / cool, 0.06, "$work ms: $hot of $cool")
        }
    }

    /** Frames looked at in a minute, of a camera with 30 a second whose waiting frames make way for newer ones. */
    private fun looked(pace: Pace, work: Long): Int {
        val frames = (0 until 1800).map { it * 1_000_000_000L / 30 }
        var free = 0L
        var count = 0
        for ((index, frame) in frames.withIndex()) {
            val now = maxOf(frame, free)
            if (index + 1 < frames.size && frames[index + 1] <= now) continue // a newer one is there
            if (!pace.begin(now)) continue
            count++
            free = now + work * 1_000_000
            pace.end(free)
        }
        return count
    }

    @Test
    fun noScreenButThreeHasLabels() {
        val all = ready + listOf(
            seen, Event.Permission(false), Event.CameraFailed("x"), Event.FrameRefused("x"), Event.PauseOrResume, Event.Switch,
            Event.PhotoPicked, Event.PhotoSeen(sight), Event.PhotoRefused("x"), Event.PhotoClosed, Event.Opened("failed"),
        )
        val random = kotlin.random.Random(0)
        var state = CameraState()
        var failed = false
        repeat(20_000) {
            val event = all[random.nextInt(all.size)]
            failed = failed || event == Event.Opened("failed")
            state = state.after(event)
            val shown = when (val screen = state.screen) {
                is Screen.Watching -> screen.sight
                is Screen.Paused -> screen.sight
                is Screen.Photo -> screen.sight
                else -> null
            }
            if (state.screen is Screen.SelfTestFailed) assertFalse(state.watches)
            assertTrue(shown == null || state.canPick)
            if (it % 50 == 0) state = CameraState()
        }
        assertTrue(failed)
    }

    @Test
    fun framesASecond() {
        val rate = FrameRate(5)
        assertNull(rate.add(0))
        assertEquals(10.0, rate.add(100_000_000)!!, 1e-9)
        for (frame in 2..20) rate.add(100_000_000L * frame)
        for (frame in 1..4) rate.add(2_000_000_000L + 50_000_000L * frame)
        assertEquals(20.0, rate.add(2_250_000_000)!!, 1e-9) // only the last five count
        rate.restart()
        assertNull(rate.add(9_000_000_000))
    }

    @Test
    fun wordsForPeople() {
        val expected = mapOf(0.0 to "0.0 %", 1.0 to "100.0 %", 0.9999 to "99.9 %", 0.00001 to "0.1 %", 0.4567 to "45.7 %")
        for ((probability, text) in expected) assertEquals(text, percent(probability))
        assertEquals("12.3 ms", milliseconds(12_345_678))
        assertEquals("0.0 ms", milliseconds(9))
    }
}
