"""The last lines of export and verify: what failed, by how much, and what to do; and the tables and page above them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavit_edge.checkpoint import Checkpoint
from lavit_edge.cli import new_console
from lavit_edge.contract import InputContract
from lavit_edge.parity.agreement import FAKE, FLOAT, PROGRAM, Gates, Parity, compare
from lavit_edge.parity.check import Checked
from lavit_edge.parity.locate import Layer, Located
from lavit_edge.parity.page import page
from lavit_edge.parity.render import CELL, cell, print_parity
from lavit_edge.parity.summary import print_summary, summary

ARTIFACTS = ("model.mlpackage", "model.onnx", "model.ort", "model.pte")


def parity(worst: float = 0.05, labelled: bool = True, drop: int = 0) -> Parity:
    """60 pictures; ``worst``: noise of the first artifact; ``drop``: of how many pictures the program has another top-1."""
    rng = np.random.default_rng(0)
    reference = 9 * np.eye(10)[np.arange(60) % 10] + rng.normal(size=(60, 10))
    logits = {FLOAT: reference, FAKE: reference, PROGRAM: reference + 0.1 * rng.normal(size=reference.shape)}
    logits[PROGRAM][:drop] *= -1
    for name in ARTIFACTS:
        logits[name] = logits[PROGRAM] + (worst if name == ARTIFACTS[0] else 0.05) * rng.normal(size=reference.shape)
    return compare(logits, np.arange(60) % 10 if labelled else None, PROGRAM, Gates())


def checked(tmp_path: Path, sets: dict[str, Parity], **changes: Any) -> Checked:
    config = {"quantization": {"calibration": [{}] * 128, "training": None}}
    source = Checkpoint(tmp_path / "my model", None, InputContract(64, tuple("abcdefghij")), config)  # type: ignore[arg-type]
    facts = {"selftest": dict.fromkeys(ARTIFACTS, True), "layers": [], **changes}
    return Checked("my model", "int8", facts["selftest"], facts["layers"], sets, Gates(), source)


def test_what_passed_says_by_how_much(tmp_path: Path) -> None:
    found = summary(checked(tmp_path, {"free pictures": parity(labelled=False)}), tmp_path / "bundle", None)
    assert found.passed
    assert "more than wanted" in found.lines[1]
    assert found.top1 == ("top-1 is the int8 program's on all 60 pictures (free pictures)",)
    ((_, command),) = found.steps
    assert command.startswith("python -m lavit_edge.predict")


def test_a_noisy_artifact_is_located(tmp_path: Path) -> None:
    failed = parity(worst=5)
    found = summary(checked(tmp_path, {"free pictures": failed}), tmp_path / "bundle", None)
    assert not found.passed
    lacking = failed.noise[0].least_db - failed.noise[0].sqnr_db
    assert f"wanted {failed.noise[0].least_db:.1f}, {lacking:.1f} short" in found.lines[0]
    assert "model.mlpackage " in found.top1[0]
    assert "--locate" in found.steps[0][1]
    assert "--pictures 1000" in found.steps[1][1]


def test_a_program_that_lost_top1_gets_what_it_has_not_had(tmp_path: Path) -> None:
    found = summary(checked(tmp_path, {"mine/val": parity(drop=6)}), tmp_path / "bundle", tmp_path / "mine")
    assert found.lines == ("int8 program: 10.00 points of top-1 under fp32, at most 1.67 allowed (mine/val)",)
    assert "(-10.00)" in found.top1[0]
    commands = [command for _, command in found.steps]
    assert [any(option in command for command in commands) for option in ("--calibration-pictures 512", "--epochs 1")] == [
        True
    ] * 2
    assert commands[-1].endswith("--max-drop 0.5")
    assert shlex.quote(str(tmp_path / "my model")) in commands[-1]
    assert all(f"--data {shlex.quote(str(tmp_path / 'mine'))} " in command for command in commands)


def test_a_wrong_layer_and_a_failed_selftest_come_first(tmp_path: Path) -> None:
    layer = Layer("stages.1", "stages.1.conv", "conv2d", 3.0, 40.0, 9.0, 0.0, None, None, True)
    located = [Located("model.pte", "ExecuTorch", 2, layers=[layer])]
    tested = {**dict.fromkeys(ARTIFACTS, True), "model.onnx": False}
    sets = {"free pictures": parity(labelled=False)}
    found = summary(checked(tmp_path, sets, selftest=tested, layers=located), tmp_path / "bundle", None)
    assert not found.passed
    assert found.lines[0] == "model.onnx: its self-test failed"
    commands = [command for _, command in found.steps]
    assert commands[0].endswith("bundle/model.onnx")
    assert commands[1].endswith("--locate 8")
    assert "--float-layers stages.1.conv" in commands[2]


def test_noise_and_a_lost_top1_are_both_told(tmp_path: Path) -> None:
    found = summary(checked(tmp_path, {"mine/val": parity(worst=5, drop=6)}), tmp_path / "bundle", tmp_path / "mine")
    commands = " ".join(command for _, command in found.steps)
    assert "--locate" in commands
    assert "--epochs 1" in commands


def test_float_artifacts_are_told_against_fp32(tmp_path: Path) -> None:
    reference = np.random.default_rng(0).normal(size=(60, 10))
    sets = {"free pictures": compare({FLOAT: reference, "model.onnx": reference * 0.999}, None, FLOAT, Gates())}
    facts = checked(tmp_path, sets)
    plain = Checked(facts.checkpoint, "float", facts.selftest, [], sets, facts.gates, facts.source)
    assert summary(plain, tmp_path / "bundle", None).top1 == ("top-1 is fp32's on all 60 pictures (free pictures)",)


@pytest.mark.parametrize("case", [{"worst": 5}, {"drop": 6}, {}])
def test_the_commands_are_ones_that_are_understood(case: dict[str, Any], tmp_path: Path) -> None:
    found = summary(checked(tmp_path, {"mine/val": parity(**case)}), tmp_path / "a bundle", tmp_path / "mine")
    assert found.steps
    for _, command in found.steps:
        python, dash, module, *arguments = shlex.split(command)
        assert (python, dash) == ("python", "-m")
        home = f"{module}.__main__" if module.endswith("quantize") else module
        import_module(home).parser().parse_args(arguments)  # exits if it does not


def test_the_summary_is_in_the_card_and_stands_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = summary(checked(tmp_path, {"free pictures": parity(worst=5)}), tmp_path / "bundle", None)
    card = "\n".join(found.markdown())
    assert "**A gate failed.**" in card
    assert all(f"`{command}`" in card for _, command in found.steps)
    print_summary(found, new_console())
    assert capsys.readouterr().out.rstrip().endswith(found.steps[-1][1])


def test_eighty_columns_cut_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Nine forms, of which one is 400 steps away, and artifacts whose names differ in their last letters alone."""
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(20, 10))
    names = [FLOAT, PROGRAM, *(f"a-name-that-is-as-long-as-some-are-{letter}.onnx" for letter in "abcdef"), "model.pte"]
    logits = {name: reference + 0.01 * rng.normal(size=reference.shape) for name in names}
    logits["model.pte"] *= 9
    found = compare(logits, None, PROGRAM, Gates())
    assert max(pair.max_delta_steps for pair in found.pairs) > 400
    assert max(len(line) for pair in found.pairs for line in cell(pair).splitlines()) <= CELL
    console = new_console()
    console.width = 80
    print_parity("free pictures", found, console)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.slow
def test_the_page_fits_and_marks_what_the_gates_ask(look: Callable[[str, str], dict[int, list[float]]], tmp_path: Path) -> None:
    failed = parity(worst=5)
    text = page("t", {"mine/val": failed}, summary(checked(tmp_path, {"mine/val": failed}), tmp_path / "bundle", None))
    assert text.count("class='gate failed'") == 1
    for width, (wider, *edges) in look(text, "td.gate, td.good, td.failed, svg").items():
        assert wider <= 0
        assert len(edges) == 4 + 4 + 1
        assert max(edges) <= width
