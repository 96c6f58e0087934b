"""Labelled pictures in tar shards, as ``python -m lavit_edge.shards`` writes them and the library webdataset reads them.

``<root>/train-000000.tar``, ..., ``<root>/val-000000.tar``, ..., perhaps ``<root>/labels.csv`` (as in a folder of pictures), and
``<root>/dataset.json``, which lists the shards::

    {"format": 1, "classes": [class folder, ...], "splits": {"train": {"pictures": [pictures of each class, ...],
     "shards": [{"name": ..., "samples": ..., "bytes": ..., "sha256": ...}, ...]}, "val": {...}}}

A sample is two members of a tar file: ``00000012.jpg``, a picture's file as it was, and ``00000012.json`` with ``cls``, the
number of its class, and ``file``, ``<class folder>/<file name>``. Samples are numbered from 0 through all shards of a split.
"""

from __future__ import annotations

import copy
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from lavit_edge.cli import new_console
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import UnreadablePicture, load_input, suffixes
from lavit_edge.data.folder import class_names
from lavit_edge.errors import UserError
from lavit_edge.files import check_shape, file_sha256, parse_json, read_json

INDEX, FORMAT = "dataset.json", 1


@dataclass(frozen=True)
class Shard:
    """A tar file that ``dataset.json`` lists; ``first`` is the number of its first sample."""

    path: Path
    first: int
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sample:
    """A picture's file as it was, its class number, and ``<class folder>/<file name>``; ``source`` names it in errors."""

    number: int
    target: int
    file: str
    data: bytes
    source: str


def holds_shards(root: Path) -> bool:
    """Whether a data folder holds shards, and not folders of pictures."""
    return not (root / "train").is_dir() and ((root / INDEX).exists() or any(root.glob("train-*.tar")))


def library() -> Any:
    """The package webdataset. Raises :class:`UserError` when it is not installed."""
    try:
        import webdataset
    except ImportError as error:
        raise UserError("shards need the library webdataset: pip install 'lavit-edge[shards]'") from error
    return webdataset


