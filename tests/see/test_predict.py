"""predict and evaluate, as commands and from Python, on real artifacts and checkpoints."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lavit_edge
from lavit_edge.artifact.runners import open_artifact
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import load_input
from lavit_edge.errors import UserError
from lavit_edge.evaluate import main as evaluate
from lavit_edge.predict import main as predict
from lavit_edge.see.answers import Answer, Label, Predicted
from lavit_edge.see.page import answers_page
from lavit_edge.see.source import open_source

CONTRACT = InputContract(64, tuple(f"class {index}" for index in range(10)))


@pytest.fixture
def pictures(colours: Path, tmp_path: Path) -> Path:
    """Two pictures in a folder, one of them in a folder below it, one damaged, and what is no picture."""
    folder = tmp_path / "[red] pictures"
    (folder / "below").mkdir(parents=True)
    shutil.copy(colours / "val" / "red" / "00.png", folder / "a.png")
    shutil.copy(colours / "val" / "green" / "00.png", folder / "below" / "b.png")
    (folder / "damaged.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("nothing")
    return folder


def test_answers_are_those_of_the_artifact(tiny_onnx: Path, pictures: Path) -> None:
    found = lavit_edge.predict(tiny_onnx, pictures, lavit_edge.PredictConfig(top=10))
    logits = open_artifact(tiny_onnx)(load_input(pictures / "a.png", CONTRACT)).astype(float)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [Path(answer.picture).name for answer in found.answers] == ["a.png", "b.png"]
    got = {each.label: each.probability for each in found.answers[0].labels}
    assert [got[label] for label in CONTRACT.labels] == pytest.approx(expected)
    assert list(got.values()) == sorted(got.values(), reverse=True)
    assert (found.form, found.passed) == ("float .onnx", False)
    (line,) = found.unreadable
    assert "damaged.png" in line


@pytest.mark.parametrize("name", ["", "@float"])
def test_a_bundle_and_a_checkpoint_answer_alike(
    name: str, tiny_onnx: Path, tiny_checkpoint: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    of_bundle = lavit_edge.predict(tiny_onnx.parent, [pictures / "a.png"])
    of_checkpoint = lavit_edge.predict(f"{tiny_checkpoint}{name}", pictures / "a.png")
    assert capfd.readouterr() == ("", ""), "silent unless asked"
    assert of_bundle.model.endswith("model.onnx")
    for one, other in zip(of_bundle.answers[0].labels, of_checkpoint.answers[0].labels, strict=True):
        assert one.label == other.label
        assert one.probability == pytest.approx(other.probability, abs=1e-4)


def test_an_int8_form_that_is_not_there(tiny_checkpoint: Path) -> None:
    with pytest.raises(UserError, match="has no int8 form"):
        open_source(f"{tiny_checkpoint}@int8")


def test_a_damaged_artifact_never_reaches_the_runtime(tiny_onnx: Path, pictures: Path, tmp_path: Path) -> None:
    data = bytearray(tiny_onnx.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"model\.onnx"):
        lavit_edge.predict(tmp_path / "model.onnx", pictures)


def test_json_csv_and_page(tiny_onnx: Path, pictures: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "seen.html"
    arguments = [str(tiny_onnx), str(pictures), "--top", "2"]
    assert predict([*arguments, "--json", "--html", str(page)]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [len(each["labels"]) for each in document["answers"]] == [2, 2]
    assert "not read: " in err
    assert "damaged.png" in err
    assert page.read_text("utf-8").count("data:image/jpeg;base64,") == 2
    assert predict([*arguments, "--csv"]) == 1
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == ["picture", "rank", "label", "probability", "sure"]
    assert [row[1] for row in rows[1:]] == ["1", "2", "1", "2"]
    assert predict([str(tiny_onnx), str(pictures / "a.png")]) == 0
    assert "class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "picture", "message"),
    [
        ("nowhere", "a.png", "nowhere is none of an artifact"),
        ("nowhere.onnx", "a.png", r"nowhere\.onnx does not exist"),
        (None, "nowhere.png", r"nowhere\.png does not exist"),
        (None, "empty", "no pictures found"),
    ],
)
def test_mistakes_are_told_in_a_line(model: str | None, picture: str, message: str, tiny_onnx: Path, pictures: Path) -> None:
    (pictures / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        lavit_edge.predict(model or tiny_onnx, pictures / picture)


def test_an_onnx_answers_without_torch(tiny_onnx: Path, pictures: Path) -> None:
    lines = ["import sys, lavit_edge", "lavit_edge.predict(sys.argv[1], sys.argv[2])", "print('torch' in sys.modules)"]
    command = [sys.executable, "-c", "\n".join(lines), str(tiny_onnx), str(pictures / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_evaluate_judges_what_the_folder_says(fp32: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against logits that are computed here; a picture that is damaged is left out, and the exit code says so."""
    found = lavit_edge.evaluate(fp32, data)
    source, hits, total = open_source(fp32), 0, 0
    for target, label in enumerate(source.contract.labels):
        for path in (data / "val" / label).iterdir():
            hits += int(source.run(load_input(path, source.contract)).argmax()) == target
            total += 1
    assert (found.models[0].top1.hits, found.models[0].top1.total) == (hits, total)
    assert found.models[0].top5 is None, "of five classes"
    assert found.passed
    shutil.copytree(data, tmp_path / "data")
    next((tmp_path / "data" / "val" / "direction1").iterdir()).write_bytes(b"x")
    arguments = [str(fp32), "--data", str(tmp_path / "data")]
    assert evaluate([*arguments, "--json", "--html", str(tmp_path / "page.html")]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["pictures"] == total - 1
    assert "not read: " in err
    assert "<svg" in (tmp_path / "page.html").read_text("utf-8")
    with pytest.raises(UserError, match="refused under --strict"):
        evaluate([*arguments, "--strict"])


@pytest.mark.slow
def test_the_page_of_answers_fits(colours: Path, look: Callable[[str, str], dict[int, list[float]]]) -> None:
    labels = (Label("a label as long as those of ImageNet, some of which are", 0.75), Label("<i>", 0.25))
    answers = tuple(Answer(str(path), labels, True) for path in sorted((colours / "val" / "red").iterdir()))
    page = answers_page(Predicted("model.onnx", "int8 .onnx", answers, ("gone.png: damaged",)))
    assert "<i>" not in page.replace("<i style", "")
    for width, (wider, *edges) in look(page, ".card, .bar span").items():
        assert wider <= 0
        assert len(edges) == 4 * 5
        assert max(edges) <= width
