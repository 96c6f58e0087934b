"""ONNX and ONNX Runtime on this host: the smallest LaViT, and the breakages that our exporter goes around."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status, one_line
from lavit_edge.doctor.smallest import round_trip
from lavit_edge.export.onnx import OPSET
from lavit_edge.toolchain import quiet

Q = torch.ops.quantized_decomposed
GRID = (0.02, 3, -128, 127, torch.int8)


class Int8Linear(nn.Module):
    """One int8 linear layer with a bias, as the int8 program has it."""

    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (width, width), dtype=torch.int8))
        self.register_buffer("scale", torch.full((width,), 0.001))
        self.register_buffer("zero_point", torch.zeros(width, dtype=torch.int64))
        self.register_buffer("bias", torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = Q.dequantize_per_channel.default(self.weight, self.scale, self.zero_point, 0, -127, 127, torch.int8)
        return self.through_int8(nn.functional.linear(self.through_int8(x), weight, self.bias))

    def through_int8(self, x: Tensor) -> Tensor:
        return Q.dequantize_per_tensor.default(Q.quantize_per_tensor.default(x, *GRID), *GRID)


def exported(x: Tensor, opset: int) -> tuple[nn.Module, bytes]:
    """The layer for ``x``, ``(1, N, width)``, in torch and as an ONNX file."""
    torch.manual_seed(0)
    module = Int8Linear(x.shape[-1]).eval()
    with quiet():
        names: Any = dict(input_names=["x"], output_names=["y"])
        program = torch.onnx.export(
            torch.export.export(module, (x,)), (), dynamo=True, opset_version=opset, optimize=True, verbose=False, **names
        )
    assert program is not None
    return module, program.model_proto.SerializeToString()


def session(model: bytes | Path, save: Path | None = None, **settings: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if save is not None:
        options.optimized_model_filepath = str(save)
    for name, value in settings.items():
        options.add_session_config_entry(f"session.{name}", value)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def opset() -> tuple[Status, str]:
    x = torch.randn(1, 6, 12)
    module, model = exported(x, OPSET)
    off = float(np.abs(session(model).run(None, {"x": x.numpy()})[0] - module(x).numpy()).max())
    if off > GRID[0] * 1.01:  # a sum on a tie may be rounded the other way
        return "FAIL", f"an int8 linear layer in opset {OPSET} is off by {off:.2g}"
    try:
        session(exported(x, OPSET + 1)[1])
    except Exception as error:  # its exceptions have no common base
        return "known", f"ONNX Runtime refuses its own rewrite of it; we write opset {OPSET} ({one_line(error)[:80]})"
    return "OK", f"not seen here; we write opset {OPSET}"


def saturation() -> tuple[Status, str]:
    """A product with int8 weights at the end of their range, as ONNX Runtime computes it when nothing is set."""
    x = torch.full((1, 6, 12), 2.5)
    module, model = exported(x, OPSET)
    expected = module(x).numpy()
    plain, safe = session(model), session(model, x64quantprecision="1")  # as lavit_edge/artifact/runners.py sets
    off, safely_off = (float(np.abs(each.run(None, {"x": x.numpy()})[0] - expected).max()) for each in (plain, safe))
    if safely_off > GRID[0] * 1.01:
        return "FAIL", f"an int8 linear layer is off by {safely_off:.2g}"
    if off > GRID[0] * 1.01:
        return "known", f"saturate without VNNI, here by {off:.2g}; we set session.x64quantprecision to 1"
    return "OK", "do not saturate on this CPU"


REPAIR = pins.repair("onnx")
PROBES = (
    Probe("int8 .onnx and .ort", lambda: round_trip("onnx"), REPAIR),
    Probe(f"Q/DQ in opset {OPSET + 1}", opset, REPAIR),
    Probe("int8 products of this CPU", saturation, REPAIR),
)
