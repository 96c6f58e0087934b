"""The smallest LaViT, random weights, as a float and as an int8 program, and how far an artifact of it is from torch."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from lavit_edge.checkpoint import load_checkpoint, save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.doctor.findings import Status
from lavit_edge.export.payload import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.parity.compare import Gates, sqnr
from lavit_edge.parity.runners import open_artifact
from lavit_edge.quantize import float_program, int8_program
from lavit_edge.quantize.scheme import HIGH, LOW, SMALLEST_SCALE, default_float_layers, quantizable

CONTRACT = InputContract(size=64, labels=tuple(f"class {index}" for index in range(10)))
# One vanilla block in each of the four stages, which the architecture fixes, and a less-attention block behind the last; the
# reduction of keys and the attention residual once each. Lowering takes its time per operator, whatever the widths.
OPTIONS: dict[str, Any] = dict(dims=(16, 16, 16, 16), heads=(1, 1, 1, 2), depths=(1, 1, 1, 2), num_vanilla=(1, 1, 1, 1))
OPTIONS |= dict(sr_ratios=(1, 1, 2, 1), attention_residual=(False, False, False, True))
PICTURES = 4
# Least SQNR in dB. Random weights are chaotic in int8: a sum that falls on a tie puts two runtimes 20 to 35 dB apart, as far as
# the program is from fp32 (26 dB). A wrong axis, operator or scale leaves less than 10.
LEAST_INT8 = 15.0

Kind = Literal["float", "int8"]


@dataclass(frozen=True)
class Smallest:
    """
    Attributes:
        model: fp32, as it is deployed.
        inputs: float32 ``(4, 3, 64, 64)``, noise.
        logits: what torch makes of them by each program, float32 ``(4, 10)``.
    """

    model: Deployed
    inputs: Tensor
    programs: dict[Kind, ExportedProgram]
    logits: dict[Kind, np.ndarray]


@functools.cache
@torch.no_grad()
def smallest() -> Smallest:
    """Seeded: the same in every process. It goes through a checkpoint folder, as every model does."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        deployed, inputs = save_smallest(Path(folder) / "checkpoint")
        checkpoint = load_checkpoint(Path(folder) / "checkpoint")
        programs: dict[Kind, ExportedProgram] = {"float": float_program(checkpoint), "int8": int8_program(checkpoint)}
    logits = {}
    for kind, program in programs.items():
        module = program.module()
        logits[kind] = torch.cat([module(picture[None]) for picture in inputs]).numpy()
    return Smallest(deployed, inputs, programs, logits)


@torch.no_grad()
def save_smallest(path: Path) -> tuple[Deployed, Tensor]:
    """Writes its checkpoint, quantised; returns the model and the inputs that its ranges come from."""
    torch.manual_seed(0)
    model = create_model("lavit_nano", num_classes=10, image_size=CONTRACT.size, **OPTIONS).eval()
    torch.nn.init.normal_(model.get_parameter("head.weight"))  # logits of size 1, not 0.02
    inputs = torch.randint(0, 256, (PICTURES, 3, CONTRACT.size, CONTRACT.size)).float()
    deployed = Deployed(model, CONTRACT).eval()
    spec = {"name": "lavit_nano", "options": OPTIONS}
    int8 = int8_form(deployed, inputs)
    save_checkpoint(path, model.state_dict(), model=spec, contract=CONTRACT, card="# smallest\n", int8=int8)
    return deployed, inputs


def int8_form(model: Deployed, inputs: Tensor) -> dict[str, Tensor]:
    """Every range from the smallest to the largest value on ``inputs``: it exercises the exporters without NNCF."""
    layers, seen, hooks = quantizable(model.model, default_float_layers(model.model)), {}, []

    def record(path: str, _: Any, taken: tuple[Tensor], given: Tensor) -> None:
        seen[path] = {"input": taken[0], "output": given}

    for path, layer in layers.items():
        hooks.append(layer.register_forward_hook(functools.partial(record, path)))
    model(inputs)
    for hook in hooks:
        hook.remove()
    tensors = dict(model.model.state_dict())
    for path, layer in layers.items():
        scale = layer.weight.detach().flatten(1).abs().amax(1).clamp(min=1e-6) / HIGH
        codes = (layer.weight / scale.reshape(-1, *[1] * (layer.weight.dim() - 1))).round()
        tensors |= {f"{path}.weight": codes.to(torch.int8), f"{path}.weight_scale": scale}
        for end, value in seen[path].items():
            low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
            step = max((high - low) / (HIGH - LOW), SMALLEST_SCALE)
            zero_point = torch.tensor(round(LOW - low / step), dtype=torch.int32)
            tensors |= {f"{path}.{end}_scale": torch.tensor(step), f"{path}.{end}_zero_point": zero_point}
    return tensors


def round_trip(target: str, kind: Kind) -> tuple[Status, str]:
    """Exports the smallest LaViT, runs every artifact on this host and compares its logits with torch's."""
    model, gates = smallest(), Gates()
    pictures = model.inputs.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    details = []
    with tempfile.TemporaryDirectory() as folder:
        payload = make_payload(model.programs[kind], CONTRACT, {}, 1.0)
        TARGETS[target].export(model.programs[kind], payload, Path(folder) / f"model{TARGETS[target].suffix}")
        for artifact in sorted(Path(folder).iterdir()):
            run = open_artifact(artifact, threads=1)
            noise = sqnr(model.logits[kind], np.stack([run(picture) for picture in pictures]))
            least = gates.float16_sqnr if artifact.suffix == ".mlpackage" else gates.float_sqnr
            least = LEAST_INT8 if kind == "int8" else least
            details.append(f"{artifact.suffix} {noise:.1f} dB" + ("" if noise >= least else f", wanted {least:g}"))
    return "FAIL" if any("wanted" in detail for detail in details) else "OK", f"against torch: {', '.join(details)}"
