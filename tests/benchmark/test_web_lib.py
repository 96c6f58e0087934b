"""The JavaScript of apps/web/lib agrees with Python: node runs its tests on cases that Python has made here."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavit_edge.artifact.payload import Payload, read_payload, sample_of
from lavit_edge.artifact.runners import read_entries
from lavit_edge.artifact.seal import check_seal
from lavit_edge.benchmark.report import Report, canonical, digest, latency, schema
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input

pytestmark = [pytest.mark.apps, pytest.mark.slow]
TESTS = Path(__file__).parents[2] / "apps" / "web" / "tests"
NASTY = [
    "",
    '"\\/',
    "\b\f\n\r\t\0\x01\x1f\x7f\x80",
    "é ü ß \u00ad \ufeff \u2028\u2029",
    "\U0001f600 \U00010000 \uffff",
    "日本語 עברית",
    "</script>",
    "__proto__",
]
SIZES = [
    (640, 480),
    (480, 640),
    (37, 53),
    (1, 1),
    (3, 200),
    (64, 64),
    (63, 65),
    (65, 63),
    (128, 64),
    (1000, 67),
    (72, 128),
    (1, 5000),
]


@pytest.fixture(scope="module")
def cases(tiny_onnx: Path, make_report: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and what Python makes of them."""
    folder = tmp_path_factory.mktemp("cases")
    write = {
        "canonical": _canonical(),
        "latency": [_latency(samples, gap) for samples, gap in _runs()],
        "reports": [make_report(), make_report(device__name=None, preprocessing=None, settings__threads=None)],
        "lacks": schema()["properties"]["lacks"]["items"]["enum"],
        "payload": _payload(tiny_onnx),
        "pictures": list(_pictures(folder)),
    }
    for name, value in write.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    shutil.copy(tiny_onnx, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("name", sorted(file.name for file in TESTS.glob("*.test.mjs")))
def test_as_python(name: str, cases: Path) -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI"):
            pytest.fail("node is missing")
        pytest.skip("node is missing")
    command = [node, "--test", "--test-reporter=tap", str(TESTS / name)]
    done = subprocess.run(command, env={**os.environ, "LAVIT_CASES": str(cases)}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout


def _canonical() -> list[dict[str, Any]]:
    values: list[Any] = [
        *NASTY,
        {text: text for text in NASTY},
        {"b": [1, -1, 0, 2**53 - 1, -(2**53) + 1], "a": {"z": None, "A": True, "_": False, "": []}, "10": 1, "9": {}},
        [[], {}, [[None]]],
    ]
    texts = [canonical(value) for value in values]
    return [
        {
            "value": value,
            "text": text.decode(),
            "sha256": hashlib.sha256(text).hexdigest(),
            "digest": digest({"x": value, "sha256": "y"}),
        }
        for value, text in zip(values, texts, strict=True)
    ]


def _runs() -> list[tuple[list[int], int]]:
    """Samples and the gap between runs, ns: few, equal, over three minutes, with a minute in which none begins, over 20,000."""
    rng = np.random.default_rng(0)
    noise = [int(value) for value in rng.integers(1_000_000, 90_000_000, 20_001)]
    long = [int(value) for value in rng.integers(1, 30, 20) * 1_000_000_000]
    return [
        ([7], 0),
        ([5] * 4, 3),
        (noise[:999], 5),
        (noise[:1000], 200_000_000),
        (long, 0),
        ([150_000_000_000, 5, 5], 1),
        (noise, 1),
    ]


def _latency(samples: list[int], gap: int) -> dict[str, Any]:
    starts = [0, *itertools.accumulate(sample + gap for sample in samples[:-1])]
    return {"samples": samples, "starts": starts, "latency": latency(samples, starts)}


def _payload(path: Path) -> dict[str, Any]:
    entries = read_entries(path)
    payload: Payload = read_payload(entries)
    return {
        "entries": entries,
        "digest": check_seal(path),
        "contract": payload.contract.to_dict(),
        "contract_sha256": payload.contract.sha256,
        "provenance": payload.provenance,
        "step": payload.step,
        "close": [payload.close_steps, payload.close_pictures],
        "golden": [
            {
                "name": golden.name,
                "shape": golden.picture.shape,
                "picture": hashlib.sha256(golden.picture.tobytes()).hexdigest(),
                "sample": golden.sample.ravel().tolist(),
                "logits": golden.logits.tolist(),
                "tolerance": golden.tolerance,
                "input": hashlib.sha256(to_input(golden.image(), payload.contract).tobytes()).hexdigest(),
            }
            for golden in payload.golden
        ],
    }


def _pictures(folder: Path) -> Any:
    """Noise, which has the steepest edges there are, of each size by each contract; the files hold raw bytes."""
    rng = np.random.default_rng(0)
    for index, (width, height) in enumerate(SIZES):
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture[: height // 2] = np.where(picture[: height // 2] < 128, 0, 255)  # where the cubic filter overshoots
        (folder / f"picture{index}").write_bytes(picture.tobytes())
        for resize, interpolation, crop, size in itertools.product(
            ("squash", "crop"), ("bilinear", "bicubic"), (1.0, 0.875, 64 / 70.5), (64, 96)
        ):
            if resize == "squash" and crop != 1.0:
                continue
            contract = InputContract(size, ("a", "b"), resize=resize, interpolation=interpolation, crop_fraction=crop)  # type: ignore[arg-type]
            expected = to_input(Image.fromarray(picture), contract)
            name = f"input{index}-{resize}-{interpolation}-{crop}-{size}"
            (folder / name).write_bytes(expected.tobytes())
            yield {
                "picture": f"picture{index}",
                "width": width,
                "height": height,
                "contract": contract.to_dict(),
                "input": name,
                "sample": sample_of(expected).ravel().tolist(),
            }
