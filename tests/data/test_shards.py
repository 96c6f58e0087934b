"""Shards: the converter both ways, and what is refused before training."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lavit_edge.contract import InputContract
from lavit_edge.data.convert import to_shards
from lavit_edge.data.folder import PictureFolder
from lavit_edge.data.shards import ShardedPictures, holds_shards
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256
from lavit_edge.shards import main

Members = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def folder(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coloured pictures under names that a tar reader could misunderstand, with labels.csv; not to be changed."""
    root = Path(shutil.copytree(colours, tmp_path_factory.mktemp("odd") / "folder"))
    (root / "train" / "red" / "00.png").rename(root / "train" / "red" / "a.b.c.PNG")
    (root / "train" / "red" / "01.png").rename(root / "train" / "red" / "größe 01.png")
    (root / "val" / "blue" / "00.png").rename(root / "val" / "blue" / ".hidden.png")
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["folder", "name"], ["red", "Rot, hell"], ["green", "grün"]])
    return root


@pytest.fixture(scope="module")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its shards, of 20, 20 and 8 and of 12 pictures; not to be changed."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    assert main(["--data", str(folder), "--out", str(out), "--pictures-per-shard", "20"]) == 0
    return out


@pytest.fixture
def shards(packed: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "shards"))


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def forge(root: Path, change: Callable[[Members], Members], name: str = "train-000001.tar") -> None:
    """Rewrites the members of a shard; the index then has the new file's size and digest."""
    path = root / name
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in change(members):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    edit(root, lambda index: shard_row(index, name).update(bytes=path.stat().st_size, sha256=file_sha256(path)))


def shard_row(index: dict, name: str) -> dict:
    return next(row for row in index["splits"][name.split("-")[0]]["shards"] if row["name"] == name)


def edit(root: Path, change: Callable[[dict], object]) -> None:
    index = json.loads((root / "dataset.json").read_text())
    change(index)
    (root / "dataset.json").write_text(json.dumps(index))


def label(**fields: object) -> Callable[[Members], Members]:
    """Changes the label of the shard's first sample."""

    def change(members: Members) -> Members:
        return [(n, json.dumps({**json.loads(d), **fields}).encode()) if n == "00000020.json" else (n, d) for n, d in members]

    return change


