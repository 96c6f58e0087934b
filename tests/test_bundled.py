"""The checkpoint that ships with the package, as a newcomer meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lavit_edge.checkpoint import bundled_checkpoints, load_checkpoint
from lavit_edge.export.__main__ import DEFAULT_CHECKPOINT
from lavit_edge.export.__main__ import main as export


@pytest.fixture(scope="module")
def path() -> Path:
    return bundled_checkpoints()[DEFAULT_CHECKPOINT]


def test_it_is_quantised_and_small(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.quantized
    assert checkpoint.contract.size == 160
    assert sum(file.stat().st_size for file in path.iterdir()) < 25e6


def test_its_card_says_how_its_accuracy_came_about(path: Path) -> None:
    card = (path / "README.md").read_text(encoding="utf-8")
    training = load_checkpoint(path).config["training"]
    assert training["recipe"]["teacher"] in card
    assert "from scratch" in card.lower()
    assert "CPU" in card
    assert "seen" in card, "the teacher has been trained on most of the val pictures"


@pytest.mark.slow
def test_its_three_artifacts_pass_the_default_gates(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(["--out", str(tmp_path / "bundle"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    sizes = {name: entry["bytes"] for name, entry in result["artifacts"].items()}
    weights = 4 * sum(parameter.numel() for parameter in load_checkpoint(path).model.parameters())
    assert sizes["model.pte"] < 0.35 * weights
    assert sizes["model.onnx"] < 0.35 * weights
    assert sizes["model.mlpackage"] < 0.35 * weights
