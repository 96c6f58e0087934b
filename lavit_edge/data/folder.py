"""A folder of labelled pictures: ``<root>/<split>/<class>/<picture>``."""

from __future__ import annotations

import copy
import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import SUFFIXES, UnreadablePicture, load_input, open_picture
from lavit_edge.data.inventory import Inventory, check_labels, class_folders, normal, pictures_of, refuse_empty
from lavit_edge.errors import UserError

FREE_PICTURES = Path(__file__).parent.parent / "pictures_cc0"


def class_names(root: Path) -> dict[str, str]:
    """Class folder -> label, from an optional ``<root>/labels.csv`` with the columns ``wnid`` (or ``folder``) and ``name``.
    A folder that it does not name is its own label."""
    table = root / "labels.csv"
    if not table.exists():
        return {}
    if not table.is_file():
        raise UserError(f"{table}: not a file")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte order mark first
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{table}: not a UTF-8 table ({error})") from error
    column = "folder" if rows and "folder" in rows[0] else "wnid"
    if not rows or column not in rows[0] or "name" not in rows[0]:
        raise UserError(f"{table}: needs the columns 'wnid' (or 'folder') and 'name'")
    if any(row[column] is None or row["name"] is None for row in rows):
        raise UserError(f"{table}: a row has too few columns")
    named = {normal(row[column]): normal(row["name"]) for row in rows}
    if len(named) < len(rows):
        raise UserError(f"{table}: a folder is named twice")
    return named


class Pictures(Protocol):
    """What can be judged on: the pictures of a folder, or those of shards."""

    def __len__(self) -> int:
        """How many there are."""

    def part(self, index: int, count: int) -> Pictures:
        """One of ``count`` parts that hold each picture once between them."""

    def inputs(self, contract: InputContract, strict: bool = False) -> Iterator[tuple[np.ndarray, int]]:
        """Yields ``(uint8 (size, size, 3), class index)`` of each picture."""

    def name(self, index: int) -> str:
        """What a picture is called, by its place among those that :meth:`inputs` gave."""


