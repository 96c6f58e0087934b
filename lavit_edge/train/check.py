"""What a run does before its first step: every picture is decoded once, and those left out that cannot be, or come twice.

The processes share the work. A run that goes on repeats it only where a file has changed since: ``digests.npy`` in its folder has
a number for each picture, and ``inventory.json`` says what was found.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import UnreadablePicture, load_input
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.inventory import refuse_empty
from lavit_edge.errors import UserError
from lavit_edge.files import read_json, write_json, write_whole
from lavit_edge.train.world import World

INVENTORY, DIGESTS = "inventory.json", "digests.npy"
UNREADABLE = 0.0  # else 48 bits of a digest of the file's bytes, which float64 holds


def check_pictures(
    splits: Sequence[PictureFolder], contract: InputContract, out: Path, world: World, strict: bool, tell: Callable[[str], None]
) -> str:
    """Drops the pictures of train and val that cannot be used, and tells what there is. All processes call it.

    Left out are pictures that cannot be decoded or brought to the contract's size, one that comes again in its class, one that is
    in two classes of a split, and one of the val split that is trained on, too.

    Returns:
        A digest of the pictures that are left, by their names and bytes: it stays as it is when a folder is copied.

    Raises:
        UserError: a picture had to be left out, under ``strict``; or none is left of a class to train on, or of the val split.
    """
    listing = _listing(splits)
    known = _remembered(out, listing) if world.main else None
    (remembered,) = world.sum(float(known is not None))
    if not remembered:
        known = _look(splits, contract, world)
    digests = world.sum(*(known if known is not None else np.zeros(sum(map(len, splits)))))
    if world.main:
        stream = io.BytesIO()
        np.save(stream, np.array(digests))
        write_whole(out / DIGESTS, stream.getvalue())
    rows = [digests[: len(splits[0])], digests[len(splits[0]) :]]
    left_out = _twice(splits, rows)
    for split, own, reasons in zip(splits, rows, left_out, strict=True):
        for index in (index for index, digest in enumerate(own) if digest == UNREADABLE):
            reasons[index] = _why(split.paths[index], contract)
        _drop(split, reasons, strict)
    for split in splits:
        for line in split.inventory.lines():
            tell(line)
    if world.main:
        write_json(
            out / INVENTORY, {"listing": listing, **{split.inventory.split: split.inventory.to_dict() for split in splits}}
        )
    kept = [[digest for index, digest in enumerate(own) if index not in out] for own, out in zip(rows, left_out, strict=True)]
    names = [[split.name(index) for index in range(len(split))] for split in splits]
    return hashlib.sha256(json.dumps([kept, names]).encode()).hexdigest()


def _listing(splits: Sequence[PictureFolder]) -> str:
    """Changes with the names, sizes and times of the files; what is none, such as a link to nothing, has neither."""
    paths = [path for split in splits for path in split.paths]
    stats = [path.stat() if path.is_file() else None for path in paths]
    files = [(p.parent.name, p.name, *((s.st_size, s.st_mtime_ns) if s else ())) for p, s in zip(paths, stats, strict=True)]
    return hashlib.sha256(json.dumps([[len(split) for split in splits], files]).encode()).hexdigest()


def _remembered(out: Path, listing: str) -> np.ndarray | None:
    """The numbers of the run before, where they are of these files."""
    try:
        if read_json(out / INVENTORY)["listing"] == listing:
            return np.load(out / DIGESTS, allow_pickle=False)
    except (UserError, OSError, ValueError, KeyError, TypeError, EOFError):
        pass
    return None


def _look(splits: Sequence[PictureFolder], contract: InputContract, world: World) -> np.ndarray:
    """The number of each picture of this process's part; 0 for those of others."""
    paths = [path for split in splits for path in split.paths]
    numbers = np.zeros(len(paths))
    own = range(world.rank, len(paths), world.size)
    with ThreadPoolExecutor(2) as threads:  # PIL decodes without Python's lock
        numbers[own.start :: own.step] = list(threads.map(lambda index: _digest(paths[index], contract), own))
    return numbers


def _digest(path: Path, contract: InputContract) -> float:
    if not path.is_file():  # a pipe would be waited for, a device never ends
        return UNREADABLE
    try:
        data = path.read_bytes()
        load_input(data, contract)
    except (UnreadablePicture, OSError):
        return UNREADABLE
    return 1.0 + int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "big")


def _why(path: Path, contract: InputContract) -> str:
    try:
        load_input(path, contract)
    except UnreadablePicture as error:
        return str(error).removeprefix(f"{path}: ")
    return "could not be read"


def _twice(splits: Sequence[PictureFolder], rows: Sequence[Sequence[float]]) -> list[dict[int, str]]:
    """Of each split, pictures that are there twice, and why they are left out."""
    reasons: list[dict[int, str]] = [{} for _ in splits]
    seen: list[dict[float, list[int]]] = [{} for _ in splits]
    for places, row in zip(seen, rows, strict=True):
        for index, digest in enumerate(row):
            if digest != UNREADABLE:
                places.setdefault(digest, []).append(index)
    for split, places, why in zip(splits, seen, reasons, strict=True):
        for indices in places.values():
            classes = {split.targets[index] for index in indices}
            if len(classes) > 1:
                why |= dict.fromkeys(indices, "the same picture is in two classes")
            else:
                why |= dict.fromkeys(indices[1:], "the same picture comes again in its class")
    for digest in seen[0].keys() & seen[1].keys():
        reasons[1] |= dict.fromkeys(seen[1][digest], "the same picture is trained on")
    return reasons


def _drop(split: PictureFolder, reasons: dict[int, str], strict: bool) -> None:
    for index, why in sorted(reasons.items()):
        if strict:
            raise UserError(f"{split.paths[index]}: {why}; refused under --strict")
        split.inventory.ignored.append((split.name(index), why))
    before = {target: split.paths[index].parent for index, target in enumerate(split.targets)}
    split.drop(reasons)
    if not split.paths:
        raise UserError(f"no {split.inventory.split} picture is left; the first: {split.inventory.ignored[-1]}")
    left = np.bincount(split.targets, minlength=len(split.labels)).tolist()
    split.inventory.counts = dict(zip(split.labels, left, strict=True))
    if split.inventory.split == "train":
        for target, folder in before.items():
            if not left[target]:
                refuse_empty(folder, split.labels[target], split.inventory)
