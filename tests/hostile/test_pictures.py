from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavit_edge.contract.pictures import open_picture
from lavit_edge.train.__main__ import main as train

Make = Callable[[Path], object]


def encoded(format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) if crc is None else crc)


def png(width: int, height: int, data: bytes, *between: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(between) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


PNG, JPEG, GIF, BMP, TIFF, WEBP = (encoded(name) for name in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))
ZEROS = bytes(50_000_000)


def archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("picture.png", ZEROS)
    return stream.getvalue()


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


CONTENTS = {
    "empty": b"",
    "text": b"not a picture\n",
    "a zip bomb": archive(),
    "PNG, signature alone": PNG[:8],
    "PNG, cut in the header": PNG[:20],
    "PNG, cut behind the header": PNG[:33],
    "PNG, cut in the data": PNG[: len(PNG) // 2],
    "PNG, 2^31 pixels wide": png(2**31 - 1, 2**31 - 1, b"\0"),
    "PNG, a bomb": png(60_000, 60_000, ZEROS),
    "PNG, no pixels": png(0, 0, b""),
    "PNG, too few bytes": png(1000, 1000, b"\0" * 10),
    "PNG, unknown colours": png(4, 4, b"\0" * 60, colour=9),
    "PNG, wrong checksum": patched(PNG, 29, b"\0\0\0\0"),
    "PNG, a text that inflates": png(4, 4, b"\0" * 60, chunk(b"zTXt", b"a\0\0" + zlib.compress(ZEROS))),
    "PNG, a chunk of 2 GB": PNG[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt" + PNG[33:],
    "JPEG, marker alone": JPEG[:2],
    "JPEG, cut in the tables": JPEG[:100],
    "JPEG, cut in the data": JPEG[: len(JPEG) // 2],
    "JPEG, 65535 pixels a side": JPEG.replace(b"\xff\xc0\x00\x11\x08\x00\x30\x00\x40", b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff"),
    "JPEG, no pixels": JPEG.replace(b"\xff\xc0\x00\x11\x08\x00\x30\x00\x40", b"\xff\xc0\x00\x11\x08\x00\x00\x00\x00"),
    "GIF, header alone": GIF[:13],
    "GIF, 65535 pixels a side": patched(GIF, 6, b"\xff\xff\xff\xff"),
    "BMP, cut": BMP[:60],
    "BMP, offset beyond": patched(BMP, 10, b"\xff\xff\xff\x7f"),
    "BMP, 2^31 pixels wide": patched(BMP, 18, struct.pack("<i", 2**31 - 1)),
    "BMP, 9999 bits": patched(BMP, 28, struct.pack("<H", 9999)),
    "TIFF, cut": TIFF[:8],
    "TIFF, directory beyond": patched(TIFF, 4, b"\xff\xff\xff\x7f"),
    "TIFF, directory is the header": patched(TIFF, 4, b"\0\0\0\0"),
    "WebP, cut": WEBP[: len(WEBP) // 2],
    "WebP, length beyond": patched(WEBP[:40], 4, b"\xff\xff\xff\x7f"),
    "an icon that is none": b"\0\0\1\0\xff\xff" + bytes(100),
    "a scalable picture": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/etc/passwd) run\n",
}


def loop(file: Path) -> None:
    file.symlink_to(file)


PLACES: dict[str, Make] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": loop,
    "a link to nothing": lambda file: file.symlink_to("nothing"),
    "a link to a device": lambda file: file.symlink_to("/dev/zero"),
    "a name of two lines": lambda file: (file.parent / "a\nerror: b\x1b[2J.png").write_bytes(b"x"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One healthy picture in each class of each split."""
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            (tmp_path / "data" / split / label / "0.png").write_bytes(PNG)
    return tmp_path / "data"


def command(folder: Path) -> list[str]:
    small = ["--set", "image_size=32", "--model", "lavit_mobile_s", "--device", "cpu", "--workers", "0"]
    return ["--data", str(folder), "--out", str(folder.parent / "run"), "--strict", *small]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_content_of_a_picture(content: bytes, folder: Path, elsewhere: Any) -> None:
    file = folder / "train" / "cat" / "1.png"
    file.write_bytes(content)
    assert str(file) in elsewhere.refused(lambda: open_picture(file) and 0)


@pytest.mark.parametrize("make", PLACES.values(), ids=PLACES)
def test_the_place_of_a_picture(make: Make, folder: Path, elsewhere: Any) -> None:
    make(folder / "train" / "cat" / "1.png")
    assert "refused under --strict" in elsewhere.refused(lambda: train(command(folder)))


TABLES: dict[str, Make] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "not UTF-8": lambda file: file.write_bytes(b"folder,name\ncat,\xff\n"),
    "a NUL": lambda file: file.write_bytes(b"folder,name\ncat,\0\n"),
    "another column": lambda file: file.write_text("folder,title\ncat,Cat\n"),
    "a short row": lambda file: file.write_text("folder,name\ncat\n"),
    "a field of 10 MB": lambda file: file.write_text("folder,name\ncat," + "x" * 10_000_000 + "\n"),
    "an open quote": lambda file: file.write_text('folder,name\ncat,"' + "x\n" * 200_000),
    "one name twice": lambda file: file.write_text("folder,name\ncat,pet\ndog,pet\n"),
    "a name of two lines": lambda file: file.write_text('folder,name\ncat,"a\nb"\n'),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_table_of_labels(make: Make, folder: Path, elsewhere: Any) -> None:
    make(folder / "labels.csv")
    line = elsewhere.refused(lambda: train(command(folder)))
    assert "labels.csv" in line or "label '" in line or "both called 'pet'" in line


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_file_for_a_folder(split: str, folder: Path, tmp_path: Path, elsewhere: Any) -> None:
    os.rename(folder / split, tmp_path / "moved")
    (folder / split).write_text("")
    assert "no such folder" in elsewhere.refused(lambda: train(command(folder)))