def refused(root: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        ShardedPictures(root, split, quiet=True).check(strict=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_round_trip_gives_the_same_files(folder: Path, packed: Path, tmp_path: Path) -> None:
    assert holds_shards(packed)
    assert not holds_shards(folder)
    assert main(["--data", str(packed), "--out", str(tmp_path / "back")]) == 0
    assert files(tmp_path / "back") == files(folder)
    assert sum(1 for name in files(folder) if name.endswith(("png", "PNG"))) == 60


def test_the_same_pictures_give_the_same_bytes(folder: Path, packed: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "again", copy_function=shutil.copyfile))  # with other times
    to_shards(again, tmp_path / "shards", 20, strict=True)
    assert files(tmp_path / "shards") == files(packed)
    assert sorted(files(packed)) == [
        "dataset.json", "labels.csv", "train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar",
    ]  # fmt: skip


def test_shards_are_mixed_and_carry_the_labels(packed: Path, folder: Path) -> None:
    pictures = ShardedPictures(packed, "train")
    assert pictures.labels == PictureFolder(folder, "train").labels == ("blue", "grün", "Rot, hell")
    assert [shard.samples for shard in pictures.shards] == [20, 20, 8]
    assert len(pictures) == 48
    for shard in pictures.shards:
        assert {s.target for s in pictures.samples(shard.first, shard.first + shard.samples)} == {0, 1, 2}
    assert [s.number for s in pictures.samples(15, 45)] == list(range(15, 45))
    for sample in pictures.samples(0, 48):
        assert (folder / "train" / sample.file).read_bytes() == sample.data
        assert sample.file.split("/")[0] == ("blue", "green", "red")[sample.target]


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_parts_judge_every_val_picture_once(packed: Path, folder: Path, count: int) -> None:
    contract = InputContract(32, PictureFolder(folder, "train").labels)

    def rows(pictures: PictureFolder | ShardedPictures) -> list[tuple[bytes, int]]:
        return [(picture.tobytes(), target) for picture, target in pictures.inputs(contract)]

    parts = [ShardedPictures(packed, "val").part(index, count) for index in range(count)]
    assert sum(len(part) for part in parts) == 12
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    given = sorted(row for part in parts for row in rows(part))
    assert given == sorted(rows(PictureFolder(folder, "val", contract.labels)))


def test_samples_in_any_order_are_read_in_theirs(packed: Path) -> None:
    pictures = ShardedPictures(packed, "train")
    spans = [(40, 48), (3, 20), (20, 31)]
    row = [number for span in spans for number in range(*span)]
    numbers = np.random.default_rng(0).permutation(row).tolist()
    assert [s.number for s in pictures.in_order(numbers, spans)] == numbers
    assert [s.number for s in pictures.in_order([19, 5], spans)] == [19, 5]


def test_a_damaged_shard_is_named(shards: Path) -> None:
    data = bytearray((shards / "train-000001.tar").read_bytes())
    data[len(data) // 2] ^= 1
    (shards / "train-000001.tar").write_bytes(data)
    assert "train-000001.tar is damaged (its sha256" in refused(shards)
    (shards / "train-000001.tar").write_bytes(data[:5000])
    assert "train-000001.tar is damaged: 5000 bytes" in refused(shards)
    (shards / "train-000001.tar").unlink()
    assert "train-000001.tar is missing, and dataset.json lists it" in refused(shards)


@pytest.mark.parametrize("size", [0, 100, 700, 5000, 12000, 30000])
def test_a_shard_that_was_cut_before_it_was_listed(shards: Path, size: int) -> None:
    path = shards / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:size])
    edit(shards, lambda index: shard_row(index, path.name).update(bytes=size, sha256=file_sha256(path)))
    assert "train-000001.tar is damaged" in refused(shards)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: [x for x in m if x[0] != "00000025.json"], "sample 00000025 has no label, no member 00000025.json"),
        (lambda m: [x for x in m if x[0] != "00000025.png"], "sample 00000025 has 0 pictures"),
        (lambda m: [*m[:2], ("00000020.jpg", b""), *m[2:]], "sample 00000020 has 2 pictures"),
        (lambda m: m[2:], "sample 00000021 is not what dataset.json promises in this place"),
        (lambda m: m[:-2], "it has no sample 19 of the 20"),
        (lambda m: [*m, ("00000040.png", b""), ("00000040.json", b"")], "sample 00000040 is not what dataset.json promises"),
        (lambda m: [*m[:2], m[1], *m[2:]], "train-000001.tar is damaged (00000020.png: duplicate file name"),
        (lambda m: [("../../evil.png", b""), *m], "sample ../../evil is not what dataset.json promises"),
        (label(cls=3), "sample 00000020 is of class 3, which is not one of the 3 classes"),
        (label(cls=-1), "is of class -1"),
        (label(cls="red"), "cls must be of type int"),
        (label(file=7), "file must be of type str"),
        (lambda m: [(n, b"{" if n == "00000020.json" else d) for n, d in m], "sample 00000020 is not JSON"),
        (lambda m: [(n, b"\xff" if n == "00000020.json" else d) for n, d in m], "train-000001.tar is damaged"),
    ],
)
def test_a_sample_that_is_none_is_named(shards: Path, change: Callable[[Members], Members], words: str) -> None:
    forge(shards, change)
    line = refused(shards)
    assert words in line
    assert "train-000001.tar" in line


def test_val_with_an_unknown_class(shards: Path) -> None:
    def change(members: Members) -> Members:
        return [(name, b'{"cls": 9, "file": "x/y.png"}' if name == "00000003.json" else data) for name, data in members]

    forge(shards, change, "val-000000.tar")
    assert "val-000000.tar: sample 00000003 is of class 9, which is not one of the 3 classes" in refused(shards, "val")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i.update(format=2), "format 2 is not known"),
        (lambda i: i.pop("classes"), "classes is missing"),
        (lambda i: i["classes"].append(3), "classes must be of type str"),
        (lambda i: i["classes"].append("x"), "do not fit each other"),
        (lambda i: i["splits"].pop("val"), "splits.val is missing"),
        (lambda i: i["splits"]["train"].update(pictures=[32, 16, 0]), "class 'Rot, hell' has no training pictures"),
        (lambda i: i["splits"]["train"].update(pictures=[17, 15, 16]), "train has other pictures of each class than it says"),
        (lambda i: i["splits"]["train"].update(pictures=[0, 0, 0], shards=[]), "class 'blue' has no training pictures"),
        (lambda i: i["splits"]["train"]["shards"][0].update(name="../train-000000.tar"), "'../train-000000.tar' with 20 samples"),
        (lambda i: i["splits"]["train"]["shards"][0].update(samples="20"), "shards.samples must be of type int"),
        (lambda i: i["splits"]["train"]["shards"][1].update(i["splits"]["train"]["shards"][0]), "lists a shard twice"),
    ],
)
def test_an_index_that_is_none(shards: Path, change: Callable[[dict], object], words: str) -> None:
    edit(shards, change)
    assert words in refused(shards)


