"""Distillation from stored views: the teacher sees ``views`` random crops of each picture once, before training.

A crop is a function of (seed, picture, view), so only what the teacher says of it is stored, and each epoch costs no teacher pass
(after Shen & Xing, "A Fast Knowledge Distillation Framework", ECCV 2022). As there, the largest probabilities are kept, and what
is left is spread evenly over the other classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavit_edge.checkpoint import WEIGHTS, load_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.files import follow_umask
from lavit_edge.models.deployed import Deployed
from lavit_edge.models.packaged import PACKAGED, trained
from lavit_edge.train.recipe import Recipe
from lavit_edge.train.source import Source

KEPT = 16  # of EfficientNet-Lite0's 1000 on Imagenette: 95 % of the probability, KL 0.07 nats where the entropy is 1.15
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Teacher:
    """A frozen classifier of ``(B, 3, size, size)`` RGB in 0..255 into ``classes``.

    ``name`` tells it from other teachers; ``exposure`` says what it has seen, for the student's model card; ``load`` returns it
    as a function to logits ``(B, classes)``, and is called only if its views are not stored yet.
    """

    name: str
    size: int
    classes: int
    exposure: str
    load: Callable[[], Forward]

    @property
    def kept(self) -> int:
        """Classes whose probabilities are stored."""
        return min(KEPT, self.classes)


def load_teacher(name: str, device: torch.device, trust_builder: bool = False) -> Teacher:
    """A packaged teacher by name, or a checkpoint folder; ``trust_builder`` as in ``load_checkpoint``."""
    if name in PACKAGED:
        # fully convolutional: 160 pixels cost a fifth of 260 and keep 98 % of 10 classes
        return Teacher(name, 160, 1000, "ImageNet-1k training set", lambda: _packaged(name, device))
    if not Path(name).exists():
        raise UserError(f"teacher {name!r} is neither a checkpoint folder nor one of {', '.join(PACKAGED)}")
    checkpoint = load_checkpoint(name, trust_builder=trust_builder)
    contract, identity = checkpoint.contract, checkpoint.config["sha256"][WEIGHTS]
    model = Deployed(checkpoint.model, contract).eval().to(device)
    return Teacher(f"{name} {identity}", contract.size, len(contract.labels), "what its own card says", lambda: model)


def _packaged(name: str, device: torch.device) -> Forward:
    net = trained(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: net((x - 127) / 128)


def views_key(teacher: Teacher, recipe: Recipe, source: Source) -> str:
    """What the stored views of a teacher depend on."""
    r = recipe
    return json.dumps([teacher.name, teacher.size, teacher.kept, r.seed, r.min_scale, r.teacher_views, source.identity()])


def stored_views(
    teacher: Teacher,
    source: Source,
    views: int,
    file: Path,
    key: str,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """What the teacher says of each view, computed once and kept in ``file``; ``key`` names what it depends on.

    Returns:
        float32 ``(views, pictures, 2, kept)``: the logarithms of the largest probabilities, and their classes.
    """
    if file.exists():
        try:
            stored = load_file(file)
            if bytes(stored["key"].tolist()).decode() == key:
                return torch.stack([stored["log_probabilities"].float(), stored["classes"].float()], 2)
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete it, and the teacher looks again") from error
    forward, values, classes = teacher.load(), [], []
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for view in range(views):
            title = f"teacher, view {view + 1}/{views}"
            for pictures, *_ in track(source.views(view, teacher.size), description=title, transient=True):
                x = pictures.to(device).permute(0, 3, 1, 2).float()
                largest = forward(x).float().log_softmax(-1).topk(teacher.kept)
                values.append(largest.values.half().cpu())
                classes.append(largest.indices.to(torch.int16).cpu())
    shape = (views, -1, teacher.kept)
    tensors = {"log_probabilities": torch.cat(values).reshape(shape), "classes": torch.cat(classes).reshape(shape)}
    temporary = file.with_suffix(".part")
    save_file({**tensors, "key": torch.from_numpy(np.frombuffer(key.encode(), np.uint8).copy())}, temporary)
    follow_umask(temporary)
    os.replace(temporary, file)
    return torch.stack([tensor.float() for tensor in tensors.values()], 2)


def probabilities(kept: Tensor, classes: int) -> Tensor:
    """``(B, classes)`` from the rows ``(B, 2, kept)`` of :func:`stored_views`."""
    largest, numbers = kept[:, 0].exp(), kept[:, 1].long()
    rest = (1 - largest.sum(1, keepdim=True)).clamp(min=0) / max(classes - kept.shape[2], 1)
    return rest.expand(-1, classes).scatter(1, numbers, largest)
