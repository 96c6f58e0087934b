"""ExecuTorch on this host: the smallest LaViT in its XNNPACK delegate, and the breakages that our exporter goes around."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lavit_edge.doctor import pins
from lavit_edge.doctor.findings import Probe, Status
from lavit_edge.doctor.smallest import round_trip
from lavit_edge.export import executorch as exporter
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.toolchain import quiet, silent_stderr

Q = torch.ops.quantized_decomposed
GRID = (0.02, 3, -128, 127, torch.int8)
LONGEST = 60  # seconds for the process that is expected to crash


class SoftmaxAfterConvolution(nn.Module):
    """``softmax(conv(a) + b)`` over the last of four axes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.conv(a) + b).softmax(-1)


class LinearBehindReshape(nn.Module):
    """An int8 linear layer whose input is dequantised, reshaped and, as ``quantize.program.tidy`` does, quantised again."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.again = again
        self.register_buffer("weight", torch.randint(-127, 128, (8, 12), dtype=torch.int8))
        self.register_buffer("scale", torch.full((8,), 0.01))
        self.register_buffer("zero_point", torch.zeros(8, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.through_int8(x).reshape(1, -1, 12)
        x = self.through_int8(x) if self.again else x
        weight = Q.dequantize_per_channel.default(self.weight, self.scale, self.zero_point, 0, -127, 127, torch.int8)
        return self.through_int8(nn.functional.linear(x, weight))

    def through_int8(self, x: Tensor) -> Tensor:
        return Q.dequantize_per_tensor.default(Q.quantize_per_tensor.default(x, *GRID), *GRID)


def error(module: nn.Module, *inputs: Tensor, repaired: bool = True) -> float:
    """Largest difference between a module in XNNPACK and in torch. Arguments as of :func:`lower`."""
    return float((execute(module, *inputs, repaired=repaired)(*inputs) - module(*inputs)).abs().max())


def execute(module: nn.Module, *example: Tensor, repaired: bool = True) -> Any:
    """The module as a function that XNNPACK computes. Arguments as of :func:`lower`."""
    from executorch.runtime import Runtime

    with silent_stderr(), tempfile.TemporaryDirectory() as folder:
        path = lower(module, Path(folder) / "model.pte", *example, repaired=repaired)
        method = Runtime.get().load_program(path).load_method("forward")
    return lambda *inputs: method.execute(list(inputs))[0].clone()


def lower(module: nn.Module, path: Path, *example: Tensor, repaired: bool = True) -> Path:
    """Writes a module for XNNPACK; as ExecuTorch does by itself where ``repaired`` is not asked for."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad(), quiet():
        program = torch.export.export(module.eval(), example)
        if repaired:
            lowered = exporter.lower(program, ExecutorchOptions())
        else:
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(lowered.to_executorch().buffer)
    return path


def softmax() -> tuple[Status, str]:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 4, 6, 5)
    module = SoftmaxAfterConvolution()
    wrong, right = error(module, a, b, repaired=False), error(module, a, b)
    if right > 1e-5:
        return "FAIL", f"softmax over scores that we made three-dimensional is off by {right:.2g}"
    if wrong > 1e-5:
        return "known", f"off by {wrong:.2g} without a word (it goes over the channels); we export it in three dimensions"
    return "OK", "not seen here"


def reshape() -> tuple[Status, str]:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 4, 12)
    right = error(LinearBehindReshape(again=True), x)
    if right > 1e-5:
        return "FAIL", f"an int8 linear layer is off by {right:.2g}"
    try:
        wrong = error(LinearBehindReshape(again=False), x)
    except Exception as failure:
        return "known", f"refused ({type(failure).__name__}); we quantise again behind every reshape, which is exact"
    return ("OK", "not seen here") if wrong <= 1e-5 else ("known", f"off by {wrong:.2g}; we quantise again behind every reshape")


def memory_format() -> tuple[Status, str]:
    """The same numbers in ``(1, 3, size, size)``, contiguous and in channels-last memory."""
    torch.manual_seed(0)
    module, x = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 6, 6)
    with torch.no_grad():
        method, expected = execute(module, x), module(x)
        if float((method(x) - expected).abs().max()) > 1e-4:
            return "FAIL", "a convolution of a contiguous picture is wrong"
        try:
            wrong = float((method(x.to(memory_format=torch.channels_last)) - expected).abs().max())
        except RuntimeError:
            return "OK", "refused; we pass contiguous ones"
    return ("known", f"off by {wrong:.2g} without a word; we pass contiguous ones") if wrong > 1e-4 else ("OK", "not seen here")


LOAD_FROM_BUFFER = """
import pathlib, sys, torch
from lavit_edge.selftest import leave_out_what_reading_needs_not
leave_out_what_reading_needs_not(sys.argv[1])
from executorch.extension.pybindings import portable_lib
data = pathlib.Path(sys.argv[1]).read_bytes()
module = portable_lib._load_for_executorch_from_buffer(bytes(bytearray(data)))  # a copy that nobody else holds
others = [b"\\xff" * len(data) for _ in range(8)]
same = portable_lib._load_for_executorch(sys.argv[1])
x = [torch.ones(1, 1024)]
print(torch.equal(module.forward(x)[0], same.forward(x)[0]))
"""


def buffer() -> tuple[Status, str]:
    """In a process of its own: the runtime reads memory that Python has given back."""
    with tempfile.TemporaryDirectory() as folder:
        path = lower(nn.Linear(1024, 1024), Path(folder) / "model.pte", torch.ones(1, 1024))  # too large for a free list
        command = [sys.executable, "-W", "ignore", "-c", LOAD_FROM_BUFFER, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    if done.returncode > 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        return "known", f"the process died ({done.returncode}); we load programs from their path"
    return ("OK", "not seen here") if "True" in done.stdout else ("known", "wrong results; we load programs from their path")


REPAIR = pins.repair("executorch")
PROBES = (
    Probe("int8 .pte", lambda: round_trip("executorch"), REPAIR),
    Probe("4-D softmax beside a convolution", softmax, REPAIR),
    Probe("int8 linear behind a reshape", reshape, REPAIR),
    Probe("channels-last input", memory_format, REPAIR),
    Probe("program from a buffer", buffer, REPAIR),
)
