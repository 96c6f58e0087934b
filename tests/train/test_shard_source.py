"""Training from shards: every picture once, the same batches after a kill, and the same from any number of processes."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lavit_edge import load_checkpoint
from lavit_edge.data.convert import to_shards
from lavit_edge.data.folder import FREE_PICTURES, PictureFolder
from lavit_edge.data.shards import ShardedPictures
from lavit_edge.errors import UserError
from lavit_edge.files import file_sha256
from lavit_edge.train import dataset
from lavit_edge.train.__main__ import main
from lavit_edge.train.dataset import Augmentation
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.shard_source import ShardSource
from lavit_edge.train.world import World

RECIPE = Recipe(image_size=32, batch_size=8, erasing=0.5)
SETTINGS = "image_size=32 epochs=2 batch_size=8 ema=0.5 warmup_epochs=0 lr=2e-3 drop_path=0.1"
OPTIONS = ["--workers", "2", "--precision", "fp32", "--device", "cpu", "--set", *SETTINGS.split()]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
NUMBERS = torch.arange(150.0).reshape(1, 150, 1)  # in place of a teacher's logits: batches then say which pictures they hold


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The free pictures, 150 to train on in shards of 40, 40, 40 and 30, and 50 to judge; not to be changed."""
    out = tmp_path_factory.mktemp("free") / "shards"
    assert to_shards(FREE_PICTURES, out, 40, strict=True) == []
    return out


@pytest.fixture(scope="module")
def pictures(shards: Path) -> ShardedPictures:
    return ShardedPictures(shards, "train")


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that nothing disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["--data", str(shards), "--out", str(out), *OPTIONS]) == 0
    return out


def source(pictures: ShardedPictures, workers: int, rank: int = 0, size: int = 1, recipe: Recipe = RECIPE) -> ShardSource:
    return ShardSource(pictures, recipe, World(rank, size, torch.device("cpu")), workers)


def numbers(batches: list[list[Tensor]]) -> list[int]:
    return [int(number) for *_, logits in batches for number in logits.flatten()]


