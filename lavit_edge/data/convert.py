"""Pictures from folders into shards and back; the bytes of their files stay as they are."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lavit_edge.cli import new_console
from lavit_edge.contract.pictures import UnreadablePicture, open_picture, suffixes
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.shards import FORMAT, INDEX, Sample, ShardedPictures, library
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256, new_folder

SPLITS = ("train", "val")
LABELS = "labels.csv"


def to_shards(data: Path, out: Path, pictures_per_shard: int, strict: bool) -> list[UnreadablePicture]:
    """Writes the pictures of ``data/train/<class>/`` and ``data/val/<class>/`` as shards, each split shuffled over its classes.

    The same pictures under the same names give the same bytes. ``labels.csv`` comes along; other files do not.

    Returns:
        The pictures that were left out because they cannot be decoded.

    Raises:
        UserError: ``data`` is no such folder, has one class, or a class without a training picture that can be decoded; ``out``
            is not empty; a name is not UTF-8; a picture cannot be decoded under ``strict``; webdataset is not installed.
    """
    library()
    train = PictureFolder(data, "train")
    folders = {"train": train, "val": PictureFolder(data, "val", train.labels)}
    if len(train.labels) < 2:
        raise UserError(f"{data / 'train'} has one class, {train.labels[0]!r}; there is nothing to tell apart")
    classes = {target: path.parent.name for path, target in zip(train.paths, train.targets, strict=True)}
    _refuse_empty(train, Counter(train.targets), "no picture")
    skipped: list[UnreadablePicture] = []
    with new_folder(out) as new, _progress(sum(map(len, folders.values()))) as progress:
        splits = {
            split: _write_split(folders[split], number, new, pictures_per_shard, strict, skipped, progress)
            for number, split in enumerate(SPLITS)
        }
        _refuse_empty(train, dict(enumerate(splits["train"]["pictures"])), "no picture that can be decoded")
        index = {"format": FORMAT, "classes": [classes[target] for target in range(len(train.labels))], "splits": splits}
        (new / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        if (data / LABELS).exists():
            shutil.copyfile(data / LABELS, new / LABELS)
    return skipped


def _refuse_empty(train: PictureFolder, counts: Mapping[int, int], what: str) -> None:
    for target, label in enumerate(train.labels):
        if not counts[target]:
            raise UserError(f"class {label!r} has {what} to train on")


def _write_split(
    folder: PictureFolder,
    number: int,
    out: Path,
    pictures_per_shard: int,
    strict: bool,
    skipped: list[UnreadablePicture],
    progress: Progress,
) -> dict[str, Any]:
    """Writes the shards of one split; returns its entry in the index."""
    order = np.random.default_rng((0, number)).permutation(len(folder))
    rows: list[dict[str, Any]] = []
    counts = Counter[int]()
    pictures = _readable([(folder.paths[i], folder.targets[i]) for i in order], strict, skipped, progress)
    while chosen := list(islice(pictures, pictures_per_shard)):
        path = out / f"{SPLITS[number]}-{len(rows):06}.tar"
        with path.open("wb") as stream, library().TarWriter(stream, "", "", 0o644, encoder=False, mtime=0) as writer:
            for key, (file, target) in enumerate(chosen, counts.total()):
                label = json.dumps({"cls": target, "file": f"{file.parent.name}/{file.name}"})
                writer.write({"__key__": f"{key:08}", file.suffix[1:].lower(): file.read_bytes(), "json": label.encode()})
        counts.update(target for _, target in chosen)
        rows.append({"name": path.name, "samples": len(chosen), "bytes": path.stat().st_size, "sha256": file_sha256(path)})
    if not rows:
        raise UserError(f"none of the {SPLITS[number]} pictures could be decoded; the first: {skipped[0]}")
    return {"pictures": [counts[target] for target in range(len(folder.labels))], "shards": rows}


def _readable(
    pictures: list[tuple[Path, int]], strict: bool, skipped: list[UnreadablePicture], progress: Progress
) -> Iterator[tuple[Path, int]]:
    for path, target in pictures:
        try:
            f"{path.parent.name}/{path.name}".encode()
            open_picture(path)
        except UnicodeEncodeError as error:
            raise UserError(f"{str(path)!r}: its name is not UTF-8; rename it") from error
        except UnreadablePicture as error:
            if strict:
                raise UserError(f"{error}; refused under --strict") from error
            skipped.append(error)
        else:
            yield path, target
        progress.advance(progress.task_ids[0])


def to_folder(data: Path, out: Path) -> None:
    """Writes the samples of shards as the files that they were, ``out/<split>/<class>/<file>``, and ``labels.csv``.

    Raises:
        UserError: as :class:`ShardedPictures` and its ``check``; ``out`` is not empty; a file's name would lead out of its class
            folder or occurs twice.
    """
    splits = [ShardedPictures(data, split) for split in SPLITS]
    for pictures in splits:
        pictures.check(strict=True)
    with new_folder(out) as new, _progress(sum(map(len, splits))) as progress:
        for pictures in splits:
            for sample in pictures.samples(0, len(pictures)):
                path = new / pictures.split / _safe(sample)
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with path.open("xb") as stream:
                        stream.write(sample.data)
                except FileExistsError as error:
                    raise UserError(f"{sample.source}: {sample.file!r} occurs twice in {pictures.split}") from error
                progress.advance(progress.task_ids[0])
        if (data / LABELS).exists():
            shutil.copyfile(data / LABELS, new / LABELS)


def _safe(sample: Sample) -> Path:
    """``<class folder>/<file name>`` of a sample, which may come from anyone."""
    parts = sample.file.split("/")
    if len(parts) != 2 or any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
        raise UserError(f"{sample.source}: {sample.file!r} is not <class folder>/<file name>")
    if Path(parts[1]).suffix.lower() not in suffixes():
        raise UserError(f"{sample.source}: {sample.file!r} is not called like a picture ({', '.join(sorted(suffixes()))})")
    return Path(*parts)


@contextmanager
def _progress(total: int) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = new_console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        progress.add_task("pictures", total=total)
        yield progress
