"""What the self-test says of answers, on the cases that the tests of every language read."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CASES = json.loads((ROOT / "tests" / "golden" / "selftest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("make_golden", ROOT / "scripts" / "make_golden.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return json.loads(json.dumps(module.selftests()))


def test_the_cases_are_what_python_says(made: dict[str, Any]) -> None:
    assert made == CASES


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("as expected", None, None),
        ("all classes higher", None, None),
        ("within tolerances", None, None),
        ("within tolerances, none close", None, "close pictures"),
        ("one close", None, "close pictures"),
        ("beyond the first tolerance", None, "a: logits"),
        ("beyond the second", None, "b: logits"),
        ("beyond the third, whose class is masked", None, "c: logits"),
        ("far beyond", "a: logits", "a: logits"),
        ("another label leads by less than the tolerance", None, None),
        ("another label leads by more", None, "c: logits"),
    ],
)
def test_a_case_fails_where_it_should(name: str, old: str | None, new: str | None) -> None:
    """A masked class stretches the step of the old format until nothing fails."""
    failed = {case["payload"]: case["failed"] for case in CASES["cases"] if case["name"] == name}
    assert failed == {"1": old, "2": new}
