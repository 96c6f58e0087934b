"""The figures of the agreement matrix, against values worked out by hand."""

import numpy as np
import pytest

from lavit_edge.errors import UserError
from lavit_edge.metrics import logit_step, sqnr
from lavit_edge.parity.agreement import FLOAT, PROGRAM, Gates, Parity, compare
from lavit_edge.parity.page import page
from lavit_edge.parity.summary import Summary


def test_an_offset_of_all_classes_is_no_signal() -> None:
    reference, other = logits(50, 0), logits(50, 0) + logits(50, 1) * 0.1
    assert sqnr(reference, other) == pytest.approx(20, abs=1)
    for offset in (-50, 1e4):
        assert sqnr(reference + offset, other + offset) == pytest.approx(sqnr(reference, other), abs=0.01)
        names = {FLOAT: reference + offset, PROGRAM: reference + offset, "m.pte": other + offset}
        assert "m.pte: 20.3 dB against int8 program, wanted 90.0" in compare(names, None, PROGRAM, Gates()).failures[0]


def test_masked_classes_and_a_strange_picture_do_not_stretch_the_step() -> None:
    """A network with all weights negated passed at 0.1 step, with classes masked by -1e4."""
    reference = logits(50, 0)
    mask = np.array([0, 0, -1e4, -1e4, -1e4])
    strange = reference.copy()
    strange[7] *= 1e4
    for other in (reference + mask, strange):
        assert logit_step(other) == pytest.approx(logit_step(reference), rel=0.05)
    pair = compare({FLOAT: reference + mask, "m.onnx": mask - reference}, None, FLOAT, Gates()).pair("m.onnx", FLOAT)
    assert pair.max_delta_steps > 255


def logits(pictures: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(pictures, 5)).astype(np.float32) * 4


def test_compare_counts_agreement_and_top1() -> None:
    reference = np.eye(4, dtype=np.float32) * 10
    other = reference.copy()
    other[3] = [20, 0, 0, 10]  # now class 0
    result = compare({FLOAT: reference, "model.onnx": other}, np.array([0, 1, 2, 0]), FLOAT, Gates())
    assert (result.pictures, result.labelled, result.names) == (4, True, [FLOAT, "model.onnx"])
    assert result.top1[FLOAT][0] == 0.75
    assert result.top1["model.onnx"][0] == 1.0
    pair = result.pair("model.onnx", FLOAT)
    assert pair.agreement == 0.75
    # of the last row, less its mean over the classes: 0, 0, 0, 10 became 20, 0, 0, 10; another row's own range is 10
    assert pair.max_delta_steps == pytest.approx(15 / (10 / 255))
    assert compare({FLOAT: reference, "m.pte": reference}, None, FLOAT, Gates()).pair("m.pte", FLOAT).max_delta_steps == 0
    nothing = {FLOAT: np.zeros((2, 2)), "m.pte": np.array([[0.0, 0.0], [3.0, -3.0]])}
    assert compare(nothing, None, FLOAT, Gates()).pair("m.pte", FLOAT).max_delta_steps == 3, "as they are, where there is no step"


def test_gates_fail_on_disagreement_and_on_a_drop() -> None:
    reference = logits(200, 0)
    targets = reference.argmax(1)
    fine = {FLOAT: reference, PROGRAM: reference + 1e-4 * logits(200, 1), "model.pte": reference + 1.1e-4 * logits(200, 1)}
    assert compare(fine, targets, PROGRAM, Gates()).failures == []
    flipped = reference.copy()
    flipped[:3] = -flipped[:3]
    differing = compare({**fine, "model.pte": flipped}, targets, PROGRAM, Gates(int8_margin=300))
    (failure,) = differing.failures
    assert failure == "model.pte: top-1 differs from int8 program on 3 of 200 pictures that int8 is sure of, at most 2 may"
    drop = compare({FLOAT: reference, PROGRAM: flipped}, targets, PROGRAM, Gates())
    assert drop.failures == ["int8 program: 1.50 points of top-1 under fp32, at most 0.5 allowed"]


