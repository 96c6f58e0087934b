"""What is looked at before the first step, and how what is trained on is chosen and judged."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lavit_edge import create_model
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.files import read_json
from lavit_edge.train import check
from lavit_edge.train.batches import class_weights, epoch_order
from lavit_edge.train.check import check_pictures
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.judge import judge
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.threads import choose_threads
from lavit_edge.train.world import World

HERE = World(0, 1, torch.device("cpu"))
CONTRACT = InputContract(size=32, labels=("blue", "green", "red"), resize="crop")


@pytest.fixture
def data(colours: Path, tmp_path: Path) -> Path:
    """A copy that may be changed: 16 pictures to train on and 4 to judge of each class."""
    return Path(shutil.copytree(colours, tmp_path / "data"))


def checked(data: Path, out: Path, strict: bool = False) -> tuple[str, list[str], list[PictureFolder]]:
    out.mkdir(exist_ok=True)
    lines: list[str] = []
    train = PictureFolder(data, "train")
    splits = [train, PictureFolder(data, "val", train.labels)]
    return check_pictures(splits, CONTRACT, out, HERE, strict, lines.append), lines, splits


def test_what_cannot_be_judged_or_comes_twice_is_left_out_and_said(data: Path, tmp_path: Path) -> None:
    train, val = data / "train", data / "val"
    shutil.copy(train / "red" / "00.png", val / "red" / "seen.png")
    shutil.copy(train / "red" / "01.png", train / "red" / "again.png")
    shutil.copy(train / "blue" / "02.png", train / "green" / "either.png")
    (train / "blue" / "03.png").write_bytes(b"no picture")
    Image.new("RGB", (200_000, 1)).save(val / "red" / "strip.png")
    _, lines, (trained, judged) = checked(data, tmp_path / "out")
    assert {line for line in lines if "cannot be" not in line and "pixels" not in line and "decoded" not in line} == {
        "train: 3 classes, 46 pictures, 14 to 16 a class",
        "train: 2 left out, the same picture is in two classes: blue/02.png, green/either.png",
        "train: 1 left out, the same picture comes again in its class: red/again.png",
        "val: 3 classes, 12 pictures, 4 a class",
        "val: 1 left out, the same picture is trained on: red/seen.png",
    }
    assert any("train: 1 left out, not a picture that can be decoded" in line and "blue/03.png" in line for line in lines)
    assert any("200000 x 1 pixels are too long and thin" in line and "red/strip.png" in line for line in lines)
    assert len(trained) == 46
    assert len(judged) == 12
    stored = read_json(tmp_path / "out" / check.INVENTORY)
    assert stored["train"]["pictures"] == 46
    assert ["red/seen.png", "the same picture is trained on"] in stored["val"]["left_out"]
    with pytest.raises(UserError, match="refused under --strict"):
        checked(data, tmp_path / "out", strict=True)


def test_a_class_of_which_nothing_is_left_is_refused(data: Path, tmp_path: Path) -> None:
    for file in (data / "train" / "red").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="class 'red' has no pictures to train on"):
        checked(data, tmp_path / "out")


def test_pictures_are_decoded_once_for_all_runs_in_a_folder(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "val" / "blue" / "03.png").write_bytes(b"no picture")
    first, lines, _ = checked(data, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(check, "_look", lambda *_: pytest.fail("decoded again"))
        again, same, splits = checked(data, tmp_path / "out")
    assert (again, same, len(splits[1])) == (first, lines, 11)
    copied = Path(shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile))  # with other times
    assert checked(copied, tmp_path / "out")[0] == first
    shutil.move(data / "val" / "red" / "00.png", data / "val" / "red" / "99.png")
    assert checked(data, tmp_path / "out")[0] != first


def test_processes_look_at_a_part_each(data: Path) -> None:
    folder = PictureFolder(data, "train")
    parts = [check._look([folder], CONTRACT, World(rank, 2, torch.device("cpu"))) for rank in (0, 1)]
    assert [np.count_nonzero(part) for part in parts] == [24, 24]
    np.testing.assert_array_equal(sum(parts), check._look([folder], CONTRACT, HERE))


# Balance


def test_sampling_shows_all_classes_equally_often() -> None:
    targets = [0] * 90 + [1] * 6 + [2] * 3
    plain, balanced = (epoch_order(Recipe(balance=how), 4, targets) for how in ("none", "sampling"))
    assert sorted(plain) == list(range(99))
    assert Counter(targets[index] for index in balanced) == {0: 33, 1: 33, 2: 33}
    assert len({*balanced} & {*range(90)}) == 33
    assert sorted(Counter(index for index in balanced if targets[index] == 1).values()) == [5, 5, 5, 6, 6, 6]
    np.testing.assert_array_equal(balanced, epoch_order(Recipe(balance="sampling"), 4, targets))
    assert not np.array_equal(balanced, epoch_order(Recipe(balance="sampling"), 5, targets))


def test_weights_make_classes_count_alike() -> None:
    counts = [90, 6, 3]
    weights = class_weights(counts)
    assert {round(weight * count, 9) for weight, count in zip(weights, counts, strict=True)} == {33.0}
    with pytest.raises(UserError, match="balance=loss needs"):
        class_weights([])


# Judging


class Says(nn.Module):
    """Answers by the picture's strongest colour, red and blue exchanged where it is told to."""

    def __init__(self, exchanged: bool) -> None:
        super().__init__()
        self.order = [0, 1, 2] if exchanged else [2, 1, 0]

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.mean((2, 3))[:, self.order]


def test_two_models_are_judged_on_the_same_pictures(data: Path) -> None:
    Image.new("RGB", (200_000, 1)).save(data / "val" / "red" / "strip.png")
    pictures = PictureFolder(data, "val")
    right, wrong = judge([Says(False), Says(True)], pictures, CONTRACT, HERE, torch.float32)
    assert right.pictures == 12, "one cannot be judged, and is not counted"
    assert (right.hits, right.top1, right.worst) == (12, 1.0, ())
    assert wrong.confusion.tolist() == [[0, 0, 4], [0, 4, 0], [4, 0, 0]]
    assert right.rank > wrong.rank
    assert wrong.to_dict()["confusion"] == [[0, 2, 4], [1, 1, 4], [2, 0, 4]]
    assert len(wrong.worst) == 8
    assert wrong.worst[0].loss == max(mistake.loss for mistake in wrong.worst)
    assert {mistake.name.split("/")[0] for mistake in wrong.worst} == {"blue", "red"}
    assert all(mistake.probability > 0.5 for mistake in wrong.worst)


# Threads


def test_threads_are_the_users_or_those_that_workers_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("lavit_mobile_s", num_classes=3, image_size=32)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert choose_threads(model, 32, 2, 1) == (torch.get_num_threads(), "OMP_NUM_THREADS")
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(2), raising=False)
    assert choose_threads(model, 32, 2, 1)[0] == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    timed: list[int] = []
    seconds = {1: 1.0, 3: 0.5, 6: 0.48}
    monkeypatch.setattr(
        "lavit_edge.train.threads._seconds", lambda model, size, threads: timed.append(threads) or seconds[threads]
    )
    assert choose_threads(model, 32, 2, 1)[0] == 3, "six are not much faster"
    assert timed == [1, 3, 6]


def test_timing_leaves_the_model_as_it_was() -> None:
    from lavit_edge.train.threads import _seconds

    model = create_model("lavit_mobile_s", num_classes=3, image_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert _seconds(model, 32, 1) > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_threads_out_of_range() -> None:
    with pytest.raises(UserError, match="--threads must be at least 1"):
        TrainConfig(threads=0)
