from __future__ import annotations

import importlib.util
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder, even_shares
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
    (data / "labels.csv").write_text(f"{header}\nblue,azúl\nred,rojo\n", encoding="utf-8")
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
    assert "class 'blue' has no pictures to train on" in message(data, "train")
    (data / "test").mkdir()
    assert "no pictures found" in message(data, "test")


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


def test_spread_gives_rare_classes_what_they_have(data: Path) -> None:
    for name in ("01.png", "02.png", "03.png"):
        (data / "val" / "blue" / name).unlink()
    assert Counter(PictureFolder(data, "val").spread(9).targets) == {0: 1, 1: 4, 2: 4}
    assert Counter(PictureFolder(data, "val").spread(6).targets) == {0: 1, 1: 3, 2: 2}
    assert sorted(Counter(PictureFolder(data, "val").spread(2).targets)) == [0, 2]


@pytest.mark.parametrize("counts", [(900, 2, 900, 3, 900), (1, 1, 1), (5,), (0, 7, 2)])
def test_shares_are_even_as_far_as_there_are_pictures(counts: tuple[int, ...]) -> None:
    for total in (1, 2, 5, 50, 300, 5000):
        shares = even_shares(counts, total)
        assert sum(shares) == min(total, sum(counts))
        assert all(share <= count for share, count in zip(shares, counts, strict=True))
        short = [share for share, count in zip(shares, counts, strict=True) if share < count]
        assert max(shares) - min(short, default=max(shares)) <= 1


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


# What lies in a folder


def listed(data: Path, split: str = "val") -> list[str]:
    return PictureFolder(data, split).inventory.lines()


def test_the_inventory_says_what_is_there_and_what_is_left_out(data: Path) -> None:
    assert listed(data) == ["val: 3 classes, 12 pictures, 4 a class"]
    (data / "val" / "loose.png").write_bytes(b"")
    (data / "val" / "red" / "notes.txt").write_text("")
    (data / "val" / "red" / "phone.HEIC").write_bytes(b"")
    (data / "val" / "red" / "@eaDir").mkdir()
    (data / "val" / "red" / "@eaDir" / "thumb.jpg").write_bytes(b"")
    (data / "val" / "blue" / "00.png").unlink()
    lines = listed(data)
    assert lines[0] == "val: 3 classes, 11 pictures, 3 to 4 a class"
    assert "val: 1 left out, in no class folder: loose.png" in lines
    assert "val: 1 left out, not called like a picture: red/notes.txt" in lines
    if importlib.util.find_spec("pi_heif") is None:
        assert "val: 1 left out, pi-heif is needed to read it (pip install pi-heif): red/phone.HEIC" in lines
    assert PictureFolder(data, "val").inventory.to_dict()["classes"] == {"blue": 3, "green": 4, "red": 4}


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "lost+found"])
def test_folders_that_are_no_class_are_refused(name: str, data: Path) -> None:
    shutil.copytree(data / "val" / "red", data / "val" / name)
    assert f"{name} is no class" in message(data)


def test_pictures_one_folder_deeper_are_refused(data: Path) -> None:
    shutil.copytree(data / "val" / "red", data / "val" / "red" / "more")
    assert "red: more/00.png lies one folder deeper" in message(data)
    shutil.copytree(data, data / "train" / "inner")  # an archive unpacked into a folder of its name
    assert "lies one folder deeper" in message(data, "train")


@pytest.mark.skipif(importlib.util.find_spec("pi_heif") is not None, reason="HEIC is read here")
def test_a_class_of_phone_pictures_says_what_to_install(data: Path) -> None:
    (data / "val").rename(data / "train")
    for file in (data / "train" / "red").iterdir():
        file.rename(file.with_suffix(".heic"))
    assert "has .heic pictures alone; pip install pi-heif" in message(data, "train")


def test_labels_csv_that_does_not_fit_is_refused(data: Path) -> None:
    (data / "labels.csv").write_text("folder,name\nred,rojo\npurple,morado\n")
    assert "no split has a folder 'purple'" in message(data)
    (data / "labels.csv").write_text("folder,name\nred,rojo\nred,roja\n")
    assert "a folder is named twice" in message(data)


def test_names_are_the_same_however_their_accents_are_written(data: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "éclair"), unicodedata.normalize("NFD", "éclair")
    shutil.copytree(data / "val" / "red", data / "train" / composed)
    (data / "val" / "red").rename(data / "val" / apart)
    for name in ("blue", "green"):
        shutil.copytree(data / "val" / name, data / "train" / name)
    train = PictureFolder(data, "train")
    val = PictureFolder(data, "val", train.labels)
    assert train.labels == ("blue", "green", composed)
    assert Counter(val.targets) == {0: 4, 1: 4, 2: 4}
    (data / "labels.csv").write_text(f"folder,name\n{apart},cake\n", encoding="utf-8")
    assert PictureFolder(data, "train").labels == ("blue", "green", "cake")
    shutil.copytree(data / "train" / "blue", data / "train" / apart)
    assert "are both" in message(data, "train")


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".avif"])
def test_less_usual_endings_are_pictures_too(suffix: str, data: Path) -> None:
    picture = Image.open(data / "val" / "red" / "00.png").convert("RGB")
    try:
        picture.save(data / "val" / "red" / f"new{suffix}", {".jp2": "JPEG2000", ".avif": "AVIF"}.get(suffix, "JPEG"))
    except (OSError, KeyError):
        pytest.skip("this Pillow does not write it")
    folder = PictureFolder(data, "val")
    assert len(folder) == 13
    folder.check(strict=True)
