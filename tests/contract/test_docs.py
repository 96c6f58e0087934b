"""docs/contract.md: it names every field, and its arithmetic is the package's to the bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lavit_edge.artifact.payload import read_payload
from lavit_edge.artifact.runners import open_runtime, read_entries, to_tensor
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import to_input

DOCS_FOLDER = Path(__file__).parents[2] / "docs"
DOCS = (DOCS_FOLDER / "contract.md").read_text("utf-8")
SIZES = [(64, 48), (37, 91), (1, 1), (3, 200), (32, 32), (333, 250)]  # of pictures, width and height


@pytest.fixture(scope="module")
def page() -> dict[str, Callable[..., Any]]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    names: dict[str, Callable[..., Any]] = {}
    exec(code, names)
    return names


def test_every_field_is_on_the_page() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    fields = {field.name for field in dataclasses.fields(InputContract)} | {"format"}
    rows = re.findall(r"^\| (`.*?) \|", DOCS, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == fields
    assert set(json.loads(example)) == fields
    assert InputContract.from_json(example).to_json() == example.replace("\n ", "").strip()


@pytest.mark.parametrize(("resize", "interpolation"), itertools.product(("squash", "crop"), ("bilinear", "bicubic")))
def test_the_arithmetic_is_the_packages_to_the_bit(page: dict[str, Callable[..., Any]], resize: Any, interpolation: Any) -> None:
    rng = np.random.default_rng(0)
    for (width, height), size, fraction in itertools.product(SIZES, (32, 50), (1.0, 0.875)):
        contract = InputContract(size, ("a", "b"), resize, interpolation, fraction)
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture[: height // 2] = np.where(picture[: height // 2] < 128, 0, 255)  # where the cubic filter overshoots
        expected = to_tensor(to_input(Image.fromarray(picture), contract))
        made = page["to_tensor"](picture, contract.to_dict())
        assert made.dtype == np.float32
        assert np.array_equal(made, expected), (width, height, size, fraction)


def test_normalising_is_what_an_app_must_not_do(page: dict[str, Callable[..., Any]], tiny_onnx: Path) -> None:
    """The golden pictures' logits come of the page's tensor, and not of a normalised one."""
    payload, run = read_payload(read_entries(tiny_onnx)), open_runtime(tiny_onnx)
    contract = payload.contract.to_dict()
    mean, std = (np.float32(contract[name]).reshape(1, 3, 1, 1) for name in ("mean", "std"))
    for golden in payload.golden:
        tensor = page["to_tensor"](golden.picture, contract)
        (logits,) = run(tensor)
        assert np.abs(logits - golden.logits).max() <= golden.tolerance * payload.step
        if np.ptp(golden.picture) > 128:  # a flat colour may look alike to a net of random weights
            (wrong,) = run((tensor / 255 - mean) / std)
            assert np.abs(wrong - golden.logits).max() > golden.tolerance * payload.step
    assert page["probabilities"](logits, contract) == pytest.approx(np.exp(logits) / np.exp(logits).sum(), rel=1e-4)


def test_answers_on_the_page_are_the_packages(page: dict[str, Callable[..., Any]]) -> None:
    for case in json.loads((DOCS_FOLDER.parent / "tests" / "golden" / "decisions.json").read_text("utf-8"))["answers"]:
        contract = {"labels": list("abcdefghij"), "temperature": case["temperature"], "threshold": case["threshold"]}
        probable = page["probabilities"](np.array(case["logits"], np.float32), contract)
        np.testing.assert_allclose(probable, case["probabilities"], rtol=0, atol=1e-11)
        assert page["answer"](probable, contract) == ("not sure" if case["answer"] is None else "abcdefghij"[case["answer"]])
