"""The camera: started and stopped, refused, taken away, and what each of its frames costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .conftest import launch

pytestmark = [pytest.mark.apps, pytest.mark.slow]


def worker_of(page: Any) -> Any:
    """That of the app; the runtime has some of its own, for its threads."""
    return next(worker for worker in page.workers if worker.url.endswith("/worker.js"))


def test_the_camera_can_be_stopped_and_started_at_any_moment(visit: Callable[..., Any]) -> None:
    page = visit()
    for _ in range(3):
        page.click("#start")
        page.click("#start")  # perhaps before the camera is open
        assert page.inner_text("#start") in ("Start camera", "Resume"), page.inner_text("#problem")
        page.click("#start")
        page.wait_for_selector("#answers .label, #problem:visible")
        page.click("#turn")
        page.wait_for_selector("#answers .label, #problem:visible")
        assert not page.is_visible("#problem"), page.inner_text("#problem")
        shown = page.locator("#answers .label").count()
        page.click("#start")
        assert page.inner_text("#start") == "Resume"
        assert (page.is_visible("#picture"), page.is_visible("#video")) == (True, False), "its last picture stays"
        assert page.locator("#answers .label").count() == shown
        assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_camera_that_is_not_permitted_then_permitted_then_taken_away(visit: Callable[..., Any]) -> None:
    page = visit(camera=False)
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("The camera is not permitted. Allow it")
    page.context.grant_permissions(["camera"])
    page.click("#start")
    page.wait_for_selector("#answers .label, #problem:visible")
    assert not page.is_visible("#problem"), page.inner_text("#problem")
    page.context.clear_permissions()
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("The camera was taken away.")
    assert not page.locator("#answers li").count()
    assert page.inner_text("#start") == "Try again"


def test_without_a_camera(playwright: Any, visit: Callable[..., Any]) -> None:
    browser = launch(playwright)
    page = visit(by=browser)
    page.click("#start")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("There is no camera here.")
    browser.close()


def test_a_frame_of_unexpected_format_stops_the_camera(visit: Callable[..., Any]) -> None:
    page = visit()
    worker = worker_of(page)
    page.click("#start")
    page.wait_for_selector("#answers .label")
    worker.evaluate("VideoFrame.prototype.copyTo = async () => [{ offset: 0, stride: 4096 }]")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem").startswith("Camera stopped: a frame of unexpected format: 640 x 480, ")
    assert not page.locator("#answers li").count()


def test_a_frame_allocates_no_large_buffer(visit: Callable[..., Any]) -> None:
    page = visit()
    worker = worker_of(page)
    page.click("#start")
    page.wait_for_selector("#answers .label")
    worker.evaluate("""() => {
        self.large = [];
        self.frames = 0;
        const post = self.postMessage;
        self.postMessage = (...given) => { self.frames += 1; return post.apply(self, given); };
        const kinds = ["Uint8Array", "Uint8ClampedArray", "Int32Array", "Uint32Array", "Float32Array", "Float64Array"];
        for (const name of ["ArrayBuffer", "SharedArrayBuffer", ...kinds]) {
            if (!self[name]) continue;
            self[name] = new Proxy(self[name], { construct(target, given) {
                const made = Reflect.construct(target, given);
                const view = given[0] instanceof Object && "byteLength" in given[0] && !ArrayBuffer.isView(given[0]);
                if (!view && made.byteLength > 16384) self.large.push(`${name} ${made.byteLength}`);
                return made;
            } });
        }
        for (const drawing of [OffscreenCanvas.prototype, OffscreenCanvasRenderingContext2D.prototype])
            for (const name of ["getContext", "getImageData"])
                if (drawing[name]) drawing[name] = () => self.large.push(name);
        return new Float32Array(8192).length;
    }""")
    page.wait_for_timeout(1000)
    for _ in range(300):
        counted, large = worker.evaluate("[self.frames, self.large]")
        if counted >= 30:
            break
        page.wait_for_timeout(100)
    assert counted >= 30
    assert large == ["Float32Array 32768"], "the one that shows that they are counted"