class PictureFolder:
    """The pictures of one split, in a fixed order: classes in the order of ``labels``, pictures by file name. Names are compared
    in NFC.

    Attributes:
        labels: class names; the index of a name is its class. By default those of the class folders, sorted by folder name.
        paths, targets: one file and one class index per picture.
        inventory: what lies there, and what was left out of it.
        skipped: why pictures could not be decoded; :meth:`check` and :meth:`inputs` drop those from ``paths`` and ``targets``.

    Raises:
        UserError: the folder is missing or empty, two class folders have one label, a class is not among ``labels``, a folder is
            no class, or its pictures lie deeper; ``train`` has a class without pictures.
    """

    def __init__(self, root: Path | str, split: str, labels: tuple[str, ...] | None = None) -> None:
        root = Path(root)
        folder = root / split
        if not folder.is_dir():
            if any(root.glob("*-000000.tar")):
                raise UserError(f"{root} holds shards; turn them into a folder with python -m lavit_edge.shards, and give that")
            raise UserError(f"{folder}: no such folder; --data wants train/<class>/ and val/<class>/ with pictures in them")
        names = class_names(root)
        check_labels(root, names)
        self.inventory = Inventory(split)
        classes = class_folders(folder, names, self.inventory)
        self.labels = labels if labels is not None else tuple(classes)
        known = {normal(label) for label in self.labels}
        if unknown := sorted(set(classes) - known):
            raise UserError(f"{folder}: class {unknown[0]!r} is not one of the labels ({', '.join(self.labels)})")
        self.paths: list[Path] = []
        self.targets: list[int] = []
        for index, label in enumerate(self.labels):
            own = classes.get(normal(label))
            pictures = pictures_of(own, self.inventory) if own else []
            if own and not pictures and split == "train":
                refuse_empty(own, label, self.inventory)
            self.inventory.counts[label] = len(pictures)
            self.paths += pictures
            self.targets += [index] * len(pictures)
        if not self.paths:
            raise UserError(f"{folder}: no pictures found in class folders ({', '.join(sorted(SUFFIXES))})")
        self.skipped: list[UnreadablePicture] = []

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, index: int, count: int) -> PictureFolder:
        """Every ``count``-th picture, from number ``index`` on."""
        out = copy.copy(self)
        out.paths, out.targets, out.skipped = self.paths[index::count], self.targets[index::count], []
        return out

    def spread(self, count: int) -> PictureFolder:
        """This folder cut down in place to ``count`` pictures, taken evenly over the classes, the same ones each time."""
        if count < len(self):
            rows = [np.flatnonzero(np.array(self.targets) == label) for label in np.unique(self.targets)]
            shares = even_shares([len(row) for row in rows], count)
            keep = [row[i] for row, share in zip(rows, shares, strict=True) for i in _evenly(len(row), share)]
            self.paths = [self.paths[i] for i in keep]
            self.targets = [self.targets[i] for i in keep]
        return self

    def drop(self, indices: Collection[int]) -> None:
        """Takes pictures out."""
        out = set(indices)
        self.paths = [path for index, path in enumerate(self.paths) if index not in out]
        self.targets = [target for index, target in enumerate(self.targets) if index not in out]

    def check(self, strict: bool) -> None:
        """Decodes every picture once; drops those that cannot be decoded, or raises on the first under ``strict``."""
        for path in list(self.paths):
            try:
                open_picture(path)
            except UnreadablePicture as error:
                self._skip(path, error, strict)

    def inputs(self, contract: InputContract, strict: bool = False) -> Iterator[tuple[np.ndarray, int]]:
        """Yields ``(uint8 (size, size, 3), class index)`` of each picture; drops those that cannot be decoded, or raises."""
        for path, target in list(zip(self.paths, self.targets, strict=True)):
            try:
                picture = load_input(path, contract)
            except UnreadablePicture as error:
                self._skip(path, error, strict)
            else:
                yield picture, target

    def name(self, index: int) -> str:
        """``<class folder>/<file>``."""
        return f"{self.paths[index].parent.name}/{self.paths[index].name}"

    def _skip(self, path: Path, error: UnreadablePicture, strict: bool) -> None:
        if strict:
            raise UserError(f"{error}; refused under --strict")
        index = self.paths.index(path)
        del self.paths[index], self.targets[index]
        self.skipped.append(error)
        if not self.paths:
            raise UserError(f"none of the pictures could be decoded; the first: {self.skipped[0]}")


def even_shares(counts: Sequence[int], total: int) -> list[int]:
    """``total`` dealt out evenly to classes that have ``counts``; what a class lacks goes to the others."""
    shares = [0] * len(counts)
    while left := min(total, sum(counts)) - sum(shares):
        hungry = [index for index, count in enumerate(counts) if shares[index] < count]
        each, rest = divmod(left, len(hungry))
        for index in hungry:
            shares[index] = min(counts[index], shares[index] + each)
        if not each:
            for place in _evenly(len(hungry), rest):
                shares[hungry[place]] += 1
    return shares


def _evenly(length: int, count: int) -> list[int]:
    """``count`` places of a row of ``length``, from its first to its last."""
    return np.linspace(0, length - 1, count).round().astype(int).tolist()


def free_pictures(contract: InputContract) -> PictureFolder:
    """The pictures that ship with the package; their classes are not the model's, so they show agreement and no accuracy."""
    return PictureFolder(FREE_PICTURES, "val")


def labelled_pictures(data: Path, contract: InputContract, count: int) -> PictureFolder:
    """``count`` pictures of ``data``'s val split, evenly over the classes."""
    return PictureFolder(data, "val", contract.labels).spread(count)


def batches(folder: Pictures, contract: InputContract, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields ``(uint8 (B, S, S, 3), int64 (B,))`` in the folder's order."""
    rows: list[tuple[np.ndarray, int]] = []
    for row in folder.inputs(contract):
        rows.append(row)
        if len(rows) == size:
            yield np.stack([p for p, _ in rows]), np.array([t for _, t in rows])
            rows = []
    if rows:
        yield np.stack([p for p, _ in rows]), np.array([t for _, t in rows])
