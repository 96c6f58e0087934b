"""Temperature, threshold and the live view: the golden cases that every language reads, and how the two numbers are found."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.contract import InputContract
from lavit_edge.contract.answers import Steady, decide, probabilities
from lavit_edge.contract.contract import DECISION, FORMATS
from lavit_edge.contract.decision import ANSWERED, FEWEST, OUTSIDE, Decision, fit_decision
from lavit_edge.data.outside import MADE, outside
from lavit_edge.errors import UserError

CASES = json.loads((Path(__file__).parents[1] / "golden" / "decisions.json").read_text("utf-8"))
CONTRACT = InputContract(32, tuple("abcd"))


@pytest.mark.parametrize("case", CASES["contracts"], ids=lambda case: case["text"][-60:])
def test_contracts_of_both_formats(case: dict[str, Any]) -> None:
    if case.get("refused"):
        with pytest.raises(UserError, match=r"^contract: "):
            InputContract.from_json(case["text"])
        return
    contract = InputContract.from_json(case["text"])
    assert {name: getattr(contract, name) for name in DECISION} == {name: case[name] for name in DECISION}


def test_what_format_1_can_say_is_said_in_format_1() -> None:
    """So that contracts without a threshold keep their bytes and their digest, and older readers take them."""
    assert CONTRACT.to_dict()["format"] == FORMATS[0]
    assert not set(DECISION) & set(CONTRACT.to_dict())
    for change in ({"temperature": 0.5}, {"threshold": 0.5}):
        decides = dataclasses.replace(CONTRACT, **change)
        assert decides.to_dict()["format"] == FORMATS[1]
        assert InputContract.from_json(decides.to_json()) == decides
        assert decides.sha256 != CONTRACT.sha256


def test_answers() -> None:
    for case in CASES["answers"]:
        contract = dataclasses.replace(CONTRACT, temperature=case["temperature"], threshold=case["threshold"])
        probable = probabilities(np.array(case["logits"], np.float32), contract)
        np.testing.assert_allclose(probable, case["probabilities"], rtol=0, atol=1e-11)
        assert decide(probable, case["threshold"]) == case["answer"]


def test_a_probability_that_just_reaches_the_threshold_is_an_answer() -> None:
    """The golden cases keep off it, since last bits differ among languages. These numbers are exact."""
    even = probabilities(np.zeros(4, np.float32), CONTRACT)
    assert even.tolist() == [0.25] * 4
    assert [decide(even, threshold) for threshold in (0.25, np.nextafter(0.25, 1))] == [0, None]
    steady = Steady(0.6)
    long = 1e6  # seconds, after which the average is the new frame
    assert steady.add(0.0, np.array([0.75, 0.25], np.float32)) == 0
    assert steady.average is not None
    assert steady.average.dtype == np.float64
    assert steady.add(long, np.array([0.5, 0.5])) == 0, "0.1 below the threshold it is still shown"
    assert steady.add(2 * long, np.array([0.5 - 2**-50, 0.5])) is None


def test_live_views() -> None:
    for case in CASES["live"]:
        steady = Steady(case["threshold"])
        for frame in case["frames"]:
            assert steady.add(frame["seconds"], np.array(frame["probabilities"])) == frame["shown"]
            assert steady.average is not None
            np.testing.assert_allclose(steady.average, frame["average"], rtol=0, atol=1e-11)


def test_a_live_view_neither_flickers_nor_lags() -> None:
    """Two labels that lead in turns by a hair: the first stays. Another thing in front of the camera: it is shown in a second."""
    steady = Steady(0.4)
    shown = [steady.add(frame / 15, np.array([0.5, 0.49] if frame % 2 else [0.49, 0.5])) for frame in range(30)]
    assert set(shown) == {1}
    changed = [steady.add(2 + frame / 15, np.array([0.05, 0.95] if frame < 15 else [0.95, 0.05])) for frame in range(30)]
    assert set(changed[:16]) == {1}
    assert changed[-1] == 0


def made(count: int, hotter: float, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of four classes whose probabilities are right after division by ``hotter``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 4)) * spread
    shares = probabilities(logits, CONTRACT)
    targets = np.array([rng.choice(4, p=share) for share in shares])
    return (logits * hotter).astype(np.float32), targets


@pytest.mark.parametrize("hotter", [0.3, 1.0, 4.0])
def test_the_temperature_is_found(hotter: float) -> None:
    found = fit_decision(*made(20_000, hotter, 2.0), CONTRACT, 0.9)
    assert found is not None
    assert math.isclose(found.temperature, hotter, rel_tol=0.05)


def test_the_temperature_has_the_least_cross_entropy_whatever_is_added_to_a_pictures_logits() -> None:
    """Pictures that are sure of themselves by very different degrees, and offsets that leave no logit near another picture's."""
    logits, targets = made(2000, 1.0, 2.0)
    logits *= np.logspace(-1, 1, 2000, dtype=np.float32)[:, None]
    found = fit_decision(logits, targets, CONTRACT, 0.9)
    assert found is not None

    def loss(temperature: float) -> float:
        scaled = dataclasses.replace(CONTRACT, temperature=temperature)
        return -float(np.log(probabilities(logits, scaled)[np.arange(2000), targets]).mean())

    assert loss(found.temperature) < min(loss(found.temperature * 0.97), loss(found.temperature * 1.03))
    moved = fit_decision(logits + np.linspace(-4096, 4096, 2000, dtype=np.float32)[:, None], targets, CONTRACT, 0.9)
    assert moved is not None
    assert math.isclose(moved.temperature, found.temperature, rel_tol=0.01)


