"""A cache of decoded training pictures: one memory-mapped uint8 file, cropped and distorted in batches on the training device."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lavit_edge.cli import new_console
from lavit_edge.contract.pictures import formats, open_picture
from lavit_edge.data.augment import draw_hole, draw_operations, random_box
from lavit_edge.data.augment_batch import crop_batch, erase_batch, rand_augment_batch
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.files import parse_json
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import FolderSource
from lavit_edge.train.world import World

FORMAT = "lavit_edge.cache/1"
CHUNK = 256  # pictures decoded before they are written
BOX, FLIP, HOLE, OPERATIONS = slice(0, 4), 4, slice(5, 9), 9  # columns of a picture's chance; then pairs of number and magnitude


def draw_chance(recipe: Recipe, epoch: int, view: int, index: int) -> np.ndarray:
    """A picture's box, mirroring, hole and operations, from the random numbers of :class:`lavit_edge.train.dataset.Augmentation`:
    the box from the view's, all else from the epoch's."""
    r = recipe
    row = np.zeros(OPERATIONS + 2 * r.randaugment_operations)
    row[BOX] = random_box(np.random.default_rng((r.seed, 0, view, index)), r.min_scale)
    rng = np.random.default_rng((r.seed, 1, epoch, index))
    row[FLIP] = rng.random() < 0.5
    row[OPERATIONS:] = np.ravel(draw_operations(rng, r.randaugment_operations, r.randaugment_magnitude))
    row[HOLE] = draw_hole(rng, r.image_size, r.erasing) or 0
    return row


def apply_chance(pixels: Tensor, chance: Tensor, size: int) -> Tensor:
    """uint8 RGB ``(B, H, W, 3)`` to ``(B, size, size, 3)``, by rows of :func:`draw_chance`, ``(B, C)`` in the host's memory."""
    rows = chance.numpy()
    planes = crop_batch(pixels, rows[:, BOX], rows[:, FLIP], size)
    planes = rand_augment_batch(planes, rows[:, OPERATIONS::2], rows[:, OPERATIONS + 1 :: 2])
    return erase_batch(planes, rows[:, HOLE]).permute(0, 2, 3, 1)


class CachedPictures(Dataset[list[Tensor]]):
    """Whole batches of the cache, as :class:`CachedSource` gives them. Each process maps the file anew.

    Args:
        file: ``.npy``, uint8 ``(pictures, side, side, 3)``.
        recipe, epoch, logits: as of :class:`lavit_edge.train.dataset.TrainingPictures`, whose random numbers these are.
    """

    def __init__(self, file: Path, targets: list[int], recipe: Recipe, epoch: int, logits: Tensor | None) -> None:
        self.file, self.targets, self.recipe, self.epoch, self.logits = file, targets, recipe, epoch, logits

    @cached_property
    def pixels(self) -> np.ndarray:
        return np.load(self.file, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}  # would be copied into each worker

    def __len__(self) -> int:
        return len(self.targets)

    def __getitems__(self, indices: list[int]) -> list[Tensor]:
        view = self.epoch if self.logits is None else self.epoch % len(self.logits)
        chance = torch.from_numpy(np.stack([draw_chance(self.recipe, self.epoch, view, index) for index in indices]))
        logits = torch.empty(len(indices), 0) if self.logits is None else self.logits[view, indices]
        targets = torch.tensor([self.targets[index] for index in indices])
        return [torch.from_numpy(self.pixels[indices]), targets, logits, chance]


class CachedSource(FolderSource):
    """Pictures of a folder from their cache. Boxes, mirroring, distortions and holes are those of :class:`FolderSource`, applied
    on the training device; the noise in the holes follows from torch's seed, thus from (seed, epoch, step, process).

    Args:
        file: as :func:`open_cache` returns it.
    """

    def __init__(self, pictures: PictureFolder, recipe: Recipe, world: World, workers: int, file: Path) -> None:
        super().__init__(pictures, recipe, world, workers)
        self.file = file

    def batches(self, epoch: int, start: int, logits: Tensor | None) -> Iterator[list[Tensor]]:
        data = CachedPictures(self.file, self.pictures.targets, self.recipe, epoch, logits)
        return iter(self._loader(data, self._sampler(epoch, start)))

    def augment(self, pixels: Tensor, *chance: Tensor) -> Tensor:
        """``chance`` stays in the host's memory; without it (a batch made to try the device's memory) nothing is done."""
        if not chance:
            return pixels
        return apply_chance(pixels, chance[0], self.recipe.image_size)

    def views(self, view: int, size: int) -> Iterable[Sequence[Tensor]]:
        data = CachedPictures(self.file, self.pictures.targets, self.recipe, view, None)
        in_order = [list(range(len(data)))[first : first + 64] for first in range(0, len(data), 64)]
        for pixels, targets, logits, chance in self._loader(data, in_order):
            boxes = chance[:, BOX].numpy()
            moved = pixels.to(self.world.device, non_blocking=True)
            yield [crop_batch(moved, boxes, np.zeros(len(boxes)), size).permute(0, 2, 3, 1), targets, logits]

    def identity(self) -> str:
        return json.dumps([super().identity(), FORMAT, int(np.load(self.file, mmap_mode="r", allow_pickle=False).shape[1])])

    def order(self) -> dict[str, str]:
        return {"source": "cache"}  # the order is the folder's, and the pixels are not quite

    def _loader(self, data: CachedPictures, batches: Iterable[list[int]]) -> DataLoader[list[Tensor]]:
        pinned = self.world.device.type == "cuda"
        return DataLoader(data, batch_sampler=batches, num_workers=self.workers, collate_fn=_as_it_is, pin_memory=pinned)


