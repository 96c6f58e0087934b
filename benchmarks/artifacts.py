"""Artifacts to be compared: made once, by the exporters of this package, and timed in turns."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from int8_vs_fp32 import time_in_turns
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.export import ExportedProgram

from lavit_edge.artifact.runners import open_runtime, to_tensor
from lavit_edge.contract import InputContract
from lavit_edge.data.folder import free_pictures
from lavit_edge.errors import UserError, one_line
from lavit_edge.export import executorch
from lavit_edge.export.onnx import to_onnx
from lavit_edge.export.targets import ExecutorchOptions
from lavit_edge.files import staged
from lavit_edge.metrics import sqnr
from lavit_edge.models.deployed import Deployed
from lavit_edge.quantize.calibrate import calibrate, int8_form
from lavit_edge.quantize.program import export_program, tidy
from lavit_edge.quantize.scheme import default_float_layers, quantized_model
from lavit_edge.toolchain import quiet, silent_stderr
from lavit_edge.verdict.read import read

CLASSES = 1000
SUFFIXES = {"ExecuTorch": ".pte", "ONNX Runtime": ".onnx"}
PICTURES = 8  # to calibrate with


@dataclass
class Row:
    """One artifact.

    Attributes:
        int8_by: whose tool quantised it; '' for fp32.
        macs: multiply-adds; None where they are not known.
        calls: of the delegate; None where the runtime has none.
        ms: median by number of threads.
        sqnr_db, same: of the logits against those of fp32 in the same runtime, and the share of pictures with the same top-1.
        failure: why there is no artifact, or why it does not run.
    """

    model: str
    pixels: int
    precision: str
    runtime: str
    int8_by: str = ""
    path: Path | None = None
    macs: int | None = None
    calls: int | None = None
    megabytes: float | None = None
    ms: dict[int, float] | None = None
    sqnr_db: float | None = None
    same: float | None = None
    failure: str = ""


def contract_of(pixels: int, classes: int = CLASSES) -> InputContract:
    return InputContract(pixels, tuple(f"class {index}" for index in range(classes)))


@functools.cache
def pictures(pixels: int, others: bool = False) -> list[Tensor]:
    """Some of the free pictures, ``(1, 3, pixels, pixels)`` each; or the others, to judge what was calibrated with these."""
    contract = contract_of(pixels)
    taken, folder = free_pictures(contract).spread(PICTURES), free_pictures(contract)
    if others:
        seen = set(taken.paths)
        return [
            torch.from_numpy(to_tensor(p))
            for path, (p, _) in zip(folder.paths, folder.inputs(contract, True), strict=True)
            if path not in seen
        ]
    return [torch.from_numpy(to_tensor(p)) for p, _ in taken.inputs(contract)]


def made(row: Row, work: Path, make: Callable[[Path], None]) -> Row:
    """The row with its artifact, which is made unless it is there, or with what went wrong."""
    path = work / f"{row.model}-{row.pixels}-{row.precision}{SUFFIXES[row.runtime]}"
    try:
        if not path.exists():
            with staged(path) as temporary, quiet(), silent_stderr():
                make(temporary)
        row.path, row.megabytes = path, path.stat().st_size / 1e6
    except Exception as error:  # exporters raise whatever they like; the row says it
        row.failure = reason(error)
    return row


def reason(error: Exception) -> str:
    """The first line that says anything, shortened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(f"{type(error).__name__}: {lines[0] if lines else ''}")[:160]


def save_pte(program: ExportedProgram, path: Path) -> None:
    path.write_bytes(executorch.lower(program, ExecutorchOptions()).to_executorch().buffer)


def save_onnx(program: ExportedProgram, path: Path) -> None:
    import onnx

    onnx.save(to_onnx(program), path)


def quantised(deployed: Deployed, seen: Sequence[Tensor]) -> ExportedProgram:
    """Quantised by this package; ``seen``: pictures as :func:`pictures` gives them."""
    pixels, float_layers = seen[0].shape[-1], default_float_layers(deployed.model)
    tensors = int8_form(calibrate(deployed, seen, float_layers))
    int8 = copy.deepcopy(deployed)
    int8.model = quantized_model(int8.model, tensors, float_layers, "int8")
    return export_program(tidy(export_program(int8, pixels).module(check_guards=False)), pixels)


def pt2e(model: nn.Module, seen: Sequence[Tensor]) -> ExportedProgram:
    """Quantised by ExecuTorch's own tool: int8, weights per channel, activations static."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with torch.no_grad():
        prepared = prepare_pt2e(torch.export.export(model, (seen[0],)).module(), quantizer)
        for picture in seen:
            prepared(picture)
        return torch.export.export(convert_pt2e(prepared), (seen[0],))


def ort_static(source: Path, path: Path, seen: Sequence[Tensor]) -> None:
    """Quantised by ONNX Runtime's own tool: Q/DQ, uint8 activations, int8 weights per channel."""
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(q.CalibrationDataReader):
        """The pictures."""

        def __init__(self) -> None:
            self.rows = iter([{"image": picture.numpy()} for picture in seen])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rows, None)

    prepared = path.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    types = dict(activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
    q.quantize_static(prepared, path, Reader(), quant_format=q.QuantFormat.QDQ, per_channel=True, **types)
    prepared.unlink()


def runner(row: Row, threads: int) -> Callable[[], object]:
    """A function that computes one picture."""
    assert row.path is not None
    run = open_runtime(row.path, threads, trusted=True)
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, row.pixels, row.pixels)).astype(np.float32)
    run(picture)  # what it does not take, it says now
    return lambda: run(picture)


def compare(rows: Iterable[Row], judged: Sequence[Tensor]) -> None:
    """Fills in how near each int8 artifact is to the fp32 one of its model, size and runtime."""
    logits: dict[tuple[str, int, str], np.ndarray] = {}
    for row in sorted((row for row in rows if row.path and not row.failure), key=lambda row: row.precision != "fp32"):
        assert row.path is not None
        try:
            run = open_runtime(row.path, 1, trusted=True)
            found = np.concatenate([run(picture.numpy()).reshape(1, -1) for picture in judged])
        except Exception as error:  # the runtimes' exceptions have no common base
            row.failure = reason(error)
            continue
        fp32 = logits.setdefault((row.model, row.pixels, row.runtime), found)
        if row.precision != "fp32":
            row.sqnr_db, row.same = sqnr(fp32, found), float(np.mean(fp32.argmax(1) == found.argmax(1)))


def measure(rows: list[Row], threads: Iterable[int], rounds: int, console: Console) -> None:
    """Fills in multiply-adds, calls of the delegate, and milliseconds: processor time on one thread, else what the clock says."""
    counted: dict[str, int] = {}
    for row in track([row for row in rows if row.path], "reading", console=console, transient=True):
        assert row.path is not None
        try:
            plan = read(row.path)[0]
            row.macs, row.calls = sum(op.macs for op in plan.ops), plan.calls if plan.delegated else None
            counted.setdefault(row.model, row.macs)
        except UserError:
            row.macs = counted.get(row.model)
    for count in threads:
        runs = {}
        for index, row in enumerate(rows):
            if row.path and not row.failure:
                try:
                    runs[index] = runner(row, count)
                except Exception as error:  # the runtimes' exceptions have no common base
                    row.failure = reason(error)
        turns = track(range(rounds), f"timing, {count} thread{'s' * (count > 1)}", console=console, transient=True)
        clock = time.process_time if count == 1 else time.perf_counter
        for index, times in time_in_turns(runs, turns, clock).items():
            rows[index].ms = {**(rows[index].ms or {}), count: float(np.median(times))}
