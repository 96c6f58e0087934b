"""Labels and probabilities of pictures: what ``predict`` gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from lavit_edge.contract.answers import decide
from lavit_edge.contract.pictures import SUFFIXES, UnreadablePicture, open_picture
from lavit_edge.errors import UserError, one_line
from lavit_edge.see.source import Source, counting


@dataclass(frozen=True)
class Label:
    """What a picture may show, and how probable the model finds it, from 0 to 1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The most probable labels of a picture, the first before the others, and whether the first is as probable as the model's
    contract wants of an answer."""

    picture: str
    labels: tuple[Label, ...]
    sure: bool


@dataclass(frozen=True)
class Predicted:
    """
    Attributes:
        model, form: what answered.
        answers: in the order of the pictures.
        unreadable: a line for each picture that could not be decoded; it names the file.
    """

    model: str
    form: str
    answers: tuple[Answer, ...]
    unreadable: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every picture could be read."""
        return not self.unreadable

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def rows(self) -> Iterator[tuple[str, int, str, float, bool]]:
        """Picture, rank from 1, label, probability and whether the model is sure, a row for each label."""
        for answer in self.answers:
            for rank, each in enumerate(answer.labels, 1):
                yield answer.picture, rank, each.label, each.probability, answer.sure


def find_pictures(given: Sequence[Path | str]) -> list[Path]:
    """The files, and the pictures in the folders and below them, in the order of their names; what is hidden is left out.

    Raises:
        UserError: nothing there, or a folder without pictures.
    """
    if not given:
        raise UserError("no pictures were named")
    found: list[Path] = []
    for path in map(Path, given):
        if not path.exists():
            raise UserError(f"{path} does not exist")
        if not path.is_dir():
            found.append(path)
            continue
        inside = [each for each in sorted(path.rglob("*")) if each.suffix.lower() in SUFFIXES and each.is_file()]
        inside = [each for each in inside if not any(part.startswith(".") for part in each.relative_to(path).parts)]
        if not inside:
            raise UserError(f"{path}: no pictures found ({', '.join(sorted(SUFFIXES))})")
        found += inside
    return list(dict.fromkeys(found))


def answer(source: Source, pictures: Sequence[Path], top: int, console: Console) -> Predicted:
    """Asks the model about each picture; those that cannot be decoded are noted, and the others go on."""
    answers, unreadable = [], []
    with counting("looking", len(pictures), console) as progress:
        for path in pictures:
            try:
                found = source.probabilities(open_picture(path))
            except UnreadablePicture as error:
                unreadable.append(one_line(str(error) if str(path) in str(error) else f"{path}: {error}"))
            else:
                best = np.argsort(-found, kind="stable")[:top]
                labels = (Label(source.contract.labels[index], float(found[index])) for index in best)
                sure = decide(found, source.contract.threshold) is not None
                answers.append(Answer(str(path), tuple(labels), sure))
            progress.advance(progress.task_ids[0])
    return Predicted(source.name, source.form, tuple(answers), tuple(unreadable))
