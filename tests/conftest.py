"""What several test files share: a tiny model's checkpoint and a folder of coloured pictures. Tests leave them as they are."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, as below of the tests themselves

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

# 64 pixels: grids of 16, 8, 4 and 2; vanilla and less attention on 16 and on 4 tokens
TINY: dict[str, Any] = dict(dims=(16, 32, 64, 64), depths=(1, 1, 2, 2), heads=(0, 0, 2, 2))

CLASSES = 5  # of the gratings
CALIBRATION = 30  # pictures
STEPS = 200  # that the net of the gratings is trained for

Shared = Callable[[str, Callable[[Path], Any]], Path]


@pytest.fixture(scope="session")
def profiles() -> dict[str, bytes]:
    """ICC profiles that tests make (icc.py): ``adobe_rgb``, ``display_p3``, ``grey`` (gamma 1) and ``cmyk``."""
    spec = importlib.util.spec_from_file_location("icc", Path(__file__).with_name("icc.py"))
    assert spec is not None
    assert spec.loader is not None
    icc = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(icc)
    return icc.profiles()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Shared:
    """``shared(name, make)``: a folder that the first test process to ask makes, with ``make(folder)``, for all of them."""
    own = tmp_path_factory.getbasetemp()
    root = own if worker_id == "master" else own.parent

    def get(name: str, make: Callable[[Path], Any]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of one who failed
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def tiny_options() -> dict[str, Any]:
    """Options that make ``lavit_mobile_s`` small enough for tests (for 64 pixels and 10 classes)."""
    return dict(TINY)


@pytest.fixture(scope="session")
def tiny_checkpoint(shared: Shared) -> Path:
    """A checkpoint of the tiny ``lavit_mobile_s``: random weights, 64 pixels, 10 classes."""
    return shared("tiny", save_tiny)


def tiny_model(classes: int) -> Any:
    """The tiny ``lavit_mobile_s``. Its residual branches count from the start, and its batch norms have the statistics of what
    they see: with those of nothing, values grow from block to block beyond what fp16 holds."""
    import torch

    from lavit_edge.models import create_model

    torch.manual_seed(0)
    model = create_model("lavit_mobile_s", num_classes=classes, image_size=64, **TINY)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d)]
    for norm in norms:
        torch.nn.init.ones_(norm.weight)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.nn.functional.interpolate(torch.randn(32, 3, 8, 8), (64, 64)))
    for norm in norms:
        norm.momentum = 0.1
    return model


def save_tiny(path: Path) -> None:
    from lavit_edge.checkpoint import save_checkpoint
    from lavit_edge.contract import InputContract

    model = tiny_model(10)
    contract = InputContract(size=64, labels=tuple(f"class {i}" for i in range(10)))
    spec = {"name": "lavit_mobile_s", "options": TINY}
    save_checkpoint(path, model.state_dict(), model=spec, contract=contract, card="# tiny\n")


@pytest.fixture(scope="session")
def tiny_onnx(tiny_checkpoint: Path, shared: Shared) -> Path:
    """The ``.onnx`` of the tiny checkpoint in float: random weights, 64 pixels, 10 classes."""
    from lavit_edge.export.__main__ import main

    arguments = ["--target", "onnx", "--precision", "float", "--checkpoint", str(tiny_checkpoint)]
    return shared("tiny-onnx", lambda path: succeed(main([*arguments, "--out", str(path)]))) / "model.onnx"


@pytest.fixture(scope="session")
def resealed_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``resealed_onnx(source, golden=None, contract="{}")``: a copy of an ``.onnx``, the tiny one unless told,
    with other entries (None: without one), and a digest that fits."""
    import onnx

    from lavit_edge.artifact.payload import KEY
    from lavit_edge.artifact.seal import UNSEALED, seal

    def make(source: Path = tiny_onnx, **entries: str | None) -> Path:
        model = onnx.load(source)
        metadata = {prop.key: prop.value for prop in model.metadata_props} | {KEY + "digest": UNSEALED}
        changed = metadata | {KEY + name: value for name, value in entries.items()}
        onnx.helper.set_model_props(model, {key: value for key, value in changed.items() if value is not None})
        path = tmp_path_factory.mktemp("resealed") / "model.onnx"
        onnx.save(model, path)
        seal(path)
        return path

    return make


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` and ``val/`` with 16 and 4 noisy 40 x 32 pictures of each of the classes blue, green, red."""
    root = tmp_path_factory.mktemp("data") / "colours"
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4)):
        for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 90, (32, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two threads that wait for each other are slower than one on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(shared: Shared) -> Path:
    """Noisy coloured gratings, one direction a class: 16 pictures each to train on, 6 each to judge."""
    return shared("gratings", make_gratings)


def make_gratings(root: Path) -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:64, 0:64] / 64
    for split, count in (("train", 16), ("val", 6)):
        for label in range(CLASSES):
            folder = root / split / f"direction{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                angle, waves = math.pi * label / CLASSES + 0.1 * rng.normal(), rng.uniform(3, 6)
                wave = np.sin(2 * math.pi * (waves * (x * math.cos(angle) + y * math.sin(angle)) + rng.uniform()))
                picture = 128 + 80 * wave[..., None] * rng.uniform(0.4, 1, 3) + 15 * rng.normal(size=(64, 64, 3))
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")


@pytest.fixture(scope="session")
def fp32(data: Path, shared: Shared) -> Path:
    """A checkpoint of the tiny ``lavit_mobile_s`` that has learned the gratings."""
    return shared("fp32", lambda path: train(data, path))


def train(data: Path, path: Path) -> None:
    import torch

    from lavit_edge.checkpoint import save_checkpoint
    from lavit_edge.contract import InputContract
    from lavit_edge.data.folder import PictureFolder
    from lavit_edge.quantize.evaluate import batches

    # In float32 the 200 steps end elsewhere on each CPU (with AVX-512 and AVX2 83 and 87 % right, and other layers worst), in
    # float64 the weights are the same to 1.5e-8
    model = tiny_model(CLASSES).double()
    folder = PictureFolder(data, "train")
    contract = InputContract(64, folder.labels)
    pictures, targets = next(batches(folder, contract, len(folder)))
    inputs, labels = (pictures.double() / 255 - 0.45) / 0.23, torch.tensor(targets)
    torch.manual_seed(3)
    optimizer = torch.optim.AdamW(model.parameters(), rate := 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(0, len(inputs), (16,))
        loss = torch.nn.functional.cross_entropy(model(inputs[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    spec = {"name": "lavit_mobile_s", "options": TINY}
    save_checkpoint(
        path, model.float().state_dict(), model=spec, contract=contract, card="# Gratings\n", facts={"training": {"steps": STEPS}}
    )


@pytest.fixture(scope="session")
def int8(fp32: Path, data: Path, shared: Shared) -> Path:
    """Its quantised checkpoint, by the command, without training."""
    from lavit_edge.quantize.__main__ import main

    arguments = ["--checkpoint", str(fp32), "--data", str(data), "--epochs", "0", "--calibration-pictures", str(CALIBRATION)]
    return shared("int8", lambda path: succeed(main([*arguments, "--out", str(path)])))


def succeed(code: int) -> None:
    assert code == 0


@pytest.fixture(scope="session")
def gates() -> list[str]:
    """Gates for the tiny model. 64 pixels and 80 steps of training are far noisier in int8 than a real model: two runtimes that
    round one value apart part by 19 to 45 dB. The bundled checkpoint is held to the real gates in test_bundled.py.
    """
    return ["--agreement", "0.8", "--max-drop", "100"]


@pytest.fixture(scope="session")
def bundle(int8: Path, data: Path, gates: list[str], shared: Shared) -> Path:
    """All three targets of the tiny quantised checkpoint, compared on labelled pictures too."""
    from lavit_edge.export.__main__ import main

    arguments = ["--checkpoint", str(int8), "--data", str(data), *gates, "--tolerance-steps", "100"]  # 67 in a mosaic
    return shared("bundle", lambda path: succeed(main([*arguments, "--out", str(path)])))


@pytest.fixture(scope="session")
def mixed(int8: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quantised checkpoint with a layer between two others, one of three on a tensor, and a whole FFN back in float."""
    from lavit_edge.checkpoint import INT8, load_checkpoint, load_tensors, save_checkpoint

    checkpoint = load_checkpoint(int8)
    layers = [
        "stages.1.blocks.0.mixer.conv",
        "stages.3.blocks.0.attention.value.conv",
        *(f"stages.2.blocks.1.ffn.{name}.conv" for name in ("expand", "contract")),
    ]
    tensors, deployed = load_tensors(int8 / INT8, checkpoint.config), checkpoint.model.deploy()
    for layer in layers:
        tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{layer}.")}
        tensors |= {f"{layer}.{name}": value for name, value in deployed.get_submodule(layer).state_dict().items()}
    facts = {**checkpoint.config["quantization"]}
    facts["float_layers"] = [*facts["float_layers"], *layers]
    path = tmp_path_factory.mktemp("mixed") / "checkpoint"
    save_checkpoint(
        path,
        checkpoint.model.state_dict(),
        model=checkpoint.config["model"],
        contract=checkpoint.contract,
        card="# Mixed\n",
        facts={"quantization": facts},
        int8=tensors,
    )
    return path


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str, str], dict[int, list[float]]]:
    """``look(page, selector)``: for the width of a phone and of a laptop in pixels, by how many a page is wider, and then the
    right edge of each element of a selector. What was seen lies in ``tmp_path`` as ``360.png`` and ``1100.png``."""

    def see(page: str, selector: str) -> dict[int, list[float]]:
        from lavit_edge.benchmark.browser import find_chromium
        from lavit_edge.errors import UserError

        try:
            chromium = find_chromium()
            from playwright.sync_api import sync_playwright
        except (UserError, ImportError) as error:
            if os.environ.get("CI"):
                pytest.fail(str(error))
            pytest.skip(str(error))
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        found = {}
        with sync_playwright() as library:
            browser = library.chromium.launch(executable_path=chromium, timeout=120_000)  # a busy machine is slow
            for width in (360, 1100):
                shown = browser.new_page(viewport={"width": width, "height": 800})
                shown.set_default_timeout(120_000)
                shown.goto((tmp_path / "page.html").as_uri())
                found[width] = shown.evaluate(SEEN, selector)
                shown.screenshot(path=tmp_path / f"{width}.png", full_page=True)
            browser.close()
        return found

    return see


SEEN = """selector => [document.documentElement.scrollWidth - document.documentElement.clientWidth,
    ...[...document.querySelectorAll(selector)].map(each => each.getBoundingClientRect().right)]"""
