"""The tables of all_formats.py and litert_peers.py."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("executorch")
from all_formats import Format, Row, tables
from litert_peers import Entry, table


def test_a_format_is_judged_by_int8s_own_noise_and_a_refusal_is_named() -> None:
    formats = {".pte": Format(2.25, 19, 23.04, 61.4), ".ort": Format(2.5, 20, 17.5, None)}
    agreement, cost = tables([Row("net", 20.0, 8.0, formats, {".onnx": "no such operator"})]).values()
    assert agreement[1] == ["net", "20.0", "19, +3.0", "refused", "20, -2.5", "-", "-", "-"]
    assert cost[1] == ["net", "8.00", "2.25, 61 s", "-", "2.50", "-", "-", "-"]


def test_times_are_over_the_first_peer_of_the_size(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(1_500_000))

    def entry(name: str, pixels: int, ms: float, mmacs: float | None = None) -> Entry:
        return Entry(name, "its maker", path, pixels, lambda: None, mmacs, ms)

    entries = [entry("first", 224, 4.0, 300.0), entry("small", 160, 1.0), entry("second", 224, 6.0), entry("ours", 224, 3.0)]
    assert [(line[0], line[2:]) for line in table(entries)[1:]] == [
        ("small", ["160", "-", "1.5", "1.00"]),
        ("ours", ["224", "-", "1.5", "0.75"]),
        ("first", ["224", "300", "1.5", "1.00"]),
        ("second", ["224", "-", "1.5", "1.50"]),
    ]
