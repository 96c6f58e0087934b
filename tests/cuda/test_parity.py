"""The same computations on CUDA and on the CPU, on real pictures: logits, training steps, augmentation, compiled and eager.

They need no exporter and no NNCF, so that ``scripts/gpu_job.py`` can run them from a tree that is not installed. It names the
device and the models in ``LAVIT_EDGE_DEVICE`` and ``LAVIT_EDGE_MODELS``; with ``cpu`` the CPU is compared with itself, which
shows that the tests run. Not yet run on a GPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: cuBLAS repeats itself only with it

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lavit_edge.checkpoint import bundled_checkpoints, load_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.contract.pictures import load_input
from lavit_edge.data.folder import FREE_PICTURES, PictureFolder, free_pictures
from lavit_edge.metrics import sqnr
from lavit_edge.models import create_model
from lavit_edge.models.classifier import Classifier
from lavit_edge.models.deployed import Deployed
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.loop import Parts, Run
from lavit_edge.train.optimizer import Muon, parameter_groups
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.resident import ResidentSource
from lavit_edge.train.sheets import DecodedPictures
from lavit_edge.train.world import World

DEVICE = os.environ.get("LAVIT_EDGE_DEVICE", "cuda")
MODELS = os.environ.get("LAVIT_EDGE_MODELS", "lavit_mobile_s").split()
SIZE = 64
LEAST_SLOPE = 45  # dB of a gradient in fp32, which cancellation makes noisier than logits: compiled and eager on a CPU, 57
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none"),
]


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """fp32 means fp32, and what can repeat itself does; an operator that cannot is warned of and shows in the results."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    with tf32(False):
        yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def pictures() -> DecodedPictures:
    """32 free pictures to train on."""
    folder, contract = PictureFolder(FREE_PICTURES, "train").spread(32), InputContract(SIZE, tuple(map(str, range(10))))
    pixels = np.stack([load_input(path, contract) for path in folder.paths])
    return DecodedPictures(pixels, [path.name for path in folder.paths], folder.targets, "free")


def planes(pictures: DecodedPictures, device: str) -> Tensor:
    """Roughly normalised ``(32, 3, SIZE, SIZE)``."""
    return ((torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2).float() - 118) / 58).to(device)