def test_top1_is_asked_for_where_the_noise_of_int8_cannot_change_it() -> None:
    reference = np.zeros((200, 3))
    reference[:, 0] = 1.0
    reference[:100, 1] = 1 - 1e-9  # no lead; that of the others is 1, and six times the noise 0.3
    reference[:100, 0] += 1e-9
    noise = 0.05 * np.random.default_rng(0).choice([-1.0, 1.0], (200, 1)) * np.array([0.0, 0.0, 1.0])
    program = reference + noise
    for rows, fails in ((slice(0, 100), False), (slice(100, 103), True)):
        other = program.copy()
        other[rows] = other[rows][:, [1, 0, 2]]
        result = compare({FLOAT: reference, PROGRAM: program, "m.pte": other}, None, PROGRAM, Gates(int8_margin=300))
        assert bool(result.failures) == fails
        assert result.noise[0].sure == 100
        assert result.noise[0].differing == (3 if fails else 0)


def noisy(power_db: float, precision: float = 0.001, artifact: str = "m.pte") -> Parity:
    """An int8 program that is 60 dB from fp32, by default, and an artifact with so much more or less noise than that."""
    reference, one, other = (logits(200, seed) for seed in range(3))
    program = reference + precision * one
    logits_of = {FLOAT: reference, PROGRAM: program, artifact: program + precision * 10 ** (power_db / 20) * other}
    return compare(logits_of, None, PROGRAM, Gates(agreement=0))


def test_an_artifact_may_be_as_noisy_as_int8_itself() -> None:
    for power_db, fails in ((-20, False), (0, False), (2, False), (4, True), (6, True)):
        result = noisy(power_db)
        assert bool(result.failures) == fails
        (noise,) = result.noise
        assert noise.artifact == "m.pte"
        assert noise.int8_sqnr_db == pytest.approx(60, abs=0.5)
        assert noise.sqnr_db == pytest.approx(60 - power_db, abs=0.5)
        assert noise.least_db == noise.int8_sqnr_db - 3
    wanted = f"wanted {noise.least_db:.1f}, {noise.least_db - noise.sqnr_db:.1f} short"
    assert noisy(6).failures[0].endswith(f"{wanted}; int8 itself has {noise.int8_sqnr_db:.1f} against fp32")


def test_the_noise_gate_is_relative_whatever_int8_has() -> None:
    """24 dB are fine where int8 has 25, and 37 are not where it has 45: an absolute limit punishes the better model."""
    assert noisy(1, precision=10 ** (-25 / 20)).failures == []
    assert len(noisy(8, precision=10 ** (-45 / 20)).failures) == 1


def test_what_is_enough_for_float_is_enough_for_int8() -> None:
    """A program that is fp32 but for a layer or none: its artifact cannot be nearer than float arithmetic is."""
    reference = logits(100, 0)
    for artifact, power_db, fails in (("m.pte", -92, False), ("m.pte", -85, True), ("m.mlpackage", -52, False)):
        logits_of = {FLOAT: reference, PROGRAM: reference, artifact: reference + 10 ** (power_db / 20) * logits(100, 1)}
        result = compare(logits_of, None, PROGRAM, Gates())
        assert bool(result.failures) == fails
        assert result.to_dict()["noise"][0]["int8_sqnr_db"] is None  # infinite


def test_what_is_exactly_at_its_gate_passes() -> None:
    reference = logits(200, 0)
    other = reference + 0.01 * logits(200, 1)
    targets = reference.argmax(1)
    targets[0] = (targets[0] + 1) % 5
    program = reference.copy()
    program[1] = -program[1]  # 0.5 points of top-1, which are 0.5 + 7e-15 of a hundred
    noise = sqnr(reference, other)
    assert compare({FLOAT: reference, "m.onnx": other}, None, FLOAT, Gates(float_sqnr=noise)).failures == []
    result = compare({FLOAT: reference, PROGRAM: program}, targets, PROGRAM, Gates())
    assert result.top1[FLOAT][0] - result.top1[PROGRAM][0] == pytest.approx(0.005)
    assert result.failures == []
    assert len(compare({FLOAT: reference, PROGRAM: program}, targets, PROGRAM, Gates(max_drop=0)).failures) == 1


def test_one_picture_of_few_shows_no_drop_and_two_do() -> None:
    reference = logits(100, 0)
    targets = reference.argmax(1)
    program = reference.copy()
    program[:1] *= -1
    assert compare({FLOAT: reference, PROGRAM: program}, targets, PROGRAM, Gates()).failures == []
    program[1:2] *= -1
    result = compare({FLOAT: reference, PROGRAM: program}, targets, PROGRAM, Gates())
    assert result.failures == ["int8 program: 2.00 points of top-1 under fp32, at most 1 allowed"]


