"""Agreement between forms of one model, from their logits on the same pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lavit_edge.errors import UserError
from lavit_edge.metrics import centred, logit_step, sqnr, wilson

FLOAT, FAKE, PROGRAM = "torch fp32", "fake-quantised", "int8 program"
# A picture is sure if its first logit leads by more than this many times int8's own noise (root mean square of a logit). An
# artifact may have twice the power of that noise, so that two of its logits differ by 2 noises: three standard deviations.
SURE = 6.0


@dataclass(frozen=True)
class Gates:
    """What a bundle must reach. One differing picture is always allowed, so that 50 pictures can pass a 99 % gate.

    Attributes:
        agreement: least share of pictures with the same top-1, artifact against its own program; in int8, of those that the
            program is sure of.
        int8_margin: how many dB less than the int8 program has against fp32 an int8 artifact may have against the program, on the
            same pictures. Two programs that each round every value their own way are twice the noise of one apart: 3 dB.
        float_sqnr, float16_sqnr: least SQNR in dB of a float artifact against torch; of an ``.mlpackage``, which is fp16. What is
            enough for a float artifact is enough for one in int8.
        max_drop: most points of top-1 that the int8 program may lose against fp32, on labelled pictures; one picture is free,
            unless it is 0.
    """

    agreement: float = 0.99
    int8_margin: float = 3.0
    float_sqnr: float = 90.0
    float16_sqnr: float = 50.0
    max_drop: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.agreement <= 1:
            raise UserError(f"--agreement is a share between 0 and 1, not {self.agreement}")

    def floor(self, artifact: str) -> float:
        """Least SQNR in dB of a float artifact, by the name of its file."""
        return self.float16_sqnr if artifact.endswith(".mlpackage") else self.float_sqnr


@dataclass(frozen=True)
class Pair:
    """``row`` against ``column`` (the reference of the SQNR) on the same pictures."""

    row: str
    column: str
    agreement: float
    agreement_low: float
    sqnr_db: float
    max_delta_steps: float


@dataclass(frozen=True)
class Noise:
    """What an artifact's distance from its reference is judged by, all in dB.

    Attributes:
        sqnr_db: of the artifact against its reference, the int8 program or torch.
        int8_sqnr_db: of the int8 program against torch on the same pictures; None for a float artifact.
        least_db: that the gate wants of the first.
        sure: pictures whose top-1 is asked for: those on which int8's own noise cannot change it, and all of a float artifact.
        differing: those of them that have another.
        most_differing: how many of them may.
    """

    artifact: str
    sqnr_db: float
    int8_sqnr_db: float | None
    least_db: float
    sure: int
    differing: int
    most_differing: float

    @property
    def close(self) -> bool:
        """Whether it is near enough in dB."""
        return self.sqnr_db >= self.least_db  # of NaN neither is true

    @property
    def same(self) -> bool:
        """Whether its top-1 is the reference's on enough pictures."""
        return self.differing <= self.most_differing

    @property
    def passed(self) -> bool:
        return self.close and self.same


@dataclass
class Parity:
    """The agreement matrix on one set of pictures, and which gates it failed."""

    pictures: int
    labelled: bool
    names: list[str]
    top1: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def pair(self, row: str, column: str) -> Pair:
        return next(p for p in self.pairs if (p.row, p.column) == (row, column))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; an SQNR that is infinite (equal to the last bit) or undefined (NaN logits) becomes null."""
        document = asdict(self)
        for row in [*document["pairs"], *document["noise"]]:
            row.update({key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)})
        return document


def compare(logits: dict[str, np.ndarray], targets: np.ndarray | None, reference: str, gates: Gates) -> Parity:
    """Every form against every other.

    Args:
        logits: form -> ``(pictures, classes)``; artifacts are named by their file.
        targets: ``(pictures,)`` class indices, or None when the pictures have no label of this model.
        reference: the form that artifacts are gated against, the int8 program or torch; torch must be among the forms.
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
                difference = np.abs(centred(logits[row]) - centred(logits[column]))
                delta = float(difference.max()) / (logit_step(logits[column]) or 1.0)
                noise = sqnr(logits[column], logits[row])
                result.pairs.append(Pair(row, column, same / pictures, wilson(same, pictures)[0], noise, delta))
    sure = _sure(logits) if reference == PROGRAM else np.ones(pictures, bool)
    for name in logits:
        if name not in (FLOAT, FAKE, PROGRAM):
            differing = int((predicted[name] != predicted[reference])[sure].sum())
            result.noise.append(_noise(result, name, reference, gates, (int(sure.sum()), differing)))
    result.failures = _failures(result, reference, gates)
    return result


def _sure(logits: dict[str, np.ndarray]) -> np.ndarray:
    """Which pictures the int8 program is sure of, ``(pictures,)``."""
    noise = np.sqrt(np.mean((centred(logits[PROGRAM]) - centred(logits[FLOAT])) ** 2))
    ranked = np.sort(logits[PROGRAM], axis=1)
    sure: np.ndarray = ranked[:, -1] - ranked[:, -2:][:, 0] > SURE * noise
    return sure


def _noise(result: Parity, artifact: str, reference: str, gates: Gates, sure: tuple[int, int]) -> Noise:
    own, floor = None, gates.floor(artifact)
    if reference == PROGRAM:
        own = result.pair(PROGRAM, FLOAT).sqnr_db
        floor = min(own - gates.int8_margin, floor)  # in this order: NaN stays
    most = max(1, (1 - gates.agreement) * sure[0])
    return Noise(artifact, result.pair(artifact, reference).sqnr_db, own, floor, *sure, most)


def _failures(result: Parity, reference: str, gates: Gates) -> list[str]:
    failures = []
    for noise in result.noise:
        if not noise.close:
            own = "" if noise.int8_sqnr_db is None else f"; int8 itself has {noise.int8_sqnr_db:.1f} against fp32"
            wanted = f"wanted {noise.least_db:.1f}, {noise.least_db - noise.sqnr_db:.1f} short"
            failures.append(f"{noise.artifact}: {noise.sqnr_db:.1f} dB against {reference}, {wanted}{own}")
        if not noise.same:
            kind = "pictures" if noise.int8_sqnr_db is None else "pictures that int8 is sure of"
            of = f"{noise.differing} of {noise.sure} {kind}, at most {noise.most_differing:.3g} may"
            failures.append(f"{noise.artifact}: top-1 differs from {reference} on {of}")
    if dropped(result, gates):
        drop = f"{lost(result):.2f} points of top-1 under fp32"
        failures.append(f"{PROGRAM}: {drop}, at most {_may_lose(result, gates):.3g} allowed")
    return failures


def lost(result: Parity) -> float:
    """Points of top-1 that the int8 program is under fp32; 0 where there is none, or pictures have no labels."""
    return 100 * (result.top1[FLOAT][0] - result.top1[PROGRAM][0]) if PROGRAM in result.top1 else 0.0


def dropped(result: Parity, gates: Gates) -> bool:
    """Whether that is more than the gate allows."""
    return lost(result) > _may_lose(result, gates) + 1e-9


def _may_lose(result: Parity, gates: Gates) -> float:
    """Points of top-1. One picture of a hundred is 1 point and shows nothing; 0 is meant as it is."""
    return max(gates.max_drop, 100 / result.pictures) if gates.max_drop else 0.0
