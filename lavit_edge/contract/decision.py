"""A contract's temperature and threshold, from logits of labelled pictures and of pictures of none of the classes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavit_edge.contract.answers import probabilities
from lavit_edge.contract.contract import COLDEST, InputContract

FEWEST = 100  # labelled pictures: of fewer, 95 % and 90 % cannot be told apart
FEWEST_ANSWERED = 20  # of them: the share of right answers among fewer is chance
THRESHOLDS = np.arange(1000) / 1000  # that are tried
OUTSIDE = 0.2  # share of pictures of other things that are to be answered at most
ANSWERED = 0.8  # share of labelled pictures that must stay answered, whatever else there is
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Decision:
    """How sure a model must be, and what that comes to on the pictures that it was chosen on.

    Attributes:
        temperature, threshold: of the contract.
        wanted: precision that was asked for, 0..1.
        precision: share of the answered pictures that are right.
        answered: share of the labelled pictures that are answered.
        outside: share of the pictures of none of the classes that are answered all the same; None where there were none.
        pictures, outside_pictures: how many there were.
    """

    temperature: float
    threshold: float
    wanted: float
    precision: float
    answered: float
    outside: float | None
    pictures: int
    outside_pictures: int

    def of(self, contract: InputContract) -> InputContract:
        """The contract that says so."""
        return dataclasses.replace(contract, temperature=self.temperature, threshold=self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """What it comes to."""
        sure = f"At {100 * self.threshold:.0f} % or more (logits over {self.temperature:g}) {100 * self.answered:.1f} % of the"
        known = f"{sure} {self.pictures} val pictures that decided it are answered, {100 * self.precision:.1f} % of these right"
        missed = "" if self.precision >= self.wanted else f" ({100 * self.wanted:g} % were asked for)"
        if self.outside is None:
            return f"{known}{missed}."
        return f"{known}{missed}; and {100 * self.outside:.0f} % of {self.outside_pictures} pictures of other things."


def fit_decision(
    logits: np.ndarray, targets: np.ndarray, contract: InputContract, wanted: float, outside: np.ndarray | None = None
) -> Decision | None:
    """The temperature with the least cross entropy, and the threshold.

    The threshold is the lowest at which the wanted share of what is answered is right, and raised from there until no more than
    :data:`OUTSIDE` of ``outside`` is answered, as far as :data:`ANSWERED` of the labelled pictures still are. It is one of the
    largest probability: none of the other scores that were tried on the bundled model told labelled pictures from those of other
    things better (docs/contract.md).

    Args:
        logits: ``(N, classes)``.
        targets: ``(N,)`` class indices.
        wanted: precision, 0..1.
        outside: ``(M, classes)``, of pictures of none of the classes.

    Returns:
        None where there are fewer than :data:`FEWEST` pictures, or only one class.
    """
    if len(targets) < FEWEST or logits.shape[1] < 2:
        return None
    temperature = round(_temperature(logits, targets), 3)
    scaled = dataclasses.replace(contract, temperature=temperature)
    probable = probabilities(logits, scaled)
    sure, right = probable.max(1), probable.argmax(1) == targets
    others = np.zeros(0) if outside is None else probabilities(outside, scaled).max(1)
    answered, precise = _share_at(sure), _share_at(sure[right]) * right.mean() >= wanted * _share_at(sure)
    enough = answered * len(sure) >= FEWEST_ANSWERED
    # where no threshold is precise enough, the one that half of the pictures reach
    index = int((precise & enough).argmax()) if (precise & enough).any() else int(np.flatnonzero(answered >= 0.5)[-1])
    if len(others):
        silent = np.flatnonzero(_share_at(others) <= OUTSIDE)
        index = max(index, min([*silent[:1], np.flatnonzero(answered >= ANSWERED)[-1]]))
    threshold = float(THRESHOLDS[index])
    kept = sure >= threshold
    return Decision(
        temperature=temperature,
        threshold=threshold,
        wanted=wanted,
        precision=float(right[kept].mean()) if kept.any() else 0.0,
        answered=float(kept.mean()),
        outside=float((others >= threshold).mean()) if len(others) else None,
        pictures=len(targets),
        outside_pictures=len(others),
    )


def _temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Golden section over the logarithm: cross entropy has one minimum in ``1 / temperature``."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    own = shifted[np.arange(len(targets)), targets]

    def loss(log: float) -> float:
        cold = np.exp(-log)
        return float((np.log(np.exp(shifted * cold).sum(1)) - own * cold).mean())

    low, high = np.log(max(COLDEST, 0.05)), np.log(20.0)
    for _ in range(40):
        left, right = high - GOLDEN_RATIO * (high - low), low + GOLDEN_RATIO * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def _share_at(sure: np.ndarray) -> np.ndarray:
    """The share of ``(N,)`` probabilities that reach each of :data:`THRESHOLDS`."""
    return 1 - np.searchsorted(np.sort(sure), THRESHOLDS) / max(len(sure), 1)
