"""How the app looks on small and large screens, with large text, in light and dark, and what a screen reader is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import read_entries

from .conftest import CAMERA, launch
from .test_answers import PICTURES

pytestmark = [pytest.mark.apps, pytest.mark.slow]
LOOK = (Path(__file__).parent / "look.js").read_text("utf-8")
PHONE, NARROW, LANDSCAPE, DESKTOP = (390, 844), (320, 568), (740, 360), (1280, 800)


@pytest.fixture(scope="module")
def unsure(tiny_onnx: Path, resealed_onnx: Callable[..., Path]) -> bytes:
    """A model that is never sure."""
    contract = read_payload(read_entries(tiny_onnx)).contract.to_dict()
    never = {**contract, "format": "lavit_edge.contract/2", "temperature": 1.5, "threshold": 0.999}
    return resealed_onnx(contract=json.dumps(never)).read_bytes()


def look(page: Any, state: str, *wanted: str, sizes: tuple[tuple[int, int], ...]) -> None:
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.evaluate("scrollTo(0, 0)")
            assert page.evaluate(LOOK, [*wanted]) == [], f"{state}, {width} x {height}, {scheme}"


@pytest.mark.parametrize("text", [16, 32], ids=["text", "text of 200 %"])
def test_all_is_legible_and_in_reach_on_each_screen(
    text: int, playwright: Any, visit: Callable[..., Any], tiny_onnx: Path, unsure: bytes
) -> None:
    sizes = (PHONE, NARROW, LANDSCAPE, DESKTOP) if text == 16 else (PHONE, (844, 390), DESKTOP)
    browser = launch(playwright, CAMERA, f"--blink-settings=defaultFontSize={text}")
    page = visit(by=browser, model=unsure if text == 32 else tiny_onnx.read_bytes())
    for summary in page.locator("summary").all():
        summary.click()
    look(page, "ready", "#start", sizes=sizes)
    page.click("#start")
    page.wait_for_selector("#answers .label")
    look(page, "live", "#start", "#unsure strong" if text == 32 else "#answers .label", sizes=sizes)
    page.click("#start")
    page.wait_for_selector("#picture:visible")
    look(page, "paused", "#start", sizes=sizes)
    page.set_input_files("#file", PICTURES[0])
    page.wait_for_selector("#said:visible")
    look(page, "photo", "#start", "#unsure strong" if text == 32 else "#answers .label", sizes=sizes)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "image/png", "buffer": b"no picture"})
    page.wait_for_selector("#problem:visible")
    look(page, "error", "#problem", sizes=sizes)
    page.select_option("#seconds", "1")
    page.click("#measure")
    page.wait_for_selector("#progress:visible")
    look(page, "measuring", "#start", sizes=sizes[:1])
    page.wait_for_selector("#report:visible")
    page.wait_for_selector("#start:enabled")
    look(page, "measured", "#start", sizes=sizes)
    browser.close()


def test_a_model_that_is_not_sure_says_so_and_what_it_knows(visit: Callable[..., Any], unsure: bytes, tiny_onnx: Path) -> None:
    page = visit(model=unsure)
    page.set_input_files("#file", {"name": "wall.png", "mimeType": "image/jpeg", "buffer": PICTURES[0].read_bytes()})
    page.wait_for_selector("#said:visible")
    assert page.inner_text("#unsure").startswith("Not sure")
    assert page.locator("#answers li").count() == 3
    assert not page.locator("#answers li.best").count()
    first, share = page.inner_text("#answers .label >> nth=0"), page.inner_text("#answers .probability >> nth=0")
    assert page.text_content("#spoken[role=status]") == f"wall.png: not sure; most likely {first}, {share}"
    page.click("#start")  # the camera is not sure either
    page.wait_for_selector("#video:visible")
    page.wait_for_selector("#unsure:visible")
    assert page.text_content("#spoken") == "", "a live view is not read aloud, it would never end"
    page.click("#start")
    page.wait_for_selector("#picture:visible")
    assert page.text_content("#spoken").startswith("Paused: not sure; most likely ")
    page.click("summary:has-text('What it knows')")
    labels = read_payload(read_entries(tiny_onnx)).contract.labels
    assert page.locator("#labels li").all_inner_texts() == list(labels)
    assert "these 10 and nothing else" in page.inner_text("#known")


def test_a_picked_picture_is_read_aloud(visit: Callable[..., Any]) -> None:
    page = visit()
    page.set_input_files("#file", PICTURES[0])
    page.wait_for_selector("#said:visible")
    label, share = page.inner_text("#answers li.best .label"), page.inner_text("#answers li.best .probability")
    assert page.text_content("#spoken[role=status]") == f"{PICTURES[0].name}: {label}, {share}"
    assert page.locator("#problem[role=alert]").count() == 1
    nameless = """() => {
        const named = (item) => item.ariaLabel || item.textContent.trim() || item.labels?.[0]?.textContent.trim();
        return [...document.querySelectorAll("button, select, a[href], input, progress")].filter((item) => !named(item)).length;
    }"""
    assert page.evaluate(nameless) == 0


def test_the_screen_stays_on_while_the_camera_or_the_benchmark_runs(visit: Callable[..., Any]) -> None:
    page = visit()
    page.evaluate("""() => {
        // headless Chromium gives no lock
        globalThis.locks = [];
        const request = async (kind) => {
            const lock = { kind, released: false, release: async () => { lock.released = true; } };
            locks.push(lock);
            return lock;
        };
        Object.defineProperty(navigator, "wakeLock", { value: { request } });
    }""")
    held = "() => locks.filter((lock) => !lock.released).length === %d"
    page.click("#start")
    page.wait_for_function(held % 1)
    page.click("#start")
    page.wait_for_function(held % 0)
    page.select_option("#seconds", "60")
    page.click("#measure")
    page.wait_for_function(held % 1)
    hidden = """(hidden) => {  // headless pages are never hidden; a browser takes the lock back when one is
        Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hidden, True)  # which ends the benchmark
    page.wait_for_function(held % 0)
    page.evaluate(hidden, False)
    page.wait_for_selector("#start:enabled")
    assert page.evaluate("locks.filter((lock) => !lock.released).length") == 0
    page.click("#start")
    page.wait_for_selector("#video:visible")
    page.evaluate(hidden, True)
    page.wait_for_function("() => !document.getElementById('video').srcObject")
    page.evaluate(hidden, False)  # a live view goes on
    page.wait_for_selector("#video:visible")
    page.wait_for_function(held % 1)


def test_the_torch_where_a_camera_has_one(visit: Callable[..., Any]) -> None:
    page = visit()
    page.evaluate("""() => {  // no fake camera has one
        globalThis.asked = [];
        MediaStreamTrack.prototype.getCapabilities = () => ({ torch: true });
        MediaStreamTrack.prototype.applyConstraints = async (wanted) => {
            if (asked.length) throw new Error("too hot");
            asked.push(wanted);
        };
    }""")
    assert not page.is_visible("#torch")
    page.click("#start")
    page.wait_for_selector("#torch:visible")
    page.click("#torch")
    page.wait_for_selector("#torch[aria-pressed=true]")
    assert page.evaluate("asked") == [{"advanced": [{"torch": True}]}]
    page.click("#torch")
    page.wait_for_selector("#problem:visible")
    assert page.inner_text("#problem") == "The torch cannot be switched: too hot."
    page.click("#start")
    page.wait_for_selector("#torch", state="hidden")