def losses(out: Path) -> list[tuple[str, str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return [(row["epoch"], row["loss"], row["val_top1"]) for row in csv.DictReader(file)]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(out / "checkpoint" / "model.safetensors") for out in (one, other))
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def command(data: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lavit_edge.train", "--data", str(data), "--out", str(out), *OPTIONS, *more]


def torchrun(data: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "lavit_edge.train"]
    arguments = [*launch, *command(data, out, *more)[3:]]
    return subprocess.Popen(
        arguments, env=ENVIRONMENT, cwd=out.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 3)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_picture_is_seen_at_most_once_in_an_epoch(
    pictures: ShardedPictures, processes: int, workers: int, epoch: int
) -> None:
    """Nine workers read four shards in the last case."""
    seen = []
    for rank in range(processes):
        one = source(pictures, workers, rank, processes)
        batches = list(one.batches(epoch, 0, NUMBERS))
        assert len(batches) == one.steps() == 150 // (8 * processes)
        assert all(pixels.shape == (8, 32, 32, 3) and pixels.dtype == torch.uint8 for pixels, *_ in batches)
        targets = [int(target) for _, batch, _ in batches for target in batch]
        samples = {sample.number: sample.target for sample in pictures.samples(0, 150)}
        assert targets == [samples[number] for number in numbers(batches)]
        seen += numbers(batches)
    assert len(seen) == len(set(seen)) == 150 // (8 * processes) * 8 * processes


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_an_epoch_goes_on_at_any_step_without_decoding_what_is_past(
    pictures: ShardedPictures, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(image_size=32, batch_size=8, accumulate=2)
    one = source(pictures, workers, 1, 2, recipe)
    full = list(one.batches(5, 0, NUMBERS))
    assert len(full) == 2 * one.steps() == 8
    decoded = []
    real = dataset.open_picture
    monkeypatch.setattr(dataset, "open_picture", lambda data: decoded.append(1) or real(data))
    for start in range(5):
        decoded.clear()
        rest = list(source(pictures, workers, 1, 2, recipe).batches(5, start, NUMBERS))
        assert len(rest) == 8 - 2 * start
        for got, wanted in zip(rest, full[2 * start :], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        if workers == 0:  # those of other processes are not counted here
            assert len(decoded) == 8 * len(rest)


def test_shards_that_are_past_are_not_opened(pictures: ShardedPictures, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavit_edge.train.shard_source.BUFFER", 10)  # the shuffle reaches over 10 samples
    one = source(pictures, 0)
    first = one.spans(1, 0)[0]
    gone = next(shard for shard in pictures.shards if shard.first == first[0]).path
    wanted = numbers(list(one.batches(1, 0, NUMBERS)))
    assert set(wanted[:30]) < set(range(*first))
    assert wanted[:30] != sorted(wanted[:30])
    gone.rename(gone.with_suffix(".away"))
    try:
        assert numbers(list(one.batches(1, 10, NUMBERS))) == wanted[80:]
    finally:
        gone.with_suffix(".away").rename(gone)


def test_the_order_differs_between_epochs_and_seeds_alone(pictures: ShardedPictures) -> None:
    def order(epoch: int, seed: int = 0) -> tuple[int, ...]:
        recipe = Recipe(image_size=32, batch_size=8, seed=seed)
        return tuple(numbers(list(source(pictures, 0, recipe=recipe).batches(epoch, 0, NUMBERS))))

    assert order(0) == order(0)
    assert len({order(0), order(1), order(0, seed=1)}) == 3
    first = [tuple(order[:30]) for order in (order(0), order(1))]
    assert len(set(first[0]) & set(first[1])) < 30


def test_pictures_are_augmented_as_those_of_a_folder(pictures: ShardedPictures) -> None:
    files = {s.number: FREE_PICTURES / "train" / s.file for s in pictures.samples(0, 150)}
    augmented = Augmentation(
        32, 0, 2, RECIPE.min_scale, RECIPE.randaugment_operations, RECIPE.randaugment_magnitude, 0.5, NUMBERS
    )
    batches = list(source(pictures, 0).batches(2, 0, NUMBERS))
    for got, number in zip(torch.cat([pixels for pixels, *_ in batches]), numbers(batches), strict=True):
        np.testing.assert_array_equal(got.numpy(), augmented(files[number], number)[0])


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_the_teacher_sees_all_pictures_in_their_order(pictures: ShardedPictures, workers: int) -> None:
    batches = list(source(pictures, workers).views(1, 32))
    assert [len(pixels) for pixels, *_ in batches] == [64, 64, 22]
    pixels, targets = torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
    view = Augmentation(32, 0, 1, RECIPE.min_scale, flip=False)
    for sample in pictures.samples(0, 150):
        assert int(targets[sample.number]) == sample.target
        np.testing.assert_array_equal(pixels[sample.number].numpy(), view(sample.data, sample.number)[0])


def test_distillation_from_shards(shards: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    out, teacher = tmp_path / "run", ["--set", f"teacher={tiny_checkpoint}", "teacher_views=2", "epochs=1"]
    assert main(["--data", str(shards), "--out", str(out), *OPTIONS, *teacher]) == 0
    assert load_file(out / "teacher.safetensors")["classes"].shape == (2, 150, 10)


def test_a_step_is_named_by_a_sample_of_its_batch(pictures: ShardedPictures) -> None:
    one = source(pictures, 2, 1, 2)
    batches = list(one.batches(4, 0, NUMBERS))
    for step in (0, 3, 8):
        number = numbers(batches[step : step + 1])[0]
        assert one.describe(4, step) == f"the batch of sample {number:08} in train-{number // 40:06}.tar"


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch_changes_nothing(whole: Path, shards: Path, tmp_path: Path) -> None:
    """With a save after each step; at least one of the kills must leave a run in the middle of an epoch."""
    rng, out, steps = random.Random(0), tmp_path / "run", []
    for kills in range(4):
        process = subprocess.Popen(
            command(shards, out, "--save-minutes", "0", "--resume"), env=ENVIRONMENT, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if kills == 3:
            assert process.wait(timeout=300) == 0
            break
        deadline, before = time.monotonic() + 120, state(out)
        while state(out) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps.append(state(out)[1])
    assert any(0 < step < 18 for step in steps), steps
    assert losses(out) == losses(whole)
    assert same_weights(out, whole)


def state(out: Path) -> tuple[int, int]:
    """Epoch and step of the saved state."""
    if not (out / "state.safetensors").exists():
        return -1, -1
    with safe_open(out / "state.safetensors", "pt") as stream:
        progress = json.loads(stream.metadata()["progress"])
    return progress["epoch"], progress["step"]


@pytest.mark.slow
def test_two_processes_train_from_shards_and_judge_every_picture_once(shards: Path, tmp_path: Path) -> None:
    """Once undisturbed, and once stopped in the middle of an epoch and resumed."""
    one, two, more = tmp_path / "one", tmp_path / "two", ("--set", "batch_size=3", "--save-minutes", "0")
    plain = torchrun(shards, one, *more)
    _, error = plain.communicate(timeout=300)
    assert plain.returncode == 0, error
    config = load_checkpoint(one / "checkpoint").config
    assert (config["metrics"]["val_pictures"], config["training"]["processes"]) == (50, 2)
    stopped = torchrun(shards, two, *more)
    deadline = time.monotonic() + 120
    while state(two) == (-1, -1) and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.terminate()
    stopped.communicate(timeout=120)
    assert state(two) in {(0, 20), (1, 20)}  # of 25 steps
    resumed = torchrun(shards, two, *more, "--resume")
    _, error = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, error
    assert len(losses(one)) == 2
    assert losses(two) == losses(one)
    assert same_weights(two, one)


def test_another_resumed_run_is_refused(whole: Path, shards: Path, tmp_path: Path) -> None:
    def refused(data: Path, *more: str) -> str:
        with pytest.raises(UserError) as caught:
            main(["--data", str(data), "--out", str(whole), *OPTIONS, "--resume", *more])
        return str(caught.value)

    assert "was written with another number of --workers; resume with the same options" in refused(shards, "--workers", "3")
    to_shards(FREE_PICTURES, tmp_path / "other", 50, strict=True)
    assert "was written with another set of pictures" in refused(tmp_path / "other")
    assert main(["--data", str(shards), "--out", str(whole), *OPTIONS, "--resume"]) == 0


def test_a_folder_and_its_shards_are_judged_alike(whole: Path) -> None:
    checkpoint = load_checkpoint(whole / "checkpoint")
    folder = PictureFolder(FREE_PICTURES, "val")
    assert checkpoint.contract.labels == folder.labels
    mean, std = (torch.tensor(three)[:, None, None] for three in (checkpoint.contract.mean, checkpoint.contract.std))
    hits = []
    with torch.no_grad():
        for picture, target in folder.inputs(checkpoint.contract):
            x = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
            hits.append(int(checkpoint.model(x[None]).argmax()) == target)
    metrics = checkpoint.config["metrics"]
    assert (len(hits), sum(hits)) == (metrics["val_pictures"], round(50 * metrics["val_top1"]))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path: Path, shards: Path, workers: int) -> None:
    """The converter would have left it out, so it is only met in shards of another making."""
    data = tmp_path / "shards"
    data.mkdir()
    for path in shards.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    path = data / "train-000002.tar"
    with tarfile.open(path) as tar:
        members = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            content = content[:200] if name.startswith("00000085.") and not name.endswith("json") else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    index = json.loads((data / "dataset.json").read_text())
    index["splits"]["train"]["shards"][2].update(bytes=path.stat().st_size, sha256=file_sha256(path))
    (data / "dataset.json").write_text(json.dumps(index))
    with pytest.raises(UserError) as caught:
        main(["--data", str(data), "--out", str(tmp_path / "run"), *OPTIONS, "--workers", str(workers)])
    assert str(caught.value).startswith(f"{path}: sample 00000085: picture of ")
    assert "Traceback" not in str(caught.value)


def test_mistakes_end_before_training(shards: Path, tmp_path: Path) -> None:
    def refused(data: Path, *more: str) -> str:
        done = subprocess.run(
            command(data, tmp_path / "run", *more), env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1, done.stderr
        assert not (tmp_path / "run" / "state.safetensors").exists()
        return done.stderr

    assert "150 training pictures are fewer than one step takes" in refused(shards, "--set", "batch_size=151")
    one = tmp_path / "one"
    for split in ("train", "val"):
        (one / split / "a").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(one / split / "a" / "0.png")
        (one / split / "b").mkdir()
        Image.new("RGB", (8, 8)).save(one / split / "b" / "0.png")
    to_shards(one, tmp_path / "two", 10, strict=True)
    index = json.loads((tmp_path / "two" / "dataset.json").read_text())
    index["classes"].pop()
    for split in index["splits"].values():
        split["pictures"] = [2]
    (tmp_path / "two" / "dataset.json").write_text(json.dumps(index))
    assert "has one class, 'a'" in refused(tmp_path / "two")


def test_a_cache_is_not_made_of_shards(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cache wants a folder"):
        main(["--data", str(shards), "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache.npy"), *OPTIONS])
    assert not list(tmp_path.iterdir())
