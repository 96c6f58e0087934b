"""The table, the front and what is said of it; no artifact is made."""

from __future__ import annotations

import pytest
from artifacts import Row
from pareto import OURS, beaten_by, beside, front, of_runtime, points, table, words

from lavit_edge.benchmark.floor import Floor

FLOOR = Floor(float_gmacs=50, int8_gmacs=200, gbytes=10)


def row(model: str, precision: str, one: float, two: float, runtime: str = "ExecuTorch", **more: object) -> Row:
    return Row(model, 160, precision, runtime, ms={1: one, 2: two}, megabytes=2.0, macs=100_000_000, **more)  # type: ignore[arg-type]


ROWS = [
    row("MobileNetV2", "int8", 2.0, 1.5, int8_by="XNNPACKQuantizer", calls=1),
    row("MobileNetV2", "fp32", 3.0, 2.0),
    row("quick", "int8", 1.0, 3.0, int8_by="lavit-edge", calls=2),
    row("quick", "fp32", 4.0, 2.0),
    row("elsewhere", "int8", 0.1, 0.1, runtime="ONNX Runtime"),
    Row("broken", 160, "int8", "ExecuTorch", failure="Error: no kernel"),
    row("broken", "fp32", 9.0, 9.0),
]


@pytest.mark.parametrize(
    ("points_of", "expected"),
    [
        ({"a": (1, 80), "b": (2, 90), "c": (3, 85)}, ["a", "b"]),
        ({"a": (1, 80), "b": (1, 90)}, ["b"]),  # as quick, and better
        ({"a": (1, 90), "b": (2, 90)}, ["a"]),  # as good, and quicker
        ({"a": (1, 90), "b": (1, 90)}, ["a", "b"]),  # equal: neither beats the other
        ({"slow": (9, 99), "quick": (1, 1)}, ["quick", "slow"]),
        ({}, []),
    ],
)
def test_the_front_has_those_that_none_beats(points_of: dict[str, tuple[float, float]], expected: list[str]) -> None:
    assert front(points_of) == expected
    assert {name for name in points_of if not beaten_by(name, points_of)} == set(expected)


def test_a_table_has_a_line_for_each_model_quickest_first() -> None:
    lines = table(of_runtime(ROWS, "ExecuTorch", 1), [1, 2], FLOOR, {"fp32": {"quick": [0.80, 0.82]}, "int8": {}})
    cells = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    assert [line["model"] for line in cells] == ["quick", "MobileNetV2", "broken"]
    quick, mobile, broken = cells
    assert (quick["top-1, fp32"], quick["top-1, int8"], mobile["top-1, fp32"]) == ("81.0 (2)", "-", "-")
    assert (quick["to MobileNetV2"], mobile["to MobileNetV2"]) == ("0.50", "1.00")
    assert (quick["int8/fp32"], mobile["int8/fp32"]) == ("0.25", "0.67")
    assert quick["% of limit"] == "50"  # 100 M multiply-adds at 200 G a second are 0.5 ms
    assert (quick["int8, 2 thr."], quick["fp32, 2 thr."], quick["delegate calls"]) == ("3.00", "2.00", "2")
    assert (broken["int8, 1 thr."], broken["fp32, 1 thr."], broken["int8/fp32"]) == ("-", "9.00", "-")
    assert [line["model"] for line in cells if line["int8 by"] == "lavit-edge"] == ["quick"]


def test_two_tools_stand_side_by_side() -> None:
    rows = [*ROWS, row("MobileNetV2", OURS, 1.8, 1.2, int8_by="lavit-edge", sqnr_db=20.04, same=0.5)]
    rows[0] = row("MobileNetV2", "int8", 2.0, 1.5, int8_by="XNNPACKQuantizer", sqnr_db=6.6, same=0.0)
    heads, *lines = beside(of_runtime(rows, "ExecuTorch", 1), 1)
    assert lines == [["MobileNetV2", "XNNPACKQuantizer", "6.6", "20.0", "0.0 %", "50.0 %", "0.90"]]
    assert heads[-1] == "time, lavit-edge/tool"


def test_ratios_are_of_the_first_number_of_threads() -> None:
    lines = table(of_runtime(ROWS, "ExecuTorch", 2), [2], FLOOR, {})
    cells = {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]}
    assert list(cells) == ["MobileNetV2", "quick", "broken"]
    assert cells["quick"]["to MobileNetV2"] == "2.00"
    assert cells["quick"]["% of limit"] == "-"  # that is of one thread


def test_points_are_models_with_both_figures() -> None:
    known = {"quick": [0.80, 0.82], "broken": [0.9], "never timed": [0.7]}
    assert points(of_runtime(ROWS, "ExecuTorch", 1), 1, known) == {"quick": (1.0, pytest.approx(81.0))}


def test_words_name_the_front_and_who_beats_the_rest() -> None:
    first, *rest = words("here", {"MobileNetV2": (2.0, 80.0), "slow": (3.0, 79.0), "quick": (1.0, 78.5)})
    assert first == "here: on the front are quick (0.50 of MobileNetV2, 78.5 %), MobileNetV2 (1.00 of MobileNetV2, 80.0 %)."
    assert rest == ["  slow (1.50 of MobileNetV2, 79.0 %) is neither quicker nor better than MobileNetV2."]
    assert list(words("here", {})) == ["here: no model has a top-1, so that there is no front."]
    assert "1.00 ms" in next(words("here", {"quick": (1.0, 78.5)}))
