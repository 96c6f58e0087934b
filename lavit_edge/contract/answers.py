"""From logits to an answer, or to none: calibrated probabilities, the threshold, and an answer that does not flicker.

The apps do the same in Kotlin, Swift, JavaScript and C++; tests/golden/decisions.json is what all of them are tested on.
"""

from __future__ import annotations

import math

import numpy as np

from lavit_edge.contract.contract import InputContract
from lavit_edge.metrics import softmax

TIME_CONSTANT = 0.5  # seconds: a frame weighs 1/e of what it did half a second ago
MARGIN = 0.1  # of probability, that another label must lead by, or the shown one fall below the threshold, before it goes


def probabilities(logits: np.ndarray, contract: InputContract) -> np.ndarray:
    """float64 ``(..., classes)``: softmax of logits over the contract's temperature (Guo et al., "On calibration of modern neural
    networks", 2017)."""
    return softmax(logits.astype(np.float64) / contract.temperature)


def decide(probable: np.ndarray, threshold: float) -> int | None:
    """The most probable class of ``(classes,)``, of equal ones the first; None, "not sure", where it is below the threshold."""
    best = int(probable.argmax())
    return best if probable[best] >= threshold else None


class Steady:
    """An answer for a live view: from an average over about half a second, and not given up for a hair's breadth.

    Attributes:
        average: float64 ``(classes,)``, exponential with :data:`TIME_CONSTANT`; None before the first frame.
        shown: the class that is shown; None: not sure.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.average: np.ndarray | None = None
        self.shown: int | None = None
        self._last = 0.0

    def add(self, seconds: float, probable: np.ndarray) -> int | None:
        """Takes a frame's probabilities ``(classes,)`` and its time on a clock that runs on; returns :attr:`shown`."""
        new = np.asarray(probable, np.float64)
        if self.average is not None:
            share = 1 - math.exp(-max(seconds - self._last, 0.0) / TIME_CONSTANT)
            new = self.average + share * (new - self.average)
        self.average, self._last = new, seconds
        kept = self.shown
        if kept is None or new[kept] < self.threshold - MARGIN or new.max() - new[kept] >= MARGIN:
            self.shown = decide(new, self.threshold)
        return self.shown
