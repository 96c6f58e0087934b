"""Measures the numbers of this machine's profile in lavit_edge/verdict/rates.py: single operators, one thread, float and int8.

    taskset -c 1 python benchmarks/verdict_profile.py

Each number is bytes or multiply-adds divided by time, summed over a few shapes of LaViT's stages, each in a chain of equal
operators; of every chain the fastest of many calls counts, which other processes disturb least. No model is timed here, so that
benchmarks/verdict_calibration.py tests what these numbers predict and not what they were fitted to.
Needs lavit-edge[executorch,onnx].
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from lavit_edge.benchmark.floor import fastest, quantised
from lavit_edge.benchmark.floor import program as exported
from lavit_edge.cli import run_command
from lavit_edge.export.onnx import OPSET, fold_weight_transposes
from lavit_edge.quantize.scheme import QuantizeDequantize
from lavit_edge.toolchain import quiet
from lavit_edge.verdict.read import read

DEVICE = "x86-vnni"
CHAIN = 8  # equal operators, one behind the other
TOKENS = ((3136, 64), (784, 128), (196, 320), (49, 512))  # tokens and channels of the stages at 224 pixels
TINY = torch.ones(1, 4, 4)
Chain = tuple[nn.Module, Tensor, float, int]  # a module, its input, its multiply-adds or bytes, its operators


class Repeat(nn.Module):
    """CHAIN operators, each made by ``make``."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(make() for _ in range(CHAIN))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class AddItself(nn.Module):
    """``x + y`` with a stored ``y`` of the same shape."""

    other: Tensor

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("other", torch.rand_like(x))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.other


class Transposes(nn.Module):
    """Transposed copies of one input and its multiples; in a chain, runtimes would cancel them."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [(x * (1 + index)).transpose(1, 2).contiguous() for index in range(CHAIN)]


class Rescale(nn.Module):
    """Quantise, dequantise and multiply, so that no two conversions meet."""

    def __init__(self) -> None:
        super().__init__()
        self.convert = QuantizeDequantize(0.03, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.convert(x) * 1.01


class Mixed(nn.Module):
    """Operators of many kinds, so small that all they cost is being called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = quantised(nn.Linear(4, 4))
        self.add = AddItself(TINY)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.linear(x).softmax(-1)).transpose(1, 2)


def products(int8: bool) -> Iterator[Chain]:
    for tokens, dim in TOKENS:
        make = (lambda d=dim: quantised(nn.Linear(d, d))) if int8 else (lambda d=dim: nn.Linear(d, d))
        yield Repeat(make), torch.randn(tokens, dim), CHAIN * tokens * dim * dim, CHAIN


def depthwise(int8: bool) -> Iterator[Chain]:
    for grid, dim in ((56, 128), (28, 256), (14, 640)):

        def make(dim: int = dim) -> nn.Module:
            layer = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
            return quantised(layer) if int8 else layer

        yield Repeat(make), torch.randn(1, dim, grid, grid), CHAIN * dim * grid * grid * 9, CHAIN


def passes() -> Iterator[Chain]:
    """Additions and transposes."""
    for tokens, dim in TOKENS:
        x = torch.randn(1, tokens, dim)
        yield Repeat(functools.partial(AddItself, x)), x, CHAIN * 12 * x.numel(), CHAIN
        yield Transposes(), x, CHAIN * 16 * x.numel(), 2 * CHAIN


def conversions() -> Iterator[Chain]:
    """Float to int8 and back, and the multiplication between them."""
    for tokens, dim in TOKENS:
        x = torch.randn(1, tokens, dim)
        yield Repeat(Rescale), x, CHAIN * (5 + 5 + 8) * x.numel(), 3 * CHAIN


def functions(norm: bool) -> Iterator[Chain]:
    """Softmax and GELU, and LayerNorm where asked for."""
    for tokens, dim in TOKENS:
        x = torch.randn(1, tokens, dim)
        yield Repeat(lambda: nn.Softmax(-1)), x, CHAIN * 8 * x.numel(), CHAIN
        yield Repeat(nn.GELU), x, CHAIN * 8 * x.numel(), CHAIN
        if norm:
            yield from norms(((tokens, dim),))