def fresh(name: str, device: str) -> Classifier:
    torch.manual_seed(0)
    return create_model(name, num_classes=10, image_size=SIZE, drop_path=0.0).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def agreement(what: str, logits: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Share of the same top-1, and SQNR in dB; both are printed (``pytest -s``)."""
    same, noise = float((logits.argmax(1) == reference.argmax(1)).mean()), sqnr(reference, logits)
    print(f"{what}: same top-1 {same:.3f}, {noise:.1f} dB, largest difference {np.abs(logits - reference).max():.2g}")
    return same, noise


# A trained model


def bundled_logits(device: str, precision: str) -> np.ndarray:
    checkpoint = load_checkpoint(bundled_checkpoints()["lavit_mobile_s_imagenette160"])
    contract = checkpoint.contract
    rows = np.stack([picture for picture, _ in free_pictures(contract).inputs(contract)])
    model = Deployed(checkpoint.model, contract).eval().to(device)
    x = torch.from_numpy(rows).permute(0, 3, 1, 2).float().contiguous().to(device)
    with torch.no_grad(), tf32(precision == "tf32"), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        return model(x).float().cpu().numpy()


@pytest.mark.parametrize(("precision", "least", "decibels"), [("fp32", 1.0, 90), ("tf32", 0.98, 50), ("bf16", 0.96, 25)])
def test_logits_are_those_of_the_cpu(precision: str, least: float, decibels: float) -> None:
    logits = bundled_logits(DEVICE, precision)
    same, noise = agreement(f"{DEVICE} {precision}, bundled checkpoint", logits, bundled_logits("cpu", "fp32"))
    assert same >= least
    assert noise >= decibels


def test_repeats_are_equal_to_the_bit() -> None:
    np.testing.assert_array_equal(bundled_logits(DEVICE, "fp32"), bundled_logits(DEVICE, "fp32"))


# Training


def steps(name: str, device: str, pictures: DecodedPictures, optimizer: str, count: int = 4) -> tuple[list[float], Tensor]:
    """Losses of some fp32 steps on all pictures, and the gradient of the first step."""
    model, x = fresh(name, device).train(), planes(pictures, device)
    targets = torch.tensor(pictures.targets, device=device)
    groups = parameter_groups(model, model, 0.05)
    optimiser = Muon(groups, 1e-3) if optimizer == "muon" else torch.optim.AdamW(groups, 1e-3, fused=True)
    losses, first = [], torch.empty(0)
    for step in range(count):
        features, maps = model.features(x)
        loss = F.cross_entropy(model.head(features), targets) + 0.1 * model.auxiliary_loss(maps)
        loss.backward()
        if step == 0:
            first = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses, first


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", MODELS)
def test_training_steps_are_those_of_the_cpu(name: str, optimizer: str, pictures: DecodedPictures) -> None:
    """The gradient before any step is that of the CPU but for rounding. Each step then enlarges the rounding: AdamW's first ones
    go by the signs of gradients alone, and Muon computes in bf16."""
    (losses, gradient), (cpu, reference) = (steps(name, device, pictures, optimizer) for device in (DEVICE, "cpu"))
    noise = sqnr(reference.numpy(), gradient.numpy())
    print(f"{name}, {optimizer}: losses {losses} and on the CPU {cpu}; gradient {noise:.1f} dB")
    assert noise >= LEAST_SLOPE
    assert losses[0] == pytest.approx(cpu[0], rel=1e-5)
    assert losses == pytest.approx(cpu, rel=0.02)
    assert losses[-1] < losses[0]


def trained(
    name: str, device: str, pictures: DecodedPictures, out: Path, **more: object
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of the epochs of a whole run, and its weights; ``more`` are settings of the recipe."""
    settings = {"mix_probability": 0.0, "erasing": 0.0, "drop_path": 0.0, "randaugment_operations": 0, "min_scale": 0.8, **more}
    recipe = Recipe(model=name, image_size=SIZE, epochs=4, batch_size=16, warmup_epochs=1, lr=2e-3, ema=0.5, **settings)  # type: ignore[arg-type]
    world = World(0, 1, torch.device(device))
    source, contract = ResidentSource(pictures, recipe, world, 0), InputContract(SIZE, tuple(map(str, range(10))))
    out.mkdir()
    facts = {"data": "free", "device": device, "processes": 1, "precision": "fp32", "compiled": False, "started_from": []}
    parts = Parts(fresh(name, "cpu"), contract, source, pictures, None, facts)
    run = Run(recipe, parts, out, world, TrainConfig(precision="fp32"))
    run.fit()
    return [float(row["loss"]) for row in run.rows], run.student.state_dict()


@pytest.mark.parametrize("name", MODELS)
def test_a_run_has_the_losses_of_the_cpu(name: str, pictures: DecodedPictures, tmp_path: Path) -> None:
    losses, cpu = (trained(name, device, pictures, tmp_path / str(i))[0] for i, device in enumerate((DEVICE, "cpu")))
    print(f"{name}: losses of the epochs {losses}, on the CPU {cpu}")
    assert losses == pytest.approx(cpu, rel=0.05)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", MODELS)
def test_a_run_repeats_itself_to_the_bit(name: str, pictures: DecodedPictures, tmp_path: Path) -> None:
    """With all that is random."""
    chance = {"mix_probability": 0.5, "erasing": 0.5, "drop_path": 0.1, "randaugment_operations": 2, "optimizer": "muon"}
    (losses, weights), (again, same) = (trained(name, DEVICE, pictures, tmp_path / str(i), **chance) for i in range(2))
    assert losses == again
    assert all(torch.equal(weights[key], same[key]) for key in weights)


@pytest.mark.parametrize("name", MODELS)
def test_compiled_is_eager(name: str, pictures: DecodedPictures) -> None:
    """Logits and gradient of a step, of the same weights."""
    model, x, targets = fresh(name, DEVICE).train(), planes(pictures, DEVICE), torch.tensor(pictures.targets, device=DEVICE)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for forward in (model, torch.compile(model)):
        model.load_state_dict(before)  # running statistics too
        model.zero_grad()
        logits = forward(x)
        F.cross_entropy(logits, targets).backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((logits.detach().cpu().numpy(), gradient.cpu().numpy()))
    (eager, slope), (compiled, same_slope) = results
    assert agreement(f"{name}, compiled", compiled, eager)[1] >= 80
    noise = sqnr(slope, same_slope)
    print(f"{name}, compiled: gradient {noise:.1f} dB")
    assert noise >= LEAST_SLOPE


@pytest.mark.parametrize("more", [[], ["--compile"], ["--cache", "CACHE"]], ids=["eager", "compiled", "cached"])
def test_the_command_trains_and_learns(more: list[str], colours: Path, tmp_path: Path) -> None:
    from lavit_edge.train.__main__ import main

    plain = (
        "image_size=32 epochs=4 batch_size=8 warmup_epochs=0 lr=2e-3 ema=0.5 mix_probability=0 erasing=0 randaugment_operations=0"
    )
    more = [option.replace("CACHE", str(tmp_path / "cache.npy")) for option in more]
    out, settings = tmp_path / "run", [*plain.split(), f"model={MODELS[0]}"]
    assert main(["--data", str(colours), "--out", str(out), "--device", DEVICE, *more, "--set", *settings]) == 0
    losses = [float(line.split(",")[2]) for line in (out / "log.csv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    assert name in (out / "checkpoint" / "README.md").read_text()


def test_batches_are_augmented_as_on_the_cpu(pictures: DecodedPictures) -> None:
    from lavit_edge.data.augment import OPERATIONS, random_box
    from lavit_edge.data.augment_batch import crop_batch, rand_augment_batch

    rng, pixels, count = np.random.default_rng(0), torch.from_numpy(pictures.pixels), len(pictures)
    boxes, flips = np.array([random_box(rng, 0.25) for _ in range(count)]), rng.random(count) < 0.5
    cropped = [crop_batch(pixels.to(device), boxes, flips, 96) for device in ("cpu", DEVICE)]
    assert (cropped[0].int() - cropped[1].cpu().int()).abs().max() <= 1
    magnitudes = rng.uniform(-1, 1, (count, 1))
    for number, name in enumerate(OPERATIONS):
        numbers = np.full((count, 1), number)
        cpu, other = (rand_augment_batch(cropped[0].to(device, copy=True), numbers, magnitudes) for device in ("cpu", DEVICE))
        apart = (cpu.int() - other.cpu().int()).abs()
        print(f"{name}: largest difference {apart.max()}, in {(apart > 0).float().mean():.2g} of the values")
        assert (apart > 1).float().mean() < 1e-3, name
