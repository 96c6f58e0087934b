"""What the machine must offer, whatever is exported."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Iterator

from lavit_edge.doctor.findings import Finding, Probe, Status, examine

ROOM = 500e6  # bytes; coremltools and NNCF write there, and lavit_base in fp32 is 160 MB: three of it


def host() -> Iterator[Finding]:
    return examine(
        "host",
        (
            Probe("cores", cores, ""),
            Probe("temporary files", temporary, "set TMPDIR to a folder that can be written and has room"),
            Probe("picture formats", formats, "pip install --force-reinstall pillow"),
        ),
    )


def cores() -> tuple[Status, str]:
    usable, there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), os.cpu_count()
    return "OK", f"{usable} of {there}" + ("; quantising and training will be slow" if usable == 1 else "")


def temporary() -> tuple[Status, str]:
    folder = tempfile.gettempdir()
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(1 << 20))
        file.flush()
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free in {folder}"
    return ("OK", detail) if free >= ROOM else ("FAIL", f"{detail}, wanted {ROOM / 1e9:.1f}")


def formats() -> tuple[Status, str]:
    """Writes and reads back a picture in each format that a folder of pictures may hold."""
    from PIL import Image

    from lavit_edge.contract.pictures import formats as readable
    from lavit_edge.contract.pictures import open_picture

    names = [name for name in readable() if name != "HEIF"]  # which is read alone
    for name in names:
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 100, 50)).save(stream, name)
        open_picture(stream.getvalue())
    return "OK", ", ".join(readable())
