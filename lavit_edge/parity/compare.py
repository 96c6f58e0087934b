"""Agreement between forms of one model, from their logits on the same pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lavit_edge.errors import UserError

FLOAT, FAKE, PROGRAM = "torch fp32", "fake-quantised", "int8 program"


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default."""
    p, z2 = hits / total, z * z
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio in dB: power of the reference over power of the difference; inf when equal."""
    reference, other = reference.astype(np.float64), other.astype(np.float64)
    return decibels(float((reference**2).sum()), float(((reference - other) ** 2).sum()))


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; inf without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def logit_step(logits: np.ndarray) -> float:
    """The size of one 8-bit step over the range of these logits; the head is float, so they have no grid of their own."""
    return float(logits.max() - logits.min()) / 255


@dataclass(frozen=True)
class Gates:
    """What a bundle must reach. One differing picture is always allowed, so that 50 pictures can pass a 99 % gate.

    Attributes:
        agreement: least share of pictures with the same top-1, artifact against its own program.
        int8_sqnr, int8_float16_sqnr: least SQNR in dB of an int8 artifact against the int8 program; of an ``.mlpackage``, which
            is fp16 between its int8 layers.
        float_sqnr, float16_sqnr: of a float artifact against torch; of an ``.mlpackage``, which is fp16.
        foreign_sqnr: stands for both of int8 on pictures without labels of the model: their logits are smaller and the rounding
            noise is not (the bundled model: 33.8 to 36.6 dB on the free pictures where it has 38.3 to 40.4 on Imagenette).
        max_drop: most points of top-1 that the int8 program may lose against fp32, on labelled pictures.
    """

    agreement: float = 0.99
    int8_sqnr: float = 40.0
    int8_float16_sqnr: float = 36.0
    foreign_sqnr: float = 32.0
    float_sqnr: float = 90.0
    float16_sqnr: float = 50.0
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.agreement <= 1:
            raise UserError(f"--agreement is a share between 0 and 1, not {self.agreement}")


@dataclass(frozen=True)
class Pair:
    """``row`` against ``column`` (the reference of the SQNR) on the same pictures."""

    row: str
    column: str
    agreement: float
    agreement_low: float
    sqnr_db: float
    max_delta_steps: float


@dataclass
class Parity:
    """The agreement matrix on one set of pictures, and which gates it failed."""

    pictures: int
    labelled: bool
    names: list[str]
    top1: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def pair(self, row: str, column: str) -> Pair:
        return next(p for p in self.pairs if (p.row, p.column) == (row, column))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; an SQNR that is infinite (equal to the last bit) or undefined (NaN logits) becomes null."""
        document = asdict(self)
        for pair in document["pairs"]:
            if not math.isfinite(pair["sqnr_db"]):
                pair["sqnr_db"] = None
        return document


def compare(logits: dict[str, np.ndarray], targets: np.ndarray | None, reference: str, gates: Gates) -> Parity:
    """Every form against every other.

    Args:
        logits: form -> ``(pictures, classes)``; artifacts are named by their file.
        targets: ``(pictures,)`` class indices, or None when the pictures have no label of this model.
        reference: the form that artifacts are gated against.
    """
    pictures = len(logits[reference])
    result = Parity(pictures, targets is not None, list(logits))
    predicted = {name: values.argmax(1) for name, values in logits.items()}
    if targets is not None:
        for name in logits:
            hits = int((predicted[name] == targets).sum())
            result.top1[name] = (hits / pictures, *wilson(hits, pictures))
    for row in logits:
        for column in logits:
            if row != column:
                same = int((predicted[row] == predicted[column]).sum())
                delta = float(np.abs(logits[row] - logits[column]).max()) / (logit_step(logits[column]) or 1.0)
                noise = sqnr(logits[column], logits[row])
                result.pairs.append(Pair(row, column, same / pictures, wilson(same, pictures)[0], noise, delta))
    result.failures = _failures(result, reference, gates)
    return result


def _failures(result: Parity, reference: str, gates: Gates) -> list[str]:
    failures = []
    for name in result.names:
        if name in (FLOAT, FAKE, PROGRAM):
            continue
        pair = result.pair(name, reference)
        float16 = name.endswith(".mlpackage")
        if reference == FLOAT:
            least = gates.float16_sqnr if float16 else gates.float_sqnr
        elif not result.labelled:
            least = gates.foreign_sqnr
        else:
            least = gates.int8_float16_sqnr if float16 else gates.int8_sqnr
        if not pair.sqnr_db >= least:
            failures.append(f"{name}: {pair.sqnr_db:.1f} dB against {reference}, wanted {least:g}")
        differing = round((1 - pair.agreement) * result.pictures)
        if pair.agreement < gates.agreement and differing > 1:
            failures.append(f"{name}: top-1 differs from {reference} on {differing} of {result.pictures} pictures")
    if PROGRAM in result.top1:
        drop = 100 * (result.top1[FLOAT][0] - result.top1[PROGRAM][0])
        if drop > gates.max_drop + 1e-9:
            failures.append(f"int8 program: {drop:.2f} points of top-1 under fp32, at most {gates.max_drop:g} allowed")
    return failures
