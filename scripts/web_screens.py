"""The web app's screens for docs/web: live, not sure, a photo, a benchmark, an error; on a phone and a desktop, light and dark.

    python scripts/web_screens.py model.onnx --live lavit_edge/pictures_cc0/val/coffee/00.jpg --photo .../astronaut/00.jpg

The model knows what is on ``--live`` and ``--photo``, as one does that was fine-tuned on ``lavit_edge/pictures_cc0``; it is not
sure of a drawing of stripes. One sheet a screen and scheme; in all less than 400 kB. Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavit_edge.benchmark.browser import find_chromium
from lavit_edge.cli import Parser, run_command
from lavit_edge.errors import UserError
from lavit_edge.serve import server as serve

WIDTH, HEIGHT = 640, 480  # of the fake camera
SCREENS = {"phone": (390, 844, 5, 1.0), "desktop": (1280, 800, 2, 0.5)}  # width, height, columns of the sheet, scale on it
GAP = 12
MOST = 400_000  # bytes of all sheets


def parser() -> argparse.ArgumentParser:
    p = Parser(prog="scripts/web_screens.py", description="Takes the pictures of the web app that are in the docs.")
    p.add_argument("model", type=Path, help="an .onnx or a bundle")
    p.add_argument("--live", type=Path, required=True, help="picture before the camera, free of rights")
    p.add_argument("--photo", type=Path, required=True, help="picture that is picked, free of rights")
    p.add_argument("--out", type=Path, default=Path("docs/web"))
    return p


def main() -> int:
    args = parser().parse_args()
    from playwright.sync_api import sync_playwright

    files = serve.site(serve.find_model(args.model))
    args.out.mkdir(parents=True, exist_ok=True)
    total = 0
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as library, serve.serving("127.0.0.1", 0, files) as port:
        film = Path(folder) / "camera.y4m"
        film.write_bytes(y4m(Image.open(args.live)))
        flags = ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={film}"]
        browser = library.chromium.launch(executable_path=find_chromium(), args=flags)
        for screen, (width, height, columns, scale) in SCREENS.items():
            for scheme in ("light", "dark"):
                viewport = {"width": width, "height": height}
                context = browser.new_context(viewport=viewport, color_scheme=scheme, permissions=["camera"])
                shots = states(context.new_page(), f"http://localhost:{port}/", args.photo)
                path = args.out / f"{screen}-{scheme}.webp"
                sheet(shots, columns, scale).save(path, quality=60, method=6)
                total += path.stat().st_size
                context.close()
        browser.close()
    print(f"{args.out}: {total} bytes")
    if total > MOST:
        raise UserError(f"{args.out}: {total} bytes, more than the {MOST} that the docs have room for")
    return 0


def states(page: Any, url: str, photo: Path) -> list[Image.Image]:
    def shot(ready: str) -> Image.Image:
        page.wait_for_selector(ready)
        page.wait_for_timeout(2000)  # figures and averages settle
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")

    page.goto(url)
    page.wait_for_selector("#offline:not(:empty)")
    page.click("#start")
    found = [shot("#answers li.best")]
    stripes = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) // 40 % 2
    drawn = io.BytesIO()
    Image.fromarray(np.where(stripes[..., None], (214, 205, 190), (120, 132, 140)).astype(np.uint8)).save(drawn, "PNG")
    page.set_input_files("#file", {"name": "stripes.png", "mimeType": "image/png", "buffer": drawn.getvalue()})
    found.append(shot("#unsure:visible"))
    page.set_input_files("#file", photo)
    page.wait_for_selector("#unsure", state="hidden")
    found.append(shot("#answers li.best"))
    page.select_option("#seconds", "1")
    page.click("#measure")
    page.wait_for_selector("#report:visible")
    page.wait_for_selector("#answers .label")  # the camera goes on
    page.locator("#benchmark").scroll_into_view_if_needed()
    found.append(shot("#report:visible"))
    page.evaluate("scrollTo(0, 0)")
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "image/png", "buffer": b"no picture"})
    found.append(shot("#problem:visible"))
    return found


def sheet(shots: list[Image.Image], columns: int, scale: float) -> Image.Image:
    """Screens beside and below each other, on grey."""
    small = [shot.resize((round(shot.width * scale), round(shot.height * scale)), Image.Resampling.LANCZOS) for shot in shots]
    width, height = small[0].width + GAP, small[0].height + GAP
    whole = Image.new("RGB", (columns * width + GAP, -(-len(small) // columns) * height + GAP), "#8a949e")
    for index, shot in enumerate(small):
        whole.paste(shot, (GAP + index % columns * width, GAP + index // columns * height))
    return whole


def y4m(picture: Image.Image) -> bytes:
    """A film of one frame, I420 as BT.601 has it, for Chromium's fake camera."""
    rgb = np.asarray(picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(float) / 255
    half = rgb.reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    planes = [
        16 + rgb @ (65.481, 128.553, 24.966),
        128 + half @ (-37.797, -74.203, 112.0),
        128 + half @ (112.0, -93.786, -18.214),
    ]
    frame = b"FRAME\n" + b"".join(np.clip(plane.round(), 0, 255).astype(np.uint8).tobytes() for plane in planes)
    return b"YUV4MPEG2 W%d H%d F30:1 Ip A1:1 C420jpeg\n" % (WIDTH, HEIGHT) + 30 * frame


if __name__ == "__main__":
    run_command(main)
