"""Training from a cache of decoded pictures."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import lavit_edge
from lavit_edge.data.augment import random_box
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.train import cache
from lavit_edge.train import teacher as teachers
from lavit_edge.train.__main__ import main
from lavit_edge.train.cache import CachedPictures, CachedSource, open_cache
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import FolderSource
from lavit_edge.train.world import World

HERE = World(0, 1, torch.device("cpu"))
SETTINGS = "image_size=32 epochs=2 batch_size=8 ema=0.5 warmup_epochs=0 lr=2e-3 drop_path=0.1"
OPTIONS = ["--workers", "0", "--precision", "fp32", "--device", "cpu", "--set", *SETTINGS.split()]
RECIPE = Recipe(image_size=64, batch_size=10)


@pytest.fixture(scope="module")
def real() -> PictureFolder:
    """50 real pictures of 128 x 128."""
    return PictureFolder(Path(lavit_edge.__file__).parent / "pictures_cc0", "train").spread(50)


def sources(pictures: PictureFolder, recipe: Recipe, folder: Path, workers: int = 0) -> tuple[FolderSource, CachedSource]:
    file = open_cache(folder / "cache.npy", pictures, recipe, HERE, 1)
    return FolderSource(pictures, recipe, HERE, workers), CachedSource(pictures, recipe, HERE, workers, file)


def command(data: Path, out: Path, *more: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), *OPTIONS, *more]


def refused(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        main(list(arguments))
    return str(caught.value)


def losses(out: Path) -> list[str]:
    return [line.split(",")[2] for line in (out / "log.csv").read_text().splitlines()]


# What the batches hold


def test_square_pictures_are_kept_as_they_are(data: Path, tmp_path: Path) -> None:
    pictures = PictureFolder(data, "train")
    pixels = np.load(open_cache(tmp_path / "new" / "folder", pictures, RECIPE, HERE, 2), mmap_mode="r")
    assert pixels.shape == (80, 64, 64, 3)
    for index in (0, 33, 79):
        np.testing.assert_array_equal(pixels[index], np.array(Image.open(pictures.paths[index])))
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["train.npy", "train.npy.json"]


def test_large_pictures_shrink_to_what_the_smallest_crop_needs(real: PictureFolder, tmp_path: Path) -> None:
    for size, side in ((32, 64), (64, 128), (96, 128)):
        file = open_cache(tmp_path, real, Recipe(image_size=size), HERE, 1)
        assert np.load(file, mmap_mode="r").shape == (50, side, side, 3)


@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_are_those_of_the_folder(epoch: int, real: PictureFolder, tmp_path: Path) -> None:
    """Crop and mirroring within 1 of 255. Distortions can enlarge that 1, equalize at most: on average less than 2 are lost."""
    plain = Recipe(image_size=64, batch_size=10, randaugment_operations=0, erasing=0)
    distorted = Recipe(image_size=64, batch_size=10, erasing=0)
    for recipe, largest, mean in ((plain, 1, 0.3), (distorted, 255, 2)):
        folder, cached = sources(real, recipe, tmp_path)
        for expected, batch in zip(folder.batches(epoch, 0, None), cached.batches(epoch, 0, None), strict=True):
            result = cached.augment(batch[0], *batch[3:])
            assert result.dtype == torch.uint8
            assert result.shape == expected[0].shape
            apart = (result.int() - expected[0].int()).abs().float()
            assert apart.max() <= largest
            assert apart.mean((1, 2, 3)).median() < mean
            assert torch.equal(batch[1], expected[1])
            assert batch[2].shape == expected[2].shape == (10, 0)


def test_holes_are_where_the_folder_has_them(real: PictureFolder, tmp_path: Path) -> None:
    recipe = Recipe(image_size=64, batch_size=10, randaugment_operations=0, erasing=1)
    folder, cached = sources(real, recipe, tmp_path)
    expected, batch = next(folder.batches(0, 0, None))[0], next(cached.batches(0, 0, None))
    result = cached.augment(batch[0], *batch[3:])
    same = (result.int() - expected.int()).abs().amax(3) <= 1
    for index, hole in enumerate(batch[3][:, cache.HOLE].int().tolist()):
        top, left, height, width = hole
        assert same[index, top : top + height, left : left + width].float().mean() < 0.2  # noise is other noise
        same[index, top : top + height, left : left + width] = True
    assert same.all()


def test_batches_follow_from_seed_epoch_and_step(real: PictureFolder, tmp_path: Path) -> None:
    _, cached = sources(real, RECIPE, tmp_path)
    _, by_workers = sources(real, RECIPE, tmp_path, workers=2)
    whole = list(cached.batches(1, 0, None))
    for batches, first in ((by_workers.batches(1, 0, None), 0), (cached.batches(1, 3, None), 3)):
        for one, other in zip(whole[first:], batches, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(next(cached.batches(2, 0, None))[3], whole[0][3])


def test_the_file_is_not_copied_into_workers(real: PictureFolder, tmp_path: Path) -> None:
    file = open_cache(tmp_path, real, RECIPE, HERE, 1)
    pictures = CachedPictures(file, real.targets, RECIPE, 0, None)
    assert pictures.pixels.nbytes > 2_000_000
    assert len(pickle.dumps(pictures)) < 10_000


# Distillation


def test_the_student_sees_the_crops_that_the_teacher_saw(real: PictureFolder, tmp_path: Path) -> None:
    recipe = Recipe(image_size=64, batch_size=10, randaugment_operations=0, erasing=0, min_scale=0.3, seed=4)
    folder, cached = sources(real, recipe, tmp_path)
    logits = torch.arange(2 * 50, dtype=torch.float32).reshape(2, 50, 1)
    for view, epoch in ((0, 0), (1, 1), (1, 5)):
        seen = torch.cat([rows[0] for rows in cached.views(view, 64)])
        by_folder = torch.cat([rows[0] for rows in folder.views(view, 64)])
        assert (seen.int() - by_folder.int()).abs().max() <= 1
        for pixels, _, given, chance in cached.batches(epoch, 0, logits):
            for row, picture, number in zip(chance, cached.augment(pixels, chance), given[:, 0].int().tolist(), strict=True):
                index = number - 50 * view
                box = random_box(np.random.default_rng((recipe.seed, 0, view, index)), recipe.min_scale)
                assert row[cache.BOX].tolist() == list(box)
                upright = picture.flip(1) if row[cache.FLIP] else picture
                assert (upright.int() - seen[index].int()).abs().max() <= 1


@pytest.mark.slow
def test_distillation_from_a_checkpoint(colours: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    teacher = ["--set", f"teacher={tiny_checkpoint}", "teacher_views=2", "epochs=1"]
    assert main(command(colours, tmp_path / "folder", *teacher)) == 0
    with_cache = command(colours, tmp_path / "run", "--cache", str(tmp_path / "c.npy"), *teacher)
    assert main(with_cache) == 0
    folder, cached = (load_file(tmp_path / name / "teacher.safetensors") for name in ("folder", "run"))
    assert cached["classes"].shape == (2, 48, 10)
    views = [torch.stack([stored["log_probabilities"].float(), stored["classes"].float()], 2)[0] for stored in (cached, folder)]
    one, other = (teachers.probabilities(view, 10) for view in views)
    assert (one - other).abs().max() < 0.06  # of a net with random weights, for crops a level of 255 apart
    assert not torch.equal(cached["key"], folder["key"])


# Runs


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every augmentation on that nothing disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    assert main(command(colours, out, "--cache", str(out.with_name("c.npy")))) == 0
    return out


def changed(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


@pytest.mark.slow
def test_a_run_killed_in_mid_epoch_goes_on_as_if_nothing_had_happened(whole: Path, colours: Path, tmp_path: Path) -> None:
    out, steps = tmp_path / "run", []
    state = out / "state.safetensors"
    again = ["--cache", str(tmp_path / "c.npy"), "--save-minutes", "0", "--resume"]
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "lavit_edge.train", *command(colours, out, *again)], cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if len(steps) < 2:
            before, deadline = changed(state), time.monotonic() + 120
            while changed(state) == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.05)  # in the next step, or its save
            assert process.poll() is None
            process.kill()
            process.wait()
            with safe_open(state, "pt") as stream:
                steps.append(json.loads(stream.metadata()["progress"])["step"])
        else:
            assert process.wait() == 0
            break
    assert steps[0] > 0
    assert losses(out) == losses(whole)
    a, b = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (out, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_goes_on_from_the_source_that_it_began_with(whole: Path, colours: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    assert "another source" in refused(*command(colours, out, "--resume"))
    assert main(command(colours, out, "--resume", "--cache", str(tmp_path))) == 0  # nothing is left to do


def test_a_model_learns_as_from_the_folder(colours: Path, tmp_path: Path) -> None:
    plain = "--set mix_probability=0 randaugment_operations=0 erasing=0 drop_path=0 min_scale=0.8 label_smoothing=0 epochs=4"
    tops = []
    for more in ((), ("--cache", str(tmp_path / "c.npy"))):
        out = tmp_path / ("cached" if more else "folder")
        assert main(command(colours, out, *plain.split(), *more)) == 0
        tops.append(json.loads((out / "checkpoint" / "config.json").read_text())["metrics"]["val_top1"])
        values = [float(value) for value in losses(out)[1:]]
        assert values[-1] < 0.7 * values[0]
    assert min(tops) >= 0.9  # chance is 0.33


@pytest.mark.slow
def test_two_processes_share_a_cache(colours: Path, tmp_path: Path) -> None:
    """As in test_faults.py: they train as one with twice the batch. The first writes, the other waits for it."""
    plain = ["--set", "model=lavit_tiny", "mix_probability=0", "drop_path=0", "erasing=0"]
    shared = ["--cache", str(tmp_path / "c.npy")]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=29513",
        "-m",
        "lavit_edge.train",
    ]
    arguments = command(colours, tmp_path / "two", *shared, *plain, "--set", "lr=1e-4", "final_lr=1e-6")
    done = subprocess.run(
        [*launch, *arguments], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is new: decoding 48 pictures") == 1
    larger = ["--set", "lr=2e-4", "final_lr=2e-6", "batch_size=16"]
    assert main(command(colours, tmp_path / "one", *shared, *plain, *larger)) == 0
    a, b = ([float(loss) for loss in losses(tmp_path / name)[1:]] for name in ("two", "one"))
    assert a == pytest.approx(b, rel=0.01)


# The file


@pytest.fixture
def cached(colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[PictureFolder, Path]:
    """A folder of pictures that may be changed, and its cache."""
    pictures = PictureFolder(shutil.copytree(colours, tmp_path / "data"), "train")
    file = open_cache(tmp_path / "c.npy", pictures, RECIPE, HERE, 1)
    assert "is new: decoding 48 pictures" in capsys.readouterr().out
    return pictures, file


def test_a_cache_that_fits_is_used(cached, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, file = cached
    before = file.stat()
    assert open_cache(file, pictures, RECIPE, HERE, 1) == file
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("change", ["pixels", "one fewer", "another size", "a byte", "cut short", "facts", "file"])
def test_a_stale_or_damaged_cache_is_written_anew(change: str, cached, capsys: pytest.CaptureFixture[str]) -> None:
    pictures, file = cached
    words = "is damaged: decoding"
    good = file.read_bytes()
    if change == "pixels":
        Image.new("RGB", (40, 32), "white").save(pictures.paths[5])
        words = "other pictures"
    elif change == "one fewer":
        pictures.paths[3].unlink()
        pictures = PictureFolder(pictures.paths[0].parents[2], "train")
        words = "other pictures"
    elif change == "another size":
        Image.new("RGB", (50, 50)).save(pictures.paths[47])
        words = "another size"
    elif change == "a byte":
        file.write_bytes(good[:-1000] + bytes([good[-1000] ^ 1]) + good[-999:])
    elif change == "cut short":
        file.write_bytes(good[:-1000])
    elif change == "facts":
        facts = json.loads(file.with_name("c.npy.json").read_text())
        file.with_name("c.npy.json").write_text(json.dumps({**facts, "sha256": 3}))
    else:
        file.unlink()
        words = "is new"
    assert open_cache(file, pictures, RECIPE, HERE, 1) == file
    assert words in capsys.readouterr().out
    pixels = np.load(file, mmap_mode="r")
    assert pixels.shape[:2] == (len(pictures), 50 if change == "another size" else 40)
    if change == "pixels":
        assert (pixels[5] == 255).all()
    elif change not in ("one fewer", "another size"):
        assert file.read_bytes() == good
    assert sorted(path.name for path in file.parent.iterdir()) == ["c.npy", "c.npy.json", "data"]


def test_another_file_is_not_overwritten(colours: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.npy").write_bytes(b"mine")
    (tmp_path / "mine.txt").write_bytes(b"mine")
    for name, words in (("mine.npy", "is no cache"), ("mine.txt", "cannot write")):
        line = refused(*command(colours, tmp_path / "run", "--cache", str(tmp_path / name)))
        assert words in line
        assert "choose another --cache" in line
        assert (tmp_path / name).read_bytes() == b"mine"


def test_too_little_room_is_said_before_anything_is_decoded(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(100_000))
    monkeypatch.setattr(cache, "_square", lambda path, side: pytest.fail("decoded"))
    line = refused(*command(colours, tmp_path / "run", "--cache", str(tmp_path / "c.npy")))
    assert "c.npy takes 0 MB" in line or "MB are free there; choose another --cache" in line
    assert not (tmp_path / "c.npy").exists()


@pytest.mark.slow
def test_a_full_disk_is_one_line_before_training(colours: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from lavit_edge.cli import run_command; from lavit_edge.train.__main__ import main\n"
        "run_command(lambda: main(sys.argv[1:]))\n"
    )
    arguments = command(colours, tmp_path / "run", "--cache", str(tmp_path / "c"))
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "train.npy (File too large); choose another --cache" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "c").iterdir())
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"inventory.json", "digests.npy"}, (
        "of the pictures, which are sound"
    )
