"""Figures that several parts measure by: SQNR of logits and its decibels, their step, intervals and tests of shares."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for a proportion, 95 % by default."""
    p, z2 = hits / total, z * z
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def centred(logits: np.ndarray) -> np.ndarray:
    """float64 logits ``(..., classes)`` less their mean over the classes, which neither top-1 nor probabilities depend on."""
    logits = logits.astype(np.float64)
    return logits - logits.mean(-1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 probabilities ``(..., classes)`` of logits."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal-to-quantisation-noise ratio of logits ``(..., classes)`` in dB, inf when equal: power of the reference over power of
    the difference, both :func:`centred`. An offset of all classes is no signal: -50 would turn 21 dB into 46.
    """
    signal, other = centred(reference), centred(other)
    return decibels(float((signal**2).sum()), float(((signal - other) ** 2).sum()))


def decibels(signal: float, noise: float) -> float:
    """The ratio of two powers in dB; inf without noise, -inf without signal or with infinite noise."""
    if noise == 0:
        return math.inf
    ratio = signal / noise
    return 10 * math.log10(ratio) if ratio else -math.inf


def logit_step(logits: np.ndarray) -> float:
    """The size of one step of an 8-bit output over these logits ``(pictures, classes)``: the head is float, they have no grid.

    A 255th of the range of a picture's logits, each less what the pictures have in common for its class; the median over the
    pictures. So neither a bias that masks classes by -1e4 nor a single picture stretches it. 0 where nothing varies.
    """
    own = centred(logits)
    own -= np.median(own, axis=0)
    return float(np.median(np.ptp(own, axis=1))) / 255


def mcnemar(first: int, second: int) -> float:
    """Two-sided exact p of McNemar's test: how often a coin would part ``first + second`` tosses at least that unevenly.

    Args:
        first, second: pictures that only the one model has right, and only the other.
    """
    tosses = first + second
    tail = term = 1
    for heads in range(min(first, second)):
        term = term * (tosses - heads) // (heads + 1)
        tail += term
    return float(min(Fraction(1), Fraction(2 * tail, 2**tosses)))


def paired(first: int, second: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of the difference of two shares on the same ``total`` pictures, second less first (Agresti and Min, 2005).

    Args:
        first, second: pictures that only the one model has right, and only the other.
    """
    a, b, n = first + 0.5, second + 0.5, total + 2
    centre = (b - a) / n
    half = z * math.sqrt(a + b - (b - a) ** 2 / n) / n
    return max(-1.0, centre - half), min(1.0, centre + half)
