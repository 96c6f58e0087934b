from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

import lavit_edge
from lavit_edge.data import split as splits
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256
from lavit_edge.split import main

FREE = Path(lavit_edge.__file__).parent / "pictures_cc0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 pictures of noise of each of two classes, six of ``a`` being three pairs that look alike."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        own = tmp_path / "all" / name
        own.mkdir(parents=True)
        for number in range(20 if name == "b" else 17):
            coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            coarse.resize((96, 96), Image.Resampling.BICUBIC).save(own / f"{number:02}.png")
    own = tmp_path / "all" / "a"
    picture = Image.open(own / "00.png")
    picture.save(own / "00-small.jpg", quality=40)
    ImageEnhance.Brightness(Image.open(own / "01.png")).enhance(1.1).save(own / "01-bright.png")
    Image.open(own / "02.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((60, 60)).save(own / "02-mirrored.png")
    return tmp_path / "all"


def names(out: Path, part: str) -> set[str]:
    return {file.relative_to(out / part).as_posix() for file in (out / part).rglob("*.*")}


def test_the_same_share_of_each_class_and_the_same_split_each_time(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in ("one", "two"):
        assert main([str(folder), "--out", str(tmp_path / out)]) == 0
    assert main([str(folder), "--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    val = names(tmp_path / "one", "val")
    assert sum(name.startswith("b/") for name in val) == 4
    assert 3 <= sum(name.startswith("a/") for name in val) <= 4
    assert val == names(tmp_path / "two", "val") != names(tmp_path / "other", "val")
    assert not val & names(tmp_path / "one", "train")
    assert val | names(tmp_path / "one", "train") == {file.relative_to(folder).as_posix() for file in folder.rglob("*.*")}
    assert file_sha256(folder / "b" / "00.png") in {file_sha256(file) for file in (tmp_path / "one").rglob("00.png")}
    assert "all: 2 classes, 40 pictures, 20 a class" in capsys.readouterr().out
    assert json.loads((tmp_path / "one" / "split.json").read_text())["kept_together"] == 3


@pytest.mark.parametrize("seed", range(6))
def test_what_looks_alike_stays_together(seed: int, folder: Path, tmp_path: Path) -> None:
    assert main([str(folder), "--out", str(tmp_path / "out"), "--seed", str(seed), "--val", "0.5"]) == 0
    val = names(tmp_path / "out", "val")
    for one, other in (("00.png", "00-small.jpg"), ("01.png", "01-bright.png"), ("02.png", "02-mirrored.png")):
        assert (f"a/{one}" in val) == (f"a/{other}" in val)


def test_different_photographs_are_not_alike() -> None:
    files = [
        min((FREE / "train" / name).iterdir()) for name in ("astronaut", "brick", "cat", "coffee", "grass", "hubble", "retina")
    ]
    looks = np.array([[splits.look(Image.open(file)), splits.look(Image.open(file))] for file in files])
    assert splits.alike(looks) == [[number] for number in range(len(files))]


def test_a_class_that_cannot_be_split_is_trained_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c").mkdir()
    for name in ("x.png", "y.png"):
        shutil.copy(folder / "b" / "00.png", folder / "c" / name)
    (folder / "b" / "broken.png").write_bytes(b"no picture")
    assert main([str(folder), "--out", str(tmp_path / "out")]) == 0
    assert {"c/x.png", "c/y.png"} <= names(tmp_path / "out", "train")
    printed = capsys.readouterr().out
    assert "class 'c' has one picture, or only such that look alike" in printed
    assert "all: 1 left out, not a picture that can be decoded" in printed


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: [(folder / name).mkdir() for name in ("train", "val")], "is split already"),
        (lambda folder: shutil.rmtree(folder / "a"), "1 class folders"),
        (lambda folder: (folder / "empty").mkdir(), "class 'empty' has no picture"),
        (lambda folder: (folder / "__MACOSX").mkdir(), "is no class"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(make: object, words: str, folder: Path, tmp_path: Path) -> None:
    make(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=words):
        main([str(folder), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--val", "1"], ["--val", "0"], ["--seed", "-1"]])
def test_options_out_of_range(options: list[str], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=options[0]):
        main([str(folder), "--out", str(tmp_path / "out"), *options])