def test_a_picture_is_sure_if_it_leads_by_six_times_the_noise() -> None:
    reference = np.tile([0.0, 0.0, -1.0], (200, 1))
    reference[:100, 0], reference[100:, 0] = 0.13, 0.15
    program = reference + np.array([0.0, 0.0, 0.05])  # less its mean: 0.05 sqrt(2) / 3 for each class, 0.0236; six times: 0.1414
    (noise,) = compare({FLOAT: reference, PROGRAM: program, "m.pte": program}, None, PROGRAM, Gates()).noise
    assert noise.sure == 100


def test_a_picture_without_a_lead_is_not_sure_where_int8_is_fp32() -> None:
    reference = np.eye(3)
    reference[2] = [1.0, 1.0, 0.0]
    result = compare({FLOAT: reference, PROGRAM: reference, "m.pte": reference}, None, PROGRAM, Gates())
    assert result.noise[0].sure == 2


def test_one_differing_picture_is_allowed_and_not_two() -> None:
    reference = logits(50, 0)
    for count, expected in ((1, 0), (2, 1)):
        other = reference.copy()
        other[:count] = -other[:count]
        logits_of = {FLOAT: reference, PROGRAM: reference, "m.pte": other}
        assert len(compare(logits_of, None, PROGRAM, Gates(float_sqnr=-100)).failures) == expected


def test_not_a_number_fails_the_gate() -> None:
    reference = logits(20, 0)
    broken = np.full_like(reference, np.nan)
    assert any("dB" in line for line in compare({FLOAT: reference, "m.onnx": broken}, None, FLOAT, Gates()).failures)
    nothing_known = compare({FLOAT: broken, PROGRAM: reference, "m.onnx": reference + 1}, None, PROGRAM, Gates())
    assert any("wanted nan" in line for line in nothing_known.failures)


def test_float_gates_differ_for_fp16() -> None:
    reference = logits(100, 0)
    half = reference.astype(np.float16).astype(np.float32)  # about 72 dB
    assert compare({FLOAT: reference, "m.mlpackage": half}, None, FLOAT, Gates()).failures == []
    (failure,) = compare({FLOAT: reference, "m.onnx": half}, None, FLOAT, Gates()).failures
    assert failure.startswith("m.onnx: ")
    assert " dB against torch fp32, wanted 90.0, " in failure
    (failure,) = compare({FLOAT: reference, "m.onnx": -reference}, None, FLOAT, Gates(float_sqnr=-100)).failures
    assert failure.startswith("m.onnx: top-1 differs from torch fp32 on 100 of 100 pictures, ")


def test_an_impossible_gate_is_refused() -> None:
    for share in (-0.01, 1.01, 99):
        with pytest.raises(UserError, match="--agreement"):
            Gates(agreement=share)
    assert [Gates(agreement=share).agreement for share in (0, 1)] == [0, 1]


def test_the_page_escapes_names_and_shows_failures() -> None:
    reference = logits(30, 0)
    result = compare({FLOAT: reference, "a<b>.onnx": -reference}, reference.argmax(1), FLOAT, Gates())
    found = Summary(False, ("m<i>: parts in block 3",), (), (("why <u>", "command <s>"),))
    text = page("t", {"set": result}, found)
    assert "a&lt;b&gt;.onnx" in text
    assert "m&lt;i&gt;: parts in block 3" in text
    assert "<b>" not in text
    assert "command &lt;s&gt;" in text
    assert "class=bad" in text
    assert text.count("class='gate failed'") == 1, "the artifact against the program, not the other way round"
    assert text.count("<svg") == 1


def test_agreement_is_given_with_the_lower_end_of_its_interval() -> None:
    """Wilson (1927) by hand, 190 of 200, with z = 1.96: (0.95 + z^2/400 - z sqrt(0.95 0.05/200 + z^2/160000)) / (1 + z^2/200)."""
    reference = logits(200, 0)
    other = reference.copy()
    other[:10] = -other[:10]
    pair = compare({FLOAT: reference, "m.onnx": other}, None, FLOAT, Gates(agreement=0)).pair("m.onnx", FLOAT)
    assert pair.agreement == 0.95
    assert pair.agreement_low == pytest.approx(0.9104, abs=1e-4)
