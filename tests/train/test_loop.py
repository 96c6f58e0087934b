"""What one step minimises and what is judged and kept, in sizes at which a confusion cannot hide."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lavit_edge.checkpoint import WEIGHTS
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import PictureFolder
from lavit_edge.models import create_model
from lavit_edge.train.config import TrainConfig
from lavit_edge.train.loop import CHECKPOINT, Parts, Run
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import FolderSource
from lavit_edge.train.world import World

MEAN, STD = (0.1, 0.5, 0.9), (0.01, 0.2, 5.0)  # no two alike, in whichever order
PLAIN = dict(randaugment_operations=0, erasing=0.0, min_scale=1.0, drop_path=0.0)

Start = Callable[..., Run]


@pytest.fixture
def start(colours: Path, tmp_path: Path, tiny_options: dict[str, Any]) -> Start:
    """``start(data=..., contract=..., **recipe)``: a run that has not begun, on the CPU in fp32."""

    def make(data: Path = colours, contract: dict[str, Any] | None = None, **changes: Any) -> Run:
        recipe = dataclasses.replace(Recipe("lavit_mobile_s", 64, batch_size=8, epochs=1), **{**PLAIN, **changes})
        world = World(0, 1, torch.device("cpu"))
        train, val = PictureFolder(colours, "train"), PictureFolder(data, "val", ("blue", "green", "red"))
        torch.manual_seed(0)
        model = create_model("lavit_mobile_s", num_classes=3, image_size=64, **tiny_options)
        facts = {"data": "colours", "device": "CPU", "processes": 1, "precision": "fp32", "started_from": []}
        source = FolderSource(train, recipe, world, 0)
        parts = Parts(model, InputContract(64, train.labels, **(contract or {})), source, val, None, facts)
        return Run(recipe, parts, tmp_path / "run", world, TrainConfig(device="cpu", precision="fp32", workers=0))

    return make


def primaries() -> tuple[Tensor, Tensor]:
    """A red, a green and a blue picture of classes 0, 1 and 2: a mixture's mean colour is the share of each class."""
    pixels = torch.zeros(3, 64, 64, 3, dtype=torch.uint8)
    for index in range(3):
        pixels[index, ..., index] = 255
    return pixels, torch.arange(3)


class MeanColour(nn.Module):
    """Logits that are four times the mean colour, and the same for the teacher; keeps the mean colours of the last batch."""

    seen: Tensor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        self.seen = x.mean((2, 3))
        return 4 * self.seen, -2 * self.seen, []


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)], ids=["mixup", "cutmix"])
def test_a_mixture_is_as_much_of_each_class_as_of_each_picture(mixup: float, cutmix: float, start: Start) -> None:
    run = start(
        contract=dict(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        mixup=mixup,
        cutmix=cutmix,
        mix_probability=1.0,
        label_smoothing=0.1,
        distill_weight=0.7,
        diagonality=0.0,
    )
    run.parallel = colour = MeanColour()
    pixels, targets = primaries()
    said = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.1, 0.3, 0.6]])  # of the three pictures by the teacher
    views = torch.stack([said.log(), torch.arange(3.0).expand(3, 3)], 1)
    uneven = 0
    for seed in range(8):
        torch.manual_seed(seed)
        loss = run._loss(pixels, targets, views)
        shares = colour.seen  # of each picture, and with that of each class
        torch.testing.assert_close(shares.sum(1), torch.ones(3))
        own = shares.diagonal()
        uneven += bool(((own > 0.55) | (own < 0.45)).any() and (own < 1).any())
        hard = F.cross_entropy(4 * shares, shares, label_smoothing=0.1)
        soft = F.kl_div((-2 * shares).log_softmax(-1), shares @ said, reduction="batchmean")
        torch.testing.assert_close(loss, hard + 0.7 * soft)
    assert uneven >= 4, "mixtures of which the shares exchanged would be others"


def taken(module: nn.Module) -> list[Tensor]:
    """Fills with the inputs that a module gets from now on."""
    inputs: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach().clone()))
    return inputs


def test_training_and_judging_normalise_by_the_contract(start: Start) -> None:
    run = start(contract=dict(mean=MEAN, std=STD), mix_probability=0.0)
    trained, judged = taken(run.student), taken(run.ema_model)
    pixels, targets = primaries()
    run._loss(pixels, targets, torch.zeros(3, 2, 0))
    dark, light = ([(value - m) / s for m, s in zip(MEAN, STD, strict=True)] for value in (0.0, 1.0))
    for index in range(3):
        wanted = torch.tensor([light[plane] if plane == index else dark[plane] for plane in range(3)])
        torch.testing.assert_close(trained[0][index], wanted[:, None, None].expand(3, 64, 64), rtol=1e-5, atol=1e-4)
    run._judge()
    pictures = [torch.from_numpy(picture) for picture, _ in run.val_set.inputs(run.contract)]
    wanted = ((torch.stack(pictures) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.cat(judged), wanted, rtol=1e-5, atol=1e-4)


def test_the_average_of_the_weights_is_judged_and_kept(start: Start, colours: Path, tmp_path: Path) -> None:
    """The average says red whatever it sees, and the weights that were trained say blue."""
    data = tmp_path / "data"
    for name, count in (("blue", 1), ("red", 3)):
        (data / "val" / name).mkdir(parents=True)
        for file in sorted((colours / "val" / name).iterdir())[:count]:
            shutil.copy(file, data / "val" / name)
    run = start(data=data)
    (tmp_path / "run").mkdir()
    average, trained = torch.tensor([0.0, 0.0, 1e3]), torch.tensor([1e3, 0.0, 0.0])
    for model, bias in ((run.ema_model, average), (run.student.model, trained)):
        model.head.bias.data = bias  # type: ignore[union-attr]
    found = run._judge()
    assert found.top1 == 0.75
    run._end_of_epoch(0.0, 0.0, {}, found)
    run._save(checkpoint=True)
    assert torch.equal(load_file(tmp_path / "run" / CHECKPOINT / WEIGHTS)["head.bias"], average)
