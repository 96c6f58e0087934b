"""A package of pictures that is small enough to be brought along: sheets of many pictures, each an AVIF.

An AVIF for each picture would have a header each, and an entropy coder that learns anew (docs/training.md has bytes a picture).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, read_json

FORMAT = "lavit_edge.sheets/1"
PACKAGE = "package.json"
ACROSS = 10  # pictures; a sheet has as many rows
SHAPE = {"side": int, "labels": list, "settings": list, "sheets": dict, "splits": dict, "teacher": dict}


@dataclass(frozen=True)
class DecodedPictures:
    """Square pictures in memory; :class:`lavit_edge.data.folder.Pictures`.

    Attributes:
        pixels: uint8 RGB ``(N, side, side, 3)``.
        files, targets: ``<class>/<file>`` and class index of each.
        identity: changes with the pictures and their order.
    """

    pixels: np.ndarray
    files: list[str]
    targets: list[int]
    identity: str

    def __len__(self) -> int:
        return len(self.targets)

    def part(self, index: int, count: int) -> DecodedPictures:
        chosen = slice(index, None, count)
        return replace(self, pixels=self.pixels[chosen], files=self.files[chosen], targets=self.targets[chosen])

    def inputs(self, contract: InputContract, strict: bool = False) -> Iterator[tuple[np.ndarray, int]]:
        for pixels, target in zip(self.pixels, self.targets, strict=True):
            yield to_input(Image.fromarray(pixels), contract), target

    def name(self, index: int) -> str:
        return self.files[index]


def write_sheets(pixels: np.ndarray, folder: Path, split: str, quality: int) -> dict[str, str]:
    """Writes ``<split>-000.avif`` and so on, of uint8 RGB ``(N, side, side, 3)``; returns the SHA-256 of each."""
    _need_avif()
    hashes = {}
    for number, first in enumerate(range(0, len(pixels), ACROSS**2)):
        buffer = BytesIO()
        Image.fromarray(_tiled(pixels[first : first + ACROSS**2])).save(buffer, "AVIF", quality=quality)
        name = f"{split}-{number:03}.avif"
        (folder / name).write_bytes(buffer.getvalue())
        hashes[name] = hashlib.sha256(buffer.getvalue()).hexdigest()
    return hashes


def _tiled(pixels: np.ndarray) -> np.ndarray:
    count, side = pixels.shape[:2]
    rows = -(-count // ACROSS)
    grid = np.zeros((rows * ACROSS, side, side, 3), np.uint8)
    grid[:count] = pixels
    return grid.reshape(rows, ACROSS, side, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * side, ACROSS * side, 3)


def read_package(folder: Path) -> dict[str, Any]:
    """``package.json``, its form checked. Raises :class:`UserError` when there is none."""
    file = folder / PACKAGE
    if not file.is_file():
        raise UserError(f"{folder} is no package: it has no {PACKAGE}; python scripts/gpu_pack.py makes one")
    package = read_json(file)
    if not isinstance(package, dict) or package.get("format") != FORMAT:
        raise UserError(f"{file}: expected format {FORMAT!r}; make the package again")
    check_shape(package, SHAPE, str(file))
    return package


def read_sheets(folder: Path, package: dict[str, Any], split: str) -> DecodedPictures:
    """The pictures of one split. Raises :class:`UserError` when a sheet is missing or damaged, or Pillow lacks AVIF."""
    _need_avif()
    check_shape(package["splits"], {split: {"files": list, "targets": list}}, str(folder / PACKAGE))
    files, targets = (package["splits"][split][name] for name in ("files", "targets"))
    side, names = package["side"], sorted(name for name in package["sheets"] if name.startswith(f"{split}-"))
    with ThreadPoolExecutor(4) as threads:
        tiles = list(threads.map(lambda name: _tiles(folder / name, package["sheets"][name], side), names))
    if not files or sum(map(len, tiles)) < len(files) or len(files) != len(targets):
        raise UserError(f"{folder / PACKAGE} does not fit its sheets; make the package again")
    identity = hashlib.sha256(json.dumps([FORMAT, side, files, [package["sheets"][name] for name in names]]).encode())
    return DecodedPictures(np.concatenate(tiles)[: len(files)], files, targets, identity.hexdigest())


def _tiles(file: Path, sha256: str, side: int) -> np.ndarray:
    data = file.read_bytes() if file.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{file} is missing or damaged; bring the package again")
    sheet = np.array(Image.open(BytesIO(data), formats=["AVIF"]).convert("RGB"))
    rows = sheet.shape[0] // side
    return sheet.reshape(rows, side, ACROSS, side, 3).transpose(0, 2, 1, 3, 4).reshape(rows * ACROSS, side, side, 3)


def _need_avif() -> None:
    if not features.check("avif"):
        raise UserError("this Pillow reads no AVIF; its wheels do from 11.3 on")
