"""The figures of the agreement matrix, against values worked out by hand."""

import math

import numpy as np
import pytest

from lavit_edge.errors import UserError
from lavit_edge.parity.compare import FLOAT, PROGRAM, Gates, compare, logit_step, sqnr, wilson
from lavit_edge.parity.render import page


def test_wilson_interval_of_known_proportions() -> None:
    # 8 of 10 at 95 %: the textbook interval
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 50)[0] == 0.0
    assert wilson(50, 50) == pytest.approx((0.92865, 1.0), abs=1e-4)


def test_sqnr_is_the_power_ratio_in_db() -> None:
    reference = np.array([[3.0, 4.0]])
    assert sqnr(reference, reference + np.array([[0.3, 0.4]])) == pytest.approx(20.0)
    assert math.isinf(sqnr(reference, reference))
    assert sqnr(np.zeros((1, 2)), np.ones((1, 2))) == -math.inf


def test_a_step_is_one_255th_of_the_range() -> None:
    assert logit_step(np.array([[-51.0, 0.0], [204.0, 3.0]])) == 1.0


def logits(pictures: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(pictures, 5)).astype(np.float32) * 4


def test_compare_counts_agreement_and_top1() -> None:
    reference = np.eye(4, dtype=np.float32) * 10
    other = reference.copy()
    other[3] = [20, 0, 0, 10]  # now class 0
    result = compare({FLOAT: reference, "model.onnx": other}, np.array([0, 1, 2, 0]), FLOAT, Gates())
    assert result.top1[FLOAT][0] == 0.75
    assert result.top1["model.onnx"][0] == 1.0
    pair = result.pair("model.onnx", FLOAT)
    assert pair.agreement == 0.75
    assert pair.max_delta_steps == pytest.approx(20 / (10 / 255))


def test_gates_fail_on_noise_on_disagreement_and_on_a_drop() -> None:
    reference = logits(200, 0)
    targets = reference.argmax(1)
    fine = {FLOAT: reference, PROGRAM: reference + 1e-4, "model.pte": reference + 1.1e-4}
    assert compare(fine, targets, PROGRAM, Gates()).failures == []
    noisy = compare({**fine, "model.pte": reference + logits(200, 1) * 0.02}, targets, PROGRAM, Gates(agreement=0))
    assert len(noisy.failures) == 1
    assert "dB against int8 program, wanted 40" in noisy.failures[0]
    for name, failures in (("m.pte", 1), ("m.mlpackage", 0)):  # about 37 dB
        noise = {FLOAT: reference, PROGRAM: reference, name: reference + logits(200, 1) * 0.0141}
        assert len(compare(noise, targets, PROGRAM, Gates()).failures) == failures
    flipped = reference.copy()
    flipped[:3] = -flipped[:3]
    differing = compare({**fine, "model.pte": flipped}, targets, PROGRAM, Gates(int8_sqnr=-100))
    assert differing.failures == ["model.pte: top-1 differs from int8 program on 3 of 200 pictures"]
    drop = compare({FLOAT: reference, PROGRAM: flipped}, targets, PROGRAM, Gates())
    assert drop.failures == ["int8 program: 1.50 points of top-1 under fp32, at most 0.5 allowed"]


def test_one_differing_picture_is_allowed_and_not_two() -> None:
    reference = logits(50, 0)
    for count, expected in ((1, 0), (2, 1)):
        other = reference.copy()
        other[:count] = -other[:count]
        logits_of = {FLOAT: reference, PROGRAM: reference, "m.pte": other}
        assert len(compare(logits_of, None, PROGRAM, Gates(foreign_sqnr=-100)).failures) == expected


def test_not_a_number_fails_the_gate() -> None:
    reference = logits(20, 0)
    broken = np.full_like(reference, np.nan)
    assert any("dB" in line for line in compare({FLOAT: reference, "m.onnx": broken}, None, FLOAT, Gates()).failures)


def test_float_gates_differ_for_fp16() -> None:
    reference = logits(100, 0)
    half = reference.astype(np.float16).astype(np.float32)  # about 72 dB
    assert compare({FLOAT: reference, "m.mlpackage": half}, None, FLOAT, Gates()).failures == []
    assert len(compare({FLOAT: reference, "m.onnx": half}, None, FLOAT, Gates()).failures) == 1


def test_an_impossible_gate_is_refused() -> None:
    with pytest.raises(UserError, match="--agreement"):
        Gates(agreement=99)


def test_the_page_escapes_names_and_shows_failures() -> None:
    reference = logits(30, 0)
    result = compare({FLOAT: reference, "a<b>.onnx": -reference}, reference.argmax(1), FLOAT, Gates())
    text = page("t", {"set": result})
    assert "a&lt;b&gt;.onnx" in text
    assert "<b>" not in text
    assert "class=bad" in text
    assert text.count("<svg") == 1
