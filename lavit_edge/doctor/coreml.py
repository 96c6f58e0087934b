"""coremltools on this host: the smallest LaViT in our evaluator of ML programs, and the breakages that our exporter goes around.

Core ML itself is on Apple's systems alone and is not tried.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status, one_line
from lavit_edge.doctor.smallest import round_trip
from lavit_edge.export import executorch as exporter
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.toolchain import quiet

MODES = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")  # of MIL's gelu


class TanhGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x, approximate="tanh")


class SplitHeads(nn.Module):
    """Reads sizes off its input, which tracing records as integer casts."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, 2, width // 2).transpose(1, 2).softmax(-1)


def convert(program: Any, **options: Any) -> Any:
    import coremltools as ct

    with quiet():
        return ct.convert(program, minimum_deployment_target=ct.target.iOS17, skip_model_load=True, **options)


def gelu() -> tuple[Status, str]:
    model = convert(torch.export.export(TanhGelu().eval(), (torch.randn(1, 8),)).run_decompositions({}))
    (block,) = model.get_spec().mlProgram.functions["main"].block_specializations.values()
    constants = [operation.attributes["val"] for operation in block.operations if operation.type == "const"]
    modes = {text for value in constants for text in value.immediateValue.tensor.strings.values if text in MODES}
    if modes == {"TANH_APPROXIMATION"}:
        return "OK", "not seen here; our models have the exact one"
    return "known", f"becomes {', '.join(modes) or 'something else'} without a word; our models have the exact one"


def trace() -> tuple[Status, str]:
    import coremltools as ct
    import numpy

    x = torch.randn(1, 8, 8)
    try:
        convert(torch.jit.trace(SplitHeads().eval(), x), inputs=[ct.TensorType(shape=x.shape)])
    except Exception as error:  # a TypeError in one version of numpy
        return "known", f"breaks with numpy {numpy.__version__} ({one_line(error)[:70]}); we convert exported programs"
    return "OK", "not seen here; we convert exported programs"


def dialect() -> tuple[Status, str]:
    program = torch.export.export(SplitHeads().eval(), (torch.randn(1, 8, 8),))
    convert(program.run_decompositions({}))
    try:
        convert(program)
    except NotImplementedError as error:
        return "known", f"refused ({one_line(error)[:70]}); we decompose it first"
    return "OK", "not seen here; we decompose it first"


def delegate() -> tuple[Status, str]:
    """ExecuTorch's Core ML delegate: a layer compiled here, run on Apple devices alone. The smallest LaViT takes 10 s."""
    if pins.missing("executorch"):
        return "not installed", pins.install("executorch")
    with quiet():
        program = torch.export.export(TanhGelu().eval(), (torch.randn(1, 8),))
        data = exporter.lower(program, ExecutorchOptions(backend="coreml")).to_executorch().buffer
    return ("OK", f"compiled, {len(data) / 1e3:.0f} kB") if b"CoreMLBackend" in data else ("FAIL", "nothing was delegated")


REPAIR = pins.repair("coreml")
PROBES = (
    Probe("int8 .mlpackage", lambda: round_trip("coreml"), REPAIR),
    Probe(".pte for the Core ML delegate", delegate, REPAIR),
    Probe("tanh GELU", gelu, REPAIR),
    Probe("traced program", trace, REPAIR),
    Probe("program as exported", dialect, REPAIR),
)
