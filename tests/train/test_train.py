from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lavit_edge import load_checkpoint
from lavit_edge.checkpoint import CARD, WEIGHTS
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.train import teacher as teachers
from lavit_edge.train.__main__ import main
from lavit_edge.train.dataset import Augmentation, TrainingPictures
from lavit_edge.train.loop import Run
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import FolderSource
from lavit_edge.train.world import World

BASIC = "--workers 0 --precision fp32 --device cpu --set image_size=32 epochs=2 batch_size=8 ema=0.5 warmup_epochs=0 lr=2e-3"


def train(data: Path, out: Path, *more: str) -> int:
    return main(["--data", str(data), "--out", str(out), *BASIC.split(), *more])


def refused(data: Path, out: Path, *more: str) -> str:
    with pytest.raises(UserError) as caught:
        train(data, out, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def log(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return [{name: row[name] for name in ("epoch", "lr", "loss", "val_top1")} for row in csv.DictReader(file)]


def equal(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def finished(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs with every augmentation on; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert train(colours, out) == 0
    return out


def test_a_run_leaves_a_log_a_checkpoint_and_its_card(finished: Path, colours: Path) -> None:
    assert [row["epoch"] for row in log(finished)] == ["1", "2"]
    written = ["best", "checkpoint", "digests.npy", "inventory.json", "judged.json", "log.csv"]
    written += ["state.safetensors", "training.html"]
    assert sorted(path.name for path in finished.iterdir()) == written
    checkpoint = load_checkpoint(finished / "checkpoint")
    assert checkpoint.contract.labels == ("blue", "green", "red")
    assert checkpoint.contract.size == 32
    training, metrics = checkpoint.config["training"], checkpoint.config["metrics"]
    assert Recipe(**training["recipe"]) == Recipe("lavit_mobile_s", 32, epochs=2, batch_size=8, ema=0.5, warmup_epochs=0, lr=2e-3)
    assert training["data"] == "colours"
    assert metrics["val_pictures"] == 12
    assert f"{metrics['val_top1']:.4f}" == log(finished)[-1]["val_top1"]
    card = (finished / "checkpoint" / CARD).read_text()
    for fact in (
        "# lavit_mobile_s, 3 classes, 32 pixels",
        "12 val pictures",
        "epoch 2 of 2",
        "none: trained from scratch",
        "random weights",
    ):
        assert fact in card


def test_the_reported_top1_is_that_of_the_saved_weights(finished: Path, colours: Path) -> None:
    checkpoint = load_checkpoint(finished / "checkpoint")
    mean, std = (torch.tensor(three)[:, None, None] for three in (checkpoint.contract.mean, checkpoint.contract.std))
    hits = []
    with torch.no_grad():
        for picture, target in PictureFolder(colours, "val").inputs(checkpoint.contract):
            x = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
            hits.append(int(checkpoint.model(x[None]).argmax()) == target)
    assert np.mean(hits) == pytest.approx(checkpoint.config["metrics"]["val_top1"], abs=1e-4)


def test_a_run_learns(colours: Path, tmp_path: Path) -> None:
    plain = "--set mix_probability=0 randaugment_operations=0 erasing=0 drop_path=0 min_scale=0.8 label_smoothing=0 epochs=4"
    train(colours, tmp_path / "run", *plain.split())
    rows = log(tmp_path / "run")
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert float(rows[-1]["val_top1"]) >= 0.9  # chance is 0.33


def interrupted(colours: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """The run of ``finished``, or one with ``more``, stopped after its first epoch."""

    def stop_after_saving(self: Run, *, checkpoint: bool) -> None:
        save(self, checkpoint=checkpoint)
        raise KeyboardInterrupt

    save = Run._save
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_save", stop_after_saving)
        with pytest.raises(KeyboardInterrupt):
            train(colours, out, *more)


def test_a_resumed_run_equals_an_uninterrupted_one(
    finished: Path, colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    interrupted(colours, out, monkeypatch)
    assert log(out) == log(finished)[:1]
    assert "already holds a run; add --resume" in refused(colours, out)
    assert "another recipe" in refused(colours, out, "--resume", "--set", "lr=1e-3")
    two = Path(shutil.copytree(colours, tmp_path / "two", ignore=shutil.ignore_patterns("red")))
    assert "another contract" in refused(two, out, "--resume")
    other = Path(shutil.copytree(colours, tmp_path / "other"))
    Image.new("RGB", (40, 32), "red").save(other / "train" / "red" / "03.png")
    assert "another set of pictures" in refused(other, out, "--resume")
    assert train(colours, out, "--resume") == 0
    assert log(out) == log(finished)
    assert equal(out / "checkpoint" / WEIGHTS, finished / "checkpoint" / WEIGHTS)
    assert equal(out / "state.safetensors", finished / "state.safetensors")
    assert train(colours, out, "--resume") == 0  # nothing is left to do
    assert len(log(out)) == 2


def test_weights_of_an_epoch_that_was_not_judged_have_no_top1(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--set", "val_every=2", "epochs=3")
    interrupted(colours, tmp_path, monkeypatch, *more)
    card = tmp_path / "checkpoint" / CARD
    assert load_checkpoint(tmp_path / "checkpoint").config["metrics"]["val_top1"] is None
    assert "| top-1 on 12 val pictures | not judged (the average of the weights, epoch 1 of 3) |" in card.read_text()
    assert train(colours, tmp_path, "--resume", *more) == 0
    judged = [row["val_top1"] for row in log(tmp_path)]
    assert judged[0] == ""
    assert all(judged[1:]), "every second epoch, and the last"
    weights = load_checkpoint(tmp_path / "checkpoint").config["metrics"]["weights"]
    words = {"average": "the average of the weights", "last step": "the weights of the last step"}[weights]
    assert f"{100 * float(judged[2]):.2f} % ({words}, epoch 3 of 3)" in card.read_text()
    capsys.readouterr()
    assert train(colours, tmp_path, "--resume", *more) == 0  # nothing is left to do
    assert f"{100 * float(judged[2]):.2f} % on 12 pictures" in capsys.readouterr().out


def test_a_damaged_state_is_one_line(finished: Path, colours: Path, tmp_path: Path) -> None:
    state = (finished / "state.safetensors").read_bytes()
    (tmp_path / "state.safetensors").write_bytes(state[: len(state) // 2])
    assert "state.safetensors is damaged" in refused(colours, tmp_path, "--resume")


def test_init_from_another_size_and_other_classes(finished: Path, colours: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    for split in ("train", "val"):
        for name in ("green", "red"):
            shutil.copytree(colours / split / name, two / split / name)
    init = finished / "checkpoint"
    train(
        two, tmp_path / "run", "--init", str(init), "--set", "image_size=64", "epochs=1", "lr=0", "final_lr=0", "weight_decay=0"
    )
    old, new = load_checkpoint(init), load_checkpoint(tmp_path / "run" / "checkpoint")
    assert new.contract.labels == ("green", "red")
    assert new.contract.size == 64
    assert [start["sha256"] for start in new.config["training"]["started_from"]] == [old.config["sha256"]]
    assert "epochs at 32 pixels" in (new.path / CARD).read_text()
    before, after = old.model.state_dict(), new.model.state_dict()
    name = "stages.0.blocks.0.ffn.expand.conv.weight"
    torch.testing.assert_close(after[name], before[name])  # at a learning rate of 0, what was loaded is what is saved
    assert after["head.weight"].shape == (2, 256)


def test_init_from_two_runs_is_told_by_the_card(finished: Path, colours: Path, tmp_path: Path) -> None:
    init = str(finished / "checkpoint")
    train(colours, tmp_path / "run", "--init", init, init, "--set", "epochs=1", "lr=0", "final_lr=0", "weight_decay=0")
    assert "the mean weights of 2 runs: (1) " in (tmp_path / "run" / "checkpoint" / CARD).read_text()


def test_init_with_other_options_is_one_line(colours: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert "of lavit_mobile_s is missing" in refused(
        colours, tmp_path / "run", "--init", str(tiny_checkpoint), "--set", "image_size=64"
    )
    assert not (tmp_path / "run").exists()


def test_distillation_from_a_checkpoint(
    colours: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "run", ("--set", f"teacher={tiny_checkpoint}", "teacher_views=2", "epochs=1")
    train(colours, out, *options)
    stored = load_file(out / "teacher.safetensors")
    assert stored["log_probabilities"].shape == stored["classes"].shape == (2, 48, 10)
    assert stored["log_probabilities"].dtype == torch.float16
    assert str(tiny_checkpoint) in (out / "checkpoint" / CARD).read_text()
    load_checkpoint(out / "checkpoint")  # without the map to the teacher's classes

    def no_second_pass(*_: Any, **__: Any) -> None:
        raise AssertionError("the stored views were not used")

    (out / "state.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(teachers, "track", no_second_pass)
        train(colours, out, *options)
        (out / "state.safetensors").unlink()
        with pytest.raises(AssertionError, match="not used"):  # other crops need other logits
            train(colours, out, *options, "--set", "seed=1")


def test_what_the_teacher_says_beside_its_largest_probabilities_is_spread_evenly(colours: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    logits = 4 * torch.randn(48, 40)
    folder, here, key = PictureFolder(colours, "train"), torch.device("cpu"), "key"

    def passing() -> teachers.Forward:
        parts = iter(logits.split(64))  # the source gives 64 at a time
        return lambda x: next(parts)

    teacher = teachers.Teacher("random", 32, 40, "nothing", passing)
    source = FolderSource(folder, Recipe(), World(0, 1, here), 0)
    for _ in range(2):  # computed, then read
        views = teachers.stored_views(teacher, source, 1, tmp_path / "views", key, here, torch.float32)
        assert views.shape == (1, 48, 2, teachers.KEPT)
        given, wanted = teachers.probabilities(views[0], 40), logits.softmax(1)
        torch.testing.assert_close(given.sum(1), torch.ones(48), atol=2e-3, rtol=0)
        largest = wanted.topk(teachers.KEPT).indices
        torch.testing.assert_close(given.gather(1, largest), wanted.gather(1, largest), rtol=5e-3, atol=1e-6)
        rest = given.scatter(1, largest, torch.nan)
        torch.testing.assert_close(rest.nansum(1), 1 - wanted.gather(1, largest).sum(1), rtol=0, atol=2e-3)
        assert all(len(row[~row.isnan()].unique()) == 1 for row in rest)


def test_the_student_sees_the_crops_that_the_teacher_saw(colours: Path) -> None:
    folder = PictureFolder(colours, "train")
    logits = torch.arange(2 * 48, dtype=torch.float32).reshape(2, 48, 1)
    for epoch in (0, 1, 2, 5):
        view = epoch % 2
        seen = TrainingPictures(folder, Augmentation(32, seed=3, epoch=view, min_scale=0.3, flip=False))
        given = TrainingPictures(folder, Augmentation(32, seed=3, epoch=epoch, min_scale=0.3, logits=logits, flip=False))
        for index in (0, 17, 47):
            pixels, target, row = given[index]
            np.testing.assert_array_equal(pixels, seen[index][0])
            assert (target, float(row)) == (index // 16, float(view * 48 + index))


def test_pictures_differ_between_epochs_and_not_between_runs(colours: Path) -> None:
    folder = PictureFolder(colours, "train")

    def picture(epoch: int, seed: int = 0) -> bytes:
        data = TrainingPictures(folder, Augmentation(32, seed, epoch, min_scale=0.3, operations=2, magnitude=9, erasing=0.5))
        return data[5][0].tobytes()

    assert picture(1) == picture(1)
    assert len({picture(0), picture(1), picture(2), picture(0, seed=1)}) == 4


def test_a_diverging_run_stops_on_one_line(colours: Path, tmp_path: Path) -> None:
    line = refused(colours, tmp_path / "run", "--set", "lr=1e30")
    assert "the gradient is not finite in epoch 1, step " in line
    assert ".png; no epoch was saved; start again with a lower lr" in line
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_unreadable_pictures_are_skipped_or_refused(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(shutil.copytree(colours, tmp_path / "data"))
    for file in (data / "train" / "red" / "03.png", data / "val" / "blue" / "00.png"):
        file.write_bytes(b"not a picture")
    assert "03.png" in refused(data, tmp_path / "strict", "--strict")
    train(data, tmp_path / "run", "--set", "epochs=1")
    printed = capsys.readouterr().out
    assert "train: 1 left out, not a picture that can be decoded" in printed
    assert "val: 1 left out, not a picture that can be decoded" in printed
    assert load_checkpoint(tmp_path / "run" / "checkpoint").config["metrics"]["val_pictures"] == 11


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--model lavit_mobile_x", "did you mean 'lavit_mobile_s'?"),
        ("--set image_size=100", "size"),
        ("--device tpu", "--device tpu"),
        ("--init nowhere", "nowhere is not a checkpoint"),
        ("--set teacher=nowhere", "teacher 'nowhere'"),
        ("--set epochs=0", "epochs must be at least 1"),
        ("--set batch_size=0", "batch_size must be at least 1"),
        ("--set lr=-1", "lr must be at least 0"),
        ("--set optimizer=sgd", "optimizer must be adamw or muon"),
        ("--set lr=nan", "lr must be at least 0"),
        ("--set erasing=2", "erasing must be 0 to 1"),
        ("--set drop_path=1", "drop_path"),
        ("--workers -1", "--workers"),
    ],
)
def test_bad_options_are_one_line(colours: Path, tmp_path: Path, options: str, words: str) -> None:
    assert words in refused(colours, tmp_path / "run", *options.split())


def test_an_out_that_cannot_be_written(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refused(colours, tmp_path / "file" / "run")


def test_val_with_a_class_that_train_lacks(colours: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(colours, tmp_path / "data"))
    shutil.rmtree(data / "train" / "red")
    assert "class 'red' is not one of the labels (blue, green)" in refused(data, tmp_path / "run")


def test_learning_rate_warms_up_and_then_follows_a_cosine() -> None:
    recipe = Recipe("lavit_mobile_s", epochs=20, lr=1.0, final_lr=0.1, warmup_epochs=4)
    assert recipe.learning_rate(2) == pytest.approx(0.5)
    assert recipe.learning_rate(4) == pytest.approx(1.0)
    assert recipe.learning_rate(12) == pytest.approx(0.55)
    assert recipe.learning_rate(20) == pytest.approx(0.1)
    assert recipe.learning_rate(8) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert recipe.learning_rate(8, scale=4) == pytest.approx(4 * recipe.learning_rate(8))


def test_mistakes_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lavit_edge.train", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "no such folder" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--data", ".", "--out", "x", "--learning-rate", "1"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_recipe_is_what_the_state_records(finished: Path) -> None:
    from safetensors import safe_open

    with safe_open(finished / "state.safetensors", "pt") as stream:
        facts = stream.metadata()
    assert json.loads(facts["recipe"])["batch_size"] == 8
    assert json.loads(facts["progress"])["epoch"] == 2