def norms(shapes: tuple[tuple[int, int], ...] = TOKENS) -> Iterator[Chain]:
    for tokens, dim in shapes:
        x = torch.randn(1, tokens, dim)
        yield Repeat(functools.partial(nn.LayerNorm, dim)), x, CHAIN * 8 * x.numel(), CHAIN


def executorch(module: nn.Module, x: Tensor, path: Path, delegate: bool = True) -> Callable[[], None]:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    with quiet():
        lowered = to_edge_transform_and_lower(exported(module, x), partitioner=[XnnpackPartitioner()] if delegate else [])
        path.write_bytes(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(path).load_method("forward")
    return lambda: method.execute([x])


def onnxruntime(module: nn.Module, x: Tensor, path: Path, signed: bool = False) -> Callable[[], None]:
    import onnx
    import onnxruntime

    with quiet():
        model = torch.onnx.export(exported(module, x), (), dynamo=True, opset_version=OPSET, verbose=False, input_names=["x"])
        assert model is not None
        fold_weight_transposes(model.model_proto)
        onnx.save(model.model_proto, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.qdqisint8allowed", "1" if signed else "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {"x": x.numpy()}
    return lambda: session.run(None, inputs)


def typical(run: Callable[[], None], calls: int = 3000) -> float:
    """Processor time of the median call: what a small operator costs is cache misses, and the fastest call has none."""
    times = []
    for _ in range(calls):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def measure(folder: Path, console: Console) -> dict[str, dict[str, float]]:
    path = folder / "chain"

    def rate(runtime: Callable[..., Callable[[], None]], chains: Iterator[Chain], **options: bool) -> float:
        """1e9 a second, over all chains together, less what each operator costs anyway."""
        work = taken = 0.0
        for module, x, amount, count in chains:
            taken += fastest(runtime(module, x, path, **options), threads=1) - count * overhead[runtime]
            work += amount
        return work / taken / 1e9

    overhead = {}  # seconds that an operator costs, however small
    for runtime, suffix in ((executorch, ".pte"), (onnxruntime, ".onnx")):
        tiny = path.with_suffix(suffix)
        overhead[runtime] = typical(runtime(Repeat(Mixed), TINY, tiny)) / len(read(tiny, DEVICE)[0].ops)
    pairs = typical(executorch(Repeat(lambda: nn.Sequential(AddItself(TINY), nn.LayerNorm(4))), TINY, path)) / CHAIN
    steps: dict[str, dict[str, Callable[[], float]]] = {
        "ExecuTorch": {
            "float_gmacs": lambda: rate(executorch, products(False)),
            "int8_gmacs": lambda: rate(executorch, products(True)),
            "depthwise_float_gmacs": lambda: rate(executorch, depthwise(False)),
            "depthwise_int8_gmacs": lambda: rate(executorch, depthwise(True)),
            "gbytes": lambda: rate(executorch, passes()),
            "convert_gbytes": lambda: rate(executorch, conversions()),
            "math_gbytes": lambda: rate(executorch, functions(norm=False)),
            "outside_gbytes": lambda: rate(executorch, norms()),
            "outside_gmacs": lambda: rate(executorch, products(False), delegate=False),
            "op_us": lambda: 1e6 * overhead[executorch],
            "call_us": lambda: 1e6 * (pairs - 2 * overhead[executorch]),
        },
        "ONNX Runtime": {
            "float_gmacs": lambda: rate(onnxruntime, products(False)),
            "int8_gmacs": lambda: rate(onnxruntime, products(True)),
            "slow_gmacs": lambda: rate(onnxruntime, products(True), signed=True),
            "depthwise_float_gmacs": lambda: rate(onnxruntime, depthwise(False)),
            "depthwise_int8_gmacs": lambda: rate(onnxruntime, depthwise(True)),
            "gbytes": lambda: rate(onnxruntime, passes()),
            "convert_gbytes": lambda: rate(onnxruntime, conversions()),
            "math_gbytes": lambda: rate(onnxruntime, functions(norm=True)),
            "op_us": lambda: 1e6 * overhead[onnxruntime],
        },
    }
    figures: dict[str, dict[str, float]] = {}
    for name, numbers in steps.items():
        figures[name] = {key: number() for key, number in track(numbers.items(), name, console=console)}
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), Console(stderr=True)), indent=1))
    return 0


if __name__ == "__main__":
    run_command(main)
