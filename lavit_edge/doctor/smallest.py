"""The smallest LaViT, random weights, as an int8 program, and how far an artifact of it is from torch."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from lavit_edge.artifact.runners import open_artifact
from lavit_edge.checkpoint import load_checkpoint, save_checkpoint
from lavit_edge.contract import InputContract
from lavit_edge.doctor.findings import Status
from lavit_edge.export.golden import make_payload
from lavit_edge.export.targets import TARGETS
from lavit_edge.metrics import sqnr
from lavit_edge.models import create_model
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize import int8_program
from lavit_edge.quantize.graph import LayerGraph
from lavit_edge.quantize.program import export_program
from lavit_edge.quantize.scheme import HIGH, LOW, SMALLEST_SCALE, default_float_layers, quantizable, quantizable_additions

CONTRACT = InputContract(size=64, labels=tuple(f"class {index}" for index in range(10)))
# A vanilla and a less-attention block in one stage: lowering takes its time per operator, whatever the widths.
OPTIONS: dict[str, Any] = dict(dims=(16,), heads=(2,), depths=(2,), num_vanilla=(1,))
PICTURES = 4
# Least SQNR in dB. The program is 38 dB from fp32, and on x86-64 the artifacts are 47 (Core ML: fp16), 123 (ExecuTorch), 140
# (ONNX Runtime) from the program. A wrong axis, operator or scale leaves less than 10.
LEAST_INT8 = 25.0


@dataclass(frozen=True)
class Smallest:
    """
    Attributes:
        inputs: float32 ``(4, 3, 64, 64)``, noise.
        logits: what torch makes of them by the program, float32 ``(4, 10)``.
    """

    inputs: Tensor
    program: ExportedProgram
    logits: np.ndarray


@functools.cache
@torch.no_grad()
def smallest() -> Smallest:
    """Seeded: the same in every process. It goes through a checkpoint folder, as every model does."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _, inputs = save_smallest(Path(folder) / "checkpoint")
        program = int8_program(load_checkpoint(Path(folder) / "checkpoint"))
    module = program.module()
    return Smallest(inputs, program, torch.cat([module(picture[None]) for picture in inputs]).numpy())


@torch.no_grad()
def save_smallest(path: Path, contract: InputContract = CONTRACT) -> tuple[Deployed, Tensor]:
    """Writes its checkpoint, quantised; returns the model and the inputs that its ranges come from."""
    torch.manual_seed(0)
    model = create_model("lavit_mobile_s", num_classes=len(contract.labels), image_size=contract.size, **OPTIONS).eval()
    torch.nn.init.normal_(model.get_parameter("head.weight"), std=0.005)  # logits of size 1
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)  # residual branches start as nothing
    inputs = torch.randint(0, 256, (PICTURES, 3, contract.size, contract.size)).float()
    deployed = Deployed(model, contract).eval()
    spec = {"name": "lavit_mobile_s", "options": OPTIONS}
    int8 = int8_form(deployed, inputs)
    save_checkpoint(path, model.state_dict(), model=spec, contract=contract, card="# smallest\n", int8=int8)
    return deployed, inputs


def int8_form(model: Deployed, inputs: Tensor) -> dict[str, Tensor]:
    """Every range from the smallest to the largest value on ``inputs``: it exercises the exporters without NNCF.

    A ReLU behind a layer is done by the layer's rounding, as in every program: where a quantiser stood between the two, XNNPACK,
    which computes both at once, left it out.
    """
    clamps = LayerGraph(export_program(model, inputs.shape[-1])).clamps
    float_layers = default_float_layers(model.model)
    layers, additions = quantizable(model.model, float_layers), quantizable_additions(model.model, float_layers)
    seen: dict[str, Tensor] = {}

    def record(path: str, _: Any, taken: tuple[Tensor, ...], given: Tensor) -> None:
        if path in layers:
            seen[f"{path}.input"] = taken[0]
        seen[f"{path}.output"] = given.clamp(*clamps[path]) if path in clamps else given

    modules = {**layers, **additions}
    hooks = [module.register_forward_hook(functools.partial(record, path)) for path, module in modules.items()]
    model(inputs)
    for hook in hooks:
        hook.remove()
    tensors = dict(model.model.state_dict())
    for path, layer in layers.items():
        scale = layer.weight.detach().flatten(1).abs().amax(1).clamp(min=1e-6) / HIGH
        codes = (layer.weight / scale.reshape(-1, *[1] * (layer.weight.dim() - 1))).round()
        tensors |= {f"{path}.weight": codes.to(torch.int8), f"{path}.weight_scale": scale}
    for end, value in seen.items():
        low, high = min(float(value.min()), 0.0), max(float(value.max()), 0.0)
        step = max((high - low) / (HIGH - LOW), SMALLEST_SCALE)
        zero_point = torch.tensor(round(LOW - low / step), dtype=torch.int32)
        tensors |= {f"{end}_scale": torch.tensor(step), f"{end}_zero_point": zero_point}
    return tensors


def round_trip(target: str) -> tuple[Status, str]:
    """Exports the smallest LaViT, runs every artifact on this host and compares its logits with torch's."""
    model = smallest()
    pictures = model.inputs.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    details = []
    with tempfile.TemporaryDirectory() as folder:
        payload = make_payload(model.program, CONTRACT, {}, 1.0)
        TARGETS[target].export(model.program, payload, Path(folder) / f"model{TARGETS[target].suffix}")
        for artifact in sorted(Path(folder).iterdir()):
            run = open_artifact(artifact, threads=1)
            noise = sqnr(model.logits, np.stack([run(picture) for picture in pictures]))
            details.append(f"{artifact.suffix} {noise:.1f} dB" + ("" if noise >= LEAST_INT8 else f", wanted {LEAST_INT8:g}"))
    return "FAIL" if any("wanted" in detail for detail in details) else "OK", f"against torch: {', '.join(details)}"
