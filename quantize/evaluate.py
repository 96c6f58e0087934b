"""Logits of a model on a folder of pictures, and the two figures the int8 model is judged by."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import Tensor

from lavit_edge import metrics
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.folder import batches as folder_batches
from lavit_edge.models.deployed import to_input

TELLING = 4.5  # pictures


@dataclass(frozen=True)
class Metrics:
    """Top-1 in 0..1; SQNR of the logits against the fp32 model in dB (None for that model itself, inf where they are equal)."""

    top1: float
    sqnr_db: float | None

    def to_dict(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: None where the logits are fp32's."""
        return {**asdict(self), "sqnr_db": self.sqnr_db if self.sqnr_db is not None and math.isfinite(self.sqnr_db) else None}


def batches(folder: PictureFolder, contract: InputContract, size: int) -> Iterator[tuple[Tensor, list[int]]]:
    """The folder's pictures as the program takes them: float32 ``(B, 3, size, size)``, contiguous, 0..255; and their classes."""
    for pictures, targets in folder_batches(folder, contract, size):
        yield to_input(pictures), targets.tolist()


def sqnr(reference: Tensor, other: Tensor) -> float:
    """Signal-to-quantisation-noise ratio of logits in dB."""
    return metrics.sqnr(reference.detach().numpy(), other.detach().numpy())


def measure(outputs: Tensor, targets: Tensor, reference: Tensor | None = None) -> Metrics:
    """Metrics of logits, against the fp32 model's ``reference`` logits."""
    top1 = float((outputs.argmax(1) == targets).double().mean())
    return Metrics(top1, None if reference is None else sqnr(reference, outputs))


def better(a: Metrics, b: Metrics, pictures: int, most: float = 1.0) -> bool:
    """Whether ``a`` beats ``b`` on so many pictures: by top-1 where it tells them apart, else by SQNR.

    Between two int8 forms of one model top-1 moves by a few pictures either way: on the bundled model, QAT had one of 3,531 fewer
    right than PTQ, and 3.4 dB less noise. Five pictures are the fewest that two standard errors allow (McNemar, 1947).

    Args:
        most: top-1 of what both imitate. What is right beyond it is right by chance: once PTQ had 15 pictures more than fp32, and
            QAT as many as fp32 and 1.7 dB less noise.
    """
    one, other = min(a.top1, most), min(b.top1, most)
    if abs(one - other) * pictures > TELLING:
        return one > other
    return (a.sqnr_db or 0.0) > (b.sqnr_db or 0.0)
