"""The figures of evaluate, against values worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lavit_edge.cli import new_console
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.evaluate import Evaluated
from lavit_edge.metrics import mcnemar, paired, wilson
from lavit_edge.see.judge import Judged, compare, judge
from lavit_edge.see.page import judged_page
from lavit_edge.see.render import print_judged
from lavit_edge.see.source import Source
from lavit_edge.verbs import silent

Make = Callable[..., Source]
Look = Callable[[str, str], dict[int, list[float]]]


def judged(folder: PictureFolder, *sources: Source) -> list[Judged]:
    return judge(sources, folder, False, silent())[0]


def test_shares_classes_and_confusion(folder: PictureFolder, source: Make) -> None:
    (found,) = judged(folder, source())
    assert (found.top1.hits, found.top1.total) == (4, 6)
    assert found.top1.interval == wilson(4, 6)
    assert found.top5 is not None
    assert found.top5.hits == 5, "of picture 3 the right label is the last of six"
    assert [(each.label, each.found.hits, each.found.total, each.taken_for, each.times) for each in found.classes] == [
        ("a", 2, 3, "b", 1),
        ("b", 1, 2, "a", 1),
        ("d", 1, 1, None, 0),
    ]
    assert found.confusion.sum() == 6
    assert found.confusion[0].tolist() == [2, 1, 0, 0, 0, 0]
    assert found.confusions(5) == [("a", "b", 1), ("b", "a", 1)]


def test_calibration(folder: PictureFolder, source: Make) -> None:
    """15 bins: 0.95 and 0.94 share one (14/15 is 0.933), so that 0.945 stands against one of two; each other has its own."""
    (found,) = judged(folder, source())
    assert [each.pictures for each in found.bins] == [1, 1, 1, 1, 2]
    gaps = [1 - 0.31, 0.70, 1 - 0.75, 1 - 0.90, 2 * abs(0.945 - 0.5)]
    assert found.ece == pytest.approx(sum(gaps) / 6, abs=1e-5)
    assert found.nll == pytest.approx(-np.log([0.95, 0.90, 0.20, 0.001, 0.75, 0.31]).mean(), abs=1e-4)


def test_the_worst_mistakes_come_first(folder: PictureFolder, source: Make) -> None:
    (found,) = judged(folder, source())
    first, second = (found.mistake(row) for row in found.worst(9))
    assert Path(first["picture"]).name == "3.png"
    assert (first["label"], first["taken_for"]) == ("b", "a")
    assert first["with_probability"] == pytest.approx(0.94, abs=1e-5)
    assert Path(second["picture"]).name == "2.png"


def test_two_models_side_by_side(folder: PictureFolder, source: Make) -> None:
    """The second has its labels in another order, answers as the first does, and has one more right and one more wrong."""
    backwards = tuple(reversed(source().contract.labels))
    same = compare(*judged(folder, source(), source(backwards)))
    assert (same.only_first, same.only_second, same.differing) == (0, 0, ())
    assert same.p == 1
    assert same.interval[0] < 0 < same.interval[1]
    right, wrong = [0.02, 0.9, 0.02, 0.02, 0.02, 0.02], [0.02, 0.02, 0.9, 0.02, 0.02, 0.02]
    other = compare(*judged(folder, source(), source(backwards, {3: right, 0: wrong, 2: wrong})))
    assert (other.only_first, other.only_second) == (1, 1)
    assert [Path(folder.paths[row]).name for row in other.differing] == ["0.png", "2.png", "3.png"]
    assert other.difference == 0


def test_models_of_other_labels_are_not_set_side_by_side(folder: PictureFolder, source: Make) -> None:
    with pytest.raises(UserError, match="do not have the same labels"):
        judged(folder, source(), source(tuple("abcde")))


def test_logits_that_are_no_numbers_are_refused(folder: PictureFolder, source: Make) -> None:
    with pytest.raises(UserError, match="does not give a finite logit"):
        judged(folder, source(changes={1: [float("nan")] * 6}))


def test_mcnemar_against_tossed_coins() -> None:
    assert mcnemar(0, 0) == mcnemar(1, 0) == mcnemar(5, 5) == 1
    assert mcnemar(0, 5) == 2 / 32
    assert mcnemar(3, 7) == mcnemar(7, 3) == 2 * (1 + 10 + 45 + 120) / 1024
    assert mcnemar(20_000, 20_500) == pytest.approx(0.013, abs=0.002)  # a difference of 2.48 standard deviations


def test_the_paired_interval_holds_what_it_promises() -> None:
    assert paired(2, 8, 100) == pytest.approx(tuple(-each for each in reversed(paired(8, 2, 100))))
    rng = np.random.default_rng(0)
    outcomes = rng.multinomial(300, (0.04, 0.06, 0.90), 2000)  # the second is better by 0.02
    held = [low <= 0.02 <= high for low, high in (paired(int(a), int(b), 300) for a, b, _ in outcomes)]
    assert 0.93 < np.mean(held) < 0.98


@pytest.mark.parametrize("models", [1, 2])
def test_eighty_columns_show_everything(folder: PictureFolder, source: Make, models: int, capsys: pytest.CaptureFixture) -> None:
    found = judged(folder, *(source(name=f"a-folder/with/quite-a-long-name/{number}/model.onnx") for number in range(models)))
    console = new_console()
    console.width = 80
    print_judged(found, compare(*found) if models == 2 else None, 12, console)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "66.67 (30.0 to 90.3)" in shown
    assert ("McNemar's" in shown) == (models == 2)


def test_the_result_is_json(folder: PictureFolder, source: Make) -> None:
    first, second = judged(folder, source(), source(changes={0: [0.1, 0.5, 0.1, 0.1, 0.1, 0.1]}))
    document = Evaluated((first, second), compare(first, second), ("gone.png: damaged",)).to_dict(worst=1)
    assert json.loads(json.dumps(document)) == document
    assert [len(each["worst"]) for each in document["models"]] == [1, 1]
    assert [each[1]["taken_for"] for each in document["compared"]["differing"]] == ["b"]


@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_laptop(folder: PictureFolder, source: Make, look: Look, tmp_path: Path) -> None:
    changes = {0: [0.02, 0.02, 0.9, 0.02, 0.02, 0.02]}
    models = judged(folder, source(name="<script>alert(1)</script>" + "x" * 60), source(changes=changes, name="other"))
    page = judged_page(models, compare(*models), ["<b>.png: damaged"], 12)
    assert "<script" not in page
    assert "<b>.png" not in page
    assert page.count("data:image/jpeg") == 1 + 2 + 3, "where they differ, and the mistakes of each"
    assert page.count("<circle") == sum(len(each.bins) for each in models)
    for width, (wider, *edges) in look(page, "svg, .card, table.matrix tr:first-child th:first-child").items():
        assert wider <= 0
        assert len(edges) == 2 + 6 + 2
        assert max(edges) <= width
    assert colours(tmp_path / "360.png") > 50


@pytest.mark.slow
def test_a_page_that_is_too_wide_would_be_seen(look: Look) -> None:
    assert all(wider > 0 and edge > width for width, (wider, edge) in look("<p style='width:2000px'>x", "p").items())


def colours(picture: Path) -> int:
    """How many colours a screenshot has: an empty page has one."""
    from PIL import Image

    return len(np.unique(np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3), axis=0))
