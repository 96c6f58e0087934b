#!/usr/bin/env python3
"""The iOS app's icon, of apps/web/icon.svg, drawn by Chromium: 1024 pixels square, opaque; iOS rounds the corners itself."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
SVG = ROOT / "apps" / "web" / "icon.svg"
ICON = ROOT / "apps" / "ios" / "App" / "Sources" / "Assets.xcassets" / "AppIcon.appiconset" / "AppIcon.png"
SIDE = 1024


def draw(chromium: str) -> bytes:
    """The icon as a PNG, RGB."""
    square = re.sub(r' rx="\d+"', "", SVG.read_text("utf-8"), count=1)
    with tempfile.TemporaryDirectory() as name:
        page, shot = Path(name, "icon.html"), Path(name, "icon.png")
        page.write_text(f"<style>body{{margin:0}}svg{{display:block;width:{SIDE}px}}</style>{square}", encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--force-color-profile=srgb", "--hide-scrollbars"]
        view = [f"--user-data-dir={name}/profile", f"--window-size={SIDE},{SIDE}", f"--screenshot={shot}"]
        subprocess.run([chromium, *flags, *view, page.as_uri()], check=True, capture_output=True, timeout=120)
        made = io.BytesIO()
        with Image.open(shot) as picture:
            picture.convert("RGB").save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    ICON.write_bytes(draw(sys.argv[1] if len(sys.argv) > 1 else "chromium"))
