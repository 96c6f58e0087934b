"""How often a model is right on labelled pictures, how well it knows that, and where it errs: what ``evaluate`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from lavit_edge.contract.pictures import UnreadablePicture, open_picture
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError, one_line
from lavit_edge.metrics import mcnemar, paired, wilson
from lavit_edge.see.source import Source, counting

BINS = 15  # of confidence, as Guo et al. (2017) have it
TOP = 5


@dataclass(frozen=True)
class Share:
    """So many of so many, and Wilson's 95 % interval of the share."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        return self.hits / self.total

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.total)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"hits": self.hits, "total": self.total, "share": self.value, "interval": list(self.interval)}


@dataclass(frozen=True)
class Bin:
    """The pictures that a model was about as sure of: how many, how sure on average, and the share that it had right."""

    low: float
    high: float
    pictures: int
    confidence: float
    right: float


@dataclass(frozen=True)
class PerClass:
    """A class: how often it is found, and what it is most often taken for (None: for nothing else)."""

    label: str
    found: Share
    taken_for: str | None
    times: int


@dataclass(frozen=True)
class Judged:
    """One model on the pictures; arrays have a row for each of them.

    Attributes:
        pictures: the files.
        targets, predicted: int64, indices of labels.
        confidence, right_probability: float64, of the label that came first, and of the right one.
        rank: int64, of the right label; 0 is the first.
        threshold: the contract's; answers below it are "not sure".
    """

    model: str
    form: str
    labels: tuple[str, ...]
    pictures: tuple[str, ...]
    targets: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right_probability: NDArray[np.float64]
    rank: NDArray[np.int64]
    threshold: float = 0.0

    @property
    def answered(self) -> Share:
        """Pictures that the model is sure enough of."""
        return Share(int((self.confidence >= self.threshold).sum()), len(self.rank))

    @property
    def right_when_sure(self) -> Share:
        """Of those, the ones that it has right."""
        sure = self.confidence >= self.threshold
        return Share(int((self.rank[sure] == 0).sum()), int(sure.sum()))

    @property
    def top1(self) -> Share:
        return Share(int((self.rank == 0).sum()), len(self.rank))

    @property
    def top5(self) -> Share | None:
        """None where there are five labels or fewer."""
        return Share(int((self.rank < TOP).sum()), len(self.rank)) if len(self.labels) > TOP else None

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """``(classes, classes)``: pictures of the row's class that were taken for the column's."""
        counts = np.zeros((len(self.labels),) * 2, np.int64)
        np.add.at(counts, (self.targets, self.predicted), 1)
        return counts

    @cached_property
    def classes(self) -> list[PerClass]:
        """Those that have pictures, in the order of the labels."""
        found = []
        for index in np.flatnonzero(self.confusion.sum(1)):
            row = self.confusion[index].copy()
            hits, total = int(row[index]), int(row.sum())
            row[index] = 0
            other = int(row.argmax())
            taken_for = self.labels[other] if row[other] else None
            found.append(PerClass(self.labels[index], Share(hits, total), taken_for, int(row[other])))
        return found

    def confusions(self, most: int) -> list[tuple[str, str, int]]:
        """Class, what it was taken for, and how often: the most frequent first."""
        wrong = self.confusion * ~np.eye(len(self.labels), dtype=bool)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = (np.unravel_index(index, wrong.shape) for index in order)
        return [(self.labels[row], self.labels[column], int(wrong[row, column])) for row, column in pairs if wrong[row, column]]

    @cached_property
    def bins(self) -> list[Bin]:
        """Those of the equally wide bins of confidence that hold pictures."""
        place = np.clip(np.ceil(self.confidence * BINS).astype(int) - 1, 0, BINS - 1)
        right, found = self.rank == 0, []
        for index in np.unique(place):
            here = place == index
            means = float(self.confidence[here].mean()), float(right[here].mean())
            found.append(Bin(index / BINS, (index + 1) / BINS, int(here.sum()), *means))
        return found

    @property
    def ece(self) -> float:
        """Expected calibration error: by how much confidence and share of right answers differ, averaged over the pictures."""
        return sum(each.pictures * abs(each.confidence - each.right) for each in self.bins) / len(self.rank)

    @property
    def nll(self) -> float:
        """Mean negative logarithm of the right label's probability."""
        return float(-np.log(np.maximum(self.right_probability, np.finfo(float).tiny)).mean())

    def worst(self, most: int) -> list[int]:
        """The mistakes in which the wrong label's probability is farthest above the right one's, as rows."""
        wrong = np.flatnonzero(self.rank)
        order = np.argsort((self.right_probability - self.confidence)[wrong], kind="stable")
        return wrong[order][:most].tolist()

    def mistake(self, row: int) -> dict[str, Any]:
        """Plain JSON values of a picture: what it is, what it was taken for, and with which probabilities."""
        return {
            "picture": self.pictures[row],
            "label": self.labels[self.targets[row]],
            "probability": float(self.right_probability[row]),
            "taken_for": self.labels[self.predicted[row]],
            "with_probability": float(self.confidence[row]),
        }

    def to_dict(self, worst: int) -> dict[str, Any]:
        """Plain JSON values, with so many of the worst mistakes."""
        return {
            "model": self.model,
            "form": self.form,
            "top1": self.top1.to_dict(),
            "top5": self.top5 and self.top5.to_dict(),
            "threshold": self.threshold,
            "answered": self.answered.to_dict(),
            "right_when_sure": self.right_when_sure.to_dict() if self.answered.hits else None,
            "ece": self.ece,
            "mean_confidence": float(self.confidence.mean()),
            "nll": self.nll,
            "bins": [vars(each) for each in self.bins],
            "classes": [{**vars(each), "found": each.found.to_dict()} for each in self.classes],
            "labels": list(self.labels),
            "confusion": self.confusion.tolist(),
            "worst": [self.mistake(row) for row in self.worst(worst)],
        }