class ShardedPictures:
    """The samples of one split, or of one process's part of it, in the order of their numbers. None is ever left out.

    Attributes:
        labels: class names; the index of a name is its class.
        shards: of the whole split.
        skipped: always empty, for a caller that may have a folder: what cannot be decoded was left out when the shards were
            written.

    Raises:
        UserError: webdataset is not installed, ``dataset.json`` is missing or malformed, a shard is missing, has another size or
            is not listed, a class of the train split is empty, or labels.csv calls two classes by one name.
    """

    def __init__(self, root: Path | str, split: str, quiet: bool = False) -> None:
        self.root, self.split, self.quiet = Path(root), split, quiet
        library()
        index = _read_index(self.root)
        names = class_names(self.root)
        self.labels = tuple(names.get(folder, folder) for folder in index["classes"])
        if len(set(self.labels)) < len(self.labels):
            raise UserError(f"{self.root / 'labels.csv'}: two classes have the same name")
        self.counts: list[int] = index["splits"][split]["pictures"]
        if split == "train" and 0 in self.counts:
            raise UserError(f"{self.root}: class {self.labels[self.counts.index(0)]!r} has no training pictures")
        self.shards = _shards(self.root, split, index["splits"][split]["shards"])
        self.first, self.stop = 0, sum(shard.samples for shard in self.shards)
        self.skipped: list[UnreadablePicture] = []

    def __len__(self) -> int:
        return self.stop - self.first

    def part(self, index: int, count: int) -> ShardedPictures:
        """Part ``index`` of ``count`` runs of samples that differ in length by one at most."""
        out = copy.copy(self)
        out.first, out.stop = (self.first + len(self) * i // count for i in (index, index + 1))
        return out

    def name(self, index: int) -> str:
        """``sample <number>``; its file's name is in the shard."""
        return f"sample {self.first + index:08}"

    def check(self, strict: bool) -> None:
        """Reads every shard once, without decoding pictures.

        ``strict`` changes nothing: whatever is wrong is refused.

        Raises:
            UserError: a shard is not what ``dataset.json`` says, or a sample has no label, no picture or an unknown class.
        """
        counts = [0] * len(self.labels)
        title, console = f"checking {self.split} shards", new_console(stderr=True, quiet=self.quiet)
        for shard in track(self.shards, title, console=console, transient=True, disable=not console.is_terminal):
            if file_sha256(shard.path) != shard.sha256:
                raise UserError(f"{shard.path} is damaged (its sha256 is not that in {INDEX}); copy it again, or convert again")
            for sample in read(shard, len(self.labels)):
                counts[sample.target] += 1
        if counts != self.counts:
            raise UserError(f"{self.root / INDEX}: {self.split} has other pictures of each class than it says; convert again")

    def samples(self, start: int, stop: int) -> Iterator[Sample]:
        """Those with the numbers ``start`` to ``stop - 1``; shards that have none of them are not opened."""
        for shard in self.shards:
            begin, end = max(start - shard.first, 0), min(stop - shard.first, shard.samples)
            if begin < end:
                yield from read(shard, len(self.labels), begin, end)

    def in_order(self, numbers: list[int], spans: Iterable[tuple[int, int]]) -> Iterator[Sample]:
        """Samples in a given order, read in the order of ``spans``, ``(start, stop)`` numbers; what is read early is held.

        Samples of the spans that are not among ``numbers`` are passed over, and a span without any is not read.
        """
        wanted = set(numbers)
        needed = [own for span in spans if (own := [number for number in range(*span) if number in wanted])]
        reading = (sample for own in needed for sample in self.samples(own[0], own[-1] + 1) if sample.number in wanted)
        held: dict[int, Sample] = {}
        for number in numbers:
            while number not in held:
                sample = next(reading)
                held[sample.number] = sample
            yield held.pop(number)

    def inputs(self, contract: InputContract, strict: bool = False) -> Iterator[tuple[np.ndarray, int]]:
        """Yields ``(uint8 (size, size, 3), class index)``. Raises on a picture that cannot be decoded, strict or not."""
        for sample in self.samples(self.first, self.stop):
            try:
                picture = load_input(sample.data, contract)
            except UnreadablePicture as error:
                raise UserError(f"{sample.source}: {error}") from error
            yield picture, sample.target


def read(shard: Shard, classes: int, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
    """Samples ``start`` to ``stop - 1`` of a shard, counted from its own first one.

    Raises:
        UserError: the shard is damaged or ends early, or a sample has no label, no picture, a class beyond ``classes`` or another
            number than its place says.
    """
    tar = library().tariterators  # its readers of streams; its openers run commands, and its decoders unpickle
    stop, number = shard.samples if stop is None else stop, start
    try:
        with shard.path.open("rb") as stream:
            files = tar.tar_file_expander([{"url": str(shard.path), "stream": stream}])
            for raw in islice(tar.group_by_keys(files), start, stop + (stop == shard.samples)):
                yield _sample(raw, shard, number, classes)
                number += 1
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise UserError(f"{shard.path} is damaged ({error.args[0] if error.args else error})") from error
    if number != stop:
        raise UserError(f"{shard.path} is damaged: it has no sample {number} of the {shard.samples} that {INDEX} says")


def _sample(raw: dict[str, Any], shard: Shard, place: int, classes: int) -> Sample:
    number, source = shard.first + place, f"{shard.path}: sample {raw['__key__']}"
    if place == shard.samples or raw["__key__"] != f"{number:08}":
        raise UserError(f"{source} is not what {INDEX} promises in this place")
    if "json" not in raw:
        raise UserError(f"{source} has no label, no member {raw['__key__']}.json")
    pictures = [raw[suffix] for suffix in raw if f".{suffix}" in suffixes()]
    if len(pictures) != 1:
        raise UserError(f"{source} has {len(pictures)} pictures and must have one ({', '.join(sorted(suffixes()))})")
    label = parse_json(raw["json"].decode(), source)
    check_shape(label, {"cls": int, "file": str}, source)
    if not 0 <= label["cls"] < classes:
        raise UserError(f"{source} is of class {label['cls']}, which is not one of the {classes} classes of {INDEX}")
    return Sample(number, label["cls"], label["file"], pictures[0], source)


def _read_index(root: Path) -> dict[str, Any]:
    file = root / INDEX
    if not file.is_file():
        raise UserError(f"{file} is missing; shards come with the {INDEX} that python -m lavit_edge.shards writes")
    index = read_json(file)
    split = {"pictures": list, "shards": list}
    check_shape(index, {"format": int, "classes": list, "splits": {"train": split, "val": split}}, str(file))
    if index["format"] != FORMAT:
        raise UserError(f"{file}: format {index['format']} is not known here, {FORMAT} is; convert again")
    for folder in index["classes"]:
        check_shape(folder, str, str(file), "classes")
    for split in index["splits"].values():
        for count in split["pictures"]:
            check_shape(count, int, str(file), "pictures")
        for row in split["shards"]:
            check_shape(row, {"name": str, "samples": int, "bytes": int, "sha256": str}, str(file), "shards")
        if len(split["pictures"]) != len(index["classes"]) or sum(split["pictures"]) != sum(
            s["samples"] for s in split["shards"]
        ):
            raise UserError(f"{file}: the numbers of pictures, classes and samples do not fit each other")
    return index


def _shards(root: Path, split: str, rows: list[dict[str, Any]]) -> list[Shard]:
    shards: list[Shard] = []
    for row in rows:
        if not re.fullmatch(rf"{split}-\d+\.tar", row["name"]) or row["samples"] < 1:
            raise UserError(f"{root / INDEX}: {row['name']!r} with {row['samples']} samples is no shard of {split}")
        path = root / row["name"]
        if not path.is_file():
            raise UserError(f"{path} is missing, and {INDEX} lists it")
        if (size := path.stat().st_size) != row["bytes"]:
            raise UserError(f"{path} is damaged: {size} bytes, and {INDEX} says {row['bytes']}; copy it again, or convert again")
        first = shards[-1].first + shards[-1].samples if shards else 0
        shards.append(Shard(path, first, row["samples"], row["bytes"], row["sha256"]))
    listed = {shard.path.name for shard in shards}
    if len(listed) < len(shards) or not shards:
        raise UserError(f"{root / INDEX}: lists {'a shard twice' if shards else 'no shard'} for {split}")
    if unlisted := sorted(path.name for path in root.glob(f"{split}-*.tar") if path.name not in listed):
        raise UserError(f"{root / unlisted[0]} is not in {INDEX}; remove it, or convert again")
    return shards