def test_shards_that_are_not_listed_or_without_an_index(shards: Path) -> None:
    shutil.copyfile(shards / "train-000000.tar", shards / "train-000007.tar")
    assert "train-000007.tar is not in dataset.json" in refused(shards)
    (shards / "dataset.json").unlink()
    assert holds_shards(shards)
    assert "dataset.json is missing" in refused(shards)


def test_two_classes_of_one_name(shards: Path) -> None:
    (shards / "labels.csv").write_text("folder,name\nred,x\nblue,x\n")
    assert "labels.csv: two classes have the same name" in refused(shards)


def test_without_webdataset(packed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    assert "pip install 'lavit-edge[shards]'" in refused(packed)
    with pytest.raises(UserError, match=r"pip install 'lavit-edge\[shards\]'"):
        main(["--data", str(folder), "--out", str(tmp_path / "out")])


def test_the_converter_leaves_unreadable_pictures_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    (data / "train" / "red" / "03.png").write_bytes(b"not a picture")
    (data / "val" / "blue" / "dir.png").write_bytes(b"no picture either")
    with pytest.raises(UserError, match=r"(03|dir)\.png: not a .*; refused under --strict"):
        main(["--data", str(data), "--out", str(tmp_path / "strict"), "--strict"])
    assert main(["--data", str(data), "--out", str(tmp_path / "out")]) == 0
    assert "left out 2 pictures that could not be decoded" in capsys.readouterr().out
    pictures = ShardedPictures(tmp_path / "out", "train")
    pictures.check(strict=True)
    assert (len(pictures), pictures.counts) == (47, [16, 16, 15])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]  # nothing is left of the refused one


def test_what_the_converter_refuses(folder: Path, packed: Path, tmp_path: Path) -> None:
    def refusal(data: Path, *more: str) -> str:
        with pytest.raises(UserError) as caught:
            main(["--data", str(data), "--out", str(tmp_path / "out"), *more])
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    data = Path(shutil.copytree(folder, tmp_path / "data"))
    (data / "train" / "yellow").mkdir()
    assert "class 'yellow' has no pictures to train on" in refusal(data)
    (data / "train" / "yellow" / "1.png").write_bytes(b"not a picture")
    assert "class 'yellow' has no picture that can be decoded to train on" in refusal(data)
    shutil.rmtree(data / "train" / "yellow")
    (data / "train" / "red").rename(data / "red")
    assert "class 'Rot, hell' is not one of the labels" in refusal(data)
    shutil.rmtree(data / "val" / "red")
    (data / "val" / "green").rename(data / "green")
    shutil.rmtree(data / "train" / "green")
    (data / "labels.csv").unlink()
    assert "one class, 'blue'" in refusal(data)
    assert "--pictures-per-shard must be at least 1" in refusal(folder, "--pictures-per-shard", "0")
    with pytest.raises(UserError, match="already exists and is not empty"):
        main(["--data", str(folder), "--out", str(packed)])
    with pytest.raises(UserError, match=r"holds shards; turn them into a folder with python -m lavit_edge\.shards"):
        PictureFolder(packed, "val")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("../../evil.png", "is not <class folder>/<file name>"),
        ("../evil.png", "is not <class folder>/<file name>"),
        ("/evil.png", "is not <class folder>/<file name>"),
        ("red/..", "is not <class folder>/<file name>"),
        ("red\\evil.png", "is not <class folder>/<file name>"),
        ("red/e\\..\\vil.png", "is not <class folder>/<file name>"),
        ("red/\0.png", "is not <class folder>/<file name>"),
        ("red/evil.py", "is not called like a picture"),
        ("red/02.png", "'red/02.png' occurs twice in train"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(shards: Path, tmp_path: Path, file: str, words: str) -> None:
    forge(shards, label(file=file))
    with pytest.raises(UserError) as caught:
        main(["--data", str(shards), "--out", str(tmp_path / "deep" / "out")])
    assert words in str(caught.value)
    assert "train-0000" in str(caught.value)
    assert not list((tmp_path / "deep").iterdir())
    assert not list(tmp_path.rglob("*evil*"))


def test_a_link_in_a_shard_is_not_followed(shards: Path, tmp_path: Path) -> None:
    """A reader passes over what is no file; its sample is then missing."""
    path = shards / "train-000001.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("00000020.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(info)
    edit(shards, lambda index: shard_row(index, path.name).update(bytes=path.stat().st_size, sha256=file_sha256(path)))
    assert "it has no sample 0 of the 20" in refused(shards)