@dataclass(frozen=True)
class Compared:
    """Two models on the same pictures.

    Attributes:
        only_first, only_second: pictures that only that one has right.
        differing: rows of the pictures for which they have different labels.
    """

    only_first: int
    only_second: int
    differing: tuple[int, ...]
    total: int

    @property
    def difference(self) -> float:
        """Of the shares of right answers, second less first."""
        return (self.only_second - self.only_first) / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of :attr:`difference`, from the same pictures."""
        return paired(self.only_first, self.only_second, self.total)

    @property
    def p(self) -> float:
        """McNemar's, exact: how probable so uneven a difference would be between two models that are equally good."""
        return mcnemar(self.only_first, self.only_second)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the rows."""
        counts = {"only_first": self.only_first, "only_second": self.only_second, "other_label": len(self.differing)}
        return {**counts, "difference": self.difference, "interval": list(self.interval), "p": self.p}


def compare(first: Judged, second: Judged) -> Compared:
    """Two models that were judged on the same pictures, with the same labels in the same order."""
    one, other = first.rank == 0, second.rank == 0
    differing = tuple(np.flatnonzero(first.predicted != second.predicted).tolist())
    return Compared(int((one & ~other).sum()), int((other & ~one).sum()), differing, len(one))


def judge(
    sources: Sequence[Source], folder: PictureFolder, strict: bool, console: Console
) -> tuple[list[Judged], tuple[str, ...]]:
    """Runs the models on every picture, each as its own contract wants it.

    Args:
        folder: its classes are the first model's labels.
        strict: refuse a picture that cannot be decoded.

    Returns:
        What became of each model, and a line for each picture that could not be decoded, which none was asked about.

    Raises:
        UserError: the models do not have the same labels, or no picture could be decoded.
    """
    labels = sources[0].contract.labels
    orders = [_order(labels, source, sources[0].name) for source in sources]
    asked: list[tuple[str, int]] = []
    figures: list[list[tuple[int, float, float, int]]] = [[] for _ in sources]
    unreadable: list[str] = []
    with counting("judging", len(folder), console) as progress:
        for path, target in zip(folder.paths, folder.targets, strict=True):
            try:
                image = open_picture(path)
                found = [source.probabilities(image)[order] for source, order in zip(sources, orders, strict=True)]
            except UnreadablePicture as error:
                if strict:
                    raise UserError(f"{error}; refused under --strict") from error
                unreadable.append(one_line(str(error) if str(path) in str(error) else f"{path}: {error}"))
            else:
                asked.append((str(path), target))
                for rows, each in zip(figures, found, strict=True):
                    rows.append(_figures(each, target))
            progress.advance(progress.task_ids[0])
    if not asked:
        raise UserError(f"none of the pictures could be decoded; the first: {unreadable[0]}")
    pictures, targets = tuple(path for path, _ in asked), np.array([target for _, target in asked], np.int64)
    judged = []
    for source, rows in zip(sources, figures, strict=True):
        first, confidence, right, rank = (np.array(column) for column in zip(*rows, strict=True))
        threshold = source.contract.threshold
        judged.append(Judged(source.name, source.form, labels, pictures, targets, first, confidence, right, rank, threshold))
    return judged, tuple(unreadable)


def _order(labels: tuple[str, ...], source: Source, first: str) -> list[int]:
    """Where each label is among the model's own."""
    own = {label: index for index, label in enumerate(source.contract.labels)}
    if apart := sorted(set(labels) ^ set(own)):
        raise UserError(f"{first} and {source.name} do not have the same labels ({apart[0]!r} is one of a single one's)")
    return [own[label] for label in labels]


def _figures(found: np.ndarray, target: int) -> tuple[int, float, float, int]:
    """Index and probability of the first label, probability and rank of the right one."""
    first, right = int(found.argmax()), found[target]
    rank = int((found > right).sum() + (found[:target] == right).sum())
    return first, float(found[first]), float(right), rank
