"""The summary of several artifacts: a row for each distinct sentence, and nothing that tells rows apart is cut."""

from __future__ import annotations

import pytest

from lavit_edge.cli import new_console
from lavit_edge.verdict.judge import Verdict
from lavit_edge.verdict.render import distinct, print_summary, where


def verdict(device: str, sentence: str, verified: bool = True) -> Verdict:
    return Verdict("int8", "r", device, verified, 1, 1.0, None, None, 0, {}, 0.0, 0.5, "faster", sentence, [], [])


def test_the_same_sentence_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    same = {"x86-vnni": verdict("x86-vnni", "All is well."), "arm64": verdict("arm64", "All is well.", False)}
    found = {
        "model.onnx": {**same, "i8mm": verdict("i8mm", "Better still.", False)},
        "model.ort": same,
        "model.pte": {"x86-vnni": verdict("x86-vnni", "Keep neighbours in one precision.")},
    }
    groups = distinct(found)
    assert [len(group) for group in groups] == [4, 1, 1]
    assert where(groups[0]) == "model.onnx, model.ort on x86-vnni, arm64*"
    console = new_console()
    console.width = 80
    print_summary(found, console)
    shown = capsys.readouterr().out
    assert shown.count("All is well.") == 1
    for words in ("model.onnx, model.ort on x86-vnni, arm64*", "model.onnx on i8mm*", "model.pte on x86-vnni", "never verified"):
        assert words in shown