def test_the_threshold_gives_the_precision_that_was_asked_for() -> None:
    logits, targets = made(20_000, 2.0, 3.0)
    right = logits.argmax(1) == targets
    assert right.mean() < 0.9
    for wanted in (0.9, 0.95, 0.98):
        found = fit_decision(logits, targets, CONTRACT, wanted)
        assert found is not None
        sure = probabilities(logits, found.of(CONTRACT)).max(1) >= found.threshold
        assert right[sure].mean() == found.precision
        assert sure.mean() == found.answered
        assert found.precision >= wanted
        assert right[sure].mean() < wanted + 0.01  # and no more is given up for it
        assert found.outside is None


def test_the_threshold_is_raised_for_other_things_as_far_as_answers_are_left() -> None:
    logits, targets = made(5000, 1.0, 6.0)
    alone = fit_decision(logits, targets, CONTRACT, 0.5)
    rng = np.random.default_rng(2)
    easy = fit_decision(logits, targets, CONTRACT, 0.5, (rng.normal(size=(300, 4)) * 0.6).astype(np.float32))
    hard = fit_decision(logits, targets, CONTRACT, 0.5, (rng.normal(size=(300, 4)) * 20).astype(np.float32))
    assert alone is not None
    assert easy is not None
    assert hard is not None
    assert alone.threshold < easy.threshold < hard.threshold
    assert easy.outside is not None
    assert easy.outside <= OUTSIDE
    assert hard.outside is not None
    assert hard.outside > OUTSIDE
    assert math.isclose(hard.answered, ANSWERED, abs_tol=0.01)
    assert "of 300 pictures of other things" in hard.sentence()


def test_a_precision_out_of_reach_is_said() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 4)).astype(np.float32)
    found = fit_decision(logits, rng.integers(0, 4, 400), CONTRACT, 0.99)
    assert found is not None
    assert "(99 % were asked for)" in found.sentence()


def test_where_no_threshold_is_precise_enough_half_of_the_pictures_are_answered() -> None:
    """Of 100 pictures 50 give two labels the same and 50 are quite sure and wrong: thresholds up to the last leave these 50."""
    contract, targets = InputContract(32, ("a", "b")), np.arange(100) % 2
    logits = np.zeros((100, 2), np.float32)
    even = fit_decision(logits, targets, contract, 0.99)
    assert even is not None
    assert (even.threshold, even.answered, even.precision) == (0.5, 1.0, 0.5)
    logits[np.arange(50), 1 - targets[:50]] = 4096
    wrong = fit_decision(logits, targets, contract, 0.99)
    assert wrong is not None
    assert (wrong.threshold, wrong.answered, wrong.precision) == (0.999, 0.5, 0.0)


def test_one_picture_of_another_thing_is_told_from_the_rest() -> None:
    logits, targets = made(5000, 1.0, 6.0)
    alone = fit_decision(logits, targets, CONTRACT, 0.5)
    other = fit_decision(logits, targets, CONTRACT, 0.5, np.array([[1.5, 0, 0, 0]], np.float32))
    assert alone is not None
    assert other is not None
    (sure,) = probabilities(np.array([[1.5, 0, 0, 0]], np.float32), other.of(CONTRACT)).max(1)
    assert alone.threshold < sure < other.threshold < sure + 0.001
    assert (other.outside, other.outside_pictures) == (0.0, 1)


def test_the_sentence() -> None:
    found = Decision(0.5, 0.75, 0.9, 0.875, 0.6, 0.4, 120, 30)
    assert found.sentence() == (
        "At 75 % or more (logits over 0.5) 60.0 % of the 120 val pictures that decided it are answered, 87.5 % of these right "
        "(90 % were asked for); and 40 % of 30 pictures of other things."
    )
    assert dataclasses.replace(found, precision=0.9, outside=None).sentence().endswith("answered, 90.0 % of these right.")


def test_too_few_pictures_decide_nothing() -> None:
    logits, targets = made(FEWEST - 1, 1.0, 2.0)
    assert fit_decision(logits, targets, CONTRACT, 0.9) is None


def test_pictures_of_other_things() -> None:
    everything = list(outside(CONTRACT))
    assert {picture.shape for picture in everything} == {(32, 32, 3)}
    assert {picture.dtype for picture in everything} == {np.dtype(np.uint8)}
    assert all(np.array_equal(one, other) for one, other in zip(everything, outside(CONTRACT), strict=True))
    without = list(outside(dataclasses.replace(CONTRACT, labels=("cat", "dog"))))
    assert len(everything) - len(without) == 20  # the free pictures of cats are of a class that this model knows
    assert sum(np.ptp(picture, axis=(0, 1)).max() == 0 for picture in everything[-MADE:]) == MADE // 2
