"""``--max-drop`` is asked of what is kept: neither QAT nor ranges found anew get past it, and the card tells of what was kept."""

from __future__ import annotations

import numpy as np
import pytest

from lavit_edge.quantize.evaluate import Metrics
from lavit_edge.quantize.render import verdict
from lavit_edge.quantize.sensitivity import Judge, LimitMissed


def judge(allowed: int, min_sqnr: float | None = None) -> Judge:
    """As after the measurement of an fp32 model that has 900 of 1,000 pictures right."""
    made = object.__new__(Judge)
    made.fp32, made.targets, made.allowed, made.min_sqnr = Metrics(0.9, None), np.zeros(1000), allowed, min_sqnr  # type: ignore[assignment]
    return made


WITHIN, BEYOND = Metrics(0.898, 30.0), Metrics(0.895, 40.0)  # 2 and 5 lost: three pictures apart, and 10 dB less noise


def test_what_is_beyond_the_limit_does_not_replace_what_is_within_it() -> None:
    assert judge(allowed=5).prefers(BEYOND, WITHIN)
    assert not judge(allowed=2).prefers(BEYOND, WITHIN)
    assert judge(allowed=2).prefers(WITHIN, BEYOND)
    assert not judge(allowed=100, min_sqnr=35).prefers(Metrics(0.9, 34.0), Metrics(0.89, 36.0))


def test_more_than_fp32_counts_where_labels_taught_it_and_not_where_fp32_did() -> None:
    more, nearer = Metrics(0.93, 20.0), Metrics(0.9, 30.0)
    assert judge(allowed=5).prefers(nearer, more)
    assert judge(allowed=5).prefers(more, nearer, imitate=False)


def test_what_is_kept_must_meet_the_limit() -> None:
    judge(allowed=2).check(WITHIN, "int8 after PTQ")
    with pytest.raises(LimitMissed, match="int8 after QAT loses 5 of 1000 training pictures, 4 allowed; nothing is saved"):
        judge(allowed=4).check(BEYOND, "int8 after QAT")
    with pytest.raises(LimitMissed, match=r"loses 2 of 1000 training pictures, 2 allowed, and has 30.0 dB of 35; nothing"):
        judge(allowed=2, min_sqnr=35).check(WITHIN, "int8 after PTQ")


@pytest.mark.parametrize(("row", "lost"), [("ptq", 2), ("qat", 5)])
@pytest.mark.parametrize("layers", [[], ["head"]])
def test_the_card_has_the_figures_of_what_was_kept(row: str, lost: int, layers: list[str]) -> None:
    metrics = {"fp32": {"top1": 0.9}, "int8": {"top1": 0.8}, "ptq": {"top1": 0.898}, "qat": {"top1": 0.895}}
    found = {"pictures": 1000, "allowed": 9, "max_drop": 0.9, "min_sqnr": None, "metrics": metrics, "kept": layers}
    told = verdict(found, row)
    assert f"int8, {row.upper()}, {'' if layers else 'loses '}{lost}" in told
    assert ("int8 loses 100, and" in told) == bool(layers)
