"""Kills, full disks, SIGTERM and several processes: what a run does then."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lavit_edge.errors import UserError
from lavit_edge.train.__main__ import main
from lavit_edge.train.batches import EpochBatches, epoch_order
from lavit_edge.train.recipe import Recipe

SETTINGS = "image_size=32 epochs=3 batch_size=8 ema=0.5 warmup_epochs=0 lr=2e-3 drop_path=0.1"
OPTIONS = ["--workers", "0", "--precision", "fp32", "--device", "cpu", "--set", *SETTINGS.split()]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(data: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "lavit_edge.train", "--data", str(data), "--out", str(out), *OPTIONS, *more]


def losses(out: Path) -> list[tuple[str, str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return [(row["epoch"], row["loss"], row["val_top1"]) for row in csv.DictReader(file)]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_file(out / "checkpoint" / "model.safetensors") for out in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed; not to be changed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    assert main(["--data", str(colours), "--out", str(out), *OPTIONS]) == 0
    return out


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_that_was_saved(whole: Path, colours: Path, tmp_path: Path) -> None:
    """With a save after each step a kill hits saves too; every time the run goes on, and ends as if nothing had happened."""
    rng, out = random.Random(0), tmp_path / "run"
    kills = 0
    while True:
        process = subprocess.Popen(
            command(colours, out, "--save-minutes", "0", "--resume"), env=ENVIRONMENT, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if kills < 3:
            deadline = time.monotonic() + 120
            while not (out / "state.part").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.001)  # a save is going on when it appears
            time.sleep(rng.random() * 0.02)
            process.kill()
            kills += 1
            process.wait()
        elif process.wait() == 0:
            break
        else:
            pytest.fail("the resumed run failed")
    assert losses(out) == losses(whole)
    assert same_weights(out, whole)


@pytest.mark.slow
@pytest.mark.parametrize("group", [False, True])
def test_sigterm_saves_and_the_run_goes_on(group: bool, whole: Path, colours: Path, tmp_path: Path) -> None:
    """From the step; or, where the whole process group gets it and with it the loader's workers, from what was saved last."""
    out = tmp_path / "run"
    arguments = command(colours, out, *(["--workers", "2"] if group else []))
    options = {"env": ENVIRONMENT, "cwd": tmp_path, "start_new_session": True}
    process = subprocess.Popen(arguments, **options, stderr=subprocess.PIPE, text=True)  # type: ignore[call-overload]
    deadline = time.monotonic() + 120
    while not (out / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM) if group else process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "--resume goes on from" in " ".join(error.split())
    assert "Traceback" not in error
    assert main(["--data", str(colours), "--out", str(out), *OPTIONS, "--resume"]) == 0
    assert losses(out) == losses(whole)
    assert same_weights(out, whole)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_state_and_training_goes_on(colours: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the checkpoint (16 MB) and the state do not fit."""
    out = tmp_path / "run"
    assert main(["--data", str(colours), "--out", str(out), *OPTIONS, "--set", "epochs=1"]) == 0
    before = (out / "state.safetensors").read_bytes()
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "from lavit_edge.cli import run_command; from lavit_edge.train.__main__ import main\n"
        "run_command(lambda: main(sys.argv[1:]))\n"
    )
    arguments = command(colours, out, "--set", "epochs=1", "lr=1e-3")[3:]
    (out / "state.safetensors").rename(tmp_path / "kept")
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "could not save" in done.stderr
    assert "make room there, then --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "state.safetensors").exists()
    assert not list(out.glob("*.part"))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert (tmp_path / "kept").read_bytes() == before


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(colours: Path, tmp_path: Path) -> None:
    """``lavit_tiny`` has no batch normalisation, which would see half the batch in each process."""
    plain = ["--set", "model=lavit_tiny", "mix_probability=0", "drop_path=0", "epochs=3"]
    two, one = tmp_path / "two", tmp_path / "one"
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_port=29511",
        "-m",
        "lavit_edge.train",
    ]
    arguments = command(colours, two, *plain, "--set", "lr=1e-4", "final_lr=1e-6")[3:]
    subprocess.run([*launch, *arguments], env=ENVIRONMENT, cwd=tmp_path, check=True, capture_output=True)
    assert (
        main(["--data", str(colours), "--out", str(one), *OPTIONS, *plain, "--set", "lr=2e-4", "final_lr=2e-6", "batch_size=16"])
        == 0
    )
    a, b = ([float(loss) for _, loss, _ in losses(out)] for out in (two, one))
    assert len(a) == len(b) == 3
    assert a == pytest.approx(b, rel=0.01)
    assert a[-1] < 0.95 * a[0]


def test_accumulated_batches_are_one_step() -> None:
    """Two batches of 8 in a step take the pictures of one of 16, and so do two processes."""

    def order(pictures: int, epoch: int) -> np.ndarray:
        return epoch_order(Recipe(), epoch, [0] * pictures)

    (sixteen,) = EpochBatches(order(100, 5), 16, 1, 0, 1).of_step(3)
    first, second = EpochBatches(order(100, 5), 8, 2, 0, 1).of_step(3)
    assert first + second == sixteen
    parts = [EpochBatches(order(100, 5), 8, 1, rank, 2).of_step(3)[0] for rank in (0, 1)]
    assert parts[0] + parts[1] == sixteen
    assert sorted(index for batch in EpochBatches(order(96, 5), 16, 1, 0, 1) for index in batch) == list(range(96))
    assert list(EpochBatches(order(96, 5), 16, 1, 0, 1, start=4)) == list(EpochBatches(order(96, 5), 16, 1, 0, 1))[4:]
    assert sixteen != EpochBatches(order(100, 6), 16, 1, 0, 1).of_step(3)[0]


def test_gradients_of_accumulated_batches_add_up(colours: Path, tmp_path: Path) -> None:
    plain = ["--set", "mix_probability=0", "drop_path=0", "erasing=0", "epochs=1"]
    base = ["--data", str(colours), *OPTIONS, *plain]
    assert main([*base, "--out", str(tmp_path / "a"), "--set", "batch_size=16", "lr=2e-3"]) == 0
    assert main([*base, "--out", str(tmp_path / "b"), "--set", "batch_size=8", "accumulate=2", "lr=1e-3"]) == 0
    (_, a, _), (_, b, _) = losses(tmp_path / "a")[0], losses(tmp_path / "b")[0]
    assert float(a) == pytest.approx(float(b), rel=0.05)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--recipe", "imagenete_mobile"], "did you mean 'imagenette_mobile'"),
        (["--set", "learning_rate=1"], "--set learning_rate: no such setting"),
        (["--set", "epoch=1"], "did you mean 'epochs'"),
        (["--set", "epochs"], "write it as key=value"),
        (["--set", "epochs=many"], "'many' is no int"),
        (["--set", "batch_size=64"], r"48 training pictures are fewer than one step takes"),
        (["--device", "cuda"], "this torch has no such device"),
    ],
)
def test_mistakes_end_before_training(colours: Path, tmp_path: Path, more: list[str], words: str) -> None:
    if more == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UserError, match=words) as caught:
        main(["--data", str(colours), "--out", str(tmp_path / "run"), *OPTIONS, *more])
    assert "\n" not in str(caught.value)


def test_one_class_is_nothing_to_tell_apart(colours: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "red").symlink_to(colours / split / "red")
    with pytest.raises(UserError, match="one class, 'red'"):
        main(["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *OPTIONS])
