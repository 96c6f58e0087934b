from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError

LABELS = ("blue", "green", "red")
CONTRACT = InputContract(size=32, labels=LABELS)


@pytest.fixture
def data(colours: Path, tmp_path: Path) -> Path:
    """A copy of the ``val`` split that may be changed: 4 pictures of each class."""
    shutil.copytree(colours / "val", tmp_path / "data" / "val")
    return tmp_path / "data"


def message(root: Path, split: str = "val", labels: tuple[str, ...] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        PictureFolder(root, split, labels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_and_files_come_in_order(colours: Path) -> None:
    folder = PictureFolder(colours, "train")
    assert folder.labels == LABELS
    assert len(folder) == 48
    assert folder.targets == [0] * 16 + [1] * 16 + [2] * 16
    assert [path.name for path in folder.paths[:16]] == [f"{i:02}.png" for i in range(16)]


def test_given_labels_set_the_class_indices(data: Path) -> None:
    folder = PictureFolder(data, "val", ("red", "none of these", "blue", "green"))
    assert {(path.parent.name, target) for path, target in zip(folder.paths, folder.targets, strict=True)} == {
        ("red", 0),
        ("blue", 2),
        ("green", 3),
    }


@pytest.mark.parametrize("header", ["wnid,name", "folder,name", "\ufeffwnid,name"])
def test_labels_csv_names_the_classes(data: Path, header: str) -> None:
    (data / "labels.csv").write_text(f"{header}\nblue,azúl\nred,rojo\nunused,nada\n", encoding="utf-8")
    folder = PictureFolder(data, "val")
    assert folder.labels == ("azúl", "green", "rojo")
    assert {path.parent.name for path, target in zip(folder.paths, folder.targets, strict=True) if target == 2} == {"red"}


def test_bad_labels_csv(data: Path) -> None:
    for content in (b"", b"a,b\n1,2\n", b"wnid\nblue\n", b"wnid,name\nblue,az\xfal\n"):
        (data / "labels.csv").write_bytes(content)
        assert "labels.csv" in message(data)


def test_two_folders_with_one_label_are_refused(data: Path) -> None:
    (data / "labels.csv").write_text("wnid,name\nblue,crane\nred,crane\n")
    assert "blue and red are both called 'crane'" in message(data)


def test_an_unknown_class_is_refused(data: Path) -> None:
    assert "class 'green' is not one of the labels (blue, red)" in message(data, labels=("blue", "red"))


def test_missing_and_empty_folders_are_refused(data: Path, tmp_path: Path) -> None:
    assert "no such folder" in message(tmp_path / "none")
    assert "no such folder" in message(data, "train")
    (data / "train" / "blue").mkdir(parents=True)
    (data / "train" / "blue" / "notes.txt").write_text("")
    assert "no pictures found" in message(data, "train")


def test_hidden_folders_and_other_files_are_left_out(data: Path) -> None:
    (data / "val" / ".cache").mkdir()
    (data / "val" / "README").write_text("")
    (data / "val" / "red" / "notes.txt").write_text("")
    Image.new("RGB", (8, 8)).save(data / "val" / "red" / "LOUD.JPG", "JPEG")
    folder = PictureFolder(data, "val")
    assert folder.labels == LABELS
    assert Counter(folder.targets) == {0: 4, 1: 4, 2: 5}


def test_spread_is_even_over_classes_and_repeatable(colours: Path) -> None:
    folder = PictureFolder(colours, "train").spread(12)
    assert len(folder) == 12
    assert Counter(folder.targets) == {0: 4, 1: 4, 2: 4}
    assert folder.paths == PictureFolder(colours, "train").spread(12).paths
    assert len({*folder.paths}) == 12
    assert len(PictureFolder(colours, "train").spread(1000)) == 48


def test_spread_keeps_the_shares_of_unequal_classes(data: Path) -> None:
    for name in ("02.png", "03.png"):
        (data / "val" / "blue" / name).unlink()
    assert Counter(PictureFolder(data, "val").spread(5).targets) == {0: 1, 1: 2, 2: 2}


def test_inputs_follow_the_contract(colours: Path) -> None:
    rows = list(PictureFolder(colours, "val").inputs(CONTRACT))
    assert [target for _, target in rows] == [0] * 4 + [1] * 4 + [2] * 4
    for picture, target in rows:
        assert picture.shape == (32, 32, 3)
        assert picture.dtype == np.uint8
        assert picture.mean((0, 1)).argmax() == {0: 2, 1: 1, 2: 0}[target]


@pytest.mark.parametrize("way", ["check", "inputs"])
def test_unreadable_pictures_are_named_counted_and_dropped(data: Path, way: str) -> None:
    broken = [data / "val" / "blue" / "01.png", data / "val" / "red" / "03.png"]
    for file in broken:
        file.write_bytes(file.read_bytes()[:60])
    folder = PictureFolder(data, "val")
    if way == "check":
        folder.check(strict=False)
        assert len(folder) == 10
    for _ in range(2):  # a second pass does not count them again
        assert Counter(target for _, target in folder.inputs(CONTRACT)) == {0: 3, 1: 4, 2: 3}
    assert len(folder) == len(folder.targets) == 10
    assert [str(file) in str(error) for file, error in zip(broken, folder.skipped, strict=True)] == [True, True]
    assert not set(broken) & set(folder.paths)


@pytest.mark.parametrize("way", ["check", "inputs"])
def test_strict_refuses_the_first_unreadable_picture(data: Path, way: str) -> None:
    file = data / "val" / "green" / "02.png"
    file.write_text("not a picture")
    folder = PictureFolder(data, "val")
    with pytest.raises(UserError, match=r"green/02\.png.*refused under --strict"):
        folder.check(strict=True) if way == "check" else list(folder.inputs(CONTRACT, strict=True))


@pytest.mark.parametrize("way", ["check", "inputs"])
def test_a_folder_without_one_readable_picture_is_refused(data: Path, way: str) -> None:
    for file in data.rglob("*.png"):
        file.write_text("not a picture")
    folder = PictureFolder(data, "val")
    with pytest.raises(UserError, match="none of the pictures could be decoded"):
        folder.check(strict=False) if way == "check" else list(folder.inputs(CONTRACT))
