from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lavit_edge.errors import UserError
from lavit_edge.train.journal import write_log
from lavit_edge.train.page import MOST_CLASSES, main

EMPTY = {"val_top1": "", "val_loss": "", "weights": "", "average_top1": "", "last_step_top1": ""}


def row(epoch: int, **values: str) -> dict[str, str]:
    return {"epoch": str(epoch), "lr": "0.001", "loss": f"{2 / epoch:.4f}", **EMPTY, "img_per_s": "90"} | values


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three epochs, the second not judged, of a model that takes one cat for a <dog>."""
    judged = {"val_loss": "0.7", "weights": "average"}
    first = row(1, val_top1="0.7500", average_top1="0.7500", last_step_top1="0.5000", **judged)
    write_log([first, row(2), row(3, val_top1="0.5000", average_top1="0.5000", last_step_top1="0.2500", **judged)], tmp_path)
    save(tmp_path)
    return tmp_path


def save(run: Path, **changes: Any) -> None:
    mistake = {"name": "cat/<1>.jpg", "target": 0, "predicted": 1, "probability": 0.9, "loss": 2.3, "jpeg": "AAAA"}
    judged = {"labels": ["cat", "<dog>"], "confusion": [[0, 0, 1], [0, 1, 1], [1, 1, 2]], "loss": 0.7, "worst": [mistake]}
    (run / "judged.json").write_text(json.dumps(judged | changes))


class Reader(HTMLParser):
    """Texts, and the tags and what they fetch."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.sources = [], [], []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(run: Path) -> Reader:
    assert main([str(run)]) == 0
    return Reader((run / "training.html").read_text("utf-8"))


def test_the_page_has_curves_classes_matrix_and_mistakes_and_fetches_nothing(run: Path) -> None:
    made = read(run)
    text = " ".join(" ".join(made.text).split())
    assert "3 epochs. Val top-1: 50.00 % at the end; the highest was 75.00 %, after epoch 1 (average)" in text
    assert made.tags.count("polyline") == 6
    assert re.search(r"cat 2 50\.0 % \d+ to \d+ % <dog> \(1\)", text)
    assert "cat, taken for <dog> (90 %): cat/<1>.jpg" in text
    assert made.sources == ["data:image/jpeg;base64,AAAA"]
    assert {"dog", "1", "script", "link"}.isdisjoint(made.tags), "names are text"


def test_a_run_that_was_not_judged_has_curves_alone(tmp_path: Path) -> None:
    write_log([row(1)], tmp_path)
    made = read(tmp_path)
    assert "1 epochs, none judged." in made.text
    assert made.tags.count("polyline") == 3


def test_many_classes_are_listed_by_pairs(run: Path) -> None:
    labels = [f"class {number}" for number in range(MOST_CLASSES + 1)]
    save(run, labels=labels, confusion=[[3, 4, 2], [5, 6, 9], [7, 7, 50]], worst=[])
    text = " ".join(read(run).text)
    assert text.index("class 5 taken for class 6: 9") < text.index("class 3 taken for class 4: 2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"confusion": [[0, 5, 1]]}, "a class that is not among the labels"),
        ({"confusion": [[0, 1]]}, "is not [class, class, pictures]"),
        ({"labels": "cat"}, "labels must be of type list"),
        ({"worst": [{"name": "x"}]}, "target is missing"),
        ({"worst": [{"name": "", "target": 0, "predicted": 1, "probability": 1, "loss": 1, "jpeg": "'onerror='"}]}, "not base64"),
    ],
)
def test_files_of_others_are_one_line(changes: dict[str, Any], words: str, run: Path) -> None:
    save(run, **changes)
    with pytest.raises(UserError, match=re.escape(words)):
        main([str(run)])


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no log\.csv"):
        main([str(tmp_path)])
