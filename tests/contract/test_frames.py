"""Camera frames: the reference conversion against plain loops and PIL, and the golden files that all languages share."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavit_edge.contract import InputContract
from lavit_edge.contract.frames import Frame, Plane, to_rgb
from lavit_edge.contract.pictures import to_input
from lavit_edge.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"
FRAMES: list[dict[str, Any]] = json.loads((GOLDEN / "frames.json").read_text("utf-8"))


def golden(facts: dict[str, Any]) -> Frame:
    data = (GOLDEN / f"{facts['name']}.frame").read_bytes()
    planes = [
        Plane(data[plane["offset"] : plane["offset"] + plane["length"]], plane["row_stride"], plane["pixel_stride"])
        for plane in facts["planes"]
    ]
    return Frame(facts["format"], facts["width"], facts["height"], planes, facts["rotation"], facts["mirrored"])


@pytest.mark.parametrize("facts", FRAMES, ids=lambda facts: facts["name"])
def test_golden_frames_become_their_inputs(facts: dict[str, Any]) -> None:
    contract = InputContract.from_dict(facts["contract"])
    expected = np.frombuffer((GOLDEN / f"{facts['name']}.input").read_bytes(), np.uint8).reshape(contract.size, contract.size, 3)
    assert np.array_equal(to_input(Image.fromarray(to_rgb(golden(facts))), contract), expected)


def test_golden_files_cover_every_format_turn_and_contract() -> None:
    assert len({(f["format"], f["rotation"], f["mirrored"]) for f in FRAMES}) == 4 * 4 * 2
    assert len({(f["contract"]["resize"], f["contract"]["interpolation"]) for f in FRAMES}) == 4
    assert any(f["width"] % 2 for f in FRAMES)
    assert any(plane["row_stride"] % 2 and plane["pixel_stride"] == 2 for f in FRAMES for plane in f["planes"])


def test_golden_files_are_what_the_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN.parent.parent / "scripts" / "make_golden.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "GOLDEN", tmp_path)
    script.main()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in GOLDEN.iterdir() if file.is_file())
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (GOLDEN / file.name).read_bytes(), file.name


@pytest.mark.parametrize("index", range(8))
def test_yuv_pixel_by_pixel_in_floating_point(index: int) -> None:
    frame = replace(golden(FRAMES[index]), rotation=0, mirrored=False)
    y, u, v = frame.planes
    picture = to_rgb(frame).astype(int)
    for row in range(frame.height):
        for column in range(frame.width):
            luma = y.data[row * y.row_stride + column * y.pixel_stride]
            blue, red = (p.data[row // 2 * p.row_stride + column // 2 * p.pixel_stride] - 128 for p in (u, v))
            exact = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
            assert max(abs(min(max(a, 0), 255) - b) for a, b in zip(exact, picture[row, column], strict=True)) < 0.51


def test_rotation_is_clockwise_and_mirroring_comes_after() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)  # 0 1 2 / 3 4 5
    data = np.stack([pixels, pixels, pixels, pixels], -1).tobytes()
    frame = Frame("rgba", 3, 2, [Plane(data, 12, 4)])
    assert to_rgb(replace(frame, rotation=90))[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]
    assert to_rgb(replace(frame, rotation=90, mirrored=True))[..., 0].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert to_rgb(replace(frame, rotation=180))[..., 0].tolist() == [[5, 4, 3], [2, 1, 0]]
    assert to_rgb(replace(frame, rotation=270))[..., 0].tolist() == [[2, 5], [1, 4], [0, 3]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "jpeg"}, "unknown format 'jpeg'"),
        ({"planes": []}, "rgba has 1 planes, not 0"),
        ({"rotation": 45}, "rotation must be"),
        ({"width": 0}, "pixels are none"),
        ({"height": 3}, "too short for 3 x 3"),
        ({"planes": [Plane(bytes(24), 8, 4)]}, "do not hold 3 pixels"),
    ],
)
def test_frames_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        to_rgb(replace(Frame("rgba", 3, 2, [Plane(bytes(24), 12, 4)]), **changes))
