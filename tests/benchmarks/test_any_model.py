"""Small nets of timm, one of each kind, take the whole path: all artifacts pass all gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nncf")
pytest.importorskip("executorch")
pytest.importorskip("onnxruntime")
pytest.importorskip("coremltools")
from any_model import SUFFIXES, Row, take


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "in_float"),
    [
        ("test_resnet", {}, "max_pool2d"),
        ("test_efficientnet", {}, "silu"),
    ],
)
def test_a_net_of_timm_passes_all_gates(name: str, options: dict[str, Any], in_float: str, tmp_path: Path) -> None:
    row = take(name, 64, options, tmp_path)
    assert row.faults == []
    assert row.cells == dict.fromkeys(SUFFIXES, "")
    assert in_float in row.in_float
    assert row.ratio is not None
    assert set(row.verdict) == set(SUFFIXES)


def test_a_row_says_what_failed() -> None:
    row = Row("net", 64, 20.04, {".pte": "", ".onnx": "layers, noise"}, [], {".pte": 0.5, ".onnx": 0.456}, None, "")
    assert row.line() == ["net", "64", "20.0", "ok", "layers, noise", "none", "none", "0.50 0.46", "-"]
