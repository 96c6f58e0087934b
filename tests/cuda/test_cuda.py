"""The same weights on CUDA and on the CPU, in each precision, on real pictures; training and QAT there. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from lavit_edge.checkpoint import Checkpoint, load_checkpoint
from lavit_edge.models.deployed import Deployed
from lavit_edge.parity.bundle import bundled_checkpoints, free_pictures
from lavit_edge.parity.compare import FLOAT, sqnr

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(bundled_checkpoints()["lavit_mobile_s_imagenette160"])


@pytest.fixture(scope="module")
def pictures(checkpoint: Checkpoint) -> torch.Tensor:
    """``(50, 3, size, size)`` float32 RGB, 0 to 255."""
    contract = checkpoint.contract
    rows = [picture for picture, _ in free_pictures(contract).inputs(contract)]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float().contiguous()


@pytest.fixture(scope="module")
def others(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Logits ``(50, classes)`` on the CPU: the fp32 model, the fake-quantised one, the int8 program, each artifact."""
    from lavit_edge.export.__main__ import main
    from lavit_edge.parity.bundle import forms, open_bundle
    from lavit_edge.quantize import int8_program

    out = tmp_path_factory.mktemp("export") / "bundle"
    assert main(["--out", str(out)]) == 0
    runs = forms(checkpoint, open_bundle(out).runnable, int8_program(checkpoint))
    rows = [picture for picture, _ in free_pictures(checkpoint.contract).inputs(checkpoint.contract)]
    return {name: np.stack([run(picture) for picture in rows]) for name, run in runs.items()}


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def on_cuda(checkpoint: Checkpoint, pictures: torch.Tensor, precision: str) -> np.ndarray:
    model = Deployed(load_checkpoint(checkpoint.path).model, checkpoint.contract).eval().cuda()
    with torch.no_grad(), tf32(precision == "tf32"), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        return model(pictures.cuda()).float().cpu().numpy()


@pytest.mark.parametrize(("precision", "agreement", "decibels"), [("fp32", 1.0, 100), ("tf32", 0.98, 50), ("bf16", 0.98, 25)])
def test_cuda_gives_the_logits_of_the_cpu(precision, agreement, decibels, checkpoint, pictures, others) -> None:
    logits, cpu = on_cuda(checkpoint, pictures, precision), others[FLOAT]
    same, noise = figures(precision, FLOAT, logits, cpu)
    assert same >= agreement
    assert noise >= decibels


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_cuda_is_no_further_from_each_int8_form_than_the_cpu_is(precision, checkpoint, pictures, others) -> None:
    """Independent noises add up: what CUDA adds to the distance between fp32 and int8 is its own distance from the CPU."""
    logits, cpu = on_cuda(checkpoint, pictures, precision), others[FLOAT]
    for name in set(others) - {FLOAT}:
        same, noise = figures(precision, name, logits, others[name])
        sum_of_both = np.square(others[name] - cpu).sum() + np.square(logits - cpu).sum()
        assert noise >= 10 * np.log10(np.square(others[name]).sum() / sum_of_both) - 1, name
        assert same >= 0.9, name


def figures(precision: str, name: str, logits: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Share of the same top-1, and SQNR in dB against ``other``; both are printed (``pytest -s``)."""
    same, noise = float((logits.argmax(1) == other.argmax(1)).mean()), sqnr(other, logits)
    print(
        f"CUDA {precision}, {name}: same top-1 {same:.3f}, {noise:.1f} dB, largest difference {np.abs(logits - other).max():.2g}"
    )
    return same, noise


def test_repeats_are_equal_to_the_bit(checkpoint, pictures) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (on_cuda(checkpoint, pictures, "fp32") for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("more", [[], ["--compile"], ["--cache", "CACHE"]], ids=["eager", "compiled", "cached"])
def test_training_runs_and_learns(more: list[str], colours: Path, tmp_path: Path) -> None:
    from lavit_edge.train.__main__ import main

    plain = (
        "image_size=32 epochs=4 batch_size=8 warmup_epochs=0 lr=2e-3 ema=0.5 mix_probability=0 erasing=0 randaugment_operations=0"
    )
    more = [option.replace("CACHE", str(tmp_path / "cache.npy")) for option in more]
    command = ["--data", str(colours), "--out", str(tmp_path / "run"), "--device", "cuda", *more, "--set", *plain.split()]
    assert main(command) == 0
    card = (tmp_path / "run" / "checkpoint" / "README.md").read_text()
    assert torch.cuda.get_device_name() in card


def test_batches_are_augmented_as_on_the_cpu(pictures) -> None:
    from lavit_edge.data.augment import OPERATIONS, random_box
    from lavit_edge.data.augment_batch import crop_batch, rand_augment_batch

    rng = np.random.default_rng(0)
    pixels, count = pictures.permute(0, 2, 3, 1).to(torch.uint8), len(pictures)
    boxes, flips = np.array([random_box(rng, 0.25) for _ in range(count)]), rng.random(count) < 0.5
    cropped = [crop_batch(pixels.to(device), boxes, flips, 96) for device in ("cpu", "cuda")]
    assert (cropped[0].int() - cropped[1].cpu().int()).abs().max() <= 1
    magnitudes = rng.uniform(-1, 1, (count, 1))
    for number, name in enumerate(OPERATIONS):
        numbers = np.full((count, 1), number)
        cpu, cuda = (rand_augment_batch(cropped[0].to(device), numbers, magnitudes) for device in ("cpu", "cuda"))
        apart = (cpu.int() - cuda.cpu().int()).abs()
        print(f"{name}: largest difference {apart.max()}, in {(apart > 0).float().mean():.2g} of the values")
        assert (apart > 1).float().mean() < 1e-3, name


def test_quantisation_aware_training_runs(fp32: Path, data: Path, tmp_path: Path) -> None:
    from lavit_edge.quantize.__main__ import main

    out = tmp_path / "int8"
    options = ["--epochs", "1", "--max-steps", "2", "--batch-size", "8", "--calibration-pictures", "8", "--device", "cuda"]
    assert main(["--checkpoint", str(fp32), "--data", str(data), "--out", str(out), *options]) == 0
    assert load_checkpoint(out).quantized
