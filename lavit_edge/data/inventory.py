"""What lies in a folder of pictures: which folders are classes, which files are pictures, and what is left out and why."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavit_edge.contract.pictures import HEIC, HEIC_PACKAGE, SUFFIXES, suffixes
from lavit_edge.errors import UserError

# What archives, network disks and file managers leave; a class of this name would be learned as one
NO_CLASSES = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "node_modules"}
)
NOT_A_PICTURE, NOT_IN_A_CLASS = "not called like a picture", "in no class folder"
NEEDS_HEIC = f"{HEIC_PACKAGE} is needed to read it (pip install {HEIC_PACKAGE})"
NAMED = 3  # files of each kind that a line names


@dataclass
class Inventory:
    """
    Attributes:
        counts: pictures of each class, by its label.
        ignored: ``<class folder>/<file>`` and why it is left out.
    """

    split: str
    counts: dict[str, int] = field(default_factory=dict)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """To be printed: the split, then a line for each reason to leave something out."""
        filled = [count for count in self.counts.values() if count]
        range_ = f"{min(filled)} to {max(filled)} a class" if len(set(filled)) > 1 else f"{filled[0]} a class"
        lines = [f"{self.split}: {len(filled)} classes, {sum(filled)} pictures, {range_}"]
        if missing := [label for label, count in self.counts.items() if not count]:
            lines.append(f"{self.split}: no picture of {_few(missing)}")
        for why, count in Counter(why for _, why in self.ignored).items():
            lines.append(
                f"{self.split}: {count} left out, {why}: {_few([name for name, reason in self.ignored if reason == why])}"
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"classes": self.counts, "pictures": sum(self.counts.values()), "left_out": [list(each) for each in self.ignored]}


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def normal(name: str) -> str:
    """A name in NFC: macOS writes ``é`` as two letters, others as one."""
    return unicodedata.normalize("NFC", name)


def class_folders(folder: Path, names: dict[str, str], inventory: Inventory) -> dict[str, Path]:
    """Label -> folder of each class, sorted by folder name.

    Raises:
        UserError: a folder is none of pictures, or two have one label.
    """
    classes: dict[str, Path] = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: normal(entry.name)):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            inventory.ignored.append((entry.name, NOT_IN_A_CLASS))
            continue
        if entry.name.lower() in NO_CLASSES:
            raise UserError(f"{entry} is no class but what an archive or a disk left there; remove it")
        label = names.get(normal(entry.name), normal(entry.name))
        if label in classes:
            how = "both called" if label in names.values() else "both written"
            raise UserError(f"{folder}: {classes[label].name} and {entry.name} are {how} {label!r}; each class is one folder")
        classes[label] = entry
    return classes


def pictures_of(folder: Path, inventory: Inventory) -> list[Path]:
    """The pictures of a class, by file name.

    Raises:
        UserError: some lie one folder deeper.
    """
    pictures, wanted = [], suffixes()
    for file in sorted(folder.iterdir(), key=lambda file: normal(file.name)):
        if file.name.startswith("._") or (file.name.startswith(".") and file.suffix.lower() not in wanted):
            continue  # what macOS and others put beside files; a hidden picture is one
        if file.is_dir():
            if file.name.lower() not in NO_CLASSES and (deeper := _picture_in(file)):
                raise UserError(
                    f"{folder}: {file.name}/{deeper} lies one folder deeper than <split>/<class>/<picture>; move the pictures of "
                    "a class into its folder itself, or --data to the folder that has train/ and val/"
                )
            inventory.ignored.append((f"{folder.name}/{file.name}", "a folder without pictures"))
        elif file.suffix.lower() in wanted:
            pictures.append(file)
        else:
            why = NEEDS_HEIC if file.suffix.lower() in HEIC else NOT_A_PICTURE
            inventory.ignored.append((f"{folder.name}/{file.name}", why))
    return pictures


def _picture_in(folder: Path) -> str | None:
    """The path of the first picture in a folder, from there; None: it has none."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES | HEIC and not file.name.startswith("."))
    first = min(found, default=None)
    return None if first is None else first.relative_to(folder).as_posix()


def refuse_empty(folder: Path, label: str, inventory: Inventory) -> None:
    """Raises :class:`UserError` on a class of the train split without pictures, with what there is instead."""
    own = [why for name, why in inventory.ignored if Path(name).parent.name == folder.name]
    if NEEDS_HEIC in own:
        raise UserError(f"{folder}: class {label!r} has .heic pictures alone; pip install {HEIC_PACKAGE}, or convert them")
    raise UserError(f"{folder}: class {label!r} has no pictures to train on; add some, or remove the folder if it is no class")


def check_labels(root: Path, names: dict[str, str]) -> None:
    """Raises :class:`UserError` where ``labels.csv`` names a folder that no split has."""
    there = {normal(folder.name) for split in root.iterdir() if split.is_dir() for folder in split.iterdir() if folder.is_dir()}
    if unknown := sorted(set(names) - there):
        raise UserError(f"{root / 'labels.csv'}: no split has a folder {unknown[0]!r} ({len(unknown)} such rows); remove them")