def _as_it_is(batch: list[Tensor]) -> list[Tensor]:
    return batch


def open_cache(
    path: Path,
    pictures: PictureFolder,
    recipe: Recipe,
    world: World,
    workers: int,
    *,
    tell: Callable[[str], None] = print,
    console: Console | None = None,
) -> Path:
    """The cache file of these pictures, written first where there is none, or one of other pictures, or a damaged one.

    Pictures are squashed to squares, whatever the recipe's ``resize``: a box is given in fractions of width and height, and cuts
    the same out of the square as out of the picture. The side is twice ``image_size``, so that a crop of a quarter of the picture
    has ``image_size`` pixels a side, and at most the longest side of any picture. Square pictures of that side are kept as they
    are.

    Args:
        path: the file, ``<name>.npy``, or a folder in which it is called ``train.npy``. ``<name>.npy.json`` beside it tells what
            it was made of.
        workers: threads that decode.
        tell: gets a line when the file has to be written.
        console: shows the progress then; None: standard error.

    Raises:
        UserError: ``path`` is another file, cannot be written, or does not fit on the disk; nothing has changed then.
    """
    file = path if path.suffix == ".npy" else path / "train.npy"
    side = min(2 * recipe.image_size, max(_longest_side(picture) for picture in pictures.paths))
    key = _key(pictures, side)
    if world.main and (reason := _unfit(file, key)):
        tell(f"{file} {reason}: decoding {len(pictures)} pictures")
        _write(file, key, pictures, side, workers, console or new_console(stderr=True))
    world.wait()
    if not world.main and _facts(file).get("key") != key:
        raise UserError(f"{file} is not what the first process wrote; processes on several hosts need one --cache that all see")
    return file


def _key(pictures: PictureFolder, side: int) -> str:
    """Changes with the pictures, their order, and the side."""
    stats = [(p.parent.name, p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in pictures.paths]
    return hashlib.sha256(json.dumps([FORMAT, side, stats]).encode()).hexdigest()


def _facts(file: Path) -> dict[str, str]:
    """What is known about a cache file; empty where nothing is."""
    try:
        facts = parse_json(_beside(file).read_text(encoding="utf-8"), str(_beside(file)))
    except (OSError, UnicodeDecodeError, UserError):
        return {}
    return facts if isinstance(facts, dict) and facts.get("format") == FORMAT else {}


def _unfit(file: Path, key: str) -> str:
    """Why a cache has to be written; empty when it can be used. Raises :class:`UserError` on a file that is no cache."""
    facts = _facts(file)
    if not file.exists():
        return "is new"
    if not facts or not file.is_file():
        raise UserError(f"{file} exists and is no cache ({_beside(file).name} says nothing of it); choose another --cache")
    if facts.get("key") != key:
        return "was made of other pictures or for another size"
    with file.open("rb") as stream:
        return "" if hashlib.file_digest(stream, "sha256").hexdigest() == facts.get("sha256") else "is damaged"


def _write(file: Path, key: str, pictures: PictureFolder, side: int, workers: int, console: Console) -> None:
    shape = (len(pictures), side, side, 3)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")  # another run may be writing the same
    digest = hashlib.sha256(header.getvalue())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        size, free = math.prod(shape) / 1e6, shutil.disk_usage(file.parent).free / 1e6
        if size > free:
            raise UserError(f"{file} takes {size:.0f} MB and {free:.0f} MB are free there; choose another --cache")
        with temporary.open("wb") as stream, ThreadPoolExecutor(max(workers, 1)) as threads:
            stream.write(header.getvalue())
            chunks = range(0, len(pictures), CHUNK)
            for first in track(chunks, "decoding", console=console, transient=True):
                paths = pictures.paths[first : first + CHUNK]
                for square in threads.map(lambda path: _square(path, side), paths):
                    digest.update(square)
                    stream.write(square)
            stream.flush()
            os.fsync(stream.fileno())
        facts = {"format": FORMAT, "key": key, "sha256": digest.hexdigest()}
        described = temporary.with_suffix(".json")
        described.write_text(json.dumps(facts), encoding="utf-8")
        os.replace(described, _beside(file))  # first: a kill between the two leaves facts that the file does not match
        os.replace(temporary, file)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror or error}); choose another --cache") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        with contextlib.suppress(OSError):
            temporary.with_suffix(".json").unlink()


def _square(path: Path, side: int) -> bytes:
    return open_picture(path).resize((side, side), Image.Resampling.BICUBIC).tobytes()


def _longest_side(path: Path) -> int:
    with (
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
        Image.open(path, formats=formats()) as image,
    ):
        return max(image.size)


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")
