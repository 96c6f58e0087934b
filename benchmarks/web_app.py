"""The web app in headless Chromium, with a film as its camera: what the page measures of itself, and whether its label is right.

    python benchmarks/web_app.py bundle/lavit_mobile_s_imagenette160-int8 --clip camera.mp4

The film is played at its own speed, 640 x 480, for ever, as by a camera of 60 frames a second, so that the camera is not what
limits. Where a table of the same name lies beside it (``camera.csv``: ``first_frame``, ``last_frame``, and ``name`` or
``content``), twenty times a second it is looked at what the camera's picture is and what stands under it: how often the answer
changes for each change of the scene, and, of names, how often it is the scene's.
Needs Chromium and ffmpeg.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lavit_edge.benchmark.browser import find_chromium
from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError
from lavit_edge.serve import server as serve

WIDTH, HEIGHT = 640, 480
RATE = 60  # frames a second of the camera
BLOCK = 80  # pixels of a thumbnail's pixel
FIGURES = ("fps", "model-ms", "prepare-ms", "copy-ms")
WARM = 5.0  # seconds before the figures are read
LOOK = """() => {
    const canvas = new OffscreenCanvas(640, 480), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(document.getElementById("video"), 0, 0);
    const { data } = context.getImageData(0, 0, 640, 480);
    const luma = new Float64Array(48);
    for (let y = 0; y < 480; y++)
        for (let x = 0, at = y * 2560; x < 640; x++, at += 4)
            luma[8 * Math.floor(y / 80) + Math.floor(x / 80)] +=
                (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]) / 6400;
    const label = document.querySelector("#answers li.best .label");
    const shown = document.querySelector("#answers .label") !== null;
    return [Array.from(luma), shown ? (label ? label.textContent : "not sure") : null];
}"""


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="benchmarks/web_app.py", description="What the web app measures of itself, and how often its label is right.")
    p.add_argument("model", type=Path, help="an .onnx or a bundle")
    p.add_argument("--clip", type=Path, required=True, help="film for the camera; a .csv beside it says what it shows")
    p.add_argument("--seconds", type=float, default=20.0, help="for each number of threads")
    return p


def main() -> int:
    args = parser().parse_args()
    from playwright.sync_api import sync_playwright

    files = serve.site(serve.find_model(args.model))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as library:
        film = Path(folder) / "camera.y4m"
        scenes = convert(args.clip, film)
        flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
        browser = library.chromium.launch(executable_path=find_chromium(), args=flags)
        with serve.serving("127.0.0.1", 0, files) as port:
            page = browser.new_context(permissions=["camera"], viewport={"width": 390, "height": 844}).new_page()
            page.goto(f"http://localhost:{port}/")
            cores = page.evaluate("navigator.hardwareConcurrency")
            print(f"Chromium {browser.version}, {cores} cores; medians over {args.seconds:g} s")
            for threads in (1, 2):
                run(page, threads, args.seconds, scenes)
        browser.close()
    return 0


def run(page: Any, threads: int, seconds: float, scenes: list[tuple[str, np.ndarray]]) -> None:
    wait(page, "#start:enabled")
    page.select_option("#threads", str(threads))
    wait(page, "#start:enabled")
    page.click("#start")
    wait(page, "#answers .label")
    page.wait_for_timeout(1000 * WARM)
    read: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for _ in range(int(seconds)):
        page.wait_for_timeout(1000)
        for figure in FIGURES:
            read[figure].append(float(page.inner_text(f"#{figure}")))
    fps, model, prepare, copy = (statistics.median(read[figure]) for figure in FIGURES)
    print(f"{page.inner_text('#model')}: {fps:.1f} frames/s (at least {min(read['fps']):.1f}), model {model:.1f} ms,", end=" ")
    print(f"preprocessing {prepare:.1f} ms ({prepare / model:.1%} of the model's), copying the frame {copy:.1f} ms")
    if scenes:
        print(f"  {compare(page, scenes, seconds)}")
    page.click("#start")


def wait(page: Any, selector: str) -> None:
    page.wait_for_selector(f"{selector}, #problem:visible")
    if page.is_visible("#problem"):
        raise UserError(page.inner_text("#problem"))


def compare(page: Any, scenes: list[tuple[str, np.ndarray]], seconds: float) -> str:
    """How often the answer changed, is the name of the scene, is still that of the scene before, and what else it was."""
    found: Counter[str] = Counter()
    scene = before = ""
    changes = cuts = 0
    last = None
    for _ in range(int(20 * seconds)):
        page.wait_for_timeout(50)
        luma, label = page.evaluate(LOOK)
        name, _ = min(scenes, key=lambda item: float(np.abs(item[1] - luma).mean()))
        if name != scene:
            cuts += scene != ""
            scene, before = name, scene
        changes += last is not None and label != last
        last = label
        found["right" if label == name else "late" if label == before else f"{name} called {label}"] += 1
    right, late = found.pop("right", 0), found.pop("late", 0)
    flicker = f"{changes} changes of the answer in {cuts} of the scene ({changes / max(cuts, 1):.2f} each)"
    wrong = ", ".join(f"{what} {count} times" for what, count in found.items()) or "never wrong"
    looks = right + late + found.total()
    return f"{flicker}; the label is the picture's in {right} of {looks} looks, the one before's in {late}; {wrong}"


def convert(clip: Path, film: Path) -> list[tuple[str, np.ndarray]]:
    """Writes the clip as the fake camera reads it; names and luma thumbnails of its scenes."""
    if not clip.is_file():
        raise UserError(f"{clip} does not exist")
    if shutil.which("ffmpeg") is None:
        raise UserError("ffmpeg is missing; on Debian: apt-get install ffmpeg")
    scale = ["-vf", f"scale={WIDTH}:{HEIGHT}", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(clip), *scale, "-r", str(RATE), str(film)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"ffmpeg cannot read {clip}: {done.stderr}")
    table = clip.with_suffix(".csv")
    if not table.is_file():
        return []
    scenes = []
    raw = ["ffmpeg", "-v", "error", "-i", str(clip), *scale, "-f", "rawvideo", "-"]
    frames = np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8).reshape(
        -1, WIDTH * HEIGHT * 3 // 2
    )
    for row in csv.DictReader(table.open(newline="", encoding="utf-8")):
        y = frames[(int(row["first_frame"]) + int(row["last_frame"])) // 2, : WIDTH * HEIGHT].astype(float)
        blocks = y.reshape(HEIGHT // BLOCK, BLOCK, WIDTH // BLOCK, BLOCK).mean((1, 3))
        scenes.append((row.get("name") or row["content"], ((blocks - 16) * 255 / 219).ravel()))
    return scenes


if __name__ == "__main__":
    run_command(main)
