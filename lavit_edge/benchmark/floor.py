"""What this machine reaches at best, for operators to be measured against: matrix products in each runtime, and copies."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lavit_edge.artifact.runners import executorch_method, onnx_session
from lavit_edge.export.executorch import lower
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.quantize.program import tidy
from lavit_edge.quantize.scheme import Dequantize, QuantizeDequantize, QuantizedLayer
from lavit_edge.toolchain import quiet, toolchain
from lavit_edge.verdict.plan import Op

# Of square products, one behind the other. The best counts: on a Xeon with AVX512-VNNI XNNPACK reached 76, 43 and 59e9
# multiply-adds a second in float, 160, 199 and 136 in int8, and ONNX Runtime 82, 84 and 69, 166, 243 and 238.
SIDES, CHAIN = (128, 256, 512), 8
COPIED = 2**18  # floats: 1 MB, as large as the larger activations, and like them in a cache
SECONDS = 0.4  # of each measurement


@dataclass(frozen=True)
class Floor:
    """
    Attributes:
        float_gmacs, int8_gmacs: 1e9 multiply-adds a second of square matrix products in the runtime.
        gbytes: 1e9 bytes a second, read and written, of a copy.
    """

    float_gmacs: float
    int8_gmacs: float
    gbytes: float

    def ms(self, op: Op) -> float:
        """What an operator would take at these limits."""
        if op.macs:
            return op.macs / (self.int8_gmacs if op.int8 else self.float_gmacs) / 1e6
        return op.bytes / self.gbytes / 1e6


def measure_floor(runtime: str, threads: int) -> Floor:
    """Of ``ExecuTorch`` or ``ONNX Runtime``; a few seconds. Raises :class:`UserError` if it is not installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = _xnnpack_products if runtime == "ExecuTorch" else _onnx_products

        def rate(int8: bool) -> float:
            return max(CHAIN * side**3 / fastest(make(folder, side, int8, threads), threads) / 1e9 for side in SIDES)

        float_gmacs, int8_gmacs = rate(False), rate(True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    source, target = torch.rand(COPIED), torch.empty(COPIED)
    gbytes = 8 * COPIED / fastest(lambda: target.copy_(source), threads) / 1e9
    torch.set_num_threads(before)
    return Floor(float_gmacs, int8_gmacs, gbytes)


def fastest(run: Callable[[], object], threads: int, seconds: float = SECONDS) -> float:
    """Seconds of the fastest call, which other processes disturb least.

    On one thread it is processor time, which is the latency without the turns of other processes.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    best, end = float("inf"), clock() + seconds
    while clock() < end:
        start = clock()
        run()
        best = min(best, clock() - start)
    return best


def quantised(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """The layer between quantisers, with random int8 weights."""
    codes = torch.randint(-127, 128, layer.weight.shape, dtype=torch.int8)
    scale = torch.full((len(codes),), 1e-3)
    bias = None if layer.bias is None else layer.bias.detach()
    return QuantizedLayer(layer, codes, bias, QuantizeDequantize(0.03, 3), Dequantize(scale), QuantizeDequantize(0.03, 3))


def program(module: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """A module as the exporters want it."""
    with torch.no_grad():
        exported = torch.export.export(module.eval(), (x,))
        return torch.export.export(tidy(exported.module(check_guards=False)), (x,))


def _xnnpack_products(folder: Path, side: int, int8: bool, threads: int) -> Callable[[], object]:
    """Linear layers; in int8 the first and the last convert, 1 % of the time."""
    layers = [nn.Linear(side, side) for _ in range(CHAIN)]
    module, x = nn.Sequential(*(map(quantised, layers) if int8 else layers)), torch.rand(side, side)
    path = folder / "products.pte"
    with quiet():
        lowered = lower(program(module, x), ExecutorchOptions())
        path.write_bytes(lowered.to_executorch().buffer)
    method = executorch_method(path, threads, trusted=True)
    return lambda: method.execute([x])


def _onnx_products(folder: Path, side: int, int8: bool, threads: int) -> Callable[[], object]:
    with toolchain("ONNX Runtime", "onnx"):
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    rng = np.random.default_rng(0)
    kind = TensorProto.UINT8 if int8 else TensorProto.FLOAT
    # the grid of activations, and of weights: one scale for each output channel, as in the artifacts
    stored = {"scale": np.array(1e-2, np.float32), "zero": np.array(128, np.uint8)}
    stored["scales"] = np.full(side, 1e-3, np.float32)
    nodes = []
    for index in range(CHAIN):
        codes = rng.integers(-127, 128, (side, side)).astype(np.int8)
        stored[f"w{index}"] = codes if int8 else codes.astype(np.float32) / side
        stored[f"zeros{index}"] = np.zeros(side, np.int8)  # its own, as in the artifacts
        grids = ["scale", "zero", f"w{index}", "scales", f"zeros{index}", "scale", "zero"]
        inputs = [f"x{index}", *(grids if int8 else [f"w{index}"])]
        nodes.append(helper.make_node("QLinearMatMul" if int8 else "MatMul", inputs, [f"x{index + 1}"]))
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x0", kind, (side, side))],
        [helper.make_tensor_value_info(f"x{CHAIN}", kind, (side, side))],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    path = folder / "products.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    session = onnx_session(path, threads)
    x = rng.integers(0, 256, (side, side)).astype(np.uint8) if int8 else rng.random((side, side), np.float32)
    return lambda: session.run(None, {"x0": x})
