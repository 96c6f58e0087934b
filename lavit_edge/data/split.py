"""A folder of classes into ``train/`` and ``val/``: by chance from a seed, the same share of each class, and what looks alike
stays together, so that the val split does not judge on what was trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lavit_edge.cli import option
from lavit_edge.contract.pictures import UnreadablePicture, open_picture
from lavit_edge.data.folder import class_names
from lavit_edge.data.inventory import Inventory, class_folders, pictures_of
from lavit_edge.errors import UserError
from lavit_edge.files import new_folder

SIDE = 16  # of the grid of a look: 256 bits
# Bits in which two looks may differ. Measured on 240 pictures of four classes of Imagenette: JPEG at quality 30 differs in 33 at
# most, half the size in 23, 2 % cut off in 37, a fifth more brightness in 18 (95 of 100), 5 % cut off in 41 (the median); 7,080
# pairs of other pictures of one class in 59 at least.
ALIKE = 40


@dataclass(frozen=True)
class SplitConfig:
    """The options of ``python -m lavit_edge.split``, by the same names.

    Raises:
        UserError: a value is out of range.
    """

    val: float = option(0.2, "share of each class's pictures to judge on")
    seed: int = option(0, "the same seed gives the same split")

    def __post_init__(self) -> None:
        if not 0 < self.val < 1:
            raise UserError(f"--val must be between 0 and 1, not {self.val}")
        if self.seed < 0:
            raise UserError(f"--seed must be at least 0, not {self.seed}")


def split(folder: Path, out: Path, config: SplitConfig, tell: Callable[[str], None] = lambda line: None) -> dict[str, int]:
    """Copies ``folder/<class>/<picture>`` to ``out/train/`` and ``out/val/``, and ``labels.csv``; pictures that cannot be decoded
    are left out.

    Returns:
        How many pictures each split has.

    Raises:
        UserError: ``folder`` holds no classes, or is split already; a class has no picture; ``out`` is not empty.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give one with <class>/<picture>")
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        raise UserError(f"{folder} is split already: it has train/ and val/")
    inventory = Inventory("all")
    classes = class_folders(folder, class_names(folder), inventory)
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} class folders; there is nothing to tell apart")
    rng, counts, together = np.random.default_rng(config.seed), {"train": 0, "val": 0}, 0
    with new_folder(out) as new:
        for label, own in classes.items():
            pictures, looks = _looks(pictures_of(own, inventory), inventory)
            if not pictures:
                raise UserError(f"{own}: class {label!r} has no picture that can be decoded; remove it, or add some")
            inventory.counts[label] = len(pictures)
            groups = alike(looks)
            together += len(pictures) - len(groups)
            chosen = choose(groups, config.val, rng)
            if not chosen:
                tell(f"class {label!r} has one picture, or only such that look alike: all are trained on")
            for number, picture in enumerate(pictures):
                name = "val" if number in chosen else "train"
                counts[name] += 1
                target = new / name / own.name / picture.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(picture, target)
        if not counts["val"]:
            raise UserError(f"{folder}: no class has two pictures that differ, so there is nothing to judge on")
        if (folder / "labels.csv").exists():
            shutil.copyfile(folder / "labels.csv", new / "labels.csv")
        found = {"seed": config.seed, "val": config.val, "kept_together": together, **inventory.to_dict(), "splits": counts}
        (new / "split.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for line in inventory.lines():
        tell(line)
    tell(f"{counts['train']} to train on, {counts['val']} to judge on; {together} stay with one that looks alike")
    return counts


def _looks(files: list[Path], inventory: Inventory) -> tuple[list[Path], np.ndarray]:
    """The pictures that can be decoded, and ``(pictures, 2, 256)`` of their looks, as they are and mirrored."""
    kept, rows = [], []
    for file in files:
        try:
            picture = open_picture(file)
        except UnreadablePicture as error:
            inventory.ignored.append((f"{file.parent.name}/{file.name}", str(error).removeprefix(f"{file}: ")))
        else:
            kept.append(file)
            rows.append([look(picture), look(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))])
    return kept, np.array(rows, dtype=bool).reshape(len(kept), 2, SIDE * SIDE)


def look(picture: Image.Image) -> np.ndarray:
    """256 bits: whether each field of a grid is brighter than its left neighbour (the "dHash" of Krawetz, 2013)."""
    fields = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.int16)
    return (fields[:, 1:] > fields[:, :-1]).ravel()


def alike(looks: np.ndarray) -> list[list[int]]:
    """Groups of pictures, by number: two are in one group where they, or one and the other's mirror image, differ in ``ALIKE``
    bits at most, or where others between them do so step by step."""
    parents = list(range(len(looks)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    packed = np.packbits(looks, axis=2)
    for number in range(len(looks) - 1):
        for side in (0, 1):
            apart = np.bitwise_count(packed[number + 1 :, side] ^ packed[number, 0]).sum(1)
            for other in np.flatnonzero(apart <= ALIKE):
                parents[root(number + 1 + int(other))] = root(number)
    groups: dict[int, list[int]] = {}
    for number in range(len(looks)):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def choose(groups: list[list[int]], share: float, rng: np.random.Generator) -> set[int]:
    """Whole groups for the val split, as near to the share as they come by chance; none where there is one group alone."""
    total = sum(map(len, groups))
    wanted = max(1, round(share * total))
    order = [groups[number] for number in rng.permutation(len(groups))]
    if len(groups) < 2:
        return set()
    chosen: list[list[int]] = []
    for group in order[:-1]:  # one is left to train on
        if sum(map(len, chosen)) + len(group) <= wanted:
            chosen.append(group)
    return {number for group in chosen or [min(order, key=len)] for number in group}
