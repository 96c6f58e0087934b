"""The GPU job and its package with the least of everything, on a CPU."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lavit_edge.checkpoint import load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import load_input
from lavit_edge.data.folder import PictureFolder
from lavit_edge.errors import UserError
from lavit_edge.train.cache import CachedSource, open_cache
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.resident import ResidentSource
from lavit_edge.train.sheets import PACKAGE, DecodedPictures, read_package, read_sheets, write_sheets
from lavit_edge.train.world import World

ROOT = Path(__file__).parents[2]
HERE = World(0, 1, torch.device("cpu"))
Finished = tuple[Path, subprocess.CompletedProcess[str]]
SETTINGS = ["image_size=32", "batch_size=16", "warmup_epochs=1", "teacher_views=2"]
# What a machine has that was lent, and the project is not installed there, so that quantize/ and export/ are no part of it
BARE = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
for name in ("coremltools", "executorch", "nncf", "onnx", "onnxruntime", "timm", "torchao", "webdataset"):
    sys.modules[name] = None  # its import raises ImportError
sys.path.insert(0, ".")
for path in sys.argv[1:]:
    runpy.run_path(path, run_name="imported")
try:
    import lavit_edge.quantize
except ImportError:
    print("bare")
"""


def script(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    # not compiled: that takes a CPU a minute for each model
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def package(colours: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures to train on and 12 to judge, and two views of them; not to be changed."""
    out = tmp_path_factory.mktemp("package") / "package"
    done = script("gpu_pack.py", "--data", colours, "--out", out, "--teacher", tiny_checkpoint, "--set", *SETTINGS)
    assert done.returncode == 0, done.stderr
    return out


# The package


def test_sheets_hold_the_pictures_in_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 256, (230, 2, 2, 3), dtype=np.uint8), 16, 1), 16, 2)
    hashes = write_sheets(smooth, tmp_path, "train", 90)
    assert list(hashes) == ["train-000.avif", "train-001.avif", "train-002.avif"]
    files, targets = [f"a/{i}.jpg" for i in range(230)], list(range(230))
    package = {"side": 32, "sheets": hashes, "splits": {"train": {"files": files, "targets": targets}}}
    pictures = read_sheets(tmp_path, package, "train")
    assert pictures.pixels.shape == smooth.shape
    assert np.abs(pictures.pixels.astype(int) - smooth).mean((1, 2, 3)).max() < 20  # another picture is 85 apart
    part = pictures.part(1, 3)
    assert (len(part), part.files[1], part.targets[1]) == (77, "a/4.jpg", 4)
    pixels, target = list(part.inputs(InputContract(32, ("a", "b"))))[1]
    np.testing.assert_array_equal(pixels, pictures.pixels[4])
    assert target == 4


def test_batches_are_those_of_the_cache(colours: Path, tmp_path: Path) -> None:
    """Over two epochs, one of them begun in the middle; with workers and without."""
    folder, recipe = PictureFolder(colours, "train"), Recipe(image_size=32, batch_size=10, erasing=0)
    file = open_cache(tmp_path / "c.npy", folder, recipe, HERE, 1)
    decoded = DecodedPictures(np.load(file), [path.name for path in folder.paths], folder.targets, "id")
    cached = CachedSource(folder, recipe, HERE, 0, file)
    logits = torch.arange(2 * 48.0).reshape(2, 48, 1, 1)
    for workers in (0, 2):
        resident = ResidentSource(decoded, recipe, HERE, workers)
        assert resident.steps() == cached.steps() == 4
        for epoch, start in ((3, 2), (4, 0), (5, 0)):
            pairs = zip(cached.batches(epoch, start, logits), resident.batches(epoch, start, logits), strict=True)
            for expected, batch in pairs:
                assert torch.equal(resident.augment(batch[0], *batch[3:]), cached.augment(expected[0], *expected[3:]))
                assert all(torch.equal(one, other) for one, other in zip(expected[1:], batch[1:], strict=True))
    for one, other in zip(cached.views(1, 64), resident.views(1, 64), strict=True):
        assert torch.equal(one[0], other[0])


def test_the_package_holds_what_the_job_needs(package: Path, colours: Path) -> None:
    facts = read_package(package)
    assert facts["settings"][:-1] == SETTINGS
    pictures, folder = read_sheets(package, facts, "train"), PictureFolder(colours, "train")
    assert pictures.files == [f"{path.parent.name}/{path.name}" for path in folder.paths]
    assert pictures.targets == folder.targets
    assert pictures.pixels.shape == (48, 40, 40, 3)
    original = load_input(folder.paths[20], InputContract(64, ("a", "b")))
    assert np.abs(pictures.pixels[20].mean((0, 1)) - original.mean((0, 1))).max() < 8
    views = load_file(package / "teacher.safetensors")
    assert views["classes"].shape == views["log_probabilities"].shape == (2, 48, 10)
    assert torch.allclose(views["log_probabilities"].float().exp().sum(-1), torch.ones(2, 48), atol=2e-3)


def test_a_package_that_is_too_large_is_not_made(colours: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    done = script("gpu_pack.py", "--data", colours, "--out", tmp_path / "p", "--teacher", tiny_checkpoint, "--mib", "1")
    assert done.returncode == 2
    assert done.stderr.endswith("error: together more than 1 MiB: lower --quality or teacher_views\n")
    assert not list(tmp_path.iterdir())


# The job


def test_nothing_beyond_a_lent_machine_is_imported() -> None:
    files = ["scripts/gpu_job.py", "scripts/gpu_train.py", "benchmarks/train_throughput.py", "tests/cuda/test_parity.py"]
    done = subprocess.run([sys.executable, "-c", BARE, *files], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "bare\n", done.stderr


@pytest.fixture(scope="module")
def finished(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """With epochs given, so that a busy machine only takes longer."""
    out, least = tmp_path_factory.mktemp("job") / "out", "--batch-size 2 --image-size 32 --seconds 0.2"
    options = ["--models", "lavit_mobile_s", "--device", "cpu", "--minutes", "15", "--throughput", least, "--set", "epochs=3"]
    return out, script("gpu_job.py", "--package", package, "--out", out, *options)


@pytest.mark.slow
def test_the_job_does_all(finished: Finished) -> None:
    out, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    assert list(summary) == ["throughput", "lavit_mobile_s-distilled", "lavit_mobile_s-scratch", "parity"]
    assert all(entry["error"] is None for entry in summary.values())
    assert "13 passed" in (out / "parity.log").read_text()
    (row, *_) = json.loads((out / "throughput.json").read_text())["training"]
    assert (row["model"], row["mode"]) == ("lavit_mobile_s", "compiled")
    assert f"lavit_mobile_s, compiled: {row['img_per_s']:.0f} img/s" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["distilled", "scratch"])
def test_what_is_taken_home_is_a_checkpoint(kind: str, finished: Finished, tmp_path: Path) -> None:
    out, _ = finished
    name = f"lavit_mobile_s-{kind}"
    with zipfile.ZipFile(out / f"{name}.zip") as file:
        file.extractall(tmp_path)
    checkpoint = load_checkpoint(tmp_path / name / "checkpoint")
    training, metrics = checkpoint.config["training"], checkpoint.config["metrics"]
    rows = (tmp_path / name / "log.csv").read_text().splitlines()[1:]
    assert metrics["epoch"] == training["recipe"]["epochs"] == len(rows) == 3
    assert (training["recipe"]["teacher"] is None) == (kind == "scratch")
    tensors = checkpoint.model.state_dict()
    for value in tensors.values():
        assert value.ndim < 2 or torch.equal(value, value.bfloat16().float())
    assert (out / f"{name}.zip").stat().st_size < 1.7 * sum(value.numel() for value in tensors.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "lavit_huge"], "--models lavit_huge: choose from"),
        (["--set", "epoch=3"], "--set epoch: no such setting; did you mean 'epochs'?"),
        (["--package", "nowhere"], "nowhere is no package"),
        (["--out", "{package}"], "already exists and is not empty"),
    ],
)
def test_mistakes_are_one_line(
    options: list[str], message: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = imported("gpu_job", monkeypatch)
    given = [str(option).format(package=package) for option in options]
    monkeypatch.setattr(sys, "argv", ["", "--package", str(package), "--out", str(tmp_path / "out"), "--device", "cpu", *given])
    with pytest.raises(UserError, match=re.escape(message)):
        job.main()
    assert not (tmp_path / "out").exists()


def test_a_missing_module_can_come_as_a_wheel(package: Path, tmp_path: Path) -> None:
    there = tmp_path / "package"
    shutil.copytree(package, there)
    (there / "wheels").mkdir()
    broken = "raise ImportError('this rich came as a wheel')"
    with zipfile.ZipFile(there / "wheels" / "rich-99-py3-none-any.whl", "w") as wheel:
        wheel.writestr("rich/__init__.py", broken)
    done = script("gpu_job.py", "--package", there, "--out", tmp_path / "out", "--device", "cpu")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: this rich came as a wheel; put wheels of what is missing into")


def test_what_is_beyond_the_limit_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    job = imported("gpu_job", monkeypatch)
    config = json.dumps({"metrics": {"val_top1": 0.9, "epoch": 7, "seconds": 60}})
    for name in ("s-distilled", "s-scratch"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            file.writestr(f"{name}/checkpoint/config.json", config)
            file.writestr(f"{name}/log.csv", "epoch,img_per_s\n7,1000\n")
            file.writestr("ballast", bytes(600_000))
    (tmp_path / "m-scratch.part").write_bytes(b"of a training that was killed")
    results = {"throughput": "failed with 2: why", "s-distilled": "", "s-scratch": "", "m-scratch": "stopped, as time was up"}
    assert job.summarise(Namespace(out=tmp_path, home_mb=1.0), results) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s-distilled.zip", "summary.json"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "throughput: failed with 2: why"
    assert lines[1] == "s-distilled: done, top-1 0.9, epochs 7, seconds 60, img/s 1000, MB 0.6"
    assert lines[2].startswith("s-scratch: left out, 0.6 MB are more than --home-mb leaves, top-1 0.9")
    assert lines[3] == "m-scratch: stopped, as time was up"


def test_damage_is_found_before_anything_begins(package: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "package"
    shutil.copytree(package, damaged)
    sheet = damaged / "val-000.avif"
    sheet.write_bytes(sheet.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"val-000\.avif is missing or damaged"):
        read_sheets(damaged, read_package(damaged), "val")
    package_file = damaged / PACKAGE
    package_file.write_text(package_file.read_text().replace('"side": 40', '"side": "40"'))
    with pytest.raises(UserError, match="side must be of type int"):
        read_package(damaged)


@pytest.mark.slow
def test_views_of_other_crops_are_refused(package: Path, tmp_path: Path) -> None:
    done = training(package, tmp_path / "x.zip", "--distilled", "--set", "seed=1")
    assert done.returncode == 2
    assert "the package's teacher saw other crops" in done.stderr
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.slow
def test_without_a_compiler_the_clock_still_gets_its_epochs(package: Path, tmp_path: Path) -> None:
    """The minutes are over at once, so that there are two epochs more than the warm-up, and the cosine ends."""
    done = training(package, tmp_path / "x.zip", TORCHDYNAMO_DISABLE="0", CXX="/no/compiler")
    assert done.returncode == 0, done.stderr
    assert "not compiled, trained eager: " in done.stdout
    assert "\n3 epochs, val top-1 " in done.stdout
    with zipfile.ZipFile(tmp_path / "x.zip") as file:
        training_facts = json.loads(file.read("x/checkpoint/config.json"))["training"]
        rates = [float(line.split(",")[1]) for line in file.read("x/log.csv").decode().splitlines()[1:]]
    assert training_facts["compiled"] is False
    assert training_facts["recipe"]["epochs"] == 3
    assert rates == [0.002, 0.00101, 1e-5]


def training(package: Path, out: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ["--model", "lavit_mobile_s", "--until", str(time.time()), "--device", "cpu", "--workers", "0"]
    return script("gpu_train.py", "--package", package, "--out", out, *options, *more, **environment)


def test_the_clock_sets_epochs_that_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    job = imported("gpu_train", monkeypatch)
    clock, epoch, epochs = job.Clock(until=1200.0, warmup=2), 0, 1
    while epoch < epochs:
        epochs = clock(epoch)
        now[0] += 30.0 if epoch == 0 else 1.0 if epoch < 50 else 1.5  # compiling, then alone on the device, then not
        epoch += 1
    assert 1190 < now[0] <= 1202
    assert epoch == pytest.approx(1 + 49 + 120 / 1.5, abs=5)
    late = job.Clock(until=1000.0, warmup=2)
    assert [late(0), late(1), late(2), late(3)] == [4, 4, 4, 4]


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script as a module."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    return importlib.import_module(name)
