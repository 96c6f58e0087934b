"""What predict and evaluate say of a model whose contract has a temperature and a threshold."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lavit_edge.data.folder import PictureFolder
from lavit_edge.see.answers import answer
from lavit_edge.see.judge import judge
from lavit_edge.see.page import answers_page
from lavit_edge.see.render import figures, print_answers
from lavit_edge.see.source import Source
from lavit_edge.verbs import silent

Make = Callable[..., Source]


def test_below_the_threshold_predict_is_not_sure(greys: Path, source: Make) -> None:
    found = answer(source(threshold=0.75), sorted(greys.glob("val/*/*.png")), 2, silent())
    assert [each.sure for each in found.answers] == [True, True, False, True, True, False]
    assert [row[-1] for row in found.rows()][4:6] == [False, False]
    console = Console(file=io.StringIO(), width=80)
    print_answers(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("not sure") == 2
    assert answers_page(found).count("not sure") == 2
    assert all(each.sure for each in answer(source(), sorted(greys.glob("val/*/*.png")), 2, silent()).answers)


def test_probabilities_are_by_the_temperature(greys: Path, source: Make) -> None:
    """Over 0.5, logits are doubled, so that probabilities go by their squares."""
    (found,) = answer(source(temperature=0.5), [greys / "val" / "a" / "2.png"], 1, silent()).answers
    squares = [share**2 for share in (0.20, 0.70, 0.04, 0.03, 0.02, 0.01)]
    assert found.labels[0].probability == pytest.approx(0.49 / sum(squares))


def test_evaluate_counts_what_is_answered(folder: PictureFolder, source: Make) -> None:
    """Of six pictures those with 0.95, 0.90, 0.94 and 0.75 are answered; the third of these is wrong."""
    ((found,), _) = judge([source(threshold=0.75)], folder, False, silent())
    assert (found.answered.hits, found.answered.total) == (4, 6)
    assert (found.right_when_sure.hits, found.right_when_sure.total) == (3, 4)
    assert found.to_dict(0)["right_when_sure"]["share"] == 0.75
    names = [row[0] for row in figures([found])]
    assert "sure enough to answer %" in names
    ((always,), _) = judge([source()], folder, False, silent())
    assert always.answered.value == 1
    assert "sure enough to answer %" not in [row[0] for row in figures([always])]
